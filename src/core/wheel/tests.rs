//! The wheel against the obvious thing: a sorted map of (deadline, insertion).

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const YEAR: u64 = 365 * 24 * HOUR;

#[derive(Clone, Debug)]
enum Step {
    /// A timer this far from now; before now if `past`.
    Insert { distance: u64, past: bool },
    /// Cancels the timer of the `n`th key ever made (modulo their number): often a stale one.
    Cancel(usize),
    /// Time goes on and everything due comes out; the nth popped timer sets another one, this far
    /// from now.
    Advance { by: u64, again: Vec<i64> },
    /// Time goes on to what `next_deadline` says.
    Sleep,
}

/// Distances in milliseconds of all magnitudes, with the edges of the levels.
fn distance() -> impl Strategy<Value = u64> {
    let edge = (1_u32..=10, 0_u64..=40).prop_map(|(digits, off)| {
        (64_u64.saturating_pow(digits).saturating_mul(TICK.0))
            .saturating_add(off)
            .saturating_sub(20)
    });
    prop_oneof![
        4 => 0_u64..200,
        4 => 0_u64..100 * TICK.0,
        2 => 0_u64..2 * HOUR,
        1 => 0_u64..30 * YEAR,
        1 => any::<u64>(),
        4 => edge,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let again = vec(prop_oneof![-50_i64..50, -100_000_i64..100_000], 0..4);
    let by = prop_oneof![6 => 0_u64..50, 3 => 0_u64..2 * MINUTE, 1 => 0_u64..20 * HOUR];
    let insert = (distance(), any::<bool>());
    let insert = insert.prop_map(|(distance, past)| Step::Insert { distance, past });
    prop_oneof![
        6 => insert,
        3 => any::<usize>().prop_map(Step::Cancel),
        3 => (by, again).prop_map(|(by, again)| Step::Advance { by, again }),
        2 => Just(Step::Sleep),
    ]
}

/// The wheel and its model, side by side; a timer's value is its place in the order of insertion.
struct Pair {
    now: Mono,
    wheel: Wheel<usize>,
    model: BTreeMap<(Mono, usize), ()>,
    made: Vec<(TimerKey, Mono)>,
}

impl Pair {
    fn new(now: Mono) -> Self {
        Self {
            now,
            wheel: Wheel::new(now),
            model: BTreeMap::new(),
            made: Vec::new(),
        }
    }

    fn insert(&mut self, deadline: Mono) {
        let id = self.made.len();
        self.made.push((self.wheel.insert(deadline, id), deadline));
        self.model.insert((deadline, id), ());
    }

    fn cancel(&mut self, n: usize) {
        if self.made.is_empty() {
            return;
        }
        let id = n % self.made.len();
        let (key, deadline) = self.made[id];
        let expected = self.model.remove(&(deadline, id)).map(|()| id);
        assert_eq!(self.wheel.cancel(key), expected);
        assert_eq!(self.wheel.cancel(key), None, "a key is good for one cancel");
    }

    fn drain(&mut self, again: &[i64]) {
        let mut again = again.iter();
        loop {
            let first = self.model.first_key_value().map(|(&first, ())| first);
            let expected = first.filter(|&(deadline, _)| deadline <= self.now);
            assert_eq!(self.wheel.pop_due(self.now), expected);
            let Some(fired) = expected else { break };
            self.model.remove(&fired);
            assert_eq!(
                self.wheel.cancel(self.made[fired.1].0),
                None,
                "a fired key is stale"
            );
            if let Some(&offset) = again.next() {
                self.insert(Mono(self.now.0.saturating_add_signed(offset)));
            }
        }
        let next = self.wheel.next_deadline();
        assert!(
            next.is_none_or(|next| next > self.now),
            "{next:?} names a moment gone by"
        );
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Insert {
                distance,
                past: false,
            } => {
                self.insert(self.now.after(Millis(*distance)));
            }
            Step::Insert {
                distance,
                past: true,
            } => {
                self.insert(Mono(self.now.0.saturating_sub(*distance)));
            }
            Step::Cancel(n) => self.cancel(*n),
            Step::Advance { by, again } => {
                self.now = self.now.after(Millis(*by));
                self.drain(again);
            }
            Step::Sleep => {
                if let Some(next) = self.wheel.next_deadline() {
                    self.now = self.now.max(next);
                    self.drain(&[]);
                }
            }
        }
        assert_eq!(self.wheel.len(), self.model.len());
        assert_eq!(self.wheel.is_empty(), self.model.is_empty());
        let latest = self
            .model
            .first_key_value()
            .map(|(&(deadline, _), ())| round_up(deadline));
        let next = self.wheel.next_deadline();
        assert_eq!(next.is_some(), latest.is_some());
        assert!(next <= latest, "{next:?} is later than {latest:?}");
    }
}

fn round_up(deadline: Mono) -> Mono {
    Mono(deadline.0.div_ceil(TICK.0).saturating_mul(TICK.0))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_a_sorted_map(
        start in prop_oneof![Just(0), 0..YEAR, any::<u64>()],
        steps in vec(step(), 1..120),
    ) {
        let mut pair = Pair::new(Mono(start));
        for step in &steps {
            pair.run(step);
        }
        // A stall to the end of time: everything that is left comes, in order.
        pair.now = Mono(u64::MAX);
        pair.drain(&[]);
        prop_assert!(pair.wheel.is_empty());
        prop_assert_eq!(pair.wheel.next_deadline(), None);
    }

    #[test]
    fn a_sleeper_wakes_seldom_and_at_most_a_tick_late(
        start in 0..YEAR,
        deadlines in vec(distance(), 1..20),
    ) {
        let mut wheel = Wheel::new(Mono(start));
        let count = deadlines.len();
        for distance in deadlines {
            wheel.insert(Mono(start).after(Millis(distance)), ());
        }
        let mut wakes = 0;
        while let Some(now) = wheel.next_deadline() {
            wakes += 1;
            while let Some((deadline, ())) = wheel.pop_due(now) {
                prop_assert!(deadline <= now && now.since(deadline) < TICK);
            }
        }
        prop_assert!(wakes <= count * LEVELS, "{wakes} wake-ups for {count} timers");
    }
}

#[test]
fn every_edge_of_every_level_is_exact_to_the_millisecond() {
    let starts = [
        0,
        1,
        9,
        10,
        630,
        640,
        40_950,
        40_960,
        64_u64.pow(5) * TICK.0 - 1,
    ];
    for start in starts {
        for digits in 0..=10 {
            for off in -21_i64..=21 {
                let span = (64_u64.pow(digits) * TICK.0).saturating_add_signed(off);
                let deadline = Mono(start).after(Millis(span));
                let mut wheel = Wheel::new(Mono(start));
                wheel.insert(deadline, ());
                if deadline.0 > start {
                    assert_eq!(wheel.pop_due(Mono(deadline.0 - 1)), None, "early");
                }
                assert_eq!(wheel.pop_due(deadline), Some((deadline, ())));
                assert_eq!(wheel.next_deadline(), None);
            }
        }
    }
}

#[test]
fn one_deadline_keeps_the_order_of_insertion_across_levels() {
    let mut wheel = Wheel::new(Mono(0));
    let deadline = Mono(HOUR);
    for n in 0..10 {
        // Each is set from nearer by, so they start at different levels.
        assert_eq!(wheel.pop_due(Mono(HOUR - HOUR / (n + 1))), None);
        wheel.insert(deadline, n);
    }
    let order: Vec<u64> = std::iter::from_fn(|| wheel.pop_due(deadline))
        .map(|due| due.1)
        .collect();
    assert_eq!(order, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_timer_set_in_a_drain_takes_its_place_in_it() {
    let mut wheel = Wheel::new(Mono(0));
    wheel.insert(Mono(100), "first");
    wheel.insert(Mono(5000), "last");
    let now = Mono(HOUR);
    assert_eq!(wheel.pop_due(now), Some((Mono(100), "first")));
    wheel.insert(Mono(now.0 + 1), "later");
    wheel.insert(Mono(3000), "between");
    wheel.insert(Mono(50), "before");
    let rest: Vec<_> = std::iter::from_fn(|| wheel.pop_due(now))
        .map(|due| due.1)
        .collect();
    assert_eq!(rest, ["before", "between", "last"]);
    assert_eq!(wheel.next_deadline(), Some(Mono(now.0 + 10)));
    assert_eq!(
        wheel.pop_due(Mono(now.0 + 1)).map(|due| due.1),
        Some("later")
    );
}

#[test]
fn a_clock_that_goes_back_fires_nothing_early() {
    let mut wheel = Wheel::new(Mono(1000));
    assert_eq!(wheel.pop_due(Mono(2000)), None);
    wheel.insert(Mono(1500), ());
    assert_eq!(wheel.pop_due(Mono(1499)), None);
    assert_eq!(wheel.pop_due(Mono(1500)), Some((Mono(1500), ())));
}

#[test]
fn the_wheel_keeps_its_position_when_the_clock_goes_back() {
    let mut wheel = Wheel::new(Mono(2000));
    wheel.insert(Mono(2050), ());
    assert_eq!(wheel.pop_due(Mono(0)), None);
    assert_eq!(wheel.next_deadline(), Some(Mono(2050)));
}

#[test]
fn an_idle_wheel_keeps_up() {
    let mut wheel = Wheel::new(Mono(0));
    assert_eq!(wheel.pop_due(Mono(HOUR)), None);
    wheel.insert(Mono(HOUR + 50), ());
    assert_eq!(
        wheel.next_deadline(),
        Some(Mono(HOUR + 50)),
        "no cascade for what is near"
    );
}

#[test]
fn a_slot_used_again_does_not_answer_to_the_old_key() {
    let mut wheel = Wheel::new(Mono(0));
    let old = wheel.insert(Mono(50), 'a');
    assert_eq!(wheel.cancel(old), Some('a'));
    let new = wheel.insert(Mono(50), 'b');
    assert_eq!(old.slot, new.slot);
    assert_eq!(wheel.cancel(old), None);
    assert_eq!(
        wheel.cancel(TimerKey {
            slot: 99,
            generation: old.generation
        }),
        None
    );
    assert_eq!(wheel.cancel(new), Some('b'));
    assert_eq!(wheel.entries.len(), 1);
}
