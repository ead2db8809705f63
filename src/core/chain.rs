//! Sessions in an order, linked through themselves: those of a mesh, of a member, of a directory.
//!
//! Most members have one or two sessions, and most directories one. A tree of its own would cost
//! each of them a node with room for eleven; a link costs a session eight bytes and a list none.
//! Whoever is entered last mostly belongs at the end, so that entering, too, takes one step.

use crate::handle::HandleSlab;

/// No neighbour.
const NIL: u32 = u32::MAX;

/// The lists a session may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Those present in a mesh, in the order in which their leases began.
    Mesh,
    /// Those of a member, in the same order.
    Member,
    /// Those of a member and kind that are online, in the order in which they attached.
    Online,
    /// Those with the same working directory, in the order in which their leases began.
    Cwd,
}

/// A session's place in one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    prev: u32,
    next: u32,
}

/// What lists are made of.
pub(crate) trait Linked {
    /// Its place in a list, if it may be in such a one; what stands for one it is not in means
    /// nothing.
    fn link(&self, list: List) -> Option<Link>;

    /// See [`Self::link`].
    fn link_mut(&mut self, list: List) -> Option<&mut Link>;

    /// By what a list is in order.
    fn rank(&self, list: List) -> u64;
}

/// The two ends of a list, by slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            prev: NIL,
            next: NIL,
        }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            first: NIL,
            last: NIL,
            len: 0,
        }
    }
}

fn link_of<T: Linked>(peers: &HandleSlab<T>, list: List, slot: u32) -> Option<Link> {
    peers.get_slot(slot)?.link(list)
}

fn some(slot: u32) -> Option<u32> {
    (slot != NIL).then_some(slot)
}

impl Chain {
    /// How many sessions it has.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot of the first session.
    pub(crate) fn first(&self) -> Option<u32> {
        some(self.first)
    }

    /// Enters a session, which must not be in such a list already.
    pub(crate) fn insert<T: Linked>(&mut self, peers: &mut HandleSlab<T>, list: List, slot: u32) {
        let rank_of =
            |peers: &HandleSlab<T>, slot| peers.get_slot(slot).map_or(0, |peer| peer.rank(list));
        let own = rank_of(peers, slot);
        let (mut prev, mut next) = (self.last, NIL);
        while prev != NIL && rank_of(peers, prev) > own {
            next = prev;
            prev = link_of(peers, list, prev).map_or(NIL, |link| link.prev);
        }
        let peer = peers.get_slot_mut(slot);
        if let Some(link) = peer.and_then(|peer| peer.link_mut(list)) {
            *link = Link { prev, next };
        }
        *self.after(peers, list, prev) = slot;
        *self.before(peers, list, next) = slot;
        self.len += 1;
    }

    /// Takes out the session whose place is `link`; it may have left its slot already.
    pub(crate) fn remove<T: Linked>(&mut self, peers: &mut HandleSlab<T>, list: List, link: Link) {
        *self.after(peers, list, link.prev) = link.next;
        *self.before(peers, list, link.next) = link.prev;
        self.len -= 1;
    }

    /// What names the neighbour after `slot`.
    fn after<'a, T: Linked>(
        &'a mut self,
        peers: &'a mut HandleSlab<T>,
        list: List,
        slot: u32,
    ) -> &'a mut u32 {
        let peer = peers.get_slot_mut(slot);
        match peer.and_then(|peer| peer.link_mut(list)) {
            Some(link) => &mut link.next,
            None => &mut self.first,
        }
    }

    /// What names the neighbour before `slot`.
    fn before<'a, T: Linked>(
        &'a mut self,
        peers: &'a mut HandleSlab<T>,
        list: List,
        slot: u32,
    ) -> &'a mut u32 {
        let peer = peers.get_slot_mut(slot);
        match peer.and_then(|peer| peer.link_mut(list)) {
            Some(link) => &mut link.prev,
            None => &mut self.last,
        }
    }

    /// The slots, in order.
    pub(crate) fn iter<T: Linked>(
        self,
        peers: &HandleSlab<T>,
        list: List,
    ) -> impl Iterator<Item = u32> {
        std::iter::successors(some(self.first), move |slot| {
            some(link_of(peers, list, *slot)?.next)
        })
    }

    /// The slots, the last first.
    pub(crate) fn iter_back<T: Linked>(
        self,
        peers: &HandleSlab<T>,
        list: List,
    ) -> impl Iterator<Item = u32> {
        std::iter::successors(some(self.last), move |slot| {
            some(link_of(peers, list, *slot)?.prev)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    struct Node {
        rank: u64,
        link: Link,
    }

    impl Linked for Node {
        fn link(&self, _: List) -> Option<Link> {
            Some(self.link)
        }

        fn link_mut(&mut self, _: List) -> Option<&mut Link> {
            Some(&mut self.link)
        }

        fn rank(&self, _: List) -> u64 {
            self.rank
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u64),
        /// The one at that place.
        Leave(usize),
        /// The same, after it has left its slot.
        Vanish(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0_u64..1000).prop_map(Step::Enter),
            1 => (0_usize..20).prop_map(Step::Leave),
            1 => (0_usize..20).prop_map(Step::Vanish),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_chain_is_an_ordered_map(steps in vec(step(), 1..200)) {
            let list = List::Mesh;
            let mut slab = HandleSlab::new();
            let mut chain = Chain::default();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Enter(rank) if !model.contains_key(&rank) => {
                        let slot = slab.insert(Node { rank, link: Link::default() }).slot;
                        chain.insert(&mut slab, list, slot);
                        model.insert(rank, slot);
                    }
                    Step::Enter(_) => {}
                    Step::Leave(place) | Step::Vanish(place) => {
                        let found = model.iter().nth(place).map(|(rank, slot)| (*rank, *slot));
                        let Some((rank, slot)) = found else { continue };
                        model.remove(&rank);
                        let link = slab.get_slot(slot).unwrap().link;
                        if let Step::Vanish(_) = step {
                            slab.remove(slot);
                        }
                        chain.remove(&mut slab, list, link);
                        slab.remove(slot);
                    }
                }
                prop_assert!(chain.iter(&slab, list).eq(model.values().copied()));
                prop_assert!(chain.iter_back(&slab, list).eq(model.values().rev().copied()));
                prop_assert_eq!(chain.first(), model.values().next().copied());
                prop_assert_eq!((chain.len(), chain.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
