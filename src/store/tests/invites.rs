//! Invites, and who joins by them.

use super::*;
use crate::core::ids::PubKey;
use crate::store::{AdminError, Invite, JoinError, Joined, Joining, NewInvite};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

fn wanted(uses: u32, life: Millis) -> NewInvite {
    NewInvite {
        mesh: "alpha".to_owned(),
        admin: false,
        uses,
        life,
        broker_url: "ws://broker/ws".to_owned(),
    }
}

const HOUR: Millis = Millis::secs(3600);

fn payload(invite: &Invite) -> serde_json::Value {
    let text = BASE64_URL_SAFE_NO_PAD.decode(&invite.token).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn joining(invite: &Invite, pubkey: PubKey) -> Joining {
    Joining {
        token: invite.token.clone(),
        payload: serde_json::from_value(payload(invite)).unwrap(),
        pubkey,
        name: "dora".to_owned(),
    }
}

impl World {
    fn invite(&self, uses: u32) -> Invite {
        self.store
            .admin()
            .invite_create(wanted(uses, HOUR))
            .unwrap()
    }

    fn join(&self, joining: Joining) -> Result<Joined, JoinError> {
        self.store.admin().join(joining)
    }
}

#[test]
fn a_token_says_what_its_row_says() {
    let world = World::new();
    let invite = world.invite(2);
    let said = payload(&invite);
    assert_eq!(said["mesh_id"], world.made.mesh.id.as_str());
    assert_eq!(said["mesh_slug"], "alpha");
    assert_eq!(said["broker_url"], "ws://broker/ws");
    assert_eq!(said["role"], "member");
    assert_eq!(said["owner_pubkey"], world.made.owner.pubkey.to_string());
    let seconds = said["expires_at"].as_i64().unwrap();
    assert_eq!(invite.expires_at, Wall(seconds * 1000));
    assert_eq!(invite.created_at.after(HOUR).0 / 1000, seconds);
    assert_eq!((invite.uses, invite.used), (2, 0));
}

#[test]
fn bounds_of_an_invite_are_told() {
    let world = World::new();
    let create = |uses, life| world.store.admin().invite_create(wanted(uses, life));
    for uses in [0, 1_000_001] {
        assert!(matches!(
            create(uses, HOUR),
            Err(AdminError::BadUses { .. })
        ));
    }
    for life in [Millis(0), Millis(u64::MAX)] {
        assert!(matches!(create(1, life), Err(AdminError::BadLife)));
    }
    let nowhere = NewInvite {
        mesh: "beta".to_owned(),
        ..wanted(1, HOUR)
    };
    let nowhere = world.store.admin().invite_create(nowhere);
    assert!(matches!(nowhere, Err(AdminError::NoMesh(_))));
    assert!(matches!(
        world.store.admin().invite_revoke("none"),
        Err(AdminError::NoInvite(_))
    ));
    assert_eq!(world.count("invite"), 0);
}

#[test]
fn invites_of_one_second_are_different() {
    let world = World::new();
    let tokens = (0..5).map(|_| world.invite(1).token);
    let tokens: std::collections::BTreeSet<String> = tokens.collect();
    assert_eq!(tokens.len(), 5);
}

#[test]
fn a_use_is_taken_by_who_becomes_a_member_and_by_nobody_else() {
    let world = World::new();
    let invite = world.invite(1);
    let bad_name = Joining {
        name: "a\nb".to_owned(),
        ..joining(&invite, key(5))
    };
    assert!(matches!(
        world.join(bad_name),
        Err(JoinError::Refused(AdminError::BadName { .. }))
    ));
    let first = world.join(joining(&invite, key(5))).unwrap();
    assert!(!first.already && !first.member.admin);
    let again = world.join(joining(&invite, key(5))).unwrap();
    assert_eq!((again.already, again.member.id), (true, first.member.id));
    let late = world.join(joining(&invite, key(6)));
    assert!(matches!(late, Err(JoinError::Exhausted)));
    assert_eq!(world.count("member"), 2);
    let listed = world.store.admin().invite_list("alpha").unwrap();
    assert_eq!((listed.len(), listed[0].used), (1, 1));
}

#[test]
fn whoever_was_revoked_may_be_invited_anew_and_not_come_back_by_an_earlier_invite() {
    let world = World::new();
    let invite = world.invite(2);
    let first = world.join(joining(&invite, key(5))).unwrap().member;
    let revoked = |at| StoreOp::MemberRevoked {
        id: first.id.clone(),
        at,
    };
    world.persist(revoked(Some(invite.created_at.after(Millis(1)))));
    let back = world.join(joining(&invite, key(5)));
    assert!(matches!(back, Err(JoinError::Banned)), "{back:?}");
    // Revoked before the invite was made.
    world.persist(revoked(Some(Wall(invite.created_at.0 - 1))));
    let second = world.join(joining(&invite, key(5))).unwrap();
    assert!(!second.already && second.member.id != first.id);
}

#[test]
fn the_first_check_that_fails_is_the_one_that_is_told() {
    let world = World::new();
    let invite = world.invite(9);
    let other = world.store.admin().mesh_create("beta", None).unwrap();
    let theirs = NewInvite {
        mesh: "beta".to_owned(),
        ..wanted(1, HOUR)
    };
    let theirs = world.store.admin().invite_create(theirs).unwrap();
    let refused = |joining: Joining| world.join(joining).unwrap_err().to_string();
    let with = |name: &str, value: serde_json::Value| {
        let mut changed = payload(&invite);
        changed[name] = value;
        Joining {
            payload: serde_json::from_value(changed).unwrap(),
            ..joining(&invite, key(5))
        }
    };
    for (name, value) in [
        ("role", json!("admin")),
        ("expires_at", json!(i64::MAX)),
        ("mesh_id", json!(other.mesh.id)),
        ("owner_pubkey", json!("none")),
        ("signature", json!("00")),
    ] {
        assert_eq!(refused(with(name, value)), "invite_bad_signature", "{name}");
    }
    let crossed = Joining {
        token: theirs.token,
        ..joining(&invite, key(5))
    };
    assert_eq!(refused(crossed), "invite_mesh_mismatch");
    let unknown = Joining {
        token: "none".to_owned(),
        ..joining(&invite, key(5))
    };
    assert_eq!(refused(unknown), "invite_not_found");
    world
        .disk()
        .execute_batch("UPDATE invite SET expires_at = 1")
        .unwrap();
    assert_eq!(refused(joining(&invite, key(5))), "invite_expired");
    world.store.admin().invite_revoke(&invite.id).unwrap();
    assert_eq!(refused(joining(&invite, key(5))), "invite_revoked");
    world
        .disk()
        .execute_batch("UPDATE mesh SET owner_pubkey = 'another' WHERE slug = 'alpha'")
        .unwrap();
    assert_eq!(refused(joining(&invite, key(5))), "invite_owner_mismatch");
    world
        .disk()
        .execute_batch("UPDATE mesh SET archived_at = 1 WHERE slug = 'alpha'")
        .unwrap();
    assert_eq!(refused(joining(&invite, key(5))), "mesh_not_found");
    assert_eq!(world.count("member"), 2, "the owners");
}
