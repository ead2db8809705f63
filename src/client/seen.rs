//! Which pushes have been told already.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A bounded memory of message ids, kept as 128-bit fingerprints. Costs nothing until the first.
#[derive(Debug, Default)]
pub(super) struct Seen {
    known: HashSet<u128>,
    /// The same, oldest first.
    order: VecDeque<u128>,
}

impl Seen {
    /// Remembers `id`, forgetting the oldest beyond `capacity`; whether it is new.
    pub(super) fn insert(&mut self, id: &str, capacity: usize) -> bool {
        let fingerprint = fingerprint(id);
        if !self.known.insert(fingerprint) {
            return false;
        }
        self.order.push_back(fingerprint);
        while self.order.len() > capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        true
    }
}

/// Two independent 64-bit hashes. The ids are the broker's, so there is nobody to fear who would
/// search for two that are alike.
fn fingerprint(id: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        id.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_no_more() {
        let mut seen = Seen::default();
        for n in 0..10 {
            assert!(seen.insert(&n.to_string(), 4));
            assert!(!seen.insert(&n.to_string(), 4));
        }
        assert!((6..10).all(|n| !seen.insert(&n.to_string(), 4)));
        assert_eq!((seen.known.len(), seen.order.len()), (4, 4));
        assert!(seen.insert("5", 4), "forgotten");
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let mut seen = Seen::default();
        assert!(seen.insert("a", 0) && seen.insert("a", 0));
    }
}
