//! Retention.

use super::*;
use crate::core::limits::UNDELIVERED_KEPT;
use crate::core::time::Millis;
use crate::store::retention::{DELIVERED_KEPT, Step, Sweep};

const NOW: Wall = Wall(1_700_000_000_000);

fn ago(span: Millis) -> Wall {
    Wall(NOW.0 - i64::try_from(span.0).unwrap())
}

/// Sweeps to the end; how many steps it took and by how much the undelivered rows changed.
fn sweep(world: &World) -> (u32, i64) {
    let outcome = world.store.admin().call(|conn| {
        let mut sweep = Sweep::new(NOW);
        let (mut steps, mut change) = (0, 0);
        loop {
            steps += 1;
            match sweep.step(conn)? {
                Step::More { undelivered } => change += undelivered,
                Step::Done { undelivered } => return Ok((steps, change + undelivered)),
            }
        }
    });
    outcome.unwrap()
}

#[test]
fn only_what_is_old_enough_goes() {
    let world = World::new();
    let old = Millis(UNDELIVERED_KEPT.0 + 1);
    let day = Millis(DELIVERED_KEPT.0 + 1);
    let rows = [
        (1, old, None),
        (2, old, Some(day)),
        (3, old, Some(Millis(1000))),
        (4, day, None),
        (5, day, Some(day)),
        (6, Millis(5), None),
        (7, Millis(5), Some(Millis(1))),
    ];
    for (seq, created, delivered) in rows {
        let mut row = world.message(seq, key(1));
        row.created_at = ago(created);
        row.delivered_at = delivered.map(ago);
        world
            .client
            .persist(StoreOp::MessageInsert(Box::new(row)), None);
    }
    for (id, ended) in [("gone", Some(old)), ("recent", Some(day)), ("here", None)] {
        world
            .client
            .persist(StoreOp::PresencePut(Box::new(world.presence(id))), None);
        if let Some(ended) = ended {
            let end = StoreOp::PresenceEnd {
                id: id.to_owned(),
                at: ago(ended),
            };
            world.client.persist(end, None);
        }
    }
    world.settle();
    assert_eq!(sweep(&world).1, -1);
    let conn = world.disk();
    let mut statement = conn.prepare("SELECT seq FROM message_queue").unwrap();
    let left: Vec<i64> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(left, [3, 4, 6, 7]);
    assert_eq!(world.count("presence WHERE id IN ('recent', 'here')"), 2);
    assert_eq!(world.count("presence"), 2);
}

#[test]
fn a_long_table_is_swept_in_small_steps_and_its_highest_row_stays() {
    let world = World::new();
    for seq in 1..=2600 {
        let mut row = world.message(seq, key(1));
        row.created_at = Wall(1);
        row.delivered_at = Some(Wall(2));
        world
            .client
            .persist(StoreOp::MessageInsert(Box::new(row)), None);
    }
    world.settle();
    let (steps, change) = sweep(&world);
    assert_eq!(
        (steps, change),
        (8, 0),
        "six with rows, one to find the end, one for presences"
    );
    assert_eq!(world.count("message_queue WHERE seq = 2600"), 1);
    assert_eq!(world.count("message_queue"), 1);
}

#[test]
fn the_first_sweep_comes_by_itself() {
    let world = World::new();
    let mut row = world.message(1, key(1));
    row.created_at = Wall(1);
    world.persist(StoreOp::MessageInsert(Box::new(row)));
    world.persist(world.insert(2, key(1)));
    world.store.close();
    let store = Store::open(&world.path, Durability::Full).unwrap();
    assert_eq!(store.health().undelivered, 2);
    store.boot().unwrap();
    assert_eq!(store.health().sweeps, 0, "not before the loops run");
    let (_client, _results) = start(&store);
    wait_for(|| store.health().sweeps == 1);
    assert_eq!(store.health().undelivered, 1);
}
