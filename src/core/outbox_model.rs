//! The outbox against the obvious thing: a list of messages, each with the mark it was written
//! under.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ids::{Position, Seq};
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::outbox::{Mail, Outbox, Watermarks, tests::mail};

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
    Attach,
    /// So many unconfirmed messages are written to it again.
    Rewrite(usize),
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
        1 => Just(Step::Attach),
        2 => (1_usize..4).prop_map(Step::Rewrite),
        1 => Just(Step::TakeAll),
    ]
}

/// The outbox and its model, side by side.
#[derive(Default)]
struct Pair {
    outbox: Outbox,
    watermarks: Watermarks,
    /// Unconfirmed, oldest first, with marks.
    model: Vec<(Mail, u64)>,
    /// The last place written to.
    marks: u64,
    /// How many of them this attachment has been written.
    rewritten: usize,
    since_ping: usize,
    /// Watermarks sent on this attachment.
    pings: Vec<u64>,
    /// The highest of them that came back.
    ponged: u64,
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
                // A place of its own, as the shard gives it.
                self.marks += 1;
                self.watermarks.ping(Position(self.marks));
                self.pings.push(self.marks);
                self.since_ping = 0;
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
            Step::Attach => self.attach(),
            Step::Rewrite(count) => self.rewrite(count),
            Step::TakeAll => {
                let expected: Vec<Seq> = self.model.drain(..).map(|(mail, _)| mail.seq).collect();
                assert_eq!(seqs(&self.outbox.take_all()), expected);
                self.rewritten = 0;
            }
        }
        self.check();
    }

    fn push(&mut self, large: bool) {
        // What is unconfirmed goes before what is new.
        self.rewrite(usize::MAX);
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
        self.outbox
            .push(&mut self.watermarks, new, Position(self.marks));
        self.rewritten += 1;
        self.since_ping += 1;
    }

    /// The longest beginning that the pong covers; of a client that acknowledges by itself the
    /// newest half of the bound is left to it, unless the outbox was full.
    fn pong(&mut self, watermark: u64) {
        let sent = watermark <= self.pings.last().copied().unwrap_or(0);
        let written = self.model.iter().take(self.rewritten);
        let covered = written.take_while(|(_, mark)| *mark <= watermark);
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
        if sent {
            self.ponged = self.ponged.max(watermark);
        }
        let watermark = Position(watermark);
        assert_eq!(
            seqs(
                &self
                    .outbox
                    .pong(&mut self.watermarks, watermark, self.acknowledges)
            ),
            expected
        );
        assert!(
            self.outbox
                .pong(&mut self.watermarks, watermark, self.acknowledges)
                .len()
                <= covered,
            "confirmed again"
        );
        let again = self.model.len() - self.outbox.len();
        self.model.drain(..again);
        self.rewritten -= count + again;
    }

    fn acknowledge(&mut self, seq: Option<Seq>, client: Option<&str>) {
        self.acknowledges = true;
        // The broker's id names one message; the sender's is for those who know no other.
        let named = self.model.iter().any(|(mail, _)| Some(mail.seq) == seq);
        let mut expected = Vec::new();
        let (mut index, rewritten) = (0, self.rewritten);
        self.model.retain(|(mail, _)| {
            let is_meant = if named {
                Some(mail.seq) == seq
            } else {
                client.is_some() && mail.client_message_id.as_deref() == client
            };
            expected.extend(is_meant.then_some(mail.seq));
            if is_meant && index < rewritten {
                self.rewritten -= 1;
            }
            index += 1;
            !is_meant
        });
        assert_eq!(seqs(&self.outbox.acknowledge(seq, client)), expected);
    }

    fn attach(&mut self) {
        self.outbox.begin_attachment();
        self.watermarks = Watermarks::default();
        self.rewritten = 0;
        self.since_ping = 0;
        self.pings.clear();
        self.ponged = 0;
    }

    fn rewrite(&mut self, count: usize) {
        for _ in 0..count {
            let next = self.model.get_mut(self.rewritten);
            let seq = next.as_ref().map(|(mail, _)| mail.seq);
            assert_eq!(self.outbox.next_rewrite(), seq);
            let Some((mail, mark)) = next else { return };
            self.marks += 1;
            *mark = self.marks;
            let frame = Some(mail.frame.clone());
            assert_eq!(
                self.outbox
                    .rewrite(&mut self.watermarks, Position(self.marks)),
                frame
            );
            self.rewritten += 1;
            self.since_ping += 1;
        }
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
        let unpinged = self.since_ping;
        assert_eq!(self.watermarks.unpinged(), unpinged > 0);
        let asked = self.pings.last().is_some_and(|last| *last > self.ponged);
        let heavy = self.bytes() >= OUTBOX_BYTES_MAX / 2;
        let urgent = unpinged >= OUTBOX_MESSAGES_MAX / 2 || (unpinged > 0 && heavy && !asked);
        assert_eq!(self.outbox.wants_ping(&self.watermarks), urgent);
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
