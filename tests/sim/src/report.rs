//! What many runs came to.

use std::fmt;

use holdfast_core::marks::Mark;

use crate::oracle::Violation;
use crate::run::Outcome;

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) time: u64,
    pub(crate) violation: Violation,
}

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) seconds: f64,
    sums: Sums,
    marks: u128,
    /// The failed run with the lowest seed.
    pub(crate) failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    steps: u64,
    virtual_ms: u64,
    boots: u64,
    crashes: u64,
    handoffs: u64,
    leases: u64,
    reattached: u64,
    takeovers: u64,
    expired: u64,
    restored: u64,
    stale: u64,
    acked: u64,
    redelivered: u64,
    deferred: u64,
    dropped: u64,
    truncated: u64,
    late: u64,
    overtaken: u64,
}

impl Sums {
    fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("steps", self.steps),
            ("virtual ms", self.virtual_ms),
            ("boots", self.boots),
            ("crashes", self.crashes),
            ("handoffs", self.handoffs),
            ("leases", self.leases),
            ("reattaches", self.reattached),
            ("takeovers", self.takeovers),
            ("expired", self.expired),
            ("restored", self.restored),
            ("stale events", self.stale),
            ("messages acked", self.acked),
            ("redelivered", self.redelivered),
            ("deferred", self.deferred),
            ("logs cut", self.dropped),
            ("told so", self.truncated),
            ("news told late", self.late),
            ("news cut before late readers", self.overtaken),
        ]
    }
}

impl Report {
    /// Adds a run.
    pub(crate) fn add(&mut self, seed: u64, outcome: Outcome) {
        let Outcome {
            violation,
            stats,
            counts,
            marks,
            ..
        } = outcome;
        self.runs += 1;
        self.marks |= marks;
        let sums = &mut self.sums;
        sums.steps += stats.steps;
        sums.virtual_ms += stats.virtual_ms;
        sums.boots += stats.boots;
        sums.crashes += stats.crashes;
        sums.handoffs += stats.handoffs;
        sums.leases += counts.begun;
        sums.reattached += counts.reattached;
        sums.takeovers += counts.takeovers;
        sums.expired += counts.expired;
        sums.restored += counts.restored;
        sums.stale += counts.stale;
        sums.acked += counts.acked;
        sums.redelivered += counts.redelivered;
        sums.deferred += counts.deferred;
        sums.dropped += counts.dropped;
        sums.truncated += counts.truncated;
        sums.late += counts.late;
        sums.overtaken += counts.overtaken;
        if let Some(violation) = violation {
            let failure = Failure {
                seed,
                step: stats.steps,
                time: stats.virtual_ms,
                violation,
            };
            let lower = self.failure.as_ref().is_none_or(|other| seed < other.seed);
            if lower {
                self.failure = Some(failure);
            }
        }
    }

    /// Points of the core that no run reached.
    pub(crate) fn missing_marks(&self) -> Vec<Mark> {
        let reached = |index: usize| self.marks >> index & 1 == 1;
        Mark::ALL
            .iter()
            .enumerate()
            .filter(|(index, _)| !reached(*index))
            .map(|(_, mark)| *mark)
            .collect()
    }

    /// One line of progress.
    pub(crate) fn progress(&self) -> String {
        let total = Mark::ALL.len();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = self.runs as f64 / self.seconds.max(0.001);
        format!(
            "{} seeds, {rate:.0}/s, {} steps, {} reattaches, {} boots, {} of {total} marks",
            self.runs,
            self.sums.steps,
            self.sums.reattached,
            self.sums.boots,
            total - self.missing_marks().len(),
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut value = serde_json::json!({
            "seeds": self.runs,
            "seconds": self.seconds,
            "marksMissing": self.missing_marks().iter().map(|mark| format!("{mark:?}")).collect::<Vec<_>>(),
        });
        for (name, number) in self.sums.named() {
            value[name.replace(' ', "_")] = number.into();
        }
        if let Some(Failure {
            seed,
            step,
            violation,
            ..
        }) = &self.failure
        {
            value["failure"] = serde_json::json!({
                "seed": seed, "step": step, "invariant": violation.invariant, "text": violation.text,
            });
        }
        value
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {:.1} s", self.progress(), self.seconds)?;
        let sums = self.sums.named();
        let sums: Vec<String> = sums
            .iter()
            .map(|(name, number)| format!("{number} {name}"))
            .collect();
        writeln!(f, "  {}", sums.join(", "))?;
        let missing = self.missing_marks();
        if !missing.is_empty() {
            writeln!(f, "  marks not reached: {missing:?}")?;
        }
        Ok(())
    }
}
