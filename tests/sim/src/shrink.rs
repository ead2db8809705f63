//! Fewer operations that break the same invariant.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::plan::{Operation, Plan};
use crate::run::{Outcome, run};

#[expect(
    clippy::disallowed_methods,
    reason = "how long shrinking may take is no part of a run"
)]
fn now() -> Instant {
    Instant::now()
}

/// Leaves out operations, and then sessions' worth of them, while the same invariant breaks.
pub(crate) fn shrink(plan: &Plan, invariant: &str, budget: Duration) -> Plan {
    let end = now() + budget;
    let breaks = |operations: &[Operation]| {
        let plan = Plan {
            operations: operations.to_vec(),
            ..plan.clone()
        };
        let Outcome { violation, .. } = run(&Rc::new(plan), false);
        violation.is_some_and(|violation| violation.invariant == invariant)
    };
    let mut kept = plan.operations.clone();
    // Delta debugging: ever smaller parts are left out.
    let mut parts = 2;
    while kept.len() > 1 && now() < end {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for start in (0..kept.len()).step_by(size) {
            let mut rest = kept.clone();
            rest.drain(start..(start + size).min(kept.len()));
            if breaks(&rest) {
                smaller = Some(rest);
                break;
            }
            if now() >= end {
                break;
            }
        }
        match smaller {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    if breaks(&[]) {
        kept.clear();
    }
    Plan {
        operations: kept,
        ..plan.clone()
    }
}
