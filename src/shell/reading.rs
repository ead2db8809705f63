//! Reading a WebSocket: the task of a connection, and what it does in each of its turns.

use std::mem;
use std::rc::Rc;

use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::connection::Phase;
use super::handoff::{self, Departure, Parcel};
use super::reactor::{Loop, Reactor};
use super::websocket::Message;
use super::{observe, sys};
use crate::core::ids::ConnId;
use crate::core::input::{Closing, Input};

/// What a connection's task does next.
pub(super) enum Next {
    /// Waits for more.
    Again,
    /// Parts with the socket.
    Depart(Departure, Vec<u8>),
    /// Ends.
    Gone,
}

/// What a read gave.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    End,
}

/// Goes on with a socket whose first turn came to `next`.
pub(super) fn start(lp: Rc<Loop>, conn: ConnId, socket: Rc<TcpStream>, next: Next) {
    match next {
        Next::Again => drop(monoio::spawn(run(lp, conn, socket))),
        Next::Depart(departure, residue) => handoff::send(&lp, socket, departure, residue),
        Next::Gone => lp.forget(conn),
    }
}

/// The task of one WebSocket, to the end of its slot. Kept small: there is one per session.
async fn run(lp: Rc<Loop>, conn: ConnId, socket: Rc<TcpStream>) {
    loop {
        // Owns no data, so nothing is lost if the runtime drops it at the end of the process.
        let ready = socket.readable(false).await;
        match lp.turn(|reactor| {
            if ready.is_ok() {
                reactor.read_turn(conn)
            } else {
                Next::Gone
            }
        }) {
            Next::Again => {}
            Next::Depart(departure, residue) => {
                return handoff::send(&lp, socket, departure, residue);
            }
            Next::Gone => return lp.forget(conn),
        }
    }
}

impl Reactor {
    /// Reads what has come, once: whoever sends more than fits the buffer waits for its next turn.
    fn read_turn(&mut self, conn: ConnId) -> Next {
        let mut buffer = mem::take(&mut self.buffer);
        let next = match self.read(conn, &mut buffer) {
            Read::Bytes(count) => self.absorb(conn, &mut buffer[..count]),
            Read::Nothing => Next::Again,
            Read::End => Next::Gone,
        };
        self.buffer = buffer;
        next
    }

    /// One read without waiting. [`Read::End`] when the slot is to be freed.
    pub(super) fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> Read {
        let Some(found) = self.conns.get_mut(conn) else {
            return Read::End;
        };
        if matches!(found.phase, Phase::Dead) {
            return Read::End;
        }
        match recv(sys::borrow(&found.socket), buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Read::End,
            Ok((_, count)) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    /// Gives the messages in `bytes` to the core, in order.
    pub(super) fn absorb(&mut self, conn: ConnId, bytes: &mut [u8]) -> Next {
        let Some(found) = self.conns.get_mut(conn) else {
            return Next::Gone;
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
        Next::Again
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
    fn after(&mut self, conn: ConnId, rest: &[u8]) -> Next {
        let Some(found) = self.conns.get_mut(conn) else {
            return Next::Gone;
        };
        match &found.phase {
            Phase::Departing(_) => {}
            Phase::Dead => return Next::Gone,
            // What comes after a close frame is read and thrown away.
            Phase::Closing | Phase::Http | Phase::Open(_) => return Next::Again,
        }
        self.flush(conn);
        let Some(found) = self.conns.get_mut(conn) else {
            return Next::Gone;
        };
        if found.blocked {
            observe::handoff_lost(self.counters());
            self.abort(conn);
            return Next::Gone;
        }
        let phase = mem::replace(&mut found.phase, Phase::Dead);
        self.forget(conn);
        match phase {
            Phase::Departing(departure) => Next::Depart(departure, rest.to_vec()),
            Phase::Http | Phase::Open(_) | Phase::Closing | Phase::Dead => Next::Gone,
        }
    }

    /// Begins WebSocket on a socket whose upgrade has been answered.
    pub(super) fn upgraded(&mut self, conn: ConnId, mut leftover: Vec<u8>) -> Next {
        let Some(found) = self.conns.get_mut(conn) else {
            return Next::Gone;
        };
        let Phase::Http = found.phase else {
            return Next::Again;
        };
        found.phase = Phase::Open(super::websocket::Reader::default());
        self.clear_timer(conn);
        observe::upgraded(self.counters());
        self.drive(Input::Opened { conn });
        self.absorb(conn, &mut leftover)
    }

    /// Takes in a socket from the loop that accepted it; its task is to be started.
    pub(super) fn adopt(&mut self, parcel: Parcel) {
        let Parcel {
            fd,
            mut residue,
            hello,
        } = parcel;
        let Ok(socket) = TcpStream::from_std(std::net::TcpStream::from(fd)) else {
            self.shared.socket_closed();
            return observe::handoff_lost(self.counters());
        };
        let socket = Rc::new(socket);
        let reader = super::websocket::Reader::default();
        let conn = self.conns.insert(Rc::clone(&socket), Phase::Open(reader));
        self.drive(Input::Adopted { conn, hello });
        let next = self.absorb(conn, &mut residue);
        self.adopted.push((conn, socket, next));
    }
}
