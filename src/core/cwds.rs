//! Sessions by working directory: what a status hook matches on (protocol.md §2.3).
//!
//! Also keeps one copy of each directory's name, since many sessions share it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::Hasher;

/// For each directory the present sessions, by the order their leases began.
#[derive(Debug)]
pub(crate) struct Cwds(HashMap<Rc<str>, BTreeMap<u64, u32>, Hasher>);

impl Cwds {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self(HashMap::with_hasher(hasher))
    }

    /// Enters a session; gives the shared name back.
    pub(crate) fn enter(&mut self, cwd: &str, order: u64, slot: u32) -> Rc<str> {
        if let Some((name, _)) = self.0.get_key_value(cwd) {
            let name = Rc::clone(name);
            self.0
                .entry(Rc::clone(&name))
                .or_default()
                .insert(order, slot);
            return name;
        }
        let name: Rc<str> = cwd.into();
        self.0
            .insert(Rc::clone(&name), BTreeMap::from([(order, slot)]));
        name
    }

    /// Removes a session.
    pub(crate) fn leave(&mut self, cwd: &str, order: u64) {
        if let Some(sessions) = self.0.get_mut(cwd) {
            sessions.remove(&order);
            if sessions.is_empty() {
                self.0.remove(cwd);
            }
        }
    }

    /// Sessions in all directories.
    #[cfg(feature = "marks")]
    pub(crate) fn len(&self) -> usize {
        // A sum: the order in which directories are visited cannot be seen.
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The sessions of a directory, latest first.
    pub(crate) fn latest_first(&self, cwd: &str) -> impl Iterator<Item = u32> {
        self.0
            .get(cwd)
            .into_iter()
            .flat_map(|sessions| sessions.values().rev().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_comes_first_and_nothing_is_left_behind() {
        let mut cwds = Cwds::new(Hasher::default());
        let first = cwds.enter("/srv", 1, 10);
        let second = cwds.enter("/srv", 2, 20);
        assert!(Rc::ptr_eq(&first, &second));
        assert_eq!(cwds.latest_first("/srv").collect::<Vec<_>>(), [20, 10]);
        cwds.leave("/srv", 2);
        cwds.leave("/srv", 2);
        assert_eq!(cwds.latest_first("/srv").collect::<Vec<_>>(), [10]);
        cwds.leave("/srv", 1);
        assert!(cwds.0.is_empty());
    }
}
