//! Every number of the shell with its unit and its reason.

use crate::core::limits::OUTBOUND_BYTES_MAX;
use crate::core::time::Millis;

/// Largest request head; beyond it the answer is 431. The head decoder itself has no limit and
/// panics on names of 64 KiB, so nothing longer may reach it.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Time for a request head, then for its body, then between two requests of one connection; less
/// if less is given for a hello, which is what strangers are given altogether.
pub(super) const HTTP_TIMEOUT: Millis = Millis::secs(10);

/// Requests answered on one connection before it is closed.
pub(super) const REQUESTS_MAX: u32 = 1000;

/// Signatures of HTTP requests that are remembered, each for two minutes; while there are as many,
/// none is accepted. Some 20 MiB.
pub(super) const SIGNATURES_MAX: usize = 1 << 17;

/// Answers waiting for an HTTP client that does not read them.
pub(super) const HTTP_OUTBOUND_BYTES_MAX: usize = 256 * 1024;

/// Largest message of a socket that has not joined: a hello with all its fields fits many times,
/// and strangers cannot make the broker hold more. Clients are known to have been answered
/// `no_hello` on messages of 70 kB.
pub(super) const HELLO_BYTES_MAX: usize = 128 * 1024;

/// The shared read buffer of a loop; also how much of one socket is read before the others get
/// their turn.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Batches of rows that a start may have read before a loop has made leases of them.
pub(super) const BOOT_BATCHES: usize = 4;

/// Sockets served in one turn, which end together: what they make the loop write goes out then.
pub(super) const POLLED_PER_TURN: usize = 64;

/// Shortest time bytes sent may stay unacknowledged before the kernel gives the connection up;
/// otherwise the core's patience with a silent client.
pub(super) const UNACKED_MIN: Millis = Millis::secs(10);

/// How long a closed socket may take to read its close frame and end the connection.
pub(super) const LINGER: Millis = Millis::secs(2);

/// Bytes gathered for one socket before they are written although its turn goes on.
pub(super) const FLUSH_BYTES: usize = 128 * 1024;

/// Outbound queues kept for reuse, and sockets queued for in one turn before they are written to
/// although it goes on.
pub(super) const POOLED_QUEUES: usize = 1024;

/// Room for effects kept from one step of the core to the next; a broadcast to a large mesh fits.
pub(super) const EFFECTS_KEPT: usize = 4096;

/// Send buffer asked of the kernel for each socket, which takes twice as much for what it keeps
/// beside the bytes. That, [`OUTBOUND_BYTES_MAX`] and two frames, the one whose turn it is and a large
/// one behind it, bound what a client costs that has stopped reading.
pub(super) const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Connections the kernel completes while a loop is busy; a storm of reconnects fits.
pub(super) const BACKLOG: i32 = 4096;

/// How long accepting pauses when no descriptor is left and none frees on this loop.
pub(super) const ACCEPT_RETRY: Millis = Millis(100);

/// Connections accepted in a row before the loop does something else: several times as many as
/// sockets are served in a turn, each of which is served more than once before its session is back.
/// In a storm the kernel's queue must not overflow, which costs a client seconds.
pub(super) const ACCEPTS_PER_TURN: usize = 512;

/// Shortest time between two log lines that say that descriptors have run out.
pub(super) const ACCEPT_WARNING: Millis = Millis::secs(60);

/// Descriptors kept back for the database, administrators, and the process itself.
pub(super) const RESERVED_DESCRIPTORS: u64 = 32;

/// Descriptors kept back for each loop: its listener, its bell, its set of sockets, its ring.
pub(super) const RESERVED_PER_LOOP: u64 = 8;

/// Source addresses and hook keys remembered by one limiter.
pub(super) const LIMITER_KEYS_MAX: usize = 16 * 1024;

/// How often a full limiter looks for buckets to forget.
pub(super) const LIMITER_SWEEP: Millis = Millis::secs(1);

/// Hook requests of one process and directory at once, and per minute (protocol.md §2.3).
pub(super) const HOOK_BURST: u32 = 30;

/// See [`HOOK_BURST`].
pub(super) const HOOK_PER_MINUTE: u32 = 30;

/// Messages waiting in a loop's lane; what each sender does beyond it is said at its variant.
pub(super) const LANE_MESSAGES_MAX: usize = 65_536;

/// A timer later than this has not been slow but stopped, with the process or the machine.
pub(super) const STALL: Millis = Millis(500);

/// After a stall: time for what has come meanwhile to be read, before clients are judged by it.
pub(super) const CATCH_UP: Millis = Millis(50);

/// How often that time is given while the loop is still busy reading.
pub(super) const CATCH_UPS_MAX: u32 = 10;

/// How long a question to the loops may take.
pub(super) const ASK_TIMEOUT: Millis = Millis::secs(5);

/// How long an HTTP request may wait for the store; the clients wait for 10 s (clients.md §4).
pub(super) const CLERK_TIMEOUT: Millis = Millis::secs(8);

/// HTTP requests that wait for the store; a further one is told to come again.
pub(super) const ERRANDS_MAX: usize = 256;

/// At shutdown: how long answers of the store are awaited before sockets close.
pub(super) const DRAIN_FLUSH: Millis = Millis(500);

/// At shutdown: sockets close spread over this, since clients have no jitter of their own.
pub(super) const DRAIN_SPREAD: Millis = Millis(1000);

/// Steps of the spread.
pub(super) const DRAIN_STEP: Millis = Millis(20);

/// Sockets that close at once all the same.
pub(super) const DRAIN_AT_ONCE: usize = 64;

const _: () = assert!(FLUSH_BYTES < OUTBOUND_BYTES_MAX);
const _: () = assert!(HTTP_OUTBOUND_BYTES_MAX < OUTBOUND_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX < READ_BYTES);
const _: () = assert!(DRAIN_STEP.0 < DRAIN_SPREAD.0);
