//! Everything a shard can ask for. Effects are carried out in the order given; for any one
//! connection that is the order it sees.

use bytes::Bytes;

use crate::event::Event;
use crate::hello::Hello;
use crate::ids::{ConnId, Ticket, Token};
use crate::input::Answer;
use crate::rows::{StoreOp, StoreQuery};
use crate::watch::FetchRequest;

/// One thing to be done.
#[derive(Debug)]
pub enum Effect {
    /// Write a text message. The payload is shared by all recipients of a broadcast.
    Send {
        /// To whom.
        conn: ConnId,
        /// JSON text.
        frame: Bytes,
    },
    /// Write a ping that carries a watermark (8 bytes, big endian).
    Ping {
        /// To whom.
        conn: ConnId,
        /// Cumulative count of what was written before it.
        watermark: u64,
    },
    /// Write a close frame after everything sent so far, then end the socket. `Input::Closed` follows.
    Close {
        /// Whose.
        conn: ConnId,
        /// What the frame says.
        close: Close,
    },
    /// End the socket at once, without a frame. `Input::Closed` follows.
    Abort {
        /// Whose.
        conn: ConnId,
    },
    /// Move the socket, with what was read from it and not yet given to the core, to another
    /// shard, which gets `Input::Adopted`. This shard hears nothing of `conn` again.
    Handoff {
        /// Which.
        conn: ConnId,
        /// Index of the mesh's home.
        shard: u16,
        /// What it said, and what of it is yet to be proven.
        hello: Box<Hello>,
    },
    /// Make durable. With a token, `Input::Stored` follows.
    Persist {
        /// What.
        op: StoreOp,
        /// Whether anybody waits.
        token: Option<Token>,
    },
    /// Ask the disk. `Input::Answered` follows.
    Query {
        /// What.
        query: StoreQuery,
        /// Names the answer.
        token: Token,
    },
    /// Fetch a document. `Input::Fetched` follows, unless the process stops.
    Fetch {
        /// What.
        request: Box<FetchRequest>,
        /// Names the result.
        token: Token,
    },
    /// Answer a question from outside.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Tell logs, metrics and checkers what happened.
    Observe(Event),
}

/// The effects of one call, in order. Owned by the caller and reused.
pub type Effects = Vec<Effect>;

/// A close code with its reason (protocol.md §22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// RFC 6455 §7.4 code.
    pub code: u16,
    /// Literal reason text.
    pub reason: &'static str,
}

impl Close {
    /// The identity attached elsewhere.
    pub const SESSION_REPLACED: Self = Self {
        code: 1000,
        reason: "session_replaced",
    };
    /// `goodbye`.
    pub const GOODBYE: Self = Self {
        code: 1000,
        reason: "goodbye",
    };
    /// `disconnect`.
    pub const DISCONNECTED: Self = Self {
        code: 1000,
        reason: "disconnected",
    };
    /// `disconnect` of stale sessions.
    pub const DISCONNECTED_STALE: Self = Self {
        code: 1000,
        reason: "disconnected_stale",
    };
    /// The broker stops.
    pub const SHUTTING_DOWN: Self = Self {
        code: 1001,
        reason: "shutting down",
    };
    /// A frame came on a socket whose session is gone: the client should reconnect.
    pub const SESSION_GONE: Self = Self {
        code: 1012,
        reason: "session_gone",
    };
    /// The client reads too slowly; it should reconnect.
    pub const SLOW_CONSUMER: Self = Self {
        code: 1013,
        reason: "slow_consumer",
    };
    /// `kick`.
    pub const KICKED: Self = Self {
        code: 4001,
        reason: "kicked",
    };
    /// `kick` of stale sessions.
    pub const KICKED_STALE: Self = Self {
        code: 4001,
        reason: "kicked_stale",
    };
    /// Revoked member.
    pub const BANNED: Self = Self {
        code: 4002,
        reason: "banned",
    };

    /// A refused hello (1008, the error code as the reason).
    #[must_use]
    pub const fn policy(reason: &'static str) -> Self {
        Self { code: 1008, reason }
    }
}
