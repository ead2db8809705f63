//! Events become counters and log lines: the only caller of `tracing` for what the core and the
//! sockets report. No payloads; names are cut short.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::websocket::Violation;
use crate::core::event::{Event, LeaseEnd};
use crate::core::ids::{ConnId, PeerHandle};

/// A count that only rises. Written by one loop, read by whoever renders metrics.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by label. The labels are literals, so their number is bounded.
#[derive(Debug, Default)]
pub(super) struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    fn add(&self, label: &'static str, n: u64) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(label)
            .or_default() += n;
    }

    /// Adds what is counted here to `sum`.
    pub(super) fn add_to(&self, sum: &mut BTreeMap<&'static str, u64>) {
        for (label, n) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *sum.entry(label).or_default() += n;
        }
    }
}

/// Everything counted on one loop.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) upgraded: Count,
    pub(super) refused: Labelled,
    pub(super) routed: Labelled,
    pub(super) send_refused: Labelled,
    pub(super) grant_denied: Labelled,
    pub(super) status_expired: Count,
    pub(super) hooks: Count,
    pub(super) hooks_limited: Count,
    pub(super) leases_began: Count,
    pub(super) leases_ended: Labelled,
    pub(super) reattached: Labelled,
    pub(super) grace_began: Count,
    pub(super) stale: Labelled,
    pub(super) silent: Count,
    pub(super) conflicts: Count,
    pub(super) truncated: Count,
    pub(super) send_repeated: Count,
    pub(super) resumed: Labelled,
    pub(super) watched: Labelled,
    pub(super) store_refused: Count,
    pub(super) violations: Labelled,
    pub(super) slow_consumers: Count,
    pub(super) handoffs_lost: Count,
    pub(super) accepted: Count,
    pub(super) source_limited: Count,
    pub(super) accept_paused: Count,
}

/// Counts one event of the core, and says it at the level it deserves.
pub(super) fn observe(counters: &Counters, event: &Event) {
    match event {
        Event::LeaseBegan {
            peer, presence_id, ..
        } => {
            counters.leases_began.add(1);
            lease(*peer, presence_id, "lease began");
        }
        Event::Reattached {
            peer,
            presence_id,
            takeover,
        } => {
            counters
                .reattached
                .add(if *takeover { "takeover" } else { "grace" }, 1);
            lease(*peer, presence_id, "reattached");
        }
        Event::GraceBegan { peer, presence_id } => {
            counters.grace_began.add(1);
            lease(*peer, presence_id, "grace began");
        }
        Event::LeaseEnded {
            peer,
            presence_id,
            why,
        } => {
            counters.leases_ended.add(lease_end(*why), 1);
            lease(*peer, presence_id, lease_end(*why));
        }
        Event::HelloRefused { conn, reason } => {
            counters.refused.add(reason, 1);
            tracing::debug!(slot = conn.slot, reason, "hello refused");
        }
        Event::Stale { conn, what } => {
            counters.stale.add(what, 1);
            tracing::trace!(slot = conn.slot, what, "stale");
        }
        Event::Routed {
            priority,
            recipients,
        } => counters.routed.add(priority.name(), *recipients),
        Event::SendRefused { reason } => counters.send_refused.add(reason, 1),
        Event::ReplayTruncated { peer } => {
            counters.truncated.add(1);
            tracing::debug!(slot = peer.slot, "came back to less than it missed");
        }
        Event::Resumed { result } => counters.resumed.add(result, 1),
        Event::SendRepeated => counters.send_repeated.add(1),
        Event::GrantDenied { cap } => counters.grant_denied.add(cap, 1),
        Event::StatusExpired => counters.status_expired.add(1),
        Event::Silent { peer } => {
            counters.silent.add(1);
            tracing::debug!(peer = peer.slot, "silent for too long");
        }
        Event::Conflict { peer } => {
            counters.conflicts.add(1);
            tracing::info!(peer = peer.slot, "two hosts use one session key");
        }
        Event::StoreRefused => {
            counters.store_refused.add(1);
            tracing::warn!("the store refused an operation nobody waited for");
        }
        Event::Watched { result } => counters.watched.add(result, 1),
        // Counted where the request came in, whatever became of it.
        Event::Hook => tracing::trace!("status hook applied"),
    }
}

fn lease(peer: PeerHandle, presence_id: &str, what: &str) {
    let presence = short(presence_id);
    tracing::debug!(
        peer = peer.slot,
        generation = peer.generation,
        presence,
        "{what}"
    );
}

fn lease_end(why: LeaseEnd) -> &'static str {
    match why {
        LeaseEnd::Expired => "expired",
        LeaseEnd::Goodbye => "goodbye",
        LeaseEnd::Kicked => "kicked",
        LeaseEnd::Disconnected => "disconnected",
        LeaseEnd::Banned => "banned",
        LeaseEnd::Replaced => "replaced",
    }
}

/// Enough of an id to find its neighbours in a log.
fn short(id: &str) -> &str {
    let end = id.char_indices().nth(8).map_or(id.len(), |(at, _)| at);
    &id[..end]
}

/// A WebSocket upgrade was answered.
pub(super) fn upgraded(counters: &Counters) {
    counters.upgraded.add(1);
}

/// A connection was accepted.
pub(super) fn accepted(counters: &Counters) {
    counters.accepted.add(1);
}

/// A connection was refused for the rate of its source.
pub(super) fn source_limited(counters: &Counters) {
    counters.source_limited.add(1);
}

/// Accepting pauses for want of descriptors; `loud` unless that has just been said.
pub(super) fn accept_paused(counters: &Counters, loud: bool) {
    counters.accept_paused.add(1);
    if loud {
        tracing::warn!("no descriptor left: accepting pauses until one frees");
    }
}

/// A client broke RFC 6455.
pub(super) fn violation(counters: &Counters, conn: ConnId, violation: Violation) {
    counters.violations.add(violation.reason, 1);
    tracing::debug!(
        slot = conn.slot,
        code = violation.code,
        reason = violation.reason,
        "protocol violation"
    );
}

/// A client did not read.
pub(super) fn slow_consumer(counters: &Counters, conn: ConnId) {
    counters.slow_consumers.add(1);
    tracing::debug!(slot = conn.slot, "slow consumer closed");
}

/// A socket takes nothing any more, for a reason of the system.
pub(super) fn write_failed(conn: ConnId, errno: Errno) {
    tracing::debug!(slot = conn.slot, %errno, "write failed");
}

/// The kernel does not watch a socket for us.
pub(super) fn unwatched(error: &std::io::Error) {
    tracing::warn!(%error, "a connection was dropped: see fs.epoll.max_user_watches");
}

/// A socket did not reach its home loop.
pub(super) fn handoff_lost(counters: &Counters) {
    counters.handoffs_lost.add(1);
    tracing::debug!("handoff lost");
}

/// A status hook came in.
pub(super) fn hook(counters: &Counters) {
    counters.hooks.add(1);
}

/// A status hook was over its rate.
pub(super) fn hook_limited(counters: &Counters) {
    counters.hooks_limited.add(1);
}
