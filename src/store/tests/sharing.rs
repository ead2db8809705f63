//! Shared state, streams and subscriptions, on disk and read back.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each test looks at one kind of row"
)]

use super::*;
use crate::core::rows::{StateRow, StreamRow};

fn state(world: &World, key: &str, value: &str, position: u64) -> StateRow {
    StateRow {
        mesh_id: world.made.mesh.id.clone(),
        key: key.to_owned(),
        value: value.to_owned(),
        updated_by: "alice".to_owned(),
        updated_at: Wall(5),
        setter: Position(3),
        position: Position(position),
    }
}

fn set(world: &World, row: StateRow) -> StoreOp {
    let audit = AuditRow {
        mesh_id: world.made.mesh.id.clone(),
        event_type: "state_set",
        actor_member_id: None,
        actor_display_name: None,
        payload: json!({"key": row.key}),
        created_at: Wall(5),
    };
    StoreOp::StateSet {
        row: Box::new(row),
        audit: Box::new(audit),
    }
}

fn stream(world: &World, name: &str, id: &str, at: i64) -> StreamRow {
    StreamRow {
        id: id.to_owned(),
        mesh_id: world.made.mesh.id.clone(),
        name: name.to_owned(),
        created_by: "alice".to_owned(),
        created_at: Wall(at),
    }
}

fn subscribed(row: &PresenceRow, stream: &str, subscribed: bool) -> StoreOp {
    StoreOp::Subscribed {
        began: row.began,
        id: row.id.clone(),
        stream: stream.to_owned(),
        subscribed,
    }
}

fn again(world: World) -> Vec<BootRow> {
    world.store.close();
    let store = Store::open(&world.path, Durability::Full).unwrap();
    let image = boot(&store);
    store.close();
    assert_eq!(image.skipped, 0);
    image.rows
}

#[test]
fn the_last_value_of_each_key_is_read_back() {
    let world = World::new();
    for row in [
        state(&world, "b", "1", 7),
        state(&world, "a", "{\"x\":[1]}", 8),
        state(&world, "b", "\"two\"", 9),
    ] {
        world.persist(set(&world, row));
    }
    assert_eq!(world.count("audit_log WHERE event_type = 'state_set'"), 3);
    let expected = [
        state(&world, "a", "{\"x\":[1]}", 8),
        state(&world, "b", "\"two\"", 9),
    ];
    let rows = again(world);
    let mut found: Vec<StateRow> = rows
        .iter()
        .filter_map(|row| match row {
            BootRow::State(row) => Some((**row).clone()),
            _ => None,
        })
        .collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, expected);
}

#[test]
fn streams_are_created_once_and_read_back_oldest_first() {
    let world = World::new();
    for (name, id, at) in [("z", "1", 1), ("a", "2", 2), ("z", "3", 3)] {
        let row = stream(&world, name, id, at);
        world.persist(StoreOp::StreamCreate(Box::new(row)));
    }
    let expected = [stream(&world, "z", "1", 1), stream(&world, "a", "2", 2)];
    let rows = again(world);
    let found: Vec<StreamRow> = rows
        .iter()
        .filter_map(|row| match row {
            BootRow::Stream(row) => Some((**row).clone()),
            _ => None,
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn subscriptions_follow_their_presence_and_end_with_it() {
    let world = World::new();
    let rows = ["p1", "p2"].map(|id| world.presence(id));
    for row in &rows {
        world.persist(StoreOp::PresencePut(Box::new(row.clone())));
        for name in ["b", "a", "gone", "a"] {
            world.persist(subscribed(row, name, true));
        }
    }
    world.persist(subscribed(&rows[0], "gone", false));
    world.persist(StoreOp::PresenceEnd {
        began: rows[1].began,
        id: rows[1].id.clone(),
        at: Wall(9),
        ended: Position(9),
    });
    assert_eq!(world.count("subscription"), 2);
    let rows = again(world);
    let found: Vec<String> = rows
        .iter()
        .filter_map(|row| match row {
            BootRow::Presence(row) => Some(row.id.clone()),
            BootRow::Subscription(row) => Some(format!("+{}", row.stream)),
            _ => None,
        })
        .collect();
    assert_eq!(found, ["p1", "+a", "+b"]);
}
