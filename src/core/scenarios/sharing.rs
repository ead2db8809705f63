//! Shared state; and what scenarios of all that a mesh shares have in common.

use super::missed::three;
use super::*;
use crate::limits::{STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX};

/// The last frame to a socket.
pub(super) fn last(world: &World, conn: ConnId) -> Value {
    world.frames(conn).pop().unwrap_or_default()
}

/// Frames of that type to a socket.
pub(super) fn of_type(world: &World, conn: ConnId, kind: &str) -> Vec<Value> {
    let frames = world.frames(conn).into_iter();
    frames.filter(|frame| frame["type"] == kind).collect()
}

fn set(key: &str, value: &Value) -> Value {
    json!({"type": "set_state", "key": key, "value": value})
}

/// Values a socket was told of.
fn values(world: &World, conn: ConnId) -> Vec<(String, Value)> {
    let changes = of_type(world, conn, "state_change").into_iter();
    changes
        .map(|frame| {
            (
                frame["key"].as_str().unwrap().to_owned(),
                frame["value"].clone(),
            )
        })
        .collect()
}

/// A request is refused: with that code, a message that says so, and its `_reqId`.
pub(super) fn refused(world: &mut World, conn: ConnId, request: Value, code: &str, says: &str) {
    let mut request = request;
    request["_reqId"] = json!("r");
    world.write(conn, &request);
    let frame = last(world, conn);
    let message = frame["message"].as_str().unwrap_or_default();
    assert_eq!(
        (&frame["type"], &frame["code"]),
        (&json!("error"), &json!(code)),
        "{request}"
    );
    assert!(message.contains(says), "{message}");
    assert_eq!(frame["_reqId"], "r");
}

/// A broker that finds what this one has made durable, killed now.
pub(super) fn killed(world: &World, sessions: &[&str]) -> World {
    let mut next = World::started(world.now, Seq(1 << 28));
    let mut states = std::collections::BTreeMap::new();
    let mut streams = Vec::new();
    let mut subscriptions: Vec<(Position, String)> = Vec::new();
    for (op, _) in world.persisted() {
        match op {
            StoreOp::StateSet { row, .. } => drop(states.insert(row.key.clone(), row.clone())),
            StoreOp::StreamCreate(row) => streams.push(row.clone()),
            StoreOp::Subscribed {
                began,
                stream,
                subscribed,
                ..
            } => {
                subscriptions.retain(|known| *known != (*began, stream.clone()));
                if *subscribed {
                    subscriptions.push((*began, stream.clone()));
                }
            }
            StoreOp::PresenceEnd { began, .. } => subscriptions.retain(|(of, _)| of != began),
            _ => {}
        }
    }
    for row in states.into_values() {
        next.input(Input::Boot(BootRow::State(row)));
    }
    for row in streams {
        next.input(Input::Boot(BootRow::Stream(row)));
    }
    for session_id in sessions {
        let mut rows = world.rows().into_iter();
        let row = rows.rfind(|row| row.session_id == *session_id).unwrap();
        let began = row.began;
        next.input(Input::Boot(BootRow::Presence(Box::new(row))));
        for (_, stream) in subscriptions.iter().filter(|(of, _)| *of == began) {
            next.input(Input::Boot(BootRow::Subscription(SubscriptionRow {
                mesh_id: MESH.into(),
                began,
                stream: stream.clone(),
            })));
        }
    }
    next.input(Input::Boot(BootRow::Log(LogRow {
        mesh_id: MESH.into(),
        since: Position(0),
    })));
    next
}

#[test]
fn state_is_set_without_an_answer_and_told_to_others() {
    let (mut world, alice, bob, carol) = three();
    let before = world.frames(alice).len();
    let value = json!({"x": 1});
    world.write(
        alice,
        &json!({"type": "set_state", "key": "k", "value": value, "_reqId": "s"}),
    );
    assert_eq!(
        world.frames(alice).len(),
        before,
        "no answer, and not its own news"
    );
    let change = json!({"type": "state_change", "key": "k", "value": value, "updatedBy": "alice"});
    assert_eq!(
        (last(&world, bob), last(&world, carol)),
        (change.clone(), change)
    );
    let ops: Vec<_> = world
        .persisted()
        .filter(|(op, _)| matches!(op, StoreOp::StateSet { .. }))
        .collect();
    let (StoreOp::StateSet { row, audit }, None) = ops[0] else {
        panic!("{ops:?}")
    };
    assert_eq!((&*row.value, audit.event_type), (r#"{"x":1}"#, "state_set"));
    assert_eq!(audit.payload, json!({"key": "k", "value": value}));
}

#[test]
fn state_is_read_from_memory() {
    let (mut world, alice, bob, carol) = three();
    let value = json!([1.5, null]);
    world.write(alice, &set("k", &value));
    world.write(
        bob,
        &json!({"type": "get_state", "key": "k", "_reqId": "g"}),
    );
    let at = world.now.wall.to_string();
    let answers = world.frames(bob).split_off(world.frames(bob).len() - 2);
    assert_eq!(
        answers[0],
        json!({"type": "state_result", "key": "k", "value": value,
        "updatedBy": "alice", "updatedAt": at, "_reqId": "g"})
    );
    assert_eq!(
        answers[1],
        json!({"type": "state_value", "_reqId": "g",
        "state": {"key": "k", "value": value, "updatedBy": "alice", "updatedAt": at}})
    );
    world.write(
        bob,
        &json!({"type": "get_state", "key": "none", "_reqId": "n"}),
    );
    let answers = world.frames(bob).split_off(world.frames(bob).len() - 2);
    assert_eq!(
        answers[0],
        json!({"type": "state_result", "key": "none", "value": null,
        "updatedBy": "", "updatedAt": "", "_reqId": "n"})
    );
    assert_eq!(
        answers[1],
        json!({"type": "state_value", "_reqId": "n", "state": null})
    );

    world.write(carol, &set("a", &json!("two")));
    world.write(bob, &json!({"type": "list_state", "_reqId": "l"}));
    let list = last(&world, bob);
    let keys: Vec<_> = list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["key"].clone())
        .collect();
    assert_eq!(
        (&list["type"], &list["_reqId"], keys),
        (
            &json!("state_list"),
            &json!("l"),
            vec![json!("a"), json!("k")]
        )
    );
}

#[test]
fn who_was_away_is_told_the_last_value_of_each_key_that_others_set() {
    let (mut world, alice, bob, carol) = three();
    world.write(bob, &set("own", &json!(0)));
    world.write(alice, &set("k", &json!(1)));
    world.confirm_all(bob);
    world.close(bob, Closing::Abrupt);
    for n in 2..5 {
        world.write(alice, &set("k", &json!(n)));
        world.write(carol, &set("other", &json!(n)));
    }
    let back = world.join(launched(2, 21, "b"));
    let expected = [("k".to_owned(), json!(4)), ("other".to_owned(), json!(4))];
    assert_eq!(values(&world, back), expected);
    assert!(world.ack(back).get("missed").is_none());
    world.confirm_all(back);
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert!(values(&world, back).is_empty(), "once");
}

#[test]
fn state_that_is_missing_mistyped_or_too_much_is_refused() {
    let (mut world, alice, bob, _) = three();
    let invalid = "invalid_argument";
    refused(
        &mut world,
        alice,
        json!({"type": "set_state", "value": 1}),
        invalid,
        "key",
    );
    refused(
        &mut world,
        alice,
        json!({"type": "set_state", "key": 7, "value": 1}),
        invalid,
        "key",
    );
    refused(
        &mut world,
        alice,
        json!({"type": "set_state", "key": "k"}),
        invalid,
        "value",
    );
    refused(&mut world, alice, set("k", &Value::Null), invalid, "value");
    refused(
        &mut world,
        alice,
        json!({"type": "get_state"}),
        invalid,
        "key",
    );
    let deep = format!(
        r#"{{"type":"set_state","key":"k","value":{}{}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    for broken in [
        deep.as_str(),
        r#"{"type":"set_state","key":"k","value":"\ud800"}"#,
    ] {
        world.input(Input::Frame {
            conn: alice,
            text: broken,
        });
        assert_eq!(last(&world, alice)["code"], invalid);
    }
    let key = "k".repeat(STATE_KEY_BYTES_MAX + 1);
    let most = STATE_KEY_BYTES_MAX.to_string();
    refused(&mut world, alice, set(&key, &json!(1)), "limit", &most);
    let value = json!("v".repeat(STATE_VALUE_BYTES_MAX));
    let most = STATE_VALUE_BYTES_MAX.to_string();
    refused(&mut world, alice, set("k", &value), "limit", &most);
    for n in 0..STATE_KEYS_MAX {
        world.write(alice, &set(&n.to_string(), &json!(n)));
    }
    let most = STATE_KEYS_MAX.to_string();
    refused(&mut world, alice, set("more", &json!(1)), "limit", &most);
    assert_eq!(
        values(&world, bob).len(),
        STATE_KEYS_MAX,
        "nothing refused was told"
    );
}

#[test]
fn state_outlives_the_broker_and_is_told_to_who_was_away() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &set("seen", &json!(1)));
    world.confirm_all(bob);
    world.close(bob, Closing::Abrupt);
    world.write(alice, &set("k", &json!(1)));
    world.write(alice, &set("k", &json!(2)));
    let mut row = world
        .rows()
        .into_iter()
        .rfind(|row| row.session_id == "b")
        .unwrap();
    let grace = world.persisted().filter_map(|(op, _)| match op {
        StoreOp::PresenceGrace { cursor, until, .. } => Some((*cursor, *until)),
        _ => None,
    });
    let (cursor, until) = grace.last().unwrap();
    (row.cursor, row.lease_until) = (cursor, Some(until));
    let mut next = killed(&world, &["a"]);
    next.input(Input::Boot(BootRow::Presence(Box::new(row))));
    next.input(Input::Boot(BootRow::Log(LogRow {
        mesh_id: MESH.into(),
        since: Position(0),
    })));
    let back = next.join(launched(2, 21, "b"));
    assert_eq!(values(&next, back), [("k".to_owned(), json!(2))]);
    let alice = next.join(launched(1, 11, "a"));
    assert!(values(&next, alice).is_empty(), "not its own");
    next.write(alice, &json!({"type": "list_state"}));
    assert_eq!(last(&next, alice)["entries"].as_array().unwrap().len(), 2);
}
