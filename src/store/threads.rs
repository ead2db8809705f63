//! How the store's threads begin, and what happens when one of them ends by a bug.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use super::queue::Shared;

/// Between looks whether a thread has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How much less than a loop its threads count where they share a processor. A loop that waits for
/// the writer's turn to end delays every message; a writer that waits makes larger groups.
const NICER: i32 = 5;

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
        // Of this thread only. Whoever is refused that goes on as before.
        rustix::process::nice(NICER).ok();
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use rustix::process::getpriority_process;

    use super::*;
    use crate::store::place::Place;

    #[test]
    fn its_threads_count_less_than_who_started_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t.db", "t.db-wal"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = Place::note(&dir.path().join("t.db")).unwrap();
        let shared = Arc::new(Shared::new(0, place));
        let (tell, told) = channel();
        let before = getpriority_process(None).unwrap();
        let own = move || tell.send(getpriority_process(None).unwrap()).unwrap();
        let thread = spawn("test", &shared, own).unwrap();
        assert_eq!(told.recv().unwrap(), (before + NICER).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
        assert!(join(thread, &mut Duration::from_secs(5)));
    }
}
