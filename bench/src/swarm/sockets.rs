//! What a swarm does with its sockets.

use std::io;
use std::time::Instant;

use holdfast::client::{Event, Frame, Input, Output};
use rustix::event::epoll;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frames::{self, Heard};
use super::socket::{Said, Socket, Trouble};
use super::{Happened, Peer, Swarm, source_of, ticket, ticket_of};

impl Swarm {
    pub(super) fn ready(&mut self, data: u64, flags: epoll::EventFlags) {
        let (peer, sockets) = ticket_of(data);
        let fits = |found: &&mut Peer| found.sockets == sockets && found.socket.is_some();
        let Some(found) = self.peers.get_mut(peer).filter(fits) else {
            return;
        };
        let broken = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        if flags.intersects(epoll::EventFlags::OUT | broken) {
            let request = &self.request;
            let socket = found.socket.as_mut();
            let written = socket.map_or(Ok(()), |socket| socket.writable(request));
            // What the broker said before it broke the connection is read first.
            if let Err(trouble) = written
                && !flags.contains(epoll::EventFlags::IN)
            {
                return self.broken(peer, &trouble);
            }
            self.watch(peer);
        }
        if flags.intersects(epoll::EventFlags::IN | broken) {
            self.read(peer);
        }
    }

    /// Reads what one socket has.
    fn read(&mut self, peer: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let socket = self.peers.get_mut(peer).and_then(|p| p.socket.take());
            let Some(mut socket) = socket else { break };
            let sockets = self.peers.get(peer).map(|p| p.sockets);
            let mut closed = false;
            // The session may write while it is read to: the socket is away meanwhile.
            let mut unwritten = Vec::new();
            let read = socket.read(&mut buffer, &mut |said| {
                closed |= self.said(peer, &said, &mut unwritten);
            });
            let replaced = self.peers.get(peer).map(|p| p.sockets) != sockets;
            if closed || replaced {
                self.drop_socket(socket, false);
                break;
            }
            let outcome = read.and_then(|more| socket.send(&unwritten).map(|()| more));
            if let Some(found) = self.peers.get_mut(peer) {
                found.socket = Some(socket);
            }
            match outcome {
                Ok(true) => {}
                Ok(false) => {
                    if !unwritten.is_empty() {
                        self.watch(peer);
                    }
                    break;
                }
                Err(trouble) => {
                    self.broken(peer, &trouble);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Gives a session what its socket said, and what it writes to `unwritten`; whether the socket
    /// is over.
    fn said(&mut self, peer: usize, said: &Said<'_>, unwritten: &mut Vec<u8>) -> bool {
        let input = match *said {
            Said::Opened => Input::Opened,
            Said::Heard(Heard::Text(text)) => {
                self.heard += 1;
                Input::Text(text)
            }
            Said::Heard(Heard::Ping(payload)) => Input::Ping(payload),
            Said::Heard(Heard::Pong(payload)) => Input::Pong(payload),
            Said::Heard(Heard::Close(code, reason)) => Input::Closed { code, reason },
        };
        let over = matches!(input, Input::Closed { .. });
        let outputs = self.outputs(peer, input);
        let at = Instant::now();
        let mut ended = over;
        for output in outputs {
            match output {
                Output::Write(frame) => self.encode(frame, unwritten),
                Output::Event(event) => self.tell(peer, at, *event),
                Output::Close | Output::Abort => ended = true,
                Output::Connect => self.connect(peer),
            }
        }
        ended
    }

    fn outputs(&mut self, peer: usize, input: Input<'_>) -> Vec<Output> {
        let now = self.now();
        let mut outputs = Vec::new();
        if let Some(found) = self.peers.get_mut(peer) {
            found.session.handle(now, input, &mut outputs);
        }
        self.arm(peer);
        outputs
    }

    /// Gives a session an input that is not of its socket.
    pub(super) fn give(&mut self, peer: usize, input: Input<'_>) {
        let outputs = self.outputs(peer, input);
        let at = Instant::now();
        let mut bytes = std::mem::take(&mut self.frame);
        bytes.clear();
        for output in outputs {
            match output {
                Output::Write(frame) => self.encode(frame, &mut bytes),
                Output::Event(event) => self.tell(peer, at, *event),
                Output::Connect => self.connect(peer),
                Output::Close | Output::Abort => {
                    self.send(peer, &bytes);
                    bytes.clear();
                    let socket = self.peers.get_mut(peer).and_then(|p| p.socket.take());
                    if let Some(socket) = socket {
                        self.drop_socket(socket, output == Output::Abort);
                    }
                }
            }
        }
        self.send(peer, &bytes);
        self.frame = bytes;
    }

    fn tell(&mut self, peer: usize, at: Instant, event: Event) {
        self.happened.push(Happened { peer, at, event });
    }

    fn encode(&mut self, frame: Frame, out: &mut Vec<u8>) {
        self.mask = self.mask.rotate_left(5).wrapping_mul(0x9e37_79b1);
        let (opcode, payload) = match frame {
            Frame::Text(text) => (OpCode::Data(Data::Text), text.into_bytes()),
            Frame::Ping(payload) => (OpCode::Control(Control::Ping), payload),
            Frame::Pong(payload) => (OpCode::Control(Control::Pong), payload),
        };
        self.written += payload.len() as u64;
        frames::write(opcode, &payload, self.mask, out);
    }

    fn send(&mut self, peer: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let socket = self.peers.get_mut(peer).and_then(|p| p.socket.as_mut());
        let Some(socket) = socket else { return };
        match socket.send(bytes) {
            Ok(()) if socket.wants_to_write() => self.watch(peer),
            Ok(()) => {}
            Err(trouble) => self.broken(peer, &trouble),
        }
    }

    pub(super) fn connect(&mut self, peer: usize) {
        let source = self.address.ip().is_loopback().then(|| source_of(peer));
        let source = source.filter(|_| self.address.is_ipv4());
        let made = Socket::connect(self.address, source).and_then(|socket| {
            let found = self.peers.get_mut(peer).ok_or(io::ErrorKind::NotFound)?;
            found.sockets = found.sockets.wrapping_add(1);
            found.since = Some(Instant::now());
            found.deaf = false;
            let data = epoll::EventData::new_u64(ticket(peer, found.sockets));
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::add(&self.epoll, &socket, data, flags)?;
            found.socket = Some(socket);
            Ok(())
        });
        if let Err(error) = made {
            self.give(peer, Input::Broken(&error.to_string()));
        }
    }

    /// Watches a socket for what it wants.
    pub(super) fn watch(&mut self, peer: usize) {
        let Some(found) = self.peers.get(peer) else {
            return;
        };
        let Some(socket) = &found.socket else { return };
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, !found.deaf);
        flags.set(epoll::EventFlags::OUT, socket.wants_to_write());
        let data = epoll::EventData::new_u64(ticket(peer, found.sockets));
        if let Err(errno) = epoll::modify(&self.epoll, socket, data, flags) {
            self.broken(peer, &Trouble::System(errno));
        }
    }

    fn broken(&mut self, peer: usize, trouble: &Trouble) {
        let socket = self.peers.get_mut(peer).and_then(|p| p.socket.take());
        if let Some(socket) = socket {
            self.drop_socket(socket, false);
            self.give(peer, Input::Broken(&trouble.to_string()));
        }
    }

    pub(super) fn drop_socket(&self, socket: Socket, abruptly: bool) {
        // A socket that cannot be told how to end ends by being dropped.
        if abruptly {
            let _ended = socket.reset();
        } else {
            let _ended = socket.close();
        }
    }
}
