//! Messages to be sent later: which there are, whose they are, and in which order they fall due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::Hasher;
use crate::peer::MemberIx;
use crate::rows::ScheduleRow;
use crate::time::{Mono, Wall};
use crate::wheel::TimerKey;

/// A schedule within its shard: whose it is, and its place among all that were made.
pub(crate) type Key = (MemberIx, u32);

/// One scheduled message.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) row: ScheduleRow,
    /// When it is looked at next; None while its row is not durable.
    wakes: Option<Wall>,
}

/// All of one shard. Of each member at most [`crate::limits::SCHEDULES_MAX`].
#[derive(Debug)]
pub(crate) struct Schedules {
    all: BTreeMap<Key, Schedule>,
    by_id: HashMap<Rc<str>, Key, Hasher>,
    /// Those whose rows are durable, by when they are looked at.
    due: BTreeSet<(Wall, Key)>,
    last: u32,
    /// When the first of them is looked at.
    pub(crate) timer: Option<(Mono, TimerKey)>,
}

impl Schedules {
    /// None.
    pub(crate) fn new(hasher: &Hasher) -> Self {
        Self {
            all: BTreeMap::new(),
            by_id: HashMap::with_hasher(hasher.clone()),
            due: BTreeSet::new(),
            last: 0,
            timer: None,
        }
    }

    /// Those of a member, in the order they were made.
    pub(crate) fn of(&self, member: MemberIx) -> impl Iterator<Item = &Schedule> {
        let range = (member, 0)..=(member, u32::MAX);
        self.all.range(range).map(|(_, schedule)| schedule)
    }

    /// Takes one that does not fall due yet.
    pub(crate) fn insert(&mut self, member: MemberIx, row: ScheduleRow) -> Key {
        // After four thousand million of them the numbers of those that are gone come again.
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.all.contains_key(&(member, self.last)) {
                break;
            }
        }
        let key = (member, self.last);
        self.by_id.insert(row.id.as_str().into(), key);
        self.all.insert(key, Schedule { row, wakes: None });
        key
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Schedule> {
        self.all.get(&key)
    }

    /// The one with that id.
    pub(crate) fn find(&self, id: &str) -> Option<Key> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<ScheduleRow> {
        let Schedule { row, wakes } = self.all.remove(&key)?;
        self.by_id.remove(row.id.as_str());
        if let Some(wakes) = wakes {
            self.due.remove(&(wakes, key));
        }
        Some(row)
    }

    /// It is looked at then.
    pub(crate) fn wake(&mut self, key: Key, at: Wall) {
        if let Some(schedule) = self.all.get_mut(&key) {
            if let Some(wakes) = schedule.wakes.replace(at) {
                self.due.remove(&(wakes, key));
            }
            self.due.insert((at, key));
        }
    }

    /// It has fired, and does so again then.
    pub(crate) fn fired(&mut self, key: Key, next: Wall) {
        if let Some(schedule) = self.all.get_mut(&key) {
            schedule.row.deliver_at = next;
            schedule.row.fired_count = schedule.row.fired_count.saturating_add(1);
        }
        self.wake(key, next);
    }

    /// How many there are, and how many are found by id.
    #[cfg(feature = "marks")]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.all.len(), self.by_id.len())
    }

    /// How many fall due.
    #[cfg(feature = "marks")]
    pub(crate) fn due_count(&self) -> usize {
        self.due.len()
    }

    /// The one to be looked at first, and when.
    pub(crate) fn first(&self) -> Option<(Wall, Key)> {
        self.due.first().copied()
    }
}
