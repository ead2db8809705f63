//! The reader thread: lookups from the WAL's last commit, which hold up no commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::queue::Shared;
use super::{Completion, apply, fatal, threads};
use crate::core::ids::{Seq, Token};
use crate::core::rows::StoreFailure;

/// What the reader is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// One message.
    Message { shard: u16, seq: Seq, token: Token },
    /// End, after what was asked before.
    Stop,
}

pub(super) fn spawn(
    conn: Connection,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
) -> std::io::Result<JoinHandle<()>> {
    let held = Arc::clone(&shared);
    threads::spawn("store-reader", &held, move || {
        while let Ok(Request::Message { shard, seq, token }) = requests.recv() {
            let looked_up = catch_unwind(AssertUnwindSafe(|| apply::message(&conn, seq)));
            let result = match looked_up {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => {
                    tracing::error!(seq = seq.0, %error, "a message cannot be read");
                    Err(fatal::failure(&error))
                }
                Err(_panic) => {
                    shared.counters.panics.fetch_add(1, Ordering::Relaxed);
                    Err(StoreFailure::Io)
                }
            };
            shared.counters.lookup_done();
            shared.deliver(shard, vec![Completion::Answered { token, result }]);
        }
    })
}
