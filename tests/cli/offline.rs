//! Commands on a database that no broker runs on.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Broker, Shell, keys, text};

#[test]
fn meshes_and_members_are_made_and_listed_without_a_broker() {
    let shell = Shell::new();
    let mesh = shell.json(&["mesh", "create", "team", "--name", "The Team"]);
    let mut fields = keys(&mesh);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "meshId",
            "name",
            "ownerMemberId",
            "ownerPubkey",
            "ownerSecretKey",
            "slug"
        ]
    );
    assert_eq!(
        (text(&mesh["slug"]), text(&mesh["name"])),
        ("team", "The Team")
    );
    assert_eq!(text(&mesh["ownerSecretKey"]).len(), 128);
    assert!(text(&mesh["ownerSecretKey"]).ends_with(text(&mesh["ownerPubkey"])));
    let meshes = shell.json(&["mesh", "list"]);
    assert_eq!(meshes[0]["meshId"], mesh["meshId"]);

    let alice = shell.json(&["member", "add", "team", "--name", "alice"]);
    let mut fields = keys(&alice);
    fields.sort_unstable();
    assert_eq!(fields, ["memberId", "meshId", "pubkey", "secretKey"]);
    assert_eq!(alice["meshId"], mesh["meshId"]);
    let key = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    let id = text(&mesh["meshId"]);
    let add = [
        "member", "add", id, "--name", "bob", "--role", "admin", "--pubkey", key,
    ];
    let bob = shell.json(&add);
    assert_eq!(text(&bob["pubkey"]), key);
    assert!(
        !keys(&bob).contains(&"secretKey"),
        "we did not make that pair"
    );

    let members = shell.json(&["member", "list", "team"]);
    let line = |name: &str| {
        let members = members.as_array().expect("a list was promised");
        let found = members.iter().find(|member| member["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is missing")).clone()
    };
    assert_eq!(text(&line("alice")["role"]), "member");
    assert_eq!(text(&line("bob")["role"]), "admin");
    assert_eq!(
        members.as_array().map(Vec::len),
        Some(3),
        "the owner is one"
    );
    for table in [
        shell.done(&["mesh", "list"]),
        shell.done(&["member", "list", "team"]),
    ] {
        assert!(
            table.contains("NAME") && table.lines().count() > 1,
            "{table}"
        );
    }
}

#[test]
fn members_are_revoked_and_granted_without_a_broker() {
    let shell = Shell::new();
    shell.done(&["mesh", "create", "team"]);
    let alice = shell.json(&["member", "add", "team", "--name", "alice"]);
    let bob = shell.json(&["member", "add", "team", "--name", "bob"]);
    let (alice, bob_key) = (text(&alice["memberId"]), text(&bob["pubkey"]));
    let grant = |caps| shell.json(&["member", "grants", alice, "--peer", bob_key, "--caps", caps]);
    let grants = &grant("dm,broadcast")["grants"];
    assert_eq!(grants[0]["peer"], bob_key);
    assert_eq!(grants[0]["caps"], serde_json::json!(["dm", "broadcast"]));
    assert_eq!(grant("none")["grants"][0]["caps"], serde_json::json!([]));
    assert_eq!(grant("default")["grants"], Value::Null);
    let typo = [
        "member", "grants", alice, "--peer", bob_key, "--caps", "dms",
    ];
    assert!(shell.refused(1, &typo).contains("dms"));

    let said = shell.done(&["member", "revoke", alice]);
    assert!(said.contains("alice"), "{said}");
    let members = shell.json(&["member", "list", "team"]);
    let revoked = |member: &&Value| member["revokedAt"].is_string();
    let gone: Vec<_> = members
        .as_array()
        .into_iter()
        .flatten()
        .filter(revoked)
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(text(&gone[0]["memberId"]), alice);
}

#[test]
fn client_config_is_what_clients_read() {
    let shell = Shell::new();
    let mesh = shell.json(&["mesh", "create", "team"]);
    let alice = shell.json(&["member", "add", "team", "--name", "alice"]);
    let id = text(&alice["memberId"]);
    let secret = text(&alice["secretKey"]);
    let ask = [
        "client-config",
        "team",
        "--member",
        id,
        "--url",
        "ws://127.0.0.1:7900",
    ];
    let given = [&ask[..], &["--secret-key", secret]].concat();
    let file: Value = serde_json::from_str(&shell.done(&given)).expect("config.json must be JSON");
    assert_eq!(file["version"], 1);
    let entry = &file["meshes"][0];
    assert_eq!(entry["meshId"], mesh["meshId"]);
    assert_eq!(text(&entry["memberId"]), id);
    assert_eq!(text(&entry["secretKey"]), secret);
    assert_eq!(text(&entry["brokerUrl"]), "ws://127.0.0.1:7900/ws");
    assert!(text(&entry["joinedAt"]).ends_with('Z'));

    // Not known to the broker: a placeholder, and how to fill it.
    let output = shell.run(&ask);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--secret-key"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PUT THE 128 HEX DIGITS"));
    // The owner's is.
    let owner = text(&mesh["ownerMemberId"]);
    let owner = [
        "client-config",
        "team",
        "--member",
        owner,
        "--url",
        "ws://h/ws",
    ];
    assert!(shell.done(&owner).contains(text(&mesh["ownerSecretKey"])));
    // Another's key is refused before a client is.
    let wrong = [&ask[..], &["--secret-key", text(&mesh["ownerSecretKey"])]].concat();
    assert!(shell.refused(2, &wrong).contains("belongs to"));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_with_exit_1() {
    let shell = Shell::new();
    let none = shell.refused(1, &["mesh", "list"]);
    assert!(
        none.contains("no database holdfast.db") && none.contains("mesh create"),
        "{none}"
    );
    assert!(
        !shell.path("holdfast.db").exists(),
        "a question must not make a database"
    );
    shell.done(&["mesh", "create", "team"]);
    for args in [
        &["mesh", "create", "team"][..],
        &["mesh", "create", "not a slug"],
        &["mesh", "create", "other", "--name", "two\nlines"],
        &["member", "add", "nowhere", "--name", "x"],
        &["member", "add", "team", "--name", "x", "--pubkey", "beef"],
        &["member", "revoke", "nobody"],
        &["member", "list", "nowhere"],
        &[
            "client-config",
            "team",
            "--member",
            "nobody",
            "--url",
            "ws://h/ws",
        ],
        &["peers", "team"],
    ] {
        shell.refused(1, args);
    }
    assert!(
        shell
            .refused(1, &["peers", "team"])
            .contains("holdfast serve")
    );
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let shell = Shell::new();
    let words = "Dear diary, this is not a database at all. ".repeat(200);
    let path = shell.write("diary.txt", &words);
    for args in [
        &["serve", "--listen", "127.0.0.1:0", "--db", &path][..],
        &["mesh", "list", "--db", &path],
        &["mesh", "create", "team", "--db", &path],
    ] {
        let line = shell.refused(1, args);
        assert!(line.contains("diary.txt"), "{line}");
    }
    assert_eq!(
        std::fs::read_to_string(&path).expect("it must still be there"),
        words
    );
}

#[test]
fn doctor_finds_what_would_stop_serve() {
    let shell = Shell::new();
    let report = shell.json(&["doctor", "--listen", "127.0.0.1:0"]);
    assert_eq!(report["ok"], true);
    let findings = report["findings"].as_array().expect("a list was promised");
    let named = |name: &str| findings.iter().any(|finding| finding["check"] == name);
    for check in [
        "kernel",
        "io_uring",
        "open files",
        "backlog",
        "disk flush",
        "clock",
        "database",
    ] {
        assert!(named(check), "{check} is not looked at");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port must be free");
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()));
    let (_held, address) = taken.expect("a listener has an address");
    let path = shell.write(
        "diary.txt",
        "not a database, but long enough to be looked at",
    );
    let output = shell.run(&["doctor", "--listen", &address, "--db", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said.lines().filter(|line| line.starts_with("FAIL")).count(),
        2,
        "{said}"
    );
    assert!(said.ends_with("serve would not work here\n"), "{said}");
}

#[test]
fn commands_at_the_same_time_wait_for_each_other() {
    let shell = Shell::new();
    shell.done(&["mesh", "create", "team"]);
    let children: Vec<_> = (0..6)
        .map(|n| {
            let name = format!("member-{n}");
            let mut command = shell.command(&["member", "add", "team", "--name", &name]);
            command
                .stdout(Stdio::null())
                .spawn()
                .expect("the binary must start")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("it must end").success());
    }
    let members = shell.json(&["member", "list", "team"]);
    assert_eq!(members.as_array().map(Vec::len), Some(7));
}

#[test]
fn an_audit_log_is_verified_with_and_without_a_broker() {
    let shell = Shell::new();
    let mesh = shell.json(&["mesh", "create", "team"]);
    let verify = ["audit", "verify", "team"];
    assert!(
        shell
            .refused(1, &["audit", "verify", "none"])
            .contains("none")
    );
    let verified = shell.json(&verify);
    assert_eq!(verified["meshId"], mesh["meshId"]);
    assert_eq!(
        (&verified["valid"], &verified["entries"]),
        (&Value::Bool(true), &Value::from(0))
    );
    let broker = Broker::start(&shell);
    assert!(shell.done(&verify).contains("all 0 entries"));
    broker.stop();
    let forged = rusqlite::Connection::open(shell.path("holdfast.db")).expect("it is there");
    let entry = "INSERT INTO audit_log (mesh_id, event_type, payload, prev_hash, hash, created_at)
        VALUES (?1, 'peer_left', '{}', 'genesis', 'forged', 0)";
    forged
        .execute(entry, [text(&mesh["meshId"])])
        .expect("anybody with the file can");
    let output = shell.run(&verify);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("entry 1 is not what was written"));
    let missing = ["audit", "verify", "team", "--db", "none.db"];
    assert!(shell.refused(1, &missing).contains("none.db"));
}
