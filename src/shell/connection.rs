//! One socket of this loop: its slot, its phases, and how it ends.
//!
//! ```text
//!  Http --upgrade--> Open --Handoff--> Departing --> (another loop)
//!    \                 |
//!     \                +--close frame, either side's--> Closing --EOF or linger--> Dead
//!      +--last reply--> Closing
//! ```
//! The task that reads a socket owns its slot: whatever ends a connection only marks it and wakes
//! that task (by shutting the socket down), and the task frees the slot. The core is told of the
//! end at once, exactly once, when the socket leaves `Open`.

use std::mem;
use std::rc::Rc;

use bytes::Bytes;
use monoio::net::TcpStream;
use rustix::net::{Shutdown, connect_unspec, shutdown};
use slab::Slab;
use tungstenite::protocol::frame::coding::Control;

use super::handoff::Departure;
use super::limits::{FLUSH_BYTES, LINGER, POOLED_QUEUES};
use super::outbound::{Outbound, Written};
use super::reactor::{Reactor, Timer};
use super::websocket::{self, Header};
use super::{observe, sys};
use crate::core::effect::Close;
use crate::core::ids::ConnId;
use crate::core::input::Closing;
use crate::core::limits::OUTBOUND_BYTES_MAX;
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
    /// To be freed by its task.
    Dead,
}

/// One socket.
pub(super) struct Connection {
    generation: u32,
    pub(super) phase: Phase,
    pub(super) socket: Rc<TcpStream>,
    out: Option<Box<Outbound>>,
    timer: Option<TimerKey>,
    /// In the list of those to be flushed at the end of the turn.
    dirty: bool,
    /// A task waits until it takes more.
    pub(super) blocked: bool,
    /// Nothing can be written any more.
    broken: bool,
    /// Its HTTP deadline has passed.
    pub(super) expired: bool,
    /// Closing, but its close frame is yet to be queued.
    held: bool,
    /// The end of our side has been written.
    finished: bool,
}

/// The sockets of one loop.
#[derive(Default)]
pub(super) struct Connections {
    slots: Slab<Connection>,
    generation: u32,
}

impl Connections {
    /// Takes a socket in.
    pub(super) fn insert(&mut self, socket: Rc<TcpStream>, phase: Phase) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slots.insert(Connection {
            generation,
            phase,
            socket,
            out: None,
            timer: None,
            dirty: false,
            blocked: false,
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
    /// Queues a frame (or, with an empty header, bytes as they are) for the end of the turn.
    pub(super) fn queue(&mut self, conn: ConnId, header: Header, body: Bytes) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        match found.phase {
            Phase::Http | Phase::Open(_) if !found.broken => {}
            Phase::Http | Phase::Open(_) | Phase::Departing(_) | Phase::Closing | Phase::Dead => {
                return;
            }
        }
        let waiting = found.out.as_ref().map_or(0, |out| out.behind());
        if found.blocked && waiting + body.len() > OUTBOUND_BYTES_MAX {
            return self.slow_consumer(conn);
        }
        self.push(conn, header, body);
    }

    fn push(&mut self, conn: ConnId, header: Header, body: Bytes) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        let pool = &mut self.pool;
        let out = found
            .out
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        out.push(header, body);
        let large = out.bytes() > FLUSH_BYTES;
        if !found.blocked && !found.dirty {
            found.dirty = true;
            self.dirty.push(conn);
        }
        if large && !found.blocked {
            self.flush(conn);
        }
    }

    /// Bytes that wait for `conn`.
    pub(super) fn waiting(&mut self, conn: ConnId) -> usize {
        let found = self.conns.get_mut(conn);
        found
            .and_then(|found| found.out.as_ref())
            .map_or(0, |out| out.bytes())
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
    fn slow_consumer(&mut self, conn: ConnId) {
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
            // Resets at once, and wakes whoever waits on the socket. Fails only if the peer has
            // done so before.
            connect_unspec(sys::borrow(&found.socket)).ok();
        }
    }

    /// Leaves the present phase, telling the core if it knows the socket; false if it is dead.
    fn leave(&mut self, conn: ConnId, next: Phase, how: Closing) -> bool {
        let Some(found) = self.conns.get_mut(conn) else {
            return false;
        };
        match found.phase {
            Phase::Open(_) => self.owed.push_back((conn, how)),
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
                // Wakes its task, which answers.
                found.expired = true;
                shutdown(sys::borrow(&found.socket), Shutdown::Read).ok();
            }
            Phase::Closing => self.abort(conn),
            Phase::Open(_) | Phase::Departing(_) | Phase::Dead => {}
        }
    }

    /// Writes what is queued; what the socket does not take is left to a task of its own.
    pub(super) fn flush(&mut self, conn: ConnId) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        if !found.blocked && self.write(conn) {
            let Some(found) = self.conns.get_mut(conn) else {
                return;
            };
            found.blocked = true;
            let socket = Rc::clone(&found.socket);
            self.blocked.push((conn, socket));
        }
    }

    /// Writes more of a blocked socket; false when there is no more to wait for.
    pub(super) fn write_more(&mut self, conn: ConnId) -> bool {
        let blocked = self.write(conn);
        if let Some(found) = self.conns.get_mut(conn) {
            found.blocked = blocked;
        }
        blocked
    }

    /// Returns whether the socket takes no more.
    fn write(&mut self, conn: ConnId) -> bool {
        let Some(found) = self.conns.get_mut(conn) else {
            return false;
        };
        found.dirty = false;
        let written = match &mut found.out {
            Some(_) if matches!(found.phase, Phase::Dead) => Written::Broken,
            Some(out) => out.write(sys::borrow(&found.socket)),
            None => Written::All,
        };
        match written {
            Written::Blocked => return true,
            Written::All => {}
            Written::Broken => found.broken = true,
        }
        let closing = matches!(found.phase, Phase::Closing);
        if closing && !found.held && !found.finished {
            found.finished = true;
            shutdown(sys::borrow(&found.socket), Shutdown::Write).ok();
        }
        if let Some(out) = found.out.take() {
            self.recycle(out);
        }
        false
    }

    /// Frees the slot of a socket whose task ends, or that moves away.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.leave(conn, Phase::Dead, Closing::Abrupt);
        let Some(found) = self.conns.remove(conn) else {
            return;
        };
        if let Some(timer) = found.timer {
            self.timers.cancel(timer);
        }
        if found.blocked {
            // Ends the task that waits to write.
            shutdown(sys::borrow(&found.socket), Shutdown::Both).ok();
        }
        if let Some(out) = found.out {
            self.recycle(out);
        }
    }

    fn recycle(&mut self, mut out: Box<Outbound>) {
        if self.pool.len() < POOLED_QUEUES && out.recycle() {
            self.pool.push(out);
        }
    }
}
