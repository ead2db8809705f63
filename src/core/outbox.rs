//! What was written to a session's socket and is not yet confirmed.
//!
//! Every direct message pushed gets the next *mark* of its attachment. Pings carry the mark
//! reached so far as a watermark; the pong that returns it proves that the client's WebSocket
//! stack took everything up to it. A client that acknowledges messages itself (`client_ack`) is
//! believed instead; the watermark only keeps its unconfirmed tail bounded.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::{PubKey, Seq};
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::rows::Priority;

/// A direct message in memory: its encoded push and what routing needs of it.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) seq: Seq,
    /// The key it was addressed to: names the mailbox it belongs to.
    pub(crate) target: PubKey,
    pub(crate) priority: Priority,
    pub(crate) sender_member: PubKey,
    pub(crate) sender_session: Option<PubKey>,
    /// The sending session, while the message has not been on disk only.
    pub(crate) sender_presence: Option<Box<str>>,
    pub(crate) client_message_id: Option<Box<str>>,
    pub(crate) frame: Bytes,
}

#[derive(Debug)]
struct Written {
    mail: Mail,
    mark: u64,
}

/// Messages of one session, in the order written, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    written: VecDeque<Written>,
    bytes: usize,
    mark: u64,
    pinged: u64,
    acknowledges: bool,
}

impl Outbox {
    /// Whether another message may be written.
    pub(crate) fn has_room(&self) -> bool {
        self.written.len() < OUTBOX_MESSAGES_MAX && self.bytes < OUTBOX_BYTES_MAX
    }

    /// Takes a message that is being written now.
    pub(crate) fn push(&mut self, mail: Mail) {
        self.mark += 1;
        self.bytes += mail.frame.len();
        self.written.push_back(Written {
            mail,
            mark: self.mark,
        });
    }

    /// A new attachment: marks start anew, and everything unconfirmed is written again, in order.
    pub(crate) fn rewrite(&mut self) -> impl Iterator<Item = &Bytes> {
        self.pinged = 0;
        self.mark = self.written.len() as u64;
        for (mark, written) in (1..).zip(&mut self.written) {
            written.mark = mark;
        }
        self.written.iter().map(|written| &written.mail.frame)
    }

    /// The watermark for a ping that is being written now.
    pub(crate) fn watermark(&mut self) -> u64 {
        self.pinged = self.mark;
        self.mark
    }

    /// Whether something was written since the last ping.
    pub(crate) fn unpinged(&self) -> bool {
        self.mark > self.pinged
    }

    /// Whether so much was written since the last ping that waiting for the next one would stall.
    pub(crate) fn wants_ping(&self) -> bool {
        self.mark - self.pinged >= (OUTBOX_MESSAGES_MAX / 2) as u64
            || (self.unpinged() && self.bytes >= OUTBOX_BYTES_MAX / 2)
    }

    /// A pong of the current attachment returned `watermark`; gives what that confirms. A
    /// watermark never sent confirms nothing.
    pub(crate) fn pong(&mut self, watermark: u64) -> Vec<Mail> {
        let mut confirmed = Vec::new();
        if watermark > self.pinged {
            return confirmed;
        }
        // A client that acks keeps its word for the newest half of the bound; the watermark
        // decides for what it left unacknowledged beyond that.
        let keep = if self.acknowledges {
            OUTBOX_MESSAGES_MAX / 2
        } else {
            0
        };
        let full = !self.has_room();
        while let Some(front) = self.written.front() {
            if front.mark > watermark || (self.written.len() <= keep && !full) {
                break;
            }
            confirmed.extend(self.remove(0));
        }
        confirmed
    }

    fn remove(&mut self, index: usize) -> Option<Mail> {
        let written = self.written.remove(index)?;
        self.bytes -= written.mail.frame.len();
        Some(written.mail)
    }

    /// The client acknowledged by broker id or by its sender's id; gives the messages meant. If the
    /// broker's id is held it decides: senders choose theirs, and two may choose the same.
    pub(crate) fn acknowledge(&mut self, seq: Option<Seq>, client_id: Option<&str>) -> Vec<Mail> {
        self.acknowledges = true;
        // Almost always the oldest, so the search ends early.
        let named = seq.and_then(|seq| self.written.iter().position(|w| w.mail.seq == seq));
        if let Some(index) = named {
            return self.remove(index).into_iter().collect();
        }
        let mut confirmed = Vec::new();
        let mut index = 0;
        while let Some(written) = self.written.get(index).filter(|_| client_id.is_some()) {
            if written.mail.client_message_id.as_deref() == client_id {
                confirmed.extend(self.remove(index));
            } else {
                index += 1;
            }
        }
        confirmed
    }

    /// Whether a message is written and unconfirmed.
    pub(crate) fn holds(&self, seq: Seq) -> bool {
        self.written.iter().any(|written| written.mail.seq == seq)
    }

    /// Gives everything up: the lease ended.
    pub(crate) fn take_all(&mut self) -> Vec<Mail> {
        self.bytes = 0;
        self.written.drain(..).map(|written| written.mail).collect()
    }

    /// Messages unconfirmed.
    pub(crate) fn len(&self) -> usize {
        self.written.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn mail(seq: u64) -> Mail {
        Mail {
            seq: Seq(seq),
            target: PubKey([1; 32]),
            priority: Priority::Next,
            sender_member: PubKey([2; 32]),
            sender_session: None,
            sender_presence: None,
            client_message_id: Some(format!("c{seq}").into()),
            frame: Bytes::from(format!("frame {seq}")),
        }
    }

    fn seqs(mails: &[Mail]) -> Vec<u64> {
        mails.iter().map(|mail| mail.seq.0).collect()
    }

    fn filled(count: u64) -> Outbox {
        let mut outbox = Outbox::default();
        (1..=count).for_each(|seq| outbox.push(mail(seq)));
        outbox
    }

    #[test]
    fn a_pong_confirms_what_was_written_before_its_ping_and_no_more() {
        let mut outbox = filled(3);
        assert_eq!(outbox.watermark(), 3);
        outbox.push(mail(4));
        assert!(outbox.pong(4).is_empty(), "never sent");
        assert_eq!(seqs(&outbox.pong(3)), [1, 2, 3]);
        assert!(outbox.pong(3).is_empty(), "repeated");
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn a_client_that_acks_is_believed_over_the_watermark() {
        let mut outbox = filled(4);
        assert_eq!(seqs(&outbox.acknowledge(Some(Seq(2)), None)), [2]);
        let mark = outbox.watermark();
        assert!(outbox.pong(mark).is_empty());
        assert_eq!(seqs(&outbox.acknowledge(None, Some("c4"))), [4]);
        assert_eq!(outbox.rewrite().count(), 2);
    }

    #[test]
    fn the_watermark_bounds_what_an_acking_client_left_out() {
        let mut outbox = filled(OUTBOX_MESSAGES_MAX as u64);
        outbox.acknowledge(Some(Seq(1)), None);
        outbox.push(mail(5000));
        assert!(!outbox.has_room());
        let mark = outbox.watermark();
        assert!(!outbox.pong(mark).is_empty());
        assert!(outbox.has_room());
    }

    #[test]
    fn rewriting_keeps_the_order_and_forgets_old_marks() {
        let mut outbox = filled(3);
        outbox.watermark();
        outbox.acknowledge(Some(Seq(1)), None);
        assert_eq!(
            outbox.rewrite().cloned().collect::<Vec<_>>(),
            ["frame 2", "frame 3"]
        );
        assert!(outbox.pong(2).is_empty(), "a pong to the old socket's ping");
        assert_eq!(outbox.watermark(), 2);
    }
}
