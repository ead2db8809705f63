//! URL watches: whose they are, when they are checked, what is told of them, and their end.

use std::collections::BTreeMap;

use super::*;
use crate::ids::WatchId;
use crate::limits::{MESH_WATCHES_MAX, WATCHES_MAX};
use crate::rows::WatchRow;
use crate::watch::{FetchFailure, FetchRequest};

const URL: &str = "https://example.com/status";

impl World {
    /// Requests that nobody has answered, in the order made.
    fn fetches(&self) -> Vec<(FetchRequest, Token)> {
        let all = self.fx.iter().filter_map(|effect| match effect {
            Effect::Fetch { request, token } => Some(((**request).clone(), *token)),
            _ => None,
        });
        all.filter(|(_, token)| self.shard.fetching.contains_key(token))
            .collect()
    }

    /// Answers the one request under way.
    fn fetched(&mut self, result: Result<&str, FetchFailure>) {
        let [(_, token)] = self.fetches()[..] else {
            panic!("{:?}", self.fetches());
        };
        let result = result.map(str::to_owned);
        self.input(Input::Fetched { token, result });
    }

    /// Time passes until the next check, which finds this.
    fn check(&mut self, alive: ConnId, value: &str) {
        self.pass_with(&[alive], Millis::secs(5));
        self.fetched(Ok(value));
    }

    /// What a session was told of changes: old and new.
    fn triggered(&self, conn: ConnId) -> Vec<(String, String)> {
        let frames = self.frames(conn).into_iter();
        frames
            .filter(|frame| frame["event"] == "watch_triggered")
            .map(|frame| {
                let data = &frame["eventData"];
                let text = |name: &str| data[name].as_str().unwrap().to_owned();
                (text("oldValue"), text("newValue"))
            })
            .collect()
    }

    /// Makes a watch; gives its name.
    fn watch(&mut self, conn: ConnId, more: &Value) -> String {
        let mut frame = json!({"type": "watch", "url": URL, "interval": 5, "_reqId": "w"});
        let fields = frame.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        self.write(conn, &frame);
        let frames = self.frames(conn);
        let ack = frames.iter().rev().find(|f| f["type"] == "watch_ack");
        ack.unwrap()["watchId"].as_str().unwrap().to_owned()
    }

    fn watch_list(&mut self, conn: ConnId) -> Vec<Value> {
        self.write(conn, &json!({"type": "watch_list", "_reqId": "l"}));
        let list = self.last(conn);
        assert_eq!(list["type"], "watch_list_result");
        assert_eq!(list["_reqId"], "l");
        list["watches"].as_array().unwrap().clone()
    }

    /// Rows of watches on disk.
    pub(super) fn watch_rows(&self) -> Vec<WatchRow> {
        let mut rows: Vec<WatchRow> = Vec::new();
        for op in self.written() {
            match op {
                StoreOp::WatchPut(row) => {
                    rows.retain(|other| other.id != row.id);
                    rows.push((**row).clone());
                }
                StoreOp::WatchRemoved { began, id } => {
                    rows.retain(|row| (row.began, row.id) != (*began, *id));
                }
                StoreOp::PresenceEnd { began, .. } => rows.retain(|row| row.began != *began),
                _ => {}
            }
        }
        rows
    }
}

fn pair() -> (World, ConnId, ConnId) {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let bob = world.join(launched(2, 12, "b"));
    (world, alice, bob)
}

#[test]
fn a_watch_is_answered_fetched_and_listed() {
    let (mut world, alice, bob) = pair();
    let id = world.watch(
        alice,
        &json!({"mode": "json", "extract": "$.a", "headers": {"Accept": "x"}, "label": "mine"}),
    );
    let expected = json!({"type": "watch_ack", "watchId": id, "id": id, "url": URL,
        "mode": "json", "interval": 5, "_reqId": "w"});
    assert_eq!(world.last(alice), expected);
    assert!(WatchId::parse(&id).is_some());
    let [(request, _)] = &world.fetches()[..] else {
        panic!("fetched at once, once");
    };
    assert_eq!(request.url, URL);
    assert_eq!(request.headers, [("Accept".to_owned(), "x".to_owned())]);
    assert_eq!(request.reading.extract.as_deref(), Some("$.a"));
    let before = &world.watch_list(alice)[0];
    assert_eq!(
        (&before["lastValue"], before.get("lastCheck")),
        (&json!(""), None)
    );
    world.fetched(Ok("1"));
    let now = world.now.wall.to_string();
    let list = world.watch_list(alice);
    assert_eq!(
        list,
        [
            json!({"id": id, "url": URL, "mode": "json", "label": "mine", "interval": 5,
            "lastHash": "1", "lastValue": "1", "lastCheck": now, "createdAt": now})
        ]
    );
    assert!(world.watch_list(bob).is_empty(), "one's own only");
    assert_eq!(world.triggered(alice), []);
}

#[test]
fn the_defaults_are_those_of_the_protocol() {
    let (mut world, alice, _) = pair();
    world.write(alice, &json!({"type": "watch", "url": "http://x"}));
    let ack = world.last(alice);
    assert_eq!(
        (&ack["mode"], &ack["interval"]),
        (&json!("hash"), &json!(30))
    );
    assert!(ack.get("_reqId").is_none());
    for (wanted, given) in [(0.0, 5), (1.5, 5), (5.2, 6), (86400.0, 86400)] {
        world.watch(alice, &json!({"interval": wanted}));
        assert_eq!(world.last(alice)["interval"], given, "{wanted}");
    }
}

#[test]
fn a_change_is_told_to_the_owner_alone() {
    let (mut world, alice, bob) = pair();
    let id = world.watch(alice, &json!({"label": "l"}));
    world.fetched(Ok("one"));
    world.check(alice, "one");
    assert_eq!(world.triggered(alice), []);
    world.check(alice, "two");
    let push = world.last(alice);
    let data = json!({"watchId": id, "url": URL, "label": "l", "mode": "hash",
        "oldValue": "one", "newValue": "two"});
    assert_eq!(push["eventData"], data);
    assert_eq!(
        (&push["type"], &push["subtype"]),
        (&json!("push"), &json!("system"))
    );
    assert_eq!(
        (&push["priority"], &push["meshId"]),
        (&json!("now"), &json!(MESH))
    );
    assert_eq!(push["senderPubkey"], "system");
    assert_eq!(world.triggered(bob), []);
    world.check(alice, "two");
    assert_eq!(world.triggered(alice).len(), 1);
}

#[test]
fn rules_tell_of_what_begins_and_ends_to_match() {
    for (rule, told) in [
        (
            "change",
            vec![("up", "down"), ("down", "slow"), ("slow", "up")],
        ),
        ("match:up", vec![("slow", "up")]),
        ("not_match:up", vec![("up", "down")]),
        ("match:", vec![]),
    ] {
        let (mut world, alice, _) = pair();
        world.watch(alice, &json!({"notify_on": rule}));
        world.fetched(Ok("up"));
        for value in ["down", "slow", "up", "up"] {
            world.check(alice, value);
        }
        let told: Vec<_> = told
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect();
        assert_eq!(world.triggered(alice), told, "{rule}");
    }
}

#[test]
fn an_empty_value_is_no_baseline() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({"mode": "json", "extract": "a"}));
    world.fetched(Ok(""));
    world.check(alice, "one");
    assert_eq!(world.triggered(alice), [], "stored only");
    world.check(alice, "");
    assert_eq!(world.triggered(alice).len(), 1);
}

#[test]
fn a_failed_check_changes_nothing_and_says_why() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.pass_with(&[alice], Millis::secs(5));
    world.fetched(Err(FetchFailure::Timeout));
    let watch = &world.watch_list(alice)[0];
    assert_eq!(watch["lastError"], "no answer in time");
    assert_eq!(watch["lastValue"], "one");
    world.check(alice, "one");
    assert!(world.watch_list(alice)[0].get("lastError").is_none());
    assert_eq!(world.triggered(alice), []);
}

#[test]
fn one_check_of_a_watch_is_under_way_at_a_time() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    world.pass_with(&[alice], Millis::secs(30));
    assert_eq!(world.fetches().len(), 1);
    world.fetched(Ok("one"));
    world.pass_with(&[alice], Millis::secs(5));
    assert_eq!(world.fetches().len(), 1);
}

#[test]
fn one_session_has_few_fetches_under_way_and_all_get_their_turn() {
    let (mut world, alice, _) = pair();
    for _ in 0..4 {
        world.watch(alice, &json!({"interval": 3600}));
    }
    // What has been given up counts until its fetch is over.
    let id = world.watch_list(alice)[0]["id"].clone();
    world.write(alice, &json!({"type": "unwatch", "watchId": id}));
    world.pass_with(&[alice], Millis::secs(3));
    let mut served = 0;
    while let [(_, token), ref more @ ..] = world.fetches()[..] {
        assert!(more.len() <= 1, "at most two");
        let result = Ok("v".to_owned());
        world.input(Input::Fetched { token, result });
        world.pass_with(&[alice], Millis::secs(1));
        served += 1;
    }
    assert_eq!(served, 4);
    assert!(
        world
            .watch_list(alice)
            .iter()
            .all(|watch| watch["lastValue"] == "v")
    );
}

#[test]
fn among_slow_pages_none_is_passed_over() {
    let (mut world, alice, _) = pair();
    let mut served = BTreeMap::new();
    for n in 0..6 {
        let url = format!("https://example.com/{n}");
        world.watch(alice, &json!({"url": url}));
        served.insert(url, 0);
    }
    // Two of the six fit into their interval.
    for _ in 0..60 {
        let (request, token) = world.fetches()[0].clone();
        *served.get_mut(&request.url).unwrap() += 1;
        let result = Ok("v".to_owned());
        world.input(Input::Fetched { token, result });
        world.pass_with(&[alice], Millis::secs(4));
    }
    assert!(served.values().all(|count| *count == 10), "{served:?}");
}

#[test]
fn only_its_owner_ends_a_watch() {
    let (mut world, alice, bob) = pair();
    let id = world.watch(alice, &json!({}));
    let unwatch = |id: &str| json!({"type": "unwatch", "watchId": id, "_reqId": "u"});
    world.write(bob, &unwatch(&id));
    let error = world.last(bob);
    assert_eq!(
        (&error["code"], &error["_reqId"]),
        (&json!("forbidden"), &json!("u"))
    );
    for unknown in ["w_00000000", "w_none", ""] {
        world.write(alice, &unwatch(unknown));
        assert_eq!(world.last(alice)["code"], "not_found");
    }
    world.write(alice, &json!({"type": "unwatch", "watchId": 7}));
    assert_eq!(world.last(alice)["code"], "invalid_argument");
    world.write(alice, &unwatch(&id));
    let expected = json!({"type": "watch_ack", "watchId": id, "id": id, "url": URL,
        "mode": "hash", "interval": 0, "_reqId": "u"});
    assert_eq!(world.last(alice), expected);
    assert_eq!(world.watch_rows(), []);
    world.fetched(Ok("late"));
    assert!(world.watch_list(alice).is_empty());
    assert_eq!(world.watch_rows(), []);
    world.pass_with(&[alice], Millis::secs(60));
    assert!(world.fetches().is_empty(), "no check any more");
    world.write(alice, &unwatch(&id));
    assert_eq!(world.last(alice)["code"], "not_found");
}

#[test]
fn a_reattach_keeps_watches_and_what_is_known() {
    let (mut world, alice, bob) = pair();
    world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.close(alice, Closing::Abrupt);
    world.check(bob, "one");
    let again = world.join(launched(1, 11, "a"));
    assert_eq!(world.triggered(again), []);
    assert_eq!(world.watch_list(again)[0]["lastValue"], "one");
    world.check(again, "two");
    assert_eq!(world.triggered(again), [("one".into(), "two".into())]);
}

#[test]
fn the_last_change_in_grace_waits_for_the_owner() {
    let (mut world, alice, bob) = pair();
    world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.close(alice, Closing::Abrupt);
    world.check(bob, "two");
    world.check(bob, "three");
    let again = world.join(launched(1, 11, "a"));
    assert_eq!(
        world.triggered(again),
        [("one".into(), "three".into())],
        "what it knows, and what is"
    );
    assert_eq!(world.frames(again)[0]["type"], "hello_ack");
    world.confirm_all(again);
    world.close(again, Closing::Abrupt);
    let third = world.join(launched(1, 11, "a"));
    assert_eq!(world.triggered(third), [], "confirmed");
    world.close(third, Closing::Abrupt);
    world.check(bob, "four");
    world.check(bob, "three");
    let fourth = world.join(launched(1, 11, "a"));
    assert_eq!(world.triggered(fourth), [], "as it was");
}

#[test]
fn what_a_dead_socket_swallowed_is_told_again_under_its_id() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.confirm_all(alice);
    world.check(alice, "two");
    let first = world.last(alice);
    world.close(alice, Closing::Abrupt);
    let again = world.join(launched(1, 11, "a"));
    let frames = world.frames(again);
    let second = frames.iter().find(|f| f["event"] == "watch_triggered");
    assert_eq!(second, Some(&first));
}

#[test]
fn the_row_has_what_the_owner_is_known_to_know() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    let value = |world: &World| world.watch_rows()[0].value.clone();
    assert_eq!(value(&world), "");
    world.fetched(Ok("one"));
    assert_eq!(value(&world), "one");
    world.check(alice, "two");
    assert_eq!(value(&world), "one", "not confirmed");
    world.confirm_all(alice);
    assert_eq!(value(&world), "two");
}

#[test]
fn watches_end_with_the_lease() {
    let (mut world, alice, bob) = pair();
    let id = world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.pass_with(&[alice, bob], Millis::secs(5));
    world.close(alice, Closing::Abrupt);
    let [(_, token)] = world.fetches()[..] else {
        panic!("a check is under way");
    };
    world.pass_with(&[bob], Millis::secs(91));
    assert_eq!(world.ends(), [LeaseEnd::Expired]);
    assert_eq!(world.watch_rows(), []);
    assert!(world.shard.meshes[0].watches.is_empty());
    let result = Ok("two".to_owned());
    world.input(Input::Fetched { token, result });
    world.pass_with(&[bob], Millis::secs(60));
    assert!(world.fetches().is_empty());
    assert_eq!(world.watch_rows(), []);
    // Whoever takes the slot has none of them.
    let again = world.join(launched(1, 11, "a"));
    assert!(world.watch_list(again).is_empty());
    world.write(again, &json!({"type": "unwatch", "watchId": id}));
    assert_eq!(world.last(again)["code"], "not_found");
}

#[test]
fn a_watch_of_a_throw_away_connection_ends_with_it() {
    let mut world = World::new();
    let command = world.join(member(1, Some(11), "a"));
    world.watch(command, &json!({}));
    world.close(command, Closing::Clean);
    assert_eq!(world.watch_rows(), []);
}

#[test]
fn a_restart_brings_watches_back_and_finds_what_was_not_heard() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({"label": "kept"}));
    world.fetched(Ok("one"));
    world.check(alice, "two");
    assert_eq!(world.triggered(alice).len(), 1);
    let mut after = world.restart();
    assert!(after.shard.found_watches.is_empty());
    assert!(after.fetches().is_empty(), "not all at once");
    let again = after.join(launched(1, 11, "a"));
    let list = after.watch_list(again);
    assert_eq!(
        (&list[0]["label"], &list[0]["lastValue"]),
        (&json!("kept"), &json!("one"))
    );
    assert_eq!(
        list[0]["createdAt"],
        world.watch_list(alice)[0]["createdAt"]
    );
    after.check(again, "two");
    assert_eq!(after.triggered(again), [("one".into(), "two".into())]);
    after.confirm_all(again);
    let mut third = after.restart();
    let again = third.join(launched(1, 11, "a"));
    third.check(again, "two");
    assert_eq!(third.triggered(again), [], "told and confirmed");
}

#[test]
fn watches_of_a_lease_that_is_not_restored_are_dropped() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    let after = world.restart_from(|row| {
        if row.session_id == "a" {
            "gone".clone_into(&mut row.member_id);
        }
    });
    assert!(after.shard.found_watches.is_empty());
    assert!(after.shard.meshes[0].watches.is_empty());
    assert_eq!(after.watch_rows(), []);
}

#[test]
fn bad_requests_name_what_is_wrong_with_them() {
    let (mut world, alice, _) = pair();
    for (more, field) in [
        (json!({"url": null}), "url"),
        (json!({"url": 7}), "url"),
        (json!({"url": "ftp://x/"}), "url"),
        (json!({"url": "file:///etc/passwd"}), "url"),
        (json!({"url": "http://"}), "url"),
        (json!({"url": "http:///x"}), "url"),
        (json!({"url": "http://user:pass@x/"}), "url"),
        (json!({"url": "http://x/ y"}), "url"),
        (json!({"url": "http://x/\r\nHost: y"}), "url"),
        (
            json!({"url": format!("http://x/{}", "y".repeat(2048))}),
            "url",
        ),
        (json!({"mode": "xpath"}), "mode"),
        (json!({"mode": 1}), "mode"),
        (json!({"extract": {}}), "extract"),
        (json!({"interval": "5"}), "interval"),
        (json!({"interval": -1}), "interval"),
        (json!({"interval": 86_401}), "interval"),
        (json!({"notify_on": "match"}), "notify_on"),
        (json!({"notify_on": "always"}), "notify_on"),
        (json!({"headers": ["a"]}), "headers"),
        (json!({"headers": {"A": 1}}), "headers"),
        (json!({"headers": {"A": "b\r\nC: d"}}), "headers"),
        (json!({"headers": {"A b": "c"}}), "headers"),
        (json!({"headers": {"": "c"}}), "headers"),
        (json!({"headers": {"HOST": "c"}}), "headers"),
        (json!({"headers": {"Proxy-Authorization": "c"}}), "headers"),
        (
            json!({"headers": {"Transfer-Encoding": "chunked"}}),
            "headers",
        ),
        (json!({"headers": {"A": "b".repeat(4096)}}), "headers"),
        (json!({"label": false}), "label"),
    ] {
        let mut frame = json!({"type": "watch", "url": URL, "_reqId": "w"});
        let fields = frame.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        world.write(alice, &frame);
        let error = world.last(alice);
        assert_eq!(error["code"], "invalid_argument", "{more}");
        assert_eq!(error["_reqId"], "w");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{more}: {message}");
    }
    assert!(world.fetches().is_empty());
    assert_eq!(world.watch_rows(), []);
}

#[test]
fn a_session_has_only_so_many() {
    let (mut world, alice, bob) = pair();
    for _ in 0..WATCHES_MAX {
        world.watch(alice, &json!({}));
    }
    let watch = json!({"type": "watch", "url": URL, "_reqId": "w"});
    world.write(alice, &watch);
    let error = world.last(alice);
    assert_eq!(
        (&error["code"], &error["_reqId"]),
        (&json!("limit"), &json!("w"))
    );
    assert_eq!(error["message"], "at most 32 watches per session");
    world.watch(bob, &json!({}));
    // A place that is given up may be taken again, but not as often as one likes.
    let id = world.watch_list(alice)[0]["id"].clone();
    world.write(alice, &json!({"type": "unwatch", "watchId": id}));
    world.write(alice, &watch);
    let message = "at most 32 new watches at once, 30 per minute";
    assert_eq!(world.last(alice)["message"], message);
    world.pass_with(&[alice], Millis::secs(3));
    world.watch(alice, &json!({}));
}

#[test]
fn a_mesh_has_only_so_many() {
    let mut world = World::new();
    for n in 0..MESH_WATCHES_MAX / WATCHES_MAX {
        let key = u8::try_from(100 + n).unwrap();
        let conn = world.join(launched(
            1,
            key,
            Box::leak(format!("s{n}").into_boxed_str()),
        ));
        for _ in 0..WATCHES_MAX {
            world.watch(conn, &json!({}));
        }
    }
    let bob = world.join(launched(2, 12, "b"));
    world.write(bob, &json!({"type": "watch", "url": URL}));
    assert_eq!(world.last(bob)["message"], "at most 1024 watches per mesh");
}

#[test]
fn nothing_is_checked_while_the_broker_stops() {
    let (mut world, alice, _) = pair();
    world.watch(alice, &json!({}));
    world.fetched(Ok("one"));
    world.pass_with(&[alice], Millis::secs(5));
    world.input(Input::Shutdown);
    world.fetched(Ok("two"));
    world.pass(Millis::secs(60));
    assert_eq!(world.watch_rows()[0].value, "one");
    assert_eq!(world.triggered(alice), []);
}
