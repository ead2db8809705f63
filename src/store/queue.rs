//! What is between the loops and the writer thread: lanes, bounds, counters, wake-ups.
//!
//! The only module of the store that threads share. Locks are held for pushes and swaps (and once
//! per hang of the disk, for sorting what waits), never across a call into SQLite or into the sink.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::Connection;

use super::backlog;
use super::gauges::Counters;
use super::place::Place;
use super::retention::Order;
use super::watch::Pulse;
use super::{Completion, CompletionSink};
use crate::core::ids::Token;
use crate::core::rows::{StoreFailure, StoreOp, StoreQuery};

/// One thing to be done, in the order of its lane.
#[derive(Debug)]
pub(super) enum Item {
    /// Make durable.
    Op { op: StoreOp, token: Option<Token> },
    /// Answer from what is before it in the lane.
    Query { query: StoreQuery, token: Token },
}

impl Item {
    /// Whether somebody waits for it.
    pub(super) fn awaited(&self) -> bool {
        match self {
            Self::Op { token, .. } => token.is_some(),
            Self::Query { .. } => true,
        }
    }

    /// Bytes of a message, or of a record, that its sender may make as many as he likes; the target
    /// of a message is also in the audit entry.
    pub(super) fn body_bytes(&self) -> usize {
        match self {
            Self::Op {
                op: StoreOp::MessageInsert(row),
                ..
            } => row.nonce.len() + row.ciphertext.len() + 2 * row.target_spec.len(),
            // Also in the audit entry.
            Self::Op {
                op: StoreOp::StateSet { row, .. },
                ..
            } => 2 * (row.key.len() + row.value.len()),
            Self::Query {
                query: StoreQuery::Records(query),
                ..
            } => query.ask.body_bytes(),
            Self::Op {
                op: StoreOp::SchedulePut(row),
                ..
            } => row.message.len(),
            Self::Op { .. } | Self::Query { .. } => 0,
        }
    }

    /// Whether the reader may answer it, once everything before it is committed.
    pub(super) fn is_lookup(&self) -> bool {
        matches!(
            self,
            Self::Query {
                query: StoreQuery::Records(query),
                ..
            } if query.ask.only_reads()
        )
    }

    /// Whether it counts against [`WAITING_MAX`] rather than [`CHORES_MAX`].
    pub(super) fn is_message(&self) -> bool {
        match self {
            Self::Op { op, .. } => {
                matches!(
                    op,
                    StoreOp::MessageInsert(_) | StoreOp::StateSet { .. } | StoreOp::SchedulePut(_)
                )
            }
            Self::Query { .. } => true,
        }
    }

    /// What whoever waits for it is told instead of an answer.
    pub(super) fn refusal(&self, failure: StoreFailure) -> Option<Completion> {
        match self {
            Self::Op { token, .. } => token.map(|token| Completion::Stored {
                token,
                result: Err(failure),
            }),
            Self::Query { token, .. } => Some(Completion::Answered {
                token: *token,
                result: Err(failure),
            }),
        }
    }
}

/// Work on the write connection in a transaction of its own; or it is told why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Connection, StoreFailure>) + Send>;

/// One shard's operations, in order.
pub(super) type Lane = VecDeque<Item>;

/// What the writer finds when it wakes.
#[derive(Default)]
pub(super) struct Inbox {
    /// One per shard.
    pub(super) lanes: Vec<Lane>,
    /// To be run after what is queued.
    pub(super) jobs: VecDeque<Job>,
    /// Try again (the housekeeper's backoff ran out).
    pub(super) retry: bool,
    /// Begin a retention sweep.
    pub(super) sweep: Option<Order>,
    /// The files may have been taken away: look.
    pub(super) look: bool,
    /// The WAL has grown past its cap.
    pub(super) restart_wal: bool,
    /// Write what is queued and end.
    pub(super) closing: bool,
    /// The writer is gone: refuse.
    gone: bool,
    /// The writer sleeps.
    asleep: bool,
}

/// What the housekeeper finds when it wakes.
#[derive(Default)]
pub(super) struct House {
    /// End.
    pub(super) stop: bool,
    /// The disk fails: keep telling the writer to retry.
    pub(super) failing: bool,
    /// There may be something to checkpoint.
    pub(super) dirty: bool,
}

/// See the module.
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    house: Mutex<House>,
    house_wake: Condvar,
    /// The housekeeper ticks; spares the writer a lock per commit.
    house_awake: AtomicBool,
    sink: OnceLock<Arc<dyn CompletionSink>>,
    pub(super) counters: Counters,
    pub(super) pulse: Pulse,
    pub(super) place: Place,
}

impl Shared {
    pub(super) fn new(undelivered: u64, place: Place) -> Self {
        let counters = Counters::new(undelivered);
        Self {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            house: Mutex::default(),
            house_wake: Condvar::new(),
            house_awake: AtomicBool::new(false),
            sink: OnceLock::new(),
            counters,
            pulse: Pulse::default(),
            place,
        }
    }

    /// Changes the writer's inbox and wakes it if it sleeps.
    fn post<R>(&self, change: impl FnOnce(&mut Inbox) -> R) -> R {
        let mut inbox = lock(&self.inbox);
        let result = change(&mut inbox);
        if std::mem::take(&mut inbox.asleep) {
            drop(inbox);
            self.wake.notify_one();
        }
        result
    }

    pub(super) fn start(&self, sink: Arc<dyn CompletionSink>) {
        if self.sink.set(sink).is_err() {
            tracing::error!("the store was started twice; the first sink stays");
        }
        self.post(|_| ());
    }

    pub(super) fn started(&self) -> bool {
        self.sink.get().is_some()
    }

    pub(super) fn add_lane(&self, shard: u16) {
        self.post(|inbox| {
            let lanes = inbox.lanes.len().max(usize::from(shard) + 1);
            inbox.lanes.resize_with(lanes, Lane::new);
        });
    }

    /// Queues, or refuses at once.
    pub(super) fn submit(&self, shard: u16, item: Item) {
        let Some(item) = self.unless_stalled(shard, item) else {
            return;
        };
        if let Err(failure) = self.counters.admit(&item) {
            return self.refuse(shard, &item, failure);
        }
        let returned = self.post(|inbox| {
            let lane = inbox.lanes.get_mut(usize::from(shard));
            match lane {
                Some(lane) if !inbox.gone => {
                    lane.push_back(item);
                    None
                }
                Some(_) | None => Some(item),
            }
        });
        if let Some(item) = returned {
            self.counters.release(&item);
            self.refuse(shard, &item, StoreFailure::Io);
        }
    }

    /// Tells whoever waits; counts what is lost.
    pub(super) fn refuse(&self, shard: u16, item: &Item, failure: StoreFailure) {
        self.counters.count_lost(item);
        if let Some(refusal) = item.refusal(failure) {
            self.deliver(shard, vec![refusal]);
        }
    }

    /// While the disk hangs, whoever waits for an item is refused at once; what is left of it
    /// waits for the disk.
    fn unless_stalled(&self, shard: u16, item: Item) -> Option<Item> {
        if !self.pulse.stalled() {
            return Some(item);
        }
        let mut lane = Lane::from([item]);
        let replies = backlog::settle(&mut lane, StoreFailure::Overloaded, |_| ());
        if !replies.is_empty() {
            self.deliver(shard, replies);
        }
        lane.pop_front()
    }

    /// The same for what the writer has not taken yet.
    pub(super) fn refuse_waiting(&self) {
        let mut inbox = lock(&self.inbox);
        let replies: Vec<_> = inbox
            .lanes
            .iter_mut()
            .map(|lane| {
                backlog::settle(lane, StoreFailure::Overloaded, |item| {
                    self.counters.release(item);
                })
            })
            .collect();
        drop(inbox);
        for (shard, replies) in (0_u16..).zip(replies) {
            if !replies.is_empty() {
                self.deliver(shard, replies);
            }
        }
    }

    /// Queues a job. After [`Shared::close`] it is dropped, and with it the reply it holds.
    pub(super) fn run(&self, job: Job) {
        self.post(|inbox| {
            if !inbox.gone {
                inbox.jobs.push_back(job);
            }
        });
    }

    /// Moves what has come in to `fresh` and `jobs` (both empty) and returns the signals. With
    /// `sleep`, waits until there is something.
    pub(super) fn take(&self, sleep: bool, fresh: &mut Vec<Lane>) -> Inbox {
        let mut inbox = lock(&self.inbox);
        while sleep && !self.anything(&inbox) {
            inbox.asleep = true;
            inbox = self
                .wake
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inbox.asleep = false;
        fresh.resize_with(inbox.lanes.len(), Lane::new);
        let started = self.started();
        if started {
            std::mem::swap(fresh, &mut inbox.lanes);
        }
        Inbox {
            lanes: Vec::new(),
            jobs: std::mem::take(&mut inbox.jobs),
            retry: std::mem::take(&mut inbox.retry),
            sweep: inbox.sweep.take_if(|_| started),
            look: std::mem::take(&mut inbox.look),
            restart_wal: std::mem::take(&mut inbox.restart_wal),
            closing: inbox.closing,
            gone: inbox.gone,
            asleep: false,
        }
    }

    /// Before [`Shared::start`] there are jobs only: what clients give and sweeps wait for it, and
    /// are dropped if it never comes.
    fn anything(&self, inbox: &Inbox) -> bool {
        let started = self.started();
        let given = inbox.sweep.is_some() || inbox.lanes.iter().any(|lane| !lane.is_empty());
        let signalled = inbox.retry || inbox.look || inbox.restart_wal || inbox.closing;
        signalled || !inbox.jobs.is_empty() || (started && given)
    }

    /// From now on everything is refused; what has come in since the last take is returned.
    pub(super) fn writer_gone(&self) -> Vec<Lane> {
        let mut inbox = lock(&self.inbox);
        inbox.gone = true;
        inbox.jobs.clear();
        inbox.lanes.iter_mut().map(std::mem::take).collect()
    }

    pub(super) fn close(&self) {
        self.post(|inbox| inbox.closing = true);
    }

    pub(super) fn signal(&self, set: impl FnOnce(&mut Inbox)) {
        self.post(set);
    }

    /// Hands over results. A sink that panics is a bug, but must not take the writer with it.
    pub(super) fn deliver(&self, shard: u16, batch: Vec<Completion>) {
        let Some(sink) = self.sink.get() else { return };
        if catch_unwind(AssertUnwindSafe(|| sink.complete(shard, batch))).is_err() {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(shard, "results of the store were lost");
        }
    }

    /// A thread of the store died.
    pub(super) fn died(&self) {
        let Some(sink) = self.sink.get() else { return };
        if catch_unwind(AssertUnwindSafe(|| sink.died())).is_err() {
            tracing::error!("nobody could be told that the store died");
        }
    }

    /// Shows `failure` (None: Up) and has the housekeeper time the retries.
    pub(super) fn set_failing(&self, failure: Option<StoreFailure>) {
        self.counters.set_failing(failure);
        let mut house = lock(&self.house);
        house.failing = failure.is_some();
        drop(house);
        self.house_wake.notify_one();
    }

    // The housekeeper.

    /// A commit was made: there may be something to checkpoint.
    pub(super) fn committed(&self) {
        if !self.house_awake.swap(true, Ordering::SeqCst) {
            lock(&self.house).dirty = true;
            self.house_wake.notify_one();
        }
    }

    /// The housekeeper is about to sleep until the next commit.
    pub(super) fn house_rests(&self) {
        lock(&self.house).dirty = false;
        self.house_awake.store(false, Ordering::SeqCst);
    }

    pub(super) fn stop_housekeeper(&self) {
        lock(&self.house).stop = true;
        self.house_wake.notify_one();
    }

    pub(super) fn house(&self) -> (MutexGuard<'_, House>, &Condvar) {
        (lock(&self.house), &self.house_wake)
    }
}

/// A panic elsewhere leaves these plain values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
