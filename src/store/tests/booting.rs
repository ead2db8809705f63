//! What the next process finds.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each test looks at one kind of row"
)]

use std::collections::BTreeSet;

use super::*;
use crate::core::rows::{PeerStateRow, Restart};
use crate::store::boot::SEQ_STRIDE;

fn kinds(rows: &[BootRow]) -> String {
    rows.iter()
        .map(|row| match row {
            BootRow::Resume(_) => 'r',
            BootRow::Mesh(_) => 'M',
            BootRow::Member(_) => 'm',
            BootRow::PeerState(_) => 's',
            BootRow::State(_) => 'v',
            BootRow::Stream(_) => 't',
            BootRow::Topic(_) => 'o',
            BootRow::TopicMember(_) => 'i',
            BootRow::Watch(_) => 'w',
            BootRow::Presence(_) => 'p',
            BootRow::Subscription(_) => 'u',
            BootRow::Ended(_) => 'e',
            BootRow::Server(_) => 'h',
            BootRow::Said(_) => 'S',
            BootRow::Log(_) => 'l',
            BootRow::Sent(_) => 'n',
            BootRow::Mailbox(_) => 'b',
            BootRow::Schedule(_) => 'c',
        })
        .collect()
}

fn epochs(rows: &[BootRow]) -> Vec<(String, u8)> {
    rows.iter()
        .filter_map(|row| {
            if let BootRow::Presence(row) = row {
                Some((row.id.clone(), row.boot_epochs))
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn the_image_holds_what_is_present_in_order() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p2"))));
    world.persist(StoreOp::PresenceEnd {
        began: began("p1"),
        id: "p1".to_owned(),
        at: Wall(1),
        ended: Position(1),
    });
    let state = PeerStateRow {
        mesh_id: world.made.mesh.id.clone(),
        member_id: world.made.owner.id.clone(),
        profile: "{}".to_owned(),
        ..PeerStateRow::default()
    };
    world.persist(StoreOp::PeerStatePut(Box::new(state)));
    for (seq, target) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        world.persist(world.insert(seq, key(target)));
    }
    world.persist(StoreOp::MessageDelivered {
        seq: Seq(4),
        at: Wall(1),
    });
    let mut topic = message(&world.made, 5, "#topic");
    topic.delivered_at = None;
    world.persist(sent(topic));
    world.store.close();

    for count in 1..=3 {
        let store = Store::open(&world.path, Durability::Full).unwrap();
        let image = boot(&store);
        assert_eq!(kinds(&image.rows), "rMmspelnnnnnbb");
        assert_eq!(epochs(&image.rows), [("p2".to_owned(), count)]);
        assert!(image.next_seq > Seq(5));
        assert_eq!(image.skipped, 0);
        store.close();
    }
    let conn = Connection::open(&world.path).unwrap();
    assert_eq!(count(&conn, "boot WHERE presences = 1"), 3);
}

#[test]
fn somebody_who_attached_again_is_counted_anew() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    assert_eq!(epochs(&boot(&world.store).rows), [("p1".to_owned(), 1)]);
    assert_eq!(epochs(&boot(&world.store).rows), [("p1".to_owned(), 2)]);
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    assert_eq!(epochs(&boot(&world.store).rows), [("p1".to_owned(), 1)]);
}

/// What a start grants ten seconds after the last one granted something.
fn restart(at: i64) -> Restart {
    Restart {
        at: Wall(at),
        grace: Millis(90),
        max_grace: Millis(1000),
        restart_grace: Millis(50),
        heard: Position(u64::try_from(at).unwrap()),
    }
}

/// By id.
fn leases(rows: &[BootRow]) -> BTreeSet<(String, Option<i64>, u64)> {
    rows.iter()
        .filter_map(|row| match row {
            BootRow::Presence(row) => {
                let until = row.lease_until.map(|until| until.0);
                Some((row.id.clone(), until, row.heard.0))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn what_starts_have_granted_is_in_the_rows_that_the_next_one_finds() {
    let world = World::new();
    let presence = |id: &str, until: Option<i64>| {
        let mut row = world.presence(id);
        row.lease_until = until.map(Wall);
        (row.heard, row.grace) = (Position(3), None);
        world.persist(StoreOp::PresencePut(Box::new(row)));
    };
    presence("online", None);
    presence("short", Some(1010));
    presence("long", Some(1080));
    let of = |id: &str, until, heard| (id.to_owned(), until, heard);
    let untouched = BTreeSet::from([
        of("online", None, 3),
        of("short", Some(1010), 3),
        of("long", Some(1080), 3),
    ]);
    assert_eq!(leases(&boot(&world.store).rows), untouched);
    // A start that ended before it could grant anything.
    assert_eq!(leases(&boot(&world.store).rows), untouched);
    world.persist(StoreOp::Restarted(restart(1000)));
    // In grace again since.
    let id = "short".to_owned();
    let at = Position(7);
    let grace = StoreOp::PresenceGrace {
        began: began(&id),
        id,
        until: Wall(1060),
        last_ping_at: Wall(970),
        cursor: at,
        heard: at,
        known: at,
    };
    world.persist(grace);
    let granted = BTreeSet::from([
        of("online", Some(1050), 1000),
        of("short", Some(1060), 7),
        of("long", Some(1080), 3),
    ]);
    assert_eq!(leases(&boot(&world.store).rows), granted);
    world.persist(StoreOp::Restarted(restart(1040)));
    let granted = BTreeSet::from([
        of("online", Some(1090), 1000),
        of("short", Some(1090), 7),
        of("long", Some(1090), 3),
    ]);
    assert_eq!(leases(&boot(&world.store).rows), granted);
    // The fourth boot since they came extends nothing.
    world.persist(StoreOp::Restarted(restart(1085)));
    assert_eq!(leases(&boot(&world.store).rows), granted);
}

#[test]
fn what_was_given_to_a_store_that_never_started_is_not_written() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.db");
    let store = Store::open(&path, Durability::Full).unwrap();
    let made = store.admin().mesh_create("alpha", None).unwrap();
    let audit = AuditRow {
        mesh_id: made.mesh.id,
        event_type: "peer_left",
        actor_member_id: None,
        actor_display_name: None,
        payload: json!({}),
        created_at: Wall(1),
    };
    store
        .client(0)
        .persist(StoreOp::Audit(Box::new(audit)), None);
    store.close();
    let conn = Connection::open(&path).unwrap();
    assert_eq!(count(&conn, "audit_log WHERE event_type = 'peer_left'"), 0);
}

#[test]
fn sequences_never_come_again() {
    let world = World::new();
    let first = boot(&world.store).next_seq;
    assert!(first.0 > 0);
    // Nothing was stored, but some may have been pushed.
    let second = boot(&world.store).next_seq;
    assert!(second.0 >= first.0 + SEQ_STRIDE);
    // A process that used more than its stride.
    let high = second.0 + 5 * SEQ_STRIDE;
    world.persist(world.insert(high, key(1)));
    let third = boot(&world.store).next_seq;
    assert!(third.0 > high);
    // A process may be refused for long before it stores anything again.
    let refused = 10_000 * 3600 * 7;
    assert!(SEQ_STRIDE > refused);
    let boots = 500_000;
    assert!(SEQ_STRIDE * boots < 62_u64.pow(8));
}

#[test]
fn a_damaged_row_is_left_out() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p2"))));
    world
        .disk()
        .execute(
            "UPDATE presence SET session_pubkey = 'x' WHERE id = 'p1'",
            [],
        )
        .unwrap();
    let image = boot(&world.store);
    assert_eq!(epochs(&image.rows), [("p2".to_owned(), 1)]);
    assert_eq!(image.skipped, 1);
}

#[test]
fn a_crash_keeps_presences() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    let grace = StoreOp::PresenceGrace {
        began: began("p1"),
        id: "p1".to_owned(),
        until: Wall(77),
        last_ping_at: Wall(7),
        cursor: Position(1),
        heard: Position(1),
        known: Position(1),
    };
    world.persist(grace);
    let (_folder, copy) = crash_image(&world.path);
    let image = boot(&Store::open(&copy, Durability::Full).unwrap());
    let mut untils = image.rows.iter().filter_map(|row| match row {
        BootRow::Presence(row) => Some(row.lease_until),
        _ => None,
    });
    assert_eq!(untils.next(), Some(Some(Wall(77))));
}

#[test]
fn the_log_of_a_mesh_is_read_back_as_far_as_its_limits_allow() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    let now = Wall(
        world
            .disk()
            .query_row(
                "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
                [],
                |row| row.get(0),
            )
            .unwrap(),
    );
    let said = |seq: u64, age| {
        let mut row = message(&world.made, seq, "*");
        row.position = Some(Position(1000 + seq));
        row.created_at = Wall(now.0 - age);
        row.client_message_id = None;
        world.persist(sent(row));
    };
    let log = || {
        let image = boot(&world.store);
        let said: Vec<u64> = image
            .rows
            .iter()
            .filter_map(|row| match row {
                BootRow::Said(row) => Some(row.seq.0),
                _ => None,
            })
            .collect();
        let since = image.rows.iter().find_map(|row| match row {
            BootRow::Log(row) => Some(row.since.0),
            _ => None,
        });
        (said, since.unwrap())
    };
    said(1, 601_000);
    said(2, 0);
    assert_eq!(log(), (vec![2], 1001), "the first is too old");
    (3..=5).for_each(|seq| said(seq, 0));
    assert_eq!(log(), (vec![3, 4, 5], 1002), "there is room for three");
}

#[test]
fn the_presences_that_ended_last_come_in_the_order_in_which_they_did() {
    let world = World::new();
    for (id, at) in [("p1", 30), ("p2", 10), ("p3", 20)] {
        world.persist(StoreOp::PresencePut(Box::new(world.presence(id))));
        let (id, ended) = (id.to_owned(), Position(7));
        world.persist(StoreOp::PresenceEnd {
            began: began(&id),
            id: id.clone(),
            at: Wall(at),
            ended,
        });
        let told = crate::core::rows::Told::Leave(Position(8));
        world.persist(StoreOp::PresenceTold {
            began: began(&id),
            id,
            told,
        });
    }
    let image = boot(&world.store);
    let ends: Vec<_> = image
        .rows
        .iter()
        .filter_map(|row| match row {
            BootRow::Ended(row) => Some((row.ended_at.0, row.ended, row.joined, row.left)),
            _ => None,
        })
        .collect();
    let told = (Position(7), Some(Position(4)), Some(Position(8)));
    let end = |at| (at, told.0, told.1, told.2);
    assert_eq!(ends, [end(10), end(20), end(30)]);
}

#[test]
fn a_message_is_found_by_what_its_sender_called_it() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    let ask = |name: &str| {
        let query = StoreQuery::Sent {
            mesh_id: world.made.mesh.id.clone(),
            sender_member_id: world.made.owner.id.clone(),
            client_message_id: name.to_owned(),
        };
        world.client.query(query, Token(1));
        match world.answer().unwrap() {
            StoreAnswer::Message(row) => row.map(|row| (row.seq, row.deferred)),
            other @ (StoreAnswer::Mailbox { .. } | StoreAnswer::Records(_)) => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("client-1"), Some((Seq(1), true)));
    assert_eq!(ask("client-2"), None);
    let sql = "EXPLAIN QUERY PLAN SELECT * FROM message_queue WHERE mesh_id = 'a'
        AND sender_member_id = 'b' AND client_message_id = 'c' ORDER BY seq LIMIT 1";
    let plan: String = world.disk().query_row(sql, [], |row| row.get(3)).unwrap();
    assert!(
        plan.contains("message_by_name (mesh_id=? AND client_message_id=? AND sender_member_id=?)"),
        "{plan}"
    );
}

#[test]
fn the_key_of_resume_tokens_stays_the_same() {
    let world = World::new();
    let key = |store: &Store| match boot(store).rows.first() {
        Some(BootRow::Resume(key)) => key.0,
        other => panic!("{other:?}"),
    };
    let first = key(&world.store);
    assert_ne!(first, [0; 32]);
    assert_eq!(key(&world.store), first);
    assert_ne!(key(&World::new().store), first);
}
