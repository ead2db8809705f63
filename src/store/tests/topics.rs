//! Topics: who is in them, what was said in them, and who is notified of it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one answer among many"
)]

use super::*;
use crate::core::limits::{ANSWER_BYTES_MAX, TOPIC_MESSAGES_MAX};
use crate::core::rows::{
    NewTopic, RecordAnswer, RecordAsk, TopicChange, TopicKeyRow, TopicMemberRow, TopicPost,
    TopicRole, TopicRow, Visibility,
};

fn topic(world: &World, id: &str, name: &str) -> TopicRow {
    TopicRow {
        id: id.to_owned(),
        mesh_id: world.made.mesh.id.clone(),
        name: name.to_owned(),
        description: Some("d".to_owned()),
        visibility: Visibility::Private,
        created_by: "m1".to_owned(),
        created_at: Wall(5),
    }
}

fn member(world: &World, topic_id: &str, member_id: &str) -> TopicMemberRow {
    TopicMemberRow {
        mesh_id: world.made.mesh.id.clone(),
        topic_id: topic_id.to_owned(),
        member_id: member_id.to_owned(),
        role: TopicRole::Observer,
        joined_at: Wall(6),
        last_read_at: None,
    }
}

fn change(change: TopicChange) -> StoreOp {
    StoreOp::Topic(Box::new(change))
}

fn made(world: &World, id: &str, name: &str) -> StoreOp {
    change(TopicChange::Created(Box::new(NewTopic {
        topic: topic(world, id, name),
        lead: member(world, id, "m1"),
        key: None,
    })))
}

impl World {
    fn post(&self, seq: u64, topic_id: &str, mentions: &[&str]) -> StoreOp {
        let mut row = message(&self.made, seq, &format!("#{topic_id}"));
        row.delivered_at = Some(Wall(100));
        row.client_message_id = None;
        row.post = Some(Box::new(TopicPost {
            topic_id: topic_id.to_owned(),
            body_version: 2,
            mentions: mentions.iter().map(|id| (*id).to_owned()).collect(),
        }));
        sent(row)
    }

    fn history(&self, topic_id: &str, before: Option<u64>, limit: u32) -> Vec<u64> {
        let ask = RecordAsk::TopicHistory {
            topic_id: topic_id.to_owned(),
            before: before.map(Seq),
            limit,
        };
        match self.ask(ask) {
            RecordAnswer::TopicMessages(found) => found.iter().map(|it| it.seq.0).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn topics_and_who_is_in_them_are_found_at_boot() {
    let world = World::new();
    world.persist(made(&world, "t2", "b"));
    world.persist(made(&world, "t1", "a"));
    world
        .client
        .persist(made(&world, "t3", "a"), Some(Token(0)));
    assert_eq!(
        world.stored(),
        (0, Err(StoreFailure::Io)),
        "the name is taken"
    );
    let mut other = member(&world, "t1", "m2");
    world.persist(change(TopicChange::MemberPut(other.clone())));
    other.last_read_at = Some(Wall(9));
    other.role = TopicRole::Lead;
    world.persist(change(TopicChange::MemberPut(other.clone())));
    world.persist(change(TopicChange::MemberGone {
        mesh_id: other.mesh_id.clone(),
        topic_id: "t2".to_owned(),
        member_id: "m1".to_owned(),
    }));
    let rows = boot(&world.store).rows;
    let topics = rows.iter().filter_map(|row| match row {
        BootRow::Topic(row) => Some((**row).clone()),
        _ => None,
    });
    let topics: Vec<TopicRow> = topics.collect();
    assert_eq!(topics, [topic(&world, "t2", "b"), topic(&world, "t1", "a")]);
    let members = rows.iter().filter_map(|row| match row {
        BootRow::TopicMember(row) => Some((**row).clone()),
        _ => None,
    });
    let members: Vec<TopicMemberRow> = members.collect();
    assert_eq!(members, [member(&world, "t1", "m1"), other]);
}

#[test]
fn a_sealed_key_is_written_with_its_topic_or_not_at_all() {
    let world = World::new();
    let with_key = |id: &str| {
        let key = TopicKeyRow {
            topic_id: id.to_owned(),
            member_id: "m1".to_owned(),
            sender: "aa".to_owned(),
            encrypted_key: "blob".to_owned(),
            nonce: "nonce".to_owned(),
        };
        change(TopicChange::Created(Box::new(NewTopic {
            topic: topic(&world, id, "a"),
            lead: member(&world, id, "m1"),
            key: Some(key),
        })))
    };
    world.persist(with_key("t1"));
    world.client.persist(with_key("t2"), Some(Token(0)));
    assert_eq!(world.stored(), (0, Err(StoreFailure::Io)));
    let file = Connection::open(&world.path).unwrap();
    let keys = "SELECT topic.id || encrypted_key_pubkey || member_id || encrypted_key || nonce
        FROM topic JOIN topic_member_key ON topic_id = topic.id";
    let mut keys = file.prepare(keys).unwrap();
    let keys: Vec<String> = keys
        .query_map((), |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(keys, ["t1aam1blobnonce"]);
    let all = "SELECT count(*) FROM topic_member_key";
    let all: i64 = file.query_row(all, (), |row| row.get(0)).unwrap();
    assert_eq!(all, 1);
}

#[test]
fn history_is_by_topic_the_latest_first() {
    let world = World::new();
    world.persist(made(&world, "t1", "a"));
    world.persist(made(&world, "t2", "b"));
    for seq in 1..=6 {
        let topic_id = ["t1", "t2"][usize::try_from(seq % 2).unwrap()];
        world.persist(world.post(seq, topic_id, &[]));
    }
    assert_eq!(world.history("t1", None, 50), [6, 4, 2]);
    assert_eq!(world.history("t1", Some(6), 1), [4]);
    assert_eq!(world.history("t3", None, 50), Vec::<u64>::new());
    assert_eq!(world.count("message_queue WHERE target_spec = '#t1'"), 3);
    assert_eq!(
        world.count("audit_log WHERE event_type = 'message_sent'"),
        6
    );
    // One that is refused is in no history.
    world
        .client
        .persist(world.post(6, "t2", &[]), Some(Token(0)));
    assert_eq!(world.stored(), (0, Err(StoreFailure::Io)));
    assert_eq!(world.history("t2", None, 50), [5, 3, 1]);
}

#[test]
fn no_more_is_read_than_an_answer_takes() {
    let world = World::new();
    world.persist(made(&world, "t1", "a"));
    for seq in 1..=8 {
        let StoreOp::MessageInsert(mut row) = world.post(seq, "t1", &[]) else {
            panic!()
        };
        row.ciphertext = "c".repeat(ANSWER_BYTES_MAX / 3 - 10);
        world.persist(StoreOp::MessageInsert(row));
    }
    assert_eq!(world.history("t1", None, 50).len(), 4);
}

#[test]
fn who_is_mentioned_is_notified_until_it_has_read() {
    let world = World::new();
    world.persist(made(&world, "t1", "a"));
    world.persist(world.post(1, "t1", &["m2", "m3"]));
    assert_eq!(world.count("notification WHERE read_at IS NULL"), 2);
    let mut reader = member(&world, "t1", "m2");
    for (at, unread) in [(99, 2), (100, 1)] {
        reader.last_read_at = Some(Wall(at));
        world.persist(change(TopicChange::MemberPut(reader.clone())));
        assert_eq!(world.count("notification WHERE read_at IS NULL"), unread);
    }
    let mine = "notification WHERE recipient_member_id = 'm2' AND read_at = 100
        AND kind = 'mention' AND topic_id = 't1' AND message_seq = 1";
    assert_eq!(world.count(mine), 1);
}

#[test]
fn the_oldest_of_a_full_history_makes_room() {
    let world = World::new();
    world.persist(made(&world, "t1", "a"));
    world.persist(world.post(1, "t1", &["m2"]));
    world.persist(world.post(2, "t1", &[]));
    let full = i64::try_from(TOPIC_MESSAGES_MAX).unwrap();
    world
        .store
        .admin()
        .call(move |conn| {
            conn.execute("UPDATE topic SET messages = ?1", [full])?;
            Ok(())
        })
        .unwrap();
    world.persist(world.post(3, "t1", &[]));
    assert_eq!(world.history("t1", None, 50), [3, 2]);
    assert_eq!(world.count("notification"), 0);
    assert_eq!(world.count(&format!("topic WHERE messages = {full}")), 1);
}
