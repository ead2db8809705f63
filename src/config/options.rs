//! What was typed: the options of `holdfast serve`, one list for flags, environment and file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{ConfigError, Durability, LogFormat, PublicUrl, Secret, Span};

/// The options of `holdfast serve`. Every field is `None` until somebody says otherwise, so that
/// layers can be told apart; the same struct is read from flags with their environment variables
/// and from the file. Defaults are named in the help texts and checked against
/// [`super::ServeConfig::default`] by a test.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServeOptions {
    /// TOML file with any of these options, without the leading dashes
    ///
    /// A flag beats its environment variable, which beats the file, which beats the default.
    /// Durations are written in quotes there: grace = "90s". A key that is not an option is
    /// refused, so that a misspelt one cannot go unnoticed.
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Address and port for WebSocket and HTTP [default: 127.0.0.1:7900]
    ///
    /// Only this machine can connect by default: hook status and metrics ask for no password.
    /// Use 0.0.0.0:7900 to serve others, behind a TLS proxy. Port 0 takes a free
    /// one and prints it.
    #[arg(long, env = "HOLDFAST_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Address under which the world reaches the broker, an http or https URL [default: none]
    ///
    /// What clients are told of webhooks begins with it; without it, they are told the path alone.
    #[arg(long, env = "HOLDFAST_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,

    /// SQLite database file, made if missing [default: holdfast.db]
    ///
    /// Its write-ahead log (-wal, -shm), lock (.lock) and admin socket (.sock) lie beside it.
    /// Keep it on a local disk: network file systems cannot lock it.
    #[arg(long, env = "HOLDFAST_DB", value_name = "FILE")]
    pub db: Option<PathBuf>,

    /// Event loops, each on its own thread [default: 1]
    ///
    /// A mesh lives whole on one loop, so more loops help when there are several busy meshes.
    /// One loop carries thousands of sessions; leave a core for the database writer.
    #[arg(long, env = "HOLDFAST_THREADS", value_name = "N")]
    pub threads: Option<u16>,

    /// How long a session stays present without a socket [default: 90s]
    ///
    /// Whoever is back within this time was never away: nobody is told, nothing is lost.
    /// After it, everybody gets one peer_left.
    #[arg(long, env = "HOLDFAST_GRACE", value_name = "DURATION")]
    pub grace: Option<Span>,

    /// Longest grace that one session may ask for (leaseMs in its hello) [default: 1h]
    ///
    /// A session may also ask for a shorter one, down to a second. Below --grace it means nothing.
    #[arg(long, env = "HOLDFAST_MAX_GRACE", value_name = "DURATION")]
    pub max_grace: Option<Span>,

    /// Silence after which a client is pinged [default: 30s]
    ///
    /// Any frame from the client is proof of life and puts the ping off. Clients give up after
    /// 75s without hearing anything, so stay well below that.
    #[arg(long, env = "HOLDFAST_PING_INTERVAL", value_name = "DURATION")]
    pub ping_interval: Option<Span>,

    /// Silence after which a socket is cut and grace begins [default: 75s]
    ///
    /// Must be longer than --ping-interval; two and a half times as long forgives a lost ping.
    #[arg(long, env = "HOLDFAST_PONG_TIMEOUT", value_name = "DURATION")]
    pub pong_timeout: Option<Span>,

    /// Time a new socket has to say who it is [default: 10s]
    ///
    /// Clients say hello at once; what takes longer to upgrade, or after that to say hello, is
    /// cut, so that idle sockets of strangers cannot use up the open-file limit.
    #[arg(long, env = "HOLDFAST_HELLO_TIMEOUT", value_name = "DURATION")]
    pub hello_timeout: Option<Span>,

    /// Grace for every session found in the database at start [default: --grace, at least 30s]
    ///
    /// Clients wait up to 30s between attempts to reconnect; a shorter time would declare some
    /// of them gone because the broker restarted.
    #[arg(long, env = "HOLDFAST_RESTART_GRACE", value_name = "DURATION")]
    pub restart_grace: Option<Span>,

    /// Sessions one mesh may hold, online and in grace [default: 10000]
    ///
    /// A full mesh refuses newcomers (error capacity), never a session that comes back.
    #[arg(long, env = "HOLDFAST_MAX_SESSIONS_PER_MESH", value_name = "N")]
    pub max_sessions_per_mesh: Option<u32>,

    /// Broadcasts, joins and the like that each mesh remembers for sessions away [default: 16384]
    ///
    /// With the next two this bounds the memory of a busy mesh. A session that comes back to less
    /// than it missed is told so (hello_ack.missed) and gets what there is.
    #[arg(long, env = "HOLDFAST_MESH_LOG_ENTRIES", value_name = "N")]
    pub mesh_log_entries: Option<usize>,

    /// Most bytes of them, for each mesh [default: 8388608]
    #[arg(long, env = "HOLDFAST_MESH_LOG_BYTES", value_name = "BYTES")]
    pub mesh_log_bytes: Option<usize>,

    /// How long they are remembered [default: 10m]
    ///
    /// If nothing is given, at least --grace and --pong-timeout together: a socket that died
    /// unnoticed is found out after --pong-timeout; only then grace begins.
    #[arg(long, env = "HOLDFAST_MESH_LOG_AGE", value_name = "DURATION")]
    pub mesh_log_age: Option<Span>,

    /// Largest message: ciphertext, nonce and target together, in bytes [default: 65536]
    ///
    /// A larger send is refused in its ack and the connection kept.
    #[arg(long, env = "HOLDFAST_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    pub max_message_bytes: Option<usize>,

    /// Largest WebSocket message of any kind, in bytes [default: 2097152]
    ///
    /// Clients answer file requests with frames of 1.4 MB; a larger frame than this closes the
    /// connection with code 1009. Before a hello has been accepted 131072 is the most.
    #[arg(long, env = "HOLDFAST_MAX_FRAME_BYTES", value_name = "BYTES")]
    pub max_frame_bytes: Option<usize>,

    /// Messages per minute one member may send, 0 for no limit [default: 60]
    ///
    /// Counted per member, over all of its connections. Beyond it sends are refused in their
    /// ack, and the client tries again later.
    #[arg(long, env = "HOLDFAST_SEND_RATE", value_name = "PER_MINUTE")]
    pub send_rate: Option<u32>,

    /// Messages a member may send at once before --send-rate applies [default: 10]
    #[arg(long, env = "HOLDFAST_SEND_BURST", value_name = "N")]
    pub send_burst: Option<u32>,

    /// New connections per minute of one source address and loop, 0 for no limit [default: 12000]
    ///
    /// Beyond it, and beyond --source-burst, a connection is reset before it can ask for anything.
    /// This machine itself is never limited; an IPv6 network of 64 bits counts as one address.
    #[arg(long, env = "HOLDFAST_SOURCE_RATE", value_name = "PER_MINUTE")]
    pub source_rate: Option<u32>,

    /// Connections one address may open at once before --source-rate applies [default: 8192]
    ///
    /// A site behind one address whose sessions all come back together must fit.
    #[arg(long, env = "HOLDFAST_SOURCE_BURST", value_name = "N")]
    pub source_burst: Option<u32>,

    /// Secret with which an administrator's program may change members over HTTP [default: none]
    ///
    /// Given as "Authorization: Bearer SECRET"; at least 16 characters. Rather set the variable or
    /// the file than the flag, which everybody on this machine can read.
    #[arg(
        long,
        env = "HOLDFAST_ADMIN_TOKEN",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub admin_token: Option<Secret>,

    /// Let anybody read the list of a mesh's members over HTTP [default: false]
    ///
    /// Otherwise a member must sign for it. Existing clients do not sign: their profile command
    /// needs this to be true.
    #[arg(
        long,
        env = "HOLDFAST_PUBLIC_MEMBERS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub public_members: Option<bool>,

    /// Believe whoever says over HTTP which member it is, unsigned [default: false]
    ///
    /// Existing clients change profiles so. Whoever knows the id of an admin can then change
    /// everybody: only where all who reach the port are trusted.
    #[arg(
        long,
        env = "HOLDFAST_TRUST_MEMBER_HEADER",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub trust_member_header: Option<bool>,
    /// Let URL watches reach addresses that are not public [default: false]
    ///
    /// Members choose what the broker fetches. Without this they cannot have it look at this
    /// machine, its network or a cloud host's metadata. Only for a mesh whose members may.
    #[arg(
        long,
        env = "HOLDFAST_WATCH_ALLOW_PRIVATE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub watch_allow_private: Option<bool>,

    /// What an acknowledged message survives [default: full]
    ///
    /// full: kill -9 and power loss (every commit is flushed to the disk). normal: kill -9, but
    /// the last moments before a power loss may be missing; several times faster on slow disks.
    #[arg(
        long,
        env = "HOLDFAST_DURABILITY",
        value_name = "LEVEL",
        hide_possible_values = true
    )]
    pub durability: Option<Durability>,

    /// Log lines on standard error: text for people or json for machines [default: text]
    #[arg(
        long,
        env = "HOLDFAST_LOG",
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub log: Option<LogFormat>,
}

impl ServeOptions {
    /// Reads the options of a TOML file.
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::from_toml(&text, path)
    }

    /// Reads the options of a TOML text, which came from `path`.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] with the line, also for a key that is no option.
    #[doc(hidden)]
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error
                .span()
                .and_then(|span| text.get(..span.start))
                .unwrap_or_default();
            ConfigError::Malformed {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                message: error
                    .message()
                    .replace('\n', ", ")
                    .replace(char::is_control, " "),
            }
        })
    }

    /// These options, and `below` where these say nothing.
    pub(super) fn or(self, below: Self) -> Self {
        Self {
            config: self.config.or(below.config),
            listen: self.listen.or(below.listen),
            db: self.db.or(below.db),
            threads: self.threads.or(below.threads),
            grace: self.grace.or(below.grace),
            max_grace: self.max_grace.or(below.max_grace),
            mesh_log_entries: self.mesh_log_entries.or(below.mesh_log_entries),
            mesh_log_bytes: self.mesh_log_bytes.or(below.mesh_log_bytes),
            mesh_log_age: self.mesh_log_age.or(below.mesh_log_age),
            ping_interval: self.ping_interval.or(below.ping_interval),
            pong_timeout: self.pong_timeout.or(below.pong_timeout),
            hello_timeout: self.hello_timeout.or(below.hello_timeout),
            restart_grace: self.restart_grace.or(below.restart_grace),
            max_sessions_per_mesh: self.max_sessions_per_mesh.or(below.max_sessions_per_mesh),
            max_message_bytes: self.max_message_bytes.or(below.max_message_bytes),
            max_frame_bytes: self.max_frame_bytes.or(below.max_frame_bytes),
            send_rate: self.send_rate.or(below.send_rate),
            send_burst: self.send_burst.or(below.send_burst),
            source_rate: self.source_rate.or(below.source_rate),
            source_burst: self.source_burst.or(below.source_burst),
            public_url: self.public_url.or(below.public_url),
            admin_token: self.admin_token.or(below.admin_token),
            public_members: self.public_members.or(below.public_members),
            trust_member_header: self.trust_member_header.or(below.trust_member_header),
            durability: self.durability.or(below.durability),
            watch_allow_private: self.watch_allow_private.or(below.watch_allow_private),
            log: self.log.or(below.log),
        }
    }
}
