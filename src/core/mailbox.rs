//! Undelivered direct messages for one key, in order.
//!
//! The oldest are in memory up to a bound; from the first that does not fit, the rest stays on
//! disk until the memory part has drained. A message is thus in exactly one place: here in
//! memory, in the outbox of the session it was written to, or on disk only.

use std::collections::VecDeque;

use crate::ids::{Seq, Token};
use crate::limits::{MAILBOX_BYTES_MAX, MAILBOX_MESSAGES_MAX, UNDELIVERED_KEPT};
use crate::marks::{Mark, mark};
use crate::outbox::Mail;
use crate::time::Mono;

/// Where the tail of a mailbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Everything is in memory.
    Memory,
    /// Rows above this one are on disk only.
    Disk(Seq),
    /// Those rows were asked for; `more` tells that others came since.
    Loading {
        after: Seq,
        token: Token,
        more: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: VecDeque<Mail>,
    bytes: usize,
    tail: Tail,
    /// Whether a `now` message may be on disk, before which none may be written.
    now_on_disk: bool,
    /// When everything in it was left to the disk, if it was.
    unloaded: Option<Mono>,
    /// Some of what is on disk has been passed over: nobody present may have it.
    skipped: bool,
    /// The disk did not give its rows: it is not asked again before [`Self::rested`].
    resting: bool,
    /// Confirmed since rows were asked for: the answer may still hold them.
    confirmed: Vec<Seq>,
}

impl Mailbox {
    /// An empty mailbox.
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            tail: Tail::Memory,
            now_on_disk: false,
            unloaded: None,
            skipped: false,
            resting: false,
            confirmed: Vec::new(),
        }
    }

    /// A mailbox of which nothing is in memory.
    pub(crate) fn on_disk(now: Mono) -> Self {
        Self {
            tail: Tail::Disk(Seq(0)),
            now_on_disk: true,
            unloaded: Some(now),
            ..Self::new()
        }
    }

    /// Takes a new message; beyond the bound only its row exists.
    pub(crate) fn put(&mut self, mail: Mail) {
        self.unloaded = None;
        let full = self.queue.len() >= MAILBOX_MESSAGES_MAX || self.bytes >= MAILBOX_BYTES_MAX;
        // What is held must not starve what is not: a `now` stays in memory, up to twice the
        // bound, unless an earlier one is on disk.
        let now = mail.priority == crate::rows::Priority::Now;
        let crowded =
            self.queue.len() >= 2 * MAILBOX_MESSAGES_MAX || self.bytes >= 2 * MAILBOX_BYTES_MAX;
        if now && !self.now_on_disk && !crowded {
            if full && self.tail == Tail::Memory {
                self.tail = Tail::Disk(self.queue.back().map_or(Seq(0), |last| last.seq));
            }
            self.bytes += mail.frame.len();
            self.queue.push_back(mail);
            return;
        }
        match &mut self.tail {
            Tail::Memory if !full => {
                self.bytes += mail.frame.len();
                self.queue.push_back(mail);
                return;
            }
            Tail::Memory => {
                let after = self.queue.back().map_or(Seq(0), |last| last.seq);
                mark(Mark::MailboxSpill);
                self.tail = Tail::Disk(after);
            }
            Tail::Disk(_) => {}
            Tail::Loading { more, .. } => *more = true,
        }
        self.now_on_disk |= now;
    }

    /// Takes a message at its place in the order: one that was written but not confirmed, or one
    /// read back. One that is here already stays as it is.
    pub(crate) fn put_back(&mut self, mail: Mail) {
        let index = self.queue.partition_point(|queued| queued.seq < mail.seq);
        if self
            .queue
            .get(index)
            .is_some_and(|queued| queued.seq == mail.seq)
        {
            return;
        }
        self.bytes += mail.frame.len();
        self.queue.insert(index, mail);
    }

    /// Whether a `now` message may overtake what waits: only messages that are held anyway do.
    pub(crate) fn may_overtake(&self) -> bool {
        !self.now_on_disk
    }

    /// The first message that satisfies `wanted`, with its place.
    pub(crate) fn find(&self, mut wanted: impl FnMut(&Mail) -> bool) -> Option<(usize, Seq)> {
        self.queue
            .iter()
            .enumerate()
            .find(|(_, mail)| wanted(mail))
            .map(|(i, mail)| (i, mail.seq))
    }

    /// Removes the message at that place.
    pub(crate) fn take(&mut self, index: usize) -> Option<Mail> {
        let mail = self.queue.remove(index)?;
        self.bytes -= mail.frame.len();
        Some(mail)
    }

    /// Forgets a message whose row was never written; true if it was still here.
    pub(crate) fn forget(&mut self, seq: Seq) -> bool {
        let found = self.find(|mail| mail.seq == seq);
        found.and_then(|(index, _)| self.take(index)).is_some()
    }

    /// Whether there is room to read on, or nothing in memory comes before what is on disk, so that
    /// only reading helps.
    fn wants_load(&self, after: Seq) -> bool {
        self.queue.len() < MAILBOX_MESSAGES_MAX / 2
            || self.queue.front().is_some_and(|first| first.seq > after)
    }

    /// Whether it is time to read on: gives the row to read after, and counts as asked for under
    /// `token`.
    pub(crate) fn begin_load(&mut self, token: Token) -> Option<Seq> {
        match self.tail {
            Tail::Disk(after) if self.wants_load(after) && !self.resting => {
                self.tail = Tail::Loading {
                    after,
                    token,
                    more: false,
                };
                self.confirmed.clear();
                self.unloaded = None;
                Some(after)
            }
            Tail::Memory | Tail::Disk(_) | Tail::Loading { .. } => None,
        }
    }

    /// Whether what is in memory keeps it from reading on.
    pub(crate) fn is_clogged(&self) -> bool {
        matches!(self.tail, Tail::Disk(after) if !self.wants_load(after))
    }

    /// Passes over what is in memory, since nobody present may have it, to read what comes behind.
    pub(crate) fn skip(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        self.now_on_disk = true;
        self.skipped = true;
    }

    /// Somebody came who may have what was passed over: it is read from the beginning.
    pub(crate) fn rewind(&mut self, now: Mono) {
        if self.skipped {
            *self = Self::on_disk(now);
        }
    }

    /// All messages in memory.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mail> {
        self.queue.iter()
    }

    /// Whether `token` is the answer waited for; an answer to an earlier owner's question is not.
    pub(crate) fn awaits(&self, answer: Token) -> bool {
        matches!(self.tail, Tail::Loading { token, .. } if token == answer)
    }

    /// A message for this key reached its recipient.
    pub(crate) fn confirmed(&mut self, seq: Seq) {
        let loading = matches!(self.tail, Tail::Loading { .. });
        if loading && self.confirmed.len() <= MAILBOX_MESSAGES_MAX {
            self.confirmed.push(seq);
        }
    }

    /// The rows asked for; `more` if the limit cut them, `last` the highest read.
    pub(crate) fn loaded(&mut self, mails: Vec<Mail>, last: Option<Seq>, more: bool) {
        let Tail::Loading {
            after,
            more: came_since,
            ..
        } = self.tail
        else {
            return;
        };
        let confirmed = std::mem::take(&mut self.confirmed);
        if confirmed.len() > MAILBOX_MESSAGES_MAX {
            // Too many to tell which rows are old: they are asked for again.
            return self.load_again();
        }
        for mail in mails {
            if !confirmed.contains(&mail.seq) {
                self.put_back(mail);
            }
        }
        if more || came_since {
            self.tail = Tail::Disk(last.unwrap_or(after).max(after));
        } else {
            self.tail = Tail::Memory;
            self.now_on_disk = false;
        }
    }

    /// Reading failed; it will be tried again when it has [`rested`](Self::rested).
    pub(crate) fn load_failed(&mut self) {
        self.resting = true;
        self.load_again();
    }

    /// Enough time has passed since reading failed.
    pub(crate) fn rested(&mut self) {
        self.resting = false;
    }

    fn load_again(&mut self) {
        if let Tail::Loading { after, .. } = self.tail {
            self.tail = Tail::Disk(after);
        }
    }

    /// Gives up the memory part: the owner is gone, the rows are on disk.
    pub(crate) fn unload(&mut self, now: Mono) {
        if !self.is_empty() {
            *self = Self::on_disk(now);
        }
    }

    /// Whether it stands for rows only, which retention has deleted by now.
    pub(crate) fn outdated(&self, now: Mono) -> bool {
        let left = self.unloaded.filter(|_| self.queue.is_empty());
        left.is_some_and(|then| now.since(then) > UNDELIVERED_KEPT)
    }

    /// Whether nothing waits, in memory or on disk.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail == Tail::Memory && !self.skipped
    }

    /// Whether rows that come before `seq` may be on disk only, `all` of them wanted or just
    /// those of priority `now`.
    pub(crate) fn hides_before(&self, seq: Seq, all: bool) -> bool {
        match self.tail {
            Tail::Memory => false,
            Tail::Disk(after) | Tail::Loading { after, .. } => {
                after < seq && (all || self.now_on_disk)
            }
        }
    }

    /// Messages in memory.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::tests::mail;

    #[test]
    fn beyond_the_bound_messages_stay_on_disk_and_come_back_in_order() {
        let mut mailbox = Mailbox::new();
        let total = MAILBOX_MESSAGES_MAX as u64 + 50;
        (1..=total).for_each(|seq| mailbox.put(mail(seq)));
        assert_eq!(mailbox.len(), MAILBOX_MESSAGES_MAX);
        assert_eq!(mailbox.begin_load(Token(1)), None, "memory is still full");
        let mut read = Vec::new();
        while mailbox.len() >= MAILBOX_MESSAGES_MAX / 2 {
            read.extend(mailbox.take(0).map(|mail| mail.seq.0));
        }
        let after = mailbox.begin_load(Token(1)).expect("room to read on");
        assert_eq!(after.0, MAILBOX_MESSAGES_MAX as u64);
        assert_eq!(mailbox.begin_load(Token(1)), None, "asked once");
        mailbox.put(mail(total + 1));
        let rows: Vec<_> = (after.0 + 1..=total).map(mail).collect();
        mailbox.loaded(rows, Some(Seq(total)), false);
        assert!(!mailbox.is_empty());
        let after = mailbox.begin_load(Token(1)).or_else(|| {
            while mailbox.len() >= MAILBOX_MESSAGES_MAX / 2 {
                read.extend(mailbox.take(0).map(|mail| mail.seq.0));
            }
            mailbox.begin_load(Token(1))
        });
        assert_eq!(after, Some(Seq(total)));
        mailbox.loaded(vec![mail(total + 1)], Some(Seq(total + 1)), false);
        while let Some(next) = mailbox.take(0) {
            read.push(next.seq.0);
        }
        assert_eq!(read, (1..=total + 1).collect::<Vec<_>>());
        assert!(mailbox.is_empty());
    }

    #[test]
    fn what_is_held_does_not_starve_what_is_not() {
        let mut mailbox = Mailbox::new();
        let held = MAILBOX_MESSAGES_MAX as u64;
        (1..=held).for_each(|seq| mailbox.put(mail(seq)));
        let now = crate::rows::Priority::Now;
        let urgent = Mail {
            priority: now,
            ..mail(held + 1)
        };
        mailbox.put(urgent.clone());
        mailbox.put(mail(held + 2));
        let found = mailbox.find(|mail| mail.priority == now);
        assert_eq!(found.map(|(_, seq)| seq), Some(Seq(held + 1)));
        while mailbox.len() >= MAILBOX_MESSAGES_MAX / 2 {
            mailbox.take(0);
        }
        assert_eq!(mailbox.begin_load(Token(1)), Some(Seq(held)));
        mailbox.put_back(urgent.clone());
        let rows = vec![urgent, mail(held + 2)];
        mailbox.loaded(rows, Some(Seq(held + 2)), false);
        let read: Vec<_> = std::iter::from_fn(|| mailbox.take(0))
            .map(|m| m.seq.0)
            .collect();
        assert_eq!(read.last(), Some(&(held + 2)), "in order");
        assert_eq!(
            read.iter().filter(|seq| **seq == held + 1).count(),
            1,
            "and once"
        );
    }

    #[test]
    fn what_was_confirmed_meanwhile_is_not_taken_from_the_answer() {
        let mut mailbox = Mailbox::on_disk(Mono(0));
        mailbox.confirmed(Seq(1));
        assert_eq!(mailbox.begin_load(Token(1)), Some(Seq(0)));
        mailbox.confirmed(Seq(2));
        mailbox.loaded((1..=3).map(mail).collect(), Some(Seq(3)), false);
        let read: Vec<_> = std::iter::from_fn(|| mailbox.take(0))
            .map(|m| m.seq.0)
            .collect();
        assert_eq!(read, [1, 3]);
    }

    #[test]
    fn an_answer_older_than_too_many_confirmations_is_asked_for_again() {
        let mut mailbox = Mailbox::on_disk(Mono(0));
        assert_eq!(mailbox.begin_load(Token(1)), Some(Seq(0)));
        let many = MAILBOX_MESSAGES_MAX as u64 + 1;
        (1..=many).for_each(|seq| mailbox.confirmed(Seq(seq)));
        mailbox.loaded(vec![mail(1)], Some(Seq(1)), false);
        assert_eq!(mailbox.len(), 0);
        assert_eq!(mailbox.begin_load(Token(2)), Some(Seq(0)));
    }

    #[test]
    fn what_comes_back_keeps_its_place() {
        let mut mailbox = Mailbox::new();
        mailbox.put(mail(5));
        mailbox.put_back(mail(3));
        mailbox.put_back(mail(4));
        let order: Vec<_> = std::iter::from_fn(|| mailbox.take(0))
            .map(|m| m.seq.0)
            .collect();
        assert_eq!(order, [3, 4, 5]);
    }

    #[test]
    fn it_is_outdated_once_its_rows_are_deleted() {
        let later = Mono(UNDELIVERED_KEPT.0 + 1);
        assert!(!Mailbox::on_disk(Mono(0)).outdated(Mono(UNDELIVERED_KEPT.0)));
        assert!(Mailbox::on_disk(Mono(0)).outdated(later));
        let mut mailbox = Mailbox::on_disk(Mono(0));
        mailbox.put(mail(1));
        assert!(!mailbox.outdated(later), "it has mail that is younger");
        assert!(!Mailbox::new().outdated(later));
    }

    #[test]
    fn unloading_leaves_only_the_rows() {
        let mut mailbox = Mailbox::new();
        mailbox.unload(Mono(0));
        assert!(mailbox.is_empty());
        mailbox.put(mail(1));
        mailbox.unload(Mono(0));
        assert_eq!(mailbox.len(), 0);
        assert!(!mailbox.is_empty());
        assert_eq!(mailbox.begin_load(Token(1)), Some(Seq(0)));
        mailbox.load_failed();
        assert_eq!(mailbox.begin_load(Token(1)), None, "not at once");
        mailbox.rested();
        assert_eq!(mailbox.begin_load(Token(1)), Some(Seq(0)));
    }
}
