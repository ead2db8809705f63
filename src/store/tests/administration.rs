//! Meshes and members.

use super::*;
use crate::core::ids::PubKey;
use crate::store::{AdminError, Offline};

#[test]
fn a_mesh_comes_with_its_owner() {
    let world = World::new();
    let made = &world.made;
    assert_eq!(
        (made.mesh.slug.as_str(), made.mesh.name.as_str()),
        ("alpha", "alpha")
    );
    assert!(made.owner.admin);
    assert_eq!(made.owner.mesh_id, made.mesh.id);
    assert_eq!(made.owner.display_name, "owner");
    for id in [&made.mesh.id, &made.owner.id] {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
    let pair = KeyPair::from_libsodium_hex(&made.owner_secret_key).unwrap();
    assert_eq!(pair.public(), made.owner.pubkey);
    let policy: serde_json::Value =
        serde_json::from_str(made.mesh.self_editable.as_deref().unwrap()).unwrap();
    let all = json!({"displayName": true, "roleTag": true, "groups": true, "messageMode": true});
    assert_eq!(policy, all);
    assert_eq!(
        world.count("mesh WHERE length(root_key) = 43 AND owner_secret_key <> ''"),
        1
    );

    let listed = world.store.admin().mesh_list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].members, listed[0].owner_pubkey),
        (1, made.owner.pubkey)
    );
    assert!(listed[0].created_at > Wall(1_600_000_000_000));
}

#[test]
fn slugs_are_checked_and_unique() {
    let world = World::new();
    let admin = world.store.admin();
    for bad in ["", "a b", "a/b", "\u{e9}", "a\n"] {
        assert!(
            matches!(admin.mesh_create(bad, None), Err(AdminError::BadSlug(_))),
            "{bad:?}"
        );
    }
    let long_name = "n".repeat(513);
    for bad in ["", "  ", "a\tb", &long_name] {
        let error = admin.mesh_create("beta", Some(bad)).unwrap_err();
        assert!(matches!(error, AdminError::BadName { .. }), "{bad:?}");
    }
    for taken in ["alpha", &world.made.mesh.id] {
        let error = admin.mesh_create(taken, None).unwrap_err();
        assert!(matches!(error, AdminError::SlugTaken(_)));
    }
    admin.mesh_create("A.b_c-1", Some("Another")).unwrap();
    assert_eq!(world.count("mesh"), 2, "what failed left nothing");
}

#[test]
fn members_are_added_with_and_without_a_key() {
    let world = World::new();
    let admin = world.store.admin();
    let given = admin
        .member_add("alpha", "bob", Some(key(5)), false)
        .unwrap();
    assert_eq!((given.member.pubkey, given.secret_key), (key(5), None));
    assert!(!given.member.admin);
    assert_eq!(given.member.message_mode, "push");
    let mesh = &world.made.mesh.id;
    let made = admin.member_add(mesh, "eve", None, true).unwrap();
    let pair = KeyPair::from_libsodium_hex(&made.secret_key.unwrap()).unwrap();
    assert_eq!(pair.public(), made.member.pubkey);
    assert!(made.member.admin);

    let taken = admin
        .member_add("alpha", "bob2", Some(key(5)), false)
        .unwrap_err();
    assert!(taken.to_string().contains(&given.member.id), "{taken}");
    let nowhere = admin.member_add("beta", "x", None, false).unwrap_err();
    assert_eq!(nowhere.to_string(), "there is no mesh \"beta\"");
    let names: Vec<String> = admin
        .member_list("alpha")
        .unwrap()
        .into_iter()
        .map(|row| row.display_name)
        .collect();
    assert_eq!(names, ["owner", "bob", "eve"]);
}

#[test]
fn a_revoked_key_may_be_added_again() {
    let world = World::new();
    let admin = world.store.admin();
    let first = admin
        .member_add("alpha", "bob", Some(key(5)), false)
        .unwrap()
        .member;
    let revoked = admin.member_revoke(&key(5).to_string()).unwrap();
    assert_eq!(revoked.id, first.id);
    assert!(revoked.revoked_at.is_some());
    assert_eq!(
        admin.member_revoke(&first.id).unwrap().revoked_at,
        revoked.revoked_at
    );

    let second = admin
        .member_add("alpha", "bob", Some(key(5)), false)
        .unwrap()
        .member;
    assert_ne!(second.id, first.id);
    // By name and key the active one is meant.
    let peer = key(6);
    assert_eq!(
        admin.member_grants("bob", peer, None).unwrap().id,
        second.id
    );
    assert_eq!(
        admin.client_config("alpha", "bob").unwrap().member.id,
        second.id
    );
    assert_eq!(admin.mesh_list().unwrap()[0].members, 2);
    // Lifting the first revocation would make two: refused, and nothing else is harmed.
    world.client.persist(
        StoreOp::MemberRevoked {
            id: first.id,
            at: None,
        },
        Some(Token(1)),
    );
    assert_eq!(world.stored(), (1, Err(StoreFailure::Io)));
}

#[test]
fn an_ambiguous_or_unknown_member_is_an_error() {
    let world = World::new();
    let admin = world.store.admin();
    for _ in 0..2 {
        admin.member_add("alpha", "bob", None, false).unwrap();
    }
    let error = admin.member_revoke("bob").unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 members are called \"bob\": give a member id"
    );
    assert!(matches!(
        admin.member_revoke("nobody"),
        Err(AdminError::NoMember(_))
    ));

    // The same key in two meshes: a mesh decides where one is given.
    admin.mesh_create("beta", None).unwrap();
    let here = admin
        .member_add("alpha", "carl", Some(key(5)), false)
        .unwrap()
        .member;
    admin
        .member_add("beta", "carla", Some(key(5)), false)
        .unwrap();
    let hex = key(5).to_string();
    assert!(matches!(
        admin.member_revoke(&hex),
        Err(AdminError::AmbiguousMember { .. })
    ));
    assert_eq!(
        admin.client_config("alpha", &hex).unwrap().member.id,
        here.id
    );
    assert!(matches!(
        admin.client_config("beta", "carl"),
        Err(AdminError::NoMember(_))
    ));
}

#[test]
fn grants_are_set_and_reset() {
    let world = World::new();
    let admin = world.store.admin();
    let grant = |peer: PubKey, caps: Option<&[&str]>| {
        let caps = caps.map(|caps| caps.iter().map(|&cap| cap.to_owned()).collect());
        admin.member_grants("owner", peer, caps)
    };
    let row = grant(key(5), Some(&["dm", "read", "dm"])).unwrap();
    assert_eq!(
        row.grants,
        [(key(5), vec!["read".to_owned(), "dm".to_owned()])]
    );
    let row = grant(key(6), Some(&[])).unwrap();
    assert_eq!(row.grants.len(), 2, "an empty list blocks");
    let row = grant(key(5), None).unwrap();
    assert_eq!(row.grants, [(key(6), vec![])]);
    let error = grant(key(5), Some(&["dm", "fly"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown capability \"fly\": use read, dm, broadcast, state-read, state-write, file-read"
    );
}

#[test]
fn the_owners_secret_is_known_and_nobody_elses() {
    let world = World::new();
    let admin = world.store.admin();
    let owner = admin.client_config("alpha", "owner").unwrap();
    assert_eq!(
        owner.secret_key.as_deref(),
        Some(world.made.owner_secret_key.as_str())
    );
    assert!(owner.joined_at > Wall(1_600_000_000_000));
    admin.member_add("alpha", "bob", None, false).unwrap();
    assert_eq!(
        admin.client_config("alpha", "bob").unwrap().secret_key,
        None
    );
}

#[test]
fn names_are_never_sql() {
    let world = World::new();
    let admin = world.store.admin();
    let name = "'; DROP TABLE member; --";
    let made = admin.member_add("alpha", name, None, false).unwrap().member;
    assert_eq!(admin.member_revoke(name).unwrap().id, made.id);
    assert!(matches!(
        admin.member_list("' OR 1=1 --"),
        Err(AdminError::NoMesh(_))
    ));
}

#[test]
fn a_change_comes_after_what_shards_gave_before() {
    let world = World::new();
    let ban = StoreOp::MemberRevoked {
        id: world.made.owner.id.clone(),
        at: Some(Wall(3)),
    };
    world.client.persist(ban, None);
    let row = world
        .store
        .admin()
        .member_grants(&world.made.owner.id, key(1), None)
        .unwrap();
    assert_eq!(row.revoked_at, Some(Wall(3)));
}

#[test]
fn the_same_works_offline() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("holdfast.db");
    let offline = Offline::open(&path).unwrap();
    let made = offline.admin().mesh_create("alpha", Some("Alpha")).unwrap();
    drop(offline);
    let store = Store::open(&path, Durability::Full).unwrap();
    let listed = store.admin().mesh_list().unwrap();
    assert_eq!(listed[0].mesh.id, made.mesh.id);
    store.close();
}

#[test]
fn a_closed_store_says_so() {
    let world = World::new();
    let admin = world.store.admin();
    world.store.close();
    assert!(matches!(admin.mesh_list(), Err(AdminError::Stopped)));
}
