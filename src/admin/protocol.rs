//! What an administrator can ask and what comes back. Field names are those that scripts see.

use serde::{Deserialize, Serialize};

use crate::core::input::PeerView;
use crate::core::rows::MemberRow;
use crate::store;

/// Longest line of a request, in bytes; the largest honest one is a tenth of it.
pub const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Longest line of a reply a client takes, in bytes: a mesh of 10 000 peers makes about 5 MiB.
pub const REPLY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// One question or change. `mesh` is an id or a slug everywhere, `member` an id, a key, or a name
/// that only one active member has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who are you?
    Status,
    /// A new mesh with its owner.
    MeshCreate {
        /// Short name.
        slug: String,
        /// Display name; the slug if absent.
        name: Option<String>,
    },
    /// All meshes.
    MeshList,
    /// A new member.
    MemberAdd {
        /// Of which mesh.
        mesh: String,
        /// Display name.
        name: String,
        /// Its key; a pair is made if absent.
        pubkey: Option<String>,
        /// Whether it may kick, disconnect, ban and unban.
        admin: bool,
    },
    /// All members of a mesh.
    MemberList {
        /// Which.
        mesh: String,
    },
    /// Ends a membership.
    MemberRevoke {
        /// Which.
        member: String,
    },
    /// What one peer may do to a member.
    MemberGrants {
        /// Which.
        member: String,
        /// The other's member key.
        peer: String,
        /// Capabilities; empty blocks, absent returns to the default.
        caps: Option<Vec<String>>,
    },
    /// A new invite.
    InviteCreate {
        /// To which mesh.
        mesh: String,
        /// Whether those who join become admins.
        admin: bool,
        /// How many may join.
        uses: u32,
        /// For how long, in milliseconds.
        life_ms: u64,
        /// Where clients reach the broker; where it listens if absent.
        broker_url: Option<String>,
    },
    /// All invites of a mesh.
    InviteList {
        /// Which.
        mesh: String,
    },
    /// Takes an invite back.
    InviteRevoke {
        /// Its id.
        invite: String,
    },
    /// What a client of that member needs to know.
    ClientConfig {
        /// Which mesh.
        mesh: String,
        /// Which.
        member: String,
    },
    /// Who is present.
    Peers {
        /// Which mesh.
        mesh: String,
    },
}

impl Request {
    /// Whether it changes anything.
    pub(super) fn changes(&self) -> bool {
        match self {
            Self::MeshCreate { .. }
            | Self::MemberAdd { .. }
            | Self::MemberRevoke { .. }
            | Self::MemberGrants { .. }
            | Self::InviteCreate { .. }
            | Self::InviteRevoke { .. } => true,
            Self::Status
            | Self::MeshList
            | Self::MemberList { .. }
            | Self::InviteList { .. }
            | Self::ClientConfig { .. }
            | Self::Peers { .. } => false,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::MeshCreate`].
    MeshCreated(NewMesh),
    /// To [`Request::MeshList`].
    Meshes(Vec<Mesh>),
    /// To [`Request::MemberAdd`].
    MemberAdded(NewMember),
    /// To [`Request::MemberList`].
    Members(Vec<Member>),
    /// To [`Request::MemberRevoke`] and [`Request::MemberGrants`].
    Member(Member),
    /// To [`Request::InviteCreate`] and [`Request::InviteRevoke`].
    Invite(Invite),
    /// To [`Request::InviteList`].
    Invites(Vec<Invite>),
    /// To [`Request::ClientConfig`].
    ClientConfig(ClientIdentity),
    /// To [`Request::Peers`].
    Peers(Vec<Peer>),
    /// Not done, and why, in one line.
    Refused(String),
}

/// A running broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Address and port it listens on.
    pub listen: String,
}

/// A mesh just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMesh {
    /// Its id.
    pub mesh_id: String,
    /// Its short name.
    pub slug: String,
    /// Its display name.
    pub name: String,
    /// Its first member, role admin.
    pub owner_member_id: String,
    /// That member's key.
    pub owner_pubkey: String,
    /// That member's secret key, libsodium form.
    pub owner_secret_key: String,
}

/// A mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// Its id.
    pub mesh_id: String,
    /// Its short name.
    pub slug: String,
    /// Its display name.
    pub name: String,
    /// Its owner's member key.
    pub owner_pubkey: String,
    /// When it was made.
    pub created_at: String,
    /// Members that are not revoked.
    pub members: u64,
}

/// A member just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMember {
    /// Its id.
    pub member_id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// Its key.
    pub pubkey: String,
    /// Its secret key, libsodium form, if the pair was made here. It is kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its id.
    pub member_id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// Its key.
    pub pubkey: String,
    /// Its display name.
    pub name: String,
    /// `admin` or `member`.
    pub role: String,
    /// When it was revoked or banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// What each peer may do to it, where that differs from the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
}

/// What one peer may do to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The peer's member key.
    pub peer: String,
    /// Its capabilities; none means blocked.
    pub caps: Vec<String>,
}

/// An invite.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// Its id.
    pub invite_id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// What clients join with: `ic://join/...`.
    pub url: String,
    /// What those who join become: `admin` or `member`.
    pub role: String,
    /// How many may join.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Until when.
    pub expires_at: String,
    /// When it was made.
    pub created_at: String,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// What a client's configuration says of one membership.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientIdentity {
    /// The mesh.
    pub mesh_id: String,
    /// Its short name.
    pub slug: String,
    /// Its display name.
    pub mesh_name: String,
    /// The member.
    pub member_id: String,
    /// Its display name.
    pub member_name: String,
    /// Its key.
    pub pubkey: String,
    /// Its secret key, if the broker has it (mesh owners only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// When it became a member.
    pub joined_at: String,
}

/// One present session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Presence id.
    pub presence_id: String,
    /// Routing key: session key, else member key.
    pub pubkey: String,
    /// Member key.
    pub member_pubkey: String,
    /// Name it goes by.
    pub display_name: String,
    /// `control-plane` or `session`.
    pub peer_role: String,
    /// `online` or `grace`.
    pub lease: String,
    /// What is left of grace, in milliseconds; absent while online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_left_ms: Option<u64>,
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// Working directory.
    pub cwd: String,
    /// When the lease began.
    pub connected_at: String,
    /// Last proof of life.
    pub last_seen_at: String,
    /// Attachments so far.
    pub generation: u32,
}

impl From<store::NewMesh> for NewMesh {
    fn from(made: store::NewMesh) -> Self {
        Self {
            mesh_id: made.mesh.id,
            slug: made.mesh.slug,
            name: made.mesh.name,
            owner_member_id: made.owner.id,
            owner_pubkey: made.owner.pubkey.to_string(),
            owner_secret_key: made.owner_secret_key,
        }
    }
}

impl From<store::MeshSummary> for Mesh {
    fn from(summary: store::MeshSummary) -> Self {
        Self {
            mesh_id: summary.mesh.id,
            slug: summary.mesh.slug,
            name: summary.mesh.name,
            owner_pubkey: summary.owner_pubkey.to_string(),
            created_at: summary.created_at.to_string(),
            members: summary.members,
        }
    }
}

impl From<store::NewMember> for NewMember {
    fn from(made: store::NewMember) -> Self {
        Self {
            member_id: made.member.id,
            mesh_id: made.member.mesh_id,
            pubkey: made.member.pubkey.to_string(),
            secret_key: made.secret_key,
        }
    }
}

impl From<store::Invite> for Invite {
    fn from(invite: store::Invite) -> Self {
        Self {
            invite_id: invite.id,
            mesh_id: invite.mesh_id,
            url: format!("ic://join/{}", invite.token),
            role: role(invite.admin),
            uses: invite.uses,
            used: invite.used,
            expires_at: invite.expires_at.to_string(),
            created_at: invite.created_at.to_string(),
            revoked_at: invite.revoked_at.map(|at| at.to_string()),
        }
    }
}

/// A role as clients and scripts know it.
fn role(admin: bool) -> String {
    if admin { "admin" } else { "member" }.to_owned()
}

impl From<store::ClientConfig> for ClientIdentity {
    fn from(known: store::ClientConfig) -> Self {
        Self {
            mesh_id: known.mesh.id,
            slug: known.mesh.slug,
            mesh_name: known.mesh.name,
            member_id: known.member.id,
            member_name: known.member.display_name,
            pubkey: known.member.pubkey.to_string(),
            secret_key: known.secret_key,
            joined_at: known.joined_at.to_string(),
        }
    }
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        let grants = row.grants.into_iter();
        Self {
            member_id: row.id,
            mesh_id: row.mesh_id,
            pubkey: row.pubkey.to_string(),
            name: row.display_name,
            role: role(row.admin),
            revoked_at: row.revoked_at.map(|at| at.to_string()),
            grants: grants
                .map(|(peer, caps)| Grant {
                    peer: peer.to_string(),
                    caps,
                })
                .collect(),
        }
    }
}

impl From<PeerView> for Peer {
    fn from(view: PeerView) -> Self {
        Self {
            presence_id: view.presence_id,
            pubkey: view.pubkey,
            member_pubkey: view.member_pubkey,
            display_name: view.display_name,
            peer_role: view.peer_role.to_owned(),
            lease: view.lease.to_owned(),
            grace_left_ms: view.grace_left_ms,
            status: view.status.to_owned(),
            cwd: view.cwd,
            connected_at: view.connected_at.to_string(),
            last_seen_at: view.last_seen_at.to_string(),
            generation: view.generation,
        }
    }
}

/// `Debug` of what carries a secret key leaves it out: such values pass near logs.
macro_rules! debug_without_secret {
    ($type:ident, $id:ident) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))
                    .field(stringify!($id), &self.$id)
                    .finish_non_exhaustive()
            }
        }
    };
}

debug_without_secret!(NewMesh, mesh_id);
debug_without_secret!(NewMember, member_id);
debug_without_secret!(ClientIdentity, member_id);
debug_without_secret!(Invite, invite_id);

#[cfg(test)]
mod tests;
