//! What a start of the broker grants to the leases it finds (design.md §6).

use super::PresenceRow;
use crate::ids::Position;
use crate::limits::{BOOT_EPOCHS_MAX, Config, grace_within};
use crate::time::{Millis, Wall};

/// What one start grants. It is written down once, when every row has become a lease: the rows stay
/// as they are, and what became of them is worked out by the start after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When.
    pub at: Wall,
    /// How long a session stays that asked for nothing …
    pub grace: Millis,
    /// … and at most.
    pub max_grace: Millis,
    /// How long a lease stays at least, unless it has been extended too often.
    pub restart_grace: Millis,
    /// Everything that was told before.
    pub heard: Position,
}

impl Restart {
    /// A start with that configuration, then and there.
    #[must_use]
    pub fn new(config: &Config, at: Wall, heard: Position) -> Self {
        Self {
            at,
            grace: config.grace,
            max_grace: config.max_grace,
            restart_grace: config.restart_grace,
            heard,
        }
    }

    /// A lease that nobody claims is not extended for ever. Starts that ended before they could
    /// write it down have not extended it.
    #[must_use]
    pub fn extends(row: &PresenceRow) -> bool {
        let never = row.lease_until.is_none();
        never || row.boot_epochs <= BOOT_EPOCHS_MAX
    }

    /// How long the lease of that row stays from then on; its `boot_epochs` count this start.
    #[must_use]
    pub fn left(&self, row: &PresenceRow) -> Millis {
        // No lease has more left than it was given, whatever became of the clock.
        let given = grace_within(row.grace, self.grace, self.max_grace);
        let remaining = row
            .lease_until
            .map_or(Millis(0), |until| until.since(self.at))
            .min(given);
        if Self::extends(row) {
            remaining.max(self.restart_grace)
        } else {
            remaining
        }
    }

    /// What the row says after that start, if nobody has come back.
    pub fn note(&self, row: &mut PresenceRow) {
        let until = self.at.after(self.left(row));
        // Who was online has heard all that was told before.
        if row.lease_until.replace(until).is_none() {
            (row.heard, row.known) = (self.heard, self.heard);
        }
    }
}
