//! Coming back with a resume token instead of signatures (design.md §7).

use super::*;
use crate::identity::ResumeKey;

fn with_key() -> World {
    let mut world = World::new();
    world.input(Input::Boot(BootRow::Resume(ResumeKey([5; 32]))));
    world
}

fn token(world: &World, conn: ConnId) -> String {
    world.ack(conn)["resumeToken"].as_str().unwrap().to_owned()
}

/// A hello with that token, whose signature does not hold.
fn resumed(hello: impl Fn(Wall) -> Value, token: &str, signature: u8) -> impl Fn(Wall) -> Value {
    move |now| {
        let mut hello = hello(now);
        hello["resumeToken"] = json!(token);
        hello["signature"] = json!(hex::encode([signature; 64]));
        hello
    }
}

fn results(world: &World) -> Vec<&'static str> {
    let events = world.fx.iter().filter_map(|effect| match effect {
        Effect::Observe(Event::Resumed { result }) => Some(*result),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_token_stands_for_the_signature_once() {
    for hello in [true, false] {
        let mut world = with_key();
        let say = |now| {
            if hello {
                member(2, None, "b")(now)
            } else {
                launched(2, 21, "b")(now)
            }
        };
        let bob = world.join(say);
        let first = token(&world, bob);
        world.close(bob, Closing::Abrupt);
        let back = world.join(resumed(say, &first, 1));
        assert_eq!(world.ack(back)["reattached"], true);
        assert_ne!(token(&world, back), first);
        let thief = world.join(resumed(say, &first, 2));
        assert_eq!(world.ack(thief), Value::Null);
        assert_eq!(world.frames(thief)[0]["code"], "bad_signature");
        assert_eq!(results(&world), ["accepted", "used"]);
        assert_eq!(world.recount(), (1, 0));
    }
}

#[test]
fn a_token_that_does_not_serve_leaves_it_to_the_signature() {
    let mut world = with_key();
    let bob = world.join(launched(2, 21, "b"));
    let carol = world.join(launched(3, 31, "c"));
    let (bobs, carols) = (token(&world, bob), token(&world, carol));
    let mut other = World::new();
    other.input(Input::Boot(BootRow::Resume(ResumeKey([6; 32]))));
    let foreign = other.join(launched(2, 21, "b"));
    let foreign = token(&other, foreign);
    let cut = &bobs[..20];
    for bad in [&carols, &foreign, cut, "no token"] {
        let refused = world.join(resumed(launched(2, 21, "b"), bad, 3));
        assert_eq!(world.frames(refused)[0]["code"], "bad_signature");
        let signed = |now| {
            let mut hello = launched(2, 21, "b")(now);
            hello["resumeToken"] = json!(bad);
            hello
        };
        world.pass(Millis::secs(11));
        let back = world.join(signed);
        assert_eq!(world.ack(back)["reattached"], true);
    }
    assert_eq!(
        results(&world),
        ["forged", "forged", "malformed", "malformed"]
    );
}

#[test]
fn a_token_of_an_earlier_lease_is_none() {
    let mut world = with_key();
    let bob = world.join(launched(2, 21, "b"));
    let old = token(&world, bob);
    world.write(bob, &json!({"type": "goodbye"}));
    world.pass(Millis(10));
    let bob = world.join(launched(2, 21, "b"));
    world.close(bob, Closing::Abrupt);
    let thief = world.join(resumed(launched(2, 21, "b"), &old, 8));
    assert_eq!(world.frames(thief)[0]["code"], "bad_signature");
    assert_eq!(results(&world), ["gone"]);
}

#[test]
fn a_token_says_nothing_about_who_may_come() {
    let mut world = with_key();
    let bob = world.join(launched(2, 21, "b"));
    let bobs = token(&world, bob);
    world.write(bob, &json!({"type": "goodbye"}));
    let gone = world.join(resumed(launched(2, 21, "b"), &bobs, 4));
    assert_eq!(
        world.frames(gone)[0]["code"],
        "bad_signature",
        "no lease, no token"
    );
    let bob = world.join(launched(2, 21, "b"));
    let bobs = token(&world, bob);
    let revoked_at = Some(world.now.wall);
    let row = MemberRow {
        revoked_at,
        ..member_row(2, "bob")
    };
    world.input(Input::MemberPut(Box::new(row)));
    let banned = world.join(resumed(launched(2, 21, "b"), &bobs, 5));
    assert_eq!(world.frames(banned)[0]["code"], "revoked");
    assert_eq!(results(&world), ["gone"]);
}

#[test]
fn a_token_outlives_the_broker_even_if_its_row_did_not() {
    let mut world = with_key();
    let bob = world.join(launched(2, 21, "b"));
    let rows = world.rows().len();
    world.close(bob, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert!(world.rows().len() > rows);
    let last = token(&world, back);
    // Killed before the row of the second attachment was written.
    let mut after = world.restart_from(|row| row.generation = 1);
    after.input(Input::Boot(BootRow::Resume(ResumeKey([5; 32]))));
    let back = after.join(resumed(launched(2, 21, "b"), &last, 6));
    assert_eq!(after.ack(back)["reattached"], true);
    let thief = after.join(resumed(launched(2, 21, "b"), &last, 7));
    assert_eq!(after.frames(thief)[0]["code"], "bad_signature");
}
