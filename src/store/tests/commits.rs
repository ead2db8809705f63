//! Order, groups, isolation and bounds.

use super::*;
use crate::core::rows::Told;
use crate::store::gauges::{CHORES_MAX, LESSER_CHORES_MAX, WAITING_MAX};

#[test]
fn what_queues_up_becomes_one_transaction() {
    let world = World::new();
    let release = world.hold_writer();
    for seq in 1..=500 {
        world
            .client
            .persist(world.insert(seq, key(1)), Some(Token(seq)));
    }
    assert_eq!(world.health().queued, 500);
    let before = world.health().commits;
    release.wait();
    let tokens: Vec<u64> = (0..500).map(|_| world.stored().0).collect();
    assert!(tokens.is_sorted());
    assert_eq!(world.health().commits - before, 1);
    assert_eq!(world.count("message_queue"), 500);
    assert_eq!(world.health().queued, 0);
}

#[test]
fn a_reply_means_that_a_crash_loses_nothing() {
    let world = World::new();
    for seq in 1..=50 {
        world
            .client
            .persist(world.insert(seq, key(1)), Some(Token(seq)));
    }
    for _ in 0..50 {
        assert_eq!(world.stored().1, Ok(()));
    }
    let (_folder, copy) = crash_image(&world.path);
    let reopened = Store::open(&copy, Durability::Full).unwrap();
    assert_eq!(reopened.health().undelivered, 50);
}

#[test]
fn operations_of_one_client_take_effect_in_order() {
    let world = World::new();
    let release = world.hold_writer();
    for round in 0..100 {
        let mut row = world.presence("p1");
        row.generation = round;
        world
            .client
            .persist(StoreOp::PresencePut(Box::new(row)), None);
        let end = StoreOp::PresenceEnd {
            began: began("p1"),
            id: "p1".to_owned(),
            at: Wall(round.into()),
            ended: Position(round.into()),
        };
        world
            .client
            .persist(end, (round % 7 == 0).then_some(Token(round.into())));
    }
    release.wait();
    world.settle();
    assert_eq!(
        world.count("presence WHERE generation = 99 AND disconnected_at = 99"),
        1
    );
}

#[test]
fn a_question_sees_what_came_before_it_and_nothing_else() {
    let world = World::new();
    let release = world.hold_writer();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    world
        .client
        .query(world.mailbox_query(key(1), 0, 10), Token(2));
    world
        .client
        .persist(world.insert(2, key(1)), Some(Token(3)));
    release.wait();
    assert_eq!(world.stored(), (1, Ok(())));
    match world.answer() {
        Ok(StoreAnswer::Mailbox { rows, more: false }) => {
            assert_eq!(rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [1]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.stored(), (3, Ok(())));
}

#[test]
fn each_shard_gets_its_own_results() {
    let world = World::new();
    let other = world.store.client(3);
    other.persist(world.insert(1, key(1)), Some(Token(1)));
    assert_eq!(world.results.recv_timeout(PATIENCE).unwrap().0, 3);
}

#[test]
fn one_refused_operation_does_not_harm_the_others() {
    let world = World::new();
    let release = world.hold_writer();
    let mut stranger = world.presence("p1");
    stranger.member_id = "nobody".to_owned();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(2)));
    world
        .client
        .persist(StoreOp::PresencePut(Box::new(stranger)), None);
    world
        .client
        .persist(world.insert(u64::MAX, key(1)), Some(Token(3)));
    world.client.persist(world.audit("peer_left"), None);
    world
        .client
        .persist(world.insert(2, key(1)), Some(Token(4)));
    let before = world.health().commits;
    release.wait();
    let results: Vec<_> = (0..4).map(|_| world.stored()).collect();
    let io = Err(StoreFailure::Io);
    assert_eq!(results, [(1, Ok(())), (2, io), (3, io), (4, Ok(()))]);
    assert_eq!(world.health().commits - before, 1);
    assert_eq!(world.health().dropped, 1);
    assert_eq!(world.health().state, HealthState::Up);
    assert_eq!(world.count("message_queue"), 2);
    assert_eq!(world.count("audit_log WHERE event_type = 'peer_left'"), 1);
    assert_eq!(
        world.count("audit_log"),
        3,
        "what was refused is not audited"
    );
}

#[test]
fn a_panic_costs_one_operation() {
    let world = World::new();
    let release = world.hold_writer();
    let mut poison = world.message(2, key(1));
    poison.nonce = PANIC.to_owned();
    world.client.persist(world.audit("peer_joined"), None);
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    world.client.persist(sent(poison), Some(Token(2)));
    world.client.persist(world.audit("peer_left"), None);
    world
        .client
        .persist(world.insert(3, key(1)), Some(Token(3)));
    release.wait();
    let results: Vec<_> = (0..3).map(|_| world.stored()).collect();
    assert_eq!(
        results,
        [(1, Ok(())), (2, Err(StoreFailure::Io)), (3, Ok(()))]
    );
    assert_eq!(world.count("audit_log"), 4);
    assert_eq!(world.health().panics, 2, "in the batch, then alone");
    assert_eq!(world.health().queued, 0);

    let admin = world.store.admin();
    admin.call::<()>(|_| panic!("told to panic")).unwrap_err();
    admin.mesh_list().unwrap();
}

#[test]
fn messages_beyond_the_bound_are_refused_at_once() {
    let world = World::new();
    let release = world.hold_writer();
    let mut row = world.message(0, key(1));
    row.ciphertext.clear();
    for seq in 0..u64::try_from(WAITING_MAX).unwrap() + 3 {
        row.seq = Seq(seq);
        world.client.persist(sent(row.clone()), Some(Token(seq)));
    }
    // While the writer is held.
    for _ in 0..3 {
        assert_eq!(world.stored().1, Err(StoreFailure::Overloaded));
    }
    // Others are not affected.
    world
        .client
        .persist(world.audit("peer_left"), Some(Token(0)));
    drop(world.results);
    release.wait();
    world.store.close();
    let conn = Connection::open(&world.path).unwrap();
    assert_eq!(
        count(&conn, "message_queue"),
        i64::try_from(WAITING_MAX).unwrap()
    );
}

#[test]
fn chores_beyond_the_bound_are_dropped_and_presence_is_the_last_to_be() {
    let world = World::new();
    let release = world.hold_writer();
    for seq in 0..u64::try_from(LESSER_CHORES_MAX).unwrap() + 3 {
        world.client.persist(
            StoreOp::MessageDelivered {
                seq: Seq(seq),
                at: Wall(0),
            },
            None,
        );
    }
    assert_eq!(CHORES_MAX / LESSER_CHORES_MAX, 2);
    assert_eq!(world.health().dropped, 3);
    assert_eq!(
        world.health().state,
        HealthState::Failing(StoreFailure::Overloaded)
    );
    world.client.persist(world.audit("peer_left"), None);
    assert_eq!(world.health().dropped, 4);
    let told = |token| {
        let id = String::new();
        let told = Told::Join(Position(1));
        world.client.persist(
            StoreOp::PresenceTold {
                began: began(&id),
                id,
                told,
            },
            token,
        );
    };
    for _ in LESSER_CHORES_MAX..CHORES_MAX {
        told(None);
    }
    assert_eq!(world.health().dropped, 4, "there was room for presence");
    told(Some(Token(7)));
    assert_eq!(world.stored(), (7, Err(StoreFailure::Overloaded)));
    assert_eq!(world.health().dropped, 5, "answered, and lost all the same");
    release.wait();
    world.wait_until(HealthState::Up);
}

#[test]
fn a_question_that_ends_the_transaction_fails_all_of_it() {
    let world = World::new();
    let release = world.hold_writer();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    world
        .client
        .query(world.mailbox_query(unreadable(), 0, 1), Token(2));
    world
        .client
        .persist(world.insert(2, key(1)), Some(Token(3)));
    world
        .client
        .persist(StoreOp::PresencePut(Box::new(world.presence("p1"))), None);
    release.wait();
    let io = Err(StoreFailure::Io);
    assert_eq!(world.stored(), (1, io));
    assert_eq!(world.answer().unwrap_err(), StoreFailure::Io);
    assert_eq!(world.stored(), (3, io));
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.count("message_queue"), 0, "refused, so not there");
    assert_eq!(world.count("presence"), 1, "kept");
}

#[test]
fn closing_writes_what_is_queued() {
    let world = World::new();
    for seq in 1..=100 {
        world.client.persist(world.insert(seq, key(1)), None);
    }
    world.store.close();
    let conn = Connection::open(&world.path).unwrap();
    assert_eq!(count(&conn, "message_queue"), 100);
    // Afterwards everything is refused, and nobody is left waiting.
    let late = StoreOp::MessageDelivered {
        seq: Seq(1),
        at: Wall(1),
    };
    world.client.persist(late, Some(Token(1)));
    world
        .client
        .query(StoreQuery::Message { seq: Seq(1) }, Token(2));
    for _ in 0..2 {
        let failed = match world.results.recv_timeout(PATIENCE).unwrap().1 {
            Completion::Stored { result, .. } => result.unwrap_err(),
            Completion::Answered { result, .. } => result.unwrap_err(),
        };
        assert_eq!(failed, StoreFailure::Io);
    }
}

#[test]
fn what_comes_before_the_start_is_done_at_the_start() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("x.db"), Durability::Full).unwrap();
    let made = store.admin().mesh_create("alpha", None).unwrap();
    let row = message(&made, 1, &key(1).to_string());
    store.client(0).persist(sent(row), Some(Token(1)));
    assert_eq!(store.admin().mesh_list().unwrap().len(), 1);
    assert_eq!(store.health().undelivered, 0);
    let (_client, results) = start(&store);
    results.recv_timeout(PATIENCE).unwrap();
    assert_eq!(store.health().undelivered, 1);
}
