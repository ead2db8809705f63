//! The rows of what a mesh keeps on disk only. Column meanings: protocol.md §24.

use crate::time::Wall;

/// Something a mesh remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Opaque id.
    pub id: String,
    /// What, in words.
    pub content: String,
    /// Free texts.
    pub tags: Vec<String>,
    /// Member id of who asked for it.
    pub member_id: String,
    /// Name of who asked for it.
    pub by: String,
    /// When.
    pub at: Wall,
}

/// What a member is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Opaque id.
    pub id: String,
    /// Whose; one for each member.
    pub member_id: String,
    /// The presence that shared it.
    pub presence_id: String,
    /// The member's name.
    pub peer_name: String,
    /// In words.
    pub summary: String,
    /// Paths.
    pub files_read: Vec<String>,
    /// Free texts.
    pub key_findings: Vec<String>,
    /// Free texts.
    pub tags: Vec<String>,
    /// When it was shared.
    pub updated_at: Wall,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskStatus {
    /// Nobody works on it.
    #[default]
    Open,
    /// Somebody does.
    Claimed,
    /// Done.
    Done,
}

impl TaskStatus {
    /// The name used on the wire and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Done => "done",
        }
    }

    /// The value of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Open, Self::Claimed, Self::Done]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// Something to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Opaque id.
    pub id: String,
    /// In words.
    pub title: String,
    /// For whom it is meant.
    pub assignee: Option<String>,
    /// Who works on it.
    pub claimed_by: Option<String>,
    /// How far it is.
    pub status: TaskStatus,
    /// Free text.
    pub priority: String,
    /// Who made it.
    pub created_by: Option<String>,
    /// Free texts.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_at: Wall,
}

/// How much of each a mesh has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Memories.
    pub memories: u64,
    /// Tasks that are open.
    pub open: u64,
    /// Tasks that somebody works on.
    pub claimed: u64,
    /// Tasks that are done.
    pub done: u64,
}

/// Instructions that a member shares with its mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skill {
    /// Opaque id.
    pub id: String,
    /// Unique in its mesh.
    pub name: String,
    /// What for.
    pub description: String,
    /// How. Empty in lists.
    pub instructions: String,
    /// Free texts.
    pub tags: Vec<String>,
    /// Member id of who shared it last.
    pub member_id: String,
    /// Name of who shared it last.
    pub author: String,
    /// JSON text. None in lists.
    pub manifest: Option<String>,
    /// When it was first shared.
    pub created_at: Wall,
    /// When it was last shared.
    pub updated_at: Wall,
}

/// A key to a mesh for programs that are no members. Its secret is known to who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKey {
    /// Opaque id.
    pub id: String,
    /// For people.
    pub label: String,
    /// SHA-256 of the secret, in hex. Empty in lists.
    pub secret_hash: String,
    /// How the secret begins.
    pub prefix: String,
    /// `send`, `read`, `state_write`, `admin`.
    pub capabilities: Vec<String>,
    /// Topics it is limited to.
    pub topic_scopes: Option<Vec<String>>,
    /// Member id of who asked for it.
    pub member_id: String,
    /// When it was made.
    pub created_at: Wall,
    /// When it was last used.
    pub last_used_at: Option<Wall>,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
    /// When it ends.
    pub expires_at: Option<Wall>,
}

/// What became of a key to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The key of this id is revoked.
    Key(String),
    /// There is none.
    NotFound,
    /// So many keys begin so; none is revoked.
    NotUnique(u64),
}

/// Something encrypted that a member keeps for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaultEntry {
    /// Whose.
    pub member_id: String,
    /// Unique for its member.
    pub key: String,
    /// Opaque. Empty in lists.
    pub ciphertext: String,
    /// Opaque. Empty in lists.
    pub nonce: String,
    /// Opaque. Empty in lists.
    pub sealed_key: String,
    /// `env` or `file`.
    pub entry_type: String,
    /// Where a client puts it.
    pub mount_path: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// When it was set.
    pub updated_at: Wall,
}

/// An address at which a mesh takes messages over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhook {
    /// Opaque id.
    pub id: String,
    /// Unique in its mesh.
    pub name: String,
    /// 64 hex digits; part of the address.
    pub secret: String,
    /// Member id of who made it.
    pub member_id: String,
    /// When it was made.
    pub created_at: Wall,
}

/// Some audit entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The latest first.
    pub entries: Vec<AuditEntry>,
    /// How many there are of such.
    pub total: u64,
    /// Whether there are older ones that were not looked at.
    pub truncated: bool,
}

/// One entry of the audit log, as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    /// Ascending, over all meshes.
    pub id: i64,
    /// E.g. `peer_joined`.
    pub event_type: String,
    /// Name of who did it, else its member id, else `system`.
    pub actor: String,
    /// JSON text, if nobody changed it.
    pub payload: String,
    /// SHA-256 of this entry and the hash before it.
    pub hash: String,
    /// When.
    pub created_at: Wall,
}

/// What was found of a mesh's audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// How many entries there are.
    pub entries: u64,
    /// The first one that is not what was written.
    pub broken_at: Option<i64>,
}
