//! The two clocks, as values. Nothing here reads one: the caller passes [`Now`] in.
//!
//! [`Mono`] decides (leases, timers, liveness); [`Wall`] is for what people read, for what is
//! signed, and for what must mean something after a restart.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Monotonic time in milliseconds since an origin the shell chose. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Unix time in milliseconds. May step either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// The moment of one call into the core, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Decides.
    pub mono: Mono,
    /// Is shown, signed and stored.
    pub wall: Wall,
}

impl Now {
    /// What the wall clock said at an earlier monotonic moment, as far as it ran evenly since.
    #[must_use]
    pub fn wall_at(self, earlier: Mono) -> Wall {
        let ago = i64::try_from(self.mono.since(earlier).0).unwrap_or(i64::MAX);
        Wall(self.wall.0.saturating_sub(ago))
    }
}

impl Mono {
    /// This moment plus `span`, saturating.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// This moment plus `span`, saturating.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)),
        )
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Millis {
    /// Whole seconds as milliseconds.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
}

impl From<Duration> for Millis {
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A span of at most 49 days, in half the room; a longer one counts as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortSpan(u32);

impl From<Millis> for ShortSpan {
    fn from(span: Millis) -> Self {
        Self(u32::try_from(span.0).unwrap_or(u32::MAX))
    }
}

impl From<ShortSpan> for Millis {
    fn from(span: ShortSpan) -> Self {
        Self(span.0.into())
    }
}

/// The end of something that may have none; no larger than a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Until(Wall);

impl Until {
    const NEVER: Self = Self(Wall(i64::MAX));

    /// The end, if there is one.
    pub(crate) fn end(self) -> Option<Wall> {
        (self != Self::NEVER).then_some(self.0)
    }
}

impl From<Option<Wall>> for Until {
    fn from(end: Option<Wall>) -> Self {
        end.map_or(Self::NEVER, Self)
    }
}

/// ISO-8601 UTC with milliseconds and `Z`, as every timestamp on the wire (protocol.md §1).
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 9999-12-31T23:59:59.999Z: the last moment the format can say.
        let millis = u64::try_from(self.0.clamp(0, 253_402_300_799_999)).unwrap_or(0);
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        write!(f, "{}", humantime::format_rfc3339_millis(moment))
    }
}

impl serde::Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_prints_as_the_wire_wants_it() {
        assert_eq!(
            Wall(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(Wall(-5).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn differences_never_go_below_zero() {
        assert_eq!(Mono(5).since(Mono(9)), Millis(0));
        assert_eq!(Wall(5).since(Wall(9)), Millis(0));
        assert_eq!(Mono(u64::MAX).after(Millis(1)), Mono(u64::MAX));
    }
}
