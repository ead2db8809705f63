//! One socket of this loop: its slot, its phases, and how it ends.
//!
//! ```text
//!  Http --upgrade--> Open --Handoff--> Departing --> (another loop)
//!    |                 |
//!    |                 +--close frame, either side's--> Closing
//!    +--last reply------------------------------------> Closing
//!  any --EOF, error, abort, or LINGER after Closing began--> Dead
//! ```
//! Whatever ends a connection only marks it; the slot is freed at the end of the turn, or by the
//! task that serves its HTTP, which is told. The core is told of the end in the turn in which the
//! socket leaves `Open`, exactly once; of one that departs it is not told, since it has sent that
//! one away itself.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::net::connect_unspec;
use tungstenite::protocol::frame::coding::Control;

use super::handoff::Departure;
use super::limits::{HELLO_BYTES_MAX, LINGER};
use super::notify::Notify;
use super::observe;
use super::outbound::Outbound;
use super::reactor::{Reactor, Timer};
use super::websocket::{self, Header};
use crate::core::effect::Close;
use crate::core::ids::ConnId;
use crate::core::input::Closing;
use crate::core::pages::PagedSlab;
use crate::core::wheel::TimerKey;

/// How far a socket has come.
pub(super) enum Phase {
    /// Speaks HTTP; the core does not know it.
    Http,
    /// Speaks WebSocket; the core knows it.
    Open(websocket::Reader),
    /// To be moved as soon as its frame has been dealt with; the core has forgotten it.
    Departing(Departure),
    /// Nothing is read or queued any more; what is queued is being written.
    Closing,
    /// To be freed.
    Dead,
}

/// One socket.
pub(super) struct Connection {
    generation: u32,
    pub(super) phase: Phase,
    pub(super) socket: OwnedFd,
    /// The task that reads it, while it speaks HTTP.
    pub(super) reader: Option<Rc<Notify>>,
    pub(super) out: Option<Box<Outbound>>,
    timer: Option<TimerKey>,
    /// Its hello has been accepted.
    joined: bool,
    /// In the list of those to be flushed at the end of the turn.
    pub(super) dirty: bool,
    /// It has not taken everything, and will be named when it takes more.
    pub(super) blocked: bool,
    /// The peer sends no more: there is an end to be read.
    pub(super) ended: bool,
    /// Nothing can be written any more.
    pub(super) broken: bool,
    /// Its HTTP deadline has passed.
    pub(super) expired: bool,
    /// Closing, but its close frame is yet to be queued.
    pub(super) held: bool,
    /// The end of our side has been written.
    pub(super) finished: bool,
}

/// The sockets of one loop.
#[derive(Default)]
pub(super) struct Connections {
    slots: PagedSlab<Connection>,
    generation: u32,
}

impl Connections {
    /// Takes a socket in.
    fn insert(&mut self, socket: OwnedFd, phase: Phase) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slots.insert(Connection {
            generation,
            phase,
            socket,
            reader: None,
            out: None,
            timer: None,
            joined: false,
            dirty: false,
            blocked: false,
            ended: false,
            broken: false,
            expired: false,
            held: false,
            finished: false,
        });
        // Descriptors number less than 2^32, so slots do.
        ConnId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            generation,
        }
    }

    /// The socket of that name, if it is still this one.
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let found = self.slots.get_mut(conn.slot as usize)?;
        (found.generation == conn.generation).then_some(found)
    }

    /// Frees a slot.
    fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        self.get_mut(conn)?;
        self.slots.try_remove(conn.slot as usize)
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every socket's name.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let id = |(slot, found): (usize, &Connection)| {
            Some(ConnId {
                slot: u32::try_from(slot).ok()?,
                generation: found.generation,
            })
        };
        self.slots.iter().filter_map(id).collect()
    }
}

impl Reactor {
    /// Takes a socket in and has it watched; None if the kernel will not.
    pub(super) fn take_in(&mut self, socket: OwnedFd, phase: Phase) -> Option<ConnId> {
        let conn = self.conns.insert(socket, phase);
        let found = self.conns.get_mut(conn)?;
        let Err(error) = self.poller.add(found.socket.as_fd(), conn) else {
            return Some(conn);
        };
        observe::unwatched(&error);
        self.conns.remove(conn);
        None
    }

    /// The core has accepted the hello of `conn`.
    pub(super) fn joined(&mut self, conn: ConnId) {
        if let Some(found) = self.conns.get_mut(conn) {
            found.joined = true;
        }
    }

    /// Largest message that `conn` may send now.
    pub(super) fn message_max(&mut self, conn: ConnId) -> usize {
        let joined = self.conns.get_mut(conn).is_some_and(|found| found.joined);
        if joined {
            self.max_frame_bytes
        } else {
            self.max_frame_bytes.min(HELLO_BYTES_MAX)
        }
    }

    /// Closes with a frame, after everything queued. The core is told now if it knows the socket.
    pub(super) fn close(&mut self, conn: ConnId, code: Option<u16>, reason: &str, how: Closing) {
        if self.leave(conn, Phase::Closing, how) {
            self.push_close(conn, code, reason);
        }
    }

    fn push_close(&mut self, conn: ConnId, code: Option<u16>, reason: &str) {
        let payload = code.map_or_else(Vec::new, |code| websocket::close_payload(code, reason));
        let header = Header::control(Control::Close, payload.len());
        self.push(conn, header, payload.into());
        self.set_timer(conn, LINGER);
    }

    /// Takes a socket from the core, to be closed later by [`Self::release`].
    pub(super) fn hold(&mut self, conn: ConnId) {
        if self.leave(conn, Phase::Closing, Closing::Abrupt)
            && let Some(found) = self.conns.get_mut(conn)
        {
            found.held = true;
        }
    }

    /// Closes a socket that was held.
    pub(super) fn release(&mut self, conn: ConnId, close: Close) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        if mem::take(&mut found.held) && matches!(found.phase, Phase::Closing) {
            self.push_close(conn, Some(close.code), close.reason);
        }
    }

    /// Ends an HTTP connection after what is queued.
    pub(super) fn finish(&mut self, conn: ConnId) {
        if self.leave(conn, Phase::Closing, Closing::Abrupt) {
            self.set_timer(conn, LINGER);
            self.flush(conn);
        }
    }

    /// Closes a client that does not read. What it has not begun to receive is dropped, so that
    /// the close frame is the next thing it sees, should it read again while we linger.
    pub(super) fn slow_consumer(&mut self, conn: ConnId) {
        observe::slow_consumer(self.counters(), conn);
        if let Some(out) = self
            .conns
            .get_mut(conn)
            .and_then(|found| found.out.as_mut())
        {
            out.cut();
        }
        let Close { code, reason } = Close::SLOW_CONSUMER;
        self.close(conn, Some(code), reason, Closing::Abrupt);
    }

    /// Ends a socket at once; its peer sees a reset.
    pub(super) fn abort(&mut self, conn: ConnId) {
        if !self.leave(conn, Phase::Dead, Closing::Abrupt) {
            return;
        }
        if let Some(found) = self.conns.get_mut(conn) {
            // Resets at once. Fails only if the peer has done so before.
            connect_unspec(&found.socket).ok();
            self.dying.push(conn);
        }
    }

    /// Frees the slots of sockets that were aborted in this turn.
    pub(super) fn bury(&mut self) {
        while let Some(conn) = self.dying.pop() {
            match self.conns.get_mut(conn).map(|found| &found.reader) {
                Some(Some(task)) => task.notify(),
                Some(None) => self.end(conn),
                None => {}
            }
        }
    }

    /// Leaves the present phase, telling the core if it knows the socket; false if it is dead.
    fn leave(&mut self, conn: ConnId, next: Phase, how: Closing) -> bool {
        let Some(found) = self.conns.get_mut(conn) else {
            return false;
        };
        match found.phase {
            Phase::Open(_) => self.unreported_ends.push_back((conn, how)),
            Phase::Http | Phase::Departing(_) => {}
            Phase::Closing if matches!(next, Phase::Closing) => return false,
            Phase::Closing => {}
            Phase::Dead => return false,
        }
        found.phase = next;
        true
    }

    /// Begins or restarts the socket's own time-out.
    pub(super) fn set_timer(&mut self, conn: ConnId, after: crate::core::time::Millis) {
        let deadline = self.clock.mono().after(after);
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        if let Some(timer) = found.timer.take() {
            self.timers.cancel(timer);
        }
        found.timer = Some(self.timers.insert(deadline, Timer::Connection(conn)));
    }

    /// Ends the socket's own time-out.
    pub(super) fn clear_timer(&mut self, conn: ConnId) {
        let timer = self
            .conns
            .get_mut(conn)
            .and_then(|found| found.timer.take());
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
    }

    /// A socket's own time-out came.
    pub(super) fn timed_out(&mut self, conn: ConnId) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        found.timer = None;
        match found.phase {
            Phase::Http => {
                found.expired = true;
                // It answers.
                if let Some(task) = &found.reader {
                    task.notify();
                }
            }
            Phase::Closing => self.abort(conn),
            Phase::Open(_) | Phase::Departing(_) | Phase::Dead => {}
        }
    }

    /// Closes a socket that is at its end, and frees its slot.
    pub(super) fn end(&mut self, conn: ConnId) {
        if self.forget(conn).is_some() {
            self.shared.socket_closed();
            self.freed = true;
        }
    }

    /// Frees the slot of a socket that ends or moves away, and gives the socket.
    pub(super) fn forget(&mut self, conn: ConnId) -> Option<OwnedFd> {
        self.leave(conn, Phase::Dead, Closing::Abrupt);
        let found = self.conns.remove(conn)?;
        if let Some(timer) = found.timer {
            self.timers.cancel(timer);
        }
        if let Some(out) = found.out {
            self.recycle(out);
        }
        Some(found.socket)
    }
}
