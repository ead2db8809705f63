//! A mailbox against its rows: whatever is written, read back, confirmed and given back, in any
//! order, no message is lost, doubled, or written before an older one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ids::{Seq, Token};
use crate::limits::{MAILBOX_BYTES_MAX, MAILBOX_LOAD_ROWS, MAILBOX_MESSAGES_MAX};
use crate::mailbox::Mailbox;
use crate::outbox::{Mail, tests::mail};
use crate::rows::Priority;
use crate::time::Mono;

/// Room for one row to tell a large one from a small one.
const LARGE: usize = MAILBOX_BYTES_MAX / 20;

#[derive(Clone, Debug)]
enum Step {
    /// So many new messages, each with its row.
    Put { count: u64, now: bool, large: bool },
    /// The newest message's row could not be written.
    Forget,
    /// The recipient may have everything, or `now` messages only: up to so many are written.
    Write { all: bool, count: usize },
    /// The nth of those written is confirmed (modulo their number).
    Confirm(usize),
    /// All that was written and not confirmed comes back.
    GiveBack,
    /// The owner is gone.
    Unload,
    /// Rows are asked for, if it is time.
    Ask,
    /// The reader looks at the rows; the answer travels on.
    Look,
    /// The answer arrives, or the reader failed.
    Answer { failed: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![4 => 1_u64..4, 2 => 1_u64..200, 1 => 250_u64..600];
    let put = (count, prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let put = put.prop_map(|(count, now, large)| Step::Put { count, now, large });
    let write = (any::<bool>(), prop_oneof![1_usize..5, 100_usize..400]);
    prop_oneof![
        4 => put,
        1 => Just(Step::Forget),
        4 => write.prop_map(|(all, count)| Step::Write { all, count }),
        3 => any::<usize>().prop_map(Step::Confirm),
        1 => Just(Step::GiveBack),
        1 => Just(Step::Unload),
        3 => Just(Step::Ask),
        2 => Just(Step::Look),
        3 => prop::bool::weighted(0.2).prop_map(|failed| Step::Answer { failed }),
    ]
}

/// The mailbox, its undelivered rows, and what is on its way to a socket.
struct World {
    mailbox: Mailbox,
    rows: BTreeMap<Seq, Mail>,
    written: BTreeMap<Seq, Mail>,
    /// After which row was asked, under which token, and what the reader saw once it looked.
    asked: Option<(Seq, Token, Option<Vec<Mail>>)>,
    confirmed: BTreeSet<Seq>,
    last: u64,
}

impl World {
    fn new() -> Self {
        Self {
            mailbox: Mailbox::new(),
            rows: BTreeMap::new(),
            written: BTreeMap::new(),
            asked: None,
            confirmed: BTreeSet::new(),
            last: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Put { count, now, large } => {
                (0..count).for_each(|_| self.put(now, large));
            }
            Step::Forget => self.forget(),
            Step::Write { all, count } => {
                let mut before = None;
                for _ in 0..count {
                    let Some(seq) = self.write(all) else { break };
                    assert!(before < Some(seq), "{seq:?} after {before:?}");
                    before = Some(seq);
                }
            }
            Step::Confirm(n) => self.confirm(n),
            Step::GiveBack => self.give_back(),
            Step::Unload => {
                self.give_back();
                self.mailbox.unload(Mono(0));
                // Whoever owns it next asks anew; the old answer is not awaited any more.
                assert_eq!(self.mailbox.len(), 0);
            }
            Step::Ask => self.ask(),
            Step::Look => self.look(),
            Step::Answer { failed } => self.answer(failed),
        }
        self.check();
    }

    fn put(&mut self, now: bool, large: bool) {
        self.last += 1;
        let priority = if now { Priority::Now } else { Priority::Next };
        let frame = vec![b'x'; if large { LARGE } else { 10 }].into();
        let new = Mail {
            priority,
            frame,
            ..mail(self.last)
        };
        self.rows.insert(new.seq, new.clone());
        self.mailbox.put(new);
    }

    /// Only a message that was not written yet, as the store answers within moments; and no reader
    /// has seen a row that could not be written.
    fn forget(&mut self) {
        let newest = Seq(self.last);
        let seen = self.asked.iter().filter_map(|(_, _, seen)| seen.as_ref());
        if seen.flatten().any(|row| row.seq == newest) {
            return;
        }
        if self.mailbox.forget(newest) {
            assert!(self.rows.remove(&newest).is_some(), "it was there twice");
            assert!(!self.mailbox.forget(newest), "forgotten twice");
        }
    }

    /// What may be written now, if anything: the oldest that is wanted, unless an older one may be
    /// on disk only.
    fn write(&mut self, all: bool) -> Option<Seq> {
        let wanted = |mail: &Mail| all || mail.priority == Priority::Now;
        let (index, seq) = self.mailbox.find(wanted)?;
        if self.mailbox.hides_before(seq, all) {
            return None;
        }
        let older = self.rows.range(..seq);
        let skipped = older.filter(|(seq, mail)| wanted(mail) && !self.written.contains_key(seq));
        assert_eq!(skipped.map(|(seq, _)| *seq).next(), None, "before {seq:?}");
        let mail = self
            .mailbox
            .take(index)
            .expect("what was found can be taken");
        assert!(self.rows.contains_key(&seq), "{seq:?} was delivered");
        assert!(self.written.insert(seq, mail).is_none(), "{seq:?} twice");
        Some(seq)
    }

    fn confirm(&mut self, n: usize) {
        let nth = n.checked_rem(self.written.len()).unwrap_or(0);
        let Some(seq) = self.written.keys().nth(nth).copied() else {
            return;
        };
        self.written.remove(&seq);
        self.rows.remove(&seq);
        self.confirmed.insert(seq);
        self.mailbox.confirmed(seq);
    }

    fn give_back(&mut self) {
        for (_, mail) in std::mem::take(&mut self.written) {
            self.mailbox.put_back(mail);
        }
    }

    fn ask(&mut self) {
        let token = Token(self.asked.as_ref().map_or(1, |(_, token, _)| token.0 + 1));
        if let Some(after) = self.mailbox.begin_load(token) {
            assert!(self.mailbox.awaits(token));
            self.asked = Some((after, token, None));
            assert_eq!(
                self.mailbox.begin_load(Token(token.0 + 1)),
                None,
                "asked twice"
            );
        }
    }

    fn look(&mut self) {
        if let Some((after, _, seen @ None)) = &mut self.asked {
            let rows = self.rows.values().filter(|row| row.seq > *after);
            *seen = Some(rows.take(MAILBOX_LOAD_ROWS as usize + 1).cloned().collect());
        }
    }

    fn answer(&mut self, failed: bool) {
        self.look();
        let Some((_, token, Some(mut rows))) = self.asked.take() else {
            return;
        };
        if !self.mailbox.awaits(token) {
            return;
        }
        if failed {
            self.mailbox.load_failed();
            return self.mailbox.rested();
        }
        let more = rows.len() > MAILBOX_LOAD_ROWS as usize;
        rows.truncate(MAILBOX_LOAD_ROWS as usize);
        let last = rows.last().map(|row| row.seq);
        // As the shard does: what is on its way to a socket is there already.
        rows.retain(|row| !self.written.contains_key(&row.seq));
        self.mailbox.loaded(rows, last, more);
    }

    /// What is in memory is due, in order and once; all else that is due can be read back.
    fn check(&self) {
        let mut held = Vec::new();
        // Nothing satisfies this, so every message is shown.
        let found = self.mailbox.find(|mail| {
            held.push(mail.seq);
            false
        });
        assert_eq!(found, None);
        assert_eq!(held.len(), self.mailbox.len());
        assert!(held.is_sorted_by(|a, b| a < b), "out of order or twice");
        for seq in &held {
            assert!(self.rows.contains_key(seq), "{seq:?} was delivered");
            assert!(!self.written.contains_key(seq), "{seq:?} is in two places");
        }
        for seq in self
            .rows
            .keys()
            .filter(|seq| !self.written.contains_key(seq))
        {
            let reachable =
                held.binary_search(seq).is_ok() || self.mailbox.hides_before(*seq, true);
            assert!(reachable, "{seq:?} is lost");
        }
    }

    /// A recipient that takes everything, until nothing is left.
    fn drain(&mut self) {
        self.give_back();
        let mut before = None;
        // Each round takes a message, reads some, or is the last.
        for _ in 0..2 * self.rows.len() + 10 {
            while let Some(seq) = self.write(true) {
                assert!(before < Some(seq), "{seq:?} after {before:?}");
                before = Some(seq);
                self.confirm(0);
            }
            self.ask();
            self.answer(false);
        }
        self.check();
        assert!(self.rows.is_empty(), "{} rows are stuck", self.rows.len());
        assert!(self.mailbox.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.drain();
        let confirmed = world.confirmed.len() + world.rows.len();
        prop_assert!(confirmed <= usize::try_from(world.last).unwrap());
    }

    #[test]
    fn memory_is_bounded_while_nobody_takes_anything(puts in vec((1_u64..700, any::<bool>(), any::<bool>()), 1..6)) {
        let mut world = World::new();
        for (count, now, large) in puts {
            world.run(&Step::Put { count, now, large });
            prop_assert!(world.mailbox.len() <= 2 * MAILBOX_MESSAGES_MAX);
            let mut bytes = 0;
            world.mailbox.find(|mail| { bytes += mail.frame.len(); false });
            prop_assert!(bytes <= 2 * MAILBOX_BYTES_MAX + LARGE);
        }
    }
}
