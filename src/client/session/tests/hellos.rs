//! Connecting, greeting, being welcome, coming back.

use super::*;

fn read_hello(frame: &Value, now: Now) -> Hello {
    let text = frame.to_string();
    let fields = Fields::parse(&text).unwrap();
    let hello = match frame["type"].as_str().unwrap() {
        "hello" => Hello::member(&fields, now.wall, None).unwrap(),
        "session_hello" => Hello::session(&fields, now.wall, None).unwrap(),
        other => panic!("{other} is no hello"),
    };
    hello.verify().unwrap();
    hello
}

#[test]
fn every_kind_of_hello_is_accepted_by_the_broker() {
    let keys = Arc::new(KeyPair::from_seed([1; 32]));
    let session = KeyPair::from_seed([2; 32]);
    let until = Wall(WALL).after(Millis::secs(3600));
    let given = Voucher::Given(Attestation::sign(&keys, session.public(), until));
    let one_shot = Identity::one_shot("mesh", "mem", Arc::clone(&keys), session.clone());
    let own = launched(Voucher::Keys(Arc::clone(&keys)));
    let key = Some(session.public());
    for (identity, session_key) in [
        (member(), None),
        (one_shot, key),
        (own, key),
        (launched(given), key),
    ] {
        let mut bench = Bench::of(Settings::default(), identity);
        let hello = bench.attach(&json!({}));
        let hello = read_hello(&hello, bench.now());
        assert_eq!(hello.session_key, session_key);
        assert_eq!(hello.member_key, keys.public());
        let key = session_key.unwrap_or_else(|| keys.public()).to_string();
        assert_eq!(hello.session_id, key, "unless something else is given");
        assert_eq!(hello.lease, None);
    }
}

#[test]
fn what_a_session_tells_of_itself_is_in_its_hello() {
    let profile = Profile {
        session_id: "desk".into(),
        pid: 7,
        cwd: "/work".into(),
        display_name: Some("alice".into()),
        lease: Some(Millis::secs(5)),
        ..Profile::default()
    };
    let mut bench = Bench::of(Settings::default(), member().with(profile));
    let hello = bench.attach(&json!({}));
    let hello = read_hello(&hello, bench.now());
    let told = (&*hello.session_id, hello.pid, &*hello.cwd);
    assert_eq!(told, ("desk", 7, "/work"));
    assert_eq!(hello.display_name.as_deref(), Some("alice"));
    assert_eq!(hello.lease, Some(Millis::secs(5)));
    assert_eq!(hello.model, None);
}

#[test]
fn no_two_hellos_are_signed_for_the_same_moment() {
    let mut bench = Bench::new(Settings::default());
    let first = bench.attach(&json!({}));
    bench.cut();
    let second = bench.attach(&json!({}));
    assert!(second["timestamp"].as_i64() > first["timestamp"].as_i64());
    assert_ne!(second["signature"], first["signature"]);
}

#[test]
fn a_clock_that_was_set_back_is_believed() {
    let mut bench = Bench::new(Settings::default());
    bench.now = 10_000_000;
    bench.attach(&json!({}));
    bench.cut();
    bench.now = 10_000;
    let hello = bench.attach(&json!({}));
    assert_eq!(hello["timestamp"].as_i64(), Some(bench.now().wall.0));
}

#[test]
fn an_attestation_is_signed_anew_at_half_its_life() {
    let keys = Arc::new(KeyPair::from_seed([1; 32]));
    let mut bench = Bench::of(Settings::default(), launched(Voucher::Keys(keys)));
    let attestation = |bench: &mut Bench, hours: u64| {
        bench.now += hours * 3_600_000;
        let hello = bench.attach(&json!({}));
        read_hello(&hello, bench.now());
        bench.cut();
        hello["parentAttestation"].clone()
    };
    let first = attestation(&mut bench, 0);
    assert_eq!(attestation(&mut bench, 5), first);
    assert_ne!(attestation(&mut bench, 2), first);
}

#[test]
fn a_token_is_sent_once_and_only_if_one_was_given() {
    let mut bench = Bench::new(Settings::default());
    let hello = bench.attach(&json!({"resumeToken": "t1"}));
    assert_eq!(hello.get("resumeToken"), None, "there was none");
    bench.cut().command(Command::Connect).give(Input::Opened);
    assert_eq!(bench.written()[0]["resumeToken"], "t1");
    // That hello comes to nothing, but its token may be spent.
    bench.cut();
    let hello = bench.attach(&json!({"resumeToken": "t2"}));
    assert_eq!(hello.get("resumeToken"), None, "it was sent before");
    bench.cut();
    let hello = bench.attach(&json!({}));
    assert_eq!(hello["resumeToken"], "t2");
    bench.cut();
    let hello = bench.attach(&json!({}));
    assert_eq!(hello.get("resumeToken"), None, "the last answer had none");
}

#[test]
fn the_welcome_is_told() {
    let mut bench = Bench::new(Settings::default());
    bench.attach(&json!({"reattached": true, "missed": "truncated", "leaseTtlMs": 90_000}));
    let [Event::Welcome(welcome)] = &bench.events()[..] else {
        panic!("{:?}", bench.out);
    };
    assert!(welcome.reattached && welcome.presence_id == "p");
    assert_eq!(welcome.missed.as_deref(), Some("truncated"));
    assert_eq!(welcome.lease_ttl_ms, Some(90_000));
}

#[test]
fn a_hello_that_is_not_answered_is_given_up() {
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Connect).give(Input::Opened);
    assert_eq!(bench.due_in(), Some(5000));
    bench.now += 4999;
    bench.give(Input::Ping(b"no answer"));
    assert_eq!(bench.due_in(), Some(1));
    bench.give(Input::Tick);
    assert_eq!(bench.out, []);
    bench.pass(1);
    assert_eq!(bench.out[0], Output::Abort);
    let (why, wait) = bench.lost();
    assert_eq!(why, Loss::HelloTimeout);
    let wait = wait.unwrap();
    assert_eq!(bench.due_in(), Some(wait));
    bench.pass(wait);
    assert_eq!(bench.out, [Output::Connect]);
}

#[test]
fn a_socket_that_does_not_open_is_given_up() {
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Connect).pass(4999);
    assert_eq!(bench.out, []);
    bench.pass(1);
    assert_eq!(bench.out[0], Output::Abort);
    assert_eq!(bench.lost().0, Loss::ConnectTimeout);
}

#[test]
fn waits_grow_to_the_longest_and_begin_anew_after_a_welcome() {
    let ceilings = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    let mut bench = Bench::new(Settings::default());
    let mut longest = [0; 7];
    for _ in 0..200 {
        // The first loss is that of the connection that was welcome.
        bench.attach(&json!({}));
        for (ceiling, longest) in ceilings.iter().zip(&mut longest) {
            let wait = bench.cut().lost().1.unwrap();
            assert!(wait <= *ceiling, "{wait} ms of {ceiling}");
            *longest = wait.max(*longest);
            bench.pass(wait);
            assert_eq!(bench.out, [Output::Connect]);
        }
        bench.cut();
    }
    for (ceiling, longest) in ceilings.iter().zip(longest) {
        assert!(longest > ceiling * 9 / 10, "{longest} ms of {ceiling}");
    }
}

#[test]
fn sessions_of_different_seeds_do_not_wait_alike() {
    let mut waits = std::collections::HashSet::new();
    for seed in 0..100 {
        let mut bench = Bench::new(Settings::default());
        bench.session = Session::new(Arc::new(Settings::default()), member(), seed);
        bench.attach(&json!({}));
        waits.insert(bench.cut().lost().1);
    }
    assert!(waits.len() > 80, "{} of 100", waits.len());
}

#[test]
fn without_backoff_it_reconnects_when_told() {
    let settings = Settings {
        reconnect: None,
        ..Settings::default()
    };
    let mut bench = Bench::attached(settings);
    assert_eq!(bench.cut().lost().1, None);
    assert_eq!(bench.due_in(), None);
    bench.attach(&json!({"reattached": true}));
}

#[test]
fn silence_is_asked_about_and_then_taken_for_death() {
    let mut bench = Bench::attached(Settings::default());
    assert_eq!(bench.due_in(), Some(45_000));
    bench.pass(45_000);
    assert_eq!(bench.out, [Output::Write(Frame::Ping(Vec::new()))]);
    assert_eq!(bench.due_in(), Some(30_000));
    bench.now += 29_999;
    bench.give(Input::Pong(b""));
    assert_eq!(bench.due_in(), Some(45_000), "any frame is proof of life");
    bench.pass(45_000).pass(29_999);
    assert_eq!(bench.out, []);
    bench.pass(1);
    assert_eq!(bench.out[0], Output::Abort);
    assert_eq!(bench.lost().0, Loss::Silent);
    assert!(!bench.session.is_attached());
}

#[test]
fn silence_of_75_seconds_is_death_also_without_a_question() {
    let mut bench = Bench::attached(Settings::default());
    bench.pass(75_000);
    assert_eq!(bench.out[0], Output::Abort);
}

#[test]
fn pings_are_answered() {
    let mut bench = Bench::attached(Settings::default());
    bench.give(Input::Ping(b"mark"));
    assert_eq!(bench.out, [Output::Write(Frame::Pong(b"mark".to_vec()))]);
}

#[test]
fn what_comes_of_a_socket_given_up_changes_nothing() {
    let mut bench = Bench::attached(Settings::default());
    bench.cut();
    let (code, reason) = (4001, "kicked");
    for input in [
        Input::Opened,
        Input::Text("{}"),
        Input::Ping(b""),
        Input::Closed { code, reason },
        Input::Broken("again"),
    ] {
        bench.give(input);
        assert_eq!(bench.out, []);
    }
}

#[test]
fn frames_that_cannot_be_read_are_told() {
    let mut bench = Bench::attached(Settings::default());
    for text in [
        "",
        "x",
        "7",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"ack","id":7}"#,
    ] {
        bench.give(Input::Text(text));
        let text = text.to_owned();
        assert_eq!(bench.out, [Output::told(Event::Unreadable { text })]);
    }
    bench.give(Input::Binary(b"\x00\x01"));
    assert!(matches!(bench.events()[..], [Event::Unreadable { .. }]));
}
