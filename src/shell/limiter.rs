//! Token buckets by key, on injected time, for keys that strangers choose.
//!
//! Bounded: when the table is full, buckets that have refilled are forgotten, since they are as
//! good as new ones; if none has, the newcomer passes unlimited rather than paying for others.
//! Looking for them costs as much as the table is large, so it is done at a pace.

use std::collections::HashMap;
use std::hash::Hash;

use super::limits::{LIMITER_KEYS_MAX, LIMITER_SWEEP};
use crate::core::bucket::Bucket;
use crate::core::time::{Millis, Mono};

/// Lets something happen at most once in a while.
pub(super) struct Pace {
    every: Millis,
    last: Option<Mono>,
}

impl Pace {
    /// At most once `every` so often.
    pub(super) fn new(every: Millis) -> Self {
        Self { every, last: None }
    }

    /// Whether it may happen now; if so, it counts as having happened.
    pub(super) fn due(&mut self, now: Mono) -> bool {
        let due = self.last.is_none_or(|last| now.since(last) >= self.every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// See the module.
pub(super) struct Limiter<K> {
    buckets: HashMap<K, Bucket>,
    burst: u32,
    per_minute: u32,
    sweeps: Pace,
}

impl<K: Eq + Hash> Limiter<K> {
    /// Full buckets of `burst` tokens that refill at `per_minute`; 0 means no limit.
    pub(super) fn new(burst: u32, per_minute: u32) -> Self {
        Self {
            buckets: HashMap::new(),
            burst,
            per_minute,
            sweeps: Pace::new(LIMITER_SWEEP),
        }
    }

    /// Takes one token of `key`; false if none is left.
    pub(super) fn take(&mut self, key: K, now: Mono) -> bool {
        let (burst, rate) = (self.burst, self.per_minute);
        if rate == 0 {
            return true;
        }
        if self.buckets.len() >= LIMITER_KEYS_MAX && !self.buckets.contains_key(&key) {
            if self.sweeps.due(now) {
                self.buckets
                    .retain(|_, bucket| !bucket.is_full(now, rate, burst));
            }
            if self.buckets.len() >= LIMITER_KEYS_MAX {
                return true;
            }
        }
        let bucket = self
            .buckets
            .entry(key)
            .or_insert_with(|| Bucket::full(burst, now));
        bucket.take(now, rate, burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_each_key_for_itself() {
        let mut limiter = Limiter::new(30, 30);
        assert_eq!((0..40).filter(|_| limiter.take("a", Mono(0))).count(), 30);
        assert!(limiter.take("b", Mono(0)));
        assert!(!limiter.take("a", Mono(1999)));
        assert!(limiter.take("a", Mono(2000)));
        assert!(!limiter.take("a", Mono(2001)));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_has_refilled() {
        let mut limiter = Limiter::new(1, 60);
        for key in 0..LIMITER_KEYS_MAX {
            assert!(limiter.take(key, Mono(0)));
        }
        // Full of buckets in use: a newcomer passes and is not remembered.
        assert!(limiter.take(usize::MAX, Mono(1)));
        assert!(limiter.take(usize::MAX, Mono(1)));
        assert_eq!(limiter.buckets.len(), LIMITER_KEYS_MAX);
        assert!(!limiter.take(0, Mono(1)));
        // All have refilled.
        assert!(limiter.take(usize::MAX, Mono(2000)));
        assert_eq!(limiter.buckets.len(), 1);
        assert!(!limiter.take(usize::MAX, Mono(2000)));
    }

    #[test]
    fn a_full_table_is_swept_at_a_pace() {
        let mut limiter = Limiter::new(1, 60_000);
        for key in 0..LIMITER_KEYS_MAX {
            assert!(limiter.take(key, Mono(0)));
        }
        assert!(
            limiter.take(usize::MAX, Mono(0)),
            "a sweep that finds nothing"
        );
        let soon = Mono(LIMITER_SWEEP.0 - 1);
        assert!(limiter.take(usize::MAX, soon));
        assert_eq!(limiter.buckets.len(), LIMITER_KEYS_MAX, "all have refilled");
        assert!(limiter.take(usize::MAX, Mono(LIMITER_SWEEP.0)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
