//! Every scenario, small: nothing lost, nobody flaps, no error. Never a time: see `bench/RESULTS.md`
//! for those.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use holdfast_bench::broker::{Broker, Launch};
use holdfast_bench::report::Report;

/// Runs a scenario and gives what it found.
fn run(args: &[&str]) -> Report {
    let bench = env!("CARGO_BIN_EXE_holdfast-bench");
    let broker = Path::new(bench).with_file_name("holdfast");
    assert!(
        broker.exists(),
        "{} is not there: run cargo build first",
        broker.display()
    );
    let out = Command::new(bench)
        .args(args)
        .args(["--quiet", "--json", "-"])
        .output()
        .expect("the load generator must start");
    let said = String::from_utf8_lossy(&out.stderr);
    let found = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{args:?}: {} {said} {found}",
        out.status
    );
    serde_json::from_str(found.trim()).expect("a line of JSON")
}

/// Runs a scenario that must find these figures, and nothing that must not be.
fn smoke(args: &[&str], figures: &[&str]) {
    let report = run(args);
    assert_eq!(Some(&*report.header.scenario), args.first().copied());
    for wanted in figures {
        let found = report.figures.iter().find(|figure| figure.name == *wanted);
        let found = found.unwrap_or_else(|| panic!("{args:?} did not find {wanted}"));
        assert!(found.value.is_finite(), "{wanted}: {}", found.value);
    }
    let names: Vec<_> = report.checks.iter().map(|check| &*check.name).collect();
    for wanted in [
        "lost messages",
        "flaps",
        "protocol errors",
        "out of order",
        "lost leases",
    ] {
        assert!(names.contains(&wanted), "{args:?} does not count {wanted}");
    }
    assert_eq!(report.failures().count(), 0, "{:?}", report.checks);
}

#[test]
fn idle() {
    smoke(
        &[
            "idle",
            "--sessions",
            "200",
            "--meshes",
            "4",
            "--window",
            "1s",
        ],
        &[
            "user memory per session online",
            "memory per session in grace",
        ],
    );
}

#[test]
fn connect() {
    smoke(
        &["connect", "--sessions", "1200", "--meshes", "20"],
        &[
            "CPU per hello at 1200 present",
            "CPU per send at 1200 present",
        ],
    );
}

#[test]
fn storm() {
    smoke(
        &["storm", "--sessions", "300", "--meshes", "3"],
        &["CPU per reattach", "hellos over 5 s"],
    );
}

#[test]
fn storm_with_tokens_at_once() {
    smoke(
        &[
            "storm",
            "--sessions",
            "300",
            "--meshes",
            "3",
            "--token",
            "--at-once",
        ],
        &["CPU per reattach", "all attached after"],
    );
}

#[test]
fn dm() {
    smoke(
        &[
            "dm",
            "--sessions",
            "100",
            "--messages",
            "500",
            "--time",
            "1s",
            "--rate",
            "200",
        ],
        &["CPU of the loop per message", "send to push p50"],
    );
}

#[test]
fn loops() {
    smoke(
        &["loops", "--sessions", "100", "--messages", "500"],
        &[
            "messages per second, 1 loop",
            "messages per second, 2 loops",
        ],
    );
}

#[test]
fn mesh100() {
    smoke(
        &["mesh100", "--sessions", "20", "--messages", "50"],
        &["time to the last delivery", "delivered"],
    );
}

#[test]
fn fanout() {
    smoke(
        &["fanout", "--sessions", "150"],
        &["CPU per delivery to 150"],
    );
}

#[test]
fn restart() {
    smoke(
        &["restart", "--sessions", "400", "--meshes", "5"],
        &["start after kill -9", "start after SIGTERM"],
    );
}

#[test]
fn slow() {
    smoke(
        &["slow", "--sessions", "200", "--time", "1s", "--rate", "100"],
        &["send to push p50 among slow ones"],
    );
}

#[test]
fn mixed() {
    smoke(
        &["mixed", "--sessions", "60", "--meshes", "4", "--time", "5s"],
        &["things done", "send to push p50", "reattached"],
    );
}

#[test]
fn soak() {
    smoke(
        &["soak", "--sessions", "60", "--meshes", "4", "--time", "5s"],
        &["things done", "memory of the broker, at the end"],
    );
}

#[test]
fn million() {
    smoke(
        &[
            "million",
            "--sessions",
            "600",
            "--meshes",
            "20",
            "--wave",
            "200",
        ],
        &["memory per session in grace", "start after kill -9"],
    );
}

/// What a run that cannot be made says.
fn refused(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"))
        .args(args)
        .output()
        .expect("it must start");
    assert_eq!(out.status.code(), Some(2), "{args:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn what_cannot_be_run_is_said_before_any_load() {
    let many = refused(&["idle", "--sessions", "100000000"]);
    assert!(many.contains("open files"), "{many}");
    let missing = refused(&["dm", "--broker", "/nowhere/holdfast"]);
    assert!(missing.contains("/nowhere/holdfast"), "{missing}");
    let nobody = refused(&[
        "dm",
        "--url",
        "ws://127.0.0.1:1/ws",
        "--mesh-file",
        "none.json",
    ]);
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
}

/// A mesh file of one member that no broker knows.
const STRANGERS: &str = r#"[{"meshId": "none", "members": [{"memberId": "nobody", "secretKey":
"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
}]}]"#;

#[test]
fn a_foreign_broker_and_a_mesh_file_that_does_not_fit_are_said_before_any_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("meshes.json");
    std::fs::write(&file, STRANGERS).expect("a file");
    let refuses = |url: &str| {
        let file = file.to_str().expect("a path");
        let sizes = ["--sessions", "4", "--meshes", "1"];
        let whom = ["dm", "--url", url, "--mesh-file", file];
        refused(&[whom.as_slice(), sizes.as_slice()].concat())
    };

    let web = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let foreign = format!("ws://{}/ws", web.local_addr().expect("an address"));
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = web.accept() {
            let answer =
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            // What is closed unread is reset.
            let head = BufReader::new(&client).lines();
            head.map_while(Result::ok).find(String::is_empty);
            client.write_all(answer).ok();
        }
    });
    let said = refuses(&foreign);
    assert!(said.contains("no broker of this protocol"), "{said}");

    let bench = Path::new(env!("CARGO_BIN_EXE_holdfast-bench"));
    let broker = Broker::start(Launch {
        binary: bench.with_file_name("holdfast"),
        flags: Vec::new(),
        dir: None,
    });
    let broker = broker.expect("a broker");
    let said = refuses(&broker.url());
    assert!(said.contains("does not let in"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
