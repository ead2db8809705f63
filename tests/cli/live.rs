//! Commands beside a running broker, and the demo.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Broker, Shell, text};

#[test]
fn a_fresh_broker_says_what_to_run_next_and_is_administered_while_it_runs() {
    let shell = Shell::new();
    let broker = Broker::start(&shell);
    let mode = std::fs::metadata(shell.path("holdfast.db.sock")).expect("it must be there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    let mesh = shell.json(&["mesh", "create", "team"]);
    let alice = shell.json(&["member", "add", "team", "--name", "alice"]);
    assert_eq!(alice["meshId"], mesh["meshId"]);
    assert_eq!(shell.json(&["peers", "team"]), serde_json::json!([]));
    assert_eq!(
        shell.json(&["peers", text(&mesh["meshId"])]),
        serde_json::json!([])
    );
    assert!(
        shell
            .refused(1, &["peers", "nowhere"])
            .contains("mesh list")
    );
    assert!(shell.json(&["member", "revoke", "alice"])["revokedAt"].is_string());

    let second = shell.refused(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(second.contains("holdfast.db"), "{second}");
    let busy = shell.refused(
        1,
        &["serve", "--listen", &broker.address, "--db", "other.db"],
    );
    assert!(busy.contains(&broker.address), "{busy}");
    assert!(
        !shell.path("other.db").exists(),
        "a port in use changes nothing on disk"
    );

    let (code, said) = broker.stop();
    assert_eq!(code, Some(0));
    for next in ["mesh create", "member add", "client-config", "peers"] {
        assert!(said.contains(&format!("holdfast {next}")), "{said}");
    }
    assert!(!shell.path("holdfast.db.sock").exists());

    // The second time there is a mesh, and nothing to explain.
    let (code, said) = Broker::start(&shell).stop();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[cfg(feature = "client")]
#[test]
fn the_demo_holds() {
    let shell = Shell::new();
    let report = shell.json(&["demo"]);
    assert_eq!(report["ok"], true, "{report:#}");
    let checks = report["checks"].as_array().expect("a list was promised");
    assert!(checks.len() >= 8, "{report:#}");
}
