//! A token bucket on injected time.

use crate::time::Mono;

/// One token in units of the balance: a rate of 1 per minute earns 1 unit a millisecond.
const TOKEN: u64 = 60_000;

/// A balance that refills by `per_minute` units each millisecond: exact at any rate and step.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    balance: u64,
    at: Mono,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(burst: u32, now: Mono) -> Self {
        Self {
            balance: u64::from(burst) * TOKEN,
            at: now,
        }
    }

    /// Takes one token; `per_minute` 0 means no limit.
    pub fn take(&mut self, now: Mono, per_minute: u32, burst: u32) -> bool {
        if per_minute == 0 {
            return true;
        }
        self.balance = self.balance_at(now, per_minute, burst);
        self.at = now;
        let taken = self.balance >= TOKEN;
        if taken {
            self.balance -= TOKEN;
        }
        taken
    }

    /// Whether it is as good as a new one.
    #[must_use]
    pub fn is_full(&self, now: Mono, per_minute: u32, burst: u32) -> bool {
        self.balance_at(now, per_minute, burst) == u64::from(burst) * TOKEN
    }

    fn balance_at(&self, now: Mono, per_minute: u32, burst: u32) -> u64 {
        let refill = now.since(self.at).0.saturating_mul(u64::from(per_minute));
        self.balance
            .saturating_add(refill)
            .min(u64::from(burst) * TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_a_second() {
        let mut bucket = Bucket::full(10, Mono(0));
        assert_eq!((0..20).filter(|_| bucket.take(Mono(0), 60, 10)).count(), 10);
        assert!(!bucket.take(Mono(999), 60, 10));
        assert!(bucket.take(Mono(1000), 60, 10));
        assert!(!bucket.take(Mono(1001), 60, 10));
        let later = Mono(1_000_000);
        assert_eq!((0..20).filter(|_| bucket.take(later, 60, 10)).count(), 10);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut bucket = Bucket::full(0, Mono(0));
        assert!((0..1000).all(|_| bucket.take(Mono(0), 0, 0)));
    }
}
