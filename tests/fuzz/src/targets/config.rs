//! Configuration files: any text is either a configuration that can work, or refused with one line
//! that names the file, the place and the fault.

use std::path::Path;

use holdfast::config::{ConfigError, ServeConfig, ServeOptions};

use crate::{Rng, mutate as change};

/// See the module.
pub(super) fn run(input: &[u8]) {
    // What is no text is refused before it comes here, by the reading of the file.
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let resolve = || -> Result<ServeConfig, ConfigError> {
        ServeOptions::from_toml(text, Path::new("fuzz.toml"))?.resolve()
    };
    let (first, second) = (resolve(), resolve());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    match first {
        Ok(config) => check(&config),
        Err(error) => {
            let said = error.to_string();
            let plain = !said.chars().any(char::is_control);
            assert!(
                plain && !said.is_empty(),
                "{said:?} is not one line of text"
            );
            if let ConfigError::Malformed { line, message, .. } = &error {
                let lines = text.matches('\n').count() + 1;
                assert!((1..=lines).contains(line), "line {line} of {lines}");
                assert!(!message.is_empty() && said.starts_with("fuzz.toml:"));
            }
        }
    }
}

/// What an accepted configuration must be able to do.
fn check(config: &ServeConfig) {
    assert!(config.validate().is_ok());
    let core = &config.core;
    assert!((1..=256).contains(&config.threads));
    assert!(core.grace.0 >= 10 && core.restart_grace.0 >= 10 && core.hello_timeout.0 >= 10);
    assert!(core.ping_interval < core.pong_timeout);
    assert!(core.max_sessions_per_mesh > 0);
    assert!(core.max_message_bytes > 0 && core.max_message_bytes < config.max_frame_bytes);
    assert!(core.send_rate == 0 || core.send_burst > 0);
}

/// Pieces of such files.
pub(super) const WORDS: &[&str] = &[
    "listen = \"127.0.0.1:0\"\n",
    "listen = \"[::1]:7900\"\n",
    "db = \"x.db\"\n",
    "threads = 4\n",
    "grace = \"90s\"\n",
    "grace = \"1h 30m\"\n",
    "grace = 90\n",
    "grace = \"584554530y\"\n",
    "grace = \"18446744073709551615s\"\n",
    "ping-interval = \"30s\"\n",
    "pong-timeout = \"75s\"\n",
    "hello-timeout = \"10s\"\n",
    "restart-grace = \"1ns\"\n",
    "max-sessions-per-mesh = 10\n",
    "max-message-bytes = 65536\n",
    "max-frame-bytes = 2_097_152\n",
    "max-frame-bytes = 0xffff\n",
    "send-rate = 0\n",
    "send-burst = 0\n",
    "source-rate = 100\n",
    "source-burst = 0\n",
    "durability = \"normal\"\n",
    "log = \"json\"\n",
    "config = \"other\"\n",
    "[table]\n",
    "[[array]]\n",
    "a.b = 1\n",
    "x = 1979-05-27T07:32:00Z\n",
    "\"\"\"\n",
    "'''\n",
    "\\u0000",
    "\u{feff}",
    "# comment\r\n",
    "nan",
    "-1",
    "99999999999999999999",
    "{ a = 1 }",
    "[[[[",
];

/// A file of some options.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut file = Vec::new();
    for _ in 0..rng.u8(1..8) {
        file.extend(rng.choice(WORDS).map_or("", |word| word).bytes());
    }
    file
}

/// A line more, or one gone or moved.
pub(super) fn mutate(rng: &mut Rng, file: &mut Vec<u8>) {
    if rng.bool() {
        return change::lines(rng, file);
    }
    let word = rng.choice(WORDS).map_or("", |word| word);
    let ends: Vec<usize> = (0..file.len()).filter(|at| file[*at] == b'\n').collect();
    let at = rng.choice(&ends).map_or(0, |end| end + 1);
    change::insert(file, at, word.as_bytes());
}
