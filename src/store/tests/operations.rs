//! Every operation and question, one by one.

use super::*;
use crate::core::canon;
use crate::core::rows::{PeerStateRow, Stats, Told};
use crate::store::{apply, encode};

#[test]
fn a_presence_is_put_left_ended_and_put_again() {
    let world = World::new();
    let row = world.presence("p1");
    world.persist(StoreOp::PresencePut(Box::new(row.clone())));
    let read = || {
        let sql = format!("SELECT {} FROM presence", encode::PRESENCE);
        world.disk().query_row(&sql, [], encode::presence).unwrap()
    };
    assert_eq!(format!("{:?}", read()), format!("{row:?}"));

    let grace = StoreOp::PresenceGrace {
        began: began("p1"),
        id: "p1".to_owned(),
        until: Wall(90),
        last_ping_at: Wall(50),
        cursor: Position(70),
        heard: Position(60),
        known: Position(60),
    };
    world.persist(grace);
    assert_eq!(
        (read().lease_until, read().last_ping_at),
        (Some(Wall(90)), Wall(50))
    );
    assert_eq!((read().cursor, read().heard), (Position(70), Position(60)));
    let (id, cursor) = ("p1".to_owned(), Position(80));
    world.persist(StoreOp::PresenceCursor {
        began: began(&id),
        id,
        cursor,
    });
    assert_eq!(read().cursor, cursor);

    for at in [100, 200] {
        world.persist(StoreOp::PresenceEnd {
            began: began("p1"),
            id: "p1".to_owned(),
            at: Wall(at),
            ended: Position(at.unsigned_abs()),
        });
    }
    assert_eq!(
        world.count("presence WHERE disconnected_at = 100 AND ended_pos = 100"),
        1,
        "the first end counts"
    );

    world.persist(StoreOp::PresencePut(Box::new(row.clone())));
    assert_eq!(world.count("presence WHERE disconnected_at IS NULL"), 1);
    assert_eq!(format!("{:?}", read()), format!("{row:?}"));
}

#[test]
fn what_others_were_told_of_a_presence_is_noted() {
    let world = World::new();
    let mut row = world.presence("p1");
    row.joined = None;
    world.persist(StoreOp::PresencePut(Box::new(row)));
    assert_eq!(world.count("presence WHERE joined_pos IS NULL"), 1);
    for (told, column) in [
        (Told::Join(Position(8)), "joined_pos"),
        (Told::Leave(Position(9)), "left_pos"),
    ] {
        let id = "p1".to_owned();
        world.persist(StoreOp::PresenceTold {
            began: began(&id),
            id,
            told,
        });
        assert_eq!(world.count(&format!("presence WHERE {column} >= 8")), 1);
    }
}

#[test]
fn saved_peer_state_is_replaced() {
    let world = World::new();
    for round in [1_u8, 2] {
        let row = PeerStateRow {
            mesh_id: world.made.mesh.id.clone(),
            member_id: world.made.owner.id.clone(),
            groups: vec![Group {
                name: format!("g{round}").into(),
                role: None,
            }],
            profile: "{}".to_owned(),
            visible: true,
            last_summary: None,
            last_display_name: Some("n".to_owned()),
            stats: Stats {
                messages_in: f64::from(round) + 0.5,
                ..Stats::default()
            },
            last_seen_at: Wall(round.into()),
        };
        world.persist(StoreOp::PeerStatePut(Box::new(row.clone())));
        let sql = format!("SELECT {} FROM peer_state", encode::PEER_STATE);
        let read = world
            .disk()
            .query_row(&sql, [], encode::peer_state)
            .unwrap();
        assert_eq!(format!("{read:?}"), format!("{row:?}"));
    }
    assert_eq!(
        world.count("peer_state WHERE created_at = 1 AND updated_at = 2"),
        1
    );
}

#[test]
fn a_message_is_read_back_as_it_was() {
    let world = World::new();
    let row = world.message(5, key(1));
    world.persist(sent(row.clone()));
    assert_eq!(world.health().undelivered, 1);
    for (seq, found) in [(5, true), (6, false)] {
        world
            .client
            .query(StoreQuery::Message { seq: Seq(seq) }, Token(1));
        match world.answer() {
            Ok(StoreAnswer::Message(read)) => {
                assert_eq!(format!("{read:?}"), format!("{:?}", found.then_some(&row)));
            }
            other => panic!("{other:?}"),
        }
    }
    for at in [7, 8] {
        world.persist(StoreOp::MessageDelivered {
            seq: Seq(5),
            at: Wall(at),
        });
    }
    assert_eq!(
        world.count("message_queue WHERE delivered_at = 7"),
        1,
        "the first time counts"
    );
    assert_eq!(world.health().undelivered, 0);
}

#[test]
fn multicast_is_delivered_from_the_start() {
    let world = World::new();
    let mut row = message(&world.made, 1, "*");
    row.delivered_at = Some(Wall(1));
    world.persist(sent(row));
    assert_eq!(world.health().undelivered, 0);
}

#[test]
fn a_mailbox_is_read_in_order_and_in_parts() {
    let world = World::new();
    for seq in [9, 3, 7, 5] {
        world.client.persist(world.insert(seq, key(1)), None);
    }
    world.client.persist(world.insert(4, key(2)), None);
    world.client.persist(
        StoreOp::MessageDelivered {
            seq: Seq(7),
            at: Wall(1),
        },
        None,
    );
    assert_eq!(world.mailbox(key(1), 0, 10), (vec![3, 5, 9], false));
    assert_eq!(world.mailbox(key(1), 0, 2), (vec![3, 5], true));
    assert_eq!(world.mailbox(key(1), 0, 3), (vec![3, 5, 9], false));
    assert_eq!(world.mailbox(key(1), 5, 10), (vec![9], false));
    assert_eq!(world.mailbox(key(4), 0, 10), (vec![], false));
}

#[test]
fn a_mailbox_is_one_range_of_the_index() {
    let world = World::new();
    let plan: String = world
        .disk()
        .query_row(
            "EXPLAIN QUERY PLAN SELECT * FROM message_queue WHERE mesh_id = 'm'
             AND target_spec = 't' AND seq > 1 AND delivered_at IS NULL ORDER BY seq LIMIT 4",
            [],
            |row| row.get("detail"),
        )
        .unwrap();
    assert!(
        plan.contains("message_undelivered (mesh_id=? AND target_spec=? AND rowid>?)"),
        "{plan}"
    );
}

#[test]
fn an_ack_by_the_senders_id_is_a_lookup_not_a_walk() {
    let world = World::new();
    let plan: String = world
        .disk()
        .query_row(
            &format!("EXPLAIN QUERY PLAN {}", apply::ACKED_BY_CLIENT_ID),
            rusqlite::params!["c", "m", "t", 1],
            |row| row.get("detail"),
        )
        .unwrap();
    assert!(
        plan.contains("message_by_name (mesh_id=? AND client_message_id=?)"),
        "{plan}"
    );
}

/// Two messages may have the same sender's id.
#[test]
fn the_senders_id_counts_only_where_the_brokers_finds_nothing() {
    let world = World::new();
    for seq in [1, 2] {
        let mut row = world.message(seq, key(1));
        row.client_message_id = Some("same".to_owned());
        world.persist(sent(row));
    }
    let ack = StoreOp::MessageAcked {
        mesh_id: world.made.mesh.id.clone(),
        seq: Some(Seq(1)),
        client_message_id: Some("same".to_owned()),
        keys: vec![key(1)],
        at: Wall(9),
    };
    world.persist(ack.clone());
    assert_eq!(world.mailbox(key(1), 0, 10).0, [2]);
    world.persist(ack);
    assert_eq!(world.mailbox(key(1), 0, 10).0, Vec::<u64>::new());
}

#[test]
fn an_ack_touches_only_rows_for_its_keys() {
    let world = World::new();
    for (seq, target) in [(1, 1), (2, 1), (3, 2), (4, 1), (5, 3)] {
        world.client.persist(world.insert(seq, key(target)), None);
    }
    let ack = |mesh: &str, seq: Option<u64>, client: Option<&str>| StoreOp::MessageAcked {
        mesh_id: mesh.to_owned(),
        seq: seq.map(Seq),
        client_message_id: client.map(str::to_owned),
        keys: vec![key(1), key(3)],
        at: Wall(9),
    };
    let mesh = world.made.mesh.id.as_str();
    world.client.persist(ack(mesh, Some(1), None), None);
    world
        .client
        .persist(ack(mesh, None, Some("client-2")), None);
    world
        .client
        .persist(ack(mesh, Some(3), Some("client-3")), None);
    world.client.persist(ack("other", Some(4), None), None);
    world
        .client
        .persist(ack(mesh, Some(5), Some("client-5")), None);
    world.client.persist(ack(mesh, None, None), None);
    world.settle();
    assert_eq!(world.mailbox(key(1), 0, 10).0, [4]);
    assert_eq!(world.mailbox(key(2), 0, 10).0, [3]);
    assert_eq!(world.mailbox(key(3), 0, 10).0, Vec::<u64>::new());
    assert_eq!(world.health().undelivered, 2);
    assert_eq!(apply::undelivered(&world.disk()).unwrap(), 2);
}

#[test]
fn a_ban_is_set_and_lifted() {
    let world = World::new();
    let id = world.made.owner.id.clone();
    world.persist(StoreOp::MemberRevoked {
        id: id.clone(),
        at: Some(Wall(3)),
    });
    assert_eq!(world.count("member WHERE revoked_at = 3"), 1);
    world.persist(StoreOp::MemberRevoked { id, at: None });
    assert_eq!(world.count("member WHERE revoked_at IS NULL"), 1);
}

#[test]
fn a_message_extends_the_audit_chain_of_its_mesh() {
    let world = World::new();
    let row = world.message(7, key(5));
    world.persist(sent(row.clone()));
    let payload = canon::canonical_json(&json!({
        "targetSpec": row.target_spec,
        "priority": row.priority,
    }));
    let (event, actor) = ("message_sent", Some(row.sender_member_id.as_str()));
    let (mesh, at) = (&row.mesh_id, row.created_at);
    let hash = canon::audit_hash(canon::GENESIS, mesh, event, actor, &payload, at);
    let columns = "mesh_id, event_type, actor_member_id, actor_display_name, payload, hash";
    let written: [String; 6] = world
        .disk()
        .query_row(&format!("SELECT {columns} FROM audit_log"), [], |row| {
            Ok([
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
            ])
        })
        .unwrap();
    let expected = [
        mesh,
        event,
        &row.sender_member_id,
        &row.sender_name,
        &payload,
        &hash,
    ];
    assert_eq!(written, expected);
}

/// The vectors of protocol.md, section 28, across a restart.
#[test]
fn the_audit_chain_is_the_one_of_the_protocol() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("holdfast.db");
    let append = |event_type, actor: Option<&str>, payload, at| {
        let store = Store::open(&path, Durability::Normal).unwrap();
        let (client, results) = start(&store);
        let row = AuditRow {
            mesh_id: "mesh1".to_owned(),
            event_type,
            actor_member_id: actor.map(str::to_owned),
            actor_display_name: None,
            payload,
            created_at: Wall(at),
        };
        client.persist(StoreOp::Audit(Box::new(row)), Some(Token(1)));
        results.recv_timeout(PATIENCE).unwrap();
        store.close();
    };
    let value = json!({
        "value": {"b": 1.50, "Z": true, "a": [1e21, -0.0, "\u{e9}\u{7}", "\u{1f600}"]},
        "key": "k\u{ff}",
    });
    append("state_set", Some("mem1"), value, 1_700_000_000_000);
    append("peer_left", None, json!({}), 1_700_000_000_123);
    let conn = Connection::open(&path).unwrap();
    let mut statement = conn
        .prepare("SELECT prev_hash, hash, payload FROM audit_log")
        .unwrap();
    let rows: Vec<[String; 3]> = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let first = "614a30b5fbc601eec509aa3e9417e11026b74e66aa9c5c5e8c34a14695e0ad10";
    let second = "5d61097ee1402916bac030b961edee137980db867bfc1330cbffd4fb3960978b";
    let payload = "{\"key\":\"k\u{ff}\",\"value\":{\"Z\":true,\"a\":[1e+21,0,\"\u{e9}\\u0007\",\
                   \"\u{1f600}\"],\"b\":1.5}}";
    assert_eq!(
        rows,
        [[canon::GENESIS, first, payload], [first, second, "{}"]]
    );
}
