//! Merging, ranges, and the help texts' promises about defaults.

use std::path::Path;

use clap::{Args, FromArgMatches};

use super::*;

/// What these command-line words and this file mean. No environment is consulted: the tests of
/// a process share theirs, so that layer is tested in `tests/cli.rs`.
fn resolve(flags: &[&str], file: Option<&str>) -> Result<ServeConfig, ConfigError> {
    let dir = Scratch::new();
    let mut typed = parse(flags);
    if let Some(text) = file {
        let path = dir.0.join("holdfast.toml");
        std::fs::write(&path, text).unwrap();
        typed.config = Some(path);
    }
    typed.resolve()
}

fn parse(flags: &[&str]) -> ServeOptions {
    let command = ServeOptions::augment_args(clap::Command::new("serve").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).unwrap();
    ServeOptions::from_arg_matches(&matches).unwrap()
}

fn refusal(flags: &[&str], file: Option<&str>) -> String {
    let line = resolve(flags, file).unwrap_err().to_string();
    assert!(!line.contains('\n'), "not one line: {line}");
    line
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "holdfast-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn nothing_said_means_the_defaults() {
    let config = resolve(&[], None).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7900");
    assert_eq!(config.db, Path::new("holdfast.db"));
    assert_eq!(config.threads, 1);
    assert_eq!(config.max_frame_bytes, 2_097_152);
    assert_eq!(config.durability, Durability::Full);
    assert_eq!(config.log, LogFormat::Text);
    let core = config.core;
    assert_eq!(core.grace, Millis::secs(90));
    assert_eq!(core.restart_grace, Millis::secs(90));
    assert_eq!(core.ping_interval, Millis::secs(30));
    assert_eq!(core.pong_timeout, Millis::secs(75));
    assert_eq!(core.hello_timeout, Millis::secs(10));
    assert_eq!(core.max_sessions_per_mesh, 10_000);
    assert_eq!(core.max_message_bytes, 65_536);
    assert_eq!((core.send_rate, core.send_burst), (60, 10));
    assert_eq!((config.source_rate, config.source_burst), (12_000, 8192));
}

#[test]
fn a_flag_beats_the_file_which_beats_the_default() {
    let file = "grace = \"5m\"\nthreads = 2\nlog = \"json\"\nlisten = \"[::1]:7901\"\n";
    let config = resolve(&["--grace", "1500ms"], Some(file)).unwrap();
    assert_eq!(config.core.grace, Millis(1500), "flag");
    assert_eq!(config.threads, 2, "file");
    assert_eq!(config.log, LogFormat::Json, "file");
    assert_eq!(config.listen.to_string(), "[::1]:7901", "file");
    assert_eq!(config.core.ping_interval, Millis::secs(30), "default");
}

#[test]
fn every_option_can_be_set_in_the_file() {
    let file = r#"
        listen = "0.0.0.0:1"
        db = "x.db"
        threads = 3
        grace = "1s"
        ping-interval = "2s"
        pong-timeout = "3s"
        hello-timeout = "4s"
        restart-grace = "5s"
        max-grace = "14s"
        mesh-log-entries = 15
        mesh-log-bytes = 16
        mesh-log-age = "17s"
        max-sessions-per-mesh = 6
        max-message-bytes = 7
        max-frame-bytes = 8000
        send-rate = 9
        send-burst = 11
        source-rate = 12
        source-burst = 13
        admin-token = "sixteen letters!"
        public-url = "https://broker.example/base/"
        public-members = true
        trust-member-header = true
        watch-allow-private = true
        durability = "normal"
        log = "json"
    "#;
    let config = resolve(&[], Some(file)).unwrap();
    let set = file.lines().filter(|line| line.contains('=')).count();
    let options = ServeOptions::augment_args(clap::Command::new("serve"));
    // All but --config itself.
    assert_eq!(set, options.get_arguments().count() - 1);
    assert_eq!(config.core.restart_grace, Millis::secs(5));
    assert_eq!(config.core.send_burst, 11);
    assert_eq!(&*config.core.public_url, "https://broker.example/base");
    assert!(config.public_members && config.trust_member_header);
    let token = config.admin_token.unwrap();
    assert_eq!(
        (token.expose(), format!("{token:?}")),
        ("sixteen letters!", "Secret".into())
    );
    assert_eq!(config.core.max_grace, Millis::secs(14));
    assert!(config.watch_allow_private);
    let log = config.core.log;
    assert_eq!(
        (log.entries, log.bytes, log.age),
        (15, 16, Millis::secs(17))
    );
    assert_eq!(config.durability, Durability::Normal);
}

#[test]
fn the_log_of_a_mesh_covers_detection_and_grace() {
    let age = |flags: &[&str]| resolve(flags, None).unwrap().core.log.age;
    assert_eq!(age(&[]), Millis::secs(600));
    assert_eq!(age(&["--grace", "1h"]), Millis::secs(3675));
    assert_eq!(
        age(&["--grace", "1h", "--mesh-log-age", "1m"]),
        Millis::secs(60)
    );
}

#[test]
fn restart_grace_follows_grace_but_covers_the_clients_backoff() {
    assert_eq!(
        resolve(&["--grace", "2m"], None)
            .unwrap()
            .core
            .restart_grace,
        Millis::secs(120)
    );
    assert_eq!(
        resolve(&["--grace", "3s"], None)
            .unwrap()
            .core
            .restart_grace,
        Millis::secs(30)
    );
    let both = resolve(&["--grace", "2m", "--restart-grace", "2s"], None).unwrap();
    assert_eq!(both.core.restart_grace, Millis::secs(2));
}

#[test]
fn impossible_values_are_refused_by_name() {
    let pong = refusal(&["--pong-timeout", "30s"], None);
    assert!(pong.starts_with("pong-timeout (30s) must be longer than ping-interval (30s)"));
    for (flag, value, want) in [
        (
            "--threads",
            "0",
            "threads is 0, but must be between 1 and 256",
        ),
        (
            "--grace",
            "0s",
            "grace is 0s, but must be between 10ms and 30days",
        ),
        ("--grace", "2years", "30days"),
        ("--max-sessions-per-mesh", "0", "between 1 and"),
        ("--max-frame-bytes", "10", "between 4096 and"),
        ("--max-message-bytes", "100000000", "between 1 and"),
        ("--max-frame-bytes", "65536", "fits no frame"),
        ("--send-burst", "0", "send-rate 0 for no limit"),
        ("--source-burst", "0", "source-rate 0 for no limit"),
    ] {
        let line = refusal(&[flag, value], None);
        assert!(line.contains(want), "{flag} {value}: {line}");
    }
    assert_eq!(
        resolve(&["--send-rate", "0", "--send-burst", "0"], None)
            .unwrap()
            .core
            .send_rate,
        0
    );
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_line() {
    let unknown = refusal(&[], Some("threads = 1\ngrce = \"90s\"\n"));
    assert!(
        unknown.contains("holdfast.toml:2: unknown field `grce`"),
        "{unknown}"
    );
    let config = refusal(&[], Some("config = \"other.toml\""));
    assert!(config.contains("unknown field `config`"), "{config}");
    for (file, want) in [
        ("grace = 90", "such as \"1500ms\", \"2s\" or \"5m\""),
        ("grace = \"soon\"", "such as \"1500ms\", \"2s\" or \"5m\""),
        ("log = \"loud\"", "unknown variant `loud`"),
        ("threads = -1", "toml:1:"),
        ("listen = \"here\"", "toml:1:"),
        ("grace = ", "toml:1:"),
        ("[serve]\ngrace = \"2s\"", "unknown field `serve`"),
    ] {
        let line = refusal(&[], Some(file));
        assert!(line.contains(want), "{file}: {line}");
    }
    let typed = ServeOptions {
        config: Some("/nowhere/x.toml".into()),
        ..ServeOptions::default()
    };
    let missing = typed.resolve().unwrap_err().to_string();
    assert!(
        missing.starts_with("cannot read config file /nowhere/x.toml: "),
        "{missing}"
    );
}

#[test]
fn every_option_has_its_variable_help_and_true_default() {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let mut promised = Vec::new();
    for option in command.get_arguments() {
        let name = option.get_long().unwrap();
        let variable = format!("HOLDFAST_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(option.get_env().unwrap(), variable.as_str());
        let help = option.get_help().unwrap().to_string();
        let Some((_, default)) = help.trim_end_matches(']').split_once("[default: ") else {
            assert_eq!(name, "config", "--{name} names no default");
            continue;
        };
        if name != "restart-grace" && default != "none" {
            promised.extend([format!("--{name}"), default.to_owned()]);
        }
    }
    let promised: Vec<&str> = promised.iter().map(String::as_str).collect();
    let said = format!("{:?}", resolve(&promised, None).unwrap());
    assert_eq!(said, format!("{:?}", resolve(&[], None).unwrap()));
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, millis) in [
        ("1500ms", 1500),
        ("2s", 2000),
        ("90s", 90_000),
        ("5m", 300_000),
    ] {
        assert_eq!(text.parse::<Span>().unwrap().millis(), Millis(millis));
    }
    for text in ["", "90", "s", "-1s", "1 fortnight", "99999999999999999999s"] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
}

#[test]
fn a_public_url_is_an_address_and_nothing_more() {
    let url = |text: &str| text.parse::<PublicUrl>().map(|url| url.as_str().to_owned());
    for (text, expected) in [
        ("https://broker.example", "https://broker.example"),
        ("http://127.0.0.1:7900/", "http://127.0.0.1:7900"),
        ("https://[::1]/a/b//", "https://[::1]/a/b"),
    ] {
        assert_eq!(url(text).unwrap(), expected);
    }
    for text in [
        "",
        "broker.example",
        "/hook",
        "ftp://broker.example",
        "ws://broker.example",
        "https://",
        "https://me@broker.example",
        "https://broker.example/?a=b",
        "https://broker.example/#a",
        "https://bro ker",
    ] {
        assert!(url(text).is_err(), "{text}");
    }
}
