//! `GET /metrics`: Prometheus text. The first table is the original's (protocol.md §2.2), name by
//! name; what is ours begins with `holdfast_`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::observe::{Count, Counters, Labelled};
use crate::core::input::Gauges;
use crate::store::{Health, HealthState};

/// What the page is made of.
pub(super) struct Snapshot<'a> {
    pub(super) counters: &'a [Counters],
    /// The sum over all shards.
    pub(super) gauges: Gauges,
    pub(super) health: Option<Health>,
    pub(super) sockets: u64,
    /// Messages waiting in the lanes.
    pub(super) lanes: u64,
    pub(super) uptime_seconds: u64,
    /// `io_uring` or `epoll`.
    pub(super) driver: &'static str,
}

/// One name on the page.
struct Family(&'static str, &'static str, Source);

/// Where its value comes from.
enum Source {
    /// A counter summed over the loops.
    Count(fn(&Counters) -> &Count),
    /// The same by a label.
    By(&'static str, fn(&Counters) -> &Labelled),
    /// A counter kept elsewhere.
    Total(fn(&Snapshot<'_>) -> u64),
    Gauge(fn(&Snapshot<'_>) -> u64),
    /// Sweeps by how many statuses each flipped: here each status runs out by itself.
    Sweeps(fn(&Counters) -> &Count),
}

use Source::{By, Gauge, Sweeps, Total};

const ORIGINAL: &[Family] = &[
    Family(
        "broker_connections_total",
        "WebSocket upgrades.",
        Source::Count(|c| &c.upgraded),
    ),
    Family(
        "broker_connections_rejected_total",
        "Hellos refused.",
        By("reason", |c| &c.refused),
    ),
    Family(
        "broker_connections_active",
        "Sessions present, online or in grace.",
        Gauge(|s| s.gauges.online + s.gauges.grace),
    ),
    Family(
        "broker_messages_routed_total",
        "Pushes.",
        By("priority", |c| &c.routed),
    ),
    Family(
        "broker_messages_rejected_total",
        "Sends refused.",
        By("reason", |c| &c.send_refused),
    ),
    Family(
        "broker_messages_dropped_by_grant_total",
        "Recipients skipped for want of a grant.",
        By("cap", |c| &c.grant_denied),
    ),
    Family(
        "broker_legacy_auth_hits_total",
        "Hellos in the legacy form.",
        Total(|_| 0),
    ),
    Family(
        "broker_queue_depth",
        "Direct messages that no recipient has confirmed.",
        Gauge(|s| s.gauges.queued),
    ),
    Family(
        "broker_ttl_sweeps_total",
        "Sweeps of statuses that ran out, by how many did.",
        Sweeps(|c| &c.status_expired),
    ),
    Family(
        "broker_hook_requests_total",
        "Status hooks.",
        Source::Count(|c| &c.hooks),
    ),
    Family(
        "broker_hook_requests_rate_limited_total",
        "Status hooks over their rate.",
        Source::Count(|c| &c.hooks_limited),
    ),
    Family(
        "broker_db_healthy",
        "Whether operations become durable.",
        Gauge(|s| {
            s.health
                .is_some_and(|health| health.state == HealthState::Up)
                .into()
        }),
    ),
];

const PRESENCE: &[Family] = &[
    Family(
        "holdfast_sessions_online",
        "Sessions with a socket.",
        Gauge(|s| s.gauges.online),
    ),
    Family(
        "holdfast_sessions_grace",
        "Sessions in grace.",
        Gauge(|s| s.gauges.grace),
    ),
    Family(
        "holdfast_greeting",
        "Sockets before their hello.",
        Gauge(|s| s.gauges.greeting),
    ),
    Family(
        "holdfast_leases_began_total",
        "Leases begun.",
        Source::Count(|c| &c.leases_began),
    ),
    Family(
        "holdfast_leases_ended_total",
        "Leases ended.",
        By("why", |c| &c.leases_ended),
    ),
    Family(
        "holdfast_reattached_total",
        "Sessions that got a socket back, from grace or from another socket.",
        By("from", |c| &c.reattached),
    ),
    Family(
        "holdfast_grace_began_total",
        "Sessions that lost their socket.",
        Source::Count(|c| &c.grace_began),
    ),
    Family(
        "holdfast_stale_events_total",
        "Events of a generation no longer attached, which changed nothing.",
        By("what", |c| &c.stale),
    ),
    Family(
        "holdfast_silent_total",
        "Sockets aborted for silence.",
        Source::Count(|c| &c.silent),
    ),
    Family(
        "holdfast_replays_truncated_total",
        "Reattaches to less than was missed, since the mesh's log no longer had it.",
        Source::Count(|c| &c.truncated),
    ),
    Family(
        "holdfast_sends_repeated_total",
        "Sends made again, which got the answer of the first time.",
        Source::Count(|c| &c.send_repeated),
    ),
    Family(
        "holdfast_resume_tokens_total",
        "Resume tokens presented; what was not accepted went through the full handshake.",
        By("result", |c| &c.resumed),
    ),
    Family(
        "holdfast_watch_checks_total",
        "Checks of URL watches: what they found, or why they found nothing.",
        By("result", |c| &c.watched),
    ),
    Family(
        "holdfast_conflicts_total",
        "Newcomers refused because the incumbent still answers.",
        Source::Count(|c| &c.conflicts),
    ),
];

const MACHINERY: &[Family] = &[
    Family(
        "holdfast_sockets",
        "Open connections, HTTP included.",
        Gauge(|s| s.sockets),
    ),
    Family(
        "holdfast_accepted_total",
        "Connections accepted.",
        Source::Count(|c| &c.accepted),
    ),
    Family(
        "holdfast_accept_paused_total",
        "Times accepting paused for want of descriptors.",
        Source::Count(|c| &c.accept_paused),
    ),
    Family(
        "holdfast_source_limited_total",
        "Connections refused for the rate of their source.",
        Source::Count(|c| &c.source_limited),
    ),
    Family(
        "holdfast_protocol_violations_total",
        "Sockets closed for breaking RFC 6455.",
        By("reason", |c| &c.violations),
    ),
    Family(
        "holdfast_slow_consumers_total",
        "Sockets closed because their client did not read.",
        Source::Count(|c| &c.slow_consumers),
    ),
    Family(
        "holdfast_handoffs_lost_total",
        "Sockets lost between loops.",
        Source::Count(|c| &c.handoffs_lost),
    ),
    Family(
        "holdfast_lane_messages",
        "Messages between loops that wait.",
        Gauge(|s| s.lanes),
    ),
    Family(
        "holdfast_store_queue",
        "Operations that wait.",
        Gauge(|s| s.store(|h| h.queued as u64)),
    ),
    Family(
        "holdfast_store_undelivered",
        "Undelivered messages on disk.",
        Gauge(|s| s.store(|h| h.undelivered)),
    ),
    Family(
        "holdfast_store_wal_bytes",
        "Length of the database's -wal file.",
        Gauge(|s| s.store(|h| h.wal_bytes)),
    ),
    Family(
        "holdfast_store_commits_total",
        "Transactions.",
        Total(|s| s.store(|h| h.commits)),
    ),
    Family(
        "holdfast_store_ops_total",
        "Operations in them.",
        Total(|s| s.store(|h| h.committed_ops)),
    ),
    Family(
        "holdfast_store_dropped_total",
        "Operations lost.",
        Total(|s| s.store(|h| h.dropped)),
    ),
    Family(
        "holdfast_store_refused_total",
        "Operations nobody waited for that were refused.",
        Source::Count(|c| &c.store_refused),
    ),
    Family(
        "holdfast_uptime_seconds",
        "Age of the process.",
        Gauge(|s| s.uptime_seconds),
    ),
];

impl Snapshot<'_> {
    fn store(&self, value: fn(&Health) -> u64) -> u64 {
        self.health.as_ref().map_or(0, value)
    }

    fn sum(&self, pick: fn(&Counters) -> &Count) -> u64 {
        self.counters
            .iter()
            .map(|counters| pick(counters).get())
            .sum()
    }

    fn by(&self, pick: fn(&Counters) -> &Labelled) -> BTreeMap<&'static str, u64> {
        let mut sum = BTreeMap::new();
        for counters in self.counters {
            pick(counters).add_to(&mut sum);
        }
        sum
    }
}

/// The page.
pub(super) fn render(snapshot: &Snapshot<'_>) -> String {
    let mut page = String::with_capacity(8 * 1024);
    for family in [ORIGINAL, PRESENCE, MACHINERY].into_iter().flatten() {
        // Writing to a String cannot fail.
        family.write(&mut page, snapshot).ok();
    }
    let version = env!("CARGO_PKG_VERSION");
    let labels = format!("{{version=\"{version}\",driver=\"{}\"}}", snapshot.driver);
    header(&mut page, "holdfast_build_info", "gauge", "What runs.").ok();
    writeln!(page, "holdfast_build_info{labels} 1").ok();
    page
}

fn header(page: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

impl Family {
    fn write(&self, page: &mut String, snapshot: &Snapshot<'_>) -> std::fmt::Result {
        let Self(name, help, source) = self;
        let kind = if matches!(source, Gauge(_)) {
            "gauge"
        } else {
            "counter"
        };
        header(page, name, kind, help)?;
        match source {
            Source::Count(pick) => writeln!(page, "{name} {}", snapshot.sum(*pick)),
            Gauge(value) | Total(value) => writeln!(page, "{name} {}", value(snapshot)),
            By(label, pick) => series(page, name, label, &snapshot.by(*pick)),
            Sweeps(pick) => {
                let flips = snapshot.sum(*pick);
                let flipped = (flips > 0).then_some(("1", flips)).into_iter().collect();
                series(page, name, "flipped", &flipped)
            }
        }
    }
}

/// One line per label, or one line without any if nothing has been counted.
fn series(
    page: &mut String,
    name: &str,
    label: &str,
    by: &BTreeMap<&'static str, u64>,
) -> std::fmt::Result {
    if by.is_empty() {
        return writeln!(page, "{name} 0");
    }
    by.iter()
        .try_for_each(|(value, n)| writeln!(page, "{name}{{{label}=\"{value}\"}} {n}"))
}

#[cfg(test)]
mod tests;
