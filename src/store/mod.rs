//! What outlives the process: one SQLite file, one writer thread with group commit, one reader.
//!
//! Owns the file, its lock, its schema and the threads that touch it. Must not decide anything
//! about presence or delivery: it carries out [`StoreOp`]s in the order given and says when they
//! are durable.
//!
//! ```text
//!  loops --StoreClient--> lanes (one per shard) --> writer --commit--> CompletionSink
//!        \--------------> channel --------------> reader ----------------^
//!  AdminStore ----------> jobs -----------------> writer (own transaction, after what is queued)
//!  housekeeper: checkpoints the WAL, says when to retry, when to sweep, and whether the files
//!               are still in place
//!  watch: says when the disk hangs
//! ```
//!
//! **Group commit.** Whatever has queued up since the last commit goes into the next transaction,
//! so an idle store adds no delay and a busy one makes large groups.
//!
//! **When the disk fails** (full, read-only, damaged, not answering): whoever waits for an
//! operation is told at once; what peers have already been told of (presence, confirmations,
//! audit) is kept in order and retried until the disk is back, so that rows never part from what
//! was said. [`Health`] says `Failing` meanwhile. A database that is taken away while it is open
//! is a disk that fails.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::config::Durability;
use crate::core::ids::{Seq, Token};
use crate::core::limits::LogLimits;
use crate::core::rows::{BootRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery};

mod admin;
mod apply;
mod audit;
mod backlog;
mod boot;
mod checkpoint;
mod encode;
mod fatal;
mod gauges;
mod lanes;
mod merge;
mod offline;
mod open;
mod place;
mod queue;
mod reader;
mod records;
mod retention;
mod schema;
mod sharing;
mod threads;
mod topics;
mod trust;
mod turns;
mod verifying;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use admin::{
    AdminError, AdminStore, ClientConfig, EditError, Invite, InvitePayload, JoinError, Joined,
    Joining, MemberCard, MemberEdit, MeshSummary, NewInvite, NewMember, NewMesh, SettingsEdit,
};
pub use boot::{BootError, Image};
pub use gauges::{Health, HealthState};
pub use offline::Offline;
pub use open::OpenError;
pub use verifying::{VerifyError, verify_audit};

use open::FileLock;
use place::Place;
use queue::{Item, Job, Shared};

/// Where results go. Called by the store's threads, and by the thread that calls
/// [`StoreClient::persist`] or [`StoreClient::query`] when the store refuses without trying; it
/// must neither block nor call the store.
pub trait CompletionSink: Send + Sync {
    /// Takes the results of one shard, in the order of its operations; what is refused without
    /// trying may come before.
    fn complete(&self, shard: u16, batch: Vec<Completion>);

    /// A thread of the store has died by a bug. Some things will never be stored: the process
    /// should end.
    fn died(&self);
}

/// The result of an operation somebody waits for.
#[derive(Clone, Debug)]
pub enum Completion {
    /// Becomes `Input::Stored`.
    Stored {
        /// Which.
        token: Token,
        /// `Ok` once it is durable.
        result: Result<(), StoreFailure>,
    },
    /// Becomes `Input::Answered`.
    Answered {
        /// Which.
        token: Token,
        /// The rows.
        result: Result<StoreAnswer, StoreFailure>,
    },
}

/// How long closing waits for a disk that does not answer.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The open store. [`Store::close`] (and dropping it) writes what is queued and joins its threads.
pub struct Store {
    shared: Arc<Shared>,
    reader: mpsc::Sender<reader::Request>,
    // In the order in which they are joined: the writer's connection closes last, and with it
    // SQLite empties the WAL.
    threads: Vec<JoinHandle<()>>,
    // Dropped to stop the watch.
    watch: Option<mpsc::Sender<Infallible>>,
    path: PathBuf,
    // Last, so that the file is free only when nothing touches it any more.
    lock: Option<FileLock>,
}

impl Store {
    /// Opens or creates the database and starts the threads that serve it.
    ///
    /// # Errors
    /// See [`OpenError`]: each variant is one clear line.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, OpenError> {
        let path = &open::create(path)?;
        let lock = FileLock::take(path)?;
        let sqlite = OpenError::sqlite(path);
        let mut conn = open::writer(path, durability)?;
        schema::migrate(&mut conn).map_err(&sqlite)?;
        let undelivered = apply::undelivered(&conn).map_err(&sqlite)?;
        let lookups = open::reader(path)?;
        let checkpoints = open::writer(path, durability)?;
        let place = Place::note(path)?;
        let shared = Arc::new(Shared::new(undelivered, place));
        writer::count_wal(&mut conn, &shared).map_err(&sqlite)?;
        let (reader, requests) = mpsc::channel();
        let (watch, stop) = mpsc::channel();
        let threads = vec![
            watch::spawn(Arc::clone(&shared), stop)?,
            reader::spawn(lookups, Arc::clone(&shared), requests)?,
            checkpoint::spawn(checkpoints, Arc::clone(&shared))?,
            writer::spawn(conn, Arc::clone(&shared), reader.clone())?,
        ];
        Ok(Self {
            shared,
            reader,
            threads,
            watch: Some(watch),
            path: path.to_owned(),
            lock: Some(lock),
        })
    }

    /// The sequence of this process's first message: above every row, also of those since deleted.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next_seq(&self) -> Result<Seq, BootError> {
        self.reading(|conn| boot::next_seq(conn))
    }

    /// Reads what the last process left, of the meshes' logs as much as `log` allows, gives it to
    /// `deliver` in batches as it is read, and counts this boot. Call once, before
    /// [`Store::start`], and do not start a store that cannot be read: what was made of its first
    /// rows must not be written down.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn boot(
        &self,
        log: LogLimits,
        mut deliver: impl FnMut(Vec<BootRow>) + Send + 'static,
    ) -> Result<Image, BootError> {
        self.reading(move |conn| boot::read(conn, &log, &mut deliver))
    }

    /// Has the writer read something, before it writes.
    fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BootError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let path = self.path.clone();
        let job: Job = Box::new(move |conn| {
            let read = conn
                .map_err(BootError::Failing)
                .and_then(|conn| read(conn).map_err(|source| BootError::Sqlite { path, source }));
            // The caller waits for it below, unless its thread died; then nobody cares.
            reply.send(read).ok();
        });
        self.shared.run(job);
        answer.recv().unwrap_or(Err(BootError::Stopped))
    }

    /// Begins to work on what clients give; results go to `sink`. Call once.
    pub fn start(&self, sink: Arc<dyn CompletionSink>) {
        self.shared.start(sink);
    }

    /// The door for one shard.
    #[must_use]
    pub fn client(&self, shard: u16) -> StoreClient {
        self.shared.add_lane(shard);
        StoreClient {
            shard,
            shared: Arc::clone(&self.shared),
            reader: self.reader.clone(),
        }
    }

    /// The door for administrators.
    #[must_use]
    pub fn admin(&self) -> AdminStore {
        AdminStore::new(Arc::clone(&self.shared) as Arc<dyn admin::RunJob>)
    }

    /// How the store is. Cheap.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.counters.health(self.shared.pulse.stalled())
    }

    /// Writes what is queued, if the disk lets it, and joins the threads. A disk that hangs is
    /// waited for 10 s.
    pub fn close(self) {
        drop(self);
    }

    /// True if all threads have ended.
    fn stop(&mut self, mut patience: Duration) -> bool {
        self.watch = None;
        let _stopped = self.reader.send(reader::Request::Stop);
        self.shared.stop_housekeeper();
        let writer = self.threads.pop();
        let mut ended = true;
        for thread in self.threads.drain(..) {
            ended &= threads::join(thread, &mut patience);
        }
        self.shared.close();
        if let Some(writer) = writer {
            ended &= threads::join(writer, &mut patience);
        }
        ended
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.stop(CLOSE_PATIENCE) {
            // Whatever may still write must not meet another broker: the lock goes with the
            // process.
            std::mem::forget(self.lock.take());
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// One shard's door to the store. Never blocks. Operations take effect in the order given.
#[derive(Clone)]
pub struct StoreClient {
    shard: u16,
    shared: Arc<Shared>,
    reader: mpsc::Sender<reader::Request>,
}

impl StoreClient {
    /// Makes `op` durable; with a token, [`Completion::Stored`] follows, after the commit. Beyond
    /// the bounds of the queue the answer is [`StoreFailure::Overloaded`], at once.
    pub fn persist(&self, op: StoreOp, token: Option<Token>) {
        self.shared.submit(self.shard, Item::Op { op, token });
    }

    /// Asks; [`Completion::Answered`] follows.
    pub fn query(&self, query: StoreQuery, token: Token) {
        match query {
            StoreQuery::Mailbox { .. } | StoreQuery::Sent { .. } | StoreQuery::Records(_) => {
                self.shared.submit(self.shard, Item::Query { query, token });
            }
            StoreQuery::Message { seq } => {
                let (whose, lookup) = ((self.shard, token), reader::Lookup::Message(seq));
                if let Err((token, failure)) =
                    reader::ask(&self.reader, &self.shared, whose, lookup)
                {
                    self.refuse(token, failure);
                }
            }
        }
    }

    fn refuse(&self, token: Token, failure: StoreFailure) {
        self.shared.deliver(
            self.shard,
            vec![Completion::Answered {
                token,
                result: Err(failure),
            }],
        );
    }
}

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClient")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}
