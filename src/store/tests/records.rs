//! What a mesh keeps on disk only.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one answer among many"
)]

use super::*;
use crate::core::limits::{API_KEYS_MAX, TASKS_MAX, VAULT_ENTRIES_MAX};
use crate::core::rows::{
    ApiKey, Context, Memory, RecordAnswer, RecordAsk, RecordQuery, Revoked, Skill, Tally, Task,
    TaskStatus, VaultEntry, Webhook,
};

impl World {
    pub(super) fn give(&self, ask: RecordAsk, token: u64) {
        let mesh_id = self.made.mesh.id.clone();
        let query = StoreQuery::Records(Box::new(RecordQuery { mesh_id, ask }));
        self.client.query(query, Token(token));
    }

    pub(super) fn ask(&self, ask: RecordAsk) -> RecordAnswer {
        self.give(ask, 0);
        match self.answer() {
            Ok(StoreAnswer::Records(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn written(&self, ask: RecordAsk) {
        let answer = self.ask(ask);
        assert!(matches!(answer, RecordAnswer::Written), "{answer:?}");
    }

    fn missing(&self, ask: RecordAsk) {
        let answer = self.ask(ask);
        assert!(matches!(answer, RecordAnswer::Missing), "{answer:?}");
    }

    fn recalled(&self, words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        match self.ask(RecordAsk::Recall { words, limit: 20 }) {
            RecordAnswer::Memories(memories) => memories.into_iter().map(|m| m.content).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn tasks(&self, status: Option<TaskStatus>, assignee: Option<&str>) -> Vec<Task> {
        let ask = RecordAsk::ListTasks {
            status,
            assignee: assignee.map(str::to_owned),
            limit: 100,
        };
        match self.ask(ask) {
            RecordAnswer::Tasks(tasks) => tasks,
            other => panic!("{other:?}"),
        }
    }

    fn claim(&self, id: &str, by: &str) -> RecordAnswer {
        self.ask(RecordAsk::ClaimTask {
            id: id.into(),
            by: by.into(),
            presence_id: "p".into(),
            at: Wall(2),
            limit: 100,
        })
    }

    /// Fills a table up to a number of rows of this mesh, quickly.
    fn fill(&self, rows: usize, insert: &'static str) {
        let (mesh_id, rows) = (self.made.mesh.id.clone(), i64::try_from(rows).unwrap());
        self.store
            .admin()
            .call(move |conn| {
                let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                    WHERE i < ?2)";
                conn.execute(&insert.replace("NUMBERS", numbers), (mesh_id, rows))?;
                Ok(())
            })
            .unwrap();
    }
}

fn memory(id: &str, content: &str) -> RecordAsk {
    RecordAsk::Remember(Memory {
        id: id.into(),
        content: content.into(),
        tags: vec!["t".into()],
        member_id: "m".into(),
        by: "alice".into(),
        at: Wall(1),
    })
}

fn task(id: &str) -> RecordAsk {
    RecordAsk::CreateTask(Task {
        id: id.into(),
        title: format!("do {id}"),
        priority: "normal".into(),
        created_by: Some("alice".into()),
        created_at: Wall(1),
        ..Task::default()
    })
}

#[test]
fn memories_are_found_by_the_stems_of_their_words() {
    let world = World::new();
    world.written(memory("1", "The quick brown fox jumps over the lazy dog"));
    world.written(memory("2", "fox hunting is forbidden here"));
    world.written(memory("3", "deploys happen on Friday"));
    assert_eq!(world.recalled(&["jumping", "foxes"]).len(), 1);
    assert_eq!(world.recalled(&["fox"]).len(), 2);
    // The shorter one fits better.
    assert!(world.recalled(&["fox"])[0].starts_with("fox hunting"));
    assert!(world.recalled(&["fox", "friday"]).is_empty());
    world.written(RecordAsk::Forget { id: "2".into() });
    world.missing(RecordAsk::Forget { id: "2".into() });
    assert_eq!(world.recalled(&["fox"]).len(), 1);
    assert_eq!(count(&world.disk(), "memory"), 2);
}

#[test]
fn a_query_is_never_syntax_and_another_mesh_is_never_searched() {
    let world = World::new();
    world.written(memory("1", "alpha beta"));
    for words in [
        vec!["\"", "alpha"],
        vec!["alpha\" OR content : \"beta"],
        vec!["alpha*"],
        vec!["NEAR(alpha beta)"],
        vec!["') --"],
    ] {
        let found = world.recalled(&words);
        assert!(found.len() <= 1, "{words:?}");
    }
    let other = RecordQuery {
        mesh_id: "another".into(),
        ask: RecordAsk::Recall {
            words: vec!["alpha".into()],
            limit: 20,
        },
    };
    let query = StoreQuery::Records(Box::new(other));
    world.client.query(query, Token(0));
    let answer = world.answer();
    assert!(
        matches!(&answer, Ok(StoreAnswer::Records(RecordAnswer::Memories(found))) if found.is_empty()),
        "{answer:?}"
    );
    // The same words in capitals, as an operator is written.
    assert!(world.recalled(&["alpha", "OR", "gamma"]).is_empty());
}

#[test]
fn a_read_sees_what_was_asked_for_before_it() {
    let world = World::new();
    for round in 0..20_u64 {
        world.give(memory(&round.to_string(), "same words"), 2 * round);
        world.give(RecordAsk::Tally, 2 * round + 1);
    }
    let mut tallies = Vec::new();
    for _ in 0..40 {
        match world.answer() {
            Ok(StoreAnswer::Records(RecordAnswer::Tally(tally))) => tallies.push(tally.memories),
            Ok(StoreAnswer::Records(RecordAnswer::Written)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(tallies.is_sorted());
    for (round, seen) in (1..).zip(tallies) {
        assert!(seen >= round, "{seen} of {round}");
    }
}

#[test]
fn of_two_who_claim_a_task_one_gets_it() {
    let world = World::new();
    world.written(task("1"));
    world.written(task("2"));
    let RecordAnswer::Tasks(tasks) = world.claim("1", "bob") else {
        panic!()
    };
    let ids: Vec<&str> = tasks.iter().map(|task| &*task.id).collect();
    assert_eq!(ids, ["2", "1"]);
    assert_eq!(tasks[1].claimed_by.as_deref(), Some("bob"));
    assert!(matches!(world.claim("1", "carol"), RecordAnswer::Missing));
    assert!(matches!(
        world.claim("none", "carol"),
        RecordAnswer::Missing
    ));
    assert_eq!(world.tasks(Some(TaskStatus::Open), None).len(), 1);
    assert_eq!(world.tasks(None, Some("carol")).len(), 0);
    let done = |id: &str| {
        world.ask(RecordAsk::CompleteTask {
            id: id.into(),
            result: Some("well".into()),
            at: Wall(3),
            limit: 100,
        })
    };
    assert!(matches!(done("1"), RecordAnswer::Tasks(_)));
    assert!(matches!(done("none"), RecordAnswer::Missing));
    let RecordAnswer::Tally(tally) = world.ask(RecordAsk::Tally) else {
        panic!()
    };
    let expected = Tally {
        open: 1,
        done: 1,
        ..Tally::default()
    };
    assert_eq!(tally, expected);
}

#[test]
fn done_tasks_make_room_and_open_ones_do_not() {
    let world = World::new();
    world.fill(
        TASKS_MAX,
        "NUMBERS INSERT INTO task (id, mesh_id, title, priority, status, tags, created_at)
         SELECT 'x' || i, ?1, 't', 'normal', 'open', '[]', 0 FROM n",
    );
    assert!(matches!(world.ask(task("new")), RecordAnswer::Full));
    world.ask(RecordAsk::CompleteTask {
        id: "x7".into(),
        result: None,
        at: Wall(3),
        limit: 1,
    });
    world.written(task("new"));
    assert_eq!(count(&world.disk(), "task WHERE id = 'x7'"), 0);
    assert!(matches!(world.ask(task("more")), RecordAnswer::Full));
}

#[test]
fn a_member_has_one_context_that_is_found_by_summary_or_tag() {
    let world = World::new();
    let share = |id: &str, member: &str, summary: &str, at| {
        let answer = world.ask(RecordAsk::ShareContext(Context {
            id: id.into(),
            member_id: member.into(),
            peer_name: member.into(),
            summary: summary.into(),
            files_read: vec!["a.rs".into()],
            tags: vec!["db".into()],
            updated_at: Wall(at),
            ..Context::default()
        }));
        match answer {
            RecordAnswer::Kept(id) => id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(share("1", "alice", "Fixing the parser", 1), "1");
    assert_eq!(share("2", "alice", "Fixing the 100% lexer", 2), "1");
    assert_eq!(share("3", "bob", "reads", 3), "3");
    let find = |text: Option<&str>| {
        let text = text.map(str::to_owned);
        match world.ask(RecordAsk::FindContexts { text, limit: 20 }) {
            RecordAnswer::Contexts(found) => {
                found.into_iter().map(|it| it.summary).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(find(None), ["reads", "Fixing the 100% lexer"]);
    assert_eq!(find(Some("LEXER")), ["Fixing the 100% lexer"]);
    assert_eq!(find(Some("db")).len(), 2);
    assert!(find(Some("d")).len() == 1, "part of 'reads', not of a tag");
    assert!(find(Some("%")).len() == 1, "no wildcard");
}

#[test]
fn a_skill_is_replaced_by_the_next_of_its_name() {
    let world = World::new();
    let share = |id: &str, instructions: &str| {
        world.written(RecordAsk::ShareSkill(Skill {
            id: id.into(),
            name: "review".into(),
            description: "Reads code".into(),
            instructions: instructions.into(),
            manifest: Some("{\"x\":1.50}".into()),
            ..Skill::default()
        }));
    };
    share("1", "slowly");
    share("2", "fast");
    let skills = |ask| match world.ask(ask) {
        RecordAnswer::Skills(skills) => skills,
        other => panic!("{other:?}"),
    };
    let whole = skills(RecordAsk::GetSkill {
        name: "review".into(),
    });
    assert_eq!((&*whole[0].id, &*whole[0].instructions), ("1", "fast"));
    assert_eq!(whole[0].manifest.as_deref(), Some("{\"x\":1.50}"));
    let list = |text: Option<&str>| {
        let text = text.map(str::to_owned);
        skills(RecordAsk::ListSkills { text, limit: 9 })
    };
    assert_eq!(list(Some("CODE")).len(), 1);
    assert_eq!(list(Some("nothing")).len(), 0);
    assert_eq!(list(None)[0].instructions, "");
    let remove = || RecordAsk::RemoveSkill {
        name: "review".into(),
    };
    world.written(remove());
    world.missing(remove());
}

#[test]
fn api_keys_are_revoked_by_id_or_by_a_beginning_that_is_of_one() {
    let world = World::new();
    let create = |id: &str| {
        world.written(RecordAsk::CreateApiKey(ApiKey {
            id: id.into(),
            label: "ci".into(),
            secret_hash: format!("hash of {id}"),
            prefix: format!("cm_{id}"),
            capabilities: vec!["send".into()],
            topic_scopes: Some(vec!["t".into()]),
            expires_at: Some(Wall(9)),
            ..ApiKey::default()
        }));
    };
    create("abc");
    create("abd");
    create("ab");
    let revoke = |id: &str| match world.ask(RecordAsk::RevokeApiKey {
        id: id.into(),
        at: Wall(5),
    }) {
        RecordAnswer::Revoked(revoked) => revoked,
        other => panic!("{other:?}"),
    };
    assert_eq!(revoke("a"), Revoked::NotUnique(3));
    assert_eq!(revoke("ab"), Revoked::Key("ab".into()), "exact");
    assert_eq!(revoke("x"), Revoked::NotFound);
    assert_eq!(revoke("a%"), Revoked::NotFound, "no wildcard");
    assert_eq!(revoke("abc"), Revoked::Key("abc".into()));
    assert_eq!(
        revoke("cm_ab"),
        Revoked::Key("abd".into()),
        "the last in use"
    );
    let RecordAnswer::ApiKeys(keys) = world.ask(RecordAsk::ListApiKeys { limit: 9 }) else {
        panic!()
    };
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key.revoked_at == Some(Wall(5))));
    assert!(keys.iter().all(|key| key.secret_hash.is_empty()));
    assert_eq!(keys[0].topic_scopes, Some(vec!["t".to_owned()]));
    world.fill(
        API_KEYS_MAX - 3,
        "NUMBERS INSERT INTO api_key (id, mesh_id, label, secret_hash, secret_prefix, capabilities,
            issued_by_member_id, created_at)
         SELECT 'y' || i, ?1, 'l', 'h' || i, 'p', '[]', 'm', 0 FROM n",
    );
    create("new");
    assert_eq!(count(&world.disk(), "api_key WHERE id = 'abc'"), 0);
}

#[test]
fn a_vault_is_of_its_member() {
    let world = World::new();
    let entry = |member: &str, key: &str| {
        RecordAsk::VaultSet(VaultEntry {
            member_id: member.into(),
            key: key.into(),
            ciphertext: format!("{member}'s"),
            nonce: "n".into(),
            sealed_key: "s".into(),
            entry_type: "env".into(),
            updated_at: Wall(1),
            ..VaultEntry::default()
        })
    };
    world.written(entry("alice", "k"));
    world.written(entry("bob", "k"));
    let get = |member: &str| match world.ask(RecordAsk::VaultGet {
        member_id: member.into(),
        keys: vec!["k".into(), "none".into()],
    }) {
        RecordAnswer::Vault(entries) => entries,
        other => panic!("{other:?}"),
    };
    assert_eq!(get("alice")[0].ciphertext, "alice's");
    assert_eq!(get("carol").len(), 0);
    let list = RecordAsk::VaultList {
        member_id: "bob".into(),
        limit: 9,
    };
    let RecordAnswer::Vault(listed) = world.ask(list) else {
        panic!()
    };
    assert_eq!((listed.len(), &*listed[0].ciphertext), (1, ""));
    let delete = || RecordAsk::VaultDelete {
        member_id: "bob".into(),
        key: "k".into(),
    };
    world.written(delete());
    world.missing(delete());
    assert_eq!(get("alice").len(), 1);
    world.fill(
        VAULT_ENTRIES_MAX - 1,
        "NUMBERS INSERT INTO vault_entry (mesh_id, member_id, key, ciphertext, nonce, sealed_key,
            entry_type, created_at, updated_at)
         SELECT ?1, 'alice', 'y' || i, '', '', '', 'env', 0, 0 FROM n",
    );
    assert!(matches!(
        world.ask(entry("alice", "new")),
        RecordAnswer::Full
    ));
    world.written(entry("alice", "k"));
}

#[test]
fn a_webhook_that_is_deleted_keeps_its_name() {
    let world = World::new();
    let create = |secret: &str| {
        world.ask(RecordAsk::CreateWebhook(Webhook {
            id: secret.into(),
            name: "ci".into(),
            secret: secret.into(),
            ..Webhook::default()
        }))
    };
    let delete = || RecordAsk::DeleteWebhook { name: "ci".into() };
    assert!(matches!(create("1"), RecordAnswer::Written));
    assert!(matches!(create("2"), RecordAnswer::Taken));
    world.written(delete());
    world.missing(delete());
    assert!(matches!(create("3"), RecordAnswer::Taken));
    let RecordAnswer::Webhooks(webhooks) = world.ask(RecordAsk::ListWebhooks { limit: 9 }) else {
        panic!()
    };
    assert!(webhooks.is_empty());
}
