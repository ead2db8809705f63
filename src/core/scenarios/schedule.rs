//! Messages to be sent later (protocol.md §16): exactly once, at their time, whoever is there.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::missed::three;
use super::*;
use crate::limits::{CRON_BYTES_MAX, SCHEDULED_BYTES_MAX, SCHEDULES_MAX};

const HOUR: Millis = Millis::secs(3600);

fn schedule(to: &str, message: &str, at: Wall) -> Value {
    json!({"type": "schedule", "to": to, "message": message, "deliverAt": at.0, "_reqId": "s"})
}

fn key(session: u8) -> String {
    keys(session).public().to_string()
}

impl World {
    /// What a socket answered last.
    pub(super) fn last(&self, conn: ConnId) -> Value {
        self.frames(conn).pop().unwrap_or(Value::Null)
    }

    /// Asks on a socket; gives the answer.
    fn asks(&mut self, conn: ConnId, frame: &Value) -> Value {
        self.write(conn, frame);
        self.last(conn)
    }

    /// What was sent to a socket, as it was before it was encoded.
    fn said(&self, conn: ConnId) -> Vec<String> {
        let texts = self.texts(conn).into_iter();
        texts
            .map(|text| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap())
            .collect()
    }

    fn list(&mut self, conn: ConnId) -> Vec<Value> {
        let list = self.asks(conn, &json!({"type": "list_scheduled", "_reqId": "l"}));
        assert_eq!(
            (&list["type"], &list["_reqId"]),
            (&json!("scheduled_list"), &json!("l"))
        );
        list["messages"].as_array().unwrap().clone()
    }

    /// Only the wall clock moves.
    fn set_wall(&mut self, wall: Wall) {
        self.now.wall = wall;
        self.pass(Millis(0));
    }
}

#[test]
fn it_is_sent_at_its_time_to_whom_it_is_for_and_acknowledged_to_its_author() {
    let (mut world, alice, bob, carol) = three();
    let at = world.now.wall.after(HOUR);
    let ack = world.asks(alice, &schedule(&key(21), "later", at));
    assert_eq!(ack["type"], "scheduled_ack");
    assert_eq!(
        (&ack["deliverAt"], &ack["_reqId"]),
        (&json!(at.0), &json!("s"))
    );
    let listed = world.list(alice);
    assert_eq!(listed[0]["id"], ack["scheduledId"]);
    assert_eq!(listed[0]["to"], key(21));
    assert_eq!(listed[0]["message"], "later");
    assert!(listed[0].get("cron").is_none() && listed[0].get("firedCount").is_none());
    world.pass_with(&[alice, bob, carol], Millis(HOUR.0 - 1));
    assert!(world.said(bob).is_empty(), "not early");
    world.pass(Millis(crate::wheel::TICK.0 + 1));
    assert_eq!(world.said(bob), ["later"]);
    let push = world.last(bob);
    assert_eq!(
        (&push["priority"], &push["nonce"]),
        (&json!("now"), &json!(""))
    );
    assert_eq!(push["senderPubkey"], key(11));
    assert!(push.get("subtype").is_none());
    let ack = world.last(alice);
    assert_eq!(
        (&ack["type"], &ack["queued"]),
        (&json!("ack"), &json!(true))
    );
    assert_eq!(ack["messageId"], push["messageId"]);
    assert!(world.list(alice).is_empty());
    world.pass_with(&[alice, bob, carol], HOUR);
    assert_eq!(world.said(bob), ["later"], "once");
    assert!(world.said(carol).is_empty());
}

#[test]
fn far_off_is_exact_and_past_or_missing_is_at_once() {
    let (mut world, alice, bob, carol) = three();
    let days = Millis(30 * 24 * HOUR.0);
    world.write(
        alice,
        &schedule(&key(21), "far", world.now.wall.after(days)),
    );
    world.write(alice, &schedule(&key(21), "past", Wall(1)));
    world.write(
        alice,
        &json!({"type": "schedule", "to": key(21), "message": "now"}),
    );
    world.pass(crate::wheel::TICK);
    assert_eq!(world.said(bob), ["past", "now"]);
    for conn in [alice, bob, carol] {
        world.close(conn, Closing::Abrupt);
    }
    world.pass(Millis(days.0 - 1000));
    assert_eq!(world.schedules().len(), 1);
    world.pass(Millis(1000));
    assert!(world.schedules().is_empty());
    let bob = world.join(launched(2, 21, "b"));
    world.answer_mailboxes();
    assert_eq!(
        world.said(bob),
        ["past", "now", "far"],
        "unconfirmed or waiting for who is away"
    );
}

#[test]
fn a_reminder_says_so_and_is_durable_for_who_is_away() {
    let (mut world, alice, bob, _) = three();
    let mut frame = schedule(&key(21), "tea", world.now.wall.after(Millis(500)));
    frame["subtype"] = "reminder".into();
    world.write(alice, &frame);
    let mut to_all = schedule("*", "cake", world.now.wall.after(Millis(500)));
    to_all["subtype"] = "reminder".into();
    world.write(alice, &to_all);
    world.close(bob, Closing::Abrupt);
    world.pass(Millis(1000));
    let bob = world.join(launched(2, 21, "b"));
    assert_eq!(world.said(bob), ["tea", "cake"]);
    let frames = world.frames(bob);
    let pushes = frames.iter().filter(|f| f["type"] == "push");
    assert!(pushes.into_iter().all(|f| f["subtype"] == "reminder"));
    world.close(bob, Closing::Abrupt);
    let bob = world.join(launched(2, 21, "b"));
    assert_eq!(world.said(bob), ["tea", "cake"], "nobody confirmed it");
}

#[test]
fn it_is_sent_though_its_author_is_gone() {
    let (mut world, _, bob, _) = three();
    let author = world.join(member(1, Some(12), "cli"));
    world.write(
        author,
        &schedule(&key(21), "gone", world.now.wall.after(Millis::secs(10))),
    );
    world.close(author, Closing::Clean);
    world.pass(Millis::secs(11));
    assert_eq!(world.said(bob), ["gone"]);
    assert_eq!(world.last(bob)["senderPubkey"], key(12));
}

#[test]
fn a_throw_away_connection_that_names_itself_means_its_member() {
    let mut world = World::new();
    let daemon = world.join(member(1, None, "daemon"));
    let author = world.join(member(1, Some(12), "cli"));
    let at = world.now.wall.after(Millis::secs(10));
    world.write(author, &schedule(&key(12), "self", at));
    assert_eq!(
        world.list(author)[0]["to"],
        key(12),
        "listed as it was asked for"
    );
    world.close(author, Closing::Clean);
    let session = world.join(launched(1, 11, "a"));
    world.pass(Millis::secs(11));
    assert_eq!(world.said(session), ["self"], "sessions come first");
    assert!(world.said(daemon).is_empty());
    assert_eq!(world.last(session)["senderPubkey"], key(1));
    let push = world.last(session);
    assert!(
        push.get("senderMemberPubkey").is_none(),
        "its daemon would drop it"
    );

    let at = world.now.wall.after(Millis::secs(10));
    world.write(session, &schedule(&key(11), "me", at));
    world.pass(Millis::secs(11));
    assert_eq!(
        world.said(session),
        ["self", "me"],
        "a session may remind itself"
    );
}

#[test]
fn a_reminder_to_oneself_waits_for_any_session_of_the_member() {
    let mut world = World::new();
    let author = world.join(member(1, Some(12), "cli"));
    let at = world.now.wall.after(Millis::secs(10));
    world.write(author, &schedule(&key(12), "self", at));
    world.close(author, Closing::Clean);
    world.pass(Millis::secs(11));
    let daemon = world.join(member(1, None, "daemon"));
    world.answer_mailboxes();
    assert_eq!(world.said(daemon), ["self"]);
}

#[test]
fn cron_repeats_and_a_restart_loses_no_count() {
    let (mut world, alice, bob, _) = three();
    let frame = json!({"type": "schedule", "to": "*", "message": "tick", "cron": "*/5 * * * *"});
    let ack = world.asks(alice, &frame);
    assert_eq!(ack["cron"], "*/5 * * * *");
    let first = ack["deliverAt"].as_i64().unwrap();
    assert!(first > world.now.wall.0 && first % 300_000 == 0);
    assert_eq!(world.list(alice)[0]["firedCount"], 0);
    world.pass_with(&[alice, bob], Millis::secs(900));
    assert_eq!(world.said(bob), ["tick"; 3]);
    let listed = world.list(alice);
    assert_eq!(listed[0]["firedCount"], 3);
    assert_eq!(listed[0]["deliverAt"], first + 900_000);
    let mut after = world.restart();
    let back = after.join(launched(1, 11, "a"));
    assert_eq!(after.list(back)[0]["firedCount"], 3);
    let bob = after.join(launched(2, 21, "b"));
    let told = after.said(bob).len();
    after.pass_with(&[back, bob], Millis::secs(300));
    assert_eq!(after.said(bob).len(), told + 1);
}

#[test]
fn what_fell_due_while_the_broker_was_down_is_sent_once_and_cron_waits() {
    let (mut world, alice, bob, _) = three();
    let at = world.now.wall.after(Millis::secs(60));
    world.write(alice, &schedule(&key(21), "overdue", at));
    world.write(
        alice,
        &json!({"type": "schedule", "to": key(21), "message": "cron", "cron": "* * * * *"}),
    );
    world.close(bob, Closing::Abrupt);
    world.now.wall = world.now.wall.after(HOUR);
    world.now.mono = world.now.mono.after(HOUR);
    let mut after = world.restart();
    after.pass(crate::wheel::TICK);
    let bob = after.join(launched(2, 21, "b"));
    after.answer_mailboxes();
    assert_eq!(after.said(bob), ["overdue"]);
    assert!(after.schedules().iter().all(|row| row.cron.is_some()));
    let again = after.restart();
    assert_eq!(again.schedules().len(), 1, "not again after the next start");
}

#[test]
fn the_wall_clock_may_be_put_back_or_forward() {
    let (mut world, alice, bob, carol) = three();
    let now = world.now.wall;
    world.write(alice, &schedule(&key(21), "one", now.after(HOUR)));
    world.set_wall(Wall(now.0 - 24 * 3_600_000));
    world.pass_with(&[alice, bob, carol], Millis(2 * HOUR.0));
    assert!(world.said(bob).is_empty(), "not early");
    world.set_wall(now.after(HOUR));
    world.pass(crate::limits::SCHEDULES_WATCHED);
    assert_eq!(world.said(bob), ["one"], "nor lost");
}

#[test]
fn bad_requests_are_told_why() {
    let (mut world, alice, ..) = three();
    let at = world.now.wall.after(HOUR).0;
    for (frame, code, about) in [
        (
            json!({"message": "m", "deliverAt": at}),
            "invalid_argument",
            "to",
        ),
        (
            json!({"to": "*", "deliverAt": at}),
            "invalid_argument",
            "message",
        ),
        (
            json!({"to": "*", "message": 5}),
            "invalid_argument",
            "message",
        ),
        (
            json!({"to": "nobody", "message": "m"}),
            "invalid_argument",
            "to",
        ),
        (
            json!({"to": "*", "message": "m", "deliverAt": "x"}),
            "invalid_argument",
            "deliverAt",
        ),
        (
            json!({"to": "*", "message": "m", "deliverAt": 1e300}),
            "invalid_argument",
            "deliverAt",
        ),
        (
            json!({"to": "*", "message": "m", "subtype": "x"}),
            "invalid_argument",
            "subtype",
        ),
        (
            json!({"to": "*", "message": "m", "cron": 5}),
            "invalid_argument",
            "cron",
        ),
        (
            json!({"to": "*", "message": "m", "cron": "bad"}),
            "invalid_cron",
            "Invalid cron expression: bad",
        ),
        (
            json!({"to": "*", "message": "x".repeat(60_000)}),
            "limit",
            "MAX_MESSAGE_BYTES=65536",
        ),
    ] {
        let mut frame = frame;
        frame["type"] = "schedule".into();
        frame["_reqId"] = "q".into();
        let answer = world.asks(alice, &frame);
        assert_eq!(
            (&answer["code"], &answer["_reqId"]),
            (&json!(code), &json!("q")),
            "{answer}"
        );
        assert!(
            answer["message"].as_str().unwrap().contains(about),
            "{answer}"
        );
    }
}

#[test]
fn an_answer_is_short_and_what_is_unknown_is_not_cancelled() {
    let (mut world, alice, ..) = three();
    let long = json!({"type": "schedule", "to": "*", "message": "m", "cron": "* ".repeat(1 << 20)});
    let answer = world.asks(alice, &long);
    assert!(answer["message"].as_str().unwrap().len() < 2 * CRON_BYTES_MAX);
    let answer = world.asks(alice, &json!({"type": "cancel_scheduled", "_reqId": "q"}));
    assert_eq!(answer["code"], "invalid_argument");
    let unknown = json!({"type": "cancel_scheduled", "scheduledId": "nope", "_reqId": "q"});
    let answer = world.asks(alice, &unknown);
    assert_eq!(answer["type"], "cancel_scheduled_ack");
    assert_eq!(
        (&answer["scheduledId"], &answer["ok"]),
        (&json!("nope"), &json!(false))
    );
}

#[test]
fn what_is_scheduled_its_member_may_cancel_and_nobody_else() {
    let (mut world, alice, bob, _) = three();
    let at = world.now.wall.after(HOUR).0;
    let ack = world.asks(alice, &schedule("*", "m", Wall(at)));
    let cancel =
        json!({"type": "cancel_scheduled", "scheduledId": ack["scheduledId"], "_reqId": "q"});
    let answer = world.asks(bob, &cancel);
    assert_eq!(
        (&answer["code"], &answer["_reqId"]),
        (&json!("forbidden"), &json!("q"))
    );
    assert!(world.list(bob).is_empty(), "of others nothing is shown");
    let sibling = world.join(launched(1, 12, "a2"));
    assert_eq!(
        world.asks(sibling, &cancel)["ok"],
        true,
        "it belongs to the member"
    );
    assert_eq!(world.asks(alice, &cancel)["ok"], false);
    assert!(world.schedules().is_empty());
    world.pass_with(&[alice, bob], HOUR);
    assert!(world.said(bob).is_empty());
}

#[test]
fn a_member_schedules_so_many_and_so_much() {
    let (mut world, alice, bob, _) = three();
    let at = world.now.wall.after(HOUR);
    for _ in 0..SCHEDULES_MAX {
        world.write(alice, &schedule("*", "m", at));
    }
    let answer = world.asks(alice, &schedule("*", "m", at));
    assert_eq!(answer["code"], "limit");
    assert!(answer["message"].as_str().unwrap().contains("1000"));
    let long = "x".repeat(40_000);
    for _ in 0..SCHEDULED_BYTES_MAX / 40_000 {
        assert_eq!(
            world.asks(bob, &schedule("*", &long, at))["type"],
            "scheduled_ack"
        );
    }
    assert_eq!(world.asks(bob, &schedule("*", &long, at))["code"], "limit");
}

#[test]
fn nothing_is_promised_before_it_is_on_disk_and_nothing_sent_waits_for_it() {
    let (mut world, alice, bob, _) = three();
    world.disk_held = true;
    world.write(alice, &schedule(&key(21), "one", Wall(1)));
    world.pass(Millis::secs(1));
    assert_ne!(world.last(alice)["type"], "scheduled_ack");
    assert!(world.said(bob).is_empty());
    let token = world.persisted().find_map(|(op, token)| match op {
        StoreOp::SchedulePut(_) => token,
        _ => None,
    });
    let result = Err(crate::rows::StoreFailure::Full);
    world.input(Input::Stored {
        token: token.unwrap(),
        result,
    });
    assert_eq!(world.last(alice)["code"], "storage");
    assert!(world.list(alice).is_empty());
    world.disk_held = false;
    world.stored = world.fx.len();
    world.write(alice, &schedule(&key(21), "two", Wall(1)));
    world.disk_held = true;
    world.pass(Millis::secs(1));
    assert_eq!(world.said(bob), ["two"]);
    let fired = world.persisted().find_map(|(op, token)| match op {
        StoreOp::ScheduleFired { sent, next, .. } => Some((sent.is_some(), *next, token)),
        _ => None,
    });
    let (sent, next, token) = fired.unwrap();
    assert_eq!(
        (sent, next),
        (true, None),
        "the message and the mark are one operation"
    );
    assert!(token.is_some(), "its author hears when it is durable");
}

#[test]
fn a_member_that_is_banned_or_blocked_sends_nothing() {
    let (mut world, alice, bob, carol) = three();
    let at = world.now.wall.after(Millis::secs(10));
    world.write(bob, &schedule(&key(11), "banned", at));
    world.write(bob, &schedule(&"ab".repeat(32), "nobody", world.now.wall));
    world.pass(crate::wheel::TICK);
    let refused = world.last(bob);
    assert_eq!(
        (&refused["type"], &refused["queued"]),
        (&json!("ack"), &json!(false))
    );
    world.write(bob, &schedule("#nowhere", "nobody", world.now.wall));
    world.pass(crate::wheel::TICK);
    let error = "topic_not_found: topic \"nowhere\" not found";
    assert_eq!(world.last(bob)["error"], error);
    world.write(alice, &json!({"type": "ban", "target": "bob"}));
    world.pass_with(&[alice, carol], Millis::secs(20));
    assert!(world.said(alice).is_empty());
    assert!(world.schedules().is_empty());
}
