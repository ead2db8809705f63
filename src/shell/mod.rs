//! Sockets in, bytes out: the shell turns what the network, the store and administrators do into
//! inputs of the core, and the core's effects into bytes, rows and log lines. It decides nothing.
//!
//! ```text
//!  accept --> http --upgrade--> reading --Input--> core::Shard --Effect--> apply --> connection
//!                                  ^                                         |          |
//!               handoff <----------+-----------------------------------------+       writing
//!                  \--> lane (of another loop) --> adopt
//! ```
//! `poller` names the sockets that are ready. One loop is one thread, one runtime and one shard
//! (`loop_thread`, `reactor`). All its state is behind one cell that no task holds across an await.
//! Its only timer sleeps until the earliest deadline.
//!
//! What is kept in one place: clocks (`clock`), crossing threads (`lane`; `shared` holds what is
//! only counted or read), a descriptor leaving its loop (`handoff`). No code here is unsafe.

mod accept;
mod apply;
mod ask;
mod boot;
mod clerk;
pub(crate) mod clock;
mod connection;
mod control;
mod drain;
mod handoff;
mod hook;
mod http;
mod lane;
mod limiter;
mod limits;
mod listen;
mod log;
mod loop_thread;
mod message;
mod metrics;
mod notify;
mod observe;
mod outbound;
mod poller;
mod reactor;
mod reading;
mod runtime;
mod shared;
mod websocket;
mod writing;

#[cfg(test)]
mod tests;

/// The decoders of what strangers send, for `tests/fuzz`. No part of the interface.
#[doc(hidden)]
pub mod decoders {
    pub use super::hook::Posted;
    pub use super::http::body::{Framing, decode_body};
    pub use super::http::head::{Refusal, Request, decode};
    pub use super::http::join::{Unfit, parse as parse_join};
    pub use super::limits::HEAD_BYTES_MAX;
    pub use super::websocket::{Message, Reader, Violation};
}

pub use boot::{Server, StartError, StopSignals};
pub use control::Control;
pub use log::init_log;
