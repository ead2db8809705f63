//! How patient a session is, and how much it remembers.

use crate::core::time::Millis;

/// Times and bounds of a [`Session`](super::Session). Shared by all sessions that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When to try again after a lost or failed connection. `None`: only when told to
    /// ([`Command::Connect`](super::Command::Connect)).
    pub reconnect: Option<Backoff>,
    /// How long opening a socket may take, the WebSocket handshake included.
    pub connect_timeout: Millis,
    /// How long the broker may take to answer a hello.
    pub hello_timeout: Millis,
    /// Silence after which the broker is pinged. Longer than its own interval (30 s), so that of
    /// two silent ends only the broker pings.
    pub ping_after: Millis,
    /// Silence after which the connection counts as dead.
    pub watchdog: Millis,
    /// How long a goodbye waits for what is not acknowledged yet, and then for its answer.
    pub goodbye_timeout: Millis,
    /// Whether messages are confirmed with `client_ack`.
    pub confirm: bool,
    /// Whether resume tokens are used; without, each hello is signed and checked in full.
    pub resume: bool,
    /// How many of the newest pushes are remembered, so that each is told once.
    pub remembered: usize,
    /// How many sends may wait for their acknowledgement; one more is refused.
    pub unacknowledged: usize,
    /// How many bytes these may have together.
    pub unacknowledged_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reconnect: Some(Backoff::default()),
            connect_timeout: Millis::secs(5),
            hello_timeout: Millis::secs(5),
            ping_after: Millis::secs(45),
            watchdog: Millis::secs(75),
            goodbye_timeout: Millis::secs(5),
            confirm: true,
            resume: true,
            remembered: 4096,
            unacknowledged: 1024,
            unacknowledged_bytes: 16 << 20,
        }
    }
}

/// Exponential backoff with full jitter: before attempt `n` after a success, a random wait of at
/// most `first` times two to the `n`, and never more than `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Millis,
    /// The longest wait of all.
    pub max: Millis,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Millis::secs(1),
            max: Millis::secs(30),
        }
    }
}

impl Backoff {
    /// The longest wait after `failures` attempts in a row that came to nothing.
    #[must_use]
    pub fn ceiling(self, failures: u32) -> Millis {
        let factor = 1_u64.checked_shl(failures).unwrap_or(u64::MAX);
        Millis(self.first.0.saturating_mul(factor).min(self.max.0))
    }

    /// The wait itself: uniform from zero to the ceiling, both included, as `random` falls.
    #[must_use]
    pub fn wait(self, failures: u32, random: u64) -> Millis {
        let choices = u128::from(self.ceiling(failures).0) + 1;
        // The high word of the product is below `choices`, which is at most 2^64.
        let chosen = (u128::from(random) * choices) >> 64;
        Millis(u64::try_from(chosen).unwrap_or(u64::MAX))
    }
}

/// The numbers a session draws, all from the seed it was given (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Entropy(u64);

impl Entropy {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_wait() {
        let backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..7).map(|n| backoff.ceiling(n).0 / 1000).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.ceiling(u32::MAX), Millis::secs(30));
    }

    #[test]
    fn jitter_is_full() {
        let backoff = Backoff::default();
        for failures in [0, 3, 5, 40] {
            let ceiling = backoff.ceiling(failures);
            assert_eq!(backoff.wait(failures, 0), Millis(0));
            assert_eq!(backoff.wait(failures, u64::MAX), ceiling);
            let mut entropy = Entropy::new(7);
            let waits: Vec<u64> = (0..4000)
                .map(|_| backoff.wait(failures, entropy.draw()).0)
                .collect();
            let mean = waits.iter().sum::<u64>() / 4000;
            let half = ceiling.0 / 2;
            assert!(mean.abs_diff(half) < ceiling.0 / 20, "{mean} is not {half}");
            for quarter in 0..4 {
                let bounds = ceiling.0 * quarter / 4..=ceiling.0 * (quarter + 1) / 4;
                let share = waits.iter().filter(|wait| bounds.contains(wait)).count();
                assert!((800..1200).contains(&share), "{share} of 4000");
            }
        }
    }
}
