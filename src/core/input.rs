//! Everything that can happen to a shard. Time comes beside it, never inside.

use crate::hello::Hello;
use crate::ids::{ConnId, Ticket, Token};
use serde_json::value::RawValue;

use crate::rows::{BootRow, MemberRow, MeshRow, Status, StoreAnswer, StoreFailure};
use crate::watch::FetchFailure;

/// One thing that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A WebSocket finished its upgrade on this loop; its hello deadline begins.
    Opened {
        /// The socket.
        conn: ConnId,
    },
    /// A whole message arrived: text, or binary that is valid UTF-8.
    Frame {
        /// The socket.
        conn: ConnId,
        /// The message.
        text: &'a str,
    },
    /// A binary message that is not UTF-8 arrived.
    Undecodable {
        /// The socket.
        conn: ConnId,
    },
    /// The peer pinged: proof of life. The shell has answered it.
    Pinged {
        /// The socket.
        conn: ConnId,
    },
    /// The peer ponged.
    Ponged {
        /// The socket.
        conn: ConnId,
        /// What it returned.
        payload: &'a [u8],
    },
    /// The socket is gone. The last input of that [`ConnId`], also after an [`crate::effect::Effect::Close`].
    Closed {
        /// The socket.
        conn: ConnId,
        /// How.
        how: Closing,
    },
    /// A socket that said hello on another loop arrived here, its mesh's home.
    Adopted {
        /// The socket, as this loop names it.
        conn: ConnId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// A store operation ended.
    Stored {
        /// Which.
        token: Token,
        /// How.
        result: Result<(), StoreFailure>,
    },
    /// A store query was answered.
    Answered {
        /// Which.
        token: Token,
        /// How.
        result: Result<StoreAnswer, StoreFailure>,
    },
    /// A document was fetched, and its value read; or there is none.
    Fetched {
        /// Which.
        token: Token,
        /// What [`Reading::value`](crate::watch::Reading::value) made of it.
        result: Result<String, FetchFailure>,
    },
    /// A row found at boot, before the loop accepts.
    Boot(BootRow),
    /// An administrator made or changed a mesh.
    MeshPut(Box<MeshRow>),
    /// An administrator made, changed or revoked a member.
    MemberPut(Box<MemberRow>),
    /// A question from outside the mesh's own sockets.
    Ask {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The question.
        ask: Ask,
    },
    /// The process is about to stop: sockets close 1001, leases stay.
    Shutdown,
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The client sent a close frame.
    Clean,
    /// FIN or RST without one, a protocol error, a time-out, a full buffer.
    Abrupt,
}

/// A question that concerns a whole shard.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Gauges for `/metrics`.
    Gauges,
    /// Who is present in a mesh (id or slug).
    Peers {
        /// Id or slug.
        mesh: String,
    },
    /// The best session for a status hook (protocol.md §2.3).
    HookFind {
        /// Working directory to match.
        cwd: String,
        /// Process id to prefer.
        pid: Option<i64>,
    },
    /// Applies a hook's status to the presence found.
    HookApply {
        /// Slot of the session, from [`Answer::HookCandidate`].
        slot: u32,
        /// Its presence id, which must still be the one in that slot.
        presence_id: String,
        /// The new status.
        status: Status,
    },
    /// Keeps a hook's status for a presence yet to come.
    HookPend {
        /// Working directory.
        cwd: String,
        /// Process id, or 0.
        pid: i64,
        /// The status.
        status: Status,
    },
    /// Tells whom it concerns that a member, or the settings of a mesh, were changed.
    Edited(Box<Edited>),
    /// Tells a mesh what came through one of its webhooks.
    Post {
        /// Its id.
        mesh_id: String,
        /// The webhook's.
        secret: String,
        /// A JSON object or array that every client can read.
        body: Box<RawValue>,
    },
}

/// A change of a member, or of a mesh's settings, that has been made.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The mesh.
    pub mesh_id: String,
    /// The member; None for the settings.
    pub member_id: Option<String>,
    /// Member id of who made it; None for an administrator of the broker.
    pub by: Option<String>,
    /// What was changed, by name: a JSON object.
    pub changes: serde_json::Value,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// For [`Ask::Gauges`].
    Gauges(Gauges),
    /// For [`Ask::Peers`]; None if the mesh does not live here.
    Peers(Option<Vec<PeerView>>),
    /// For [`Ask::HookFind`].
    HookCandidate(Option<HookCandidate>),
    /// For [`Ask::HookApply`] and [`Ask::HookPend`]: whether it took effect.
    HookDone(bool),
    /// For [`Ask::Edited`]: whether the mesh lives here.
    Edited(bool),
    /// For [`Ask::Post`]: to how many sessions; None if there is no such webhook.
    Posted(Result<Option<u64>, StoreFailure>),
}

/// What a shard holds, by recount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sessions with a socket.
    pub online: u64,
    /// Sessions in grace.
    pub grace: u64,
    /// Undelivered direct messages known.
    pub queued: u64,
    /// Sockets that have not completed a hello.
    pub greeting: u64,
}

/// A session that a status hook may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCandidate {
    /// Slot of the session in its shard.
    pub slot: u32,
    /// Its presence.
    pub presence_id: String,
    /// Whether the process id matched too.
    pub exact: bool,
    /// When its lease began, to choose the latest over all shards.
    pub connected_at: crate::time::Wall,
}

/// One present session, for `holdfast peers`.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Presence id.
    pub presence_id: String,
    /// Routing key: session key, else member key.
    pub pubkey: String,
    /// Member key.
    pub member_pubkey: String,
    /// Name it goes by.
    pub display_name: String,
    /// `control-plane` or `session`.
    pub peer_role: &'static str,
    /// `online` or `grace`.
    pub lease: &'static str,
    /// What is left of grace, in milliseconds; absent while online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_left_ms: Option<u64>,
    /// `idle`, `working` or `dnd`.
    pub status: &'static str,
    /// Working directory.
    pub cwd: String,
    /// When the lease began.
    pub connected_at: crate::time::Wall,
    /// Last proof of life.
    pub last_seen_at: crate::time::Wall,
    /// Attachments so far.
    pub generation: u32,
}
