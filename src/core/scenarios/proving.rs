//! Which signatures of a hello are checked, and in what order.

use super::*;
use crate::hello::Hello;

/// A session's hello whose attestation ends at `end` and is signed by nobody.
fn unattested(seed: u8, session: u8, end: i64) -> impl Fn(Wall) -> Value {
    move |now| {
        let mut hello = launched(seed, session, "b")(now);
        hello["parentAttestation"]["expiresAt"] = json!(end);
        hello["parentAttestation"]["signature"] = json!(hex::encode([9; 64]));
        hello
    }
}

/// A hello whose own signature is nobody's.
fn unsigned(hello: impl Fn(Wall) -> Value) -> impl Fn(Wall) -> Value {
    move |now| {
        let mut hello = hello(now);
        hello["signature"] = json!(hex::encode([8; 64]));
        hello
    }
}

fn refusal(world: &World, conn: ConnId) -> Value {
    assert_eq!(world.ack(conn), Value::Null);
    world.frames(conn)[0]["message"].clone()
}

const NOT_ATTESTED: &str = "attestation rejected: bad_signature";
const NOT_SIGNED: &str = "session_hello rejected: bad_signature";

#[test]
fn what_a_member_has_attested_is_not_checked_again() {
    let mut world = World::new();
    let bob = world.join(launched(2, 21, "b"));
    let end = world.now.wall.after(Millis::secs(3600)).0;
    world.close(bob, Closing::Abrupt);
    let back = world.join(unattested(2, 21, end));
    assert_eq!(world.ack(back)["reattached"], true);
    let other_end = world.join(unattested(2, 21, end + 1));
    assert_eq!(refusal(&world, other_end), NOT_ATTESTED);
    let other_key = world.join(unattested(2, 22, end));
    assert_eq!(refusal(&world, other_key), NOT_ATTESTED);
    let other_member = world.join(unattested(3, 21, end));
    assert_eq!(refusal(&world, other_member), NOT_ATTESTED);
    let thief = world.join(unsigned(unattested(2, 21, end)));
    assert_eq!(refusal(&world, thief), NOT_SIGNED);
    assert!(world.closed(back).is_none());
    // It is known for as long as the session is.
    world.write(back, &json!({"type": "goodbye"}));
    let late = world.join(unattested(2, 21, end));
    assert_eq!(refusal(&world, late), NOT_ATTESTED);
}

#[test]
fn what_was_attested_is_known_after_a_restart() {
    let mut world = World::new();
    world.join(launched(2, 21, "b"));
    let end = world.now.wall.after(Millis::secs(3600)).0;
    let mut after = world.restart_from(|_| {});
    let back = after.join(unattested(2, 21, end));
    assert_eq!(after.ack(back)["reattached"], true);
}

#[test]
fn a_second_hello_proves_everything() {
    let mut world = World::new();
    let bob = world.join(launched(2, 21, "b"));
    let end = world.now.wall.after(Millis::secs(3600)).0;
    let hello = unattested(2, 21, end)(world.now.wall);
    world.write(bob, &hello);
    assert_eq!(world.frames(bob)[1]["message"], NOT_ATTESTED);
    assert!(world.closed(bob).is_none());
}

#[test]
fn signatures_are_refused_in_their_place() {
    let mut world = World::new();
    let end = world.now.wall.after(Millis::secs(3600)).0;
    let skewed = |hello: Value| {
        let mut hello = hello;
        hello["timestamp"] = json!(0);
        hello
    };
    let both = world.join(unsigned(unattested(2, 21, end)));
    assert_eq!(refusal(&world, both), NOT_ATTESTED);
    let first = world.join(|now| skewed(unattested(2, 21, end)(now)));
    assert_eq!(refusal(&world, first), NOT_ATTESTED);
    let then = world.join(|now| skewed(launched(2, 21, "b")(now)));
    assert_eq!(
        refusal(&world, then),
        "session_hello rejected: timestamp_skew"
    );
    let nowhere = |now| {
        let mut hello = launched(2, 21, "b")(now);
        hello["meshId"] = json!("elsewhere");
        hello
    };
    let unknown = world.join(nowhere);
    assert_eq!(
        refusal(&world, unknown),
        NOT_SIGNED,
        "signed for another mesh"
    );
    let stranger = world.join(launched(9, 21, "b"));
    assert_eq!(refusal(&world, stranger), "parent pubkey not found in mesh");
    let nobody = world.join(unsigned(member(9, None, "b")));
    assert_eq!(refusal(&world, nobody), "hello rejected: bad_signature");
}

/// What becomes of a hello on a shard that is not its mesh's home: it moves, or is refused.
fn elsewhere(world: &World, hello: impl Fn(Wall) -> Value) -> Result<Box<Hello>, Value> {
    let index = 1 - crate::ids::home_of(MESH, 2);
    let place = Place { index, count: 2 };
    let mut other = Shard::new(Config::default(), place, [8; 32], world.now, Seq(1));
    let conn = ConnId {
        slot: 1,
        generation: 1,
    };
    let mut fx = Vec::new();
    other.handle(world.now, Input::Opened { conn }, &mut fx);
    let text = hello(world.now.wall).to_string();
    let frame = Input::Frame { conn, text: &text };
    other.handle(world.now, frame, &mut fx);
    for effect in fx {
        match effect {
            Effect::Handoff { hello, .. } => return Ok(hello),
            Effect::Send { frame, .. } => {
                let frame: Value = serde_json::from_slice(&frame).unwrap();
                return Err(frame["message"].clone());
            }
            _ => {}
        }
    }
    panic!("no answer");
}

#[test]
fn a_hello_that_moves_has_proven_its_own_key() {
    let mut world = World::new();
    let end = world.now.wall.after(Millis::secs(3600)).0;
    let both = elsewhere(&world, unsigned(unattested(2, 21, end)));
    assert_eq!(both.unwrap_err(), NOT_ATTESTED);
    let own = elsewhere(&world, unsigned(launched(2, 21, "b")));
    assert_eq!(own.unwrap_err(), NOT_SIGNED);
    let key = elsewhere(&world, unsigned(member(2, None, "b")));
    assert_eq!(key.unwrap_err(), "hello rejected: bad_signature");
    // Whether the attestation has been checked before, its home knows.
    let hello = elsewhere(&world, unattested(2, 21, end)).unwrap();
    let conn = world.open();
    world.input(Input::Adopted { conn, hello });
    assert_eq!(refusal(&world, conn), NOT_ATTESTED);
    let good = launched(2, 21, "b");
    let hello = elsewhere(&world, &good).unwrap();
    let bob = world.open();
    world.input(Input::Adopted { conn: bob, hello });
    assert_eq!(world.ack(bob)["reattached"], false);
    let end = good(world.now.wall)["parentAttestation"]["expiresAt"].as_i64();
    world.pass(Millis(5));
    let hello = elsewhere(&world, unattested(2, 21, end.unwrap())).unwrap();
    let back = world.open();
    world.input(Input::Adopted { conn: back, hello });
    assert_eq!(world.ack(back)["reattached"], true);
}
