//! The audit log, webhooks, and contexts: what of it others are told, and what is asked rarely.

use super::*;
use crate::rows::{AuditEntry, AuditPage, Chain, RecordAnswer, RecordAsk};

#[test]
fn the_audit_log_is_verified_once_at_a_time() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    let request = json!({"type": "audit_verify", "_reqId": "v"});
    w.write(a, &request);
    let (_, token) = w.asked();
    assert_eq!(w.refused(b, &request)["code"], "limit");
    w.close(a, Closing::Abrupt);
    let chain = Chain {
        entries: 4,
        broken_at: Some(2),
    };
    w.tell(token, RecordAnswer::Chain(chain));
    let (_, reply) = w.exchange(b, &request, RecordAnswer::Chain(chain));
    let expected = json!({
        "type": "audit_verify_result", "valid": false, "entries": 4, "brokenAt": 2, "_reqId": "v",
    });
    assert_eq!(reply, expected);
}

#[test]
fn an_audit_page_is_bounded_and_shows_what_is_broken_as_null() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let request =
        json!({"type": "audit_query", "limit": 1_000_000_000, "offset": 7, "_reqId": "q"});
    let entry = |payload: &str| AuditEntry {
        payload: payload.into(),
        actor: "system".into(),
        ..AuditEntry::default()
    };
    let page = AuditPage {
        entries: vec![entry("{\"a\":1.50}"), entry("{")],
        total: 9,
        truncated: false,
    };
    let (ask, reply) = w.exchange(a, &request, RecordAnswer::Audit(page));
    assert!(matches!(
        ask,
        RecordAsk::AuditPage {
            limit: 500,
            offset: 7,
            event_type: None
        }
    ));
    assert_eq!(reply["total"], 9);
    assert_eq!(reply["entries"][0]["payload"]["a"], 1.5);
    assert_eq!(reply["entries"][1]["payload"], Value::Null);
    for bad in [json!(-1), json!("5"), json!(1.5)] {
        let reply = w.refused(
            a,
            &json!({"type": "audit_query", "limit": bad, "_reqId": "q"}),
        );
        assert_eq!(
            (&reply["code"], &reply["_reqId"]),
            (&json!("invalid_argument"), &json!("q"))
        );
    }
}

#[test]
fn webhooks_have_an_address_with_a_secret() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let create = json!({"type": "create_webhook", "name": "wh", "_reqId": "1"});
    let (_, reply) = w.exchange(a, &create, RecordAnswer::Written);
    let secret = reply["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 64);
    assert_eq!(reply["url"], format!("/hook/{MESH}/{secret}"));
    let (_, reply) = w.exchange(a, &create, RecordAnswer::Taken);
    assert_eq!(reply["code"], "webhook_exists");
    assert_eq!(
        reply["message"],
        "Webhook \"wh\" already exists in this mesh"
    );
    let delete = json!({"type": "delete_webhook", "name": "wh", "_reqId": "2"});
    let (_, reply) = w.exchange(a, &delete, RecordAnswer::Written);
    assert_eq!(reply["type"], "webhook_ack");
    let (_, reply) = w.exchange(a, &delete, RecordAnswer::Missing);
    assert_eq!(reply["code"], "not_found");
    let reply = w.refused(
        a,
        &json!({"type": "create_webhook", "name": "", "_reqId": "3"}),
    );
    assert_eq!(
        (&reply["code"], &reply["_reqId"]),
        (&json!("invalid_webhook"), &json!("3"))
    );
}

#[test]
fn others_are_told_of_a_context_when_it_is_durable_also_later() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    let c = w.join(launched(3, 13, "s3"));
    w.confirm_all(c);
    w.close(c, Closing::Abrupt);
    let share = json!({"type": "share_context", "summary": "at work", "_reqId": "c"});
    w.write(a, &share);
    let told = |w: &World, conn| {
        let frames = w.frames(conn).into_iter();
        frames
            .filter(|f| f["type"] == "state_change")
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&w, b).len(), 0);
    let (_, token) = w.asked();
    w.tell(token, RecordAnswer::Kept("id".into()));
    let change = json!({
        "type": "state_change", "key": "_context:alice", "value": "at work",
        "updatedBy": "alice",
    });
    assert_eq!(told(&w, b), std::slice::from_ref(&change));
    assert!(told(&w, a).is_empty());
    let again = w.join(launched(3, 13, "s3"));
    assert_eq!(told(&w, again), [change]);
}

#[test]
fn what_comes_through_a_webhook_reaches_everybody_once() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    w.confirm_all(b);
    w.close(b, Closing::Abrupt);
    let post = |w: &mut World, mesh_id: &str| {
        let body = serde_json::value::RawValue::from_string("{\"n\": 1.50}".into()).unwrap();
        let ask = crate::input::Ask::Post {
            mesh_id: mesh_id.into(),
            secret: "secret".into(),
            body,
        };
        let ticket = crate::ids::Ticket(7);
        w.input(Input::Ask { ticket, ask });
    };
    let answers = |w: &World| {
        let answers = w.fx.iter().filter_map(|effect| match effect {
            Effect::Answer { answer, .. } => Some(format!("{answer:?}")),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    post(&mut w, "elsewhere");
    assert_eq!(answers(&w), ["Posted(Ok(None))"]);
    post(&mut w, MESH);
    let (ask, token) = w.asked();
    assert!(matches!(ask, RecordAsk::FindWebhook { secret } if secret == "secret"));
    w.tell(token, RecordAnswer::Webhooks(Vec::new()));
    assert_eq!(answers(&w)[1..], ["Posted(Ok(None))"]);
    post(&mut w, MESH);
    let (_, token) = w.asked();
    let webhook = crate::rows::Webhook {
        name: "ci".into(),
        ..Default::default()
    };
    w.tell(token, RecordAnswer::Webhooks(vec![webhook]));
    assert_eq!(answers(&w)[2..], ["Posted(Ok(Some(2)))"], "grace counts");
    let again = w.join(launched(2, 12, "s2"));
    for conn in [a, again] {
        let frames = w.frames(conn).into_iter();
        let mut pushes: Vec<_> = frames.filter(|f| f["subtype"] == "webhook").collect();
        assert_eq!(pushes.len(), 1);
        let push = pushes[0].as_object_mut().unwrap();
        push.remove("messageId").unwrap();
        push.remove("createdAt").unwrap();
        let expected = json!({
            "type": "push", "subtype": "webhook", "event": "ci", "eventData": {"n": 1.5},
            "meshId": MESH, "senderPubkey": "webhook:ci", "priority": "next", "nonce": "",
            "ciphertext": "",
        });
        assert_eq!(pushes[0], expected);
    }
}
