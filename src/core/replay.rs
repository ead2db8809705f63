//! Signatures seen within the skew window: a hello is accepted once (design.md §7).

use std::collections::{HashMap, VecDeque};

use crate::Hasher;
use crate::identity::Signature;
use crate::limits::{HELLO_SKEW, REPLAY_MAX};
use crate::time::{Millis, Mono};

/// A signature made up to one skew in the future stays acceptable until one skew after that.
const WINDOW: Millis = Millis(2 * HELLO_SKEW.0);

/// A client that comes back within the millisecond of its own clock signs the same text again: its
/// second hello may follow the first by that much, and the time it took here.
const SAME_MOMENT: Millis = Millis(2);

/// Bounded memory of accepted signatures.
#[derive(Debug)]
pub(crate) struct Replay {
    seen: HashMap<[u8; 16], Mono, Hasher>,
    order: VecDeque<(Mono, [u8; 16])>,
}

impl Replay {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            seen: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
        }
    }

    /// Remembers the signature; false if it was accepted before, within the window.
    pub(crate) fn accept(&mut self, now: Mono, signature: &Signature) -> bool {
        while let Some(&(at, old)) = self.order.front() {
            if now.since(at) <= WINDOW && self.order.len() < REPLAY_MAX {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&old);
        }
        // The first half of a signature is the nonce point R: as unique as the whole.
        let mut mark = [0; 16];
        mark.copy_from_slice(&signature.0[..16]);
        if let Some(first) = self.seen.get(&mark) {
            return now.since(*first) <= SAME_MOMENT;
        }
        self.seen.insert(mark, now);
        self.order.push_back((now, mark));
        true
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
}
