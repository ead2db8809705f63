//! The time that commands measure and print. The broker's own clock is `shell/clock.rs`; nothing
//! read here decides about a session.

use std::time::{Duration, Instant, SystemTime};

use crate::core::time::Wall;

/// Time since a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "measures for people, decides nothing"
    )]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// What is shown as the date.
#[expect(
    clippy::disallowed_methods,
    reason = "shown to people; doctor judges it"
)]
pub(super) fn wall_now() -> Wall {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
