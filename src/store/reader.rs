//! The reader thread: lookups from the WAL's last commit, which hold up no commit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::queue::Shared;
use super::records::{self, Verifying};
use super::{Completion, apply, fatal, threads};
use crate::core::ids::{Seq, Token};
use crate::core::rows::{RecordAnswer, RecordAsk, RecordQuery, StoreAnswer, StoreFailure};

/// What the reader is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Something, for a shard.
    Lookup {
        shard: u16,
        token: Token,
        lookup: Lookup,
    },
    /// End, after what was asked before.
    Stop,
}

/// What is looked up.
#[derive(Debug)]
pub(super) enum Lookup {
    /// One message.
    Message(Seq),
    /// Something of what a mesh keeps on disk only, which is in the last commit.
    Records(Box<RecordQuery>),
}

/// Asks the reader, or says why not.
pub(super) fn ask(
    reader: &mpsc::Sender<Request>,
    shared: &Shared,
    (shard, token): (u16, Token),
    lookup: Lookup,
) -> Result<(), (Token, StoreFailure)> {
    let admitted = shared.counters.admit_lookup();
    admitted.map_err(|failure| (token, failure))?;
    let request = Request::Lookup {
        shard,
        token,
        lookup,
    };
    reader.send(request).map_err(|_| {
        shared.counters.lookup_done();
        (token, StoreFailure::Io)
    })
}

pub(super) fn spawn(
    conn: Connection,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
) -> std::io::Result<JoinHandle<()>> {
    let held = Arc::clone(&shared);
    let mut reader = Reader {
        conn,
        shared,
        verifying: VecDeque::new(),
    };
    threads::spawn("store-reader", &held, move || {
        while let Some(request) = reader.next(&requests) {
            let Request::Lookup {
                shard,
                token,
                lookup,
            } = request
            else {
                break;
            };
            reader.look_up(shard, token, &lookup);
        }
        reader.give_up();
    })
}

struct Reader {
    conn: Connection,
    shared: Arc<Shared>,
    /// Chains that are being verified, for whom; each gets its turn. The core asks for one per
    /// mesh at a time.
    verifying: VecDeque<(u16, Token, Verifying)>,
}

impl Reader {
    /// What is asked next; while nothing is, chains are verified.
    fn next(&mut self, requests: &mpsc::Receiver<Request>) -> Option<Request> {
        loop {
            match requests.try_recv() {
                Ok(request) => return Some(request),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) if self.verifying.is_empty() => {
                    return requests.recv().ok();
                }
                Err(mpsc::TryRecvError::Empty) => self.verify_on(),
            }
        }
    }

    fn look_up(&mut self, shard: u16, token: Token, lookup: &Lookup) {
        if let Lookup::Records(query) = lookup
            && matches!(query.ask, RecordAsk::AuditVerify)
        {
            let verifying = Verifying::of(&query.mesh_id);
            return self.verifying.push_back((shard, token, verifying));
        }
        let conn = &self.conn;
        let looked_up = catch_unwind(AssertUnwindSafe(|| match lookup {
            Lookup::Message(seq) => apply::message(conn, *seq),
            Lookup::Records(query) => records::answer(conn, query).map(StoreAnswer::Records),
        }));
        let result = self.outcome(looked_up);
        self.done(shard, token, result);
    }

    /// One step of the chain whose turn it is.
    fn verify_on(&mut self) {
        let Some((shard, token, mut verifying)) = self.verifying.pop_front() else {
            return;
        };
        let conn = &self.conn;
        let stepped = catch_unwind(AssertUnwindSafe(|| verifying.step(conn)));
        match self.outcome(stepped) {
            Ok(None) => self.verifying.push_back((shard, token, verifying)),
            Ok(Some(chain)) => {
                let answer = StoreAnswer::Records(RecordAnswer::Chain(chain));
                self.done(shard, token, Ok(answer));
            }
            Err(failure) => self.done(shard, token, Err(failure)),
        }
    }

    fn outcome<T>(
        &self,
        result: std::thread::Result<rusqlite::Result<T>>,
    ) -> Result<T, StoreFailure> {
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(%error, "a row cannot be read");
                Err(fatal::failure(&error))
            }
            Err(_panic) => {
                self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
                Err(StoreFailure::Io)
            }
        }
    }

    fn done(&self, shard: u16, token: Token, result: Result<StoreAnswer, StoreFailure>) {
        self.shared.counters.lookup_done();
        let answered = Completion::Answered { token, result };
        self.shared.deliver(shard, vec![answered]);
    }

    /// The store closes: nobody waits until a long chain is verified.
    fn give_up(&mut self) {
        while let Some((shard, token, _)) = self.verifying.pop_front() {
            self.done(shard, token, Err(StoreFailure::Io));
        }
    }
}
