//! URL watches on disk: they go with the lease they belong to.

use super::*;
use crate::core::ids::WatchId;
use crate::core::rows::{NotifyOn, WatchMode, WatchRow};
use crate::store::backlog;
use crate::store::queue::{Item, Lane};

fn watch(world: &World, owner: &str, id: u32) -> WatchRow {
    WatchRow {
        began: began(owner),
        id: WatchId(id),
        mesh_id: world.made.mesh.id.clone(),
        url: "https://example.com/".to_owned(),
        mode: WatchMode::Json,
        extract: Some("a.b".to_owned()),
        interval: Millis(7000),
        notify_on: NotifyOn::NotMatch("up".into()),
        headers: vec![("Accept".to_owned(), "a \"b\"".to_owned())],
        label: None,
        value: String::new(),
        created_at: Wall(3),
    }
}

fn put(row: &WatchRow) -> StoreOp {
    StoreOp::WatchPut(Box::new(row.clone()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "looks at one kind of row")]
fn found(world: &World) -> Vec<WatchRow> {
    let rows = boot(&world.store).rows.into_iter();
    rows.filter_map(|row| match row {
        BootRow::Watch(row) => Some(*row),
        _ => None,
    })
    .collect()
}

#[test]
fn a_watch_comes_back_with_what_its_owner_knows() {
    let world = World::new();
    world.persist(StoreOp::PresencePut(Box::new(world.presence("p1"))));
    let mut row = watch(&world, "p1", 0xabc);
    world.persist(put(&row));
    assert_eq!(found(&world), [row.clone()]);
    row.value = "up".to_owned();
    world.persist(put(&row));
    assert_eq!(found(&world), [row.clone()]);
    let other = watch(&world, "p1", 1);
    world.persist(put(&other));
    world.persist(StoreOp::WatchRemoved {
        began: row.began,
        id: row.id,
    });
    assert_eq!(found(&world), [other]);
}

#[test]
fn watches_end_with_their_lease() {
    let world = World::new();
    for id in ["p1", "p2"] {
        world.persist(StoreOp::PresencePut(Box::new(world.presence(id))));
        world.persist(put(&watch(&world, id, 1)));
        world.persist(put(&watch(&world, id, 2)));
    }
    world.persist(StoreOp::PresenceEnd {
        began: began("p1"),
        id: "p1".to_owned(),
        at: Wall(1),
        ended: Position(1),
    });
    assert_eq!(world.count("watch"), 2);
    let owners: Vec<Position> = found(&world).iter().map(|row| row.began).collect();
    assert_eq!(owners, [began("p2"), began("p2")]);
}

#[test]
fn a_long_failure_keeps_the_last_word_on_each_watch() {
    let world = World::new();
    let op = |op| Item::Op { op, token: None };
    let put_of = |owner: &str, id| op(put(&watch(&world, owner, id)));
    let removed = |owner: &str, id| {
        op(StoreOp::WatchRemoved {
            began: began(owner),
            id: WatchId(id),
        })
    };
    let end = op(StoreOp::PresenceEnd {
        began: began("b"),
        id: "b".to_owned(),
        at: Wall(1),
        ended: Position(1),
    });
    let mut lane: Lane = [
        put_of("a", 1),
        put_of("a", 2),
        put_of("a", 1),
        removed("a", 2),
        put_of("b", 1),
        end,
        put_of("c", 1),
    ]
    .into();
    backlog::compact(&mut lane, |_| ());
    let kept: Vec<&str> = lane
        .iter()
        .map(|item| match item {
            Item::Op {
                op: StoreOp::WatchPut(_),
                ..
            } => "put",
            Item::Op {
                op: StoreOp::WatchRemoved { .. },
                ..
            } => "removed",
            Item::Op { .. } | Item::Query { .. } => "end",
        })
        .collect();
    assert_eq!(kept, ["put", "removed", "end", "put"]);
}
