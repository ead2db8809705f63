//! Session keys of a mesh that were present once: mail for them is kept for their return.

use std::collections::{HashMap, VecDeque};

use crate::Hasher;
use crate::ids::PubKey;
use crate::limits::KNOWN_KEYS_MAX;
use crate::peer::MemberIx;

/// Keys whose sessions have ended, with whose they were. Bounded: beyond it the one that ended
/// first is forgotten, and mail for it is refused as for a stranger.
#[derive(Debug)]
pub(crate) struct Known {
    owners: HashMap<PubKey, MemberIx, Hasher>,
    order: VecDeque<PubKey>,
}

impl Known {
    pub(crate) fn new(hasher: &Hasher) -> Self {
        Self {
            owners: HashMap::with_hasher(hasher.clone()),
            order: VecDeque::new(),
        }
    }

    /// A session of that key ended.
    pub(crate) fn remember(&mut self, key: PubKey, owner: MemberIx) {
        if self.owners.insert(key, owner).is_none() {
            self.order.push_back(key);
        }
        while self.owners.len() > KNOWN_KEYS_MAX {
            let Some(first) = self.order.pop_front() else {
                return;
            };
            self.owners.remove(&first);
        }
    }

    /// Whose key it was.
    pub(crate) fn owner(&self, key: &PubKey) -> Option<MemberIx> {
        self.owners.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_end_is_the_first_forgotten() {
        let mut known = Known::new(&Hasher::with_seed(1));
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            PubKey(bytes)
        };
        for n in 0..=KNOWN_KEYS_MAX {
            known.remember(key(n), MemberIx(1));
            known.remember(key(n), MemberIx(2));
        }
        assert_eq!(known.owner(&key(0)), None);
        assert_eq!(known.owner(&key(1)), Some(MemberIx(2)));
        assert_eq!(known.order.len(), KNOWN_KEYS_MAX);
    }
}
