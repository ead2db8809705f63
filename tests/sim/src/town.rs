//! Who could be there: meshes, members, and the identities sessions go by.

use holdfast_core::ids::{PubKey, home_of};
use holdfast_core::rows::{MemberRow, MeshRow};

use crate::keys;
use crate::rng::Rng;

/// How a session is recognised (design.md §4, "Identity").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `session_hello`.
    Launched,
    /// `hello` with a session key.
    ThrowAway,
    /// `hello` without.
    Member,
}

/// One mesh.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) id: String,
    /// The shard it lives on.
    pub(crate) home: u16,
}

/// One member as the run begins.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) mesh: usize,
    /// Number of its key pair.
    pub(crate) key: u16,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) admin: bool,
    pub(crate) default_groups: Vec<String>,
}

/// Who a hello says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member: usize,
    pub(crate) kind: Kind,
    /// Number of the session's key pair.
    pub(crate) key: Option<u16>,
    pub(crate) session_id: String,
}

impl Identity {
    /// The session key.
    pub(crate) fn session_key(&self) -> Option<PubKey> {
        self.key.map(keys::key)
    }
}

/// The cast of a run.
#[derive(Clone, Debug)]
pub(crate) struct Town {
    pub(crate) meshes: Vec<Mesh>,
    pub(crate) members: Vec<Member>,
}

/// Keys of shared state.
pub(crate) const KEYS: [&str; 3] = ["k", "other", "it's"];

/// Streams.
pub(crate) const STREAMS: [&str; 3] = ["logs", "other", "it's"];

/// MCP servers.
pub(crate) const SERVERS: [&str; 3] = ["files", "other", "it's"];

/// Groups that clients join and messages go to; one is above another.
pub(crate) const GROUPS: [&str; 5] = ["ops", "ops/night", "ops/night/eu", "dev", "it's"];

impl Town {
    /// Draws a cast.
    pub(crate) fn draw(rng: &mut Rng, shards: u16) -> Self {
        let count = 1 + rng.weighted(&[6, 3, 1]);
        let salt = rng.below(8);
        let meshes: Vec<Mesh> = (0..count)
            .map(|n| format!("mesh-{salt}-{n}"))
            .map(|id| Mesh {
                home: home_of(&id, shards),
                id,
            })
            .collect();
        let mut members = Vec::new();
        for mesh in 0..count {
            let size = rng.between(2, 4);
            for n in 0..size {
                let key = u16::try_from(members.len()).unwrap_or(0);
                let mut default_groups = Vec::new();
                if rng.chance(300) {
                    default_groups.push((*rng.pick(&GROUPS)).to_owned());
                }
                members.push(Member {
                    mesh,
                    // The same person may be in several meshes.
                    key: if mesh > 0 && n == 0 && rng.chance(300) {
                        0
                    } else {
                        key
                    },
                    id: format!("member-{mesh}-{n}"),
                    name: format!("person {n}"),
                    admin: n == 0 || rng.chance(200),
                    default_groups,
                });
            }
        }
        Self { meshes, members }
    }

    /// The mesh of a member.
    pub(crate) fn mesh_of(&self, member: usize) -> &Mesh {
        &self.meshes[self.members[member].mesh]
    }

    /// The key of a member.
    pub(crate) fn member_key(&self, member: usize) -> PubKey {
        keys::key(self.members[member].key)
    }

    /// What the store holds of the meshes.
    pub(crate) fn mesh_rows(&self) -> Vec<MeshRow> {
        let row = |mesh: &Mesh| MeshRow {
            id: mesh.id.clone(),
            slug: format!("slug-{}", mesh.id),
            name: String::new(),
            self_editable: None,
        };
        self.meshes.iter().map(row).collect()
    }

    /// What the store holds of the members.
    pub(crate) fn member_rows(&self) -> Vec<MemberRow> {
        (0..self.members.len())
            .map(|n| self.member_row(n))
            .collect()
    }

    /// What the store holds of one member.
    pub(crate) fn member_row(&self, member: usize) -> MemberRow {
        let found = &self.members[member];
        MemberRow {
            id: found.id.clone(),
            mesh_id: self.meshes[found.mesh].id.clone(),
            pubkey: keys::key(found.key),
            display_name: found.name.clone(),
            admin: found.admin,
            role_tag: None,
            default_groups: groups(&found.default_groups),
            message_mode: "push".into(),
            revoked_at: None,
            grants: Vec::new(),
        }
    }
}

/// Groups of those names, without roles.
pub(crate) fn groups(names: &[String]) -> Vec<holdfast_core::rows::Group> {
    let group = |name: &String| holdfast_core::rows::Group {
        name: name.as_str().into(),
        role: None,
    };
    names.iter().map(group).collect()
}
