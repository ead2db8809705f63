//! A slab of sessions whose handles go stale: the storage side of fencing.
//!
//! Owns the generation of every slot, nothing of what a session means. Whoever holds a
//! [`PeerHandle`] from an earlier attachment, or of an earlier tenant of the slot, finds nothing.

use crate::ids::PeerHandle;
use crate::pages::{PagedSlab, Pages};

/// Values in numbered slots, each under a generation that rises with every attachment and when
/// the slot is freed, and that outlives the tenant: no two attachments of one slot ever share a
/// generation, whoever they were of (until it wraps, after 2^32 of them in one slot).
///
/// Generations start at 1, so a zeroed handle matches nothing. Slots are used again, the last one
/// freed first; memory for the largest number of tenants there ever was at once is kept.
#[derive(Debug)]
pub struct HandleSlab<T> {
    tenants: PagedSlab<T>,
    /// By slot, vacant ones included: the generation of the tenant, or of the next one.
    generations: Pages<u32>,
}

impl<T> HandleSlab<T> {
    /// An empty slab.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tenants: PagedSlab::new(),
            generations: Pages::new(),
        }
    }

    /// How many slots have a tenant.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether no slot has a tenant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Puts `value` into a vacant slot; the handle is that of its first attachment.
    ///
    /// # Panics
    /// With 2^32 tenants; the cap on sessions keeps far below.
    pub fn insert(&mut self, value: T) -> PeerHandle {
        let index = self.tenants.insert(value);
        if index == self.generations.len() {
            self.generations.push(1);
        }
        let slot = u32::try_from(index).expect("sessions must number below 2^32");
        PeerHandle {
            slot,
            generation: self.generations[index],
        }
    }

    /// The tenant, if `handle` is of its current attachment.
    #[must_use]
    pub fn get(&self, handle: PeerHandle) -> Option<&T> {
        self.is_current(handle)
            .then(|| self.get_slot(handle.slot))?
    }

    /// The tenant, mutably, if `handle` is of its current attachment.
    #[must_use]
    pub fn get_mut(&mut self, handle: PeerHandle) -> Option<&mut T> {
        self.is_current(handle)
            .then(|| self.get_slot_mut(handle.slot))?
    }

    /// The tenant of a slot, whatever its generation.
    #[must_use]
    pub fn get_slot(&self, slot: u32) -> Option<&T> {
        self.tenants.get(slot as usize)
    }

    /// The tenant of a slot, mutably, whatever its generation.
    #[must_use]
    pub fn get_slot_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.tenants.get_mut(slot as usize)
    }

    /// The handle that is valid for a slot now; `None` if it is vacant.
    #[must_use]
    pub fn handle_of(&self, slot: u32) -> Option<PeerHandle> {
        self.get_slot(slot)?;
        let &generation = self.generations.get(slot as usize)?;
        Some(PeerHandle { slot, generation })
    }

    /// Starts a new attachment of a slot's tenant: all its earlier handles go stale and the new
    /// one is returned. `None` if the slot is vacant.
    pub fn renew(&mut self, slot: u32) -> Option<PeerHandle> {
        self.get_slot(slot)?;
        let generation = self.raise(slot)?;
        Some(PeerHandle { slot, generation })
    }

    /// Frees a slot: every handle of it goes stale, also for the next tenant. `None` if it was
    /// vacant.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.tenants.try_remove(slot as usize)?;
        self.raise(slot);
        Some(value)
    }

    /// Tenants by ascending slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.tenants
            .iter()
            .filter_map(|(slot, value)| Some((u32::try_from(slot).ok()?, value)))
    }

    fn is_current(&self, handle: PeerHandle) -> bool {
        self.generations.get(handle.slot as usize) == Some(&handle.generation)
    }

    fn raise(&mut self, slot: u32) -> Option<u32> {
        let generation = self.generations.get_mut(slot as usize)?;
        *generation = generation.wrapping_add(1);
        Some(*generation)
    }
}

impl<T> Default for HandleSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert,
        Renew(u32),
        Remove(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few slots, so that they are used again and vacant ones are named too.
        prop_oneof![
            2 => Just(Step::Insert),
            2 => (0_u32..8).prop_map(Step::Renew),
            1 => (0_u32..8).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn only_the_newest_handle_of_a_tenant_finds_it(steps in vec(step(), 1..200)) {
            let mut slab = HandleSlab::new();
            let mut model: BTreeMap<u32, (PeerHandle, usize)> = BTreeMap::new();
            let mut ever: BTreeSet<PeerHandle> = BTreeSet::new();
            for (n, step) in steps.into_iter().enumerate() {
                let issued = match step {
                    Step::Insert => {
                        let handle = slab.insert(n);
                        prop_assert!(model.insert(handle.slot, (handle, n)).is_none());
                        Some(handle)
                    }
                    Step::Renew(slot) => {
                        let handle = slab.renew(slot);
                        prop_assert_eq!(handle.is_some(), model.contains_key(&slot));
                        if let (Some(handle), Some(tenant)) = (handle, model.get_mut(&slot)) {
                            tenant.0 = handle;
                        }
                        handle
                    }
                    Step::Remove(slot) => {
                        prop_assert_eq!(slab.remove(slot), model.remove(&slot).map(|gone| gone.1));
                        None
                    }
                };
                if let Some(handle) = issued {
                    prop_assert!(ever.insert(handle), "{handle:?} was issued before");
                }
                for &handle in &ever {
                    let tenant = model.get(&handle.slot).filter(|tenant| tenant.0 == handle);
                    prop_assert_eq!(slab.get(handle), tenant.map(|tenant| &tenant.1));
                }
                for slot in 0..8 {
                    let tenant = model.get(&slot);
                    prop_assert_eq!(slab.handle_of(slot), tenant.map(|tenant| tenant.0));
                    prop_assert_eq!(slab.get_slot(slot), tenant.map(|tenant| &tenant.1));
                }
                prop_assert_eq!(slab.len(), model.len());
                prop_assert!(slab.iter().eq(model.iter().map(|(&slot, tenant)| (slot, &tenant.1))));
            }
        }
    }

    #[test]
    fn a_tenant_is_changed_through_its_current_handle_only() {
        let mut slab = HandleSlab::default();
        let old = slab.insert('a');
        let new = slab.renew(old.slot).unwrap();
        assert_eq!(slab.get_mut(old), None);
        *slab.get_mut(new).unwrap() = 'b';
        *slab.get_slot_mut(new.slot).unwrap() = 'c';
        assert_eq!(slab.get(new), Some(&'c'));
        assert_eq!(
            slab.get(PeerHandle {
                slot: 7,
                generation: 1
            }),
            None
        );
        assert!(!slab.is_empty());
    }

    #[test]
    fn a_zeroed_handle_matches_nothing() {
        let mut slab = HandleSlab::new();
        slab.insert(());
        assert_eq!(
            slab.get(PeerHandle {
                slot: 0,
                generation: 0
            }),
            None
        );
    }
}
