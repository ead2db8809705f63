//! What goes into a session and what comes out of it.

use serde_json::Value;

use super::event::Event;
use super::wire::Outgoing;
use crate::core::rows::Status;

/// Something that happened, to or around the socket.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The WebSocket that was asked for is open.
    Opened,
    /// A text message came.
    Text(&'a str),
    /// A binary message came.
    Binary(&'a [u8]),
    /// A ping came.
    Ping(&'a [u8]),
    /// A pong came.
    Pong(&'a [u8]),
    /// The broker closed the WebSocket.
    Closed {
        /// The close frame's code; 1005 if it had none.
        code: u16,
        /// The close frame's reason.
        reason: &'a str,
    },
    /// The socket failed or ended without a close frame, or could not be opened.
    Broken(&'a str),
    /// The deadline has come, or any other moment.
    Tick,
    /// The user wants something.
    Command(Command),
}

/// What the user may want.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// To be connected, now if it is not.
    Connect,
    /// To send a message. Ends as [`Event::Acknowledged`] or [`Event::Refused`], exactly once; one
    /// whose id is waiting already is the same message.
    Send(Outgoing),
    /// Another status, now and on any later lease.
    SetStatus(Status),
    /// To be in a group, now and on any later lease.
    JoinGroup {
        /// Which.
        name: String,
        /// As what.
        role: Option<String>,
    },
    /// Not to be in a group, now and on any later lease.
    LeaveGroup {
        /// Which.
        name: String,
    },
    /// Any other request, an object with `type` and, where it has an answer, `_reqId`. Written
    /// once or [`Event::Unsent`]; its answer is an [`Event::Frame`] or [`Event::Error`], and does
    /// not come if the connection is lost before it.
    Request(Value),
    /// To leave for good, once what was sent is acknowledged. Ends as [`Event::Gone`].
    Goodbye,
}

/// Something to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a WebSocket; then give [`Input::Opened`] or [`Input::Broken`].
    Connect,
    /// Write this.
    Write(Frame),
    /// Close the socket cleanly (1000) behind what was written, or stop opening it.
    Close,
    /// Drop the socket as it is, or stop opening it.
    Abort,
    /// Tell the user.
    Event(Box<Event>),
}

impl Output {
    /// Telling the user this.
    pub(super) fn told(event: Event) -> Self {
        Self::Event(Box::new(event))
    }
}

/// A WebSocket frame to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Text(String),
    /// A question whether somebody is there.
    Ping(Vec<u8>),
    /// The answer to one.
    Pong(Vec<u8>),
}
