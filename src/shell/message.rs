//! What may be said to a loop from outside it, and what happens when its lane is full.

use std::sync::mpsc::Sender;

use super::handoff::Parcel;
use super::http::reply::Reply;
use crate::core::ids::Token;
use crate::core::input::{Answer, Ask};
use crate::core::rows::{MemberRow, MeshRow};
use crate::core::watch::FetchFailure;
use crate::store::Completion;

/// One message to a loop. *Offered* ones may be refused by a full lane, *delivered* ones not.
pub(super) enum Message {
    /// Every loop has its rows: begin to accept. Delivered; once per process.
    Listen,
    /// Results of the store. Delivered: their number is bounded by the store's own queue, and a
    /// lost one would leave a client waiting for ever.
    Stored(Vec<Completion>),
    /// A document was fetched for this loop, or could not be. Delivered: one for each fetch, whose
    /// number is bounded by the core, and a lost one would end a watch.
    Fetched {
        /// The shard's own name of it.
        token: Token,
        /// What.
        result: Result<String, FetchFailure>,
    },
    /// A socket whose mesh lives here. Offered; refused, the parcel is dropped, which closes the
    /// socket: its client reconnects after its backoff. Counted.
    Handoff(Box<Parcel>),
    /// A question. Offered; refused, the asker does without this loop's answer.
    Ask {
        /// What.
        ask: Ask,
        /// Who.
        asker: Asker,
    },
    /// The answer of loop `from` to the question this loop asked under `ticket`. Delivered: at
    /// most one per question and loop.
    Answer {
        /// The asker's own name of the question.
        ticket: u64,
        /// Whose answer.
        from: u16,
        /// What.
        answer: Answer,
    },
    /// The clerk's answer to the HTTP request that waits under `ticket`. Delivered: one per
    /// request.
    Replied {
        /// The loop's own name of the request.
        ticket: u64,
        /// What.
        reply: Reply,
    },
    /// An administrator's change of a mesh. Offered; refused, the administrator is told.
    PutMesh(Box<MeshRow>, Sender<()>),
    /// An administrator's change of a member. Offered; refused, the administrator is told.
    PutMember(Box<MemberRow>, Sender<()>),
    /// Close everything and end. Delivered; once per process.
    Shutdown,
    /// From a loop to itself: everything has been closed. Delivered; once.
    Drained,
}

/// Who waits for an answer.
#[derive(Clone)]
pub(super) enum Asker {
    /// A task of loop `index` (possibly this one), under its own ticket.
    Loop {
        /// Whose lane the answer goes to.
        index: u16,
        /// Its name there.
        ticket: u64,
    },
    /// A thread. If it no longer waits, the answer is dropped.
    Thread(Sender<(u16, Answer)>),
}
