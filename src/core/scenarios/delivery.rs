//! Messages across the races of a socket's death and return.

use super::*;

pub(super) fn send(target: &str, text: &str) -> Value {
    json!({"type": "send", "id": text, "targetSpec": target, "priority": "now", "nonce": "n",
           "ciphertext": text, "client_message_id": text})
}

fn pair() -> (World, ConnId, ConnId, String) {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let bob = world.join(launched(2, 21, "b"));
    (world, alice, bob, keys(21).public().to_string())
}

fn tokens(world: &World) -> Vec<Token> {
    let messages = world
        .persisted()
        .filter(|(op, _)| matches!(op, StoreOp::MessageInsert(_)));
    messages.filter_map(|(_, token)| token).collect()
}

#[test]
fn the_push_does_not_wait_for_the_commit_and_the_ack_does() {
    let (mut world, alice, bob, key) = pair();
    world.write(alice, &send(&key, "m"));
    assert_eq!(world.texts(bob), ["m"]);
    assert!(world.frames(alice).iter().all(|f| f["type"] != "ack"));
    let token = tokens(&world)[0];
    world.input(Input::Stored {
        token,
        result: Ok(()),
    });
    let ack = world.frames(alice).pop().unwrap();
    assert_eq!(
        (ack["type"].as_str(), ack["queued"].as_bool()),
        (Some("ack"), Some(true))
    );
}

#[test]
fn what_a_dead_socket_may_have_swallowed_comes_again_first_and_in_order() {
    let (mut world, alice, bob, key) = pair();
    world.write(alice, &send(&key, "1"));
    world.write(alice, &send(&key, "2"));
    world.write(bob, &json!({"type": "client_ack", "clientMessageId": "1"}));
    world.close(bob, Closing::Abrupt);
    world.write(alice, &send(&key, "3"));
    world.write(alice, &send(&keys(2).public().to_string(), "4"));
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.texts(back), ["2", "3", "4"]);
    assert_eq!(world.frames(back)[0]["type"], "hello_ack");
}

/// Clients end a connection that pings them dozens of times before they could answer.
#[test]
fn a_client_that_does_not_read_is_pinged_a_few_times() {
    let (mut world, alice, bob, key) = pair();
    for n in 0..1000 {
        world.write(alice, &send(&key, &format!("{n} {}", "x".repeat(500))));
    }
    let pings = world
        .fx
        .iter()
        .filter(|effect| matches!(effect, Effect::Ping { conn, .. } if *conn == bob));
    assert!((1..=4).contains(&pings.count()));
    let watermark = world.watermark(bob).unwrap();
    world.pong(bob, watermark);
    world.pass(Millis(1_000));
    assert!(
        world.watermark(bob).unwrap() > watermark,
        "the rest as well"
    );
}

#[test]
fn a_pong_confirms_for_a_client_that_never_acks() {
    let (mut world, alice, bob, key) = pair();
    world.write(alice, &send(&key, "1"));
    world.pass(Millis(1_000));
    let watermark = world.watermark(bob).expect("a ping within a second");
    world.pong(bob, watermark);
    let delivered = |(op, _): &(&StoreOp, _)| matches!(op, StoreOp::MessageDelivered { .. });
    assert_eq!(world.persisted().filter(delivered).count(), 1);
    world.close(bob, Closing::Abrupt);
    let back = world.join(launched(2, 21, "b"));
    assert!(world.texts(back).is_empty());
}

/// Nothing is written down for it, and what another sender has given the same name still waits.
#[test]
fn who_confirms_what_was_said_to_all_confirms_nothing_else() {
    let (mut world, alice, bob, key) = pair();
    let carol = world.join(launched(2, 22, "c"));
    world.write(alice, &send("*", "same"));
    world.write(carol, &send(&key, "same"));
    let id = |direct: bool| {
        let frames = world.frames(bob).into_iter();
        let mut pushes = frames.filter(|f| f["type"] == "push" && f["event"].is_null());
        let push = pushes.find(|f| f["client_message_id"].is_string() == direct);
        push.unwrap()["messageId"].clone()
    };
    let (to_all, direct) = (id(false), id(true));
    let before = world.persisted().count();
    world.write(
        bob,
        &json!({"type": "client_ack", "brokerMessageId": to_all, "clientMessageId": "same"}),
    );
    assert_eq!(world.persisted().count(), before);
    world.write(
        bob,
        &json!({"type": "client_ack", "brokerMessageId": direct}),
    );
    assert_eq!(
        world.persisted().count(),
        before + 1,
        "it was still waited for"
    );
}

#[test]
fn becoming_idle_releases_what_was_held() {
    let (mut world, alice, bob, key) = pair();
    world.write(bob, &json!({"type": "set_status", "status": "working"}));
    world.write(
        alice,
        &json!({"type": "send", "id": "l", "targetSpec": key, "priority": "low",
                               "nonce": "", "ciphertext": "held"}),
    );
    world.write(alice, &send(&key, "urgent"));
    assert_eq!(world.texts(bob), ["urgent"]);
    world.pass(Millis(59_000));
    world.input(Input::Pinged { conn: bob });
    world.pass(Millis(1_000));
    assert_eq!(
        world.texts(bob),
        ["urgent", "held"],
        "a working nobody renewed runs out"
    );
}

#[test]
fn a_refused_commit_is_told_and_answers_keep_their_order() {
    let (mut world, alice, bob, key) = pair();
    world.close(bob, Closing::Abrupt);
    world.write(alice, &send(&key, "lost"));
    world.write(alice, &json!({"type": "list_peers", "_reqId": "after"}));
    assert!(world.frames(alice).iter().all(|f| f["_reqId"] != "after"));
    let token = tokens(&world)[0];
    world.input(Input::Stored {
        token,
        result: Err(crate::rows::StoreFailure::Full),
    });
    let frames = world.frames(alice);
    let ack = &frames[frames.len() - 2];
    assert_eq!(ack["queued"], false);
    assert!(
        ack["error"]
            .as_str()
            .unwrap()
            .starts_with("storage is full")
    );
    assert_eq!(frames[frames.len() - 1]["_reqId"], "after");
    let back = world.join(launched(2, 21, "b"));
    assert!(
        world.texts(back).is_empty(),
        "the sender was told to send it again"
    );
}

#[test]
fn a_status_that_waited_releases_mail_only_after_the_hello_is_answered() {
    let (mut world, alice, bob, _) = pair();
    world.write(bob, &json!({"type": "set_status", "status": "working"}));
    let to_member = keys(2).public().to_string();
    world.write(
        alice,
        &json!({"type": "send", "id": "l", "targetSpec": to_member, "priority": "low",
                "nonce": "", "ciphertext": "held"}),
    );
    assert!(world.texts(bob).is_empty());
    let status = crate::rows::Status::Idle;
    let ask = crate::input::Ask::HookPend {
        cwd: "/srv".into(),
        pid: 1,
        status,
    };
    world.input(Input::Ask {
        ticket: crate::ids::Ticket(1),
        ask,
    });
    let newcomer = world.join(member(2, None, "m"));
    assert_eq!(world.frames(newcomer)[0]["type"], "hello_ack");
    assert_eq!(world.texts(newcomer), ["held"]);
}

#[test]
fn two_key_less_sessions_of_one_member_reach_each_other() {
    let mut world = World::new();
    let first = world.join(member(1, None, "first"));
    let second = world.join(member(1, None, "second"));
    world.write(
        first,
        &send(&keys(1).public().to_string(), "to my other self"),
    );
    assert_eq!(world.texts(second), ["to my other self"]);
    assert!(world.texts(first).is_empty());
}

#[test]
fn mail_that_the_disk_does_not_give_is_asked_for_again() {
    let mut world = World::new();
    let target = keys(21).public();
    world.input(Input::Boot(BootRow::Mailbox(crate::rows::MailboxRow {
        mesh_id: MESH.into(),
        target,
    })));
    let queries = |world: &World| -> Vec<Token> {
        let asked = world.fx.iter().filter_map(|effect| match effect {
            Effect::Query { token, .. } => Some(*token),
            _ => None,
        });
        asked.collect()
    };
    world.join(launched(2, 21, "b"));
    assert_eq!(queries(&world).len(), 1);
    let token = queries(&world)[0];
    let result = Err(crate::rows::StoreFailure::Full);
    world.input(Input::Answered { token, result });
    world.pass(Millis(999));
    assert_eq!(queries(&world).len(), 1);
    world.pass(Millis(11));
    assert_eq!(queries(&world).len(), 2);
}

#[test]
fn a_ban_is_in_effect_at_once_and_answered_when_it_is_durable() {
    let (mut world, alice, bob, _) = pair();
    let mut admin = member_row(1, "alice");
    admin.admin = true;
    world.input(Input::MemberPut(Box::new(admin)));
    for (request, kind) in [("ban", "ban_ack"), ("unban", "unban_ack")] {
        world.disk_held = true;
        world.write(
            alice,
            &json!({"type": request, "target": "bob", "_reqId": "r"}),
        );
        assert!(world.frames(alice).iter().all(|f| f["type"] != kind));
        assert_eq!(world.closed(bob), Some(Close::BANNED));
        world.disk_held = false;
        world.pass(Millis(1));
        assert!(world.frames(alice).iter().any(|f| f["type"] == kind));
    }
}

#[test]
fn a_ban_that_the_disk_refuses_is_said_to_be_in_effect() {
    let (mut world, alice, bob, _) = pair();
    let mut admin = member_row(1, "alice");
    admin.admin = true;
    world.input(Input::MemberPut(Box::new(admin)));
    world.disk_held = true;
    world.write(
        alice,
        &json!({"type": "ban", "target": "bob", "_reqId": "r"}),
    );
    let token = world.persisted().find_map(|(op, token)| {
        matches!(op, StoreOp::MemberRevoked { .. })
            .then_some(token)
            .flatten()
    });
    let (token, result) = (token.unwrap(), Err(crate::rows::StoreFailure::Full));
    world.input(Input::Stored { token, result });
    let answer = world.frames(alice).pop().unwrap();
    assert_eq!(
        (&answer["code"], &answer["_reqId"]),
        (&json!("storage"), &json!("r"))
    );
    assert_eq!(world.closed(bob), Some(Close::BANNED));
}

#[test]
fn a_repeated_hello_is_answered_behind_what_waits() {
    let (mut world, alice, _, key) = pair();
    world.write(alice, &send(&key, "m"));
    let hello = launched(3, 31, "other")(world.now.wall);
    world.write(alice, &hello);
    assert!(
        world
            .frames(alice)
            .iter()
            .all(|f| f["code"] != "already_joined")
    );
    let (token, result) = (tokens(&world)[0], Ok(()));
    world.input(Input::Stored { token, result });
    let last: Vec<_> = world.frames(alice).into_iter().rev().take(2).collect();
    assert_eq!(
        (&last[1]["type"], &last[0]["code"]),
        (&json!("ack"), &json!("already_joined"))
    );
}

#[test]
fn stats_are_numbers_that_every_peer_can_read() {
    let (mut world, alice, bob, _) = pair();
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for stats in [deep.as_str(), r#"{"x":"\ud800"}"#, r#"{"x":{}}"#] {
        let text = format!(r#"{{"type":"set_stats","stats":{stats},"_reqId":"s"}}"#);
        world.input(Input::Frame {
            conn: bob,
            text: &text,
        });
        let last = world.frames(bob).pop().unwrap();
        assert_eq!(last["code"], "invalid_argument", "{stats}");
    }
    world.write(
        bob,
        &json!({"type": "set_stats", "stats": {"messagesIn": 3, "uptime": 1.5}}),
    );
    world.write(alice, &json!({"type": "list_peers", "_reqId": "l"}));
    let list = world.frames(alice).pop().unwrap();
    let shown = list["peers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["stats"].is_object());
    assert_eq!(
        shown.unwrap()["stats"],
        json!({"messagesIn": 3, "uptime": 1.5})
    );
}

#[test]
fn nothing_happens_to_sockets_that_were_told_to_close() {
    let (mut world, _, _, _) = pair();
    world.input(Input::Shutdown);
    let before = world.fx.len();
    world.pass(Millis(200_000));
    assert_eq!(world.fx.len(), before);
}

#[test]
fn what_is_on_disk_comes_before_what_was_kept_in_memory_behind_it() {
    let (mut world, alice, bob, key) = pair();
    world.write(bob, &json!({"type": "set_status", "status": "working"}));
    let in_memory = crate::limits::MAILBOX_MESSAGES_MAX;
    let send = |world: &mut World, priority: &str| {
        world.write(
            alice,
            &json!({"type": "send", "id": "x", "targetSpec": key, "priority": priority,
                    "nonce": "", "ciphertext": priority}),
        );
    };
    (0..=in_memory).for_each(|_| send(&mut world, "low"));
    world.close(bob, Closing::Abrupt);
    send(&mut world, "now");
    // Nobody renews the status, so it runs out during grace.
    world.pass_with(&[alice], Millis::secs(70));
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.texts(back), vec!["low"; in_memory]);
}

#[test]
fn a_message_never_returns_to_its_sender_that_inherits_the_key() {
    let mut world = World::new();
    let launched = world.join(launched(2, 21, "l"));
    let claimant = world.join(member(2, Some(21), "c"));
    world.write(claimant, &send(&keys(21).public().to_string(), "m"));
    assert_eq!(world.texts(launched), ["m"]);
    world.close(launched, Closing::Abrupt);
    world.pass_with(&[claimant], Millis(90_010));
    assert_eq!(world.ends(), [LeaseEnd::Expired]);
    assert!(world.texts(claimant).is_empty());
}

#[test]
fn mail_that_only_its_sender_could_take_keeps_back_nobody_elses() {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let flooder = world.join(launched(2, 21, "f"));
    let sibling = world.join(launched(2, 22, "s"));
    let to_bob = keys(2).public().to_string();
    world.close(sibling, Closing::Abrupt);
    let total = 2 * crate::limits::MAILBOX_MESSAGES_MAX as u64;
    (0..total).for_each(|n| world.write(flooder, &send(&to_bob, &format!("own {n}"))));
    world.pass_with(&[alice, flooder], Millis(90_010));
    world.write(alice, &send(&to_bob, "from alice"));
    world.answer_mailboxes();
    assert_eq!(world.texts(flooder), ["from alice"]);
    let sibling = world.join(launched(2, 22, "s"));
    world.answer_mailboxes();
    let texts = world.texts(sibling);
    assert_eq!(texts.len() as u64, total, "read again from the beginning");
    assert_eq!(texts.last().map(String::as_str), Some("own 511"));
}

#[test]
fn nothing_overtakes_mail_that_a_busy_sibling_kept_on_disk() {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let other = world.join(launched(2, 21, "other"));
    let busy = world.join(launched(2, 22, "busy"));
    let keyless = world.join(member(2, None, "keyless"));
    let to_bob = keys(2).public().to_string();
    let low = |text: &str| {
        let mut frame = send(&to_bob, text);
        frame["priority"] = "low".into();
        frame
    };
    world.write(busy, &json!({"type": "set_status", "status": "dnd"}));
    let in_memory = crate::limits::MAILBOX_MESSAGES_MAX;
    (0..=in_memory).for_each(|n| world.write(other, &low(&format!("own {n}"))));
    world.write(alice, &low("from alice"));
    world.write(busy, &json!({"type": "set_status", "status": "idle"}));
    world.write(alice, &send("*", "to all"));
    assert!(world.texts(keyless).is_empty(), "it is being read");
    world.answer_mailboxes();
    assert_eq!(world.texts(keyless), ["from alice", "to all"]);
}

#[test]
fn a_member_revoked_after_shutdown_touches_no_socket() {
    let (mut world, alice, bob, key) = pair();
    let sibling = world.join(launched(2, 22, "sibling"));
    world.write(alice, &send(&keys(2).public().to_string(), "to the member"));
    world.write(alice, &send(&key, "to the session"));
    world.input(Input::Shutdown);
    let before = world.fx.len();
    for conn in [bob, sibling] {
        world.close(conn, Closing::Clean);
    }
    let mut row = member_row(2, "bob");
    row.revoked_at = Some(world.now.wall);
    world.input(Input::MemberPut(Box::new(row)));
    world.pass(Millis(1));
    let written = world.fx.iter().skip(before).filter(|effect| {
        matches!(
            effect,
            Effect::Send { .. } | Effect::Close { .. } | Effect::Abort { .. } | Effect::Ping { .. }
        )
    });
    assert_eq!(written.count(), 0);
    assert_eq!(world.ends(), [LeaseEnd::Banned, LeaseEnd::Banned]);
}

#[test]
fn what_others_asked_for_before_is_answered_when_it_is_durable_too() {
    let (mut world, alice, bob, _) = pair();
    for (request, again, reply) in [
        (
            json!({"type": "create_stream", "name": "logs"}),
            bob,
            "stream_created",
        ),
        (
            json!({"type": "topic_create", "name": "plans"}),
            bob,
            "topic_created",
        ),
        (
            json!({"type": "subscribe", "stream": "logs"}),
            alice,
            "subscribed",
        ),
    ] {
        world.disk_held = true;
        let of = |world: &World, conn| {
            let frames = world.frames(conn).into_iter();
            frames.filter(|frame| frame["type"] == reply).count()
        };
        world.write(alice, &request);
        world.write(again, &request);
        assert_eq!((of(&world, alice), of(&world, again)), (0, 0), "{reply}");
        world.disk_held = false;
        world.store_rows();
        assert!(of(&world, alice) >= 1 && of(&world, again) >= 1, "{reply}");
    }
}
