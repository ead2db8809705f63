//! The answers of one connection, in the order of its requests.
//!
//! Some answers wait for the store; those behind them wait too, so that a client sees its answers
//! in the order it asked.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::Token;
use crate::limits::{OUTBOUND_BYTES_MAX, REPLIES_WAITING_MAX};

#[derive(Debug)]
enum Reply {
    Waiting(Token),
    Ready(Bytes),
}

/// See the module. Empty on the steady path of requests that need no store.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    queue: VecDeque<Reply>,
    bytes: usize,
}

impl Replies {
    /// A place for the answer that comes with `token`; false if too many wait.
    #[must_use]
    pub(crate) fn wait(&mut self, token: Token) -> bool {
        self.queue.push_back(Reply::Waiting(token));
        !self.overfull()
    }

    /// Whether more waits than one connection may make the broker hold.
    pub(crate) fn overfull(&self) -> bool {
        self.queue.len() > REPLIES_WAITING_MAX || self.bytes > OUTBOUND_BYTES_MAX
    }

    /// An answer that is ready: given back if it may be written at once, else kept in its place.
    pub(crate) fn ready(&mut self, frame: Bytes) -> Option<Bytes> {
        if self.queue.is_empty() {
            return Some(frame);
        }
        self.bytes += frame.len();
        self.queue.push_back(Reply::Ready(frame));
        None
    }

    /// The answer that came with `token`.
    pub(crate) fn fill(&mut self, token: Token, frame: Bytes) {
        let place = self
            .queue
            .iter_mut()
            .find(|r| matches!(r, Reply::Waiting(t) if *t == token));
        if let Some(place) = place {
            self.bytes += frame.len();
            *place = Reply::Ready(frame);
        }
    }

    /// The next answer that may be written.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        match self.queue.pop_front()? {
            Reply::Ready(frame) => {
                self.bytes -= frame.len();
                Some(frame)
            }
            waiting @ Reply::Waiting(_) => {
                self.queue.push_front(waiting);
                None
            }
        }
    }

    /// Forgets everything: the socket that asked is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_the_order_of_the_questions() {
        let mut replies = Replies::default();
        assert_eq!(
            replies.ready(Bytes::from("at once")),
            Some(Bytes::from("at once"))
        );
        assert!(replies.wait(Token(1)));
        assert!(replies.wait(Token(2)));
        assert_eq!(replies.ready(Bytes::from("third")), None);
        replies.fill(Token(2), Bytes::from("second"));
        assert_eq!(replies.next(), None);
        replies.fill(Token(1), Bytes::from("first"));
        let written: Vec<_> = std::iter::from_fn(|| replies.next()).collect();
        assert_eq!(written, ["first", "second", "third"]);
        assert_eq!(
            replies.ready(Bytes::from("last")),
            Some(Bytes::from("last"))
        );
    }
}
