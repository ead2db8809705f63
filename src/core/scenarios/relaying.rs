//! Files and listings that one peer asks of another.

use super::*;
use crate::limits::{RELAY_BYTES_MAX, RELAY_PATIENCE, RELAYS_OF_SESSION_MAX};

fn key(seed: u8) -> String {
    keys(seed).public().to_string()
}

fn last(w: &World, conn: ConnId) -> Value {
    w.frames(conn).pop().unwrap_or_default()
}

#[test]
fn a_file_goes_from_peer_to_peer() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    w.write(
        a,
        &json!({
            "type": "peer_file_request", "targetPubkey": key(12), "filePath": "a.rs", "_reqId": "f",
        }),
    );
    let forwarded = json!({
        "type": "peer_file_request_forward", "requesterPubkey": key(11), "filePath": "a.rs",
        "_reqId": "f",
    });
    assert_eq!(last(&w, b), forwarded);
    let response = json!({
        "type": "peer_file_response", "requesterPubkey": key(11), "filePath": "a.rs",
        "content": "Zm9v", "_reqId": "f",
    });
    w.write(b, &response);
    let given = json!({
        "type": "peer_file_response_forward", "filePath": "a.rs", "content": "Zm9v",
        "_reqId": "f",
    });
    assert_eq!(last(&w, a), given);
    // It was asked for once.
    w.write(b, &response);
    assert_eq!(last(&w, b)["code"], "not_found");
    assert_eq!(last(&w, a), given);
}

#[test]
fn a_listing_is_asked_of_a_member() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let plane = w.join(member(2, None, "d"));
    w.join(launched(2, 12, "s2"));
    w.write(
        a,
        &json!({
            "type": "peer_dir_request", "targetPubkey": key(2), "dirPath": "/", "pattern": "*.rs",
            "_reqId": "d",
        }),
    );
    assert_eq!(last(&w, plane)["pattern"], "*.rs", "its control plane");
    w.write(
        plane,
        &json!({
            "type": "peer_dir_response", "requesterPubkey": key(11), "dirPath": "/",
            "entries": [{"name": "a.rs"}], "_reqId": "d",
        }),
    );
    assert_eq!(last(&w, a)["entries"], json!([{"name": "a.rs"}]));
}

#[test]
fn nobody_is_sent_what_it_did_not_ask_for() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    let c = w.join(launched(3, 13, "s3"));
    w.write(
        a,
        &json!({
            "type": "peer_file_request", "targetPubkey": key(12), "filePath": "a.rs", "_reqId": "f",
        }),
    );
    let before = w.frames(a).len();
    let response = |path: &str, id: &str| {
        json!({
            "type": "peer_file_response", "requesterPubkey": key(11), "filePath": path,
            "content": "x", "_reqId": id,
        })
    };
    // Another peer; another file; another request.
    w.write(c, &response("a.rs", "f"));
    w.write(b, &response("b.rs", "f"));
    w.write(b, &response("a.rs", "g"));
    assert_eq!(w.frames(a).len(), before);
    for conn in [b, c] {
        assert_eq!(last(&w, conn)["code"], "not_found");
    }
    // Nor a connection that comes later.
    w.close(a, Closing::Abrupt);
    let again = w.join(launched(1, 11, "s1"));
    let before = w.frames(again).len();
    w.write(b, &response("a.rs", "f"));
    assert_eq!(w.frames(again).len(), before);
}

#[test]
fn a_request_without_an_answer_ends() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    let request = |target: &str, id: &str| {
        json!({
            "type": "peer_file_request", "targetPubkey": target, "filePath": "a", "_reqId": id,
        })
    };
    for target in [key(13), key(11), "nobody".into()] {
        w.write(a, &request(&target, "none"));
        let error = last(&w, a);
        assert_eq!(
            (&error["code"], &error["_reqId"]),
            (&json!("peer_not_found"), &json!("none"))
        );
    }
    for _ in 0..RELAYS_OF_SESSION_MAX {
        w.write(a, &request(&key(12), "f"));
    }
    w.write(a, &request(&key(12), "one too many"));
    assert_eq!(last(&w, a)["code"], "limit");
    let before = w.frames(a).len();
    w.pass_with(&[a, b], RELAY_PATIENCE);
    w.pass_with(&[a, b], Millis(50));
    let errors = w.frames(a)[before..].to_vec();
    assert_eq!(errors.len(), RELAYS_OF_SESSION_MAX);
    assert!(
        errors
            .iter()
            .all(|it| it["code"] == "not_found" && it["_reqId"] == "f")
    );
    assert!(w.shard.meshes[0].relays.is_none(), "nothing is kept");
    w.write(a, &request(&key(12), "g"));
    assert_eq!(last(&w, b)["_reqId"], "g");
    // In grace there is nobody to ask.
    w.close(b, Closing::Abrupt);
    w.write(a, &request(&key(12), "h"));
    assert_eq!(last(&w, a)["code"], "peer_not_found");
}

#[test]
fn bad_relays_name_the_field() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let large = "x".repeat(RELAY_BYTES_MAX + 1);
    for (field, mut frame) in [
        ("targetPubkey", json!({"type": "peer_file_request"})),
        (
            "filePath",
            json!({"type": "peer_file_request", "targetPubkey": "k"}),
        ),
        (
            "dirPath",
            json!({"type": "peer_dir_request", "targetPubkey": "k", "filePath": "f"}),
        ),
        (
            "content",
            json!({"type": "peer_file_response", "requesterPubkey": "k",
            "filePath": "f", "content": large}),
        ),
        (
            "entries",
            json!({"type": "peer_dir_response", "requesterPubkey": "k",
            "dirPath": "f", "entries": {}}),
        ),
    ] {
        frame["_reqId"] = json!("bad");
        w.write(a, &frame);
        let error = last(&w, a);
        assert_eq!(
            (&error["code"], &error["_reqId"]),
            (&json!("invalid_argument"), &json!("bad"))
        );
        assert!(
            error["message"].as_str().unwrap().starts_with(field),
            "{error}"
        );
    }
}
