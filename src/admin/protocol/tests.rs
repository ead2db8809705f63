//! What goes over the socket, and what scripts see of it.

use super::*;

fn round_trip<T>(value: &T) -> String
where
    T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
{
    let line = serde_json::to_string(value).unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(&serde_json::from_str::<T>(&line).unwrap(), value);
    line
}

#[test]
fn every_request_survives_the_wire() {
    let text = || "a\nb\"c".to_owned();
    for request in [
        Request::Status,
        Request::MeshCreate {
            slug: text(),
            name: None,
        },
        Request::MeshList,
        Request::MemberAdd {
            mesh: text(),
            name: text(),
            pubkey: Some(text()),
            admin: true,
        },
        Request::MemberList { mesh: text() },
        Request::MemberRevoke { member: text() },
        Request::MemberGrants {
            member: text(),
            peer: text(),
            caps: Some(vec![]),
        },
        Request::MemberGrants {
            member: text(),
            peer: text(),
            caps: None,
        },
        Request::ClientConfig {
            mesh: text(),
            member: text(),
        },
        Request::Peers { mesh: text() },
    ] {
        round_trip(&request);
    }
    assert_eq!(round_trip(&Request::MeshList), r#"{"op":"mesh-list"}"#);
}

#[test]
fn replies_have_the_fields_scripts_rely_on() {
    let mesh = NewMesh {
        mesh_id: "m".into(),
        slug: "s".into(),
        name: "n".into(),
        owner_member_id: "o".into(),
        owner_pubkey: "p".into(),
        owner_secret_key: "k".into(),
    };
    assert_eq!(
        serde_json::to_string(&mesh).unwrap(),
        r#"{"meshId":"m","slug":"s","name":"n","ownerMemberId":"o","ownerPubkey":"p","ownerSecretKey":"k"}"#
    );
    assert!(!format!("{mesh:?}").contains('k'), "a secret in Debug");
    round_trip(&Reply::MeshCreated(mesh));
    let mut member = NewMember {
        member_id: "i".into(),
        mesh_id: "m".into(),
        pubkey: "p".into(),
        secret_key: Some("k".into()),
    };
    assert_eq!(
        serde_json::to_string(&member).unwrap(),
        r#"{"memberId":"i","meshId":"m","pubkey":"p","secretKey":"k"}"#
    );
    member.secret_key = None;
    assert!(
        !serde_json::to_string(&member)
            .unwrap()
            .contains("secretKey")
    );
    round_trip(&Reply::MemberAdded(member));
    round_trip(&Reply::Refused("no".into()));
    round_trip(&Reply::Peers(vec![]));
}

#[test]
fn unknown_operations_and_fields_are_refused() {
    for line in [
        "{}",
        r#"{"op":"shutdown"}"#,
        r#"{"op":"peers"}"#,
        r#"{"op":"peers","mesh":7}"#,
        r#"{"op":"peers","mesh":"m","all":true}"#,
    ] {
        assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
    }
}
