//! What a scraper sees.

use super::*;
use crate::core::event::Event;
use crate::core::rows::Priority;
use crate::shell::observe;

fn page(counters: &[Counters]) -> String {
    render(&Snapshot {
        counters,
        gauges: Gauges {
            online: 2,
            grace: 1,
            queued: 7,
            greeting: 0,
        },
        health: None,
        sockets: 4,
        lanes: 0,
        uptime_seconds: 12,
        driver: "epoll",
    })
}

#[test]
fn what_never_moved_prints_one_line_and_everything_is_typed() {
    let page = page(&[Counters::default()]);
    for name in [
        "broker_connections_total",
        "broker_connections_rejected_total",
        "broker_messages_routed_total",
        "broker_messages_rejected_total",
        "broker_messages_dropped_by_grant_total",
        "broker_legacy_auth_hits_total",
        "broker_ttl_sweeps_total",
        "broker_hook_requests_total",
        "broker_hook_requests_rate_limited_total",
        "broker_db_healthy",
    ] {
        assert!(
            page.lines().any(|line| line == format!("{name} 0")),
            "{name}"
        );
    }
    assert!(page.contains("\nbroker_connections_active 3\n"));
    assert!(page.contains("\nbroker_queue_depth 7\n"));
    let mut families = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(families.last(), Some(&name), "{line} is not under its TYPE");
        }
    }
    let mut unique = families.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), families.len());
}

#[test]
fn loops_are_summed_by_label() {
    let loops = [Counters::default(), Counters::default()];
    for (counters, recipients) in loops.iter().zip([3, 4]) {
        let event = Event::Routed {
            priority: Priority::Next,
            recipients,
        };
        observe::observe(counters, &event);
        observe::observe(
            counters,
            &Event::SendRefused {
                reason: "rate_limit",
            },
        );
        observe::observe(counters, &Event::StatusExpired);
    }
    let page = page(&loops);
    assert!(page.contains("broker_messages_routed_total{priority=\"next\"} 7\n"));
    assert!(page.contains("broker_messages_rejected_total{reason=\"rate_limit\"} 2\n"));
    assert!(page.contains("broker_ttl_sweeps_total{flipped=\"1\"} 2\n"));
    assert!(!page.contains("broker_messages_routed_total 0"));
}
