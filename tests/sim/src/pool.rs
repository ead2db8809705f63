//! Many seeds on many threads.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::oracle::Violation;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::{Outcome, run};

/// Which seeds, and for how long.
pub(crate) struct Budget {
    pub(crate) start: u64,
    pub(crate) seeds: u64,
    pub(crate) time: Option<Duration>,
    pub(crate) jobs: usize,
    pub(crate) twice: bool,
    pub(crate) quiet: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long runs take is no part of them"
)]
fn now() -> Instant {
    Instant::now()
}

/// Runs until the budget is spent or an invariant broke.
pub(crate) fn run_all(budget: &Budget) -> Report {
    let begun = now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Report::default(), Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..budget.jobs {
            scope.spawn(|| work(budget, begun, (&next, &stop), &total));
        }
    });
    let mut report = total
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .0;
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

fn work(
    budget: &Budget,
    begun: Instant,
    (next, stop): (&AtomicU64, &AtomicBool),
    total: &Mutex<(Report, Duration)>,
) {
    while !stop.load(Ordering::Relaxed) {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= budget.seeds || budget.time.is_some_and(|time| begun.elapsed() > time) {
            return;
        }
        let seed = budget.start.wrapping_add(index);
        let outcome = run_seed(seed, budget.twice);
        if outcome.violation.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        let mut total = total
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (report, said) = &mut *total;
        report.add(seed, outcome);
        let elapsed = begun.elapsed();
        if !budget.quiet && elapsed > *said + Duration::from_secs(5) {
            *said = elapsed;
            report.seconds = elapsed.as_secs_f64();
            eprintln!("{}", report.progress());
        }
    }
}

fn run_seed(seed: u64, twice: bool) -> Outcome {
    let plan = Rc::new(Plan::draw(seed));
    let mut outcome = run(&plan, false);
    if twice && outcome.violation.is_none() {
        let second = run(&plan, false);
        if second.hash != outcome.hash {
            let text = format!("hash {:016x}, then {:016x}", outcome.hash, second.hash);
            outcome.violation = Some(Violation::new("determinism", text));
        }
    }
    outcome
}
