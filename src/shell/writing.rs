//! Writing: what is queued for a socket, and what it does not take at once.

use std::mem;
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::net::{Shutdown, shutdown};
use tungstenite::protocol::frame::coding::Control;

use super::connection::Phase;
use super::limits::{FLUSH_BYTES, POOLED_QUEUES};
use super::observe;
use super::outbound::{Outbound, Written};
use super::reactor::Reactor;
use super::websocket::Header;
use crate::core::ids::ConnId;
use crate::core::limits::OUTBOUND_BYTES_MAX;

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
        let waiting = found.out.as_ref().map_or(0, |out| out.cost_behind());
        // Whoever reads a large answer may have another behind it, however large.
        if found.blocked && waiting > 0 && waiting + body.len() > OUTBOUND_BYTES_MAX {
            return self.slow_consumer(conn);
        }
        self.push(conn, header, body);
    }

    /// Queues the answer to a ping. While nothing can be written only the latest ping is answered.
    pub(super) fn queue_pong(&mut self, conn: ConnId, payload: &[u8]) {
        if let Some(found) = self.conns.get_mut(conn)
            && found.blocked
            && let Some(out) = &mut found.out
        {
            out.drop_last_pong();
        }
        let header = Header::control(Control::Pong, payload.len());
        self.queue(conn, header, Bytes::copy_from_slice(payload));
    }

    /// Queues without asking whether the socket may still be written to.
    pub(super) fn push(&mut self, conn: ConnId, header: Header, body: Bytes) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        let pool = &mut self.pool;
        let out = found
            .out
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        out.push(header, body);
        let large = out.cost() > FLUSH_BYTES;
        if !found.blocked && !found.dirty {
            found.dirty = true;
            self.dirty.push(conn);
        }
        if large && !found.blocked {
            self.flush(conn);
        }
        // A ping for everybody would otherwise need a queue for everybody.
        if self.dirty.len() >= POOLED_QUEUES {
            self.flush_all();
        }
    }

    /// Writes what has been queued for any socket.
    pub(super) fn flush_all(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            self.flush(conn);
        }
        // Its room is used again.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Bytes that wait for `conn`.
    pub(super) fn waiting(&mut self, conn: ConnId) -> usize {
        let found = self.conns.get_mut(conn);
        found
            .and_then(|found| found.out.as_ref())
            .map_or(0, |out| out.bytes())
    }

    /// Writes what is queued; what the socket does not take waits until it takes more.
    pub(super) fn flush(&mut self, conn: ConnId) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        if !found.blocked {
            self.write_more(conn);
        }
    }

    /// Writes also what waited for the socket to take more.
    pub(super) fn write_more(&mut self, conn: ConnId) {
        let blocked = self.write(conn);
        if let Some(found) = self.conns.get_mut(conn) {
            found.blocked = blocked;
        }
    }

    /// Returns whether the socket takes no more.
    fn write(&mut self, conn: ConnId) -> bool {
        let Some(found) = self.conns.get_mut(conn) else {
            return false;
        };
        found.dirty = false;
        let written = match &mut found.out {
            Some(_) if matches!(found.phase, Phase::Dead) => Written::Broken,
            Some(out) => out.write(found.socket.as_fd()),
            None => Written::All,
        };
        let failed = match written {
            Written::Blocked => return true,
            Written::All => None,
            Written::Broken => {
                found.broken = true;
                None
            }
            Written::Failed(errno) => Some(errno),
        };
        let closing = matches!(found.phase, Phase::Closing);
        if closing && !found.held && !found.finished {
            found.finished = true;
            shutdown(&found.socket, Shutdown::Write).ok();
        }
        if let Some(out) = found.out.take() {
            self.recycle(out);
        }
        if let Some(errno) = failed {
            observe::write_failed(conn, errno);
            self.abort(conn);
        }
        false
    }

    /// Keeps a queue for another socket.
    pub(super) fn recycle(&mut self, mut out: Box<Outbound>) {
        if self.pool.len() < POOLED_QUEUES && out.recycle() {
            self.pool.push(out);
        }
    }
}
