//! What was written to a session's socket and is not yet confirmed.
//!
//! Every direct message pushed gets the next *mark* of its attachment. Pings carry the mark
//! reached so far as a watermark; the pong that returns it proves that the client's WebSocket
//! stack took everything up to it. A client that acknowledges messages itself (`client_ack`) is
//! believed instead; the watermark only keeps its unconfirmed tail bounded.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::{Position, PubKey, Seq};
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::rows::{MessageRow, Origin, Priority};

/// A direct message in memory: its encoded push and what routing needs of it.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) seq: Seq,
    /// The key it was addressed to: names the mailbox it belongs to.
    pub(crate) target: PubKey,
    pub(crate) priority: Priority,
    pub(crate) sender_member: PubKey,
    pub(crate) sender_session: Option<PubKey>,
    /// The sending session, while the message has not been on disk only; empty if none sent it.
    pub(crate) sender_presence: Option<Box<str>>,
    pub(crate) client_message_id: Option<Box<str>>,
    pub(crate) frame: Bytes,
}

impl Mail {
    /// A message as its row has it, for that key.
    pub(crate) fn of_row(row: &MessageRow, target: PubKey, frame: Bytes) -> Self {
        let sender_presence = match row.origin {
            Origin::Sent => None,
            Origin::Scheduled | Origin::Reminder => Some(Box::default()),
        };
        Self {
            seq: row.seq,
            target,
            priority: row.priority,
            sender_member: row.sender_member_pubkey,
            sender_session: row.sender_session_pubkey,
            sender_presence,
            client_message_id: row.client_message_id.as_deref().map(Into::into),
            frame,
        }
    }
}

#[derive(Debug)]
struct Written {
    mail: Mail,
    mark: Position,
}

/// Messages of one session, in the order written, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Allocated by the first message, given up by [`Outbox::rest`].
    queue: Option<Box<Queue>>,
}

/// The pings of one attachment, and what was written since.
#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    /// Where the last ping was.
    pinged: Position,
    /// The last of them that came back.
    ponged: Position,
    /// Messages since the last ping.
    since_ping: u32,
}

#[derive(Debug, Default)]
struct Queue {
    written: VecDeque<Written>,
    bytes: usize,
    /// How many of them have been written to the present socket.
    rewritten: usize,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.written.len() < OUTBOX_MESSAGES_MAX && self.bytes < OUTBOX_BYTES_MAX
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        self.written.iter().position(|w| w.mail.seq == seq)
    }

    fn remove(&mut self, index: usize) -> Option<Mail> {
        let written = self.written.remove(index)?;
        self.bytes -= written.mail.frame.len();
        if index < self.rewritten {
            self.rewritten -= 1;
        }
        Some(written.mail)
    }

    /// What a watermark confirms, but for the newest `keep`, unless that leaves no room.
    fn confirm(&mut self, watermark: Position, keep: usize) -> Vec<Mail> {
        let mut confirmed = Vec::new();
        let full = !self.has_room();
        while let Some(front) = self.written.front().filter(|_| self.rewritten > 0) {
            if front.mark > watermark || (self.written.len() <= keep && !full) {
                break;
            }
            confirmed.extend(self.remove(0));
        }
        confirmed
    }
}

impl Watermarks {
    /// A message is being written now.
    pub(crate) fn wrote(&mut self) {
        self.since_ping = self.since_ping.saturating_add(1);
    }

    /// A ping is being written now, behind everything up to `mark`.
    pub(crate) fn ping(&mut self, mark: Position) {
        self.pinged = mark;
        self.since_ping = 0;
    }

    /// Where the last ping was; the zeroth place if there was none.
    pub(crate) fn pinged(&self) -> Position {
        self.pinged
    }

    /// The latest of the pings that came back.
    pub(crate) fn ponged(&self) -> Position {
        self.ponged
    }

    /// Whether the last ping has not come back yet.
    pub(crate) fn awaits_pong(&self) -> bool {
        self.pinged > self.ponged
    }

    /// Whether something was written since the last ping.
    pub(crate) fn unpinged(&self) -> bool {
        self.since_ping > 0
    }
}

impl Outbox {
    /// Whether another message may be written.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.has_room())
    }

    /// Takes a message that is being written now.
    pub(crate) fn push(&mut self, marks: &mut Watermarks, mail: Mail, mark: Position) {
        let queue = self.queue.get_or_insert_default();
        queue.bytes += mail.frame.len();
        queue.written.push_back(Written { mail, mark });
        queue.rewritten = queue.written.len();
        marks.wrote();
    }

    /// A new attachment: its socket has been written nothing.
    pub(crate) fn begin_attachment(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.rewritten = 0;
        }
    }

    /// The next unconfirmed message that the present socket has not been written.
    pub(crate) fn next_rewrite(&self) -> Option<Seq> {
        let queue = self.queue.as_ref()?;
        let written = queue.written.get(queue.rewritten)?;
        Some(written.mail.seq)
    }

    /// Writes that message again, under the same id.
    pub(crate) fn rewrite(&mut self, marks: &mut Watermarks, mark: Position) -> Option<Bytes> {
        let queue = self.queue.as_mut()?;
        let written = queue.written.get_mut(queue.rewritten)?;
        written.mark = mark;
        queue.rewritten += 1;
        marks.wrote();
        Some(written.mail.frame.clone())
    }

    /// Whether so much was written since the last ping that waiting for the next one would stall.
    /// For its bytes one ping is under way at a time: a client may take many at once for an attack.
    pub(crate) fn wants_ping(&self, marks: &Watermarks) -> bool {
        let bytes = self.queue.as_ref().map_or(0, |queue| queue.bytes);
        let heavy = bytes >= OUTBOX_BYTES_MAX / 2;
        marks.since_ping as usize >= OUTBOX_MESSAGES_MAX / 2
            || (marks.unpinged() && heavy && !marks.awaits_pong())
    }

    /// A pong of the current attachment returned `watermark`; gives what that confirms of a client
    /// that acknowledges by itself, or does not. A watermark never sent confirms nothing.
    pub(crate) fn pong(
        &mut self,
        marks: &mut Watermarks,
        watermark: Position,
        acknowledges: bool,
    ) -> Vec<Mail> {
        if watermark > marks.pinged {
            return Vec::new();
        }
        marks.ponged = marks.ponged.max(watermark);
        // A client that acks keeps its word for the newest half of the bound; the watermark
        // decides for what it left unacknowledged beyond that.
        let keep = if acknowledges {
            OUTBOX_MESSAGES_MAX / 2
        } else {
            0
        };
        let queue = self.queue.as_mut();
        queue.map_or_else(Vec::new, |queue| queue.confirm(watermark, keep))
    }

    /// The client acknowledged by broker id or by its sender's id; gives the messages meant. If the
    /// broker's id is held it decides: senders choose theirs, and two may choose the same.
    pub(crate) fn acknowledge(&mut self, seq: Option<Seq>, client_id: Option<&str>) -> Vec<Mail> {
        let Some(queue) = &mut self.queue else {
            return Vec::new();
        };
        // Almost always the oldest, so the search ends early.
        if let Some(index) = seq.and_then(|seq| queue.position(seq)) {
            return queue.remove(index).into_iter().collect();
        }
        let mut confirmed = Vec::new();
        let mut index = 0;
        while let Some(written) = queue.written.get(index).filter(|_| client_id.is_some()) {
            if written.mail.client_message_id.as_deref() == client_id {
                confirmed.extend(queue.remove(index));
            } else {
                index += 1;
            }
        }
        confirmed
    }

    /// Whether a message is written and unconfirmed.
    pub(crate) fn holds(&self, seq: Seq) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| queue.position(seq).is_some())
    }

    /// Gives everything up: the lease ended.
    pub(crate) fn take_all(&mut self) -> Vec<Mail> {
        let queue = self.queue.take().unwrap_or_default();
        let mails = queue.written.into_iter().map(|written| written.mail);
        mails.collect()
    }

    /// Messages unconfirmed.
    pub(crate) fn len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.written.len())
    }

    /// Nothing happens for a while: needs no memory if nothing is unconfirmed.
    pub(crate) fn rest(&mut self) {
        self.queue.take_if(|queue| queue.written.is_empty());
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

    fn filled(count: u64) -> (Outbox, Watermarks) {
        let (mut outbox, mut marks) = <(Outbox, Watermarks)>::default();
        (1..=count).for_each(|seq| outbox.push(&mut marks, mail(seq), Position(seq)));
        (outbox, marks)
    }

    fn new_socket(outbox: &mut Outbox) -> Watermarks {
        outbox.begin_attachment();
        Watermarks::default()
    }

    fn rewritten((outbox, marks): (&mut Outbox, &mut Watermarks), mut mark: u64) -> Vec<Bytes> {
        std::iter::from_fn(|| {
            mark += 1;
            outbox.rewrite(marks, Position(mark))
        })
        .collect()
    }

    #[test]
    fn a_pong_confirms_what_was_written_before_its_ping_and_no_more() {
        let (mut outbox, mut marks) = filled(3);
        marks.ping(Position(3));
        outbox.push(&mut marks, mail(4), Position(4));
        assert!(
            outbox.pong(&mut marks, Position(4), false).is_empty(),
            "never sent"
        );
        assert_eq!(
            seqs(&outbox.pong(&mut marks, Position(3), false)),
            [1, 2, 3]
        );
        assert!(
            outbox.pong(&mut marks, Position(3), false).is_empty(),
            "repeated"
        );
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn a_client_that_acks_is_believed_over_the_watermark() {
        let (mut outbox, mut marks) = filled(4);
        assert_eq!(seqs(&outbox.acknowledge(Some(Seq(2)), None)), [2]);
        marks.ping(Position(4));
        assert!(outbox.pong(&mut marks, Position(4), true).is_empty());
        assert_eq!(seqs(&outbox.acknowledge(None, Some("c4"))), [4]);
        marks = new_socket(&mut outbox);
        assert_eq!(rewritten((&mut outbox, &mut marks), 4).len(), 2);
    }

    #[test]
    fn the_watermark_bounds_what_an_acking_client_left_out() {
        let full = OUTBOX_MESSAGES_MAX as u64;
        let (mut outbox, mut marks) = filled(full);
        outbox.acknowledge(Some(Seq(1)), None);
        outbox.push(&mut marks, mail(5000), Position(full + 1));
        assert!(!outbox.has_room());
        marks.ping(Position(full + 1));
        assert!(!outbox.pong(&mut marks, Position(full + 1), true).is_empty());
        assert!(outbox.has_room());
    }

    #[test]
    fn rewriting_keeps_the_order_and_forgets_old_marks() {
        let (mut outbox, mut marks) = filled(3);
        marks.ping(Position(3));
        assert_eq!(seqs(&outbox.pong(&mut marks, Position(1), false)), [1]);
        marks = new_socket(&mut outbox);
        assert!(
            outbox.pong(&mut marks, Position(3), false).is_empty(),
            "an old socket's ping"
        );
        assert_eq!(outbox.next_rewrite(), Some(Seq(2)));
        assert_eq!(
            rewritten((&mut outbox, &mut marks), 10),
            ["frame 2", "frame 3"]
        );
        assert!(
            outbox.pong(&mut marks, Position(3), false).is_empty(),
            "not pinged yet"
        );
        marks.ping(Position(12));
        assert_eq!(seqs(&outbox.pong(&mut marks, Position(11), false)), [2]);
    }

    #[test]
    fn what_the_new_socket_has_not_been_written_is_confirmed_by_no_pong() {
        let (mut outbox, _) = filled(3);
        let mut marks = new_socket(&mut outbox);
        outbox.rewrite(&mut marks, Position(4));
        marks.ping(Position(4));
        assert_eq!(seqs(&outbox.pong(&mut marks, Position(4), false)), [1]);
        assert_eq!(outbox.next_rewrite(), Some(Seq(2)));
        assert_eq!(seqs(&outbox.acknowledge(Some(Seq(3)), None)), [3]);
        assert_eq!(rewritten((&mut outbox, &mut marks), 5), ["frame 2"]);
    }
}
