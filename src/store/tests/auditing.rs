//! The audit log read back.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one answer among many"
)]

use super::*;
use crate::core::rows::{Chain, RecordAnswer, RecordAsk};

#[test]
fn the_audit_log_is_read_by_pages_and_verified() {
    let world = World::new();
    for event in ["peer_joined", "message_sent", "peer_left", "message_sent"] {
        world.persist(world.audit(event));
    }
    let page = |event_type: Option<&str>, limit, offset| match world.ask(RecordAsk::AuditPage {
        event_type: event_type.map(str::to_owned),
        limit,
        offset,
    }) {
        RecordAnswer::Audit(page) => {
            let ids: Vec<i64> = page.entries.iter().map(|entry| entry.id).collect();
            (ids, page.total)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(page(None, 2, 1), (vec![3, 2], 4));
    assert_eq!(page(None, 9, 4), (vec![], 4));
    assert_eq!(page(Some("message_sent"), 9, 0), (vec![4, 2], 2));
    assert_eq!(page(Some("message_sent"), 1, 1), (vec![2], 2));
    assert_eq!(page(Some("' OR 1=1 --"), 9, 0), (vec![], 0));
    let verify = || match world.ask(RecordAsk::AuditVerify) {
        RecordAnswer::Chain(chain) => chain,
        other => panic!("{other:?}"),
    };
    let whole = Chain {
        entries: 4,
        broken_at: None,
    };
    assert_eq!(verify(), whole);
    for (tampering, broken) in [
        ("UPDATE audit_log SET payload = '{\"a\":1}' WHERE id = 3", 3),
        ("UPDATE audit_log SET payload = '{' WHERE id = 2", 2),
        ("DELETE FROM audit_log WHERE id = 1", 2),
    ] {
        world.disk().execute(tampering, []).unwrap();
        assert_eq!(verify().broken_at, Some(broken), "{tampering}");
    }
}

#[test]
fn a_chain_longer_than_a_step_is_verified() {
    let world = World::new();
    for _ in 0..9_000 {
        world.client.persist(world.audit("peer_left"), None);
    }
    world.give(RecordAsk::AuditVerify, 1);
    // What is asked meanwhile does not wait for it.
    world.give(RecordAsk::Tally, 2);
    let mut answers = [world.answer(), world.answer()];
    answers.sort_by_key(|it| matches!(it, Ok(StoreAnswer::Records(RecordAnswer::Chain(_)))));
    let chain = Chain {
        entries: 9_000,
        broken_at: None,
    };
    assert!(
        matches!(&answers[1], Ok(StoreAnswer::Records(RecordAnswer::Chain(found))) if *found == chain),
        "{answers:?}"
    );
}
