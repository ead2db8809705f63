//! A disk that fails and comes back.

use super::*;
use crate::core::rows::Told;
use crate::store::backlog;
use crate::store::queue::{Item, Lane};

const FULL: HealthState = HealthState::Failing(StoreFailure::Full);

impl World {
    /// No page more than there is.
    fn fill_disk(&self) {
        let pages: i64 = self
            .disk()
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        self.pragma("max_page_count", pages);
    }

    fn empty_disk(&self) {
        self.pragma("max_page_count", 1 << 20);
    }

    fn big_insert(&self, seq: u64) -> StoreOp {
        let mut row = self.message(seq, key(1));
        row.ciphertext = "c".repeat(60_000);
        sent(row)
    }
}

#[test]
fn a_full_disk_refuses_messages_keeps_presence_and_heals() {
    let world = World::new();
    world.persist(world.audit("peer_joined"));
    world.fill_disk();
    let release = world.hold_writer();
    world
        .client
        .persist(StoreOp::PresencePut(Box::new(world.presence("p1"))), None);
    world.client.persist(world.audit("peer_joined"), None);
    world.client.persist(world.big_insert(1), Some(Token(1)));
    world.client.persist(
        StoreOp::PresencePut(Box::new(world.presence("p2"))),
        Some(Token(2)),
    );
    let ban = StoreOp::MemberRevoked {
        id: world.made.owner.id.clone(),
        at: Some(Wall(1)),
    };
    world.client.persist(ban, Some(Token(3)));
    release.wait();
    let full = Err(StoreFailure::Full);
    assert_eq!(
        [world.stored(), world.stored(), world.stored()],
        [(1, full), (2, full), (3, full)]
    );
    assert_eq!(world.health().state, FULL);

    // While it lasts: refused at once; presence is taken. Mail is not read, since confirmations
    // may wait among the presences.
    world.client.persist(world.big_insert(2), Some(Token(4)));
    assert_eq!(world.stored(), (4, full));
    world
        .client
        .query(world.mailbox_query(key(1), 0, 10), Token(5));
    assert_eq!(world.answer().unwrap_err(), StoreFailure::Full);
    let end = StoreOp::PresenceEnd {
        began: began("p1"),
        id: "p1".to_owned(),
        at: Wall(7),
        ended: Position(7),
    };
    world.client.persist(end, None);
    world.client.persist(world.audit("peer_left"), None);

    world.empty_disk();
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(
        world.count("presence WHERE id = 'p1' AND disconnected_at = 7"),
        1
    );
    assert_eq!(
        world.count("presence WHERE id = 'p2' AND disconnected_at IS NULL"),
        1
    );
    assert_eq!(world.count("message_queue"), 0);
    assert_eq!(
        world.count("member WHERE revoked_at IS NOT NULL"),
        1,
        "the ban is in effect"
    );
    assert_eq!(world.count("audit_log"), 3);
    assert_eq!(
        chain_breaks(&world),
        0,
        "hashes of the failed transaction are forgotten"
    );
    world.persist(world.big_insert(3));
    assert_eq!((world.health().queued, world.health().dropped), (0, 0));
}

/// Entries whose predecessor is not the row before.
fn chain_breaks(world: &World) -> i64 {
    world.count(
        "audit_log AS a WHERE prev_hash <> coalesce((SELECT hash FROM audit_log AS b
         WHERE b.id < a.id ORDER BY id DESC LIMIT 1), 'genesis')",
    )
}

#[test]
fn a_refused_message_leaves_no_audit_entry() {
    let world = World::new();
    world.fill_disk();
    world.client.persist(world.big_insert(1), Some(Token(1)));
    assert_eq!(world.stored(), (1, Err(StoreFailure::Full)));
    world.empty_disk();
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.count("audit_log"), 0);
    world.persist(world.big_insert(2));
    assert_eq!(world.count("audit_log"), 1);
}

/// What was confirmed while the disk failed is not sent again.
#[test]
fn mail_is_not_read_while_confirmations_wait() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    world.fill_disk();
    world.client.persist(world.big_insert(2), Some(Token(2)));
    assert_eq!(world.stored(), (2, Err(StoreFailure::Full)));
    let confirmed = StoreOp::MessageDelivered {
        seq: Seq(1),
        at: Wall(1),
    };
    world.client.persist(confirmed, None);
    world
        .client
        .query(world.mailbox_query(key(1), 0, 10), Token(3));
    assert_eq!(world.answer().unwrap_err(), StoreFailure::Full);
    world.empty_disk();
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.mailbox(key(1), 0, 10), (vec![], false));
}

#[test]
fn a_disk_that_comes_back_is_noticed_without_a_backlog() {
    let world = World::new();
    world.fill_disk();
    world.client.persist(world.big_insert(1), Some(Token(1)));
    assert_eq!(world.stored(), (1, Err(StoreFailure::Full)));
    assert_eq!(world.health().state, FULL);
    world.empty_disk();
    world.wait_until(HealthState::Up);
    world.persist(world.big_insert(2));
}

#[test]
fn a_read_only_disk_is_named_and_heals() {
    let world = World::new();
    world.pragma("query_only", 1);
    world
        .client
        .persist(StoreOp::PresencePut(Box::new(world.presence("p1"))), None);
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    assert_eq!(world.stored(), (1, Err(StoreFailure::ReadOnly)));
    assert_eq!(
        world.health().state,
        HealthState::Failing(StoreFailure::ReadOnly)
    );
    world.pragma("query_only", 0);
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.count("presence"), 1);
}

#[test]
fn somebody_elses_lock_only_delays() {
    let world = World::new();
    let tool = world.disk();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    std::thread::sleep(Duration::from_millis(100));
    tool.execute_batch("ROLLBACK").unwrap();
    assert_eq!(world.stored(), (1, Ok(())));
}

#[test]
fn closing_while_the_disk_is_full_ends_and_counts() {
    let world = World::new();
    world.fill_disk();
    world.client.persist(world.big_insert(1), Some(Token(1)));
    assert_eq!(world.stored().1, Err(StoreFailure::Full));
    for n in 0..200 {
        let row = world.presence(&format!("p{n}"));
        world
            .client
            .persist(StoreOp::PresencePut(Box::new(row)), None);
    }
    world.store.close();
    Store::open(&world.path, Durability::Full).unwrap();
}

fn told(id: &str, told: Told) -> Item {
    let id = id.to_owned();
    let op = StoreOp::PresenceTold {
        began: began(&id),
        id,
        told,
    };
    Item::Op { op, token: None }
}

fn grace(id: &str) -> Item {
    let op = StoreOp::PresenceGrace {
        began: began(id),
        id: id.to_owned(),
        until: Wall(1),
        last_ping_at: Wall(1),
        cursor: Position(1),
        heard: Position(1),
        known: Position(1),
    };
    Item::Op { op, token: None }
}

#[test]
fn a_long_failure_keeps_what_counts() {
    let made = World::new().made;
    let put = |id: &str| Item::Op {
        op: StoreOp::PresencePut(Box::new(presence(&made, id))),
        token: None,
    };
    let end = |id: &str| Item::Op {
        op: StoreOp::PresenceEnd {
            began: began(id),
            id: id.to_owned(),
            at: Wall(1),
            ended: Position(1),
        },
        token: None,
    };
    let mut lane: Lane = [
        told("b", Told::Join(Position(1))),
        told("b", Told::Leave(Position(2))),
        put("a"),
        grace("a"),
        put("a"),
        grace("a"),
        grace("a"),
        end("a"),
        end("b"),
        put("b"),
        grace("b"),
    ]
    .into();
    let mut released = 0;
    backlog::compact(&mut lane, |_| released += 1);
    let kept: Vec<&'static str> = lane
        .iter()
        .map(|item| match item {
            Item::Op {
                op: StoreOp::PresencePut(_),
                ..
            } => "put",
            Item::Op {
                op: StoreOp::PresenceGrace { .. },
                ..
            } => "grace",
            Item::Op {
                op: StoreOp::PresenceTold { .. },
                ..
            } => "told",
            Item::Op { .. } | Item::Query { .. } => "end",
        })
        .collect();
    assert_eq!(kept, ["put", "end", "put", "grace"]);
    assert_eq!(released, 7);
}

#[test]
fn a_long_failure_keeps_the_last_word_of_each_kind() {
    let mut lane: Lane = [
        told("c", Told::Join(Position(1))),
        told("c", Told::Leave(Position(2))),
    ]
    .into();
    backlog::compact(&mut lane, |_| ());
    assert_eq!(lane.len(), 2, "where it joined is not where it left");

    let cursor = |at| Item::Op {
        op: StoreOp::PresenceCursor {
            began: began("a"),
            id: "a".to_owned(),
            cursor: Position(at),
        },
        token: None,
    };
    let mut lane: Lane = [cursor(1), grace("a"), cursor(2), cursor(3)].into();
    backlog::compact(&mut lane, |_| ());
    assert_eq!(lane.len(), 2, "a later one says it all");
}
