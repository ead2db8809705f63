//! The driver's clock; the session itself is told the time.

use std::time::{Duration, Instant, SystemTime};

use crate::core::time::{Millis, Mono, Now, Wall};

/// Both clocks, the monotonic one from when this was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the client's own clock")]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what the client puts into what it signs"
    )]
    pub(super) fn now(self) -> Now {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono: Mono(Millis::from(self.0.elapsed()).0),
            wall: Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// From now until `deadline`; zero if it has passed.
    pub(super) fn until(self, deadline: Mono) -> Duration {
        // A deadline is a whole millisecond; up to one too late is better than a turn too early.
        let at = Duration::from_millis(deadline.0.saturating_add(1));
        at.saturating_sub(self.0.elapsed())
    }
}
