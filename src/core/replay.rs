//! Signatures seen within the skew window: a hello is accepted once (design.md §7).

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::Hasher;
use crate::identity::Signature;
use crate::limits::{HELLO_SKEW, REPLAY_MAX};
use crate::time::{Millis, Mono};

/// A signature made up to one skew in the future stays acceptable until one skew after that.
const WINDOW: Millis = Millis(2 * HELLO_SKEW.0);

/// A client that comes back within the millisecond of its own clock signs the same text again: its
/// second hello may follow the first by that much, and the time it took here.
const SAME_MOMENT: Millis = Millis(2);

/// What is remembered of a signature: the beginning of its nonce point R, which is as unique as the
/// whole. Of a million others none is likely to begin like it, and nobody can make one that begins
/// like another's to come.
type Beginning = [u8; 8];

/// Bounded memory of accepted signatures: after a storm it has one of every session, so that it is
/// kept small.
#[derive(Debug)]
pub(crate) struct Replay {
    hasher: Hasher,
    /// Oldest first.
    order: VecDeque<(Mono, Beginning)>,
    /// Places in `order`, counted from the first that ever was there, and wrapping.
    seen: HashTable<u32>,
    /// The count of the oldest.
    oldest: u32,
}

impl Replay {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            hasher,
            order: VecDeque::new(),
            seen: HashTable::new(),
            oldest: 0,
        }
    }

    /// Remembers the signature; false if it was accepted before, within the window.
    pub(crate) fn accept(&mut self, now: Mono, signature: &Signature) -> bool {
        while let Some(&(at, _)) = self.order.front() {
            if now.since(at) <= WINDOW && self.order.len() < REPLAY_MAX {
                break;
            }
            self.forget_oldest();
        }
        let mut beginning = Beginning::default();
        beginning.copy_from_slice(&signature.0[..8]);
        let (order, oldest) = (&self.order, self.oldest);
        let nth = |count: u32| order.get(count.wrapping_sub(oldest) as usize);
        let hash_of = |count: &u32| nth(*count).map_or(0, |seen| self.hasher.hash_one(seen.1));
        let hash = self.hasher.hash_one(beginning);
        let is_it = |count: &u32| nth(*count).is_some_and(|seen| seen.1 == beginning);
        if let Some((first, _)) = self.seen.find(hash, is_it).and_then(|count| nth(*count)) {
            return now.since(*first) <= SAME_MOMENT;
        }
        // Bounded by `REPLAY_MAX`.
        let count = oldest.wrapping_add(u32::try_from(order.len()).unwrap_or(0));
        self.seen.insert_unique(hash, count, hash_of);
        self.order.push_back((now, beginning));
        true
    }

    fn forget_oldest(&mut self) {
        if let Some((_, beginning)) = self.order.pop_front() {
            let oldest = self.oldest;
            let hash = self.hasher.hash_one(beginning);
            if let Ok(entry) = self.seen.find_entry(hash, |count| *count == oldest) {
                entry.remove();
            }
            self.oldest = oldest.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_accepted_once_within_the_window() {
        let mut replay = Replay::new(Hasher::default());
        let signature = Signature([7; 64]);
        assert!(replay.accept(Mono(0), &signature));
        assert!(
            replay.accept(Mono(SAME_MOMENT.0), &signature),
            "the same moment"
        );
        assert!(!replay.accept(Mono(SAME_MOMENT.0 + 1), &signature));
        assert!(!replay.accept(Mono(WINDOW.0), &signature));
        assert!(replay.accept(Mono(WINDOW.0 + 1), &signature));
        assert!(replay.accept(Mono(WINDOW.0 + 1), &Signature([8; 64])));
    }

    #[test]
    fn each_is_remembered_until_its_own_window_ends_however_many_there_were() {
        let signature = |n: u64| {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            Signature(bytes)
        };
        let mut replay = Replay {
            oldest: u32::MAX - 50,
            ..Replay::new(Hasher::with_seed(1))
        };
        let step = WINDOW.0 / 100;
        for n in 0..1000 {
            let now = Mono(n * step);
            assert!(replay.accept(now, &signature(n)));
            for earlier in n.saturating_sub(100)..n {
                assert!(!replay.accept(now, &signature(earlier)), "{earlier} at {n}");
            }
            assert!(replay.order.len() <= 101);
            assert_eq!(replay.seen.len(), replay.order.len());
        }
    }
}
