//! Carries requests out: on the store, and in the running broker's memory.

use std::net::SocketAddr;

use super::protocol::{Invite, Mesh, NewMesh, Peer, Reply, Request, Status};
use crate::config::DEFAULT_LISTEN;
use crate::core::ids::PubKey;
use crate::core::input::{Answer, Ask};
use crate::core::rows::{MemberRow, MeshRow};
use crate::core::time::Millis;
use crate::shell::Control;
use crate::store::{AdminError, AdminStore, NewInvite, Offline};

/// What a change touched, for those who keep a copy.
#[derive(Default)]
struct Touched {
    mesh: Option<MeshRow>,
    member: Option<MemberRow>,
}

/// Carries `request` out in the running broker. The change has taken effect there when this
/// returns.
pub(super) fn live(control: &Control, request: Request) -> Reply {
    if request == Request::Status {
        return Reply::Status(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            listen: control.addr().to_string(),
        });
    }
    if let Request::Peers { mesh } = request {
        return peers(control, &mesh);
    }
    let request = match with_url(request, control.addr()) {
        Ok(request) => request,
        Err(refusal) => return Reply::Refused(refusal.to_string()),
    };
    let _turn = request.changes().then(|| control.changing());
    let mut touched = Touched::default();
    let reply = answered(on_store(&control.store_admin(), request, &mut touched));
    // The mesh first: its home refuses members of a mesh it does not know.
    let taken = touched.mesh.is_none_or(|mesh| control.put_mesh(mesh))
        && touched
            .member
            .is_none_or(|member| control.put_member(member));
    if taken {
        return reply;
    }
    tracing::warn!("a loop was too busy to learn of an administrator's change");
    // What was made is told all the same: its secret key is in no other place.
    if matches!(reply, Reply::Member(_)) {
        return Reply::Refused(
            "it is stored, but the broker is too busy to act on it before its next start; try again"
                .to_owned(),
        );
    }
    reply
}

/// Carries `request` out on a database that no broker runs on.
pub(super) fn offline(store: &Offline, request: Request) -> Reply {
    let on_file = |request| on_store(store.admin(), request, &mut Touched::default());
    answered(with_url(request, DEFAULT_LISTEN).and_then(on_file))
}

/// An invite says where clients reach the broker: where it listens, if nothing else is said.
fn with_url(mut request: Request, listen: SocketAddr) -> Result<Request, Refusal> {
    if let Request::InviteCreate { broker_url, .. } = &mut request
        && broker_url.is_none()
    {
        if listen.ip().is_unspecified() {
            return Err(Refusal::NoUrl);
        }
        *broker_url = Some(format!("ws://{listen}/ws"));
    }
    Ok(request)
}

/// Why a request is refused: by us, or by the store.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a public key has 64 lower-case hex digits; {0:?} is none")]
    NotAKey(String),
    #[error("the broker listens on all addresses: say with --url where clients reach it")]
    NoUrl,
    #[error("only a running broker can say that; start one with: holdfast serve")]
    NeedsBroker,
    #[error(transparent)]
    Store(#[from] AdminError),
}

fn answered(result: Result<Reply, Refusal>) -> Reply {
    result.unwrap_or_else(|refusal| Reply::Refused(refusal.to_string()))
}

fn on_store(store: &AdminStore, request: Request, touched: &mut Touched) -> Result<Reply, Refusal> {
    match request {
        Request::MeshCreate { slug, name } => {
            let made = store.mesh_create(&slug, name.as_deref())?;
            touched.mesh = Some(made.mesh.clone());
            touched.member = Some(made.owner.clone());
            Ok(Reply::MeshCreated(NewMesh::from(made)))
        }
        Request::MeshList => {
            let meshes = store.mesh_list()?;
            Ok(Reply::Meshes(meshes.into_iter().map(Mesh::from).collect()))
        }
        Request::MemberAdd {
            mesh,
            name,
            pubkey,
            admin,
        } => {
            let key = pubkey.as_deref().map(key_of).transpose()?;
            let made = store.member_add(&mesh, &name, key, admin)?;
            touched.member = Some(made.member.clone());
            Ok(Reply::MemberAdded(made.into()))
        }
        Request::MemberList { mesh } => {
            let members = store.member_list(&mesh)?;
            Ok(Reply::Members(
                members.into_iter().map(Into::into).collect(),
            ))
        }
        Request::MemberRevoke { member } => {
            let row = store.member_revoke(&member)?;
            touched.member = Some(row.clone());
            Ok(Reply::Member(row.into()))
        }
        Request::MemberGrants { member, peer, caps } => {
            let row = store.member_grants(&member, key_of(&peer)?, caps)?;
            touched.member = Some(row.clone());
            Ok(Reply::Member(row.into()))
        }
        Request::InviteCreate {
            mesh,
            admin,
            uses,
            life_ms,
            broker_url,
        } => {
            let made = store.invite_create(NewInvite {
                mesh,
                admin,
                uses,
                life: Millis(life_ms),
                broker_url: broker_url.ok_or(Refusal::NoUrl)?,
            })?;
            Ok(Reply::Invite(made.into()))
        }
        Request::InviteList { mesh } => {
            let invites = store.invite_list(&mesh)?;
            Ok(Reply::Invites(
                invites.into_iter().map(Invite::from).collect(),
            ))
        }
        Request::InviteRevoke { invite } => Ok(Reply::Invite(store.invite_revoke(&invite)?.into())),
        Request::ClientConfig { mesh, member } => Ok(Reply::ClientConfig(
            store.client_config(&mesh, &member)?.into(),
        )),
        Request::Status | Request::Peers { .. } => Err(Refusal::NeedsBroker),
    }
}

/// Who is present, asked of the loop on which the mesh lives.
fn peers(control: &Control, mesh: &str) -> Reply {
    let answers = control.ask_all(Ask::Peers {
        mesh: mesh.to_owned(),
    });
    let silent = answers.is_empty();
    let found = answers.into_iter().find_map(|answer| match answer {
        Answer::Peers(peers) => peers,
        Answer::Gauges(_)
        | Answer::HookCandidate(_)
        | Answer::HookDone(_)
        | Answer::Edited(_)
        | Answer::Posted(_) => None,
    });
    match found {
        Some(peers) => Reply::Peers(peers.into_iter().map(Peer::from).collect()),
        None if silent => Reply::Refused("the broker is too busy to answer; try again".to_owned()),
        None => Reply::Refused(format!(
            "there is no mesh {mesh:?}; see: holdfast mesh list"
        )),
    }
}

fn key_of(text: &str) -> Result<PubKey, Refusal> {
    PubKey::parse(text).ok_or_else(|| Refusal::NotAKey(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::config::ServeConfig;
    use crate::shell::Server;

    /// Otherwise a loop could be told of a revocation before, and of grants made earlier after it.
    #[test]
    fn a_change_waits_until_a_loop_has_taken_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(ServeConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            db: folder.path().join("holdfast.db"),
            ..ServeConfig::default()
        })
        .unwrap();
        let control = server.control();
        let slug = || "team".to_owned();
        let create = Request::MeshCreate {
            slug: slug(),
            name: None,
        };
        let Reply::MeshCreated(made) = live(&control, create) else {
            panic!("a mesh is made")
        };
        let revoked = || {
            let Reply::Members(members) = live(&control, Request::MemberList { mesh: slug() })
            else {
                panic!("members are listed")
            };
            members[0].revoked_at.is_some()
        };
        let earlier = control.changing();
        let revoke = Request::MemberRevoke {
            member: made.owner_member_id,
        };
        let later = {
            let control = control.clone();
            thread::spawn(move || live(&control, revoke))
        };
        thread::sleep(Duration::from_millis(200));
        assert!(!revoked(), "it did not wait, or a question did");
        drop(earlier);
        assert!(matches!(later.join().unwrap(), Reply::Member(_)));
        assert!(revoked());
    }
}
