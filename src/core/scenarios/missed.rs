//! What a session that was away finds when it comes back (design.md §5).

use super::delivery::send;
use super::*;
use crate::rows::MailboxRow;

/// Alice, bob of another member, and an observer of a third.
pub(super) fn three() -> (World, ConnId, ConnId, ConnId) {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let bob = world.join(launched(2, 21, "b"));
    let carol = world.join(launched(3, 31, "c"));
    for conn in [alice, bob, carol] {
        world.confirm_all(conn);
    }
    (world, alice, bob, carol)
}

/// A message of 60 kB that begins with its number.
fn long(target: &str, n: usize) -> Value {
    let text = format!("{n} {}", "x".repeat(60_000));
    json!({"type": "send", "id": n.to_string(), "targetSpec": target, "priority": "now",
           "nonce": "", "ciphertext": text})
}

/// Numbers of the messages pushed to a socket.
fn numbers(world: &World, conn: ConnId) -> Vec<usize> {
    let texts = heard(world, conn).into_iter();
    texts
        .map(|text| text.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

/// Everything pushed to a socket: texts of messages, names of events.
pub(super) fn heard(world: &World, conn: ConnId) -> Vec<String> {
    let pushes = world.frames(conn).into_iter();
    pushes
        .filter(|frame| frame["type"] == "push")
        .map(|frame| {
            let said = if frame["subtype"] == "system" {
                &frame["event"]
            } else {
                &frame["ciphertext"]
            };
            said.as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn all_kinds_of_messages_come_in_the_order_they_were_sent() {
    let (mut world, alice, bob, _) = three();
    world.write(bob, &json!({"type": "join_group", "name": "dev/core"}));
    world.close(bob, Closing::Abrupt);
    let key = keys(21).public().to_string();
    let sent: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for (n, text) in sent.iter().enumerate() {
        let target = ["*", "@dev", key.as_str(), "@all", "@ops"][n % 5];
        world.write(alice, &send(target, text));
    }
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.frames(back)[0]["type"], "hello_ack");
    assert!(world.frames(back)[0].get("missed").is_none());
    let expected: Vec<_> = sent
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 5 != 4)
        .map(|(_, t)| t.clone())
        .collect();
    assert_eq!(
        heard(&world, back),
        expected,
        "not what was for another group"
    );
    world.write(alice, &send("*", "live"));
    assert_eq!(heard(&world, back).last().map(String::as_str), Some("live"));
}

#[test]
fn joins_and_leaves_are_the_net_difference() {
    let (mut world, alice, bob, carol) = three();
    world.close(bob, Closing::Abrupt);
    let dave = world.join(member(3, Some(32), "cli"));
    world.close(dave, Closing::Clean);
    world.join(launched(3, 33, "stays"));
    world.write(carol, &json!({"type": "set_visible", "visible": false}));
    world.write(carol, &json!({"type": "set_visible", "visible": true}));
    let before = heard(&world, alice).len();
    assert_eq!(
        heard(&world, alice)[before - 5..],
        [
            "peer_joined",
            "peer_left",
            "peer_joined",
            "peer_hidden",
            "peer_visible"
        ]
    );
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["peer_joined", "peer_visible"]);
}

#[test]
fn a_join_told_late_shows_the_session_as_it_is_then() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    let dave = world.join(launched(3, 33, "stays"));
    world.write(dave, &json!({"type": "join_group", "name": "late"}));
    let joins = |world: &World, conn| -> Vec<Value> {
        let frames = world.frames(conn).into_iter();
        frames.filter(|f| f["event"] == "peer_joined").collect()
    };
    let told = joins(&world, alice).pop().unwrap();
    let back = world.join(launched(2, 21, "b"));
    let told_late = joins(&world, back).pop().unwrap();
    for same in ["messageId", "createdAt"] {
        assert_eq!(told_late[same], told[same]);
    }
    assert_eq!(told["eventData"]["groups"], json!([]));
    assert_eq!(told_late["eventData"]["groups"], json!([{"name": "late"}]));
    // It ends before it is confirmed: the log keeps what it can no longer write anew.
    world.write(dave, &json!({"type": "goodbye"}));
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["peer_left"]);
}

#[test]
fn a_leave_of_who_was_there_is_told_at_the_return() {
    let (mut world, alice, bob, carol) = three();
    world.close(carol, Closing::Abrupt);
    world.pass_with(&[alice, bob], Millis::secs(50));
    world.close(bob, Closing::Abrupt);
    world.pass_with(&[alice], Millis::secs(41));
    assert_eq!(
        world.events(alice).last().map(String::as_str),
        Some("peer_left")
    );
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["peer_left"]);
    world.confirm_all(back);
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert!(heard(&world, back).is_empty(), "once");
}

#[test]
fn a_leave_is_told_to_whoever_may_have_heard_of_the_join() {
    let (mut world, alice, bob, _) = three();
    let dave = world.join(member(3, Some(32), "cli"));
    assert_eq!(heard(&world, bob).last().unwrap(), "peer_joined");
    world.close(bob, Closing::Abrupt);
    world.write(dave, &json!({"type": "set_visible", "visible": false}));
    world.close(dave, Closing::Clean);
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["peer_left"], "and not that it hid");
    world.confirm_all(alice);
}

#[test]
fn what_was_confirmed_by_a_watermark_is_not_said_again() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &send("*", "one"));
    world.confirm_all(bob);
    world.write(alice, &send("*", "two"));
    world.close(bob, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["two"], "it may have been swallowed");
    let ids = |conn| -> Vec<Value> {
        let pushes = world.frames(conn).into_iter();
        pushes
            .filter(|f| f["ciphertext"] == "two")
            .map(|f| f["messageId"].clone())
            .collect()
    };
    assert_eq!(ids(bob), ids(back), "the same message");
}

#[test]
fn a_pong_to_an_older_ping_or_of_another_socket_confirms_no_more() {
    let (mut world, alice, bob, _) = three();
    let old = world.watermark(bob).unwrap();
    world.write(alice, &send("*", "one"));
    world.pong(bob, old);
    world.pong(bob, u64::MAX);
    world.pong(bob, old + 1_000);
    world.close(bob, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["one"]);
    world.pong(back, old + 3);
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, back), ["one"]);
}

#[test]
fn a_long_absence_is_replayed_no_faster_than_it_is_confirmed() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    let direct = keys(21).public().to_string();
    for n in 0..30 {
        world.write(alice, &long(if n % 3 == 0 { &direct } else { "*" }, n));
    }
    let back = world.join(launched(2, 21, "b"));
    let mut rounds = 0;
    while heard(&world, back).len() < 30 {
        let written = heard(&world, back).len();
        let watermark = world.watermark(back).expect("asked for");
        world.pong(back, watermark);
        assert!(heard(&world, back).len() > written, "{written}");
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    assert_eq!(numbers(&world, back), (0..30).collect::<Vec<_>>());
    world.write(alice, &send("*", "live"));
    world.confirm_all(back);
    assert_eq!(heard(&world, back).last().map(String::as_str), Some("live"));
}

#[test]
fn what_is_said_meanwhile_waits_its_turn() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    for n in 0..8 {
        world.write(alice, &long("*", n));
    }
    let back = world.join(launched(2, 21, "b"));
    world.write(alice, &send("*", "8"));
    world.write(alice, &send(&keys(21).public().to_string(), "9"));
    while heard(&world, back).len() < 10 {
        let (written, watermark) = (heard(&world, back).len(), world.watermark(back).unwrap());
        world.pong(back, watermark);
        assert!(heard(&world, back).len() > written);
    }
    assert_eq!(numbers(&world, back), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_full_outbox_holds_back_what_was_sent_after_it() {
    let (mut world, alice, bob, _) = three();
    let direct = keys(21).public().to_string();
    let most = crate::limits::OUTBOX_MESSAGES_MAX;
    for n in 0..=most {
        world.write(alice, &send(&direct, &n.to_string()));
    }
    world.write(alice, &send("*", "after"));
    assert_eq!(world.texts(bob).len(), most);
    let watermark = world.watermark(bob).unwrap();
    world.pong(bob, watermark);
    let texts = world.texts(bob);
    assert_eq!(texts[most..], [most.to_string(), "after".to_owned()]);
}

#[test]
fn what_the_log_no_longer_holds_is_said_to_be_missed() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    let most = Config::default().log.entries;
    for n in 0..=most {
        world.write(alice, &send("*", &n.to_string()));
    }
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.frames(back)[0]["missed"], "truncated");
    assert_eq!(world.texts(back)[0], "1", "what there is");
}

#[test]
fn whom_the_log_overtakes_has_to_come_back_and_is_told_so() {
    let (mut world, alice, bob, _) = three();
    let twin = world.join(launched(2, 22, "twin"));
    world.close(bob, Closing::Abrupt);
    world.close(twin, Closing::Abrupt);
    for seed in [21, 22] {
        world.input(Input::Boot(BootRow::Mailbox(MailboxRow {
            mesh_id: MESH.into(),
            target: keys(seed).public(),
        })));
    }
    let back = [
        world.join(launched(2, 21, "b")),
        world.join(launched(2, 22, "twin")),
    ];
    world.shard.config.log.entries = 1;
    world.write(alice, &send("*", "waits for the mail on disk"));
    world.write(alice, &json!({"type": "set_visible", "visible": false}));
    for conn in back {
        assert_eq!(world.closed(conn), Some(Close::SLOW_CONSUMER));
        assert!(!heard(&world, conn).contains(&"peer_hidden".to_owned()));
    }
    let again = world.join(launched(2, 22, "twin"));
    assert_eq!(world.ack(again)["missed"], "truncated");
}

#[test]
fn what_cuts_off_who_says_it_is_stored_all_the_same() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    world.input(Input::Boot(BootRow::Mailbox(MailboxRow {
        mesh_id: MESH.into(),
        target: keys(21).public(),
    })));
    let back = world.join(launched(2, 21, "b"));
    world.shard.config.log.entries = 1;
    world.write(alice, &send("*", "waits for the mail on disk"));
    let before = world.inserts().len();
    world.write(back, &send("*", "the last straw"));
    assert_eq!(world.closed(back), Some(Close::SLOW_CONSUMER));
    assert_eq!(world.texts(alice), ["the last straw"]);
    assert_eq!(world.inserts().len(), before + 1);
}

#[test]
fn behind_a_full_outbox_nothing_overtakes_the_next_message() {
    let (mut world, alice, bob, _) = three();
    let key = keys(21).public().to_string();
    let most = crate::limits::OUTBOX_MESSAGES_MAX;
    for n in 0..most {
        world.write(alice, &send(&key, &n.to_string()));
    }
    // Nothing waits for it.
    world.write(bob, &json!({"type": "set_status", "status": "idle"}));
    world.write(alice, &send(&key, "waits"));
    world.write(alice, &send("*", "behind it"));
    assert_eq!(world.texts(bob).len(), most);
    world.confirm_all(bob);
    assert_eq!(world.texts(bob)[most..], ["waits", "behind it"]);
}

#[test]
fn mail_for_the_absent_waits_for_their_return() {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let (member_key, session_key) = (keys(2).public().to_string(), keys(21).public().to_string());
    world.write(alice, &send(&session_key, "too soon"));
    assert_eq!(
        world.frames(alice).pop().unwrap()["queued"],
        false,
        "never seen"
    );
    world.write(alice, &send(&member_key, "to the member"));
    let bob = world.join(launched(2, 21, "b"));
    world.write(bob, &json!({"type": "goodbye"}));
    assert_eq!(world.closed(bob), Some(Close::GOODBYE));
    assert_eq!(world.ends(), [LeaseEnd::Goodbye]);
    world.close(bob, Closing::Clean);
    world.write(alice, &send(&session_key, "to the session"));
    world.write(alice, &send(&keys(1).public().to_string(), "to myself"));
    for (token, deferred) in world.inserts().into_iter().zip([true, true]) {
        let result = Ok(());
        world.input(Input::Stored { token, result });
        let ack = world
            .frames(alice)
            .into_iter()
            .rev()
            .find(|f| f["type"] == "ack" && f["queued"] == true);
        assert_eq!(ack.unwrap()["deferred"], deferred);
    }
    assert!(
        world
            .frames(alice)
            .iter()
            .any(|f| f["id"] == "to myself" && f["queued"] == false)
    );
    world.join(launched(2, 21, "b"));
    let asked = world
        .fx
        .iter()
        .filter(|effect| matches!(effect, Effect::Query { .. }));
    assert_eq!(
        asked.count(),
        3,
        "its own mail and its member's are read from disk"
    );
}

#[test]
fn a_goodbye_on_a_stale_socket_is_nothing() {
    let (mut world, _, bob, _) = three();
    let back = world.join(launched(2, 21, "b"));
    world.write(bob, &json!({"type": "goodbye"}));
    assert!(world.ends().is_empty());
    assert!(world.closed(back).is_none());
}

#[test]
fn whose_join_was_passed_over_is_not_said_to_leave() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    let dave = world.join(launched(3, 32, "d"));
    for n in 0..8 {
        world.write(alice, &long("*", n));
    }
    world.write(dave, &json!({"type": "goodbye"}));
    let back = world.join(launched(2, 21, "b"));
    assert!(heard(&world, back).len() < 8, "the walk waits");
    world.close(back, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    while heard(&world, back).len() < 8 {
        let (written, watermark) = (heard(&world, back).len(), world.watermark(back).unwrap());
        world.pong(back, watermark);
        assert!(heard(&world, back).len() > written);
    }
    world.confirm_all(back);
    assert!(!heard(&world, back).contains(&"peer_left".to_owned()));
}

#[test]
fn a_session_chooses_its_grace_within_bounds() {
    let mut world = World::new();
    for (wanted, given) in [(30_000, 30_000), (0, 1_000), (7_200_000, 3_600_000)] {
        let hello = |now: Wall| {
            let mut hello = launched(2, 21, "b")(now);
            hello["leaseMs"] = json!(wanted);
            hello
        };
        let bob = world.join(hello);
        assert_eq!(world.ack(bob)["leaseTtlMs"], given);
        world.close(bob, Closing::Abrupt);
        world.pass(Millis(given - 10));
        assert_eq!(world.recount(), (0, 1));
        world.pass(Millis(20));
        assert_eq!(world.recount(), (0, 0));
    }
}
