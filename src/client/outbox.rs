//! Sends that the broker has not answered yet.

use std::collections::VecDeque;

use super::settings::Settings;
use super::wire::Outgoing;

/// A queue bounded in number and bytes, oldest first. What is in it is written again on each new
/// connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Pending>,
    /// Of all frames together.
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    id: Box<str>,
    frame: String,
}

/// What became of a send that was to be queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits; this is its frame.
    New(String),
    /// It waits already.
    Known,
    /// There is no room for it.
    Full,
}

impl Outbox {
    pub(super) fn push(&mut self, message: &Outgoing, settings: &Settings) -> Queued {
        let id = &message.client_message_id;
        if self.position(id).is_some() {
            return Queued::Known;
        }
        let frame = message.frame();
        let bytes = self.bytes + frame.len();
        if self.queue.len() >= settings.unacknowledged || bytes > settings.unacknowledged_bytes {
            return Queued::Full;
        }
        self.bytes = bytes;
        self.queue.push_back(Pending {
            id: id.as_str().into(),
            frame: frame.clone(),
        });
        Queued::New(frame)
    }

    /// The broker has answered for `id`; whether it was waited for. Answers come in order, so
    /// the first entry is usually the one.
    pub(super) fn settle(&mut self, id: &str) -> bool {
        let position = self.position(id);
        position.and_then(|at| self.take(at)).is_some()
    }

    /// Gives up the largest, the oldest of several.
    pub(super) fn take_largest(&mut self) -> Option<String> {
        let sizes = self.queue.iter().map(|pending| pending.frame.len());
        let (at, _) = sizes.enumerate().rev().max_by_key(|(_, size)| *size)?;
        self.take(at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What to write on a new connection, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = String> {
        self.queue.iter().map(|pending| pending.frame.clone())
    }

    /// Gives everything up.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = String> {
        std::mem::take(self)
            .queue
            .into_iter()
            .map(|pending| pending.id.into_string())
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.queue.iter().position(|pending| &*pending.id == id)
    }

    fn take(&mut self, at: usize) -> Option<String> {
        let pending = self.queue.remove(at)?;
        self.bytes -= pending.frame.len();
        Some(pending.id.into_string())
    }
}
