//! Topics: who is in them, who hears what is said in them, and what is kept of it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::delivery::send;
use super::missed::three;
use super::*;
use crate::limits::TOPICS_MAX;
use crate::mint::Mint;
use crate::rows::{
    NewTopic, RecordAnswer, RecordAsk, TopicChange, TopicMemberRow, TopicMessage, TopicPost,
};

impl World {
    /// Gives a broker that starts what is on disk of topics.
    pub(super) fn find_topics<'a>(&mut self, written: impl Iterator<Item = &'a StoreOp>) {
        let mut topics = Vec::new();
        let mut members: BTreeMap<(String, String), TopicMemberRow> = BTreeMap::new();
        let of = |row: &TopicMemberRow| (row.topic_id.clone(), row.member_id.clone());
        for op in written {
            let StoreOp::Topic(change) = op else { continue };
            match (**change).clone() {
                TopicChange::Created(made) => {
                    let NewTopic { topic, lead, .. } = *made;
                    topics.push(topic);
                    members.insert(of(&lead), lead);
                }
                TopicChange::MemberPut(row) => {
                    members.insert(of(&row), row);
                }
                TopicChange::MemberGone {
                    topic_id,
                    member_id,
                    ..
                } => {
                    members.remove(&(topic_id, member_id));
                }
            }
        }
        for row in topics {
            self.input(Input::Boot(BootRow::Topic(Box::new(row))));
        }
        for row in members.into_values() {
            self.input(Input::Boot(BootRow::TopicMember(Box::new(row))));
        }
    }

    /// Makes a topic; gives its target.
    fn topic(&mut self, conn: ConnId, name: &str) -> String {
        self.write(
            conn,
            &json!({"type": "topic_create", "name": name, "_reqId": name}),
        );
        let made = self.frames(conn).pop().unwrap();
        format!("#{}", made["topic"]["id"].as_str().unwrap())
    }

    /// Every message is durable.
    fn store_messages(&mut self) {
        for token in self.inserts() {
            let result = Ok(());
            self.input(Input::Stored { token, result });
        }
    }

    fn changes(&self) -> Vec<TopicChange> {
        let changes = self.persisted().filter_map(|(op, _)| match op {
            StoreOp::Topic(change) => Some((**change).clone()),
            _ => None,
        });
        changes.collect()
    }

    fn posts(&self) -> Vec<TopicPost> {
        let posts = self.persisted().filter_map(|(op, _)| match op {
            StoreOp::MessageInsert(row) => row.post.as_deref().cloned(),
            _ => None,
        });
        posts.collect()
    }

    fn member_names(&mut self, conn: ConnId, topic: &str) -> Vec<(String, String)> {
        self.write(
            conn,
            &json!({"type": "topic_members", "topic": topic, "_reqId": "m"}),
        );
        let reply = self.last(conn);
        assert_eq!(reply["topic"], topic);
        let members = reply["members"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        members
            .map(|member| (text(&member["displayName"]), text(&member["role"])))
            .collect()
    }
}

#[test]
fn a_topic_is_made_once_and_answered_when_it_is_durable() {
    let (mut w, alice, bob, _) = three();
    w.disk_held = true;
    let create = json!({"type": "topic_create", "name": "t1", "description": "d",
                        "visibility": "private", "_reqId": "c1"});
    let before = w.frames(alice).len();
    w.write(alice, &create);
    assert_eq!(w.frames(alice).len(), before);
    w.disk_held = false;
    w.store_rows();
    let made = w.last(alice);
    let id = made["topic"]["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    let expected = json!({"type": "topic_created", "created": true, "_reqId": "c1",
                          "topic": {"id": id, "name": "t1", "visibility": "private"}});
    assert_eq!(made, expected);

    w.write(
        bob,
        &json!({"type": "topic_create", "name": "t1", "_reqId": "c2"}),
    );
    let again = json!({"type": "topic_created", "created": false, "_reqId": "c2",
                       "topic": {"id": id, "name": "t1", "visibility": "private"}});
    assert_eq!(w.last(bob), again);
    assert_eq!(w.changes().len(), 1);

    w.topic(bob, "a0");
    w.write(alice, &json!({"type": "topic_list", "_reqId": "l"}));
    let list = w.last(alice);
    assert_eq!(
        (&list["type"], &list["_reqId"]),
        (&json!("topic_list_response"), &json!("l"))
    );
    let names: Vec<&Value> = list["topics"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&names[0]["name"], &names[0]["description"]),
        (&json!("a0"), &Value::Null)
    );
    let entry = json!({"id": id, "name": "t1", "description": "d", "visibility": "private",
                       "memberCount": 1, "createdAt": names[1]["createdAt"]});
    assert_eq!(*names[1], entry);
}

#[test]
fn members_come_and_go_and_read() {
    let (mut w, alice, bob, carol) = three();
    let target = w.topic(alice, "t1");
    let id = &target[1..];
    w.pass(Millis(10));
    w.write(
        carol,
        &json!({"type": "topic_join", "topic": "t1", "role": "observer"}),
    );
    w.pass(Millis(10));
    w.write(
        bob,
        &json!({"type": "topic_join", "topic": id, "_reqId": "j"}),
    );
    let all = [("alice", "lead"), ("carol", "observer"), ("bob", "member")];
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        owned.collect()
    };
    assert_eq!(w.member_names(alice, id), pairs(&all));
    let changes = w.changes().len();
    w.write(carol, &json!({"type": "topic_join", "topic": "t1"}));
    assert_eq!(w.changes().len(), changes, "nothing changed");

    w.write(bob, &json!({"type": "topic_mark_read", "topic": "t1"}));
    w.write(
        alice,
        &json!({"type": "topic_members", "topic": "t1", "_reqId": "m"}),
    );
    let members = w.last(alice)["members"].clone();
    assert_eq!(members[0]["lastReadAt"], Value::Null);
    assert_eq!(members[2]["lastReadAt"], json!(w.now.wall));
    assert_eq!(members[2]["pubkey"], keys(2).public().to_string());

    w.write(carol, &json!({"type": "topic_leave", "topic": "t1"}));
    w.write(carol, &json!({"type": "topic_leave", "topic": "t1"}));
    assert_eq!(w.member_names(alice, "t1"), pairs(&[all[0], all[2]]));
    let gone = |change: &&TopicChange| matches!(change, TopicChange::MemberGone { .. });
    assert_eq!(w.changes().iter().filter(gone).count(), 1);
    let reply = w.refused(
        carol,
        &json!({"type": "topic_mark_read", "topic": "t1", "_reqId": "r"}),
    );
    assert_eq!(
        (&reply["code"], &reply["_reqId"]),
        (&json!("not_found"), &json!("r"))
    );
    // Who is banned is in no list.
    w.write(
        alice,
        &json!({"type": "ban", "target": keys(2).public().to_string()}),
    );
    assert_eq!(w.member_names(alice, "t1"), pairs(&all[..1]));
}

#[test]
fn what_is_said_in_a_topic_reaches_its_members() {
    let (mut w, alice, bob, carol) = three();
    let target = w.topic(alice, "t1");
    w.write(bob, &json!({"type": "topic_join", "topic": "t1"}));
    w.write(alice, &send(&target, "one"));
    assert_eq!(w.texts(bob), ["one"]);
    let push = w.last(bob);
    assert_eq!(
        (&push["topic"], &push["senderName"]),
        (&json!("t1"), &json!("alice"))
    );
    assert!(w.texts(carol).is_empty() && w.texts(alice).is_empty());
    // The ack follows the commit.
    let token = w.inserts()[0];
    w.input(Input::Stored {
        token,
        result: Ok(()),
    });
    let ack = w.last(alice);
    assert_eq!(
        (&ack["queued"], &ack["messageId"]),
        (&json!(true), &push["messageId"])
    );
    // Who is not in it may write to it.
    w.write(carol, &send(&target, "two"));
    assert_eq!(
        (w.texts(bob), w.texts(alice)),
        (vec!["one".into(), "two".into()], vec!["two".into()])
    );
    w.write(bob, &json!({"type": "topic_leave", "topic": "t1"}));
    w.write(alice, &send(&target, "three"));
    assert_eq!(w.texts(bob), ["one", "two"]);
    w.write(alice, &send("#t1", "by name"));
    w.store_messages();
    let refused = w.last(alice);
    assert_eq!(refused["error"], "topic_not_found: topic \"t1\" not found");
    assert_eq!(
        (&refused["queued"], &refused["id"]),
        (&json!(false), &json!("by name"))
    );
}

#[test]
fn a_grant_of_direct_messages_lets_posts_through() {
    let (mut w, alice, bob, _) = three();
    let target = w.topic(alice, "t1");
    w.write(bob, &json!({"type": "topic_join", "topic": "t1"}));
    for (caps, reached) in [(vec!["broadcast"], 0), (vec!["dm"], 1)] {
        let mut row = member_row(2, "bob");
        let caps = caps.into_iter().map(str::to_owned).collect();
        row.grants = vec![(keys(1).public(), caps)];
        w.input(Input::MemberPut(Box::new(row)));
        w.write(alice, &send(&target, &reached.to_string()));
        assert_eq!(w.texts(bob).len(), reached);
    }
    let denied =
        |effect: &&Effect| matches!(effect, Effect::Observe(Event::GrantDenied { cap: "dm" }));
    assert_eq!(w.fx.iter().filter(denied).count(), 1);
}

#[test]
fn who_was_away_is_told_also_after_a_restart() {
    let (mut w, alice, bob, carol) = three();
    let target = w.topic(alice, "t1");
    w.write(bob, &json!({"type": "topic_join", "topic": "t1"}));
    w.confirm_all(bob);
    w.close(bob, Closing::Abrupt);
    w.close(carol, Closing::Abrupt);
    w.write(alice, &send(&target, "one"));
    w.write(alice, &send("*", "all"));
    let mut after = w.restart();
    let bob = after.join(launched(2, 21, "b"));
    let carol = after.join(launched(3, 31, "c"));
    assert_eq!(after.texts(bob), ["one", "all"]);
    assert_eq!(after.texts(carol), ["all"]);
    let alice = after.join(launched(1, 11, "a"));
    after.confirm_all(bob);
    let lead = ("alice".to_owned(), "lead".to_owned());
    assert_eq!(after.member_names(alice, "t1")[0], lead);
    after.write(alice, &send(&target, "two"));
    assert_eq!(after.texts(bob), ["one", "all", "two"]);
    after.store_messages();
    let again = after.refused(
        alice,
        &json!({"type": "topic_create", "name": "t1", "_reqId": "c"}),
    );
    assert_eq!(again["created"], false);
}

#[test]
fn a_post_notifies_whom_it_mentions() {
    let (mut w, alice, ..) = three();
    let target = w.topic(alice, "t1");
    w.write(
        alice,
        &send(&target, &STANDARD.encode("hi @BOB, @alice and @nobody")),
    );
    let mut named = send(&target, "secret");
    named["mentions"] = json!(["Carol", "@bob"]);
    named["bodyVersion"] = json!(2);
    named["replyToId"] = json!("before");
    w.write(alice, &named);
    w.write(alice, &send("*", &STANDARD.encode("@bob")));
    let post = |body_version, mentions: &[&str]| TopicPost {
        topic_id: target[1..].to_owned(),
        body_version,
        mentions: mentions.iter().map(|id| (*id).to_owned()).collect(),
    };
    let expected = [post(1, &["member-2"]), post(2, &["member-2", "member-3"])];
    assert_eq!(w.posts(), expected);
    let mut bad = send(&target, "x");
    bad["mentions"] = json!("bob");
    w.write(alice, &bad);
    w.store_messages();
    let error = w.last(alice)["error"].as_str().unwrap().to_owned();
    assert_eq!(
        error,
        "invalid_argument: mentions must be a list of strings"
    );
}

#[test]
fn history_is_read_from_disk() {
    let (mut w, alice, bob, _) = three();
    let target = w.topic(alice, "t1");
    let seq = Seq(5);
    let id = Mint::new([3; 32]).message_id(seq);
    let message = TopicMessage {
        seq,
        id,
        sender_member_id: "member-1".into(),
        sender_session_pubkey: None,
        nonce: "n".into(),
        ciphertext: "c".into(),
        body_version: 1,
        reply_to_id: None,
        created_at: Wall(0),
    };
    let request = json!({"type": "topic_history", "topic": "t1", "limit": 9999,
                         "beforeId": id.as_str(), "_reqId": "h1"});
    let answer = RecordAnswer::TopicMessages(vec![message]);
    let (ask, reply) = w.exchange(bob, &request, answer);
    let RecordAsk::TopicHistory {
        topic_id,
        before,
        limit,
    } = ask
    else {
        panic!()
    };
    assert_eq!((&*topic_id, before, limit), (&target[1..], Some(seq), 200));
    let entry = json!({
        "id": id.as_str(), "senderPubkey": keys(1).public().to_string(),
        "senderMemberId": "member-1", "senderName": "alice", "nonce": "n", "ciphertext": "c",
        "bodyVersion": 1, "createdAt": "1970-01-01T00:00:00.000Z",
    });
    let expected = json!({"type": "topic_history_response", "topic": "t1", "messages": [entry],
                          "_reqId": "h1"});
    assert_eq!(reply, expected);
}

#[test]
fn bad_requests_are_answered() {
    let (mut w, alice, ..) = three();
    w.topic(alice, "t1");
    for kind in [
        "topic_join",
        "topic_leave",
        "topic_mark_read",
        "topic_members",
        "topic_history",
    ] {
        let reply = w.refused(
            alice,
            &json!({"type": kind, "topic": "nope", "_reqId": "e1"}),
        );
        assert_eq!(reply["code"], "topic_not_found", "{kind}");
        assert_eq!(reply["message"], "topic \"nope\" not found");
        assert_eq!(
            (&reply["id"], &reply["_reqId"]),
            (&json!("e1"), &json!("e1"))
        );
        for bad in [
            json!({"type": kind, "_reqId": "2"}),
            json!({"type": kind, "topic": 7, "_reqId": "2"}),
        ] {
            let reply = w.refused(alice, &bad);
            assert_eq!(
                (&reply["code"], &reply["_reqId"]),
                (&json!("invalid_argument"), &json!("2"))
            );
            assert_eq!(reply["message"], "topic must be a string");
        }
    }
    for (bad, field) in [
        (json!({"type": "topic_create", "name": ""}), "name"),
        (
            json!({"type": "topic_create", "name": "x".repeat(600)}),
            "name",
        ),
        (
            json!({"type": "topic_create", "name": "t2", "description": 1}),
            "description",
        ),
        (
            json!({"type": "topic_create", "name": "t2", "visibility": "secret"}),
            "visibility",
        ),
        (
            json!({"type": "topic_join", "topic": "t1", "role": "king"}),
            "role",
        ),
        (
            json!({"type": "topic_history", "topic": "t1", "limit": "all"}),
            "limit",
        ),
        (
            json!({"type": "topic_history", "topic": "t1", "beforeId": "x"}),
            "beforeId",
        ),
    ] {
        let reply = w.refused(alice, &bad);
        assert_eq!(reply["code"], "invalid_argument", "{bad}");
        assert!(
            reply["message"].as_str().unwrap().starts_with(field),
            "{reply}"
        );
    }
}

#[test]
fn a_mesh_has_so_many_topics() {
    let (mut w, alice, ..) = three();
    for n in 0..TOPICS_MAX {
        w.topic(alice, &n.to_string());
    }
    let reply = w.refused(
        alice,
        &json!({"type": "topic_create", "name": "more", "_reqId": "1"}),
    );
    let expected = json!({"type": "error", "code": "limit", "_reqId": "1",
                          "message": "a mesh may have at most 1000 topics"});
    assert_eq!(reply, expected);
}

#[test]
fn a_status_says_who_was_meant() {
    let (mut w, alice, bob, _) = three();
    let target = w.topic(alice, "t1");
    w.write(bob, &json!({"type": "topic_join", "topic": "t1"}));
    w.write(alice, &send(&target, "one"));
    let row = w.persisted().find_map(|(op, _)| match op {
        StoreOp::MessageInsert(row) => Some(row.clone()),
        _ => None,
    });
    let row = row.unwrap();
    let token = w.inserts()[0];
    w.input(Input::Stored {
        token,
        result: Ok(()),
    });
    w.write(
        alice,
        &json!({"type": "message_status", "messageId": row.id.as_str()}),
    );
    let (index, _, token) = w.next_query().unwrap();
    w.answered = index + 1;
    let result = Ok(StoreAnswer::Message(Some(row)));
    w.input(Input::Answered { token, result });
    let names: Vec<Value> = w.last(alice)["recipients"].as_array().unwrap().clone();
    let names: Vec<&Value> = names.iter().map(|recipient| &recipient["name"]).collect();
    assert_eq!(names, ["alice", "bob"]);
}

#[test]
fn a_topic_is_made_with_a_key_once() {
    let mut world = World::new();
    let alice = world.join(launched(1, 11, "a"));
    let bob = world.join(launched(2, 21, "b"));
    world.topic(alice, "plans");
    world.topic(bob, "plans");
    world.topic(alice, "other");
    let keys = world.persisted().filter_map(|(op, _)| match op {
        StoreOp::Topic(change) => match &**change {
            TopicChange::Created(made) => {
                let key = made.key.clone().unwrap();
                assert_eq!(
                    (&key.topic_id, &*key.member_id),
                    (&made.topic.id, "member-1")
                );
                Some(key.encrypted_key)
            }
            TopicChange::MemberPut(_) | TopicChange::MemberGone { .. } => None,
        },
        _ => None,
    });
    let keys: Vec<String> = keys.collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}
