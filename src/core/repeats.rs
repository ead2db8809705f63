//! Sends that may have been made before, so that the disk is asked only about those.

use std::collections::{HashSet, VecDeque};

use crate::Hasher;
use crate::limits::REPEATS_MAX;

/// Hashes of what senders called their messages, oldest first. What is not in here is new; what is
/// may be a repeat, and the disk knows. Bounded: beyond it the oldest is forgotten, and a send
/// repeated after so many others counts as new.
#[derive(Debug)]
pub(crate) struct Repeats {
    seen: HashSet<u64, Hasher>,
    order: VecDeque<u64>,
}

impl Repeats {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            seen: HashSet::with_hasher(hasher),
            order: VecDeque::new(),
        }
    }

    /// Notes a send; true if it may have been made before.
    pub(crate) fn note(&mut self, hash: u64) -> bool {
        if !self.seen.insert(hash) {
            return true;
        }
        self.order.push_back(hash);
        if self.order.len() > REPEATS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }

    /// A send was refused by the disk: made again, it is new.
    pub(crate) fn forget(&mut self, hash: u64) {
        // Its place in the order stays, and forgets nothing when its turn comes.
        self.seen.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_may_be_a_repeat_until_so_many_others_came() {
        let mut repeats = Repeats::new(Hasher::with_seed(1));
        assert!(!repeats.note(0));
        assert!(repeats.note(0));
        repeats.forget(0);
        assert!(!repeats.note(0));
        for hash in 1..=REPEATS_MAX as u64 {
            assert!(!repeats.note(hash));
        }
        assert!(!repeats.note(0));
    }
}
