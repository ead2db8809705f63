//! MCP servers and calls (protocol.md §14): they belong to the lease, and every call is answered.

use super::missed::{heard, three};
use super::*;
use crate::limits::{
    CALL_BYTES_MAX, CALL_RESULT_BYTES_MAX, CALLS_PER_SESSION_MAX, CALLS_TO_HOST_BYTES_MAX,
    SERVERS_PER_SESSION_MAX,
};

fn register(name: &str, persistent: bool) -> Value {
    json!({"type": "mcp_register", "serverName": name, "description": "d", "_reqId": "r",
           "persistent": persistent,
           "tools": [{"name": "q", "description": "query", "inputSchema": {"type": "object"}}]})
}

fn call(name: &str, args: &Value) -> Value {
    json!({"type": "mcp_call", "serverName": name, "toolName": "q", "args": args, "_reqId": "c"})
}

impl World {
    fn latest(&self, conn: ConnId) -> Value {
        self.frames(conn).pop().unwrap_or(Value::Null)
    }

    fn ask(&mut self, conn: ConnId, frame: &Value) -> Value {
        self.write(conn, frame);
        self.latest(conn)
    }

    fn of_type(&self, conn: ConnId, kind: &str) -> Vec<Value> {
        let frames = self.frames(conn).into_iter();
        frames.filter(|frame| frame["type"] == kind).collect()
    }

    /// Names of the servers that are listed, with whether they are online.
    fn listed(&mut self, conn: ConnId) -> Vec<(String, bool)> {
        let list = self.ask(conn, &json!({"type": "mcp_list", "_reqId": "l"}));
        assert_eq!(list["type"], "mcp_list_result");
        let servers = list["servers"].as_array().unwrap().iter();
        servers
            .map(|s| (s["name"].as_str().unwrap().to_owned(), s["online"] == true))
            .collect()
    }
}

fn db(online: bool) -> Vec<(String, bool)> {
    vec![("db".to_owned(), online)]
}

#[test]
fn a_server_is_registered_listed_called_and_removed() {
    let (mut world, alice, bob, carol) = three();
    let ack = world.ask(alice, &register("db", false));
    assert_eq!(
        ack,
        json!({"type": "mcp_register_ack", "serverName": "db", "toolCount": 1, "_reqId": "r"})
    );
    for conn in [bob, carol] {
        let push = world.latest(conn);
        assert_eq!(push["event"], "mcp_registered");
        let data =
            json!({"serverName": "db", "description": "d", "tools": ["q"], "hostedBy": "alice"});
        assert_eq!(push["eventData"], data);
    }
    let list = world.ask(bob, &json!({"type": "mcp_list", "_reqId": "l"}));
    let entry = json!({"name": "db", "description": "d", "hostedBy": "alice", "online": true,
                       "tools": [{"name": "q", "description": "query"}]});
    assert_eq!(list["servers"], json!([entry]));

    world.write(bob, &call("db", &json!({"s": 1})));
    let forward = world.latest(alice);
    assert_eq!(forward["type"], "mcp_call_forward");
    assert_eq!(forward["args"], json!({"s": 1}));
    assert_eq!(
        (&forward["toolName"], &forward["callerName"]),
        (&json!("q"), &json!("bob"))
    );
    let answer =
        json!({"type": "mcp_call_response", "callId": forward["callId"], "result": {"rows": 2}});
    world.write(alice, &answer);
    assert_eq!(
        world.latest(bob),
        json!({"type": "mcp_call_result", "result": {"rows": 2}, "_reqId": "c"})
    );
    assert_eq!(
        world.ask(alice, &answer)["code"],
        "not_found",
        "answered already"
    );

    world.write(bob, &call("db", &json!({})));
    let id = world.latest(alice)["callId"].clone();
    world.write(
        alice,
        &json!({"type": "mcp_call_response", "callId": id, "error": "boom"}),
    );
    assert_eq!(world.latest(bob)["error"], "boom");

    let before = world.frames(alice).len();
    world.write(
        alice,
        &json!({"type": "mcp_unregister", "serverName": "db", "_reqId": "u"}),
    );
    assert_eq!(world.frames(alice).len(), before, "no answer");
    let push = world.latest(bob);
    assert_eq!(push["event"], "mcp_unregistered");
    assert_eq!(
        push["eventData"],
        json!({"serverName": "db", "hostedBy": "alice"})
    );
    assert!(world.listed(bob).is_empty());
    assert!(world.servers().is_empty());
    assert!(world.shard.meshes[0].servers.is_none());
}

#[test]
fn a_call_that_cannot_be_made_says_why() {
    let (mut world, alice, bob, _) = three();
    let answer = world.ask(bob, &call("nope", &json!({})));
    assert_eq!(answer["error"], "MCP server \"nope\" not found in mesh");
    assert_eq!(
        (&answer["type"], &answer["_reqId"]),
        (&json!("mcp_call_result"), &json!("c"))
    );

    world.write(alice, &register("db", true));
    world.write(bob, &call("db", &json!({})));
    world.pass_with(&[alice, bob], Millis(29_999));
    assert_ne!(world.latest(bob)["type"], "mcp_call_result");
    world.pass(Millis(20));
    assert_eq!(world.latest(bob)["error"], "MCP call timed out (30s)");

    world.write(bob, &call("db", &json!({})));
    world.write(alice, &json!({"type": "goodbye"}));
    let told = world.of_type(bob, "mcp_call_result").pop().unwrap();
    assert_eq!(told["error"], "MCP server \"db\" host disconnected");
    for (span, ago) in [(5_000, "5s"), (65_000, "1m"), (3 * 3_600_000, "3h")] {
        world.pass_with(&[bob], Millis(span));
        let answer = world.ask(bob, &call("db", &json!({})));
        let expected = format!(
            "Server 'db' is offline \u{2014} hosted by alice who disconnected {ago} ago. It will \
             restore when they reconnect."
        );
        assert_eq!(answer["error"], expected);
    }
}

#[test]
fn a_call_to_a_host_in_grace_waits_for_its_return() {
    let (mut world, alice, bob, carol) = three();
    world.write(alice, &register("db", false));
    world.confirm_all(bob);
    let told = (world.frames(bob).len(), world.frames(carol).len());
    world.close(alice, Closing::Abrupt);
    world.write(bob, &call("db", &json!({"n": 1})));
    world.pass_with(&[bob, carol], Millis::secs(10));
    let back = world.join(launched(1, 11, "a"));
    let forwards = world.of_type(back, "mcp_call_forward");
    assert_eq!(forwards.len(), 1);
    assert_eq!(forwards[0]["args"], json!({"n": 1}));
    world.write(
        back,
        &json!({"type": "mcp_call_response", "callId": forwards[0]["callId"], "result": 5}),
    );
    assert_eq!(world.latest(bob)["result"], 5);
    assert_eq!(world.listed(bob), db(true), "silently");
    assert_eq!(heard(&world, carol).len(), told.1 - 1);

    world.close(back, Closing::Abrupt);
    world.write(bob, &call("db", &json!({})));
    world.pass_with(&[bob, carol], Millis::secs(31));
    assert_eq!(world.latest(bob)["error"], "MCP call timed out (30s)");
    let back = world.join(launched(1, 11, "a"));
    assert!(
        world.of_type(back, "mcp_call_forward").is_empty(),
        "too late"
    );
}

#[test]
fn what_a_dead_socket_may_have_swallowed_is_written_again_and_nothing_else() {
    let (mut world, alice, bob, carol) = three();
    world.write(alice, &register("db", false));
    world.write(bob, &call("db", &json!("heard")));
    world.write(
        carol,
        &json!({"type": "send", "id": "1", "targetSpec": keys(11).public().to_string(),
                             "priority": "now", "nonce": "", "ciphertext": "x"}),
    );
    world.confirm_all(alice);
    world.write(bob, &call("db", &json!("swallowed")));
    let ids: Vec<Value> = world
        .of_type(alice, "mcp_call_forward")
        .into_iter()
        .map(|forward| forward["callId"].clone())
        .collect();
    let back = world.join(launched(1, 11, "a"));
    let again = world.of_type(back, "mcp_call_forward");
    assert_eq!(again.len(), 1);
    assert_eq!(
        (&again[0]["args"], &again[0]["callId"]),
        (&json!("swallowed"), &ids[1])
    );
    for id in ids {
        world.write(
            back,
            &json!({"type": "mcp_call_response", "callId": id, "result": id}),
        );
    }
    assert_eq!(world.of_type(bob, "mcp_call_result").len(), 2);
}

#[test]
fn the_answer_waits_for_a_caller_that_is_away() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", false));
    world.write(bob, &call("db", &json!({})));
    let id = world.latest(alice)["callId"].clone();
    world.close(bob, Closing::Abrupt);
    world.write(
        alice,
        &json!({"type": "mcp_call_response", "callId": id, "result": 1}),
    );
    let back = world.join(launched(2, 21, "b"));
    let results = world.of_type(back, "mcp_call_result");
    assert_eq!(results.len(), 1);
    assert_eq!(
        (&results[0]["result"], &results[0]["_reqId"]),
        (&json!(1), &json!("c"))
    );
    world.pass_with(&[alice, back], Millis::secs(40));
    assert_eq!(world.of_type(back, "mcp_call_result").len(), 1);
}

#[test]
fn large_results_that_cannot_wait_for_their_caller_say_so() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", false));
    for _ in 0..4 {
        world.write(bob, &call("db", &json!({})));
    }
    let calls = world.of_type(alice, "mcp_call_forward");
    world.close(bob, Closing::Abrupt);
    for forward in calls {
        let result = "x".repeat(CALL_RESULT_BYTES_MAX - 2);
        let id = &forward["callId"];
        world.write(
            alice,
            &json!({"type": "mcp_call_response", "callId": id, "result": result}),
        );
    }
    let bob = world.join(launched(2, 21, "b"));
    let results = world.of_type(bob, "mcp_call_result");
    let kept = results.iter().filter(|result| result["error"].is_null());
    assert_eq!((results.len(), kept.count()), (4, 1));
    assert_eq!(world.closed(bob), None);
}

#[test]
fn a_long_list_says_that_it_is_cut() {
    let (mut world, alice, ..) = three();
    for number in 0..8 {
        let mut frame = register(&format!("s{number}"), false);
        frame["description"] = "d".repeat(60_000).into();
        world.write(alice, &frame);
    }
    let list = world.ask(alice, &json!({"type": "mcp_list"}));
    assert_eq!(
        (
            list["servers"].as_array().unwrap().len(),
            &list["truncated"]
        ),
        (4, &json!(true))
    );
}

#[test]
fn what_a_session_hosts_ends_with_its_lease_and_no_sooner() {
    let (mut world, alice, bob, carol) = three();
    world.write(alice, &register("db", false));
    world.close(alice, Closing::Abrupt);
    world.pass_with(&[bob, carol], Millis::secs(89));
    assert_eq!(world.listed(bob), db(true));
    assert!(!heard(&world, bob).contains(&"mcp_unregistered".to_owned()));
    world.pass_with(&[bob, carol], Millis::secs(2));
    assert!(world.listed(bob).is_empty());
    let ends: Vec<String> = heard(&world, bob).into_iter().rev().take(2).collect();
    assert!(
        ends.contains(&"mcp_unregistered".to_owned()) && ends.contains(&"peer_left".to_owned())
    );
    let back = world.join(launched(1, 11, "a"));
    assert!(world.listed(back).is_empty());
}

#[test]
fn a_persistent_server_waits_for_its_host() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", true));
    world.write(alice, &json!({"type": "goodbye"}));
    assert_eq!(world.listed(bob), db(false));
    assert!(!heard(&world, bob).contains(&"mcp_unregistered".to_owned()));
    let list = world.ask(bob, &json!({"type": "mcp_list"}));
    assert!(list["servers"][0]["offlineSince"].is_string());
    // Not to a command that comes and goes, nor to another session of the member.
    let command = world.join(member(1, Some(12), "cli"));
    world.join(launched(1, 13, "other"));
    assert_eq!(world.listed(bob), db(false));
    world.close(command, Closing::Clean);
    let back = world.join(launched(1, 11, "a"));
    for conn in [back, bob] {
        let push = world
            .frames(conn)
            .into_iter()
            .find(|f| f["event"] == "mcp_restored");
        let data = json!({"serverName": "db", "hostedBy": "alice"});
        assert_eq!(push.unwrap()["eventData"], data);
    }
    assert_eq!(world.listed(bob), db(true));

    world.write(back, &json!({"type": "goodbye"}));
    let daemon = world.join(member(1, None, "daemon"));
    assert_eq!(
        world.listed(bob),
        db(true),
        "a member's own connection takes it"
    );
    world.write(bob, &call("db", &json!({})));
    assert_eq!(world.latest(daemon)["type"], "mcp_call_forward");
}

#[test]
fn a_name_belongs_to_its_member() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", true));
    let refused = world.ask(bob, &register("db", false));
    assert_eq!(
        (&refused["code"], &refused["_reqId"]),
        (&json!("forbidden"), &json!("r"))
    );
    let unregister = json!({"type": "mcp_unregister", "serverName": "db", "_reqId": "u"});
    assert_eq!(world.ask(bob, &unregister)["code"], "forbidden");
    let sibling = world.join(launched(1, 12, "a2"));
    assert_eq!(
        world.ask(sibling, &unregister)["code"],
        "forbidden",
        "not its host"
    );
    world.write(bob, &call("db", &json!({})));
    let id = world.latest(alice)["callId"].clone();
    let forged = json!({"type": "mcp_call_response", "callId": id, "result": 1, "_reqId": "f"});
    assert_eq!(world.ask(bob, &forged)["code"], "forbidden");
    assert_eq!(world.ask(sibling, &forged)["code"], "forbidden");
    world.write(alice, &json!({"type": "goodbye"}));
    assert_eq!(
        world.ask(bob, &register("db", false))["code"],
        "forbidden",
        "also while offline"
    );
    world.write(sibling, &register("db", false));
    assert_eq!(world.listed(bob), db(true), "a sibling may take it");
    world.write(sibling, &unregister);
    assert!(world.listed(bob).is_empty());
    let unknown = json!({"type": "mcp_unregister", "serverName": "db", "_reqId": "u"});
    assert_eq!(world.ask(bob, &unknown)["code"], "not_found");
}

#[test]
fn who_was_away_hears_what_became_of_the_servers() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", false));
    world.confirm_all(bob);
    world.close(bob, Closing::Abrupt);
    let name = |name: &str| json!({"type": "mcp_unregister", "serverName": name});
    world.write(alice, &register("kept", false));
    world.write(alice, &register("gone", false));
    world.write(alice, &name("gone"));
    world.write(alice, &name("db"));
    world.write(alice, &register("kept", false));
    let back = world.join(launched(2, 21, "b"));
    let told: Vec<(String, String)> = world
        .frames(back)
        .iter()
        .filter(|f| f["subtype"] == "system")
        .map(|f| {
            (
                f["event"].to_string(),
                f["eventData"]["serverName"].to_string(),
            )
        })
        .collect();
    let of = |event: &str, name: &str| (json!(event).to_string(), json!(name).to_string());
    assert_eq!(
        told,
        [
            of("mcp_unregistered", "gone"),
            of("mcp_unregistered", "db"),
            of("mcp_registered", "kept"),
        ]
    );
}

#[test]
fn servers_outlive_the_broker_with_their_leases() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", false));
    let carol = world.join(launched(3, 32, "x"));
    world.write(carol, &register("stays", true));
    world.write(carol, &json!({"type": "goodbye"}));
    let mut after = world.restart();
    let bob = {
        let _ = bob;
        after.join(launched(2, 21, "b"))
    };
    let both = [("db".to_owned(), true), ("stays".to_owned(), false)];
    assert_eq!(after.listed(bob), both);
    after.write(bob, &call("db", &json!({})));
    let alice = after.join(launched(1, 11, "a"));
    assert_eq!(after.of_type(alice, "mcp_call_forward").len(), 1);
    after.join(launched(3, 32, "x"));
    let both = [("db".to_owned(), true), ("stays".to_owned(), true)];
    assert_eq!(after.listed(bob), both);

    // A lease that nobody claimed ends, and what it hosted with it.
    let mut later = after.restart();
    let bob = later.join(launched(2, 21, "b"));
    later.pass_with(&[bob], Millis::secs(100));
    assert_eq!(later.listed(bob), [("stays".to_owned(), false)]);
    let rows = later.servers();
    assert_eq!((rows.len(), rows[0].host), (1, None));
}

#[test]
fn what_others_could_not_read_is_not_passed_on() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &register("db", false));
    let unfit = [
        "[".repeat(20_000),
        "1e999".to_owned(),
        r#""\ud800""#.to_owned(),
    ];
    for unfit in unfit {
        let closed = "]".repeat(unfit.matches('[').count());
        let say = |world: &mut World, conn, frame: String| {
            world.input(Input::Frame { conn, text: &frame });
            world.latest(conn)
        };
        let args = format!(
            r#"{{"type":"mcp_call","serverName":"db","toolName":"q","_reqId":"a","args":{unfit}{closed}}}"#
        );
        let refused = say(&mut world, bob, args);
        assert_eq!(refused["code"], "invalid_argument");
        world.write(bob, &call("db", &json!({})));
        let id = world.latest(alice)["callId"].clone();
        let answer = format!(
            r#"{{"type":"mcp_call_response","callId":{id},"_reqId":"r","result":{unfit}{closed}}}"#
        );
        let refused = say(&mut world, alice, answer);
        assert_eq!(refused["code"], "invalid_argument");
        let result = world.latest(bob);
        assert_eq!(result["_reqId"], "c");
        assert!(result["error"].as_str().unwrap().contains("readable JSON"));
    }
    let tools = json!([{"name": "q", "description": null}]);
    let ack = world.ask(
        alice,
        &json!({"type": "mcp_register", "serverName": "db", "description": "d", "tools": tools}),
    );
    assert_eq!(ack["toolCount"], 1);
    // Nothing is something, too.
    world.write(bob, &call("db", &json!({})));
    let id = world.latest(alice)["callId"].clone();
    world.write(
        alice,
        &json!({"type": "mcp_call_response", "callId": id, "result": null}),
    );
    let result = world.latest(bob);
    assert!(
        result.as_object().unwrap().contains_key("result"),
        "{result}"
    );
}

#[test]
fn bad_requests_are_told_why() {
    let (mut world, alice, ..) = three();
    for (frame, about) in [
        (
            json!({"type": "mcp_register", "description": "d", "tools": []}),
            "serverName",
        ),
        (
            json!({"type": "mcp_register", "serverName": "", "description": "d", "tools": []}),
            "serverName",
        ),
        (
            json!({"type": "mcp_register", "serverName": "x", "tools": []}),
            "description",
        ),
        (
            json!({"type": "mcp_register", "serverName": "x", "description": "d"}),
            "tools",
        ),
        (
            json!({"type": "mcp_register", "serverName": "x", "description": "d", "tools": [{}]}),
            "tools",
        ),
        (
            json!({"type": "mcp_register", "serverName": "x", "description": "d", "tools": [],
                "persistent": 1}),
            "persistent",
        ),
        (
            json!({"type": "mcp_register", "serverName": "x", "description": "d",
                "tools": [{"name": null, "description": null}]}),
            "tools",
        ),
        (json!({"type": "mcp_unregister"}), "serverName"),
        (json!({"type": "mcp_call", "toolName": "q"}), "serverName"),
        (json!({"type": "mcp_call", "serverName": "x"}), "toolName"),
        (json!({"type": "mcp_call_response", "result": 1}), "callId"),
    ] {
        let mut frame = frame;
        frame["_reqId"] = "q".into();
        let answer = world.ask(alice, &frame);
        assert_eq!(
            (&answer["code"], &answer["_reqId"]),
            (&json!("invalid_argument"), &json!("q"))
        );
        assert!(
            answer["message"].as_str().unwrap().starts_with(about),
            "{answer}"
        );
    }
    let catalog = world.ask(alice, &json!({"type": "mcp_catalog", "_reqId": "k"}));
    assert_eq!(
        catalog,
        json!({"type": "mcp_catalog_result", "services": [], "_reqId": "k"})
    );
}

#[test]
fn a_session_hosts_and_calls_so_much() {
    let (mut world, alice, bob, _) = three();
    let tool = |n: usize| json!({"name": format!("t{n}")});
    let many: Vec<Value> = (0..200).map(tool).collect();
    let mut frame = register("x", false);
    frame["tools"] = many.into();
    assert_eq!(world.ask(alice, &frame)["code"], "limit");
    frame["tools"] = json!([{"name": "t", "description": "x".repeat(100_000)}]);
    assert_eq!(world.ask(alice, &frame)["code"], "limit");
    for n in 0..SERVERS_PER_SESSION_MAX {
        let ack = world.ask(alice, &register(&format!("s{n}"), false));
        assert_eq!(ack["type"], "mcp_register_ack");
    }
    let answer = world.ask(alice, &register("more", false));
    assert_eq!(answer["code"], "limit");
    assert!(answer["message"].as_str().unwrap().contains("32"));
    assert_eq!(
        world.ask(alice, &register("s0", true))["type"],
        "mcp_register_ack",
        "again"
    );

    let large = world.ask(bob, &call("s0", &json!("x".repeat(CALL_BYTES_MAX))));
    assert_eq!(
        (&large["code"], &large["_reqId"]),
        (&json!("limit"), &json!("c"))
    );
    let heavy = call("s0", &json!("x".repeat(60_000)));
    let room = CALLS_TO_HOST_BYTES_MAX / 61_000;
    let before = world.frames(bob).len();
    (0..room).for_each(|_| world.write(bob, &heavy));
    assert_eq!(world.frames(bob).len(), before);
    assert_eq!(world.ask(bob, &heavy)["code"], "limit", "for one host");
    for _ in room..CALLS_PER_SESSION_MAX {
        world.write(bob, &call("s0", &json!({})));
    }
    assert_eq!(
        world.ask(bob, &call("s0", &json!({})))["code"],
        "limit",
        "of one caller"
    );
    world.pass_with(&[alice, bob], Millis::secs(31));
    assert_eq!(
        world.of_type(bob, "mcp_call_result").len(),
        CALLS_PER_SESSION_MAX
    );
    world.write(bob, &call("s0", &json!({})));
    assert_eq!(world.latest(alice)["type"], "mcp_call_forward");
}
