//! The outbox against the obvious thing: a list of messages, each with the mark it was written
//! under.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ids::Seq;
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::outbox::{Mail, Outbox, tests::mail};

/// Two of these are over half of the bytes there is room for.
const LARGE: usize = OUTBOX_BYTES_MAX / 3;

#[derive(Clone, Debug)]
enum Step {
    /// So many messages are written, if there is room.
    Push { count: usize, large: bool },
    /// A ping goes out.
    Ping,
    /// A pong returns what the nth last ping carried, or what none did.
    Pong { nth: usize, off: i64 },
    /// The client acknowledges the nth message written (modulo), by which of its ids.
    Acknowledge {
        nth: usize,
        by_seq: bool,
        by_client: bool,
    },
    /// It acknowledges what was never written.
    AcknowledgeNothing,
    /// A new socket.
    Rewrite,
    /// The lease ends.
    TakeAll,
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![4 => 1_usize..4, 1 => 500_usize..1200];
    let push = (count, prop::bool::weighted(0.1));
    let pong = (0_usize..4, prop_oneof![6 => Just(0_i64), 1 => -3_i64..4]);
    let acknowledge = (any::<usize>(), any::<bool>(), any::<bool>());
    prop_oneof![
        6 => push.prop_map(|(count, large)| Step::Push { count, large }),
        4 => Just(Step::Ping),
        4 => pong.prop_map(|(nth, off)| Step::Pong { nth, off }),
        3 => acknowledge.prop_map(|(nth, by_seq, by_client)| Step::Acknowledge { nth, by_seq, by_client }),
        1 => Just(Step::AcknowledgeNothing),
        1 => Just(Step::Rewrite),
        1 => Just(Step::TakeAll),
    ]
}

/// The outbox and its model, side by side.
#[derive(Default)]
struct Pair {
    outbox: Outbox,
    /// Unconfirmed, oldest first, with marks.
    model: Vec<(Mail, u64)>,
    /// Written on this attachment.
    marks: u64,
    /// Watermarks sent on this attachment.
    pings: Vec<u64>,
    acknowledges: bool,
    last: u64,
}

fn seqs(mails: &[Mail]) -> Vec<Seq> {
    mails.iter().map(|mail| mail.seq).collect()
}

impl Pair {
    fn run(&mut self, step: &Step) {
        match *step {
            Step::Push { count, large } => (0..count).for_each(|_| self.push(large)),
            Step::Ping => {
                assert_eq!(self.outbox.watermark(), self.marks);
                self.pings.push(self.marks);
            }
            Step::Pong { nth, off } => {
                let sent = self.pings.iter().rev().nth(nth).copied();
                self.pong(sent.unwrap_or(0).saturating_add_signed(off));
            }
            Step::Acknowledge {
                nth,
                by_seq,
                by_client,
            } => {
                let nth = nth.checked_rem(self.model.len()).unwrap_or(0);
                if let Some((mail, _)) = self.model.get(nth).cloned() {
                    let client = mail.client_message_id.as_deref();
                    self.acknowledge(by_seq.then_some(mail.seq), client.filter(|_| by_client));
                }
            }
            Step::AcknowledgeNothing => self.acknowledge(Some(Seq(u64::MAX)), Some("none")),
            Step::Rewrite => self.rewrite(),
            Step::TakeAll => {
                let expected: Vec<Seq> = self.model.drain(..).map(|(mail, _)| mail.seq).collect();
                assert_eq!(seqs(&self.outbox.take_all()), expected);
            }
        }
        self.check();
    }

    fn push(&mut self, large: bool) {
        if !self.outbox.has_room() {
            return;
        }
        self.last += 1;
        let frame = if large {
            vec![b'x'; LARGE].into()
        } else {
            mail(self.last).frame
        };
        // Two messages in a row bear one client id, as a sender that tries again makes them.
        let client_message_id = Some(format!("c{}", self.last / 2).into());
        let new = Mail {
            frame,
            client_message_id,
            ..mail(self.last)
        };
        self.marks += 1;
        self.model.push((new.clone(), self.marks));
        self.outbox.push(new);
    }

    /// The longest beginning that the pong covers; of a client that acknowledges by itself the
    /// newest half of the bound is left to it, unless the outbox was full.
    fn pong(&mut self, watermark: u64) {
        let sent = watermark <= self.pings.last().copied().unwrap_or(0);
        let covered = self.model.iter().take_while(|(_, mark)| *mark <= watermark);
        let covered = if sent { covered.count() } else { 0 };
        let left_to_it = if self.acknowledges && self.has_room() {
            OUTBOX_MESSAGES_MAX / 2
        } else {
            0
        };
        let count = covered.min(self.model.len().saturating_sub(left_to_it));
        let expected: Vec<Seq> = self
            .model
            .drain(..count)
            .map(|(mail, _)| mail.seq)
            .collect();
        assert_eq!(seqs(&self.outbox.pong(watermark)), expected);
        assert!(
            self.outbox.pong(watermark).len() <= covered,
            "confirmed again"
        );
        self.model.drain(..self.model.len() - self.outbox.len());
    }

    fn acknowledge(&mut self, seq: Option<Seq>, client: Option<&str>) {
        self.acknowledges = true;
        // The broker's id names one message; the sender's is for those who know no other.
        let named = self.model.iter().any(|(mail, _)| Some(mail.seq) == seq);
        let mut expected = Vec::new();
        self.model.retain(|(mail, _)| {
            let is_meant = if named {
                Some(mail.seq) == seq
            } else {
                client.is_some() && mail.client_message_id.as_deref() == client
            };
            expected.extend(is_meant.then_some(mail.seq));
            !is_meant
        });
        assert_eq!(seqs(&self.outbox.acknowledge(seq, client)), expected);
    }

    fn rewrite(&mut self) {
        let frames: Vec<_> = self.outbox.rewrite().cloned().collect();
        let expected: Vec<_> = self
            .model
            .iter()
            .map(|(mail, _)| mail.frame.clone())
            .collect();
        assert_eq!(frames, expected);
        for (mark, (_, written)) in (1..).zip(&mut self.model) {
            *written = mark;
        }
        self.marks = self.model.len() as u64;
        self.pings.clear();
    }

    fn bytes(&self) -> usize {
        self.model.iter().map(|(mail, _)| mail.frame.len()).sum()
    }

    fn has_room(&self) -> bool {
        self.model.len() < OUTBOX_MESSAGES_MAX && self.bytes() < OUTBOX_BYTES_MAX
    }

    fn check(&self) {
        assert_eq!(self.outbox.len(), self.model.len());
        assert_eq!(self.outbox.has_room(), self.has_room());
        let pinged = self.pings.last().copied().unwrap_or(0);
        let unpinged = self.marks - pinged;
        assert_eq!(self.outbox.unpinged(), unpinged > 0);
        let urgent = unpinged >= (OUTBOX_MESSAGES_MAX / 2) as u64
            || (unpinged > 0 && self.bytes() >= OUTBOX_BYTES_MAX / 2);
        assert_eq!(self.outbox.wants_ping(), urgent);
        for seq in self.last.saturating_sub(3)..=self.last {
            let there = self.model.iter().any(|(mail, _)| mail.seq == Seq(seq));
            assert_eq!(self.outbox.holds(Seq(seq)), there);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_a_list(steps in vec(step(), 1..60)) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.run(step);
        }
    }
}
