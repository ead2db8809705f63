//! The store's gauges and counters, and the bounds of its queue.
//!
//! Everything here is an atomic that any thread may touch; nothing waits on them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::backlog;
use super::queue::Item;
use crate::core::rows::{StoreFailure, StoreOp};

/// Message inserts and questions that may wait; beyond it they are refused as `Overloaded`.
pub(super) const WAITING_MAX: usize = 65_536;

/// Bytes of message bodies that may wait; beyond it inserts are refused as `Overloaded`.
pub(super) const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Other operations that may wait, including those kept while the disk fails. Beyond it they are
/// dropped and counted, and health says `Failing(Overloaded)` until the store has caught up. What
/// that costs: a join that is lost is forgotten by a restart, and no leave follows it; an end that
/// is lost is told again after a restart, when the session has not come back; a ban or unban that
/// is lost is undone by a restart.
pub(super) const CHORES_MAX: usize = 4 * WAITING_MAX;

/// From so many on, what costs less when it is lost is dropped, to keep room for presence: a lost
/// confirmation makes one redelivery under the same id, a lost audit entry is missing from its
/// chain.
pub(super) const LESSER_CHORES_MAX: usize = CHORES_MAX / 2;

/// Chores below which a queue that overflowed has caught up.
const CAUGHT_UP: usize = CHORES_MAX / 4;

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Operations become durable.
    Up,
    /// They do not, for that reason; the store keeps trying.
    Failing(StoreFailure),
}

/// A snapshot of the store's gauges and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it works.
    pub state: HealthState,
    /// Operations and questions that wait.
    pub queued: usize,
    /// Message rows that no recipient has confirmed, on disk.
    pub undelivered: u64,
    /// Transactions committed since the store was opened, without those of administrators.
    pub commits: u64,
    /// Operations in them.
    pub committed_ops: u64,
    /// Operations that nobody waited for, or that are in effect whatever their asker was told, and
    /// that were lost: refused by the database, or beyond the bound.
    pub dropped: u64,
    /// Retention sweeps ended since the store was opened.
    pub sweeps: u64,
    /// Panics; anything but 0 is a bug.
    pub panics: u64,
    /// Length of the WAL's file, at the last look.
    pub wal_bytes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    chores: AtomicUsize,
    pub(super) undelivered: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) committed_ops: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) sweeps: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) wal_bytes: AtomicU64,
    /// Frames in the WAL after the last commit.
    pub(super) wal_pages: AtomicUsize,
    /// 0 is Up, else 1 + index into [`FAILURES`].
    state: AtomicU8,
    /// Chores were dropped; cleared when the queue is short again.
    overflowing: AtomicBool,
}

const FAILURES: [StoreFailure; 6] = [
    StoreFailure::Full,
    StoreFailure::ReadOnly,
    StoreFailure::Corrupt,
    StoreFailure::Overloaded,
    StoreFailure::Moved,
    StoreFailure::Io,
];

impl Counters {
    pub(super) fn new(undelivered: u64) -> Self {
        Self {
            undelivered: undelivered.into(),
            ..Self::default()
        }
    }

    /// Counts an item in, or refuses it.
    pub(super) fn admit(&self, item: &Item) -> Result<(), StoreFailure> {
        if !item.is_message() {
            let bound = chores_max(item);
            if self.chores.fetch_add(1, Ordering::Relaxed) < bound {
                return Ok(());
            }
            self.chores.fetch_sub(1, Ordering::Relaxed);
            if !self.overflowing.swap(true, Ordering::Relaxed) {
                tracing::error!(bound, "store queue is full: dropping rows");
            }
            return Err(StoreFailure::Overloaded);
        }
        let bytes = item.body_bytes();
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting < WAITING_MAX && waiting_bytes < WAITING_BYTES_MAX {
            return Ok(());
        }
        self.release(item);
        Err(StoreFailure::Overloaded)
    }

    /// An item that was admitted is done with.
    pub(super) fn release(&self, item: &Item) {
        if item.is_message() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.waiting_bytes
                .fetch_sub(item.body_bytes(), Ordering::Relaxed);
        } else if self.chores.fetch_sub(1, Ordering::Relaxed) < CAUGHT_UP {
            self.overflowing.store(false, Ordering::Relaxed);
        }
    }

    /// An item is not carried out: counted, unless it has no effect and its asker is told.
    pub(super) fn count_lost(&self, item: &Item) {
        let lost = match item {
            Item::Op { op, token } => token.is_none() || backlog::in_effect(op),
            Item::Query { .. } => false,
        };
        if lost {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a question to the reader in, or refuses it.
    pub(super) fn admit_lookup(&self) -> Result<(), StoreFailure> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            return Ok(());
        }
        self.lookup_done();
        Err(StoreFailure::Overloaded)
    }

    /// It is done with.
    pub(super) fn lookup_done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// `stalled` if the disk gives no answer.
    pub(super) fn health(&self, stalled: bool) -> Health {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let index = usize::from(self.state.load(Ordering::Relaxed));
        let failure = index
            .checked_sub(1)
            .and_then(|index| FAILURES.get(index).copied());
        let overflow = stalled || self.overflowing.load(Ordering::Relaxed);
        let state = match failure.or_else(|| overflow.then_some(StoreFailure::Overloaded)) {
            Some(failure) => HealthState::Failing(failure),
            None => HealthState::Up,
        };
        Health {
            state,
            queued: self.waiting.load(Ordering::Relaxed) + self.chores.load(Ordering::Relaxed),
            undelivered: get(&self.undelivered),
            commits: get(&self.commits),
            committed_ops: get(&self.committed_ops),
            dropped: get(&self.dropped),
            sweeps: get(&self.sweeps),
            panics: get(&self.panics),
            wal_bytes: get(&self.wal_bytes),
        }
    }

    /// Shows `failure`; None is Up.
    pub(super) fn set_failing(&self, failure: Option<StoreFailure>) {
        let index = failure
            .and_then(|failure| FAILURES.iter().position(|&known| known == failure))
            .map_or(0, |index| index + 1);
        self.state
            .store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }
}

/// How many chores may wait before `item`.
fn chores_max(item: &Item) -> usize {
    let lesser = matches!(
        item,
        Item::Op {
            op: StoreOp::Audit(_) | StoreOp::MessageDelivered { .. } | StoreOp::MessageAcked { .. },
            ..
        }
    );
    if lesser {
        LESSER_CHORES_MAX
    } else {
        CHORES_MAX
    }
}
