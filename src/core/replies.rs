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

/// See the module. Nothing is allocated before the first answer that waits for the store.
#[derive(Debug, Default)]
pub(crate) struct Replies(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    replies: VecDeque<Reply>,
    bytes: usize,
}

impl Replies {
    /// A place for the answer that comes with `token`; false if too many wait.
    #[must_use]
    pub(crate) fn wait(&mut self, token: Token) -> bool {
        let queue = self.0.get_or_insert_default();
        queue.replies.push_back(Reply::Waiting(token));
        !self.overfull()
    }

    /// Whether more waits than one connection may make the broker hold.
    pub(crate) fn overfull(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| {
            queue.replies.len() > REPLIES_WAITING_MAX || queue.bytes > OUTBOUND_BYTES_MAX
        })
    }

    /// An answer that is ready: given back if it may be written at once, else kept in its place.
    pub(crate) fn ready(&mut self, frame: Bytes) -> Option<Bytes> {
        let queue = self.0.as_mut();
        let Some(queue) = queue.filter(|queue| !queue.replies.is_empty()) else {
            return Some(frame);
        };
        queue.bytes += frame.len();
        queue.replies.push_back(Reply::Ready(frame));
        None
    }

    /// The answer that came with `token`.
    pub(crate) fn fill(&mut self, token: Token, frame: Bytes) {
        let Some(queue) = &mut self.0 else { return };
        let place = queue
            .replies
            .iter_mut()
            .find(|r| matches!(r, Reply::Waiting(t) if *t == token));
        if let Some(place) = place {
            queue.bytes += frame.len();
            *place = Reply::Ready(frame);
        }
    }

    /// There is no answer to come with `token` after all.
    pub(crate) fn forgo(&mut self, token: Token) {
        if let Some(queue) = &mut self.0 {
            let waits = |reply: &Reply| matches!(reply, Reply::Waiting(other) if *other == token);
            queue.replies.retain(|reply| !waits(reply));
        }
    }

    /// The next answer that may be written.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let queue = self.0.as_mut()?;
        match queue.replies.pop_front()? {
            Reply::Ready(frame) => {
                queue.bytes -= frame.len();
                Some(frame)
            }
            waiting @ Reply::Waiting(_) => {
                queue.replies.push_front(waiting);
                None
            }
        }
    }

    /// Nothing happens for a while: needs no memory if nothing waits.
    pub(crate) fn rest(&mut self) {
        self.0.take_if(|queue| queue.replies.is_empty());
    }
}
