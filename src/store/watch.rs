//! A disk that hangs: neither an error nor an answer.
//!
//! The writer shows that it works, and each time it gets on; a thread that touches no disk looks.
//! After [`PATIENCE`] without a step whoever waits is refused, as if the disk had failed, and what
//! peers know of is kept. What is in the transaction that hangs is answered when that ends.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::queue::Shared;
use super::threads;

/// Between looks.
const LOOK: Duration = Duration::from_millis(500);

/// Longest step of a writer that is well: more than it waits for somebody's lock.
const PATIENCE: Duration = Duration::from_secs(5);

const _: () = assert!(super::open::BUSY_TIMEOUT.as_secs() < PATIENCE.as_secs());

/// How the writer gets on.
#[derive(Default)]
pub(super) struct Pulse {
    working: AtomicBool,
    steps: AtomicU64,
    stalled: AtomicBool,
}

impl Pulse {
    /// The writer has woken, or gone to sleep.
    pub(super) fn works(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
        self.step();
    }

    /// The writer gets on.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// It has not for so long that the disk must hang.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

/// Looks until the other end of `stop` is dropped.
pub(super) fn spawn(shared: Arc<Shared>, stop: Receiver<Infallible>) -> io::Result<JoinHandle<()>> {
    let held = Arc::clone(&shared);
    threads::spawn("store-watch", &held, move || {
        let mut watch = Watch {
            shared,
            seen: 0,
            still: Duration::ZERO,
        };
        while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            watch.look();
        }
    })
}

struct Watch {
    shared: Arc<Shared>,
    /// Steps at the last look.
    seen: u64,
    /// Since when they are the same.
    still: Duration,
}

impl Watch {
    fn look(&mut self) {
        let pulse = &self.shared.pulse;
        let steps = pulse.steps.load(Ordering::Relaxed);
        let stuck = pulse.working.load(Ordering::Relaxed) && steps == self.seen;
        self.still = if stuck {
            self.still + LOOK
        } else {
            Duration::ZERO
        };
        self.seen = steps;
        // Reading a long table at the start is no hang.
        let stalled = self.still >= PATIENCE && self.shared.started();
        let before = pulse.stalled.swap(stalled, Ordering::Relaxed);
        if stalled && !before {
            tracing::error!("the disk does not answer; sends are refused until it does");
            self.shared.refuse_waiting();
        } else if before && !stalled {
            tracing::info!("the disk answers again");
        }
    }
}
