//! The answers of one connection, in the order of its requests.
//!
//! Some answers wait for the store; those behind them wait too, so that a client sees its answers
//! in the order it asked.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::Token;
use crate::limits::{LOOKUPS_AT_ONCE, LOOKUPS_BYTES_MAX, REPLIES_BYTES_MAX, REPLIES_WAITING_MAX};
use crate::marks::{Mark, mark};
use crate::rows::RecordQuery;
use crate::verbs::records::Asked;

#[derive(Debug)]
enum Reply {
    Waiting(Token),
    Ready(Bytes),
}

/// See the module. Nothing is allocated before the first answer that waits for the store.
#[derive(Debug, Default)]
pub(crate) struct Replies(Option<Box<Queue>>);

/// A question to the store that has to wait for others of its connection.
#[derive(Debug)]
pub(crate) struct Question {
    /// Its answer's place in the line.
    pub(crate) token: Token,
    pub(crate) query: Box<RecordQuery>,
    pub(crate) asked: Box<Asked>,
}

impl Question {
    /// Bytes of its texts; how many there are is bounded, too.
    fn bytes(&self) -> usize {
        self.query.ask.body_bytes()
    }
}

#[derive(Debug, Default)]
struct Queue {
    replies: VecDeque<Reply>,
    /// Of answers that are ready.
    bytes: usize,
    /// Those that are not being looked up yet.
    questions: VecDeque<Question>,
    question_bytes: usize,
    /// How many are.
    lookups: usize,
}

/// What becomes of an answer that is ready.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It may be written at once.
    Free(Bytes),
    /// It waits behind others.
    Kept,
    /// It does, and that is more than one connection may make the broker hold.
    Overfull,
}

impl Queue {
    fn overfull(&self) -> bool {
        self.replies.len() > REPLIES_WAITING_MAX
            || self.bytes.max(self.question_bytes) > REPLIES_BYTES_MAX
    }
}

impl Replies {
    /// A place for the answer that comes with `token`; false if too many wait.
    #[must_use]
    pub(crate) fn wait(&mut self, token: Token) -> bool {
        let queue = self.0.get_or_insert_default();
        queue.replies.push_back(Reply::Waiting(token));
        !queue.overfull()
    }

    /// An answer that is ready, in its place behind others.
    pub(crate) fn ready(&mut self, frame: Bytes) -> Line {
        let queue = self.0.as_mut();
        let Some(queue) = queue.filter(|queue| !queue.replies.is_empty()) else {
            return Line::Free(frame);
        };
        // However large one answer is, it alone is not too much.
        let overfull = queue.overfull();
        queue.bytes += frame.len();
        queue.replies.push_back(Reply::Ready(frame));
        if overfull { Line::Overfull } else { Line::Kept }
    }

    /// The answer that came with `token`; false if more waits than may.
    #[must_use]
    pub(crate) fn fill(&mut self, token: Token, frame: Bytes) -> bool {
        let Some(queue) = &mut self.0 else {
            return true;
        };
        let place = queue
            .replies
            .iter_mut()
            .find(|r| matches!(r, Reply::Waiting(t) if *t == token));
        let Some(place) = place else { return true };
        *place = Reply::Ready(frame.clone());
        let first = matches!(queue.replies.front(), Some(Reply::Ready(_)));
        let fits = first || !queue.overfull();
        queue.bytes += frame.len();
        fits
    }

    /// A question, to be looked up in its turn; false if more waits than may.
    #[must_use]
    pub(crate) fn ask(&mut self, question: Question) -> bool {
        let queue = self.0.get_or_insert_default();
        queue.question_bytes += question.bytes();
        queue.questions.push_back(question);
        !queue.overfull()
    }

    /// The next question to be looked up, if there is room for what it brings; it counts until it
    /// [has been](Self::looked_up).
    pub(crate) fn next_question(&mut self) -> Option<Question> {
        let queue = self.0.as_mut()?;
        // One always is: the others may all wait for its answer.
        let room = queue.lookups == 0 || queue.bytes <= LOOKUPS_BYTES_MAX;
        let room = room && queue.lookups < LOOKUPS_AT_ONCE;
        if !room && !queue.questions.is_empty() {
            mark(Mark::LookupHeld);
        }
        let question = room.then(|| queue.questions.pop_front()).flatten()?;
        queue.question_bytes -= question.bytes();
        queue.lookups += 1;
        Some(question)
    }

    /// A question has been looked up.
    pub(crate) fn looked_up(&mut self) {
        if let Some(queue) = &mut self.0 {
            queue.lookups = queue.lookups.saturating_sub(1);
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
        self.0
            .take_if(|queue| queue.replies.is_empty() && queue.lookups == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large() -> Bytes {
        Bytes::from(vec![b'x'; 2 * REPLIES_BYTES_MAX])
    }

    #[test]
    fn one_large_answer_behind_others_is_kept_and_no_second_one() {
        let mut replies = Replies::default();
        assert_eq!(replies.ready(large()), Line::Free(large()));
        assert!(replies.wait(Token(1)));
        assert_eq!(replies.ready(large()), Line::Kept);
        assert_eq!(replies.ready(Bytes::from("small")), Line::Overfull);
        assert!(
            replies.fill(Token(1), large()),
            "it and what follows can be written"
        );
        let mut written = std::iter::from_fn(|| replies.next());
        assert_eq!(
            written.by_ref().map(|frame| frame.len()).max(),
            Some(large().len())
        );
        assert_eq!(replies.ready(large()), Line::Free(large()));
    }

    #[test]
    fn answers_that_came_behind_one_that_did_not_are_bounded() {
        let mut replies = Replies::default();
        for number in 0..4 {
            assert!(replies.wait(Token(number)));
        }
        assert!(
            replies.fill(Token(2), large()),
            "however large the first is"
        );
        assert!(!replies.fill(Token(1), Bytes::from("small")));
        let mut replies = Replies::default();
        for number in 0..=REPLIES_WAITING_MAX as u64 {
            let fits = replies.wait(Token(number));
            assert_eq!(fits, number < REPLIES_WAITING_MAX as u64);
        }
    }
}
