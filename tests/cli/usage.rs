//! Flags, environment, config file, help.

use crate::harness::{Shell, one_line};

#[test]
fn wrong_usage_is_said_in_one_line_with_exit_2() {
    let shell = Shell::new();
    for (args, want) in [
        (&["serve", "--grce", "9s"][..], "--grace"),
        (&["serve", "--grace", "90"], "1500ms, 2s, 90s or 5m"),
        (
            &["serve", "--pong-timeout", "10s"],
            "must be longer than ping-interval",
        ),
        (&["serve", "--threads", "0"], "between 1 and 256"),
        (&["serve", "--listen", "here"], "--listen"),
        (
            &["serve", "--config", "absent.toml"],
            "cannot read config file absent.toml",
        ),
        (&["member", "add", "team"], "--name"),
        (&["mesh", "destroy", "team"], "destroy"),
        (
            &["client-config", "t", "--member", "m", "--url", "http://h"],
            "ws://",
        ),
    ] {
        let line = shell.refused(2, args);
        assert!(line.contains(want), "{args:?}: {line}");
    }
}

#[test]
fn a_config_file_is_checked_before_anything_happens() {
    let shell = Shell::new();
    for (file, want) in [
        ("thredas = 2\n", "unknown field `thredas`"),
        ("grace = 90\n", "in quotes"),
        ("\nping-interval = \"80s\"\n", "must be longer"),
    ] {
        let path = shell.write("holdfast.toml", file);
        let line = shell.refused(2, &["serve", "--config", &path]);
        assert!(line.contains(want), "{file}: {line}");
    }
    assert!(!shell.path("holdfast.db").exists());
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let shell = Shell::new();
    // Each layer names an impossible pong time-out; the message tells which one counted.
    let path = shell.write("holdfast.toml", "pong-timeout = \"1s\"\n");
    let serve = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = shell.command(args);
        command.envs(variable).env("HOLDFAST_CONFIG", &path);
        one_line(2, &command.output().expect("the binary must start"), args)
    };
    let variable = Some(("HOLDFAST_PONG_TIMEOUT", "2s"));
    assert!(serve(&["serve"], None).contains("pong-timeout (1s)"));
    assert!(serve(&["serve"], variable).contains("pong-timeout (2s)"));
    assert!(serve(&["serve", "--pong-timeout", "3s"], variable).contains("pong-timeout (3s)"));
    let bad = serve(&["serve"], Some(("HOLDFAST_GRACE", "soon")));
    assert!(bad.contains("HOLDFAST_GRACE"), "{bad}");
}

#[test]
fn help_and_version_are_printed_on_standard_output() {
    let shell = Shell::new();
    assert!(shell.done(&["--version"]).starts_with("holdfast "));
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["member", "add", "--help"],
    ] {
        let help = shell.done(args);
        assert!(
            help.contains("Usage: holdfast") && help.contains("holdfast "),
            "{help}"
        );
    }
    let nothing = shell.run(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("Usage:"));
}
