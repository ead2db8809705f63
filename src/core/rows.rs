//! What the store keeps, as the core sees it: rows read at boot, operations to make durable,
//! questions only the disk can answer. Column meanings: protocol.md §24.

use crate::ids::{Position, PubKey, Seq};
use crate::mint::MessageId;
use crate::time::{Millis, Wall};

mod kept;
mod ops;
mod records;
mod restart;
mod shared;
mod topics;
mod watch;

pub use kept::{
    ApiKey, AuditEntry, AuditPage, Chain, Context, Memory, Revoked, Skill, Tally, Task, TaskStatus,
    VaultEntry, Webhook,
};
pub use ops::{BootRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery, Told};
pub use records::{RecordAnswer, RecordAsk, RecordQuery};
pub use restart::Restart;
pub use shared::{StateRow, StreamRow, SubscriptionRow};
pub use topics::{
    NewTopic, TopicChange, TopicKeyRow, TopicMemberRow, TopicMessage, TopicPost, TopicRole,
    TopicRow, Visibility,
};
pub use watch::{NotifyOn, WatchMode, WatchRow};

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

/// How a message came to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// By a session, now.
    #[default]
    Sent,
    /// By a schedule: it came from none of its member's sessions, and may go to each of them.
    Scheduled,
    /// Likewise; its push has the subtype `reminder`.
    Reminder,
}

names!(Origin { Sent = "sent", Scheduled = "scheduled", Reminder = "reminder" });
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
    /// How long it stays present without a socket, if it is not the default.
    pub grace: Option<Millis>,
    /// Generation of the latest attachment.
    pub generation: u32,
    /// The parent attestation verified last holds until then.
    pub attested_until: Option<Wall>,
    /// Boots since somebody last attached.
    pub boot_epochs: u8,
    /// Its place among all leases: when it began. No other row has it.
    pub began: Position,
    /// Where others were told that it joined; None if they have not been.
    pub joined: Option<Position>,
    /// Where others were last told that it hid or showed itself.
    pub shown: Option<Position>,
    /// Up to where it has confirmed what its mesh said to many.
    pub cursor: Position,
    /// Up to where it is taken to have heard who came and went, if that is beyond its cursor.
    pub heard: Position,
    /// Up to where its sockets were written what its mesh said, if that is beyond its cursor.
    pub known: Position,
}

/// A presence whose lease ended, as far as that matters to those who come back.
#[derive(Clone, Debug)]
pub struct EndedRow {
    /// The presence id.
    pub id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// Its member.
    pub member_id: String,
    /// The session key, if it had one.
    pub session_pubkey: Option<PubKey>,
    /// hello or `session_hello`.
    pub role: PeerRole,
    /// The name it went by.
    pub display_name: String,
    /// Its place among the leases of its mesh.
    pub began: Position,
    /// Where its lease ended.
    pub ended: Position,
    /// Where others were told that it joined, if they were.
    pub joined: Option<Position>,
    /// Where others were told that it left, if they were.
    pub left: Option<Position>,
    /// When it ended.
    pub ended_at: Wall,
}

impl EndedRow {
    /// Of a presence that ended then and there, and of which nobody has been told that it did.
    #[must_use]
    pub fn of(row: &PresenceRow, ended_at: Wall, ended: Position) -> Self {
        Self {
            id: row.id.clone(),
            mesh_id: row.mesh_id.clone(),
            member_id: row.member_id.clone(),
            session_pubkey: row.session_pubkey,
            role: row.role,
            display_name: row.display_name.clone(),
            began: row.began,
            ended,
            joined: row.joined,
            left: None,
            ended_at,
        }
    }
}

/// A send that its sender may repeat, found at boot.
#[derive(Clone, Debug)]
pub struct SentRow {
    /// The mesh.
    pub mesh_id: String,
    /// Who sent it.
    pub sender_member_id: String,
    /// The sender's own id for it.
    pub client_message_id: String,
}

/// Where what is known of a mesh's log begins.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// The mesh.
    pub mesh_id: String,
    /// What was said up to here is no longer known.
    pub since: Position,
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
    /// Where its mesh's log has it, if it is to many.
    pub position: Option<Position>,
    /// Whether nobody had the key when it was accepted, as its sender was told.
    pub deferred: bool,
    /// How it came to be sent.
    pub origin: Origin,
    /// What else is kept of a message to a topic. None when it is read back.
    pub post: Option<Box<TopicPost>>,
}

/// A message to be sent later, or again and again (protocol.md §16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The id its member sees: a UUID.
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Whose it is.
    pub member_id: String,
    /// The presence that made it; hears of it when it fires, if it is there.
    pub presence_id: String,
    /// The key of that session, if it had one.
    pub session_pubkey: Option<PubKey>,
    /// The name of that session.
    pub sender_name: String,
    /// As asked: a key in hex, `*`, `@group`, `#topic`.
    pub to: String,
    /// Whom that means: a throw-away connection that names itself means its member.
    pub target_spec: String,
    /// What is sent, as plain text.
    pub message: String,
    /// When it fires next.
    pub deliver_at: Wall,
    /// When it fires after that (five fields, UTC); None if it does not.
    pub cron: Option<String>,
    /// Whether it is a reminder.
    pub reminder: bool,
    /// How often it has fired.
    pub fired_count: u32,
    /// When it was made.
    pub created_at: Wall,
}

/// An MCP server that a session hosts, or that waits for its host (protocol.md §14). Its mesh and
/// name are its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRow {
    /// The mesh.
    pub mesh_id: String,
    /// What callers call it.
    pub name: String,
    /// Whose it is.
    pub member_id: String,
    /// How the hosting session came.
    pub role: PeerRole,
    /// The key of the hosting session, if it has one.
    pub session_pubkey: Option<PubKey>,
    /// Where the lease of that session began; None while the server waits for its host.
    pub host: Option<Position>,
    /// Since when it waits.
    pub offline_since: Option<Wall>,
    /// The name of the hosting session.
    pub hosted_by: String,
    /// For people.
    pub description: String,
    /// `[{name, description}]`, JSON text.
    pub tools: String,
    /// Whether it stays when the lease of its host ends.
    pub persistent: bool,
    /// Where others were told of it last, and when.
    pub told: (Position, Wall),
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

/// A mailbox with undelivered rows on disk, found at boot.
#[derive(Clone, Debug)]
pub struct MailboxRow {
    /// The mesh.
    pub mesh_id: String,
    /// The key the messages are for.
    pub target: PubKey,
}
