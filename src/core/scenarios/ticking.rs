//! The simulation clock of a mesh.

use super::missed::three;
use super::sharing::{last, refused};
use super::*;

/// Asks for a clock's status, or for a change, and gives what is said of it.
fn clock(world: &mut World, conn: ConnId, kind: &str, speed: &Value) -> Value {
    world.write(conn, &json!({"type": kind, "speed": speed, "_reqId": kind}));
    let status = last(world, conn);
    assert_eq!(
        (&status["type"], &status["_reqId"]),
        (&json!("clock_status"), &json!(kind))
    );
    json!([status["speed"], status["paused"], status["tick"]])
}

fn ticks(world: &World, conn: ConnId) -> Vec<u64> {
    let frames = world
        .frames(conn)
        .into_iter()
        .filter(|f| f["event"] == "tick");
    frames
        .map(|f| f["eventData"]["tick"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_clock_ticks_a_minute_at_a_time_without_drift() {
    let (mut world, alice, bob, _) = three();
    let none = Value::Null;
    assert_eq!(
        clock(&mut world, alice, "get_clock", &none),
        json!([0, true, 0])
    );
    let now = json!(world.now.wall.to_string());
    assert_eq!(
        (
            &last(&world, alice)["simTime"],
            &last(&world, alice)["startedAt"]
        ),
        (&now, &now)
    );
    for kind in ["pause_clock", "resume_clock"] {
        refused(
            &mut world,
            alice,
            json!({"type": kind}),
            "no_clock",
            "No clock running for this mesh",
        );
    }
    let began = world.now;
    assert_eq!(
        clock(&mut world, alice, "set_clock", &json!(7)),
        json!([7, false, 0])
    );
    let due = |n: u64| began.mono.after(Millis((n * 60_000).div_ceil(7)));
    for n in 1..=70 {
        let left = due(n).since(world.now.mono).0;
        world.pass(Millis(left - 1));
        assert_eq!(ticks(&world, bob).len() as u64, n - 1, "not early");
        for conn in [alice, bob] {
            world.input(Input::Pinged { conn });
        }
        world.pass(Millis(11));
        assert_eq!(ticks(&world, bob).len() as u64, n);
    }
    assert_eq!(ticks(&world, alice), ticks(&world, bob));
    let tick = world
        .frames(bob)
        .into_iter()
        .rfind(|f| f["event"] == "tick")
        .unwrap();
    let sim_time = began.wall.after(Millis::secs(70 * 60)).to_string();
    assert_eq!(
        tick["eventData"],
        json!({"tick": 70, "simTime": sim_time, "speed": 7})
    );
    assert_eq!(
        (&tick["subtype"], &tick["priority"]),
        (&json!("system"), &json!("low"))
    );
    clock(&mut world, alice, "get_clock", &none);
    assert_eq!(last(&world, alice)["simTime"], json!(sim_time));
    assert_eq!(
        last(&world, alice)["startedAt"],
        json!(began.wall.to_string())
    );
}

#[test]
fn a_clock_is_paused_resumed_and_kept_within_its_speeds() {
    let (mut world, alice, bob, _) = three();
    let none = Value::Null;
    for (asked, speed) in [
        (json!(1000), 100),
        (json!(0), 1),
        (json!("x"), 1),
        (json!(-3), 1),
        (json!(60), 60),
    ] {
        assert_eq!(
            clock(&mut world, alice, "set_clock", &asked),
            json!([speed, false, 0])
        );
    }
    world.pass(Millis(2_400));
    assert_eq!(
        clock(&mut world, bob, "pause_clock", &none),
        json!([60, true, 2])
    );
    assert_eq!(
        clock(&mut world, bob, "set_clock", &json!(30)),
        json!([30, true, 2])
    );
    world.pass(Millis(10_000));
    assert_eq!(
        clock(&mut world, alice, "resume_clock", &none),
        json!([30, false, 2])
    );
    world.pass(Millis(1_900));
    // It runs already: no new interval.
    assert_eq!(
        clock(&mut world, alice, "resume_clock", &none),
        json!([30, false, 2])
    );
    world.pass(Millis(110));
    assert_eq!(
        clock(&mut world, alice, "get_clock", &none),
        json!([30, false, 3])
    );
}

#[test]
fn ticks_are_live_only_and_a_clock_that_is_alone_stands() {
    let (mut world, alice, bob, carol) = three();
    let none = Value::Null;
    clock(&mut world, alice, "set_clock", &json!(100));
    world.close(bob, Closing::Abrupt);
    world.pass(Millis(650));
    world.pass(Millis(650));
    let back = world.join(launched(2, 21, "b"));
    assert!(ticks(&world, back).is_empty(), "not told again");
    assert_eq!(ticks(&world, carol), [1, 2]);
    world.pass(Millis(2_000));
    assert_eq!(
        ticks(&world, carol),
        [1, 2, 5],
        "after a stall the last is told"
    );
    for conn in [alice, back] {
        world.write(conn, &json!({"type": "goodbye"}));
    }
    world.close(carol, Closing::Abrupt);
    // In grace the mesh has a session still.
    world.pass(Millis(60_000));
    assert!(
        world.shard.meshes[0]
            .clock
            .as_ref()
            .unwrap()
            .running
            .is_some()
    );
    world.pass(Millis(30_100));
    assert!(
        world.shard.meshes[0]
            .clock
            .as_ref()
            .unwrap()
            .running
            .is_none()
    );
    world.pass(Millis(60_000));
    let bob = world.join(launched(2, 21, "b"));
    let status = clock(&mut world, bob, "get_clock", &none);
    assert_eq!((&status[1], &status[2]), (&json!(true), &json!(155)));
    world.pass(Millis(5_000));
    assert!(ticks(&world, bob).is_empty(), "nobody has resumed it");
}
