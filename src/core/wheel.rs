//! A hierarchical timer wheel: when things fall due, and in which order.
//!
//! Owns deadlines and the values that wait for them, nothing else. It reads no clock: the caller
//! says what time it is. Two orders of bookkeeping:
//!
//! - Timers of later ticks hang in the wheel: 11 levels of 64 slots, a slot of level `n`
//!   spanning 64^n ticks. A timer hangs at the level of the highest base-64 digit in which its
//!   tick differs from the wheel's position, in the slot of its own digit there. So it is exact to
//!   a tick at any distance, every timer of a level precedes every timer of the next one, and
//!   insert and cancel are O(1). Reaching a slot above level 0 spreads its timers over the levels
//!   below (the cascade), at most ten times in a timer's life.
//! - Timers of ticks already reached lie in `due`, ordered by deadline and then by insertion.
//!   Every timer in `due` precedes every timer in the wheel, so the order is exact even when one
//!   call catches up on hours.

use std::collections::BTreeSet;
use std::mem;
use std::num::NonZeroU32;

use crate::pages::Pages;
use crate::time::{Millis, Mono};

/// The wheel's resolution: wake-ups are rounded up to a multiple of this.
pub const TICK: Millis = Millis(10);

/// Bits of a tick number that one level resolves; 64 slots fill one occupancy word.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// 11 levels of 6 bits cover the 61 bits of the last tick of a u64 of milliseconds.
const LEVELS: usize = 11;
/// Ends a list of entries.
const NIL: u32 = u32::MAX;

/// Names one timer of one [`Wheel`]. After the timer fired or was cancelled the key is stale and
/// finds nothing (until 2^32 later timers have used the same slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    slot: u32,
    /// Never 0, so that a key that may be missing needs no more room.
    generation: NonZeroU32,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: Mono,
    seq: u64,
    generation: NonZeroU32,
    prev: u32,
    /// The next entry of the slot's list, or of the list of vacant entries.
    next: u32,
    /// `None` when vacant.
    value: Option<T>,
}

/// Timers carrying a `T` each. At most 2^32 - 1 at a time; memory for the largest number there
/// ever was at once is kept (28 bytes each plus the value).
#[derive(Debug)]
pub struct Wheel<T> {
    /// The tick reached: `due` holds the timers up to and of this tick, the wheel those after it.
    position: u64,
    /// One bit per slot with timers, for each level.
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
    due: BTreeSet<(Mono, u64, u32)>,
    entries: Pages<Entry<T>>,
    vacant: u32,
    len: usize,
    next_seq: u64,
}

impl<T> Wheel<T> {
    /// An empty wheel that starts at `now`.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            position: tick_of(now),
            occupied: [0; LEVELS],
            heads: [[NIL; SLOTS]; LEVELS],
            due: BTreeSet::new(),
            entries: Pages::new(),
            vacant: NIL,
            len: 0,
            next_seq: 0,
        }
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. A deadline that has passed fires at the next [`Wheel::pop_due`].
    ///
    /// O(1), or logarithmic in the timers now due if its tick has been reached.
    ///
    /// # Panics
    /// With 2^32 - 1 timers set; the caps on what sets timers keep far below.
    pub fn insert(&mut self, deadline: Mono, value: T) -> TimerKey {
        let seq = self.next_seq;
        self.next_seq += 1;
        let slot = self.allocate();
        let entry = &mut self.entries[slot as usize];
        entry.deadline = deadline;
        entry.seq = seq;
        entry.value = Some(value);
        let generation = entry.generation;
        self.link(slot);
        self.len += 1;
        TimerKey { slot, generation }
    }

    /// Unsets a timer and gives its value back; `None` if it has fired or was cancelled.
    ///
    /// O(1), or logarithmic in the timers now due if its tick has been reached.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let entry = self.entries.get(key.slot as usize)?;
        if entry.generation != key.generation || entry.value.is_none() {
            return None;
        }
        self.unlink(key.slot);
        self.release(key.slot)
    }

    /// When a timer is due; `None` if it has fired or was cancelled.
    #[must_use]
    pub fn deadline(&self, key: TimerKey) -> Option<Mono> {
        let entry = self.entries.get(key.slot as usize)?;
        (entry.generation == key.generation && entry.value.is_some()).then_some(entry.deadline)
    }

    /// The next timer whose deadline is at or before `now`, with that deadline; `None` when there
    /// is no more. Call it until then.
    ///
    /// Timers come in the order of their deadlines in milliseconds, those of one deadline in the
    /// order they were set. None comes before its deadline, and each comes from the first call at
    /// or after it. A timer set between two calls takes its place in that order: with a deadline
    /// at or before `now` it still comes in this drain. Every call does bounded work, and a drain
    /// ends unless the caller itself sets a timer that is already due for each one it gets: what
    /// repeats must be set to a moment after `now`.
    pub fn pop_due(&mut self, now: Mono) -> Option<(Mono, T)> {
        loop {
            if let Some(&(deadline, _, slot)) = self.due.first() {
                if deadline > now {
                    return None;
                }
                self.due.pop_first();
                if let Some(value) = self.release(slot) {
                    return Some((deadline, value));
                }
            } else if !self.advance(tick_of(now)) {
                return None;
            }
        }
    }

    /// When to call [`Wheel::pop_due`] next; `None` without timers. A whole tick, and never later
    /// than the earliest deadline rounded up to one.
    ///
    /// It may be earlier than the earliest deadline, namely the moment of a cascade. Draining then
    /// moves those timers a level down, so a timer causes at most ten such calls, and the moment
    /// named after a drain at `now` is always later than `now` (no busy loop).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let tick = match self.due.first() {
            Some(&(deadline, _, _)) => tick_of(deadline),
            None => self.earliest_slot()?.2,
        };
        Some(Mono(tick.saturating_mul(TICK.0)))
    }

    /// Goes on to the earliest occupied slot if that starts by `tick` and re-links its timers
    /// (into `due` or lower levels), else goes on to `tick` and returns false.
    fn advance(&mut self, tick: u64) -> bool {
        let Some((level, slot, start)) = self.earliest_slot().filter(|slot| slot.2 <= tick) else {
            // No occupied slot is passed, so this changes no timer's level or slot.
            self.position = self.position.max(tick);
            return false;
        };
        self.position = start;
        self.occupied[level] &= !(1 << slot);
        // Detached whole before anything is linked: nothing can come back to this very slot.
        let mut cursor = mem::replace(&mut self.heads[level][slot], NIL);
        while cursor != NIL {
            let next = self.entries[cursor as usize].next;
            self.link(cursor);
            cursor = next;
        }
        true
    }

    /// Level, slot and first tick of the slot that comes first.
    fn earliest_slot(&self) -> Option<(usize, usize, u64)> {
        // A level's timers share with the position all digits above it and exceed it in its own:
        // no wrap-around, the lowest set bit is the first slot, the lowest level the first level.
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = shift_of(level);
        let above = (self.position >> shift) >> BITS << BITS;
        let start = (above | u64::from(slot)) << shift;
        Some((level, slot as usize, start))
    }

    /// Links an entry where its deadline belongs, seen from the present position.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Some((level, slot)) = home(self.position, entry.deadline) else {
            self.due.insert((entry.deadline, entry.seq, index));
            return;
        };
        let next = mem::replace(&mut self.heads[level][slot], index);
        entry.prev = NIL;
        entry.next = next;
        if next != NIL {
            self.entries[next as usize].prev = index;
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let &Entry {
            deadline,
            seq,
            prev,
            next,
            ..
        } = &self.entries[index as usize];
        let Some((level, slot)) = home(self.position, deadline) else {
            self.due.remove(&(deadline, seq, index));
            return;
        };
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if prev != NIL {
            self.entries[prev as usize].next = next;
            return;
        }
        self.heads[level][slot] = next;
        if next == NIL {
            self.occupied[level] &= !(1 << slot);
        }
    }

    /// A vacant entry, off the vacant list; its generation is the one its next key carries.
    fn allocate(&mut self) -> u32 {
        if self.vacant != NIL {
            let slot = self.vacant;
            self.vacant = self.entries[slot as usize].next;
            return slot;
        }
        let slot = u32::try_from(self.entries.len()).unwrap_or(NIL);
        assert!(slot != NIL, "timers must number below 2^32 - 1");
        self.entries.push(Entry {
            deadline: Mono(0),
            seq: 0,
            generation: NonZeroU32::MIN,
            prev: NIL,
            next: NIL,
            value: None,
        });
        slot
    }

    /// Takes the value out of an entry that nothing links to and makes it vacant.
    fn release(&mut self, slot: u32) -> Option<T> {
        let entry = &mut self.entries[slot as usize];
        let value = entry.value.take()?;
        entry.generation = entry.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.next = self.vacant;
        self.vacant = slot;
        self.len -= 1;
        Some(value)
    }
}

/// The first tick at or after `moment`: rounding up is what keeps timers from coming early.
fn tick_of(moment: Mono) -> u64 {
    moment.0.div_ceil(TICK.0)
}

/// Level and slot of a deadline, seen from a position; None if it belongs in `due`. A timer that
/// is linked has the same home until the position reaches its slot: up to there no digit above its
/// level's changes.
fn home(position: u64, deadline: Mono) -> Option<(usize, usize)> {
    let tick = tick_of(deadline);
    if tick <= position {
        return None;
    }
    let level = (position ^ tick).ilog2() / BITS;
    let slot = (tick >> (level * BITS)) & (SLOTS as u64 - 1);
    Some((level as usize, usize::try_from(slot).unwrap_or(0)))
}

/// The lowest bit of the digit that `level` resolves.
fn shift_of(level: usize) -> u32 {
    // Below LEVELS * BITS, so it fits.
    u32::try_from(level).unwrap_or(0) * BITS
}

#[cfg(test)]
mod tests;
