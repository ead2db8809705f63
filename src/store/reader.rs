//! The reader thread: lookups from the WAL's last commit, which hold up no commit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::queue::Shared;
use super::records::{self, Verifying};
use super::turns::{Question, Turns};
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
        turns: Turns::default(),
        verifying: VecDeque::new(),
    };
    threads::spawn("store-reader", &held, move || {
        reader.run(&requests);
    })
}

struct Reader {
    conn: Connection,
    shared: Arc<Shared>,
    turns: Turns,
    /// Chains that are being verified, for whom; each gets its turn. The core asks for one per
    /// mesh at a time.
    verifying: VecDeque<(u16, Token, Verifying)>,
}

impl Reader {
    /// Answers until it is told to stop, and then what was asked before.
    fn run(&mut self, requests: &mpsc::Receiver<Request>) {
        let mut stopping = false;
        loop {
            stopping |= self.take_in(requests, stopping);
            match self.turns.next() {
                Some(question) => self.look_up(question),
                None if stopping => break,
                None => self.verify_on(),
            }
        }
        self.give_up();
    }

    /// Takes what has been asked; waits for it if there is nothing else to do. True if no more
    /// comes.
    fn take_in(&mut self, requests: &mpsc::Receiver<Request>, stopping: bool) -> bool {
        loop {
            let idle = self.turns.is_empty() && self.verifying.is_empty() && !stopping;
            let request = if idle {
                requests
                    .recv()
                    .map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                requests.try_recv()
            };
            match request {
                Ok(Request::Lookup {
                    shard,
                    token,
                    lookup,
                }) => self.take(shard, token, lookup),
                Ok(Request::Stop) | Err(mpsc::TryRecvError::Disconnected) => return true,
                Err(mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    /// One message is looked up at once, all else in its turn.
    fn take(&mut self, shard: u16, token: Token, lookup: Lookup) {
        match lookup {
            Lookup::Message(seq) => {
                let conn = &self.conn;
                let found = catch_unwind(AssertUnwindSafe(|| apply::message(conn, seq)));
                let result = self.outcome(found);
                self.done(shard, token, result);
            }
            Lookup::Records(query) => self.turns.push(Question {
                shard,
                token,
                query,
            }),
        }
    }

    fn look_up(&mut self, question: Question) {
        let Question {
            shard,
            token,
            query,
        } = question;
        if matches!(query.ask, RecordAsk::AuditVerify) {
            let verifying = Verifying::of(&query.mesh_id);
            return self.verifying.push_back((shard, token, verifying));
        }
        let conn = &self.conn;
        let looked_up = catch_unwind(AssertUnwindSafe(|| records::answer(conn, &query)));
        let result = self.outcome(looked_up).map(StoreAnswer::Records);
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
