//! What goes between a shard and the store: rows at boot, operations, questions, answers.

use super::{
    AuditRow, EndedRow, LogRow, MailboxRow, MemberRow, MeshRow, MessageRow, PeerStateRow,
    PresenceRow, RecordAnswer, RecordQuery, Restart, ScheduleRow, SentRow, ServerRow, StateRow,
    StreamRow, SubscriptionRow, TopicChange, TopicMemberRow, TopicRow, WatchRow,
};
use crate::identity::ResumeKey;
use crate::ids::{Position, PubKey, Seq, WatchId};
use crate::time::Wall;

/// What others were told of a presence, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// That it joined.
    Join(Position),
    /// That it left.
    Leave(Position),
}

/// One row given to its home shard at boot, in the order of the variants.
#[derive(Clone, Debug)]
pub enum BootRow {
    /// With which resume tokens are made; goes to every shard.
    Resume(ResumeKey),
    /// A mesh.
    Mesh(MeshRow),
    /// A member of a mesh given before.
    Member(MemberRow),
    /// Saved state of a member given before.
    PeerState(PeerStateRow),
    /// A key of the shared state of a mesh given before.
    State(Box<StateRow>),
    /// A stream of a mesh given before, oldest first.
    Stream(Box<StreamRow>),
    /// A topic.
    Topic(Box<TopicRow>),
    /// That a member given before is in a topic given before.
    TopicMember(Box<TopicMemberRow>),
    /// A watch of a presence that follows.
    Watch(Box<WatchRow>),
    /// A presence not disconnected: becomes a lease in grace.
    Presence(Box<PresenceRow>),
    /// What the presence given last is subscribed to.
    Subscription(SubscriptionRow),
    /// A presence that ended, oldest first.
    Ended(Box<EndedRow>),
    /// An MCP server, after all presences.
    Server(Box<ServerRow>),
    /// A message to many, in the order of their positions.
    Said(Box<MessageRow>),
    /// Where the log of a mesh begins; after everything else that concerns it.
    Log(LogRow),
    /// A send that may be repeated, oldest first.
    Sent(SentRow),
    /// Somebody has mail.
    Mailbox(MailboxRow),
    /// A message to be sent later, in the order they were made; after everything that is needed to
    /// send it.
    Schedule(Box<ScheduleRow>),
}

/// Something to make durable. Within one shard operations take effect in the order given.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// Insert or replace the presence row of a lease, which is found by where it began. Its mesh
    /// and member stay.
    PresencePut(Box<PresenceRow>),
    /// The socket went: `lease_until` and `last_ping_at` of its row.
    PresenceGrace {
        /// See [`PresenceRow::began`].
        began: Position,
        /// Presence id.
        id: String,
        /// When the lease runs out.
        until: Wall,
        /// Last proof of life.
        last_ping_at: Wall,
        /// See [`PresenceRow::cursor`].
        cursor: Position,
        /// See [`PresenceRow::heard`].
        heard: Position,
        /// See [`PresenceRow::known`].
        known: Position,
    },
    /// The cursor of a row moved. Given coarsely, never waited for: a crash before it is durable
    /// has the session hear again what it heard since.
    PresenceCursor {
        /// See [`PresenceRow::began`].
        began: Position,
        /// Presence id.
        id: String,
        /// See [`PresenceRow::cursor`].
        cursor: Position,
    },
    /// The lease ended: `disconnected_at` of its row, if not set. Its subscriptions and watches end
    /// with it.
    PresenceEnd {
        /// See [`PresenceRow::began`].
        began: Position,
        /// Presence id.
        id: String,
        /// When.
        at: Wall,
        /// Its place in everything the shard did.
        ended: Position,
    },
    /// Others were told of the join or the end of a lease. Never waited for: a crash before it
    /// is durable has them told again.
    PresenceTold {
        /// See [`PresenceRow::began`].
        began: Position,
        /// Presence id.
        id: String,
        /// Of what.
        told: Told,
    },
    /// This start has made leases of all presences it found; from here on they are extended.
    Restarted(Restart),
    /// Insert or replace a member's saved state.
    PeerStatePut(Box<PeerStateRow>),
    /// Insert or replace a key of the shared state, and append its audit entry.
    StateSet {
        /// What it is now.
        row: Box<StateRow>,
        /// That it was set.
        audit: Box<AuditRow>,
    },
    /// Insert a stream, unless the mesh has one of that name.
    StreamCreate(Box<StreamRow>),
    /// A session subscribed to a stream, or no longer is. The end of its lease ends all of its
    /// subscriptions.
    Subscribed {
        /// See [`PresenceRow::began`].
        began: Position,
        /// Presence id.
        id: String,
        /// The stream's name.
        stream: String,
        /// Whether it is now.
        subscribed: bool,
    },
    /// Insert a message, one to a topic also into the topic's history; if it is accepted, append to
    /// the audit chain that it was sent.
    MessageInsert(Box<MessageRow>),
    /// The message was confirmed by its recipient: `delivered_at`, if not set.
    MessageDelivered {
        /// Which.
        seq: Seq,
        /// When.
        at: Wall,
    },
    /// A `client_ack` for a message no longer in memory: as above, but only if the row is of that
    /// mesh, undelivered, and for one of those keys.
    MessageAcked {
        /// The mesh.
        mesh_id: String,
        /// By broker id (`seq`) …
        seq: Option<Seq>,
        /// … or by the sender's id.
        client_message_id: Option<String>,
        /// The keys the confirming session owns.
        keys: Vec<PubKey>,
        /// When.
        at: Wall,
    },
    /// Append to the audit chain.
    Audit(Box<AuditRow>),
    /// Ban (`Some`) or unban (`None`) a member row.
    MemberRevoked {
        /// Member id.
        id: String,
        /// When, or None to lift it.
        at: Option<Wall>,
    },
    /// Insert a scheduled message.
    SchedulePut(Box<ScheduleRow>),
    /// A scheduled message is not to be sent any more.
    ScheduleCancelled {
        /// Which.
        id: String,
    },
    /// A scheduled message was sent, which is one change: either both are on disk, what was sent and
    /// that it was, or neither.
    ScheduleFired {
        /// Which.
        id: String,
        /// What was sent, as [`Self::MessageInsert`] has it; None if it could not be sent.
        sent: Option<Box<MessageRow>>,
        /// When it fires next; None if that was all.
        next: Option<Wall>,
    },
    /// Insert or replace an MCP server.
    ServerPut(Box<ServerRow>),
    /// An MCP server is gone.
    ServerRemoved {
        /// Its mesh.
        mesh_id: String,
        /// What it was called.
        name: String,
    },
    /// Topics, or who is in them, changed.
    Topic(Box<TopicChange>),
    /// Insert or replace a watch of a lease.
    WatchPut(Box<WatchRow>),
    /// A watch was given up.
    WatchRemoved {
        /// Where the lease of its owner began.
        began: Position,
        /// Which of its watches.
        id: WatchId,
    },
    /// Nothing. Whoever waits for it learns that everything is durable that its loop asked for
    /// before.
    Fence,
}

/// A question only the disk can answer.
#[derive(Clone, Debug)]
pub enum StoreQuery {
    /// Undelivered rows for one key, ascending, with `seq` above `after`. Answered after every
    /// operation given before it has been committed.
    Mailbox {
        /// The mesh.
        mesh_id: String,
        /// Whose mail.
        target: PubKey,
        /// Exclusive lower bound.
        after: Seq,
        /// Most rows.
        limit: u32,
    },
    /// One message by primary key, any state.
    Message {
        /// Which.
        seq: Seq,
    },
    /// One message by what its sender called it, any state. Answered after every operation given
    /// before it has been committed.
    Sent {
        /// The mesh.
        mesh_id: String,
        /// Who sent it.
        sender_member_id: String,
        /// The sender's own id for it.
        client_message_id: String,
    },
    /// Something of what a mesh keeps on disk only. Answered after every operation given before it
    /// has been committed; what it writes is durable by then.
    Records(Box<RecordQuery>),
}

/// The store's answer to a [`StoreQuery`].
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    /// For [`StoreQuery::Mailbox`].
    Mailbox {
        /// Ascending by `seq`.
        rows: Vec<MessageRow>,
        /// Whether the limit cut the answer.
        more: bool,
    },
    /// For [`StoreQuery::Message`] and [`StoreQuery::Sent`].
    Message(Option<Box<MessageRow>>),
    /// For [`StoreQuery::Records`].
    Records(RecordAnswer),
}

/// Why the store refused an operation; the text is shown to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// No space on the disk (ENOSPC). A quota reached (EDQUOT) is `Io`: SQLite does not tell it
    /// from other write errors.
    #[error("storage is full")]
    Full,
    /// The file could not be opened for writing. A file system that becomes read-only under an
    /// open file (EROFS) is `Io`, likewise.
    #[error("storage is read-only")]
    ReadOnly,
    /// The file is damaged.
    #[error("storage is damaged")]
    Corrupt,
    /// More operations wait than the store may hold, or the disk has not answered for seconds.
    #[error("storage is too slow")]
    Overloaded,
    /// The file was deleted, moved or replaced while in use.
    #[error("storage was moved or deleted")]
    Moved,
    /// Anything else, with its detail in the broker's log.
    #[error("storage failed")]
    Io,
}
