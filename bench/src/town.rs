//! Who there is: meshes, their members, and the sessions of these, all from one seed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use holdfast::admin::client::{AskError, ask};
use holdfast::admin::{Reply, Request};
use holdfast::client::{Identity, Profile, Voucher};
use holdfast::core::identity::KeyPair;
use holdfast::core::rows::Group;
use serde::{Deserialize, Serialize};

/// Why there is nobody to be.
#[derive(Debug, thiserror::Error)]
pub enum TownError {
    /// The admin commands.
    #[error("cannot make meshes and members: {0}")]
    Ask(#[from] AskError),
    /// An answer to another question.
    #[error("the broker answered something else to an admin command")]
    Strange,
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{path}: not a mesh file: {why}; `holdfast-bench dm --help` shows one")]
    Malformed {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Too little of it.
    #[error("{path}: {found} {what}, and {wanted} are needed")]
    TooFew {
        /// Which.
        path: String,
        /// Of what.
        what: &'static str,
        /// How many are there.
        found: usize,
        /// How many the scenario wants.
        wanted: usize,
    },
}

/// A member whose keys are known.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: Arc<str>,
    /// Its keys.
    pub keys: Arc<KeyPair>,
}

/// A mesh whose members are known.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Its id.
    pub id: Arc<str>,
    /// The first is its owner.
    pub members: Vec<Member>,
}

/// All meshes of a run.
#[derive(Clone, Debug)]
pub struct Town {
    /// In the order in which they were made.
    pub meshes: Vec<Mesh>,
    seed: u64,
    cwd: Arc<str>,
    hostname: Arc<str>,
    model: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshEntry {
    mesh_id: String,
    members: Vec<MemberEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberEntry {
    member_id: String,
    /// libsodium form: seed, then public key, 128 hex digits.
    secret_key: String,
}

impl Town {
    /// Makes meshes with so many members each, through the admin commands of the broker on `db`;
    /// `made` is told after each mesh.
    ///
    /// # Errors
    /// The broker does not let it.
    pub fn provision(
        db: &Path,
        seed: u64,
        (meshes, members): (usize, usize),
        mut made: impl FnMut(usize),
    ) -> Result<Self, TownError> {
        let mut all = Vec::with_capacity(meshes);
        for number in 0..meshes {
            all.push(mesh(db, number, members)?);
            made(number + 1);
        }
        Ok(Self::new(all, seed))
    }

    fn new(meshes: Vec<Mesh>, seed: u64) -> Self {
        Self {
            meshes,
            seed,
            cwd: "/home/user/projects/holdfast".into(),
            hostname: "workstation".into(),
            model: "claude".into(),
        }
    }

    /// Reads a mesh file: a JSON array of `{"meshId", "members": [{"memberId", "secretKey"}]}`.
    ///
    /// # Errors
    /// It cannot be read, is none, or holds too little.
    pub fn load(
        path: &Path,
        seed: u64,
        (meshes, members): (usize, usize),
    ) -> Result<Self, TownError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| TownError::File {
            path: shown(),
            source,
        })?;
        let malformed = |why: String| TownError::Malformed { path: shown(), why };
        let entries: Vec<MeshEntry> =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let all = entries.iter().map(|entry| {
            let members = entry.members.iter().map(|member| {
                let keys = KeyPair::from_libsodium_hex(&member.secret_key);
                let why = || format!("the secretKey of {} is no key", member.member_id);
                Ok(Member {
                    id: member.member_id.as_str().into(),
                    keys: Arc::new(keys.ok_or_else(|| malformed(why()))?),
                })
            });
            Ok(Mesh {
                id: entry.mesh_id.as_str().into(),
                members: members.collect::<Result<_, TownError>>()?,
            })
        });
        let all = all.collect::<Result<Vec<_>, TownError>>()?;
        let enough = |what, found, wanted| {
            let too_few = TownError::TooFew {
                path: shown(),
                what,
                found,
                wanted,
            };
            if found < wanted { Err(too_few) } else { Ok(()) }
        };
        enough("meshes", all.len(), meshes)?;
        for mesh in &all {
            enough("members in a mesh", mesh.members.len(), members)?;
        }
        Ok(Self::new(all, seed))
    }

    /// Writes a mesh file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TownError> {
        let entries: Vec<MeshEntry> = self.meshes.iter().map(MeshEntry::of).collect();
        let text = serde_json::to_string_pretty(&entries).unwrap_or_default();
        fs::write(path, text + "\n").map_err(|source| TownError::File {
            path: path.display().to_string(),
            source,
        })
    }

    /// Launched session number `n`: of mesh `n % meshes`, of its members in turn, with all that a
    /// real one tells of itself.
    pub fn launched(&self, n: usize) -> Option<Identity> {
        let mesh = self.meshes.get(n % self.meshes.len().max(1))?;
        let place = n / self.meshes.len();
        let member = mesh.members.get(place % mesh.members.len().max(1))?;
        Some(self.session(mesh, member, n))
    }

    /// A launched session of that member, whose key follows from `n`.
    pub fn session(&self, mesh: &Mesh, member: &Member, n: usize) -> Identity {
        let session = KeyPair::from_seed(key_seed(self.seed, n as u64));
        let voucher = Voucher::Keys(Arc::clone(&member.keys));
        let identity = Identity::launched(&*mesh.id, &*member.id, voucher, session);
        identity.with(self.profile(n))
    }

    fn profile(&self, n: usize) -> Profile {
        Profile {
            pid: u32::try_from(n).unwrap_or(1),
            cwd: Arc::clone(&self.cwd),
            display_name: Some(format!("session {n}").into()),
            hostname: Some(Arc::clone(&self.hostname)),
            peer_type: Some("ai".into()),
            model: Some(Arc::clone(&self.model)),
            groups: Some(vec![Group {
                name: "backend".into(),
                role: None,
            }]),
            ..Profile::default()
        }
    }
}

impl MeshEntry {
    fn of(mesh: &Mesh) -> Self {
        let member = |member: &Member| MemberEntry {
            member_id: member.id.to_string(),
            secret_key: member.keys.to_libsodium_hex(),
        };
        Self {
            mesh_id: mesh.id.to_string(),
            members: mesh.members.iter().map(member).collect(),
        }
    }
}

fn mesh(db: &Path, number: usize, members: usize) -> Result<Mesh, TownError> {
    let slug = format!("bench-{number}");
    let request = Request::MeshCreate {
        slug: slug.clone(),
        name: None,
    };
    let Reply::MeshCreated(made) = ask(db, &request)? else {
        return Err(TownError::Strange);
    };
    let mut all = vec![known(&made.owner_member_id, &made.owner_secret_key)?];
    for n in 1..members {
        let request = Request::MemberAdd {
            mesh: slug.clone(),
            name: format!("member {n}"),
            pubkey: None,
            admin: false,
        };
        let Reply::MemberAdded(made) = ask(db, &request)? else {
            return Err(TownError::Strange);
        };
        let secret = made.secret_key.unwrap_or_default();
        all.push(known(&made.member_id, &secret)?);
    }
    Ok(Mesh {
        id: made.mesh_id.into(),
        members: all,
    })
}

fn known(id: &str, secret: &str) -> Result<Member, TownError> {
    let keys = KeyPair::from_libsodium_hex(secret).ok_or(TownError::Strange)?;
    Ok(Member {
        id: id.into(),
        keys: Arc::new(keys),
    })
}

/// Keys of a load generator need not be secret, only distinct.
fn key_seed(seed: u64, n: u64) -> [u8; 32] {
    let mut bytes = [0x5a; 32];
    let words = [seed.to_be_bytes(), n.to_be_bytes()].concat();
    for (byte, word) in bytes.iter_mut().zip(words) {
        *byte = word;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn town() -> Town {
        let member = |n| Member {
            id: format!("member {n}").into(),
            keys: Arc::new(KeyPair::from_seed([n; 32])),
        };
        let mesh = |n: u8| Mesh {
            id: format!("mesh {n}").into(),
            members: vec![member(2 * n), member(2 * n + 1)],
        };
        Town::new(vec![mesh(0), mesh(1)], 7)
    }

    #[test]
    fn a_mesh_file_holds_all_there_is_to_know() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshes.json");
        town().save(&path).unwrap();
        let read = Town::load(&path, 7, (2, 2)).unwrap();
        for n in 0..10 {
            let key = |town: &Town| town.launched(n).unwrap().key();
            assert_eq!(key(&read), key(&town()));
        }
        let few = Town::load(&path, 7, (3, 2)).unwrap_err();
        assert!(
            few.to_string().ends_with("2 meshes, and 3 are needed"),
            "{few}"
        );
        fs::write(&path, "[{}]").unwrap();
        let malformed = Town::load(&path, 7, (1, 1)).unwrap_err();
        assert!(
            matches!(malformed, TownError::Malformed { .. }),
            "{malformed}"
        );
    }

    #[test]
    fn sessions_are_spread_over_meshes_and_members() {
        let town = town();
        let keys: std::collections::BTreeSet<_> =
            (0..100).map(|n| town.launched(n).unwrap().key()).collect();
        assert_eq!(keys.len(), 100);
    }
}
