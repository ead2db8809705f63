//! What can be observed. One vocabulary for logs, metrics and the simulator's checkers.

use crate::ids::{ConnId, PeerHandle};
use crate::rows::Priority;

/// Something a person or a checker may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hello was refused; `reason` is the metric's label (protocol.md §2.2).
    HelloRefused {
        /// Whose.
        conn: ConnId,
        /// Closed set of labels.
        reason: &'static str,
    },
    /// A lease began.
    LeaseBegan {
        /// Which.
        peer: PeerHandle,
        /// Presence id.
        presence_id: String,
        /// Mesh id.
        mesh_id: String,
    },
    /// A session got a socket back.
    Reattached {
        /// Which, with its new generation.
        peer: PeerHandle,
        /// Presence id.
        presence_id: String,
        /// Whether another socket was still attached.
        takeover: bool,
    },
    /// A session lost its socket and entered grace.
    GraceBegan {
        /// Which.
        peer: PeerHandle,
        /// Presence id.
        presence_id: String,
    },
    /// A lease ended.
    LeaseEnded {
        /// Which.
        peer: PeerHandle,
        /// Presence id.
        presence_id: String,
        /// Why.
        why: LeaseEnd,
    },
    /// Something happened on a generation that is no longer attached, and changed nothing.
    Stale {
        /// The socket it happened on.
        conn: ConnId,
        /// What: `close`, `frame`, `pong`, `timer`.
        what: &'static str,
    },
    /// A recipient was pushed a message.
    Routed {
        /// Of which priority.
        priority: Priority,
        /// To how many.
        recipients: u64,
    },
    /// A send was refused; `reason` is the metric's label.
    SendRefused {
        /// `rate_limit`, `too_large`, `no_recipient`, `parse_or_handler`, `storage`.
        reason: &'static str,
    },
    /// A session came back, and its mesh's log no longer held all it had missed.
    ReplayTruncated {
        /// Which.
        peer: PeerHandle,
    },
    /// A hello brought a resume token.
    Resumed {
        /// What came of it: `accepted`, or why the full handshake was needed (`malformed`,
        /// `expired`, `foreign`, `forged`, `used`, `gone`).
        result: &'static str,
    },
    /// A send was made again and got the answer of the first time.
    SendRepeated,
    /// A recipient was skipped for want of a grant.
    GrantDenied {
        /// `dm` or `broadcast`.
        cap: &'static str,
    },
    /// Working statuses that ran out in one sweep.
    StatusExpired,
    /// A socket was silent for too long and was aborted.
    Silent {
        /// Which.
        peer: PeerHandle,
    },
    /// A newcomer was refused because the incumbent of its identity still answers.
    Conflict {
        /// Whose identity.
        peer: PeerHandle,
    },
    /// A store operation that nobody waited for could not be described to a client.
    StoreRefused,
    /// A document was fetched for a watch, or could not be.
    Watched {
        /// `first`, `same`, `changed`, `told`, `gone` (the watch is), or why it could not be.
        result: &'static str,
    },
    /// A status hook was answered.
    Hook,
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Grace ran out.
    Expired,
    /// `goodbye`, or a throw-away connection closed cleanly.
    Goodbye,
    /// `kick`.
    Kicked,
    /// `disconnect`.
    Disconnected,
    /// Banned or revoked.
    Banned,
    /// Another identity took its session id or session key.
    Replaced,
}
