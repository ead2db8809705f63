//! Whether the wall clock may be believed when it says that a message is too old.
//!
//! A clock that is set wrong for an hour must not delete a week of mail. So the wall clock is held
//! against the monotonic one, and after a jump undelivered messages are kept a while longer.

use std::time::Instant;

use crate::core::time::{Millis, Mono, Wall};

/// A jump worth distrust: more than clocks are adjusted by, little for a retention of days.
const JUMP: Millis = Millis::secs(600);

/// How long nothing undelivered expires after a jump: time for people to set the clock right.
const DISTRUST: Millis = Millis::secs(24 * 3600);

/// The monotonic clock. It only measures spans for retention; nothing that peers see is decided
/// by it.
pub(super) struct Steady(Instant);

impl Steady {
    #[expect(
        clippy::disallowed_methods,
        reason = "the store's housekeeper has no loop that could tell it the time"
    )]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Mono {
        Mono(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Both clocks at one moment, and what followed from later ones.
#[derive(Debug)]
pub(super) struct Trust {
    base: (Wall, Mono),
    doubted_until: Option<Mono>,
}

impl Trust {
    pub(super) fn new(wall: Wall, mono: Mono) -> Self {
        Self {
            base: (wall, mono),
            doubted_until: None,
        }
    }

    /// Holds one clock against the other; whether the wall clock may be believed.
    pub(super) fn look(&mut self, wall: Wall, mono: Mono) -> bool {
        let (base_wall, base_mono) = self.base;
        let expected = base_wall.after(mono.since(base_mono));
        let jumped_by = wall.0.abs_diff(expected.0);
        if jumped_by > JUMP.0 {
            tracing::warn!(
                seconds = jumped_by / 1000,
                "the wall clock jumped; undelivered messages do not expire for a day"
            );
            self.base = (wall, mono);
            self.doubted_until = Some(mono.after(DISTRUST));
        }
        self.doubted_until.is_none_or(|until| mono >= until)
    }
}
