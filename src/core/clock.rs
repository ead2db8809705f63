//! A mesh's simulation clock (protocol.md §15): one minute of simulated time each tick.
//!
//! When a tick is due is counted from where the clock began to run, never from the tick before, so
//! that neither a speed that does not divide a minute nor a late timer adds up.

use crate::time::{Millis, Mono, Wall};
use crate::wheel::TimerKey;

/// Simulated time between two ticks, and real time at speed 1.
const TICK: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Clock {
    /// How much faster than real time: 1 to 100.
    pub(crate) speed: f64,
    pub(crate) tick: u64,
    pub(crate) started_at: Wall,
    /// While it is not paused.
    pub(crate) running: Option<Running>,
}

/// From when on ticks are counted, and the timer of the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    since: Mono,
    /// The last tick before.
    from: u64,
    pub(crate) timer: TimerKey,
}

impl Clock {
    /// A clock that does not run yet.
    pub(crate) fn new(now: Wall) -> Self {
        Self {
            speed: 1.0,
            tick: 0,
            started_at: now,
            running: None,
        }
    }

    /// The simulated time of the last tick.
    pub(crate) fn sim_time(&self) -> Wall {
        self.started_at
            .after(Millis(self.tick.saturating_mul(TICK)))
    }

    /// The interval begins now: `timer` is set for when [`Self::first_due`] says.
    pub(crate) fn run(&mut self, since: Mono, timer: TimerKey) {
        let from = self.tick;
        self.running = Some(Running { since, from, timer });
    }

    /// When the first tick is due of a clock that begins to run at `since`.
    pub(crate) fn first_due(&self, since: Mono) -> Mono {
        due(self.speed, since, 1)
    }

    /// When the next tick is due, if it runs.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        let running = self.running?;
        let ticks = self.tick.saturating_sub(running.from).saturating_add(1);
        Some(due(self.speed, running.since, ticks))
    }

    /// Counts the ticks that are due. Tells whether there were any.
    pub(crate) fn advance(&mut self, now: Mono) -> bool {
        let before = self.tick;
        while self.next_due().is_some_and(|due| due <= now) {
            self.tick += 1;
        }
        self.tick > before
    }
}

/// When the `ticks`-th tick is due since then.
fn due(speed: f64, since: Mono, ticks: u64) -> Mono {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a double counts exactly to 2^53, and casts to the nearest u64"
    )]
    let span = (ticks.saturating_mul(TICK) as f64 / speed).ceil() as u64;
    since.after(Millis(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(speed: f64, since: u64) -> Clock {
        let mut clock = Clock::new(Wall(1_000));
        clock.speed = speed;
        let mut wheel = crate::wheel::Wheel::new(Mono(0));
        clock.run(Mono(since), wheel.insert(Mono(1), ()));
        clock
    }

    #[test]
    fn late_timers_and_uneven_speeds_do_not_add_up() {
        let mut clock = running(7.0, 500);
        let mut now = Mono(500);
        for _ in 0..70_000 {
            // As a wheel that turns every 10 ms.
            now = Mono(clock.next_due().unwrap().0.next_multiple_of(10));
            assert!(clock.advance(now));
        }
        assert_eq!(clock.tick, 70_000);
        assert_eq!(now, Mono(500 + 600_000_000));
        assert_eq!(clock.sim_time(), Wall(1_000 + 70_000 * 60_000));
    }

    #[test]
    fn ticks_missed_in_a_stall_are_counted() {
        let mut clock = running(60.0, 0);
        assert!(!clock.advance(Mono(999)));
        assert!(clock.advance(Mono(1_000)));
        assert!(clock.advance(Mono(10_999)));
        assert_eq!((clock.tick, clock.next_due()), (10, Some(Mono(11_000))));
    }

    #[test]
    fn a_new_interval_begins_where_it_is_said_to() {
        let mut clock = running(100.0, 0);
        clock.advance(Mono(1_900));
        assert_eq!(clock.tick, 3);
        assert_eq!(clock.first_due(Mono(2_000)), Mono(2_600));
        let timer = clock.running.unwrap().timer;
        clock.run(Mono(2_000), timer);
        assert_eq!(clock.next_due(), Some(Mono(2_600)));
    }
}
