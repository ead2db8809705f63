//! Reading a WebSocket: what comes is given to the core, message by message.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::connection::Phase;
use super::handoff::Parcel;
use super::observe;
use super::reactor::Reactor;
use super::websocket::{Message, Reader};
use crate::core::ids::ConnId;
use crate::core::input::{Closing, Input};

/// What a read gave.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    End,
}

impl Reactor {
    /// Reads what has come, once: whoever sends more than fits the buffer waits for its next turn.
    pub(super) fn read_turn(&mut self, conn: ConnId) {
        let mut buffer = mem::take(&mut self.buffer);
        match self.read(conn, &mut buffer) {
            Read::Bytes(count) => {
                self.absorb(conn, &mut buffer[..count]);
                self.read_on(conn, count == buffer.len());
            }
            Read::Nothing => {}
            Read::End => self.end(conn),
        }
        self.buffer = buffer;
    }

    /// After bytes: sees to it that what else is there is read in a later turn.
    fn read_on(&mut self, conn: ConnId, more: bool) {
        if let Some(found) = self.conns.get_mut(conn)
            && (more || found.ended)
        {
            self.poller.again(found.socket.as_fd(), conn);
        }
    }

    /// The task that has read a socket reads it no more; there may be more than it has read.
    pub(super) fn read_from_here(&mut self, conn: ConnId, more: bool) {
        if let Some(found) = self.conns.get_mut(conn) {
            found.reader = None;
            self.read_on(conn, more);
        }
    }

    /// One read without waiting. [`Read::End`] when the slot is to be freed.
    pub(super) fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> Read {
        match self.conns.get_mut(conn) {
            Some(found) if !matches!(found.phase, Phase::Dead) => {
                receive(found.socket.as_fd(), buffer)
            }
            Some(_) | None => Read::End,
        }
    }

    /// Gives the messages in `bytes` to the core, in order.
    pub(super) fn absorb(&mut self, conn: ConnId, bytes: &mut [u8]) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        let Phase::Open(reader) = &mut found.phase else {
            return self.after(conn, &[]);
        };
        let mut reader = mem::take(reader);
        let mut input = bytes;
        loop {
            let max = self.message_max(conn);
            match reader.next(&mut input, max) {
                Ok(None) => break,
                Ok(Some(message)) => self.on_message(conn, &message),
                Err(violation) => {
                    observe::violation(self.counters(), conn, violation);
                    self.close(
                        conn,
                        Some(violation.code),
                        violation.reason,
                        Closing::Abrupt,
                    );
                }
            }
            // The core may have done anything to the socket.
            match self.conns.get_mut(conn).map(|found| &found.phase) {
                Some(Phase::Open(_)) => {}
                Some(Phase::Http | Phase::Departing(_) | Phase::Closing | Phase::Dead) | None => {
                    return self.after(conn, input);
                }
            }
        }
        if let Some(found) = self.conns.get_mut(conn)
            && let Phase::Open(place) = &mut found.phase
        {
            *place = reader;
        }
    }

    fn on_message(&mut self, conn: ConnId, message: &Message<'_>) {
        match *message {
            Message::Text(text) => self.drive(Input::Frame { conn, text }),
            Message::Undecodable => self.drive(Input::Undecodable { conn }),
            Message::Ping(payload) => {
                self.queue_pong(conn, payload);
                self.drive(Input::Pinged { conn });
            }
            Message::Pong(payload) => self.drive(Input::Ponged { conn, payload }),
            Message::Close(code) => self.close(conn, code, "", Closing::Clean),
        }
    }

    /// What becomes of a socket that is no longer open, with what was read and not looked at.
    fn after(&mut self, conn: ConnId, rest: &[u8]) {
        match self.conns.get_mut(conn).map(|found| &found.phase) {
            Some(Phase::Departing(_)) => self.depart(conn, rest),
            Some(Phase::Dead) => self.end(conn),
            // What comes after a close frame is read and thrown away.
            Some(Phase::Closing | Phase::Http | Phase::Open(_)) | None => {}
        }
    }

    /// Begins WebSocket on a socket whose upgrade has been answered.
    pub(super) fn upgraded(&mut self, conn: ConnId, mut leftover: Vec<u8>) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        let Phase::Http = found.phase else { return };
        found.phase = Phase::Open(Reader::default());
        self.clear_timer(conn);
        observe::upgraded(self.counters());
        self.drive(Input::Opened { conn });
        self.absorb(conn, &mut leftover);
    }

    /// Takes in a socket from the loop that accepted it.
    pub(super) fn adopt(&mut self, parcel: Parcel) {
        let Parcel {
            fd,
            mut residue,
            hello,
        } = parcel;
        let Some(conn) = self.take_in(fd, Phase::Open(Reader::default())) else {
            self.shared.socket_closed();
            return observe::handoff_lost(self.counters());
        };
        self.drive(Input::Adopted { conn, hello });
        self.absorb(conn, &mut residue);
    }
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Read {
    match recv(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Read::End,
        Ok((_, count)) => Read::Bytes(count),
        Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
        Err(_) => Read::End,
    }
}
