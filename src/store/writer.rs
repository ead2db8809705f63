//! The writer thread: the only one that changes rows.
//!
//! One turn: take in what has come, put as much as fits into one transaction, commit, then reply.
//! A turn never waits for more to come. When the disk fails, see `backlog`; the housekeeper says
//! when to try again.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::audit::Chains;
use super::backlog;
use super::checkpoint::{self, Restart};
use super::fatal::{self, Scope};
use super::lanes::{Entry, Lanes};
use super::merge::Merged;
use super::queue::{Inbox, Item, Job, Shared};
use super::retention::{Step, Sweep};
use super::{Completion, apply, reader, threads};
use crate::core::rows::{StoreFailure, StoreOp, StoreQuery};

mod failing;

/// Transactions after which a sweep gets its turn even if there is something better to do.
const SWEEP_PATIENCE: u32 = 64;

/// Has every commit on `conn` note how many frames the WAL has.
pub(super) fn count_wal(conn: &mut Connection, shared: &Arc<Shared>) -> rusqlite::Result<()> {
    let pages = Arc::clone(shared);
    conn.wal_hook(Some(move |_: &mut Wal, frames: std::ffi::c_int| {
        let frames = usize::try_from(frames).unwrap_or(0);
        pages.counters.wal_pages.store(frames, Ordering::SeqCst);
        Ok(())
    }))
}

pub(super) fn spawn(
    conn: Connection,
    shared: Arc<Shared>,
    reader: mpsc::Sender<reader::Request>,
) -> io::Result<JoinHandle<()>> {
    let held = Arc::clone(&shared);
    let writer = Writer {
        shared,
        reader,
        conn,
        lanes: Lanes::default(),
        jobs: VecDeque::new(),
        chains: Chains::default(),
        failing: None,
        compact_at: backlog::COMPACT_AT,
        sweep: None,
        turns_since_sweep: 0,
    };
    threads::spawn("store-writer", &held, move || writer.run())
}

struct Writer {
    shared: Arc<Shared>,
    /// Answers what only reads, behind the commit of what came before it.
    reader: mpsc::Sender<reader::Request>,
    conn: Connection,
    lanes: Lanes,
    jobs: VecDeque<Job>,
    chains: Chains,
    /// Why the last transaction failed, if it did.
    failing: Option<StoreFailure>,
    /// Length of a lane from which it is compacted while the disk fails.
    compact_at: usize,
    sweep: Option<Sweep>,
    turns_since_sweep: u32,
}

/// Whatever ends the thread, nobody is left waiting.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.set_failing(Some(StoreFailure::Io));
        }
        self.lanes.append(&mut self.shared.writer_gone());
        let left = self.lanes.len();
        if left > 0 && self.shared.started() {
            tracing::error!(left, "the store ends before everything was written");
        }
        for (shard, lane) in (0_u16..).zip(self.lanes.iter_mut()) {
            for item in lane.drain(..) {
                self.shared.counters.release(&item);
                self.shared.refuse(shard, &item, StoreFailure::Io);
            }
        }
    }
}

/// A result and whose it is.
type Reply = (usize, Completion);

impl Writer {
    fn run(mut self) {
        let mut fresh = Vec::new();
        loop {
            // While failing, nothing is done before something new comes or a retry is due.
            let rest = self.idle() || self.failing.is_some();
            self.shared.pulse.works(false);
            let mut inbox = self.shared.take(rest, &mut fresh);
            self.shared.pulse.works(true);
            self.jobs.append(&mut inbox.jobs);
            self.heed(&inbox);
            match self.failing {
                None => {
                    self.lanes.append(&mut fresh);
                    self.work();
                }
                Some(failure) => {
                    for (shard, lane) in fresh.iter_mut().enumerate() {
                        self.settle(shard, lane, failure);
                    }
                    self.lanes.append(&mut fresh);
                    self.compact();
                    if inbox.retry || inbox.closing {
                        self.retry();
                    }
                    self.run_jobs();
                }
            }
            if inbox.closing && (self.idle() || self.failing.is_some()) {
                return;
            }
        }
    }

    fn idle(&self) -> bool {
        self.lanes.is_empty() && self.jobs.is_empty() && self.sweep.is_none()
    }

    fn heed(&mut self, inbox: &Inbox) {
        if inbox.closing {
            self.sweep = None;
        } else if let Some(order) = inbox.sweep {
            self.sweep = Some(Sweep::new(order));
        }
        if inbox.look && self.failing.is_none() && !self.shared.place.holds() {
            self.fail(StoreFailure::Moved);
        }
        if inbox.restart_wal && checkpoint::restart(&self.conn, Restart::KeepFile).unwrap_or(false)
        {
            self.shared.counters.wal_pages.store(0, Ordering::SeqCst);
        }
    }

    /// Does what matters most.
    fn work(&mut self) {
        if !self.jobs.is_empty() {
            // What came before a job takes effect before it.
            while self.failing.is_none() && !self.lanes.is_empty() {
                self.turn();
            }
            return self.run_jobs();
        }
        if !self.lanes.is_empty() {
            self.turn();
            self.turns_since_sweep += 1;
        }
        if self.lanes.is_empty() || self.turns_since_sweep >= SWEEP_PATIENCE {
            self.sweep_on();
        }
    }

    /// One transaction.
    fn turn(&mut self) {
        self.shared.pulse.step();
        let batch = self.lanes.next_batch();
        let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(&batch)));
        match attempt {
            Ok(Ok(replies)) => self.committed(batch, replies),
            Ok(Err(failure)) => {
                self.roll_back();
                self.lanes.put_back(batch);
                self.fail(failure);
            }
            Err(_panic) => self.panicked(batch),
        }
    }

    /// Carries out the batch in one transaction. An error means that nothing of it is durable.
    fn attempt(&mut self, batch: &[Entry]) -> Result<(Vec<Reply>, i64), StoreFailure> {
        if !self.shared.place.holds() {
            return Err(StoreFailure::Moved);
        }
        let conn = &self.conn;
        let run = |sql: &str| match conn.prepare_cached(sql).and_then(|mut it| it.execute([])) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(sql, %error, "transaction failed");
                Err(fatal::failure(&error))
            }
        };
        // IMMEDIATE: a lock held by somebody's tool shows here, where waiting is allowed.
        run("BEGIN IMMEDIATE")?;
        let mut merged = Merged::of(batch);
        let mut replies = Vec::new();
        let mut undelivered = 0;
        for Entry { shard, item } in batch {
            let reply = match item {
                Item::Query { .. } if item.is_lookup() => None,
                Item::Query { query, token } => {
                    let answer = apply::answer(conn, query);
                    Some(Completion::Answered {
                        token: *token,
                        result: outcome(conn, item, answer)?,
                    })
                }
                Item::Op { op, token } => {
                    let change = apply::apply(conn, (&mut self.chains, &mut merged), op);
                    let result = outcome(conn, item, change)?;
                    match result {
                        Ok(change) => undelivered += change,
                        Err(_) => self.shared.counters.count_lost(item),
                    }
                    token.map(|token| Completion::Stored {
                        token,
                        result: result.map(drop),
                    })
                }
            };
            replies.extend(reply.map(|reply| (*shard, reply)));
        }
        run("COMMIT")?;
        Ok((replies, undelivered))
    }

    fn committed(&mut self, batch: Vec<Entry>, (replies, undelivered): (Vec<Reply>, i64)) {
        self.chains.keep();
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        let count = u64::try_from(batch.len()).unwrap_or(0);
        counters.committed_ops.fetch_add(count, Ordering::Relaxed);
        for entry in &batch {
            self.shared.counters.release(&entry.item);
        }
        self.count_undelivered(undelivered);
        self.shared.committed();
        if self.failing.take().is_some() {
            self.recovered();
        }
        self.deliver(replies);
        self.hand_over(batch);
    }

    /// What only reads goes to the reader, which sees what has just been committed.
    fn hand_over(&self, batch: Vec<Entry>) {
        for Entry { shard, item } in batch.into_iter().filter(|entry| entry.item.is_lookup()) {
            let Item::Query {
                query: StoreQuery::Records(query),
                token,
            } = item
            else {
                continue;
            };
            let shard = u16::try_from(shard).unwrap_or(u16::MAX);
            if let Err((token, failure)) = reader::ask(
                &self.reader,
                &self.shared,
                (shard, token),
                reader::Lookup::Records(query),
            ) {
                let result = Err(failure);
                let refusal = Completion::Answered { token, result };
                self.shared.deliver(shard, vec![refusal]);
            }
        }
    }

    /// By shard, in order.
    fn deliver(&self, replies: Vec<Reply>) {
        let mut by_shard: Vec<Vec<Completion>> = Vec::new();
        for (shard, completion) in replies {
            if by_shard.len() <= shard {
                by_shard.resize_with(shard + 1, Vec::new);
            }
            if let Some(completions) = by_shard.get_mut(shard) {
                completions.push(completion);
            }
        }
        for (shard, completions) in (0_u16..).zip(by_shard) {
            if !completions.is_empty() {
                self.shared.deliver(shard, completions);
            }
        }
    }

    fn count_undelivered(&self, change: i64) {
        let gauge = &self.shared.counters.undelivered;
        let old = gauge.load(Ordering::Relaxed);
        // Only this thread writes it.
        gauge.store(old.saturating_add_signed(change), Ordering::Relaxed);
    }

    // Other work.

    fn run_jobs(&mut self) {
        while let Some(job) = self.jobs.pop_front() {
            self.shared.pulse.step();
            if self.failing.is_none() && !self.shared.place.holds() {
                self.fail(StoreFailure::Moved);
            }
            let conn = match self.failing {
                Some(StoreFailure::Moved) => Err(StoreFailure::Moved),
                // Whatever else fails, SQLite tells.
                Some(_) | None => Ok(&mut self.conn),
            };
            if catch_unwind(AssertUnwindSafe(|| job(conn))).is_err() {
                self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("an administrator's request panicked");
                self.roll_back();
            }
            self.shared.committed();
        }
    }

    fn sweep_on(&mut self) {
        self.turns_since_sweep = 0;
        let Some(sweep) = &mut self.sweep else { return };
        self.shared.pulse.step();
        match sweep.step(&mut self.conn) {
            Ok(Step::More { undelivered }) => self.count_undelivered(undelivered),
            Ok(Step::Done { undelivered }) => {
                self.count_undelivered(undelivered);
                self.shared.counters.sweeps.fetch_add(1, Ordering::Relaxed);
                self.sweep = None;
            }
            Err(error) => {
                tracing::warn!(%error, "retention sweep failed; the next one goes on");
                self.sweep = None;
            }
        }
        self.shared.committed();
    }
}

/// What an item is answered. An error is one of the whole transaction: SQLite has rolled it back,
/// or what it wrote cannot be trusted.
fn outcome<T>(
    conn: &Connection,
    item: &Item,
    result: rusqlite::Result<T>,
) -> Result<Result<T, StoreFailure>, StoreFailure> {
    let error = match result {
        Ok(value) => return Ok(Ok(value)),
        Err(error) => error,
    };
    let what = match item {
        Item::Op { op, .. } => op_name(op),
        Item::Query { .. } => "query",
    };
    // The detail stays here.
    match fatal::scope(conn, &error) {
        Scope::Transaction(failure) => {
            tracing::error!(what, %error, "transaction failed");
            Err(failure)
        }
        Scope::Operation(failure) => {
            tracing::error!(what, %error, "the database refused an operation");
            Ok(Err(failure))
        }
    }
}

fn op_name(op: &StoreOp) -> &'static str {
    match op {
        StoreOp::PresencePut(_) => "presence_put",
        StoreOp::PresenceGrace { .. } => "presence_grace",
        StoreOp::PresenceEnd { .. } => "presence_end",
        StoreOp::PresenceCursor { .. } => "presence_cursor",
        StoreOp::PresenceTold { .. } => "presence_told",
        StoreOp::Restarted(_) => "restarted",
        StoreOp::PeerStatePut(_) => "peer_state_put",
        StoreOp::StateSet { .. } => "state_set",
        StoreOp::StreamCreate(_) => "stream_create",
        StoreOp::Subscribed { .. } => "subscribed",
        StoreOp::MessageInsert(_) => "message_insert",
        StoreOp::MessageDelivered { .. } => "message_delivered",
        StoreOp::MessageAcked { .. } => "message_acked",
        StoreOp::Audit(_) => "audit",
        StoreOp::MemberRevoked { .. } => "member_revoked",
        StoreOp::SchedulePut(_) => "schedule_put",
        StoreOp::ScheduleCancelled { .. } => "schedule_cancelled",
        StoreOp::ScheduleFired { .. } => "schedule_fired",
        StoreOp::ServerPut(_) => "server_put",
        StoreOp::ServerRemoved { .. } => "server_removed",
        StoreOp::Topic(_) => "topic",
        StoreOp::Fence => "fence",
        StoreOp::WatchPut(_) => "watch_put",
        StoreOp::WatchRemoved { .. } => "watch_removed",
    }
}
