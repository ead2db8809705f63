//! A socket on its way from the loop that accepted it to the loop where its mesh lives.
//!
//! Why nothing of the old loop touches a descriptor that leaves:
//!
//! - *Reading.* Nothing is in flight: a loop waits for its set of sockets, not for a socket. The
//!   set is told to forget this one.
//! - *Writing.* A socket that has not taken everything does not leave: before its hello it was sent
//!   next to nothing, so its client is not reading, and it is closed instead.
//! - *The tables.* The connection is taken out of its slot in the same turn, so that no later
//!   event, effect, timer or time-out finds it; all see another generation.
//!
//! Races with the rest: a hello of the same identity on another loop is settled by the home shard,
//! in the order of its lane. A home loop that is shutting down, or whose lane is full, drops the
//! parcel. Dropping a [`Parcel`] anywhere closes the socket, and its client reconnects.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use super::connection::Phase;
use super::message::Message;
use super::observe;
use super::reactor::Reactor;
use crate::core::hello::Hello;
use crate::core::ids::ConnId;

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
    /// What its client said.
    pub(super) hello: Box<Hello>,
}

impl Reactor {
    /// Sends a socket to where the core wants it, with what was read and not looked at.
    pub(super) fn depart(&mut self, conn: ConnId, rest: &[u8]) {
        self.flush(conn);
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        if found.blocked {
            observe::handoff_lost(self.counters());
            return self.abort(conn);
        }
        let phase = mem::replace(&mut found.phase, Phase::Dead);
        let (Phase::Departing(departure), Some(fd)) = (phase, self.forget(conn)) else {
            return;
        };
        self.poller.remove(fd.as_fd());
        let Departure { shard, hello } = departure;
        let parcel = Box::new(Parcel {
            fd,
            residue: rest.to_vec(),
            hello,
        });
        let lane = self.shared.lanes.get(usize::from(shard));
        let sent = lane.is_some_and(|lane| lane.offer(Message::Handoff(parcel)).is_ok());
        if !sent {
            self.shared.socket_closed();
            self.freed = true;
            observe::handoff_lost(self.counters());
        }
    }
}
