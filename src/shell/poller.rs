//! Which sockets have something for us: one epoll set per loop, itself polled through the loop's
//! runtime.
//!
//! An operation per socket would need a task to wait for it, and memory for both while the socket
//! is idle; in a set it costs the kernel 208 bytes and us nothing. One wait serves all that is
//! ready.
//!
//! The set is edge-triggered: a socket is named once for whatever comes, and again only for what
//! comes later. So whoever does not read to the end, or may have been told of an end in the same
//! breath as of bytes, asks to be told [`Poller::again`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use monoio::net::UnixStream;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::limits::POLLED_PER_TURN;
use super::reactor::{Loop, Reactor};
use crate::core::ids::ConnId;

/// What every socket is watched for.
const WATCHED: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// The peer sends no more, or the connection is gone.
const ENDED: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

/// The sockets of one loop, as the kernel watches them.
pub(super) struct Poller {
    epoll: OwnedFd,
    /// Kept for its capacity.
    events: Vec<Event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(POLLED_PER_TURN),
        })
    }

    /// The set as the runtime polls it; nothing is read or written through it.
    ///
    /// # Errors
    /// If no descriptor is left or the driver refuses it.
    pub(super) fn polled(&self) -> io::Result<UnixStream> {
        let epoll = self.epoll.as_fd().try_clone_to_owned()?;
        UnixStream::from_std(std::os::unix::net::UnixStream::from(epoll))
    }

    /// Watches a socket; one that is ready already is named too. The kernel forgets it when it is
    /// closed.
    ///
    /// # Errors
    /// If the kernel has no memory for it, or its limit (`fs.epoll.max_user_watches`) is reached.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, conn: ConnId) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, data_of(conn), WATCHED)?)
    }

    /// Names a socket once more if it is ready.
    pub(super) fn again(&self, socket: BorrowedFd<'_>, conn: ConnId) {
        // Fails only for a socket that is not in the set.
        epoll::modify(&self.epoll, socket, data_of(conn), WATCHED).ok();
    }

    /// Watches a socket no longer, which goes to another loop.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        // As above.
        epoll::delete(&self.epoll, socket).ok();
    }
}

fn data_of(conn: ConnId) -> EventData {
    EventData::new_u64(u64::from(conn.generation) << 32 | u64::from(conn.slot))
}

fn conn_of(data: EventData) -> ConnId {
    let [a, b, c, d, e, f, g, h] = data.u64().to_le_bytes();
    ConnId {
        slot: u32::from_le_bytes([a, b, c, d]),
        generation: u32::from_le_bytes([e, f, g, h]),
    }
}

/// The task that waits for all sockets of the loop. Owns no data, so nothing is lost if the
/// runtime drops it at the end of the process.
pub(super) async fn run(lp: Rc<Loop>, polled: UnixStream) {
    while polled.readable(false).await.is_ok() {
        lp.turn(Reactor::poll_turn);
    }
}

impl Reactor {
    /// Serves the sockets that are ready, so many at most.
    fn poll_turn(&mut self) {
        let mut events = std::mem::take(&mut self.poller.events);
        let at_once = Timespec::default();
        // Fails only if a signal comes in between: the set is still ready then.
        epoll::wait(
            &self.poller.epoll,
            spare_capacity(&mut events),
            Some(&at_once),
        )
        .ok();
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            self.ready(conn_of(data), flags);
        }
        self.poller.events = events;
    }

    fn ready(&mut self, conn: ConnId, flags: EventFlags) {
        let Some(found) = self.conns.get_mut(conn) else {
            return;
        };
        found.ended |= flags.intersects(ENDED);
        if found.blocked && flags.intersects(ENDED.union(EventFlags::OUT)) {
            self.write_more(conn);
        }
        if !flags.intersects(ENDED.union(EventFlags::IN)) {
            return;
        }
        match self.conns.get_mut(conn).map(|found| &found.reader) {
            Some(Some(task)) => task.notify(),
            Some(None) => self.read_turn(conn),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream as Socket;

    use super::*;

    fn named(poller: &mut Poller) -> Vec<(ConnId, bool)> {
        let mut events = std::mem::take(&mut poller.events);
        let at_once = Timespec::default();
        epoll::wait(&poller.epoll, spare_capacity(&mut events), Some(&at_once)).unwrap();
        let named = events.drain(..).map(|event| {
            let (flags, data) = (event.flags, event.data);
            (conn_of(data), flags.intersects(EventFlags::IN))
        });
        let named = named.collect();
        poller.events = events;
        named
    }

    #[test]
    fn a_socket_is_named_for_what_is_new_or_when_asked_for_again() {
        let (ours, mut theirs) = Socket::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        let conn = ConnId {
            slot: u32::MAX,
            generation: 7,
        };
        poller.add(ours.as_fd(), conn).unwrap();
        assert_eq!(named(&mut poller), [(conn, false)], "it can be written to");
        theirs.write_all(b"x").unwrap();
        assert_eq!(named(&mut poller), [(conn, true)]);
        assert_eq!(named(&mut poller), []);
        poller.again(ours.as_fd(), conn);
        assert_eq!(named(&mut poller), [(conn, true)]);
        poller.remove(ours.as_fd());
        theirs.write_all(b"y").unwrap();
        assert_eq!(named(&mut poller), []);
    }
}
