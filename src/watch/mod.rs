//! Fetching documents for URL watches, on threads of its own: whoever asks never waits.
//!
//! ```text
//!  loop --Fetch--> queue --> one of FETCHERS threads --> client --> FetchSink --Fetched--> loop
//! ```
//! Every request gets one result, also when the queue is full, the thread panics or the process
//! stops. The bodies of documents stay here: the core is given the value that its own
//! [`Reading`](crate::core::watch::Reading) makes of one.
//!
//! Which addresses may be reached is decided in one place, where a name becomes addresses
//! (`resolve`), once for each request and so again after every redirect; the connection goes to
//! just these addresses. Must not: know sessions, meshes or intervals.

mod address;
mod client;
mod location;
mod resolve;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use address::is_public;
use client::Client;
pub use resolve::{Lookup, SystemLookup};

use crate::core::ids::Token;
use crate::core::time::{Millis, Mono};
use crate::core::watch::{FetchFailure, FetchRequest};

/// Threads that fetch. Each waits on one server at a time, for [`FETCH_TIME`] at the most.
const FETCHERS: usize = 8;

/// Requests that wait for a thread; a further one fails at once.
const QUEUE_MAX: usize = 128;

/// Time for a request, from the moment it is made to the last byte of its answer, redirects and
/// waiting included (protocol.md §13).
pub const FETCH_TIME: Millis = Millis::secs(10);

/// Where results go.
pub trait FetchSink: Send + Sync {
    /// The result of the request that `shard` made as `token`. Must not block or panic.
    fn fetched(&self, shard: u16, token: Token, result: Result<String, FetchFailure>);
}

/// What the threads share.
struct Common {
    client: Client,
    sink: Arc<dyn FetchSink>,
    now: Box<dyn Fn() -> Mono + Send + Sync>,
}

/// A request under way. Dropped without a result, it fails.
struct Job {
    shard: u16,
    token: Token,
    request: Box<FetchRequest>,
    until: Mono,
    result: Result<String, FetchFailure>,
    sink: Arc<dyn FetchSink>,
}

impl Drop for Job {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(FetchFailure::Busy));
        self.sink.fetched(self.shard, self.token, result);
    }
}

/// The way to the threads, which end when it is dropped and they have done what they are at.
pub struct Fetcher {
    jobs: SyncSender<Job>,
    common: Arc<Common>,
}

impl Fetcher {
    /// Starts the threads. `lookup` finds the addresses of names; those that are not public are
    /// refused unless `allow_private`. `now` is the clock.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        lookup: Arc<dyn Lookup>,
        allow_private: bool,
        now: impl Fn() -> Mono + Send + Sync + 'static,
        sink: Arc<dyn FetchSink>,
    ) -> io::Result<Self> {
        let common = Arc::new(Common {
            client: Client::new(lookup, if allow_private { |_| true } else { is_public }),
            sink,
            now: Box::new(now),
        });
        let (jobs, waiting) = sync_channel(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..FETCHERS {
            let (common, waiting) = (Arc::clone(&common), Arc::clone(&waiting));
            let named = thread::Builder::new().name(format!("watch-{index}"));
            named.spawn(move || work(&common, &waiting))?;
        }
        Ok(Self { jobs, common })
    }

    /// Has a document fetched; the result goes to the sink. Never waits.
    pub fn fetch(&self, shard: u16, token: Token, request: Box<FetchRequest>) {
        let job = Job {
            shard,
            token,
            request,
            until: (self.common.now)().after(FETCH_TIME),
            result: Err(FetchFailure::Busy),
            sink: Arc::clone(&self.common.sink),
        };
        // Refused, it is dropped, which says so.
        self.jobs.try_send(job).ok();
    }
}

fn work(common: &Common, waiting: &Mutex<Receiver<Job>>) {
    loop {
        // One thread at a time waits for a job; nothing that can panic runs under the lock.
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(mut job) = next else { return };
        job.result = fetch(common, &job);
        if let Err(failure) = job.result {
            // No query: it may carry what is nobody's business.
            let url = job.request.url.split(['?', '#']).next().unwrap_or_default();
            tracing::debug!(
                url,
                why = failure.label(),
                "a watched document was not fetched"
            );
        }
    }
}

fn fetch(common: &Common, job: &Job) -> Result<String, FetchFailure> {
    let left = || job.until.since((common.now)());
    if left() == Millis(0) {
        return Err(FetchFailure::Busy);
    }
    // Strangers decide what the client has to read: a bug there must not end the broker.
    let fetched = catch_unwind(AssertUnwindSafe(|| {
        common.client.fetch(&job.request, &left)
    }));
    fetched.unwrap_or_else(|_| {
        tracing::error!("a watch could not be checked for a panic; this is a bug");
        Err(FetchFailure::Protocol)
    })
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}
