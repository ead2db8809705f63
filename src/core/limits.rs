//! Every number of the core with its unit, its source and its relation to the others.

pub use crate::log::LogLimits;
use crate::time::Millis;

/// Longest accepted difference between a hello's timestamp and the broker's clock
/// (protocol.md §4 check 3).
pub const HELLO_SKEW: Millis = Millis::secs(60);

/// Longest life of a parent attestation, counted from now (protocol.md §5 check 5).
pub const ATTESTATION_LIFE: Millis = Millis::secs(24 * 3600);

/// A hook's status is called fresh for this long (protocol.md §9).
pub const HOOK_FRESH: Millis = Millis::secs(30);

/// A `working` status nobody renewed becomes `idle` after this (protocol.md §9).
pub const WORKING_TTL: Millis = Millis::secs(60);

/// A status posted for a presence that does not exist yet is kept this long (protocol.md §9).
pub const PENDING_STATUS_TTL: Millis = Millis::secs(10);

/// Most pending statuses kept per shard; beyond it the oldest goes.
pub const PENDING_STATUS_MAX: usize = 1024;

/// How many sessions of one directory a hook looks through, latest first.
pub const HOOK_SCAN_MAX: usize = 4096;

/// Messages of one mailbox kept in memory; further ones stay on disk until it drains.
pub const MAILBOX_MESSAGES_MAX: usize = 256;

/// Bytes of frames of one mailbox kept in memory; further ones stay on disk until it drains.
pub const MAILBOX_BYTES_MAX: usize = 1024 * 1024;

/// Undelivered messages wait this long for their recipient (design.md I4).
pub const UNDELIVERED_KEPT: Millis = Millis::secs(7 * 24 * 3600);

/// After a failed read from disk a mailbox is asked for again in this time.
pub const MAILBOX_RETRY: Millis = Millis::secs(1);

/// Rows asked of the store at once when a mailbox is read back.
pub const MAILBOX_LOAD_ROWS: u32 = 128;

/// Messages written to one socket and not yet confirmed; beyond it a session is sent nothing more
/// until its client or its watermark confirms.
pub const OUTBOX_MESSAGES_MAX: usize = 1024;

/// Bytes written to one socket and not yet confirmed; half of what the shell buffers for a socket
/// ([`OUTBOUND_BYTES_MAX`]), so that replay alone never makes a slow consumer.
pub const OUTBOX_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 2;

/// Bytes the shell holds for a socket that does not read; beyond it the socket is closed 1013 and
/// the session enters grace (design.md §5).
pub const OUTBOUND_BYTES_MAX: usize = 1024 * 1024;

/// After a burst, a watermark ping follows within this (design.md §5).
pub const WATERMARK_DELAY: Millis = Millis::secs(1);

/// How often a mesh's log is looked at for what everybody has confirmed, while there is anything
/// that not all have.
pub const LOG_WATCHED: Millis = Millis::secs(30);

/// How often the cursor of a session is written to its row, at most: what a session hears again
/// after a crash of the broker, and one write per session and that time at the most.
pub const CURSOR_NOTED: Millis = Millis::secs(30);

/// Sends per shard that are known by what their senders called them, so that a repeat is found
/// out; a send repeated after more than so many others counts as new.
pub const REPEATS_MAX: usize = 1 << 18;

/// A resume token serves for this long at most, and never longer than the attestation that was
/// verified: as long as an attestation may last.
pub const RESUME_LIFE: Millis = ATTESTATION_LIFE;

/// Shortest grace a session may ask for (`leaseMs`): about a reconnect.
pub const GRACE_MIN: Millis = Millis::secs(1);

/// Ended sessions of one mesh whose keys are remembered, so that mail for them is kept.
pub const KNOWN_KEYS_MAX: usize = 16_384;

/// Walks of one session, each cut before it was confirmed, of which it is remembered what they
/// passed over. One is common, more in a row are rare.
pub const PASSED_MAX: usize = 8;

/// Boots after which a lease that nobody claims is no longer extended (design.md §6).
pub const BOOT_EPOCHS_MAX: u8 = 3;

/// Takeovers of an online session within [`CONFLICT_WINDOW`] from which the incumbent is asked
/// first (design.md §8.1).
pub const CONFLICT_TAKEOVERS: u8 = 3;

/// See [`CONFLICT_TAKEOVERS`].
pub const CONFLICT_WINDOW: Millis = Millis::secs(10);

/// Hellos a joined socket may say again within [`CONFLICT_WINDOW`]: each costs a signature check.
pub const REPEATED_HELLOS: u8 = 8;

/// How long the incumbent has to answer a conflict ping (design.md §8.1).
pub const CONFLICT_ANSWER: Millis = Millis::secs(2);

/// Groups of one session; a further `join_group` gets `limit`.
pub const GROUPS_MAX: usize = 64;

/// Longest name a client may choose (display name, group, session id), in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// Longest text a session carries (cwd, summary, hostname, model, one profile field), in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Scheduled messages of one member that have not been sent; a further one gets `limit`.
pub const SCHEDULES_MAX: usize = 1000;

/// Bytes of them all together; a further one gets `limit`.
pub const SCHEDULED_BYTES_MAX: usize = 1024 * 1024;

/// Longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 256;

/// How far a cron expression is searched for its next moment. Eight years may lie between two leap
/// days, as from 2096 to 2104.
pub const CRON_YEARS_MAX: i32 = 8;

/// How often the wall clock is looked at while anything is scheduled: by so much a message may be
/// late when that clock is put forward.
pub const SCHEDULES_WATCHED: Millis = Millis::secs(10);

/// Scheduled messages sent in one go; others that are due follow a tick later.
pub const SCHEDULES_AT_ONCE: usize = 256;

/// A scheduled message whose member has sent too much of late is tried again in this time.
pub const SCHEDULE_RETRY: Millis = Millis::secs(1);

/// MCP servers one session may host; a further one gets `limit`.
pub const SERVERS_PER_SESSION_MAX: usize = 32;

/// MCP servers registered in one mesh; a further one gets `limit`.
pub const SERVERS_PER_MESH_MAX: usize = 256;

/// Bytes of names and descriptions of all of them; a further one gets `limit`.
pub const SERVERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tools of one MCP server.
pub const TOOLS_MAX: usize = 128;

/// Bytes of names and descriptions of one MCP server and its tools.
pub const SERVER_BYTES_MAX: usize = 64 * 1024;

/// How long a call waits for its answer (protocol.md §14).
pub const CALL_PATIENCE: Millis = Millis::secs(30);

/// Calls of one session without an answer; a further one gets `limit`.
pub const CALLS_PER_SESSION_MAX: usize = 64;

/// Calls of one mesh without an answer; a further one gets `limit`.
pub const CALLS_PER_MESH_MAX: usize = 1024;

/// Bytes of results that wait for one session to come back; one that does not fit is replaced by an
/// error. Half of what is held for a socket, so that they alone make no slow consumer.
pub const RESULTS_KEPT_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 2;

/// Bytes of one call's arguments.
pub const CALL_BYTES_MAX: usize = 64 * 1024;

/// Bytes of calls to one session without an answer; beyond it callers get `limit`. A quarter of what
/// is held for a socket that does not read, so that calls alone make no slow consumer.
pub const CALLS_TO_HOST_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 4;

/// Bytes of one call's result, or error.
pub const CALL_RESULT_BYTES_MAX: usize = 256 * 1024;

/// Largest profile or stats object kept per session, in bytes of JSON.
pub const PROFILE_BYTES_MAX: usize = 16 * 1024;

/// Keys of one mesh's shared state.
pub const STATE_KEYS_MAX: usize = 1024;

/// Longest key of shared state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = NAME_BYTES_MAX;

/// Largest value of shared state, in bytes of JSON; as a message (protocol.md §27).
pub const STATE_VALUE_BYTES_MAX: usize = 65_536;

/// The whole shared state of a mesh as `list_state` gives it, in bytes: half of what the shell
/// buffers for a socket, so that the answer alone never makes a slow consumer.
pub const STATE_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 2;

/// Streams of one mesh, created ones and those that only have subscribers.
pub const STREAMS_MAX: usize = 1024;

/// All created streams of a mesh as `list_streams` gives them, in bytes; see [`STATE_BYTES_MAX`].
pub const STREAMS_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 2;

/// Longest name of a stream, in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = NAME_BYTES_MAX;

/// Largest `data` of one `publish`, in bytes of JSON; as a message (protocol.md §27).
pub const STREAM_DATA_BYTES_MAX: usize = 65_536;

/// Streams one session may be subscribed to.
pub const SUBSCRIPTIONS_MAX: usize = 64;

/// Signatures remembered per shard against replay; beyond it the oldest is forgotten first.
pub const REPLAY_MAX: usize = 1 << 20;

/// Replies of one connection waiting behind an unanswered store operation; beyond it the
/// connection is closed 1013.
pub const REPLIES_WAITING_MAX: usize = 16_384;

/// The same in bytes: once more than this is held for a connection, one answer more closes it 1013;
/// so do questions to the store that have to wait and are larger than this. Twice what is held for a socket that does not
/// read, so that whoever reads may ask for several lists at once.
pub const REPLIES_BYTES_MAX: usize = 2 * OUTBOUND_BYTES_MAX;

/// Questions of one connection that the store looks up at a time; the others wait, and are not asked
/// if the connection ends. So others wait for no more than these.
pub const LOOKUPS_AT_ONCE: usize = 2;

/// While more bytes of answers wait for one that is before them, no more questions are looked up: what
/// is written at once when that comes is to fit into what is held for a socket.
pub const LOOKUPS_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 4;

/// Longest text of a record kept on disk only (a memory, a summary, instructions, a result, what a
/// vault holds), in bytes: as long as a message may be.
pub const RECORD_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Longest list of texts in a request (tags, paths, keys), in bytes of its JSON.
pub const RECORD_LIST_BYTES_MAX: usize = 16 * 1024;

/// Bytes of rows in one answer; further ones are left out, and it says so. Twice that (`recall` is
/// answered twice) is half of [`OUTBOUND_BYTES_MAX`], so that an answer never makes a slow consumer.
pub const ANSWER_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 4;

/// Memories of one mesh; a further one gets `limit`.
pub const MEMORIES_MAX: usize = 10_000;

/// Memories in one answer (protocol.md §20).
pub const RECALL_ROWS: u32 = 20;

/// Words of one `recall`.
pub const RECALL_WORDS_MAX: usize = 64;

/// Contexts in the answer of `get_context` (protocol.md §20).
pub const CONTEXT_ROWS: u32 = 20;

/// Tasks of one mesh; a further one takes the place of the oldest that is done, else gets `limit`.
pub const TASKS_MAX: usize = 10_000;

/// Tasks in one answer (protocol.md §20).
pub const TASK_ROWS: u32 = 100;

/// Skills of one mesh; a further one gets `limit`.
pub const SKILLS_MAX: usize = 1000;

/// API keys of one mesh; a further one takes the place of the oldest that is revoked, else gets
/// `limit`.
pub const API_KEYS_MAX: usize = 1000;

/// Entries of one member's vault; a further one gets `limit`.
pub const VAULT_ENTRIES_MAX: usize = 1000;

/// Keys of one `vault_get`.
pub const VAULT_KEYS_MAX: usize = 64;

/// Webhooks of one mesh, also those deleted, whose names stay taken; a further one gets `limit`.
pub const WEBHOOKS_MAX: usize = 1000;

/// Topics of one mesh; a further one gets `limit`.
pub const TOPICS_MAX: usize = 1000;

/// Members in all topics of one mesh together; a further one gets `limit`. Some 5 MiB.
pub const TOPIC_MEMBERS_MAX: usize = 100_000;

/// Messages in the history of one topic; a further one takes the place of the oldest.
pub const TOPIC_MESSAGES_MAX: usize = 10_000;

/// Messages in one answer of `topic_history`, if it is not said how many (protocol.md §20).
pub const TOPIC_HISTORY_ROWS: u32 = 50;

/// The same at most; who asks for more gets so many.
pub const TOPIC_HISTORY_ROWS_MAX: u32 = 200;

/// Names that one message to a topic mentions; further ones are passed over (protocol.md §20).
pub const MENTIONS_MAX: usize = 16;

/// Members that one message notifies (protocol.md §20).
pub const MENTIONED_MAX: usize = 32;

/// Rows of any other list in one answer.
pub const LIST_ROWS: u32 = 1000;

/// Entries in one answer of `audit_query`; who asks for more gets so many.
pub const AUDIT_ROWS_MAX: u32 = 500;

/// Latest entries among which `audit_query` looks for those of one type.
pub const AUDIT_REACH: usize = 100_000;

/// Largest content of a peer's file, or listing, that is passed on, in bytes; half of
/// [`OUTBOUND_BYTES_MAX`], so that it never makes a slow consumer by itself.
pub const RELAY_BYTES_MAX: usize = OUTBOUND_BYTES_MAX / 2;

/// Requests of one mesh for peers' files that wait for their answers; a further one gets `limit`.
pub const RELAYS_MAX: usize = 1024;

/// The same of one session.
pub const RELAYS_OF_SESSION_MAX: usize = 16;

/// How long a peer has to answer a request for a file: as long as an MCP call may take.
pub const RELAY_PATIENCE: Millis = Millis::secs(30);

const _: () = assert!(2 * ANSWER_BYTES_MAX <= OUTBOUND_BYTES_MAX / 2);
// One row always fits: a text whose every byte is escaped takes six times the room.
const _: () = assert!(6 * RECORD_TEXT_BYTES_MAX < OUTBOUND_BYTES_MAX / 2);
/// URL watches of one session; a further `watch` gets `limit`.
pub const WATCHES_MAX: usize = 32;

/// URL watches of one mesh: what its members together may have the broker fetch.
pub const MESH_WATCHES_MAX: usize = 1024;

/// New watches a session may make at once, and per minute: each is a request to somebody else's
/// server, also if the watch is given up at once.
pub const WATCH_BURST: u32 = 32;

/// See [`WATCH_BURST`].
pub const WATCH_RATE: u32 = 30;

/// Fetches of one session under way at once, so that slow servers of one hold up few of those who
/// fetch for all. The others wait their turn.
pub const WATCH_FETCHES_MAX: u8 = 2;

/// Time between two checks if nothing is said (protocol.md §13).
pub const WATCH_INTERVAL: Millis = Millis::secs(30);

/// Shortest time between two checks; a shorter wish gets this (protocol.md §13).
pub const WATCH_INTERVAL_MIN: Millis = Millis::secs(5);

/// Longest time between two checks.
pub const WATCH_INTERVAL_MAX: Millis = Millis::secs(24 * 3600);

/// Longest URL of a watch, in bytes.
pub const WATCH_URL_BYTES_MAX: usize = 2048;

/// Request headers of one watch.
pub const WATCH_HEADERS_MAX: usize = 16;

/// Names and values of all headers of one watch together, in bytes.
pub const WATCH_HEADER_BYTES_MAX: usize = 4096;

/// Longest value of a watch, in bytes; of a longer one the beginning and a hash are kept.
pub const WATCH_VALUE_BYTES_MAX: usize = 1024;

/// Characters shown of a document that is not the JSON it should be (protocol.md §13).
pub const WATCH_EXCERPT_CHARS: usize = 200;

const _: () = assert!(MAILBOX_LOAD_ROWS as usize <= MAILBOX_MESSAGES_MAX);
const _: () = assert!(OUTBOX_BYTES_MAX < OUTBOUND_BYTES_MAX);
const _: () = assert!(CONFLICT_ANSWER.0 < CONFLICT_WINDOW.0);

/// What an operator may set; the rest above is fixed. One value per process.
#[derive(Clone, Debug)]
pub struct Config {
    /// What stands before the paths of URLs that clients are told (protocol.md §19); empty if the
    /// broker does not know under which name the world reaches it.
    pub public_url: Box<str>,
    /// How long a session stays present without a socket.
    pub grace: Millis,
    /// Longest grace a session may ask for (`leaseMs`).
    pub max_grace: Millis,
    /// Grace granted at boot to every lease found in the store (design.md §6).
    pub restart_grace: Millis,
    /// A ping is due this long after the last proof of life.
    pub ping_interval: Millis,
    /// Silence after which a socket is aborted.
    pub pong_timeout: Millis,
    /// Time a socket has to complete its hello.
    pub hello_timeout: Millis,
    /// Sessions (online and in grace) one mesh may hold; a reattach is never refused.
    pub max_sessions_per_mesh: u32,
    /// Cap on ciphertext + nonce + targetSpec of a send, in characters (protocol.md §8.2).
    pub max_message_bytes: usize,
    /// Sends per minute and member; 0 means no limit.
    pub send_rate: u32,
    /// Sends a member may make at once.
    pub send_burst: u32,
    /// What each mesh remembers of what it said to many, for those who were away.
    pub log: LogLimits,
}

impl Config {
    /// The grace of a session that asks for `wanted`.
    #[must_use]
    pub fn grace_of(&self, wanted: Option<Millis>) -> Millis {
        grace_within(wanted, self.grace, self.max_grace)
    }
}

/// What becomes of a wish for `wanted` where the default is `grace` and the most is `max_grace`.
pub(crate) fn grace_within(wanted: Option<Millis>, grace: Millis, max_grace: Millis) -> Millis {
    let most = max_grace.max(grace);
    wanted.map_or(grace, |wanted| wanted.max(GRACE_MIN.min(grace)).min(most))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: Box::default(),
            grace: Millis::secs(90),
            max_grace: Millis::secs(3600),
            restart_grace: Millis::secs(90),
            ping_interval: Millis::secs(30),
            pong_timeout: Millis::secs(75),
            hello_timeout: Millis::secs(10),
            max_sessions_per_mesh: 10_000,
            max_message_bytes: 65_536,
            send_rate: 60,
            send_burst: 10,
            log: LogLimits {
                entries: 16_384,
                bytes: 8 * 1024 * 1024,
                age: Millis::secs(600),
            },
        }
    }
}
