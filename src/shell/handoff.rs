//! A socket on its way from the loop that accepted it to the loop where its mesh lives.
//!
//! Why no operation is in flight on a descriptor that leaves:
//!
//! - *The read.* Only the connection's own task polls for reading, and it is that task which
//!   parts with the socket, in the turn in which the core answered its frame.
//! - *A write.* Only a task spawned for a blocked queue polls for writing. A socket whose queue is
//!   blocked does not leave: before its hello it was sent next to nothing, so its client is not
//!   reading, and it is closed instead.
//! - *The tables.* The connection is taken out of its slot in the same turn, so that no later
//!   effect, timer or time-out finds it; both see another generation.
//!
//! Races with the rest: a hello of the same identity on another loop is settled by the home shard,
//! in the order of its lane. A home loop that is shutting down, or whose lane is full, drops the
//! parcel. Dropping a [`Parcel`] anywhere closes the socket, and its client reconnects.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use monoio::net::TcpStream;

use super::message::Message;
use super::reactor::Loop;
use super::{observe, sys};
use crate::core::hello::Hello;

/// Where a socket is to go, decided by the core.
pub(super) struct Departure {
    pub(super) shard: u16,
    pub(super) hello: Box<Hello>,
}

/// A socket between two loops.
pub(super) struct Parcel {
    /// Closed when dropped.
    pub(super) fd: OwnedFd,
    /// What was read of it and not yet given to the core.
    pub(super) residue: Vec<u8>,
    /// What its client said, verified.
    pub(super) hello: Box<Hello>,
}

/// Sends a quiescent socket to its home. `socket` must be out of the tables already.
pub(super) fn send(lp: &Loop, socket: Rc<TcpStream>, departure: Departure, residue: Vec<u8>) {
    let Departure { shard, hello } = departure;
    let sent = Rc::try_unwrap(socket).is_ok_and(|socket| {
        let parcel = Box::new(Parcel {
            fd: sys::take(socket),
            residue,
            hello,
        });
        let lane = lp.shared.lanes.get(usize::from(shard));
        lane.is_some_and(|lane| lane.offer(Message::Handoff(parcel)).is_ok())
    });
    if !sent {
        lp.shared.socket_closed();
        observe::handoff_lost(lp.counters());
    }
}
