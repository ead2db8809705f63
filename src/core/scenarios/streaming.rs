//! Streams, and subscriptions that last as long as their lease.

use super::delivery::send;
use super::missed::three;
use super::sharing::{killed, last, of_type, refused};
use super::*;
use crate::limits::{STREAM_DATA_BYTES_MAX, STREAM_NAME_BYTES_MAX, STREAMS_MAX, SUBSCRIPTIONS_MAX};

fn publish(stream: &str, data: &Value) -> Value {
    json!({"type": "publish", "stream": stream, "data": data})
}

fn subscribe(stream: &str) -> Value {
    json!({"type": "subscribe", "stream": stream})
}

/// What was published to a socket.
fn data(world: &World, conn: ConnId) -> Vec<Value> {
    let frames = of_type(world, conn, "stream_data").into_iter();
    frames.map(|frame| frame["data"].clone()).collect()
}

#[test]
fn a_stream_is_created_once_and_listed_with_its_subscribers() {
    let (mut world, alice, bob, carol) = three();
    world.write(
        alice,
        &json!({"type": "create_stream", "name": "logs", "_reqId": "1"}),
    );
    let made = last(&world, alice);
    assert_eq!(
        (&made["type"], &made["name"], &made["_reqId"]),
        (&json!("stream_created"), &json!("logs"), &json!("1"))
    );
    world.write(bob, &json!({"type": "create_stream", "name": "logs"}));
    assert_eq!(last(&world, bob)["id"], made["id"]);
    for (conn, stream) in [
        (bob, "logs"),
        (carol, "logs"),
        (carol, "logs"),
        (carol, "never"),
    ] {
        world.write(
            conn,
            &json!({"type": "subscribe", "stream": stream, "_reqId": "s"}),
        );
        assert_eq!(
            last(&world, conn),
            json!({"type": "subscribed", "stream": stream, "_reqId": "s"})
        );
    }
    let list = |world: &mut World| {
        world.write(alice, &json!({"type": "list_streams", "_reqId": "l"}));
        last(world, alice)["streams"].clone()
    };
    let at = world.now.wall.to_string();
    assert_eq!(
        list(&mut world),
        json!([{"id": made["id"], "name": "logs", "createdBy": "alice",
        "createdAt": at, "subscriberCount": 2}])
    );
    world.write(carol, &json!({"type": "unsubscribe", "stream": "logs"}));
    assert_eq!(list(&mut world)[0]["subscriberCount"], 1);
    world.write(bob, &json!({"type": "goodbye"}));
    assert_eq!(list(&mut world)[0]["subscriberCount"], 0);
}

#[test]
fn what_is_published_goes_to_subscribers_but_not_to_who_publishes() {
    let (mut world, alice, bob, carol) = three();
    for conn in [alice, bob] {
        world.write(conn, &subscribe("logs"));
    }
    world.write(alice, &publish("logs", &json!({"n": 1})));
    world.write(alice, &publish("logs", &Value::Null));
    let frame =
        json!({"type": "stream_data", "stream": "logs", "data": {"n": 1}, "publishedBy": "alice"});
    assert_eq!(of_type(&world, bob, "stream_data")[0], frame);
    assert_eq!(data(&world, bob), [json!({"n": 1}), Value::Null]);
    assert!(data(&world, alice).is_empty() && data(&world, carol).is_empty());
    world.write(bob, &json!({"type": "unsubscribe", "stream": "logs"}));
    world.write(alice, &publish("logs", &json!(2)));
    assert_eq!(data(&world, bob).len(), 2);
}

#[test]
fn a_subscriber_that_was_away_gets_what_it_missed_in_order() {
    let (mut world, alice, bob, _) = three();
    world.write(bob, &subscribe("logs"));
    world.confirm_all(bob);
    world.close(bob, Closing::Abrupt);
    for n in 0..20 {
        world.write(alice, &publish("logs", &json!(n)));
        world.write(alice, &send("*", "between"));
    }
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(
        data(&world, back),
        (0..20).map(|n| json!(n)).collect::<Vec<_>>()
    );
    world.write(alice, &publish("logs", &json!("live")));
    assert_eq!(data(&world, back).last(), Some(&json!("live")));
    assert!(of_type(&world, back, "subscribed").is_empty(), "silently");
    // What came before a subscription is not for it, though it is in the log.
    world.write(back, &json!({"type": "unsubscribe", "stream": "logs"}));
    world.write(back, &subscribe("logs"));
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert!(data(&world, back).is_empty());
}

#[test]
fn a_subscription_ends_with_its_lease_and_no_sooner() {
    let (mut world, alice, bob, carol) = three();
    for conn in [bob, carol] {
        world.write(conn, &subscribe("logs"));
    }
    let count = |world: &World| {
        world.shard.meshes[0]
            .streams
            .as_ref()
            .unwrap()
            .subscribers()
    };
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(count(&world), 2, "a takeover");
    world.close(back, Closing::Abrupt);
    world.pass_with(&[alice, carol], Millis::secs(89));
    assert_eq!(count(&world), 2);
    world.pass_with(&[alice, carol], Millis::secs(2));
    assert_eq!(count(&world), 1);
    world.write(alice, &json!({"type": "kick", "target": "carol"}));
    assert_eq!(count(&world), 0);
    let back = world.join(launched(2, 21, "b"));
    refused(
        &mut world,
        alice,
        publish("logs", &json!(1)),
        "not_found",
        "logs",
    );
    assert!(data(&world, back).is_empty());
}

#[test]
fn streams_and_subscriptions_outlive_the_broker() {
    let (mut world, alice, bob, carol) = three();
    world.write(alice, &json!({"type": "create_stream", "name": "logs"}));
    let made = last(&world, alice);
    for conn in [bob, carol] {
        world.write(conn, &subscribe("logs"));
        world.write(conn, &subscribe("more"));
    }
    world.write(bob, &json!({"type": "unsubscribe", "stream": "more"}));
    world.write(carol, &json!({"type": "goodbye"}));
    let mut next = killed(&world, &["a", "b"]);
    assert_eq!(
        next.shard.meshes[0].streams.as_ref().unwrap().subscribers(),
        1
    );
    let alice = next.join(launched(1, 11, "a"));
    next.write(alice, &json!({"type": "create_stream", "name": "logs"}));
    assert_eq!(last(&next, alice)["id"], made["id"]);
    assert!(next.ack(alice).get("missed").is_none(), "not subscribed");
    next.write(alice, &publish("logs", &json!("while away")));
    let bob = next.join(launched(2, 21, "b"));
    assert_eq!(data(&next, bob), [json!("while away")]);
    // Of what was published before the crash there are no rows.
    assert_eq!(next.ack(bob)["missed"], "truncated");
    next.confirm_all(bob);
    next.close(bob, Closing::Abrupt);
    let bob = next.join(launched(2, 21, "b"));
    assert!(next.ack(bob).get("missed").is_none());
}

#[test]
fn streams_that_are_missing_mistyped_or_unknown_are_refused() {
    let (mut world, alice, ..) = three();
    let invalid = "invalid_argument";
    for kind in ["subscribe", "unsubscribe", "publish"] {
        refused(
            &mut world,
            alice,
            json!({"type": kind, "data": 1}),
            invalid,
            "stream",
        );
        refused(
            &mut world,
            alice,
            json!({"type": kind, "stream": 7, "data": 1}),
            invalid,
            "stream",
        );
    }
    refused(
        &mut world,
        alice,
        json!({"type": "create_stream"}),
        invalid,
        "name",
    );
    refused(
        &mut world,
        alice,
        json!({"type": "publish", "stream": "s"}),
        invalid,
        "data",
    );
    refused(
        &mut world,
        alice,
        publish("nobody's", &json!(1)),
        "not_found",
        "nobody's",
    );
    refused(
        &mut world,
        alice,
        json!({"type": "unsubscribe", "stream": "s"}),
        "not_found",
        "s",
    );
}

#[test]
fn streams_that_are_too_many_or_too_large_are_refused() {
    let (mut world, alice, bob, _) = three();
    let name = "n".repeat(STREAM_NAME_BYTES_MAX + 1);
    let most = STREAM_NAME_BYTES_MAX.to_string();
    refused(&mut world, alice, subscribe(&name), "limit", &most);
    refused(
        &mut world,
        alice,
        json!({"type": "create_stream", "name": name}),
        "limit",
        &most,
    );
    for n in 0..SUBSCRIPTIONS_MAX {
        world.write(bob, &subscribe(&n.to_string()));
    }
    refused(
        &mut world,
        bob,
        subscribe("more"),
        "limit",
        &SUBSCRIPTIONS_MAX.to_string(),
    );
    let long = json!("d".repeat(STREAM_DATA_BYTES_MAX));
    refused(
        &mut world,
        alice,
        publish("1", &long),
        "limit",
        &STREAM_DATA_BYTES_MAX.to_string(),
    );
    for n in SUBSCRIPTIONS_MAX..STREAMS_MAX {
        world.write(
            alice,
            &json!({"type": "create_stream", "name": n.to_string()}),
        );
    }
    let most = STREAMS_MAX.to_string();
    refused(
        &mut world,
        alice,
        json!({"type": "create_stream", "name": "more"}),
        "limit",
        &most,
    );
    refused(&mut world, alice, subscribe("more"), "limit", &most);
}
