//! What a mesh keeps on disk only: what is asked of the store, what is made of its answers.

use super::*;
use crate::limits::{
    ANSWER_BYTES_MAX, LOOKUPS_AT_ONCE, RECALL_WORDS_MAX, RECORD_TEXT_BYTES_MAX, TASKS_MAX,
};
use crate::rows::{
    ApiKey, Chain, Memory, RecordAnswer, RecordAsk, Revoked, Skill, StoreFailure, Tally, Task,
};

impl World {
    /// The next thing asked of what is on disk only.
    pub(super) fn asked(&mut self) -> (RecordAsk, Token) {
        let (index, query, token) = self.next_query().expect("a question");
        self.answered = index + 1;
        match query {
            StoreQuery::Records(query) => {
                assert_eq!(query.mesh_id, MESH);
                (query.ask, token)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn tell(&mut self, token: Token, answer: RecordAnswer) {
        let result = Ok(StoreAnswer::Records(answer));
        self.input(Input::Answered { token, result });
    }

    /// Asks, has the store answer, and gives what the client is written.
    pub(super) fn exchange(
        &mut self,
        conn: ConnId,
        frame: &Value,
        answer: RecordAnswer,
    ) -> (RecordAsk, Value) {
        let before = self.frames(conn).len();
        self.write(conn, frame);
        let (ask, token) = self.asked();
        assert_eq!(
            self.frames(conn).len(),
            before,
            "nothing before it is durable"
        );
        self.tell(token, answer);
        (ask, self.frames(conn)[before].clone())
    }

    /// What a request is answered at once.
    pub(super) fn refused(&mut self, conn: ConnId, frame: &Value) -> Value {
        let before = self.frames(conn).len();
        self.write(conn, frame);
        assert!(self.next_query().is_none(), "{frame}");
        self.frames(conn)[before].clone()
    }
}

#[test]
fn what_is_remembered_is_answered_when_it_is_durable() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let request = json!({
        "type": "remember", "content": "note one", "tags": ["t"], "_reqId": "r1",
    });
    let (ask, reply) = w.exchange(a, &request, RecordAnswer::Written);
    let RecordAsk::Remember(memory) = ask else {
        panic!()
    };
    assert_eq!((&*memory.content, &*memory.by), ("note one", "alice"));
    assert_eq!((&*memory.member_id, memory.id.len()), ("member-1", 32));
    let expected = json!({
        "type": "memory_stored", "id": memory.id, "memoryId": memory.id, "_reqId": "r1",
    });
    assert_eq!(reply, expected);
}

#[test]
fn a_recall_is_answered_twice_and_in_line() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let before = w.frames(a).len();
    w.write(
        a,
        &json!({"type": "recall", "query": "What is the note?", "_reqId": "1"}),
    );
    w.write(a, &json!({"type": "list_peers", "_reqId": "2"}));
    w.write(
        a,
        &json!({"type": "recall", "query": " !? ", "_reqId": "3"}),
    );
    let (ask, token) = w.asked();
    let RecordAsk::Recall { words, .. } = ask else {
        panic!()
    };
    assert_eq!(words, ["note"]);
    assert_eq!(w.frames(a).len(), before);
    let memory = Memory {
        id: "m".into(),
        content: "note".into(),
        by: "bob".into(),
        ..Memory::default()
    };
    w.tell(token, RecordAnswer::Memories(vec![memory]));
    let frames = w.frames(a)[before..].to_vec();
    let kinds: Vec<_> = frames
        .iter()
        .map(|f| (f["type"].clone(), f["_reqId"].clone()))
        .collect();
    let expected = [
        ("memory_results", "1"),
        ("memory_recall_result", "1"),
        ("peers_list", "2"),
        ("memory_results", "3"),
        ("memory_recall_result", "3"),
    ];
    assert_eq!(kinds, expected.map(|(kind, id)| (json!(kind), json!(id))));
    assert_eq!(frames[0]["memories"][0]["rememberedBy"], "bob");
    assert_eq!(frames[0]["memories"], frames[1]["matches"]);
}

#[test]
fn a_failed_recall_is_said_once_and_holds_up_nothing() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let before = w.frames(a).len();
    w.write(
        a,
        &json!({"type": "recall", "query": "note", "_reqId": "1"}),
    );
    w.write(a, &json!({"type": "list_peers", "_reqId": "2"}));
    let (_, token) = w.asked();
    let result = Err(StoreFailure::Full);
    w.input(Input::Answered { token, result });
    let frames = w.frames(a)[before..].to_vec();
    assert_eq!(
        (&frames[0]["code"], &frames[1]["type"]),
        (&json!("storage"), &json!("peers_list"))
    );
    assert_eq!(frames.len(), 2);
}

#[test]
fn answers_that_come_out_of_order_are_written_in_order() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let before = w.frames(a).len();
    w.write(a, &json!({"type": "audit_verify", "_reqId": "1"}));
    w.write(a, &json!({"type": "list_tasks", "_reqId": "2"}));
    let ((_, first), (_, second)) = (w.asked(), w.asked());
    w.tell(second, RecordAnswer::Tasks(Vec::new()));
    assert_eq!(w.frames(a).len(), before);
    w.tell(first, RecordAnswer::Chain(Chain::default()));
    let ids: Vec<_> = w.frames(a)[before..]
        .iter()
        .map(|f| f["_reqId"].clone())
        .collect();
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn a_client_that_has_gone_is_answered_nothing_and_its_successor_neither() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    w.write(a, &json!({"type": "get_skill", "name": "x"}));
    let (_, token) = w.asked();
    w.close(a, Closing::Abrupt);
    let b = w.join(launched(1, 11, "s1"));
    let before = w.frames(b).len();
    w.tell(token, RecordAnswer::Skills(Vec::new()));
    assert_eq!(w.frames(b).len(), before);
    assert!(w.frames(a).iter().all(|f| f["type"] != "skill_data"));
}

#[test]
fn tasks_are_claimed_once_and_completed_by_anybody() {
    let mut w = World::new();
    let a = w.join(launched(2, 11, "s1"));
    let create = json!({"type": "create_task", "title": "do", "_reqId": "1"});
    let (ask, reply) = w.exchange(a, &create, RecordAnswer::Written);
    let RecordAsk::CreateTask(task) = ask else {
        panic!()
    };
    assert_eq!(
        (&*task.priority, task.created_by.as_deref()),
        ("normal", Some("bob"))
    );
    assert_eq!(
        reply,
        json!({"type": "task_created", "id": task.id, "_reqId": "1"})
    );
    let (_, reply) = w.exchange(a, &create, RecordAnswer::Full);
    assert_eq!(reply["code"], "limit");
    assert!(
        reply["message"]
            .as_str()
            .unwrap()
            .contains(&TASKS_MAX.to_string())
    );

    let claim = json!({"type": "claim_task", "taskId": "t", "_reqId": "2"});
    let (_, reply) = w.exchange(a, &claim, RecordAnswer::Tasks(vec![task]));
    assert_eq!(reply["type"], "task_list");
    let entry = json!({
        "id": reply["tasks"][0]["id"], "title": "do", "assignee": null, "claimedBy": null,
        "status": "open", "priority": "normal", "createdBy": "bob", "tags": [],
        "createdAt": reply["tasks"][0]["createdAt"],
    });
    assert_eq!(reply["tasks"], json!([entry]));
    let (_, reply) = w.exchange(a, &claim, RecordAnswer::Missing);
    assert_eq!(
        (&reply["code"], &reply["_reqId"]),
        (&json!("task_not_claimable"), &json!("2"))
    );
    let complete = json!({"type": "complete_task", "taskId": "t", "_reqId": "3"});
    let (_, reply) = w.exchange(a, &complete, RecordAnswer::Missing);
    assert_eq!(reply["code"], "task_not_found");
    let listed = w.refused(
        a,
        &json!({"type": "list_tasks", "status": "lost", "_reqId": "4"}),
    );
    assert_eq!(
        (&listed["code"], &listed["_reqId"]),
        (&json!("invalid_argument"), &json!("4"))
    );
}

#[test]
fn a_secret_is_shown_once_and_kept_as_its_hash() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let create = json!({
        "type": "apikey_create", "label": "ci", "capabilities": ["send", "read"],
        "expiresAt": "2030-01-01T00:00:00.000Z", "_reqId": "1",
    });
    let (ask, reply) = w.exchange(a, &create, RecordAnswer::Written);
    let secret = reply["secret"].as_str().unwrap();
    assert_eq!((secret.len(), &secret[..3]), (46, "cm_"));
    assert_eq!(reply["prefix"], secret[..11]);
    assert_eq!(reply["topicScopes"], Value::Null);
    let RecordAsk::CreateApiKey(key) = ask else {
        panic!()
    };
    assert!(!format!("{key:?}").contains(&secret[11..]));
    let hash = <sha2::Sha256 as sha2::Digest>::digest(secret);
    assert_eq!(key.secret_hash, hex::encode(hash));
    assert_eq!(
        key.expires_at.unwrap().to_string(),
        "2030-01-01T00:00:00.000Z"
    );

    let list = json!({"type": "apikey_list", "_reqId": "2"});
    let (_, reply) = w.exchange(a, &list, RecordAnswer::ApiKeys(vec![ApiKey::default()]));
    assert_eq!(reply["type"], "apikey_list_response");
    assert!(!reply.to_string().contains("secret"));
    let revoke = json!({"type": "apikey_revoke", "id": "k", "_reqId": "3"});
    for (revoked, expected) in [
        (
            Revoked::Key("kk".into()),
            json!({"status": "revoked", "id": "kk"}),
        ),
        (Revoked::NotFound, json!({"status": "not_found"})),
        (
            Revoked::NotUnique(2),
            json!({"status": "not_unique", "matches": 2}),
        ),
    ] {
        let (_, mut reply) = w.exchange(a, &revoke, RecordAnswer::Revoked(revoked));
        let fields = reply.as_object_mut().unwrap();
        assert_eq!(fields.remove("type").unwrap(), "apikey_revoke_response");
        assert_eq!(fields.remove("_reqId").unwrap(), "3");
        assert_eq!(reply, expected);
    }
    for bad in [
        json!({"type": "apikey_create", "label": "ci", "capabilities": [], "_reqId": "9"}),
        json!({"type": "apikey_create", "label": "ci", "capabilities": ["fly"], "_reqId": "9"}),
        json!({"type": "apikey_create", "capabilities": ["send"], "_reqId": "9"}),
        json!({"type": "apikey_revoke", "id": "", "_reqId": "9"}),
    ] {
        let reply = w.refused(a, &bad);
        assert_eq!(reply["code"], "invalid_args", "{bad}");
        assert_eq!((&reply["id"], &reply["_reqId"]), (&json!("9"), &json!("9")));
    }
}

#[test]
fn mesh_info_counts_who_is_here_and_what_is_kept() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(2, 12, "s2"));
    w.write(b, &json!({"type": "join_group", "name": "dev"}));
    w.write(
        a,
        &json!({"type": "join_group", "name": "ops", "role": "lead"}),
    );
    let hidden = w.join(launched(3, 13, "s3"));
    w.write(hidden, &json!({"type": "set_visible", "visible": false}));
    w.write(a, &json!({"type": "set_state", "key": "k", "value": 1}));
    w.write(b, &json!({"type": "create_stream", "name": "logs"}));
    w.write(b, &json!({"type": "subscribe", "stream": "nobody's"}));
    let tally = Tally {
        memories: 5,
        open: 1,
        claimed: 2,
        done: 3,
    };
    let request = json!({"type": "mesh_info", "_reqId": "i"});
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Tally(tally));
    let expected = json!({
        "type": "mesh_info_result", "mesh": MESH, "peers": 2, "groups": ["@dev", "@ops"],
        "stateKeys": ["k"], "memoryCount": 5, "fileCount": 0,
        "tasks": {"open": 1, "claimed": 2, "done": 3}, "streams": ["logs"], "tables": [],
        "collections": [], "yourName": "alice",
        "yourGroups": [{"name": "ops", "role": "lead"}], "_reqId": "i",
    });
    assert_eq!(reply, expected);
}

#[test]
fn an_answer_never_makes_a_slow_consumer() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let memory = Memory {
        content: "\u{1}".repeat(RECORD_TEXT_BYTES_MAX),
        ..Memory::default()
    };
    let request = json!({"type": "recall", "query": "x"});
    let (_, reply) = w.exchange(
        a,
        &request,
        RecordAnswer::Memories(vec![memory.clone(), memory]),
    );
    assert_eq!(
        reply["memories"].as_array().unwrap().len(),
        1,
        "the first always"
    );
    assert_eq!(reply["truncated"], true);
    let skill = Skill {
        name: "n".into(),
        description: "d".repeat(1000),
        ..Skill::default()
    };
    let skills = vec![skill; 1000];
    let request = json!({"type": "list_skills"});
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Skills(skills));
    assert!(reply.to_string().len() < ANSWER_BYTES_MAX + 1000);
    assert!(reply["skills"].as_array().unwrap().len() > 100);
}

#[test]
fn few_lookups_of_one_connection_are_under_way() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let b = w.join(launched(1, 12, "s2"));
    let ask = |w: &mut World, conn, number: usize| {
        let request = json!({"type": "get_skill", "name": number.to_string(), "_reqId": number});
        w.write(conn, &request);
    };
    (0..20).for_each(|number| ask(&mut w, a, number));
    let mut tokens: Vec<Token> = (0..LOOKUPS_AT_ONCE).map(|_| w.asked().1).collect();
    assert!(w.next_query().is_none(), "the others wait");
    // What changes something waits for none of them.
    w.write(a, &json!({"type": "remember", "content": "c"}));
    let (write, stored) = w.asked();
    assert!(matches!(write, RecordAsk::Remember(_)));
    w.tell(stored, RecordAnswer::Written);
    ask(&mut w, b, 20);
    tokens.push(w.asked().1);
    for number in 0..21 {
        w.tell(tokens[number], RecordAnswer::Skills(Vec::new()));
        if w.next_query().is_some() {
            let (ask, token) = w.asked();
            let RecordAsk::GetSkill { name } = ask else {
                panic!("{ask:?}")
            };
            assert_eq!(name, (tokens.len() - 1).to_string());
            tokens.push(token);
        }
    }
    assert_eq!(tokens.len(), 21, "each was asked once");
    let answers = w.frames(a);
    let kinds: Vec<&Value> = answers.iter().map(|frame| &frame["type"]).collect();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "skill_data").count(),
        20
    );
    assert_eq!(kinds.last().unwrap().as_str(), Some("memory_stored"));
}

#[test]
fn whoever_has_gone_has_nothing_looked_up() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    for _ in 0..20 {
        w.write(a, &json!({"type": "list_skills"}));
    }
    let tokens: Vec<Token> = (0..LOOKUPS_AT_ONCE).map(|_| w.asked().1).collect();
    w.close(a, Closing::Abrupt);
    for token in tokens {
        w.tell(token, RecordAnswer::Skills(Vec::new()));
    }
    assert!(w.next_query().is_none());
    let back = w.join(launched(1, 11, "s1"));
    w.write(back, &json!({"type": "list_skills"}));
    w.asked();
}

#[test]
fn bad_requests_name_the_field() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let long = "x".repeat(RECORD_TEXT_BYTES_MAX + 1);
    for (field, mut request) in [
        ("content", json!({"type": "remember"})),
        ("content", json!({"type": "remember", "content": long})),
        (
            "tags",
            json!({"type": "remember", "content": "c", "tags": "t"}),
        ),
        ("query", json!({"type": "recall", "query": 7})),
        ("memoryId", json!({"type": "forget"})),
        ("summary", json!({"type": "share_context", "summary": null})),
        (
            "filesRead",
            json!({"type": "share_context", "summary": "s", "filesRead": [1]}),
        ),
        ("query", json!({"type": "get_context"})),
        ("title", json!({"type": "create_task"})),
        ("taskId", json!({"type": "claim_task"})),
        ("taskId", json!({"type": "complete_task"})),
        ("name", json!({"type": "share_skill"})),
        (
            "manifest",
            json!({"type": "share_skill", "name": "n", "description": "d",
            "instructions": "i", "manifest": []}),
        ),
        ("name", json!({"type": "get_skill", "name": ""})),
        ("name", json!({"type": "remove_skill"})),
        ("query", json!({"type": "list_skills", "query": 1})),
        (
            "entry_type",
            json!({"type": "vault_set", "key": "k", "ciphertext": "c", "nonce": "n",
            "sealed_key": "s", "entry_type": "x"}),
        ),
        ("keys", json!({"type": "vault_get"})),
        ("key", json!({"type": "vault_delete"})),
        ("eventType", json!({"type": "audit_query", "eventType": 1})),
        ("sql", json!({"type": "mesh_query"})),
        ("fileId", json!({"type": "get_file", "fileId": {}})),
    ] {
        request["_reqId"] = json!("bad");
        let reply = w.refused(a, &request);
        let kind = &request["type"];
        assert_eq!(reply["code"], "invalid_argument", "{kind}");
        assert_eq!(reply["_reqId"], "bad");
        assert!(
            reply["message"].as_str().unwrap().starts_with(field),
            "{kind}: {reply}"
        );
    }
    let words = "w ".repeat(RECALL_WORDS_MAX + 1);
    let reply = w.refused(a, &json!({"type": "recall", "query": words, "_reqId": "r"}));
    assert_eq!(reply["code"], "limit");
    assert!(reply["message"].as_str().unwrap().contains("64"));
}

#[test]
fn what_is_not_here_is_answered_at_once() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    for (request, key, expected) in [
        (json!({"type": "list_files"}), "files", json!([])),
        (
            json!({"type": "get_file", "fileId": "f"}),
            "code",
            json!("not_found"),
        ),
        (
            json!({"type": "mesh_query", "sql": "select"}),
            "code",
            json!("query_error"),
        ),
        (
            json!({"type": "mesh_execute", "sql": "drop"}),
            "code",
            json!("execute_error"),
        ),
        (json!({"type": "mesh_schema"}), "tables", json!([])),
        (
            json!({"type": "vector_search", "collection": "c", "query": "x"}),
            "results",
            json!([]),
        ),
        (
            json!({"type": "list_collections"}),
            "collections",
            json!([]),
        ),
        (
            json!({"type": "graph_query", "cypher": "x"}),
            "code",
            json!("graph_error"),
        ),
        (json!({"type": "mcp_catalog"}), "services", json!([])),
        (
            json!({"type": "mcp_deploy", "server_name": "s"}),
            "code",
            json!("deploy_error"),
        ),
        (
            json!({"type": "skill_deploy"}),
            "code",
            json!("deploy_error"),
        ),
        (json!({"type": "frobnicate"}), "code", json!("unsupported")),
    ] {
        let mut request = request;
        request["_reqId"] = json!("n");
        let reply = w.refused(a, &request);
        assert_eq!(
            (&reply[key], &reply["_reqId"]),
            (&expected, &json!("n")),
            "{request}"
        );
    }
}

#[test]
fn contexts_skills_and_vaults_are_answered_in_their_forms() {
    let mut w = World::new();
    let a = w.join(launched(1, 11, "s1"));
    let share = json!({"type": "share_context", "summary": "at work", "_reqId": "c"});
    let (_, reply) = w.exchange(a, &share, RecordAnswer::Kept("id".into()));
    assert_eq!(
        reply,
        json!({"type": "context_shared", "id": "id", "_reqId": "c"})
    );
    let request = json!({"type": "list_contexts", "_reqId": "l"});
    let (_, reply) = w.exchange(
        a,
        &request,
        RecordAnswer::Contexts(vec![Default::default()]),
    );
    assert_eq!(reply["type"], "context_list");
    assert!(reply["contexts"][0].get("filesRead").is_none());
    let request = json!({"type": "get_context", "query": "x", "_reqId": "g"});
    let (_, reply) = w.exchange(
        a,
        &request,
        RecordAnswer::Contexts(vec![Default::default()]),
    );
    assert_eq!(reply["type"], "context_results");
    assert_eq!(reply["contexts"][0]["filesRead"], json!([]));

    let request = json!({"type": "get_skill", "name": "s", "_reqId": "s"});
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Skills(Vec::new()));
    assert_eq!(
        reply,
        json!({"type": "skill_data", "skill": null, "_reqId": "s"})
    );
    let skill = Skill {
        manifest: Some("{\"v\":1}".into()),
        ..Skill::default()
    };
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Skills(vec![skill]));
    assert_eq!(reply["skill"]["manifest"], json!({"v": 1}));
    let request = json!({"type": "remove_skill", "name": "s", "_reqId": "s"});
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Missing);
    assert_eq!(reply["action"], "not_found");

    let request = json!({"type": "vault_set", "key": "k", "ciphertext": "c", "nonce": "n",
        "sealed_key": "s", "entry_type": "env", "_reqId": "v"});
    let (ask, reply) = w.exchange(a, &request, RecordAnswer::Written);
    assert!(matches!(ask, RecordAsk::VaultSet(entry) if entry.member_id == "member-1"));
    let ack = json!({"type": "vault_ack", "key": "k", "action": "stored", "_reqId": "v"});
    assert_eq!(reply, ack);
    // An answer that does not fit is a failure, not silence.
    let (_, reply) = w.exchange(a, &request, RecordAnswer::Tasks(vec![Task::default()]));
    assert_eq!(reply["code"], "storage");
}
