//! What the store keeps, as the core sees it: rows read at boot, operations to make durable,
//! questions only the disk can answer. Column meanings: protocol.md §24.

use crate::ids::{PubKey, Seq};
use crate::mint::MessageId;
use crate::time::Wall;

/// `[{name, role?}]`: a group a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Group {
    /// Matched exactly and, at `/`, as an ancestor (design.md §8.3).
    pub name: Box<str>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Box<str>>,
}

/// What kind of connection made a session (`peerRole` on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRole {
    /// Authenticated by `hello`.
    ControlPlane,
    /// Authenticated by `session_hello`.
    Session,
}

/// What a peer says it is doing (protocol.md §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Takes every priority.
    #[default]
    Idle,
    /// Takes `now` only.
    Working,
    /// Takes `now` only; left only by its owner.
    Dnd,
}

/// Who set a status, by rising rank (protocol.md §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusSource {
    /// Inferred, also by the working TTL.
    #[default]
    Jsonl,
    /// `set_status`.
    Manual,
    /// `POST /hook/set-status`.
    Hook,
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Delivered whatever the status.
    Now,
    /// Held while the recipient is working or dnd.
    Next,
    /// Held while the recipient is working or dnd.
    Low,
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// The name used on the wire, in tables and in labels.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The value of that name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

names!(PeerRole { ControlPlane = "control-plane", Session = "session" });
names!(Status { Idle = "idle", Working = "working", Dnd = "dnd" });
names!(StatusSource { Jsonl = "jsonl", Manual = "manual", Hook = "hook" });
names!(Priority { Now = "now", Next = "next", Low = "low" });

/// One mesh.
#[derive(Clone, Debug)]
pub struct MeshRow {
    /// Opaque id.
    pub id: String,
    /// Short name for people and commands.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// `meshPolicy.selfEditable`, JSON object text; None if the mesh has no policy.
    pub self_editable: Option<String>,
}

/// One membership; several rows may share a key, at most one of them unrevoked.
#[derive(Clone, Debug)]
pub struct MemberRow {
    /// Opaque id.
    pub id: String,
    /// The mesh it belongs to.
    pub mesh_id: String,
    /// The member key.
    pub pubkey: PubKey,
    /// Display name.
    pub display_name: String,
    /// Role admin: may kick, disconnect, ban, unban.
    pub admin: bool,
    /// Shown in `memberProfile`.
    pub role_tag: Option<String>,
    /// Groups of sessions that name none.
    pub default_groups: Vec<Group>,
    /// `push`, `inbox` or `off`; shown in `memberProfile`.
    pub message_mode: String,
    /// When the member was banned or revoked.
    pub revoked_at: Option<Wall>,
    /// What each peer key may do (protocol.md §8.3).
    pub grants: Vec<(PubKey, Vec<String>)>,
}

/// One session, as peers were told of it. Also the whole of what a lease is restored from.
#[derive(Clone, Debug)]
pub struct PresenceRow {
    /// The presence id (32 base62), the same across reattaches.
    pub id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// Its member.
    pub member_id: String,
    /// The client's session id.
    pub session_id: String,
    /// The session key, if it has one.
    pub session_pubkey: Option<PubKey>,
    /// hello or `session_hello`.
    pub role: PeerRole,
    /// The name it goes by.
    pub display_name: String,
    /// The client's process id.
    pub pid: i64,
    /// The client's working directory.
    pub cwd: String,
    /// Metadata, each only for show.
    pub hostname: Option<String>,
    /// ai, human or connector; not validated.
    pub peer_type: Option<String>,
    /// Which client program.
    pub channel: Option<String>,
    /// Which language model.
    pub model: Option<String>,
    /// What it is doing.
    pub status: Status,
    /// Who said so.
    pub status_source: StatusSource,
    /// When.
    pub status_at: Wall,
    /// What it is about.
    pub summary: Option<String>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Hidden peers are neither listed nor reached by multicast.
    pub visible: bool,
    /// JSON object text; `{}` if empty.
    pub profile: String,
    /// When the lease began.
    pub connected_at: Wall,
    /// Last proof of life known.
    pub last_ping_at: Wall,
    /// In grace until then; None while online.
    pub lease_until: Option<Wall>,
    /// Generation of the latest attachment.
    pub generation: u32,
    /// The parent attestation verified last holds until then.
    pub attested_until: Option<Wall>,
    /// Boots since somebody last attached.
    pub boot_epochs: u8,
    /// Others were told that it joined.
    pub announced: bool,
}

/// What a member's key-less `hello` finds again after its lease ended (protocol.md §6.7).
#[derive(Clone, Debug, Default)]
pub struct PeerStateRow {
    /// The mesh.
    pub mesh_id: String,
    /// The member.
    pub member_id: String,
    /// Groups at the last close.
    pub groups: Vec<Group>,
    /// Profile at the last close, JSON object text.
    pub profile: String,
    /// Visibility at the last close.
    pub visible: bool,
    /// Last summary.
    pub last_summary: Option<String>,
    /// Last display name.
    pub last_display_name: Option<String>,
    /// Cumulative stats.
    pub stats: Stats,
    /// When it was last seen.
    pub last_seen_at: Wall,
}

/// Cumulative numbers a client reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Messages received.
    pub messages_in: f64,
    /// Messages sent.
    pub messages_out: f64,
    /// Tool calls made.
    pub tool_calls: f64,
    /// Errors met.
    pub errors: f64,
}

impl Stats {
    /// What was added since `earlier`; a client that started anew counts from zero.
    pub(crate) fn minus(&self, earlier: &Self) -> Self {
        let since = |now: f64, then: f64| if now >= then { now - then } else { now };
        Self {
            messages_in: since(self.messages_in, earlier.messages_in),
            messages_out: since(self.messages_out, earlier.messages_out),
            tool_calls: since(self.tool_calls, earlier.tool_calls),
            errors: since(self.errors, earlier.errors),
        }
    }

    /// Both together.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            messages_in: self.messages_in + other.messages_in,
            messages_out: self.messages_out + other.messages_out,
            tool_calls: self.tool_calls + other.tool_calls,
            errors: self.errors + other.errors,
        }
    }
}

/// One queued message.
#[derive(Clone, Debug)]
pub struct MessageRow {
    /// Place in the broker's order; the table's primary key.
    pub seq: Seq,
    /// The id peers see; decodes to `seq`.
    pub id: MessageId,
    /// The mesh.
    pub mesh_id: String,
    /// Who sent it.
    pub sender_member_id: String,
    /// The sender's member key.
    pub sender_member_pubkey: PubKey,
    /// The sending session's key, if it has one.
    pub sender_session_pubkey: Option<PubKey>,
    /// The sender's name at the time.
    pub sender_name: String,
    /// As asked: a key in hex, `*`, `@group`, `#topic`.
    pub target_spec: String,
    /// How urgent.
    pub priority: Priority,
    /// Opaque.
    pub nonce: String,
    /// Opaque.
    pub ciphertext: String,
    /// When it was accepted.
    pub created_at: Wall,
    /// Set at once for multicast, at confirmation for direct messages.
    pub delivered_at: Option<Wall>,
    /// The sender's own id for it.
    pub client_message_id: Option<String>,
    /// The sender's fingerprint, echoed.
    pub request_fingerprint: Option<String>,
    /// What it answers.
    pub reply_to_id: Option<String>,
}

/// One audit entry; the store chains and hashes it (protocol.md §17).
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// The mesh whose chain it extends.
    pub mesh_id: String,
    /// E.g. `peer_joined`.
    pub event_type: &'static str,
    /// Member id of who did it.
    pub actor_member_id: Option<String>,
    /// Name of who did it.
    pub actor_display_name: Option<String>,
    /// JSON object.
    pub payload: serde_json::Value,
    /// When.
    pub created_at: Wall,
}

/// What others were told of a presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// That it joined.
    Join,
    /// That it left.
    Leave,
}

/// A mailbox with undelivered rows on disk, found at boot.
#[derive(Clone, Debug)]
pub struct MailboxRow {
    /// The mesh.
    pub mesh_id: String,
    /// The key the messages are for.
    pub target: PubKey,
}

/// One row given to its home shard at boot, in the order of the variants.
#[derive(Clone, Debug)]
pub enum BootRow {
    /// A mesh.
    Mesh(MeshRow),
    /// A member of a mesh given before.
    Member(MemberRow),
    /// Saved state of a member given before.
    PeerState(PeerStateRow),
    /// A presence not disconnected: becomes a lease in grace.
    Presence(Box<PresenceRow>),
    /// Somebody has mail.
    Mailbox(MailboxRow),
}

/// Something to make durable. Within one shard operations take effect in the order given.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// Insert or replace a presence row by id.
    PresencePut(Box<PresenceRow>),
    /// The socket went: `lease_until` and `last_ping_at` of row `id`.
    PresenceGrace {
        /// Presence id.
        id: String,
        /// When the lease runs out.
        until: Wall,
        /// Last proof of life.
        last_ping_at: Wall,
    },
    /// The lease ended: `disconnected_at` of row `id`, if not set.
    PresenceEnd {
        /// Presence id.
        id: String,
        /// When.
        at: Wall,
    },
    /// Others were told of the join or the end of row `id`. Never waited for: a crash before it
    /// is durable has them told again.
    PresenceTold {
        /// Presence id.
        id: String,
        /// Of what.
        told: Told,
    },
    /// Insert or replace a member's saved state.
    PeerStatePut(Box<PeerStateRow>),
    /// Insert a message, and its audit entry if it is accepted.
    MessageInsert {
        /// The message.
        row: Box<MessageRow>,
        /// That it was sent.
        audit: Box<AuditRow>,
    },
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
    /// For [`StoreQuery::Message`].
    Message(Option<Box<MessageRow>>),
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
