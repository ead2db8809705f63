//! What is counted, and what of it must be nothing.

use crate::report::Check;

/// Acknowledged messages that did not arrive.
pub const LOST: &str = "lost messages";
/// Joins and leaves that somebody was told of when nobody joined or left.
pub const FLAPS: &str = "flaps";
/// Refusals, errors, and frames that cannot be read.
pub const ERRORS: &str = "protocol errors";
/// Messages of one sender that came in another order than they were sent.
pub const DISORDER: &str = "out of order";
/// Sessions whose lease was gone when they came back.
pub const NEW_LEASES: &str = "lost leases";

/// What must not happen, as it is counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    checks: Vec<Check>,
}

impl Tally {
    /// Counts one of these.
    pub fn add(&mut self, name: &str, example: impl FnOnce() -> String) {
        self.add_many(name, 1, example);
    }

    /// Counts so many, perhaps none.
    pub fn add_many(&mut self, name: &str, count: u64, example: impl FnOnce() -> String) {
        let at = self.checks.iter().position(|check| check.name == name);
        let at = at.unwrap_or_else(|| {
            self.checks.push(Check {
                name: name.to_owned(),
                count: 0,
                example: None,
            });
            self.checks.len() - 1
        });
        if let Some(check) = self.checks.get_mut(at).filter(|_| count > 0) {
            check.count += count;
            check.example.get_or_insert_with(example);
        }
    }

    /// All that was counted, also what did not happen.
    pub fn checks(&self) -> Vec<Check> {
        self.checks.clone()
    }
}

/// What happened how often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Hellos accepted.
    pub welcomed: u64,
    /// Of which an existing lease was found.
    pub reattached: u64,
    /// Of which the log did not hold everything.
    pub truncated: u64,
    /// News of peers.
    pub peer_events: u64,
    /// Messages received for the first time.
    pub received: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Connections lost.
    pub lost: u64,
    /// `hello_ack` after more than [`super::PATIENCE`].
    pub late: u64,
}
