//! The blocking driver: one thread per session, which sleeps until its socket, its user or its
//! session's deadline wants something.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tungstenite::{Error, Message};

use super::Event;
use super::clock::Clock;
use super::io::{Command, Input, Output};
use super::session::Session;
use super::socket::{Socket, Url};

/// Messages read in one turn, so that orders are not kept waiting by a busy broker.
const TURN: usize = 1024;

/// What a handle tells its thread.
#[derive(Debug)]
pub(super) enum Order {
    /// For the session.
    Command(Command),
    /// Reset the socket.
    Cut,
    /// Reset the socket and end.
    Stop,
}

/// All that a session's thread has.
pub(super) struct Driver {
    pub(super) session: Session,
    pub(super) url: Url,
    /// How long a step of opening a socket may take.
    pub(super) patience: Duration,
    pub(super) orders: Receiver<Order>,
    /// Readable when there are orders.
    pub(super) wake: Arc<OwnedFd>,
    pub(super) events: SyncSender<Event>,
    pub(super) clock: Clock,
    pub(super) socket: Option<Socket>,
    /// Whether the last turn ended before everything was read.
    pub(super) more: bool,
    /// A write has failed. What the broker said before, such as why it closes, is read first.
    pub(super) unwritable: Option<Error>,
}

/// How a driver's thread ends.
enum Stopped {
    /// The session is over.
    Gone,
    /// The handle is gone.
    Dropped,
}

impl Driver {
    /// Runs until the session is gone or nobody wants it any more.
    pub(super) fn run(mut self) {
        self.give(Input::Command(Command::Connect));
        match self.turns() {
            Stopped::Gone => {}
            Stopped::Dropped => {
                if let Some(socket) = self.socket.take() {
                    // A socket that cannot be reset is closed by dropping it.
                    drop(socket.reset());
                }
            }
        }
    }

    fn turns(&mut self) -> Stopped {
        loop {
            self.give_up_unwritable();
            if self.session.is_gone() {
                return Stopped::Gone;
            }
            if let Err(error) = self.sleep() {
                self.broken(&format!("cannot wait for the socket: {error}"));
            }
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Command(command)) => self.give(Input::Command(command)),
                    Ok(Order::Cut) => self.cut(),
                    Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Stopped::Dropped,
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.read();
            self.give(Input::Tick);
            self.flush();
        }
    }

    fn give_up_unwritable(&mut self) {
        if self.unwritable.is_some() {
            self.read();
        }
        if let Some(error) = self.unwritable.take()
            && self.socket.is_some()
        {
            self.failed(&error);
        }
    }

    /// Until something is to be done.
    fn sleep(&self) -> io::Result<()> {
        let mut timeout = self
            .session
            .next_deadline()
            .map(|deadline| self.clock.until(deadline));
        if self.more {
            timeout = Some(Duration::ZERO);
        }
        let timeout = timeout.map(Timespec::try_from).transpose();
        let timeout = timeout.map_err(io::Error::other)?;
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        if let Some(socket) = &self.socket {
            let mut wanted = PollFlags::IN;
            if socket.is_unwritten() {
                wanted |= PollFlags::OUT;
            }
            fds.push(PollFd::from_borrowed_fd(socket.as_fd(), wanted));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut count = [0; 8];
        match rustix::io::read(&*self.wake, &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes in what has arrived, up to a turn's worth.
    fn read(&mut self) {
        self.more = false;
        for _ in 0..TURN {
            let Some(socket) = &mut self.socket else {
                return;
            };
            match socket.read() {
                Ok(Some(message)) => self.message(&message),
                Ok(None) => return,
                Err(error) => return self.failed(&error),
            }
        }
        self.more = true;
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.give(Input::Text(text)),
            Message::Binary(bytes) => self.give(Input::Binary(bytes)),
            Message::Ping(payload) => self.give(Input::Ping(payload)),
            Message::Pong(payload) => self.give(Input::Pong(payload)),
            Message::Close(frame) => {
                if let Some(mut socket) = self.socket.take() {
                    // The answer to it; the broker may not wait for that.
                    drop(socket.flush());
                }
                let (code, reason) = match frame {
                    Some(frame) => (frame.code.into(), frame.reason.as_str()),
                    None => (1005, ""),
                };
                self.give(Input::Closed { code, reason });
            }
            // Only made by those who write.
            Message::Frame(_) => {}
        }
    }

    /// Gives the session an input and carries out what it wants.
    fn give(&mut self, input: Input<'_>) {
        let mut outputs = Vec::new();
        self.session.handle(self.clock.now(), input, &mut outputs);
        let mut connect = false;
        for output in outputs {
            match output {
                Output::Connect => connect = true,
                Output::Write(frame) => {
                    if let Some(socket) = &mut self.socket
                        && self.unwritable.is_none()
                    {
                        self.unwritable = socket.write(frame).err();
                    }
                }
                Output::Close => {
                    if let Some(socket) = self.socket.take() {
                        // A socket that cannot be closed cleanly is gone all the same.
                        drop(socket.close());
                    }
                }
                Output::Abort => self.socket = None,
                // Without a user, what happens is of no interest.
                Output::Event(event) => drop(self.events.send(*event)),
            }
        }
        if connect {
            self.connect();
        }
    }

    fn connect(&mut self) {
        match Socket::open(&self.url, self.patience) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.unwritable = None;
                self.give(Input::Opened);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn flush(&mut self) {
        if let Some(socket) = &mut self.socket
            && self.unwritable.is_none()
        {
            self.unwritable = socket.flush().err();
        }
    }

    fn cut(&mut self) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        match socket.reset() {
            Ok(()) => self.broken(super::CUT),
            Err(error) => self.broken(&format!("cut, without a reset: {error}")),
        }
    }

    fn failed(&mut self, error: &Error) {
        self.broken(&error.to_string());
    }

    fn broken(&mut self, why: &str) {
        self.socket = None;
        self.give(Input::Broken(why));
    }
}
