//! Whether the machine itself stood still while something was measured: a thread that sleeps for a
//! moment, again and again, and notes when it was woken late. What is late then is the machine's
//! doing, not the broker's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long it sleeps at a time.
const NAP: Duration = Duration::from_millis(10);

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub struct Stalls {
    noted: Arc<Noted>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Noted {
    longest_nanos: AtomicU64,
    ended: AtomicBool,
}

impl Stalls {
    /// Begins to look.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn watch() -> io::Result<Self> {
        let noted = Arc::new(Noted::default());
        let note = Arc::clone(&noted);
        let thread = thread::Builder::new()
            .name("stalls".to_owned())
            .spawn(move || {
                while !note.ended.load(Ordering::Relaxed) {
                    note.nap();
                }
            })?;
        Ok(Self {
            noted,
            thread: Some(thread),
        })
    }

    /// The latest that it was woken so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.noted.longest_nanos.load(Ordering::Relaxed))
    }
}

impl Noted {
    fn nap(&self) {
        let began = now();
        thread::sleep(NAP);
        let late = began.elapsed().saturating_sub(NAP);
        let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.longest_nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.noted.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, there is nothing left to be told.
            thread.join().ok();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "time is what is looked at here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nap_is_noted_and_it_ends_with_its_owner() {
        let stalls = Stalls::watch().unwrap();
        while stalls.longest() == Duration::ZERO {
            thread::sleep(NAP);
        }
        drop(stalls);
    }
}
