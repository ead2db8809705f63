//! How the store's threads begin, and what happens when one of them ends by a bug.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use super::queue::Shared;

/// Between looks whether a thread has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a thread whose death is told: without it the store does half its work, and nobody would
/// notice before the disk is full or the mail is late.
pub(super) fn spawn(
    name: &'static str,
    shared: &Arc<Shared>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let alarm = Alarm {
        name,
        shared: Arc::clone(shared),
    };
    Builder::new().name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        work();
    })
}

struct Alarm {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(thread = self.name, "a thread of the store died");
            self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
            self.shared.died();
        }
    }
}

/// Waits until a thread has ended, for as long as there is `patience`. False if it has not.
pub(super) fn join(thread: JoinHandle<()>, patience: &mut Duration) -> bool {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    while !thread.is_finished() {
        if patience.is_zero() {
            tracing::error!(
                thread = name,
                "the disk does not answer: the store ends without waiting any longer"
            );
            return false;
        }
        thread::sleep(LOOK);
        *patience = patience.saturating_sub(LOOK);
    }
    // A panic was told of when it happened.
    thread.join().ok();
    true
}
