//! Every row of the lease table (design.md §4).

use super::delivery::send;
use super::*;
use crate::chain::List;

/// An observer of another member, and bob's session.
fn observed() -> (World, ConnId, ConnId) {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    let bob = world.join(launched(2, 21, "b"));
    assert_eq!(world.events(observer), ["peer_joined"]);
    (world, observer, bob)
}

#[test]
fn none_to_online_announces_once_and_writes_the_row() {
    let (world, observer, bob) = observed();
    assert_eq!(world.frames(bob)[0]["type"], "hello_ack", "the first frame");
    assert_eq!(world.ack(bob)["reattached"], false);
    assert_eq!(world.recount(), (2, 0));
    assert!(world.events(bob).is_empty());
    assert!(world.closed(observer).is_none());
    let puts = world
        .persisted()
        .filter(|(op, _)| matches!(op, StoreOp::PresencePut(_)));
    assert_eq!(puts.count(), 2);
}

#[test]
fn online_to_grace_to_online_is_silent() {
    for how in [Closing::Clean, Closing::Abrupt] {
        let (mut world, observer, bob) = observed();
        let presence = world.ack(bob)["presenceId"].clone();
        world.close(bob, how);
        assert_eq!(world.recount(), (1, 1));
        world.pass_with(&[observer], Millis(89_000));
        let back = world.join(launched(2, 21, "b"));
        assert_eq!(world.ack(back)["presenceId"], presence);
        assert_eq!(world.ack(back)["reattached"], true);
        world.pass(Millis(5_000));
        assert_eq!(world.events(observer), ["peer_joined"]);
        assert_eq!(world.recount(), (2, 0));
    }
}

#[test]
fn a_return_under_a_siblings_session_id_replaces_it() {
    let (mut world, observer, bob) = observed();
    let sibling = world.join(launched(2, 22, "other"));
    world.close(bob, Closing::Abrupt);
    let back = world.join(launched(2, 21, "other"));
    assert_eq!(
        world.frames(back)[0]["type"],
        "hello_ack",
        "the first frame"
    );
    assert_eq!(world.ack(back)["reattached"], true);
    assert_eq!(world.closed(sibling), Some(Close::SESSION_REPLACED));
    assert_eq!(world.ends(), [LeaseEnd::Replaced]);
    assert_eq!(
        world.events(observer),
        ["peer_joined", "peer_joined", "peer_left"]
    );
    let newest = world.join(launched(2, 23, "other"));
    assert_eq!(world.closed(back), Some(Close::SESSION_REPLACED));
    world.close(sibling, Closing::Abrupt);
    assert!(world.closed(newest).is_none());
    assert_eq!(world.recount(), (2, 0));
}

#[test]
fn grace_is_a_lower_bound_and_ends_once() {
    let (mut world, observer, bob) = observed();
    world.close(bob, Closing::Abrupt);
    world.pass_with(&[observer], Millis(89_999));
    assert_eq!(world.events(observer), ["peer_joined"]);
    world.pass(Millis(1));
    assert_eq!(world.events(observer), ["peer_joined", "peer_left"]);
    world.pass_with(&[observer], Millis(1_000_000));
    assert_eq!(world.ends(), [LeaseEnd::Expired]);
    let ended = world
        .persisted()
        .filter(|(op, _)| matches!(op, StoreOp::PresenceEnd { .. }));
    assert_eq!(ended.count(), 1);
}

#[test]
fn a_takeover_fences_the_old_socket() {
    let (mut world, observer, old) = observed();
    let new = world.join(launched(2, 21, "b"));
    assert_eq!(world.closed(old), Some(Close::SESSION_REPLACED));
    assert_eq!(world.ack(new)["presenceId"], world.ack(old)["presenceId"]);
    world.write(
        old,
        &json!({"type": "set_summary", "summary": "from the grave"}),
    );
    world.input(Input::Ponged {
        conn: old,
        payload: &[0; 8],
    });
    assert_eq!(world.stale(), 2);
    world.close(old, Closing::Abrupt);
    // Pings are answered by the new socket; only the old one is dead.
    for _ in 0..10 {
        world.pass(Millis(20_000));
        world.input(Input::Pinged { conn: new });
        world.input(Input::Pinged { conn: observer });
    }
    assert_eq!(world.recount(), (2, 0));
    assert_eq!(world.events(observer), ["peer_joined"]);
    let slot = {
        let roster = world.shard.meshes[0].roster;
        let mut latest = roster.iter_back(&world.shard.peers, List::Mesh);
        latest.next().unwrap()
    };
    assert_eq!(
        world.shard.peers.get_slot(slot).unwrap().card.summary(),
        None
    );
}

#[test]
fn silence_is_aborted_and_enters_grace() {
    let (mut world, observer, bob) = observed();
    for _ in 0..4 {
        world.pass(Millis(18_750));
        world.input(Input::Pinged { conn: observer });
    }
    assert!(
        world
            .fx
            .iter()
            .any(|e| matches!(e, Effect::Abort { conn } if *conn == bob))
    );
    assert_eq!(world.recount(), (1, 1));
    assert_eq!(world.events(observer), ["peer_joined"]);
    let pings = world
        .fx
        .iter()
        .filter(|e| matches!(e, Effect::Ping { conn, .. } if *conn == bob));
    assert!((2..=4).contains(&pings.count()));
}

#[test]
fn a_throw_away_connection_leaves_at_once_when_it_says_so() {
    let (mut world, observer, _) = observed();
    let command = world.join(member(3, Some(31), "c"));
    world.close(command, Closing::Clean);
    assert_eq!(world.ends(), [LeaseEnd::Goodbye]);
    assert_eq!(
        world.events(observer),
        ["peer_joined", "peer_joined", "peer_left"]
    );
    let command = world.join(member(3, Some(32), "d"));
    world.close(command, Closing::Abrupt);
    assert_eq!(world.recount(), (2, 1), "an abrupt end gets its grace");
}

#[test]
fn kick_ban_and_replacement_end_the_lease_with_one_leave() {
    let (mut world, admin, bob) = observed();
    world.write(
        admin,
        &json!({"type": "kick", "target": "bob", "_reqId": "k"}),
    );
    assert_eq!(world.closed(bob), Some(Close::KICKED));
    let carol = world.join(launched(3, 31, "same"));
    let again = world.join(launched(3, 32, "same"));
    assert_eq!(world.closed(carol), Some(Close::SESSION_REPLACED));
    world.write(
        admin,
        &json!({"type": "ban", "target": "carol", "_reqId": "b"}),
    );
    assert_eq!(world.closed(again), Some(Close::BANNED));
    assert_eq!(
        world.ends(),
        [LeaseEnd::Kicked, LeaseEnd::Replaced, LeaseEnd::Banned]
    );
    let expected = ["joined", "left", "joined", "left", "joined", "left"];
    assert_eq!(
        world.events(admin),
        expected.map(|event| format!("peer_{event}"))
    );
    assert_eq!(world.recount(), (1, 0));
    let refused = world.join(launched(3, 32, "same"));
    assert_eq!(world.closed(refused), Some(Close::BANNED));
}

#[test]
fn a_foreign_claim_to_a_key_gets_nowhere() {
    let (mut world, _, bob) = observed();
    world.close(bob, Closing::Abrupt);
    let thief = world.join(member(3, Some(21), "c"));
    assert_eq!(
        world.closed(thief),
        Some(Close::policy("bad_session_pubkey"))
    );
    let other = world.join(launched(3, 31, "b"));
    assert!(world.closed(other).is_none());
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.ack(back)["presenceId"], world.ack(bob)["presenceId"]);
}

#[test]
fn a_socket_that_closed_during_its_hello_leaves_nothing() {
    let (mut world, observer, _) = observed();
    let conn = world.join(launched(3, 31, "c"));
    world.close(conn, Closing::Abrupt);
    world.write(conn, &json!({"type": "list_peers"}));
    assert_eq!(world.recount(), (2, 1));
    world.pass_with(&[observer], Millis(90_000));
    assert_eq!(
        world.events(observer),
        ["peer_joined", "peer_joined", "peer_left"]
    );
}

#[test]
fn a_restored_lease_is_in_grace_and_told_to_nobody() {
    let (mut world, _, bob) = observed();
    let presence = world.ack(bob)["presenceId"].clone();
    let mut after = world.restart();
    assert_eq!(after.recount(), (0, 2));
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(after.ack(back)["presenceId"], presence);
    assert_eq!(after.ack(back)["reattached"], true);
    assert!(after.events(back).is_empty());
    after.pass_with(&[back], Millis(90_000));
    assert_eq!(
        after.events(back),
        ["peer_left"],
        "who did not come back left once"
    );
    world.input(Input::Shutdown);
    assert_eq!(world.closed(bob), Some(Close::SHUTTING_DOWN));
    assert!(
        world.ends().is_empty(),
        "nobody leaves because the broker stops"
    );
}

#[test]
fn the_third_takeover_asks_the_incumbent_first() {
    let (mut world, _, _) = observed();
    world.join(launched(2, 21, "b"));
    let incumbent = world.join(launched(2, 21, "b"));
    let rival = world.join(launched(2, 21, "b"));
    assert_eq!(world.ack(rival), Value::Null, "waits");
    let asked = world.watermark(incumbent).unwrap();
    world.pong(incumbent, asked);
    assert_eq!(world.closed(rival), Some(Close::policy("session_conflict")));
    let rival = world.join(launched(2, 21, "b"));
    world.write(rival, &json!({"type": "list_peers", "_reqId": "held"}));
    world.pass(Millis(2_000));
    assert_eq!(
        world.ack(rival)["reattached"],
        true,
        "a silent incumbent is replaced"
    );
    assert_eq!(world.frames(rival).last().unwrap()["_reqId"], "held");
    assert_eq!(world.recount(), (2, 0));
}

#[test]
fn what_an_incumbent_said_before_it_was_asked_is_no_answer() {
    let (mut world, _, _) = observed();
    world.join(launched(2, 21, "b"));
    let incumbent = world.join(launched(2, 21, "b"));
    world.pass(Millis(1_000));
    world.input(Input::Pinged { conn: incumbent });
    let before = world.watermark(incumbent).unwrap_or_default();
    let rival = world.join(launched(2, 21, "b"));
    world.pong(incumbent, before);
    world.write(incumbent, &json!({"type": "list_peers"}));
    world.input(Input::Pinged { conn: incumbent });
    assert_eq!(world.closed(rival), None, "its socket may be dead by now");
    world.close(incumbent, Closing::Abrupt);
    assert_eq!(world.ack(rival)["reattached"], true);
}

#[test]
fn the_latest_of_several_challengers_waits() {
    let (mut world, _, _) = observed();
    world.join(launched(2, 21, "b"));
    let incumbent = world.join(launched(2, 21, "b"));
    let unseen_dead = world.join(launched(2, 21, "b"));
    world.pass(Millis(1_500));
    let rival = world.join(launched(2, 21, "b"));
    let refused = Some(Close::policy("session_conflict"));
    assert_eq!(world.closed(unseen_dead), refused);
    world.close(unseen_dead, Closing::Abrupt);
    assert_eq!(world.closed(rival), None);
    world.pass(Millis(500));
    assert_eq!(world.closed(incumbent), Some(Close::SESSION_REPLACED));
    assert_eq!(
        world.ack(rival)["reattached"],
        true,
        "two seconds after the incumbent was asked"
    );
}

#[test]
fn a_full_mesh_refuses_newcomers_and_never_a_reattach() {
    let (mut world, _, bob) = observed();
    world.shard.config.max_sessions_per_mesh = 2;
    world.close(bob, Closing::Abrupt);
    let newcomer = world.join(launched(3, 31, "c"));
    assert_eq!(world.closed(newcomer), Some(Close::policy("capacity")));
    let back = world.join(launched(2, 21, "b"));
    assert_eq!(world.ack(back)["reattached"], true);
}

#[test]
fn a_join_is_told_when_its_row_is_durable() {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    world.disk_held = true;
    let bob = world.join(launched(2, 21, "b"));
    assert_eq!(world.frames(bob)[0]["type"], "hello_ack");
    assert!(world.events(observer).is_empty());
    let late = world.join(launched(1, 12, "late"));
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.events(observer), ["peer_joined", "peer_joined"]);
    assert!(world.events(late).is_empty(), "it found bob in its list");
    assert_eq!(world.events(bob), ["peer_joined"]);
}

#[test]
fn a_join_that_waits_for_its_row_shows_who_joined() {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    world.disk_held = true;
    let bob = world.join(launched(2, 21, "b"));
    world.write(bob, &json!({"type": "join_group", "name": "ops"}));
    world.write(bob, &json!({"type": "leave_group", "name": "ops"}));
    world.write(bob, &json!({"type": "join_group", "name": "dev"}));
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.events(observer), ["peer_joined"]);
    let told = world.frames(observer).pop().unwrap();
    assert_eq!(told["eventData"]["groups"], json!([]));
}

#[test]
fn nobody_sees_a_list_before_the_news() {
    let (mut world, observer, _) = observed();
    world.disk_held = true;
    world.join(launched(3, 31, "c"));
    world.join(launched(2, 22, "b"));
    world.write(observer, &json!({"type": "list_peers", "_reqId": "l"}));
    let told = ["peer_joined", "peer_left", "peer_joined", "peer_joined"];
    assert_eq!(world.events(observer), told);
    assert_eq!(world.frames(observer).pop().unwrap()["type"], "peers_list");
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.events(observer), told, "once");
}

#[test]
fn who_speaks_is_announced_first_and_once() {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    world.disk_held = true;
    let bob = world.join(launched(2, 21, "b"));
    world.write(bob, &send("*", "hello all"));
    assert_eq!(world.events(observer), ["peer_joined"]);
    let last = world.frames(observer).pop();
    assert_eq!(
        last.map(|f| f["ciphertext"].clone()),
        Some(json!("hello all"))
    );
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.events(observer), ["peer_joined"]);
}

#[test]
fn who_leaves_before_it_was_announced_joins_and_leaves() {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    world.disk_held = true;
    let bob = world.join(member(2, Some(21), "b"));
    world.close(bob, Closing::Clean);
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.events(observer), ["peer_joined", "peer_left"]);
    assert_eq!(world.ends(), [LeaseEnd::Goodbye]);
}

#[test]
fn a_leave_is_told_when_it_is_durable_and_before_the_successors_join() {
    let (mut world, observer, bob) = observed();
    world.disk_held = true;
    let successor = world.join(launched(2, 22, "b"));
    assert_eq!(world.closed(bob), Some(Close::SESSION_REPLACED));
    assert_eq!(world.events(observer), ["peer_joined"]);
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(
        world.events(observer),
        ["peer_joined", "peer_left", "peer_joined"]
    );
    assert!(world.events(successor).is_empty());
}

#[test]
fn who_may_not_have_been_announced_before_a_crash_is_at_its_return() {
    let (world, _, bob) = observed();
    let presence = world.ack(bob)["presenceId"].clone();
    let mut after = world.restart_from(|row| {
        row.joined = row.joined.filter(|_| row.session_id == "a");
    });
    let observer = after.join(launched(1, 11, "a"));
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(after.ack(back)["presenceId"], presence);
    assert_eq!(after.events(observer), ["peer_joined"]);
    assert!(after.events(back).is_empty(), "nothing of itself");
}

#[test]
fn what_was_not_told_at_shutdown_is_told_by_the_next_broker() {
    let mut world = World::new();
    let observer = world.join(launched(1, 11, "a"));
    world.disk_held = true;
    world.join(launched(2, 21, "b"));
    world.input(Input::Shutdown);
    let before = world.fx.len();
    world.disk_held = false;
    world.pass(Millis(1));
    assert_eq!(world.fx.len(), before, "neither told nor said to be told");
    world.input(Input::Ask {
        ticket: crate::ids::Ticket(1),
        ask: crate::input::Ask::Peers { mesh: MESH.into() },
    });
    assert_eq!(world.fx.len(), before + 1, "only the answer");
    assert!(world.events(observer).is_empty());
}

#[test]
fn a_joined_socket_may_not_say_hello_for_ever() {
    let (mut world, _, bob) = observed();
    for _ in 0..9 {
        world.pass(Millis(5));
        let hello = launched(2, 21, "b")(world.now.wall);
        world.write(bob, &hello);
    }
    let codes: Vec<_> = world
        .frames(bob)
        .into_iter()
        .map(|f| f["code"].clone())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| **code == "rate_limited").count(),
        1
    );
    assert!(world.closed(bob).is_none());
}
