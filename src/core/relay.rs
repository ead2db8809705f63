//! Files and listings that one peer asks of another (protocol.md §20), while they are on their way.
//!
//! Nothing of it is kept: a request is forwarded to who is there, and its answer to the very
//! connection that asked. An answer counts only from whom the request went to, so that nobody is
//! sent what it did not ask for.

use std::collections::VecDeque;

use crate::ids::{PeerHandle, PubKey};
use crate::limits::{RELAYS_MAX, RELAYS_OF_SESSION_MAX};
use crate::time::Mono;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What is in a file.
    File,
    /// What is in a directory.
    Directory,
}

/// A request that was forwarded.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) wanted: Wanted,
    pub(crate) path: Box<str>,
    pub(crate) req_id: Option<Box<str>>,
    pub(crate) asker: PeerHandle,
    /// As whom the asker was shown.
    pub(crate) asker_key: PubKey,
    pub(crate) holder: PeerHandle,
    /// When the asker is told that there is no answer.
    pub(crate) until: Mono,
}

/// What an answer says of the request it is for.
pub(crate) struct Answered<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) path: &'a str,
    pub(crate) req_id: Option<&'a str>,
    pub(crate) asker_key: PubKey,
    pub(crate) holder: PeerHandle,
}

/// The requests of one mesh that wait for their answers, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    waiting: VecDeque<Relayed>,
    /// Whether a timer is set for the oldest.
    pub(crate) timed: bool,
}

/// Why no further request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    OfMesh,
    OfSession,
}

impl Relays {
    /// Notes a request, whose end is not before that of any other.
    pub(crate) fn push(&mut self, relayed: Relayed) -> Result<(), TooMany> {
        if self.waiting.len() >= RELAYS_MAX {
            return Err(TooMany::OfMesh);
        }
        let own = self.waiting.iter().filter(|it| it.asker == relayed.asker);
        if own.count() >= RELAYS_OF_SESSION_MAX {
            return Err(TooMany::OfSession);
        }
        self.waiting.push_back(relayed);
        Ok(())
    }

    /// Takes the request that an answer is for. Holders that do not echo the request's id are
    /// taken to answer the oldest.
    pub(crate) fn take(&mut self, answer: &Answered<'_>) -> Option<Relayed> {
        let at = self.waiting.iter().position(|it| {
            it.holder == answer.holder
                && it.asker_key == answer.asker_key
                && it.wanted == answer.wanted
                && *it.path == *answer.path
                && (answer.req_id.is_none() || it.req_id.as_deref() == answer.req_id)
        })?;
        self.waiting.remove(at)
    }

    /// Takes one whose time is over.
    pub(crate) fn overdue(&mut self, now: Mono) -> Option<Relayed> {
        self.waiting.pop_front_if(|first| first.until <= now)
    }

    /// When the oldest ends.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.waiting.front().map(|first| first.until)
    }
}
