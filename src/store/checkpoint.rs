//! The housekeeper thread: checkpoints, and the only one that waits for time to pass.
//!
//! **Checkpoints.** Inside a commit they make its p99, so they run here, beside the writer
//! (PASSIVE disturbs nobody). But under a writer that never pauses a PASSIVE checkpoint never
//! reaches the end, and the WAL never starts anew: past [`WAL_PAGES_MAX`] the writer is asked to
//! do the short rest itself between two transactions (RESTART). That cap is soft: nothing that
//! somebody's tool still reads can be checkpointed, so while a reader outside keeps its
//! transaction open the WAL grows with every commit. It is said when it is far over the cap.
//!
//! **Timing.** While the disk fails it says when to retry; once an hour it says that it is time
//! for a retention sweep, and whether the wall clock can be believed (`trust`).
//!
//! **The files.** Every 2 s or sooner it looks whether they are still in place.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::queue::{House, Shared};
use super::retention::Order;
use super::trust::{Steady, Trust};
use super::{apply, open, threads};
use crate::core::time::{Millis, Mono};

/// Frames in the WAL beyond which the writer must help.
pub(super) const WAL_PAGES_MAX: usize = 16_384;

/// The same in bytes (of 4 KiB pages); what the WAL file is cut back to when it starts anew.
pub(super) const WAL_BYTES_MAX: i64 = 16_384 * 4096;

/// Frames worth a checkpoint (and the two fsyncs it costs) while commits go on.
const CHECKPOINT_PAGES: usize = 1000;

/// Between looks at the WAL while there are commits.
const TICK: Duration = Duration::from_millis(100);

/// Ticks without a commit after which the rest is checkpointed, however little it is.
const QUIET_TICKS: u32 = 10;

/// Between looks at the files and the clocks while there are none.
const REST: Duration = Duration::from_secs(2);

/// Length of the WAL that is worth a warning: only a reader can make it so long.
const WAL_BYTES_WARN: u64 = 4 * WAL_BYTES_MAX.cast_unsigned();

/// First and longest wait between retries while the disk fails.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

const SWEEP_EVERY: Millis = Millis::secs(3600);

pub(super) fn spawn(conn: Connection, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let held = Arc::clone(&shared);
    let keeper = Housekeeper {
        conn,
        shared,
        steady: Steady::start(),
        trust: None,
        warned: Warned::default(),
        done: 0,
        seen: 0,
        quiet: 0,
        backoff: BACKOFF.0,
        next_sweep: Mono(0),
    };
    threads::spawn("store-housekeeper", &held, move || keeper.run())
}

struct Housekeeper {
    conn: Connection,
    shared: Arc<Shared>,
    /// Frames known to be in the database file.
    done: usize,
    /// Frames in the WAL at the last look.
    seen: usize,
    /// Ticks since that changed.
    quiet: u32,
    /// The next wait while the disk fails.
    backoff: Duration,
    steady: Steady,
    /// From the first look at the wall clock on.
    trust: Option<Trust>,
    /// When the next sweep is due; the first one at once, for brokers that never live an hour.
    next_sweep: Mono,
    warned: Warned,
}

/// What has been said, and is not said again before it has changed.
#[derive(Default)]
struct Warned {
    checkpoint_failed: bool,
    wal_long: bool,
}

impl Housekeeper {
    fn run(mut self) {
        loop {
            self.look_at_clocks();
            self.look_at_files();
            let idle = self.pages() == self.done;
            if idle {
                self.shared.house_rests();
                // A commit that came in between found us awake and did not wake us.
                if self.pages() != self.done {
                    continue;
                }
            }
            let (house, wake) = self.shared.house();
            let (span, failing) = match (house.failing, idle) {
                (true, _) => (self.backoff, true),
                (false, true) => (REST, false),
                (false, false) => (TICK, false),
            };
            let unchanged = |house: &mut House| {
                !house.stop && house.failing == failing && !(idle && house.dirty)
            };
            let (house, _) = wake
                .wait_timeout_while(house, span, unchanged)
                .unwrap_or_else(PoisonError::into_inner);
            let (stop, still_failing) = (house.stop, house.failing);
            drop(house);
            if stop {
                return;
            }
            self.after_wait(failing, still_failing);
        }
    }

    fn after_wait(&mut self, failing: bool, still_failing: bool) {
        if failing && still_failing {
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
            self.shared.signal(|inbox| inbox.retry = true);
        } else if !still_failing {
            self.backoff = BACKOFF.0;
            self.tick();
        }
    }

    fn pages(&self) -> usize {
        self.shared.counters.wal_pages.load(Ordering::SeqCst)
    }

    fn tick(&mut self) {
        let pages = self.pages();
        // The writer has begun the WAL anew.
        self.done = if pages < self.done { 0 } else { self.done };
        self.quiet = if pages == self.seen {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        self.seen = pages;
        let undone = pages - self.done;
        if undone >= CHECKPOINT_PAGES || (undone > 0 && self.quiet >= QUIET_TICKS) {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        let pages = self.pages();
        match passive(&self.conn) {
            Ok(outcome) => {
                // A reader may hold back the rest; it is then tried again at the next tick.
                let all = outcome.moved == outcome.frames;
                self.done = if all { pages } else { outcome.moved.min(pages) };
                self.warned.checkpoint_failed = false;
                if outcome.frames >= WAL_PAGES_MAX {
                    self.shared.signal(|inbox| inbox.restart_wal = true);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.warned.checkpoint_failed, true) {
                    tracing::warn!(%error, "checkpoints fail; the WAL keeps the rows");
                }
            }
        }
    }

    fn look_at_clocks(&mut self) {
        // A wall clock that cannot be read puts the sweep off; it is not worth more.
        let Ok(wall) = apply::wall(&self.conn) else {
            return;
        };
        let mono = self.steady.now();
        let trust = self.trust.get_or_insert_with(|| Trust::new(wall, mono));
        let expire = trust.look(wall, mono);
        if mono >= self.next_sweep {
            self.next_sweep = mono.after(SWEEP_EVERY);
            let order = Order { now: wall, expire };
            self.shared.signal(|inbox| inbox.sweep = Some(order));
        }
    }

    fn look_at_files(&mut self) {
        let place = &self.shared.place;
        if !place.holds() {
            self.shared.signal(|inbox| inbox.look = true);
        }
        let Some(bytes) = place.wal_bytes() else {
            return;
        };
        self.shared
            .counters
            .wal_bytes
            .store(bytes, Ordering::Relaxed);
        let long = bytes > WAL_BYTES_WARN;
        if long && !self.warned.wal_long {
            tracing::warn!(
                bytes,
                "the -wal of the database grows: somebody has been reading the database for long"
            );
        }
        self.warned.wal_long = long;
    }
}

/// What a checkpoint found and did.
struct Outcome {
    /// Somebody was in the way.
    busy: bool,
    /// Frames in the WAL.
    frames: usize,
    /// Of those, how many are in the database file now.
    moved: usize,
}

/// Moves what can be moved without disturbing anybody.
fn passive(conn: &Connection) -> rusqlite::Result<Outcome> {
    run(conn, "PASSIVE")
}

/// Moves the rest and begins the WAL anew, from the writer's connection between transactions. If
/// somebody reads from the WAL it is left for another time, since commits would wait; then false.
pub(super) fn restart(conn: &Connection, mode: Restart) -> rusqlite::Result<bool> {
    let mode = match mode {
        Restart::KeepFile => "RESTART",
        Restart::FreeDisk => "TRUNCATE",
    };
    conn.busy_timeout(Duration::ZERO)?;
    let outcome = run(conn, mode);
    conn.busy_timeout(open::BUSY_TIMEOUT)?;
    Ok(!outcome?.busy)
}

/// What becomes of the WAL's file.
#[derive(Clone, Copy)]
pub(super) enum Restart {
    /// It is written over.
    KeepFile,
    /// It is emptied.
    FreeDisk,
}

fn run(conn: &Connection, mode: &str) -> rusqlite::Result<Outcome> {
    conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| {
            let frames = |index| row.get(index).map(|n: i64| usize::try_from(n).unwrap_or(0));
            Ok(Outcome {
                busy: row.get(0)?,
                frames: frames(1)?,
                moved: frames(2)?,
            })
        })
}
