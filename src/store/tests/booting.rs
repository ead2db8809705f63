//! What the next process finds.

use super::*;
use crate::core::rows::{BootRow, PeerStateRow};
use crate::store::boot::SEQ_STRIDE;

fn kinds(rows: &[BootRow]) -> String {
    rows.iter()
        .map(|row| match row {
            BootRow::Mesh(_) => 'M',
            BootRow::Member(_) => 'm',
            BootRow::PeerState(_) => 's',
            BootRow::Presence(_) => 'p',
            BootRow::Mailbox(_) => 'b',
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
        id: "p1".to_owned(),
        at: Wall(1),
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

    for boot in 1..=3 {
        let store = Store::open(&world.path, Durability::Full).unwrap();
        let image = store.boot().unwrap();
        assert_eq!(kinds(&image.rows), "Mmspbb");
        assert_eq!(epochs(&image.rows), [("p2".to_owned(), boot)]);
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
    assert_eq!(
        epochs(&world.store.boot().unwrap().rows),
        [("p1".to_owned(), 1)]
    );
    assert_eq!(
        epochs(&world.store.boot().unwrap().rows),
        [("p1".to_owned(), 2)]
    );
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    assert_eq!(
        epochs(&world.store.boot().unwrap().rows),
        [("p1".to_owned(), 1)]
    );
}

#[test]
fn sequences_never_come_again() {
    let world = World::new();
    let first = world.store.boot().unwrap().next_seq;
    assert!(first.0 > 0);
    // Nothing was stored, but some may have been pushed.
    let second = world.store.boot().unwrap().next_seq;
    assert!(second.0 >= first.0 + SEQ_STRIDE);
    // A process that used more than its stride.
    let high = second.0 + 5 * SEQ_STRIDE;
    world.persist(world.insert(high, key(1)));
    let third = world.store.boot().unwrap().next_seq;
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
    let image = world.store.boot().unwrap();
    assert_eq!(epochs(&image.rows), [("p2".to_owned(), 1)]);
    assert_eq!(image.skipped, 1);
}

#[test]
fn a_crash_keeps_presences() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    let grace = StoreOp::PresenceGrace {
        id: "p1".to_owned(),
        until: Wall(77),
        last_ping_at: Wall(7),
    };
    world.persist(grace);
    let (_folder, copy) = crash_image(&world.path);
    let image = Store::open(&copy, Durability::Full)
        .unwrap()
        .boot()
        .unwrap();
    let mut untils = image.rows.iter().filter_map(|row| match row {
        BootRow::Presence(row) => Some(row.lease_until),
        BootRow::Mesh(_) | BootRow::Member(_) | BootRow::PeerState(_) | BootRow::Mailbox(_) => None,
    });
    assert_eq!(untils.next(), Some(Some(Wall(77))));
}
