//! The only reader of clocks. Everything else is given the time.

use std::time::{Instant, SystemTime};

use crate::core::time::{Mono, Now, Wall};

/// Both clocks, with one origin for all loops of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic side begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where time is read"
    )]
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// This moment.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where time is read"
    )]
    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            });
        Now {
            mono: self.mono(),
            wall: Wall(wall),
        }
    }

    /// This moment on the monotonic side.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where time is read"
    )]
    pub(crate) fn mono(self) -> Mono {
        let since = Instant::now().saturating_duration_since(self.origin);
        Mono(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
