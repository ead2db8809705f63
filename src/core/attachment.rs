//! Which socket is attached to which session: the fencing rule lives here only.
//!
//! Every socket the shell opened has one entry. An attached entry holds the handle (slot and
//! generation) it was attached under; whatever the socket does is judged by that handle, so a
//! socket that was replaced can change nothing.

use crate::hello::Hello;
use crate::ids::{ConnId, PeerHandle, Position};
use crate::pages::Pages;
use crate::wheel::TimerKey;

/// What a socket is to the shard.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// No hello yet; the timer is its hello deadline.
    Greeting(TimerKey),
    /// Its hello is good, but the incumbent of its identity is asked first.
    Contending {
        /// Whose place it wants.
        slot: u32,
    },
    /// Attached under this handle; whether still, the session's generation decides.
    Attached(PeerHandle),
    /// Told to close; nothing it says counts.
    Closing,
}

/// A newcomer waiting for the incumbent's answer (design.md §8.1).
#[derive(Debug)]
pub(crate) struct Challenger {
    pub(crate) conn: ConnId,
    pub(crate) hello: Box<Hello>,
    /// Frames that it has sent meanwhile.
    pub(crate) held: Vec<Box<str>>,
    /// The ping whose pong is the incumbent's answer.
    pub(crate) asked: Position,
    pub(crate) timer: TimerKey,
}

/// All sockets of one loop, by the shell's slot.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    entries: Pages<Option<(u32, Attachment)>>,
    greeting: u64,
}

impl Attachments {
    /// Puts a socket in a state, whatever it was before.
    pub(crate) fn set(&mut self, conn: ConnId, attachment: Attachment) {
        let index = conn.slot as usize;
        while self.entries.len() <= index {
            self.entries.push(None);
        }
        if let Some(entry) = self.entries.get_mut(index) {
            let was = entry.replace((conn.generation, attachment));
            self.greeting -= u64::from(is_greeting(was.as_ref()));
            self.greeting += u64::from(is_greeting(entry.as_ref()));
        }
    }

    /// What the socket is; None if this shard does not know it.
    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Attachment> {
        match self.entries.get_mut(conn.slot as usize)? {
            Some((generation, attachment)) if *generation == conn.generation => Some(attachment),
            _ => None,
        }
    }

    /// Forgets the socket; returns what it was.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Attachment> {
        self.get_mut(conn)?;
        let entry = self.entries.get_mut(conn.slot as usize)?.take();
        self.greeting -= u64::from(is_greeting(entry.as_ref()));
        entry.map(|(_, attachment)| attachment)
    }

    /// Sockets without a completed hello.
    pub(crate) fn greeting(&self) -> u64 {
        self.greeting
    }

    /// Every socket that was not told to close, in slot order.
    pub(crate) fn open(&self) -> impl Iterator<Item = ConnId> + '_ {
        (0_u32..)
            .zip(self.entries.iter())
            .filter_map(|(slot, entry)| match entry {
                Some((_, Attachment::Closing)) | None => None,
                Some((generation, _)) => Some(ConnId {
                    slot,
                    generation: *generation,
                }),
            })
    }
}

fn is_greeting(entry: Option<&(u32, Attachment)>) -> bool {
    matches!(entry, Some((_, Attachment::Greeting(_))))
}

// There is an entry per socket.
const _: () = assert!(size_of::<Option<(u32, Attachment)>>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_is_another_socket() {
        let old = ConnId {
            slot: 3,
            generation: 1,
        };
        let new = ConnId {
            slot: 3,
            generation: 2,
        };
        let mut table = Attachments::default();
        table.set(old, Attachment::Closing);
        assert!(table.get_mut(new).is_none());
        table.set(
            new,
            Attachment::Attached(PeerHandle {
                slot: 0,
                generation: 0,
            }),
        );
        assert!(table.remove(old).is_none());
        assert!(table.remove(new).is_some());
        assert!(table.get_mut(new).is_none());
    }
}
