//! Meshes and members, made and changed by administrators.
//!
//! The same functions serve the running server (jobs of its writer thread) and commands without
//! one (`offline`). Each is one transaction. Results carry the rows as they now are, so that the
//! caller can hand them to their home shard.

use std::sync::{Arc, mpsc};

use rusqlite::Connection;

use super::queue::{Job, Shared};
use crate::core::ids::PubKey;
use crate::core::rows::{MemberRow, MeshRow, StoreFailure};
use crate::core::time::{Millis, Wall};

mod invites;
mod members;
mod meshes;
mod profiles;

pub use invites::{InvitePayload, Joining};
pub use profiles::{EditError, MemberCard, MemberEdit, SettingsEdit};

/// Why an administrator's request was refused. Each prints as one line.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Slugs appear in commands and clients' config files.
    #[error("{0:?} is not a slug: use letters, digits, '.', '_' and '-'")]
    BadSlug(String),
    /// Names appear in lists and logs.
    #[error("a name must be 1 to {max} bytes long, without control characters")]
    BadName {
        /// Most bytes.
        max: usize,
    },
    /// Another mesh has that slug.
    #[error("there is already a mesh {0:?}")]
    SlugTaken(String),
    /// No mesh has that slug or id.
    #[error("there is no mesh {0:?}")]
    NoMesh(String),
    /// No member has that id, key or name.
    #[error("there is no member {0:?}")]
    NoMember(String),
    /// Several members have that key (in several meshes) or name.
    #[error("{count} members are called {name:?}: give a member id")]
    AmbiguousMember {
        /// As asked.
        name: String,
        /// How many.
        count: usize,
    },
    /// An active member of the mesh has that key.
    #[error("key {key} already belongs to member {member_id} of this mesh")]
    KeyTaken {
        /// The key.
        key: PubKey,
        /// Whose it is.
        member_id: String,
    },
    /// Capabilities are a closed set.
    #[error("unknown capability {0:?}: use {caps}", caps = members::CAPS.join(", "))]
    UnknownCap(String),
    /// No invite has that id.
    #[error("there is no invite {0:?}; see: holdfast invite list MESH")]
    NoInvite(String),
    /// An invite makes at least one member.
    #[error("an invite can be used 1 to {max} times")]
    BadUses {
        /// Most uses.
        max: u32,
    },
    /// An invite holds for a while.
    #[error("an invite holds for a millisecond to ten years")]
    BadLife,
    /// The mesh was made elsewhere, or its row has been changed by hand.
    #[error(
        "the owner's secret key of this mesh is not in the database: nothing signs its invites"
    )]
    NoOwnerKey,
    /// No entropy.
    #[error("the system gives no random bytes: {0}")]
    Entropy(#[from] getrandom::Error),
    /// The database cannot be read or written.
    #[error("the database refused: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Nothing can be stored at present.
    #[error("nothing was changed: {0}")]
    Failing(StoreFailure),
    /// The store was closed, or failed, before it answered.
    #[error("the store did not answer")]
    Stopped,
}

/// A mesh just made, with its owner, who is an admin of it.
#[derive(Clone, Debug)]
pub struct NewMesh {
    /// The mesh.
    pub mesh: MeshRow,
    /// Its first member.
    pub owner: MemberRow,
    /// The owner's secret key, 128 hex digits in libsodium form.
    pub owner_secret_key: String,
}

/// One line of `mesh list`.
#[derive(Clone, Debug)]
pub struct MeshSummary {
    /// The mesh.
    pub mesh: MeshRow,
    /// Its owner's key.
    pub owner_pubkey: PubKey,
    /// When it was made.
    pub created_at: Wall,
    /// Members that are not revoked.
    pub members: u64,
}

/// A member just made.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// The member.
    pub member: MemberRow,
    /// Its secret key, 128 hex digits in libsodium form, if the pair was made here. Kept nowhere.
    pub secret_key: Option<String>,
}

/// What an invite is to be.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// To which mesh: slug or id.
    pub mesh: String,
    /// Whether those who join become admins.
    pub admin: bool,
    /// How many may join, 1 to a million.
    pub uses: u32,
    /// For how long, up to ten years; rounded down to whole seconds.
    pub life: Millis,
    /// Where clients reach the broker.
    pub broker_url: String,
}

/// An invite. Its token holds the key that all members of the mesh share.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// Its mesh.
    pub mesh_id: String,
    /// What clients are given, behind `ic://join/`.
    pub token: String,
    /// Whether those who join become admins.
    pub admin: bool,
    /// How many may join.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Until when.
    pub expires_at: Wall,
    /// When it was made.
    pub created_at: Wall,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
}

/// Who has joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The member.
    pub member: MemberRow,
    /// It was one before; no use was taken.
    pub already: bool,
}

/// Why nobody joined: the code on the wire (protocol.md §2.4), or what else went wrong.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The payload is not signed by the key it names.
    #[error("invite_bad_signature")]
    BadSignature,
    /// There is no such mesh.
    #[error("mesh_not_found")]
    MeshNotFound,
    /// The payload names another owner than the mesh has.
    #[error("invite_owner_mismatch")]
    OwnerMismatch,
    /// There is no such token.
    #[error("invite_not_found")]
    NotFound,
    /// The token is of another mesh.
    #[error("invite_mesh_mismatch")]
    MeshMismatch,
    /// It was taken back.
    #[error("invite_revoked")]
    Revoked,
    /// Its time is over.
    #[error("invite_expired")]
    Expired,
    /// Enough have joined.
    #[error("invite_exhausted")]
    Exhausted,
    /// The key is of a member that was banned, or revoked by the operator, after the invite was made; an
    /// addition to the codes of the original, which let it in.
    #[error("member_revoked")]
    Banned,
    /// A bad name, or the database.
    #[error(transparent)]
    Refused(#[from] AdminError),
}

impl From<rusqlite::Error> for JoinError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// What a client's `config.json` is made of.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The mesh.
    pub mesh: MeshRow,
    /// The member.
    pub member: MemberRow,
    /// When the member was made.
    pub joined_at: Wall,
    /// Known only for the mesh's owner, 128 hex digits in libsodium form.
    pub secret_key: Option<String>,
}

/// Something that runs jobs on the write connection, each once or never.
pub(super) trait RunJob: Send + Sync {
    fn run(&self, job: Job);
}

impl RunJob for Shared {
    fn run(&self, job: Job) {
        Self::run(self, job);
    }
}

/// The administrators' door. Calls block until the change is durable; what shards have given the
/// store before takes effect first.
///
/// `mesh` is a slug or id; `member` is an id, a key in hex, or a display name that only one
/// active member has.
#[derive(Clone)]
pub struct AdminStore {
    runner: Arc<dyn RunJob>,
}

/// By id, else by slug.
pub(super) fn find_mesh(conn: &Connection, mesh: &str) -> Result<MeshRow, AdminError> {
    meshes::get(conn, mesh)
}

impl AdminStore {
    pub(super) fn new(runner: Arc<dyn RunJob>) -> Self {
        Self { runner }
    }

    pub(super) fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<R, AdminError> + Send + 'static,
    ) -> Result<R, AdminError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.runner.run(Box::new(move |conn| {
            // The caller waits for it below.
            let result = conn.map_err(AdminError::Failing).and_then(work);
            reply.send(result).ok();
        }));
        answer.recv().unwrap_or(Err(AdminError::Stopped))
    }

    /// Makes a mesh, its owner's key pair and the owner. The name defaults to the slug.
    ///
    /// # Errors
    /// A bad or taken slug, a bad name.
    pub fn mesh_create(&self, slug: &str, name: Option<&str>) -> Result<NewMesh, AdminError> {
        let (slug, name) = (slug.to_owned(), name.map(str::to_owned));
        self.call(move |conn| meshes::create(conn, &slug, name.as_deref()))
    }

    /// All meshes, by slug.
    ///
    /// # Errors
    /// Only those of the database.
    pub fn mesh_list(&self) -> Result<Vec<MeshSummary>, AdminError> {
        self.call(|conn| meshes::list(conn))
    }

    /// Adds a member; without a key, one is made.
    ///
    /// # Errors
    /// No such mesh, a bad name, a key that an active member of the mesh has.
    pub fn member_add(
        &self,
        mesh: &str,
        name: &str,
        pubkey: Option<PubKey>,
        admin: bool,
    ) -> Result<NewMember, AdminError> {
        let (mesh, name) = (mesh.to_owned(), name.to_owned());
        self.call(move |conn| members::add(conn, &mesh, &name, pubkey, admin))
    }

    /// The members of a mesh, revoked ones included, in the order in which they were made.
    ///
    /// # Errors
    /// No such mesh.
    pub fn member_list(&self, mesh: &str) -> Result<Vec<MemberRow>, AdminError> {
        let mesh = mesh.to_owned();
        self.call(move |conn| members::list(conn, &mesh))
    }

    /// Revokes a member for good. A member already revoked stays as it is.
    ///
    /// # Errors
    /// No such member, or several.
    pub fn member_revoke(&self, member: &str) -> Result<MemberRow, AdminError> {
        let member = member.to_owned();
        self.call(move |conn| members::revoke(conn, &member))
    }

    /// Sets what `peer` may do to `member`; `None` goes back to the default, an empty list blocks.
    ///
    /// # Errors
    /// No such member, or several; an unknown capability.
    pub fn member_grants(
        &self,
        member: &str,
        peer: PubKey,
        caps: Option<Vec<String>>,
    ) -> Result<MemberRow, AdminError> {
        let member = member.to_owned();
        self.call(move |conn| members::grants(conn, &member, peer, caps))
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// No such mesh; a use or a life out of bounds; a mesh whose owner's key is not known.
    pub fn invite_create(&self, new: NewInvite) -> Result<Invite, AdminError> {
        self.call(move |conn| invites::create(conn, &new))
    }

    /// The invites of a mesh, those of the past included, in the order in which they were made.
    ///
    /// # Errors
    /// No such mesh.
    pub fn invite_list(&self, mesh: &str) -> Result<Vec<Invite>, AdminError> {
        let mesh = mesh.to_owned();
        self.call(move |conn| invites::list(conn, &mesh))
    }

    /// Takes an invite back; those who have joined by it stay.
    ///
    /// # Errors
    /// No such invite.
    pub fn invite_revoke(&self, id: &str) -> Result<Invite, AdminError> {
        let id = id.to_owned();
        self.call(move |conn| invites::revoke(conn, &id))
    }

    /// Makes a member of whoever brings an invite.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn join(&self, joining: Joining) -> Result<Joined, JoinError> {
        self.call(move |conn| Ok(invites::join(conn, &joining)))?
    }

    /// The active members of the mesh of that id, at most 10 000, in the order they were made.
    ///
    /// # Errors
    /// No such mesh.
    pub fn member_cards(&self, mesh_id: &str) -> Result<Vec<MemberCard>, EditError> {
        let mesh_id = mesh_id.to_owned();
        self.call(move |conn| Ok(profiles::list(conn, &mesh_id)))?
    }

    /// The active member of that id in the mesh of that id.
    ///
    /// # Errors
    /// No such mesh, or no such member of it.
    pub fn caller(&self, mesh_id: &str, member_id: &str) -> Result<MemberRow, EditError> {
        let (mesh_id, member_id) = (mesh_id.to_owned(), member_id.to_owned());
        self.call(move |conn| Ok(profiles::caller(conn, &mesh_id, &member_id)))?
    }

    /// Edits a member on behalf of another, or of itself (`by`, a member id), or of an
    /// administrator of the broker.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn member_edit(
        &self,
        (mesh_id, member_id): (&str, &str),
        by: Option<&str>,
        edit: MemberEdit,
    ) -> Result<MemberCard, EditError> {
        let (mesh_id, member_id) = (mesh_id.to_owned(), member_id.to_owned());
        let by = by.map(str::to_owned);
        self.call(move |conn| {
            let of = (&*mesh_id, &*member_id);
            Ok(profiles::edit(conn, of, by.as_deref(), &edit))
        })?
    }

    /// Edits what members may edit of themselves; as [`Self::member_edit`].
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn settings_edit(
        &self,
        mesh_id: &str,
        by: Option<&str>,
        edit: SettingsEdit,
    ) -> Result<MeshRow, EditError> {
        let (mesh_id, by) = (mesh_id.to_owned(), by.map(str::to_owned));
        self.call(move |conn| Ok(profiles::settings(conn, &mesh_id, by.as_deref(), edit)))?
    }

    /// What the config file of a member's client is made of.
    ///
    /// # Errors
    /// No such mesh; no such member of it, or several.
    pub fn client_config(&self, mesh: &str, member: &str) -> Result<ClientConfig, AdminError> {
        let (mesh, member) = (mesh.to_owned(), member.to_owned());
        self.call(move |conn| members::client_config(conn, &mesh, &member))
    }
}

impl std::fmt::Debug for AdminStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminStore").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
