//! Retention.

use super::*;
use crate::core::limits::UNDELIVERED_KEPT;
use crate::core::time::{Millis, Mono};
use crate::store::retention::{DELIVERED_KEPT, Order, Step, Sweep};
use crate::store::trust::Trust;

const NOW: Wall = Wall(1_700_000_000_000);

fn ago(span: Millis) -> Wall {
    Wall(NOW.0 - i64::try_from(span.0).unwrap())
}

/// Sweeps to the end; how many steps it took and by how much the undelivered rows changed.
fn sweep(world: &World) -> (u32, i64) {
    carry_out(
        world,
        Order {
            now: NOW,
            expire: true,
        },
    )
}

fn carry_out(world: &World, order: Order) -> (u32, i64) {
    let outcome = world.store.admin().call(move |conn| {
        let mut sweep = Sweep::new(order);
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
        world.client.persist(sent(row), None);
    }
    for (id, ended) in [("gone", Some(old)), ("recent", Some(day)), ("here", None)] {
        world
            .client
            .persist(StoreOp::PresencePut(Box::new(world.presence(id))), None);
        if let Some(ended) = ended {
            let end = StoreOp::PresenceEnd {
                began: began(id),
                id: id.to_owned(),
                at: ago(ended),
                ended: Position(1),
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
        world.client.persist(sent(row), None);
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
    world.persist(sent(row));
    world.persist(world.insert(2, key(1)));
    world.store.close();
    let store = Store::open(&world.path, Durability::Full).unwrap();
    assert_eq!(store.health().undelivered, 2);
    boot(&store);
    assert_eq!(store.health().sweeps, 0, "not before the loops run");
    let (_client, _results) = start(&store);
    wait_for(|| store.health().sweeps == 1);
    assert_eq!(store.health().undelivered, 1);
}

#[test]
fn a_clock_in_doubt_deletes_no_undelivered_message() {
    let world = World::new();
    for (seq, delivered) in [(1, None), (2, Some(Wall(1))), (3, None)] {
        let mut row = world.message(seq, key(1));
        row.created_at = Wall(1);
        row.delivered_at = delivered;
        world.persist(sent(row));
    }
    let order = Order {
        now: NOW,
        expire: false,
    };
    assert_eq!(carry_out(&world, order).1, 0);
    assert_eq!(world.count("message_queue WHERE seq IN (1, 3)"), 2);
    assert_eq!(world.count("message_queue"), 2);
}

/// Written while the clock was ahead.
#[test]
fn rows_of_the_future_hide_no_old_ones_behind_them() {
    let world = World::new();
    for seq in 1..=600 {
        let mut row = world.message(seq, key(1));
        row.created_at = if seq <= 500 {
            Wall(NOW.0 + 1_000_000)
        } else {
            Wall(1)
        };
        world.client.persist(sent(row), None);
    }
    world.settle();
    assert_eq!(sweep(&world).1, -99, "all but the highest");
    assert_eq!(world.count("message_queue"), 501);
}

#[test]
fn the_wall_clock_is_believed_while_it_runs_with_the_other() {
    let at = |hours: u64| Mono(hours * 3_600_000);
    let wall = |hours: u64| Wall(NOW.0 + i64::try_from(at(hours).0).unwrap());
    let mut trust = Trust::new(wall(0), at(0));
    assert!(trust.look(wall(5), at(5)));
    // Adjusted, by less than counts.
    assert!(trust.look(Wall(wall(6).0 - 590_000), at(6)));
    assert!(!trust.look(wall(8 * 24), at(7)), "eight days ahead");
    assert!(!trust.look(wall(8 * 24 + 22), at(29)));
    assert!(
        trust.look(wall(8 * 24 + 25), at(32)),
        "after a day it is the clock there is"
    );
    assert!(!trust.look(wall(33), at(33)), "set right again");
    assert!(!trust.look(wall(56), at(56)));
    assert!(trust.look(wall(58), at(58)));
}

/// A clock that is set ahead a little every time it is looked at has jumped all the same.
#[test]
fn small_jumps_add_up() {
    let mut trust = Trust::new(NOW, Mono(0));
    assert!(trust.look(Wall(NOW.0 + 400_000), Mono(0)));
    assert!(!trust.look(Wall(NOW.0 + 800_000), Mono(0)));
}
