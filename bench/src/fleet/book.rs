//! The book of messages: what was sent, and what became of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast::client::{Command, Outgoing};
use holdfast::core::ids::PubKey;
use holdfast::core::rows::Priority;

use super::tally::{DISORDER, ERRORS, LOST};
use super::{Fleet, ix};

/// Digits at the start of a message's text that say which one it is.
const DIGITS: usize = 12;

/// What a message is and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    at: Instant,
    from: u32,
    /// The one recipient, if there is one.
    to: Option<u32>,
    /// Whether it arrives as soon as it can.
    timed: bool,
    acked: bool,
    received: u32,
    /// It may come once more, behind later ones: the broker was killed before it had acknowledged
    /// it, and its sender says it again under another id; or its recipient was not waited for.
    in_doubt: bool,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// That session.
    One(usize),
    /// Whoever has that key; somebody else sees whether it arrives.
    Key(PubKey),
    /// All of its mesh.
    All,
    /// All of its mesh who are in that group.
    Group(&'static str),
}

impl Fleet {
    /// Sends; the text is `bytes` long. Gives the message's number.
    pub fn send(&mut self, from: usize, to: Target, bytes: usize) -> u64 {
        self.send_due(from, to, bytes, Instant::now())
    }

    /// As [`Self::send`], for a message that was due then: if the client is late, the broker looks
    /// slow, as it would to whoever wanted the message sent.
    pub fn send_due(&mut self, from: usize, to: Target, bytes: usize, due: Instant) -> u64 {
        self.enter(from, to, bytes, due, Priority::Now)
    }

    /// As [`Self::send`], for a message that waits while its recipient works; it is not timed.
    pub fn send_patiently(&mut self, from: usize, to: Target, bytes: usize) -> u64 {
        self.enter(from, to, bytes, Instant::now(), Priority::Next)
    }

    fn enter(
        &mut self,
        from: usize,
        to: Target,
        bytes: usize,
        due: Instant,
        priority: Priority,
    ) -> u64 {
        let number = self.book.len() as u64;
        let filler = "x".repeat(bytes.saturating_sub(DIGITS));
        let text = format!("{number:0DIGITS$}{filler}");
        let (target, to) = match to {
            Target::One(peer) => {
                let key = self.swarm.session(peer).map(|s| s.identity().key());
                (
                    key.map(|key| key.to_string()).unwrap_or_default(),
                    Some(ix(peer)),
                )
            }
            Target::Key(key) => (key.to_string(), Some(u32::MAX)),
            Target::All => ("*".to_owned(), None),
            Target::Group(name) => (format!("@{name}"), None),
        };
        self.book.push(Sent {
            at: due,
            from: ix(from),
            to,
            timed: priority == Priority::Now,
            acked: false,
            received: 0,
            in_doubt: false,
        });
        let message = Outgoing {
            client_message_id: format!("{}-{number}", self.prefix),
            priority,
            ..Outgoing::new(target, text)
        };
        self.swarm.command(from, Command::Send(message));
        number
    }

    /// Direct messages acknowledged and not received, and those without an answer.
    pub fn outstanding(&self) -> usize {
        let open = |sent: &&Sent| !sent.acked || (sent.to.is_some() && sent.received == 0);
        self.book.iter().filter(open).count()
    }

    /// Whether that direct message was acknowledged and received.
    pub fn is_done(&self, number: u64) -> bool {
        let sent = usize::try_from(number).ok().and_then(|n| self.book.get(n));
        sent.is_none_or(|sent| sent.acked && sent.received > 0)
    }

    /// Whether that message was acknowledged, or refused.
    pub fn is_acked(&self, number: u64) -> bool {
        let sent = usize::try_from(number).ok().and_then(|n| self.book.get(n));
        sent.is_none_or(|sent| sent.acked)
    }

    /// Counts broadcasts that fewer than `all` received as lost.
    pub fn everybody_heard(&mut self, all: u32) {
        for (number, sent) in self.book.iter().enumerate() {
            if sent.to.is_none() && sent.received != all {
                let heard = sent.received;
                self.tally.add(LOST, || {
                    format!("{heard} of {all} heard broadcast {number}")
                });
            }
        }
    }

    /// Broadcasts that fewer than `all` received.
    pub fn unheard(&self, all: u32) -> usize {
        let open = |sent: &&Sent| sent.to.is_none() && sent.received < all;
        self.book.iter().filter(open).count()
    }

    /// How often that message was received, by however many.
    pub fn received(&self, number: u64) -> u32 {
        let sent = usize::try_from(number).ok().and_then(|n| self.book.get(n));
        sent.map_or(0, |sent| sent.received)
    }

    /// As [`Self::outstanding`], but for what is for the first so many sessions.
    pub fn outstanding_beyond(&self, peers: usize) -> usize {
        let beyond = |sent: &&Sent| sent.to.is_none_or(|to| to >= ix(peers));
        let open = |sent: &&Sent| !sent.acked || (sent.to.is_some() && sent.received == 0);
        self.book.iter().filter(beyond).filter(open).count()
    }

    /// Messages without an answer.
    pub fn unacknowledged(&self) -> usize {
        self.book.iter().filter(|sent| !sent.acked).count()
    }

    /// Messages for the first so many sessions need not arrive.
    pub fn excuse(&mut self, peers: usize) {
        for sent in &mut self.book {
            if sent.to.is_some_and(|to| to < ix(peers)) {
                sent.received = sent.received.max(1);
                sent.in_doubt = true;
            }
        }
    }

    /// The broker is killed now.
    pub fn broker_killed(&mut self) {
        for sent in &mut self.book {
            sent.in_doubt |= !sent.acked;
        }
    }

    /// These sessions are known to the broker from an earlier fleet: they must come back to their
    /// leases, and what they receive is in that fleet's book.
    pub fn resume_earlier(&mut self) {
        self.guests = Some(BTreeSet::new());
        self.settled = true;
        for one in &mut self.standing {
            one.known = true;
        }
    }

    /// Whether that message of another fleet's book was received here.
    pub fn has_received(&self, number: u64) -> bool {
        self.guests
            .as_ref()
            .is_some_and(|received| received.contains(&number))
    }

    /// Another fleet has seen that message arrive, or not; that is told.
    pub fn settle(&mut self, number: u64, arrived: bool) {
        if !arrived {
            self.tally.add(LOST, || format!("message {number}"));
        }
        let sent = usize::try_from(number)
            .ok()
            .and_then(|n| self.book.get_mut(n));
        if let Some(sent) = sent {
            sent.received += 1;
        }
    }

    /// Counts what is still outstanding as lost.
    pub fn close_book(&mut self) {
        for (number, sent) in self.book.iter().enumerate() {
            if sent.acked && sent.to.is_some() && sent.received == 0 {
                self.tally
                    .add(LOST, || format!("message {number} to {:?}", sent.to));
            }
            if !sent.acked {
                self.tally
                    .add(ERRORS, || format!("message {number} was never answered"));
            }
        }
        self.book.clear();
        self.last.clear();
        self.prefix = prefix();
    }

    pub(super) fn acknowledged(&mut self, number: &str, at: Instant) {
        let place = number
            .rsplit('-')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        let sent = place.and_then(|place| self.book.get_mut(place));
        if let Some(sent) = sent.filter(|sent| !sent.acked) {
            sent.acked = true;
            self.counts.acked += 1;
            self.ack.record(at.saturating_duration_since(sent.at));
        }
    }

    pub(super) fn arrived(&mut self, peer: usize, at: Instant, text: &str) {
        let number = text
            .get(..DIGITS)
            .and_then(|digits| digits.parse::<u64>().ok());
        if let (Some(guests), Some(number)) = (&mut self.guests, number) {
            guests.insert(number);
            self.counts.received += 1;
            return;
        }
        let sent = number.and_then(|n| self.book.get_mut(usize::try_from(n).ok()?));
        let (Some(number), Some(sent)) = (number, sent) else {
            self.tally.add(ERRORS, || {
                format!("session {peer} got what nobody sent: {text:.40}")
            });
            return;
        };
        let again = sent.to.is_some() && sent.received > 0;
        if again && !sent.in_doubt {
            self.tally.add(ERRORS, || {
                format!("session {peer} got message {number} under two ids")
            });
        }
        if again {
            self.counts.repeated += 1;
            return;
        }
        // Of what is said to many, a visitor may hear what was said while it was here.
        sent.received += u32::from(sent.to.is_some() || !self.visitors.contains(&peer));
        self.counts.received += 1;
        if sent.timed {
            self.push.record(at.saturating_duration_since(sent.at));
        }
        if sent.to.is_some_and(|to| to != ix(peer)) {
            self.tally.add(ERRORS, || {
                format!("session {peer} got message {number} of another")
            });
        }
        let last = self.last.insert((sent.from, ix(peer), sent.timed), number);
        if let Some(last) = last.filter(|last| *last > number) {
            self.tally.add(DISORDER, || {
                format!("session {peer} got {number} after {last}")
            });
        }
    }
}

/// Another one each time.
pub(super) fn prefix() -> String {
    static FLEETS: AtomicU64 = AtomicU64::new(0);
    let fleet = FLEETS.fetch_add(1, Ordering::Relaxed);
    let began = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{:x}-{fleet}", began.unwrap_or_default().as_nanos())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast::client::{Identity, Voucher};
    use holdfast::core::identity::KeyPair;

    use super::*;
    use crate::stage::by_hand;

    /// Two sessions that never connect.
    fn pair() -> Fleet {
        let mut fleet = Fleet::new("ws://127.0.0.1:1/ws", by_hand()).unwrap();
        for seed in [2, 3] {
            let member = Voucher::Keys(Arc::new(KeyPair::from_seed([1; 32])));
            let session = KeyPair::from_seed([seed; 32]);
            fleet.add(Identity::launched("mesh", "member", member, session));
        }
        fleet
    }

    fn arrive(fleet: &mut Fleet, numbers: &[u64]) -> Vec<(String, u64)> {
        for number in numbers {
            fleet.arrived(1, Instant::now(), &format!("{number:0DIGITS$}"));
        }
        let failed = fleet.tally.checks();
        let failed = failed.into_iter().filter(|check| check.count > 0);
        failed.map(|check| (check.name, check.count)).collect()
    }

    fn sent() -> Fleet {
        let mut fleet = pair();
        for number in 0..2 {
            assert_eq!(fleet.send(0, Target::One(1), 50), number);
        }
        fleet
    }

    #[test]
    fn what_was_not_acknowledged_before_a_kill_may_come_once_more() {
        let mut fleet = sent();
        fleet.broker_killed();
        assert_eq!(arrive(&mut fleet, &[0, 1, 0, 1]), []);
        assert_eq!((fleet.counts.received, fleet.counts.repeated), (2, 2));
    }

    #[test]
    fn otherwise_twice_is_an_error_and_so_is_disorder() {
        let twice = arrive(&mut sent(), &[0, 1, 1]);
        assert_eq!(twice, [(ERRORS.to_owned(), 1)]);
        let late = arrive(&mut sent(), &[1, 0]);
        assert_eq!(late, [(DISORDER.to_owned(), 1)]);
        let mut acknowledged = sent();
        acknowledged.acknowledged("x-0", Instant::now());
        acknowledged.broker_killed();
        assert_eq!(
            arrive(&mut acknowledged, &[0, 1, 0]),
            [(ERRORS.to_owned(), 1)]
        );
    }
}
