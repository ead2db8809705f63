//! What the program was told to be: flags, environment and TOML merged and validated into what it
//! means. What was typed is [`ServeOptions`]; what it means is [`ServeConfig`].
//!
//! Must not: open the database, a socket, or anything but the file named by `--config`.

mod options;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use options::ServeOptions;
pub use values::{PublicUrl, Secret, Span};

use crate::core::limits::{Config as CoreConfig, LogLimits, OUTBOX_BYTES_MAX};
use crate::core::time::Millis;

/// The database every command uses unless told otherwise.
pub const DEFAULT_DB: &str = "holdfast.db";

/// Where a broker listens if nothing else is said; the port is the original's.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7900);

/// Clients retry at 1, 2, 4, 8, 16, 30, 30 ... seconds: whoever survives a restart is back within
/// this, so the default restart grace is never shorter.
const RESTART_GRACE_FLOOR: Millis = Millis::secs(30);

/// One tick of the timer wheel; a shorter time cannot be kept.
const SPAN_MIN: Millis = Millis(10);

/// Longest time a flag may ask for: a month, beyond which a typing error is likelier than a wish.
const SPAN_MAX: Millis = Millis::secs(30 * 24 * 3600);

/// Most loops: more than any machine has cores worth a loop.
const THREADS_MAX: u16 = 256;

/// Smallest `--max-frame-bytes`: a hello with its attestation must fit.
const FRAME_BYTES_MIN: usize = 4096;

/// Largest `--max-frame-bytes`: one client may make the broker hold this much.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest `--max-message-bytes`: a pushed message must fit the outbox with room to spare, or it
/// could never be delivered.
const MESSAGE_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// Room for what surrounds a message in its frame (ids, field names, mentions).
const ENVELOPE_BYTES: usize = 2048;

/// Most sessions per mesh: what a slab handle can number, with room for the other meshes.
const SESSIONS_MAX: u32 = 10_000_000;

/// Shortest `--admin-token`.
const SECRET_BYTES_MIN: usize = 16;

/// Largest `--mesh-log-entries` and `--mesh-log-bytes`: what one mesh may make the broker hold.
const LOG_ENTRIES_MAX: usize = 1 << 24;
const LOG_BYTES_MAX: usize = 1 << 32;

/// Everything `holdfast serve` needs.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where HTTP and WebSocket listen.
    pub listen: SocketAddr,
    /// The SQLite file; its admin socket and lock lie beside it.
    pub db: PathBuf,
    /// Loops, each on its own thread; at least 1.
    pub threads: u16,
    /// What a commit survives.
    pub durability: Durability,
    /// Largest WebSocket message taken, in bytes.
    pub max_frame_bytes: usize,
    /// New connections per minute of one source address, on each loop; 0 means no limit.
    pub source_rate: u32,
    /// New connections one source address may make at once, on each loop.
    pub source_burst: u32,
    /// With which members may be changed over HTTP, if any.
    pub admin_token: Option<Secret>,
    /// Whether anybody may read over HTTP who the members of a mesh are.
    pub public_members: bool,
    /// Whether an unsigned header says which member changes others over HTTP.
    pub trust_member_header: bool,
    /// Whether URL watches may reach addresses that are not public.
    pub watch_allow_private: bool,
    /// How log lines look.
    pub log: LogFormat,
    /// What the core needs.
    pub core: CoreConfig,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            db: PathBuf::from(DEFAULT_DB),
            threads: 1,
            durability: Durability::Full,
            max_frame_bytes: 2 * 1024 * 1024,
            source_rate: 12_000,
            source_burst: 8192,
            admin_token: None,
            public_members: false,
            trust_member_header: false,
            watch_allow_private: false,
            log: LogFormat::Text,
            core: CoreConfig::default(),
        }
    }
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// kill -9 and power loss (`synchronous=FULL`).
    #[default]
    Full,
    /// kill -9, not power loss (`synchronous=NORMAL`).
    Normal,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Why a configuration was refused. One line, naming what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--config` names a file that cannot be read.
    #[error("cannot read config file {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the TOML we know.
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value outside what can work.
    #[error("{name} is {value}, but must be {want}")]
    OutOfRange {
        /// As in `--name` and in the file.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        want: String,
    },
    /// Two values that cannot both hold.
    #[error("{0}")]
    Impossible(String),
}

impl ServeOptions {
    /// Reads the file named by `--config`, if any, and gives what all layers together mean:
    /// flag, else environment, else file, else default.
    ///
    /// # Errors
    /// The file cannot be read or understood, or the values cannot work together.
    pub fn resolve(self) -> Result<ServeConfig, ConfigError> {
        let file = match &self.config {
            Some(path) => Self::from_file(path)?,
            None => Self::default(),
        };
        let config = self.or(file).into_config();
        config.validate()?;
        Ok(config)
    }

    fn into_config(self) -> ServeConfig {
        let default = ServeConfig::default();
        let core = default.core;
        let grace = self.grace.map_or(core.grace, Span::millis);
        let pong_timeout = self.pong_timeout.map_or(core.pong_timeout, Span::millis);
        let log = LogLimits {
            entries: self.mesh_log_entries.unwrap_or(core.log.entries),
            bytes: self.mesh_log_bytes.unwrap_or(core.log.bytes),
            age: self.mesh_log_age.map_or_else(
                || {
                    core.log
                        .age
                        .max(Millis(grace.0.saturating_add(pong_timeout.0)))
                },
                Span::millis,
            ),
        };
        ServeConfig {
            listen: self.listen.unwrap_or(default.listen),
            db: self.db.unwrap_or(default.db),
            threads: self.threads.unwrap_or(default.threads),
            durability: self.durability.unwrap_or(default.durability),
            max_frame_bytes: self.max_frame_bytes.unwrap_or(default.max_frame_bytes),
            source_rate: self.source_rate.unwrap_or(default.source_rate),
            source_burst: self.source_burst.unwrap_or(default.source_burst),
            admin_token: self.admin_token,
            public_members: self.public_members.unwrap_or(default.public_members),
            trust_member_header: self
                .trust_member_header
                .unwrap_or(default.trust_member_header),
            watch_allow_private: self
                .watch_allow_private
                .unwrap_or(default.watch_allow_private),
            log: self.log.unwrap_or(default.log),
            core: CoreConfig {
                public_url: self.public_url.unwrap_or_default().as_str().into(),
                grace,
                restart_grace: self
                    .restart_grace
                    .map_or_else(|| grace.max(RESTART_GRACE_FLOOR), Span::millis),
                ping_interval: self.ping_interval.map_or(core.ping_interval, Span::millis),
                pong_timeout,
                max_grace: self.max_grace.map_or(core.max_grace, Span::millis),
                log,
                hello_timeout: self.hello_timeout.map_or(core.hello_timeout, Span::millis),
                max_sessions_per_mesh: self
                    .max_sessions_per_mesh
                    .unwrap_or(core.max_sessions_per_mesh),
                max_message_bytes: self.max_message_bytes.unwrap_or(core.max_message_bytes),
                send_rate: self.send_rate.unwrap_or(core.send_rate),
                send_burst: self.send_burst.unwrap_or(core.send_burst),
            },
        }
    }
}

impl ServeConfig {
    /// Whether every value can work, alone and with the others.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let core = &self.core;
        for (name, span) in [
            ("grace", core.grace),
            ("max-grace", core.max_grace),
            ("restart-grace", core.restart_grace),
            ("mesh-log-age", core.log.age),
            ("ping-interval", core.ping_interval),
            ("pong-timeout", core.pong_timeout),
            ("hello-timeout", core.hello_timeout),
        ] {
            within(
                name,
                Span::from(span),
                Span::from(SPAN_MIN)..=Span::from(SPAN_MAX),
            )?;
        }
        within("threads", self.threads, 1..=THREADS_MAX)?;
        within(
            "max-sessions-per-mesh",
            core.max_sessions_per_mesh,
            1..=SESSIONS_MAX,
        )?;
        within(
            "max-frame-bytes",
            self.max_frame_bytes,
            FRAME_BYTES_MIN..=FRAME_BYTES_MAX,
        )?;
        within("mesh-log-entries", core.log.entries, 1..=LOG_ENTRIES_MAX)?;
        within("mesh-log-bytes", core.log.bytes, 1..=LOG_BYTES_MAX)?;
        within(
            "max-message-bytes",
            core.max_message_bytes,
            1..=MESSAGE_BYTES_MAX,
        )?;
        if core.pong_timeout <= core.ping_interval {
            return Err(ConfigError::Impossible(format!(
                "pong-timeout ({}) must be longer than ping-interval ({}), or a quiet client is \
                 cut off before it is asked",
                Span::from(core.pong_timeout),
                Span::from(core.ping_interval)
            )));
        }
        let token = self.admin_token.as_ref();
        if token.is_some_and(|token| token.expose().len() < SECRET_BYTES_MIN) {
            return Err(ConfigError::Impossible(format!(
                "admin-token must be at least {SECRET_BYTES_MIN} characters long, or it can be \
                 guessed"
            )));
        }
        if core.max_message_bytes + ENVELOPE_BYTES > self.max_frame_bytes {
            return Err(ConfigError::Impossible(format!(
                "max-message-bytes ({}) must be at least {ENVELOPE_BYTES} below max-frame-bytes \
                 ({}), or the largest message fits no frame",
                core.max_message_bytes, self.max_frame_bytes
            )));
        }
        for (what, rate, burst, verb) in [
            ("send", core.send_rate, core.send_burst, "send anything"),
            ("source", self.source_rate, self.source_burst, "connect"),
        ] {
            if rate > 0 && burst == 0 {
                return Err(ConfigError::Impossible(format!(
                    "{what}-burst 0 lets nobody {verb}; use 1 or more, or {what}-rate 0 for no \
                     limit"
                )));
            }
        }
        Ok(())
    }
}

/// Refuses a value outside its range.
fn within<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        name,
        value: value.to_string(),
        want: format!("between {} and {}", range.start(), range.end()),
    })
}

#[cfg(test)]
mod tests;
