//! Messages both ways, requests, and what a session is to be.

use super::*;
use crate::client::Push;

fn acknowledged(id: &str) -> Event {
    Event::Acknowledged {
        client_message_id: id.to_owned(),
        message_id: format!("m-{id}"),
        deferred: false,
    }
}

#[test]
fn an_unanswered_send_is_sent_again_with_the_same_id_and_ends_once() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("a")));
    let first = bench.written();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["client_message_id"], "a");
    assert_eq!(first[0]["id"], "a", "by which the ack is known");
    bench.cut();
    bench.command(Command::Send(message("b")));
    assert_eq!(bench.out, [], "there is nobody to tell");
    bench.command(Command::Send(message("a")));
    assert_eq!(bench.out, [], "it waits already");
    bench.attach(&json!({"reattached": true}));
    let again = bench.written();
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], first[0]);
    assert_eq!(again[1]["client_message_id"], "b");
    bench.frame(&ack("a"));
    assert_eq!(bench.events(), [acknowledged("a")]);
    bench.frame(&ack("a"));
    assert!(
        matches!(bench.events()[..], [Event::Frame(_)]),
        "no second end"
    );
    bench.cut();
    bench.attach(&json!({}));
    assert_eq!(bench.written(), again[1..], "only b is sent again");
    bench.frame(&ack("b"));
    assert_eq!(bench.events(), [acknowledged("b")]);
    bench.cut();
    bench.attach(&json!({}));
    assert!(bench.written().is_empty());
}

#[test]
fn a_refused_send_is_over() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("a")));
    let mut refusal = ack("a");
    refusal["error"] = "rate_limit".into();
    bench.frame(&refusal);
    let refused = Event::Refused {
        client_message_id: "a".to_owned(),
        error: "rate_limit".to_owned(),
    };
    assert_eq!(bench.events(), [refused]);
    bench.cut();
    bench.attach(&json!({}));
    assert!(bench.written().is_empty());
}

#[test]
fn a_full_queue_refuses() {
    let settings = Settings {
        unacknowledged: 2,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings);
    for id in ["a", "b"] {
        bench.command(Command::Send(message(id)));
        assert_eq!(bench.out, []);
    }
    bench.command(Command::Send(message("c")));
    assert_eq!(bench.refused(), "c");
    bench.attach(&json!({}));
    assert_eq!(bench.written().len(), 2);
    bench.frame(&ack("a")).command(Command::Send(message("c")));
    assert_eq!(bench.written().len(), 1, "there is room again");
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let settings = Settings {
        unacknowledged_bytes: 400,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings);
    let mut large = message("a");
    large.ciphertext = "x".repeat(400);
    bench.command(Command::Send(large));
    assert_eq!(bench.refused(), "a");
    for _ in 0..10 {
        // What is acknowledged makes room.
        bench.command(Command::Send(message("b")));
        bench.command(Command::Send(message("c")));
        assert_eq!(bench.out, []);
        bench.attach(&json!({}));
        bench.frame(&ack("c")).frame(&ack("b")).cut();
    }
}

#[test]
fn a_message_too_big_is_not_sent_for_ever() {
    let mut bench = Bench::attached(Settings::default());
    let mut large = message("b");
    large.ciphertext = "x".repeat(100);
    for message in [message("a"), large, message("c")] {
        bench.command(Command::Send(message));
    }
    let (code, reason) = (1009, "message too big");
    bench.give(Input::Closed { code, reason });
    assert_eq!(bench.refused(), "b");
    assert!(matches!(bench.lost(), (Loss::Closed { .. }, Some(_))));
    bench.attach(&json!({"reattached": true}));
    let ids: Vec<Value> = bench
        .written()
        .iter()
        .map(|sent| sent["id"].clone())
        .collect();
    assert_eq!(ids, ["a", "c"]);
}

#[test]
fn a_message_without_an_id_is_refused() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("")));
    assert_eq!(bench.refused(), "");
}

#[test]
fn the_end_refuses_what_is_unanswered() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("a")));
    let (code, reason) = (4001, "kicked");
    bench.give(Input::Closed { code, reason });
    assert_eq!(bench.refused(), "a");
    assert!(matches!(bench.events()[1..], [Event::Gone(_)]));
    bench.command(Command::Send(message("b")));
    assert_eq!(bench.refused(), "b");
}

#[test]
fn a_push_is_told_once_and_confirmed_each_time() {
    let mut bench = Bench::attached(Settings::default());
    bench.frame(&pushed("m1"));
    assert!(matches!(&bench.events()[..], [Event::Message(m)] if m.message_id == "m1"));
    let confirmation = bench.written();
    let wanted = json!({"type": "client_ack", "clientMessageId": "m1", "brokerMessageId": "m1"});
    assert_eq!(confirmation, [wanted]);
    bench.cut();
    bench.attach(&json!({"reattached": true}));
    bench.frame(&pushed("m1"));
    let (message_id, push) = ("m1".to_owned(), Push::Message);
    assert_eq!(bench.events(), [Event::Repeated { message_id, push }]);
    assert_eq!(bench.written(), confirmation);
    let mut direct = pushed("m2");
    direct["client_message_id"] = "theirs".into();
    bench.frame(&direct);
    assert_eq!(bench.written()[0]["clientMessageId"], "theirs");
}

#[test]
fn the_memory_of_pushes_is_bounded() {
    let settings = Settings {
        remembered: 2,
        ..Settings::default()
    };
    let mut bench = Bench::attached(settings);
    for id in ["a", "b", "c"] {
        bench.frame(&pushed(id));
        assert!(matches!(bench.events()[..], [Event::Message(_)]));
    }
    for id in ["b", "c"] {
        bench.frame(&pushed(id));
        assert!(matches!(bench.events()[..], [Event::Repeated { .. }]));
    }
    bench.frame(&pushed("a"));
    assert!(
        matches!(bench.events()[..], [Event::Message(_)]),
        "forgotten"
    );
}

#[test]
fn confirming_can_be_switched_off() {
    let settings = Settings {
        confirm: false,
        ..Settings::default()
    };
    let mut bench = Bench::attached(settings);
    bench.frame(&pushed("m"));
    assert!(bench.written().is_empty() && bench.events().len() == 1);
}

#[test]
fn peers_are_told_of_once() {
    let left = |id: &str| {
        json!({"type": "push", "subtype": "system", "event": "peer_left",
            "eventData": {"name": "bob", "pubkey": "k"}, "messageId": id})
    };
    let mut bench = Bench::attached(Settings::default());
    bench.frame(&left("1"));
    assert!(matches!(&bench.events()[..], [Event::Peer(peer)] if peer.name == "bob"));
    assert!(bench.written().is_empty(), "nobody confirms these");
    bench.frame(&left("1"));
    let (message_id, push) = ("1".to_owned(), Push::Peer);
    assert_eq!(bench.events(), [Event::Repeated { message_id, push }]);
    let mut tick = left("2");
    tick["event"] = "tick".into();
    bench.frame(&tick);
    assert_eq!(bench.events(), [Event::Frame(tick)]);
}

#[test]
fn requests_are_written_once_or_not_at_all() {
    let request = json!({"type": "list_peers", "_reqId": "r"});
    let unsent = |bench: &Bench| match &bench.events()[..] {
        [Event::Unsent { req_id, .. }] => req_id.clone(),
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Request(request.clone()));
    assert_eq!(unsent(&bench).as_deref(), Some("r"));
    bench.attach(&json!({}));
    assert!(bench.written().is_empty());
    bench.command(Command::Request(request.clone()));
    assert_eq!(bench.written(), [request]);
    bench.command(Command::Request(json!([])));
    assert_eq!(unsent(&bench), None);
    let mut error = refused("unsupported");
    error["_reqId"] = "r".into();
    bench.frame(&error);
    let req_id = match &bench.events()[..] {
        [Event::Error { req_id, .. }] => req_id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(req_id.as_deref(), Some("r"));
}

#[test]
fn what_a_session_is_to_be_is_said_until_it_is_known() {
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::SetStatus(Status::Working));
    assert_eq!(bench.out, []);
    bench.attach(&json!({}));
    let working = json!({"type": "set_status", "status": "working"});
    assert_eq!(bench.written(), *std::slice::from_ref(&working));
    let Some(Output::Write(Frame::Ping(proof))) = bench.out.last().cloned() else {
        panic!("{:?}", bench.out);
    };
    bench.cut();
    bench.attach(&json!({"reattached": true}));
    assert_eq!(
        bench.written(),
        *std::slice::from_ref(&working),
        "it may not have arrived"
    );
    bench.give(Input::Pong(&proof)).cut();
    bench.attach(&json!({"reattached": true}));
    assert!(bench.written().is_empty(), "the lease knows");
    let (name, role) = ("a/b".to_owned(), Some("lead".to_owned()));
    bench.command(Command::JoinGroup { name, role });
    let joined = json!({"type": "join_group", "name": "a/b", "role": "lead"});
    assert_eq!(bench.written(), *std::slice::from_ref(&joined));
    bench.give(Input::Pong(&proof)).cut();
    bench.attach(&json!({"reattached": true}));
    let both = [working.clone(), joined];
    assert_eq!(bench.written(), both, "an older pong proves less");
    let name = "a/b".to_owned();
    bench.command(Command::LeaveGroup { name }).cut();
    bench.attach(&json!({"reattached": false}));
    let left = json!({"type": "leave_group", "name": "a/b"});
    assert_eq!(
        bench.written(),
        [working, left],
        "a new lease knows nothing"
    );
}

#[test]
fn groups_are_bounded() {
    let mut bench = Bench::attached(Settings::default());
    let join = |n: u32| Command::JoinGroup {
        name: n.to_string(),
        role: None,
    };
    for n in 0..256 {
        bench.command(join(n));
        assert_eq!(bench.written().len(), 1);
    }
    bench.command(join(256));
    assert!(matches!(bench.events()[..], [Event::Unsent { .. }]));
    bench.command(join(0));
    assert_eq!(bench.written().len(), 1, "a known one may change");
}
