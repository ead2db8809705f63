//! What is for good, what is tried again, and goodbyes.

use super::*;

/// What becomes of a session whose hello is answered so.
fn rejected(identity: Identity, error: &str, (code, reason): (u16, &str)) -> Event {
    let mut bench = Bench::of(Settings::default(), identity);
    bench.command(Command::Connect).give(Input::Opened);
    bench.frame(&refused(error));
    assert_eq!(bench.out, [], "the close follows");
    bench.give(Input::Closed { code, reason });
    bench.events().remove(0)
}

fn goodbye() -> Value {
    json!({"type": "goodbye"})
}

#[test]
fn refusals_that_will_not_pass_are_final() {
    for code in [
        "unauthorized",
        "malformed",
        "bad_signature",
        "bad_session_pubkey",
        "bad_parent_pubkey",
        "attestation_mismatch",
        "parent_member_id_mismatch",
        "invalid_argument",
    ] {
        let end = Event::Gone(End::Rejected {
            code: code.to_owned(),
            message: "because".to_owned(),
        });
        assert_eq!(rejected(member(), code, (1008, code)), end);
    }
    let banned = Event::Gone(End::Banned {
        message: "because".to_owned(),
    });
    assert_eq!(rejected(member(), "revoked", (4002, "banned")), banned);
    // The code of the close may be lost.
    assert_eq!(rejected(member(), "revoked", (1006, "")), banned);
}

#[test]
fn refusals_that_may_pass_are_tried_again() {
    for code in [
        "capacity",
        "timestamp_skew",
        "replayed",
        "session_conflict",
        "ttl_too_long",
        "something_new",
    ] {
        let event = rejected(member(), code, (1008, code));
        let Event::Lost {
            why: Loss::Rejected { code: told, .. },
            retry_in: Some(_),
        } = event
        else {
            panic!("{code} must be tried again: {event:?}");
        };
        assert_eq!(told, code);
    }
}

#[test]
fn an_attestation_that_cannot_be_renewed_expires_for_good() {
    let keys = KeyPair::from_seed([1; 32]);
    let session = KeyPair::from_seed([2; 32]).public();
    let given = Voucher::Given(Attestation::sign(&keys, session, Wall(WALL)));
    let close = (1008, "expired");
    let end = rejected(launched(given), "expired", close);
    assert!(matches!(end, Event::Gone(End::Rejected { .. })), "{end:?}");
    let own = launched(Voucher::Keys(Arc::new(keys)));
    let again = rejected(own, "expired", close);
    assert!(matches!(again, Event::Lost { .. }), "{again:?}");
}

#[test]
fn a_refusal_without_a_close_is_judged_at_the_timeout() {
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Connect).give(Input::Opened);
    bench.frame(&refused("unknown_message_type")).pass(5000);
    assert_eq!(bench.out[0], Output::Abort);
    assert!(matches!(
        bench.events()[..],
        [Event::Gone(End::Rejected { .. })]
    ));
}

#[test]
fn a_close_reason_stands_for_an_error_that_did_not_come() {
    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Connect).give(Input::Opened);
    let (code, reason) = (1008, "unauthorized");
    bench.give(Input::Closed { code, reason });
    assert!(matches!(
        bench.events()[..],
        [Event::Gone(End::Rejected { .. })]
    ));
}

#[test]
fn kicks_and_bans_are_final_and_other_closes_are_not() {
    let kicked = End::Kicked {
        reason: "kicked".to_owned(),
    };
    let banned = End::Banned {
        message: "banned".to_owned(),
    };
    for (code, reason, end) in [
        (4001, "kicked", Some(kicked)),
        (4002, "banned", Some(banned)),
        (1000, "session_replaced", None),
        (1000, "disconnected", None),
        (1001, "shutting down", None),
        (1005, "", None),
        (1008, "unauthorized", None),
        (1012, "session_gone", None),
        (1013, "slow_consumer", None),
    ] {
        let mut bench = Bench::attached(Settings::default());
        bench.give(Input::Closed { code, reason });
        let Some(end) = end else {
            let reason = reason.to_owned();
            assert_eq!(bench.lost().0, Loss::Closed { code, reason });
            continue;
        };
        assert_eq!(bench.events(), [Event::Gone(end)]);
        assert!(bench.session.is_gone() && bench.due_in().is_none());
        bench.command(Command::Connect);
        assert_eq!(bench.out, [], "for good");
    }
}

#[test]
fn a_goodbye_waits_for_what_is_unanswered() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("a")));
    bench.command(Command::Goodbye);
    assert_eq!(bench.out, []);
    assert_eq!(bench.due_in(), Some(5000));
    bench.command(Command::Send(message("b")));
    assert_eq!(bench.refused(), "b", "too late");
    bench.frame(&ack("a"));
    assert_eq!(bench.written(), [goodbye()]);
    let (code, reason) = (1000, "goodbye");
    bench.give(Input::Closed { code, reason });
    assert_eq!(bench.events(), [Event::Gone(End::Left)]);
}

#[test]
fn a_goodbye_without_an_answer_ends_with_a_close() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Send(message("a")));
    bench.command(Command::Goodbye).pass(5000);
    assert_eq!(bench.written(), [goodbye()], "the ack may never come");
    bench.pass(5000);
    assert_eq!(bench.out[0], Output::Close);
    assert_eq!(bench.refused(), "a");
    assert_eq!(bench.events()[1..], [Event::Gone(End::Unsaid)]);
}

#[test]
fn a_goodbye_that_is_cut_off_is_not_confirmed() {
    let mut bench = Bench::attached(Settings::default());
    bench.command(Command::Goodbye);
    assert_eq!(bench.written(), [goodbye()]);
    bench.cut();
    assert_eq!(bench.events(), [Event::Gone(End::Unsaid)]);
}

#[test]
fn a_goodbye_while_away_is_said_on_return() {
    let mut bench = Bench::attached(Settings::default());
    bench.cut().command(Command::Goodbye);
    assert_eq!(bench.out, []);
    bench.attach(&json!({"reattached": true}));
    assert_eq!(bench.written(), [goodbye()]);
}

#[test]
fn a_goodbye_that_cannot_be_said_is_given_up() {
    let mut bench = Bench::attached(Settings::default());
    bench.cut().command(Command::Goodbye);
    bench.command(Command::Connect).pass(5000);
    assert_eq!(bench.out[0], Output::Close);
    assert_eq!(bench.events(), [Event::Gone(End::Unsaid)]);

    let mut bench = Bench::new(Settings::default());
    bench.command(Command::Goodbye);
    assert_eq!(bench.events(), [Event::Gone(End::Unsaid)], "never there");

    let settings = Settings {
        reconnect: None,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings);
    bench.command(Command::Connect).command(Command::Goodbye);
    bench.cut();
    assert!(matches!(
        bench.events()[..],
        [Event::Lost { .. }, Event::Gone(End::Unsaid)]
    ));
}
