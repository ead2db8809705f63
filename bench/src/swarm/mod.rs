//! The light client: any number of sessions on one thread. An idle one costs its state machine and
//! its socket; there is no task, thread, timer or buffer for it.
//!
//! [`Swarm::turn`] lets time pass until a moment; what happened is then in [`Swarm::happened`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast::client::{Command, Event, Identity, Input, Session, Settings};
use holdfast::core::time::{Mono, Now, Wall};
use rustix::event::{Timespec, epoll};

mod bare;
mod frames;
mod socket;
mod sockets;

pub use self::bare::Bare;
use self::socket::Socket;

/// Bytes read at once, of whichever socket.
const BUFFER: usize = 256 << 10;

/// Sockets looked at between two looks at the timers.
const BATCH: usize = 1024;

/// Sessions that share one source address. For a bound socket the kernel first looks through every
/// second port, some 14 000, and of those each session may take three: its own, that of a floor
/// before it, and one that is still closing. Where few are free, finding one takes a millisecond.
const PER_ADDRESS: u32 = 1024;

/// Something a session told.
#[derive(Debug)]
pub struct Happened {
    /// Which session, as numbered by [`Swarm::add`].
    pub peer: usize,
    /// When it was read from its socket.
    pub at: Instant,
    /// What.
    pub event: Event,
}

/// One session and its socket.
#[derive(Debug)]
struct Peer {
    session: Session,
    socket: Option<Socket>,
    /// When the last one began to be connected.
    since: Option<Instant>,
    /// Rises with each socket, so that what the kernel said of an earlier one is not taken for it.
    sockets: u32,
    /// The earliest entry of it in the timers.
    due: Option<Mono>,
    /// Whether its socket is not looked at.
    deaf: bool,
}

/// Sessions with one broker.
#[derive(Debug)]
pub struct Swarm {
    epoll: OwnedFd,
    address: SocketAddr,
    request: Vec<u8>,
    settings: Arc<Settings>,
    peers: Vec<Peer>,
    timers: BinaryHeap<Reverse<(Mono, usize)>>,
    start: Instant,
    happened: Vec<Happened>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    mask: u32,
    /// Bytes of frames given to the kernel and taken from it.
    pub written: u64,
    /// Messages read, of any kind but pings and pongs.
    pub heard: u64,
}

/// Where no broker can be.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// Only `ws://` is spoken.
    #[error("{0}: give an address such as ws://127.0.0.1:7900/ws")]
    Url(String),
    /// No descriptors, most likely.
    #[error("cannot start a client: {0}")]
    System(#[from] io::Error),
}

impl Swarm {
    /// A swarm without sessions, for the broker at `url`.
    ///
    /// # Errors
    /// The address is none, or the system has nothing to give.
    pub fn new(url: &str, settings: Settings) -> Result<Self, SwarmError> {
        let bad = || SwarmError::Url(url.to_owned());
        let rest = url.strip_prefix("ws://").ok_or_else(bad)?;
        let (host, path) = rest.split_once('/').ok_or_else(bad)?;
        let mut addresses = host.to_socket_addrs().map_err(|_| bad())?;
        let address = addresses.next().ok_or_else(bad)?;
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?,
            address,
            request: request_of(host, path),
            settings: Arc::new(settings),
            peers: Vec::new(),
            timers: BinaryHeap::new(),
            start: Instant::now(),
            happened: Vec::new(),
            buffer: vec![0; BUFFER],
            frame: Vec::new(),
            mask: 0x9e37_79b9,
            written: 0,
            heard: 0,
        })
    }

    /// Enters a session, which does not connect yet; gives its number, from 0 up.
    pub fn add(&mut self, identity: Identity) -> usize {
        let number = self.peers.len();
        let session = Session::new(Arc::clone(&self.settings), identity, number as u64);
        self.peers.push(Peer {
            session,
            socket: None,
            since: None,
            sockets: 0,
            due: None,
            deaf: false,
        });
        number
    }

    /// Forgets all sessions and breaks their connections.
    pub fn clear(&mut self) {
        for peer in 0..self.peers.len() {
            self.cut(peer);
        }
        self.peers.clear();
        self.timers.clear();
        self.happened.clear();
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// The session of that number.
    pub fn session(&self, peer: usize) -> Option<&Session> {
        self.peers.get(peer).map(|peer| &peer.session)
    }

    /// When the last connection of that session began.
    pub fn connecting_since(&self, peer: usize) -> Option<Instant> {
        self.peers.get(peer).and_then(|peer| peer.since)
    }

    /// Tells a session what to do.
    pub fn command(&mut self, peer: usize, command: Command) {
        self.give(peer, Input::Command(command));
    }

    /// Breaks the connection of a session as a crash of its machine's network stack does (a
    /// reset).
    pub fn cut(&mut self, peer: usize) {
        let socket = self.peers.get_mut(peer).and_then(|p| p.socket.take());
        if let Some(socket) = socket {
            self.drop_socket(socket, true);
            self.give(peer, Input::Broken("cut"));
        }
    }

    /// Lets a session live on, unread: its socket stays, and nothing of it is looked at.
    pub fn stop_reading(&mut self, peer: usize) {
        if let Some(found) = self.peers.get_mut(peer) {
            found.deaf = true;
            self.watch(peer);
        }
    }

    /// What happened since it was last taken.
    pub fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// Gives back what [`Self::happened`] gave, emptied, to be filled again.
    pub fn recycle(&mut self, mut used: Vec<Happened>) {
        used.clear();
        if self.happened.is_empty() {
            self.happened = used;
        }
    }

    /// Lets time pass until something happened, or until that moment.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn turn(&mut self, until: Instant) -> io::Result<()> {
        self.run_timers();
        if !self.happened.is_empty() {
            return Ok(());
        }
        let mut wait = until.saturating_duration_since(Instant::now());
        if let Some(Reverse((due, _))) = self.timers.peek() {
            let due = self.start + Duration::from_millis(due.0);
            wait = wait.min(due.saturating_duration_since(Instant::now()));
        }
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut events = [const { MaybeUninit::uninit() }; BATCH];
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        for event in ready {
            let (data, flags) = (event.data.u64(), event.flags);
            self.ready(data, flags);
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.unwrap_or_default().as_millis();
        let mono = self.start.elapsed().as_millis();
        Now {
            mono: Mono(u64::try_from(mono).unwrap_or(u64::MAX)),
            wall: Wall(i64::try_from(wall).unwrap_or(i64::MAX)),
        }
    }

    fn run_timers(&mut self) {
        let now = self.now().mono;
        while let Some(Reverse((due, peer))) = self.timers.peek().copied() {
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(found) = self.peers.get_mut(peer) else {
                continue;
            };
            if found.due.is_some_and(|earliest| earliest <= due) {
                found.due = None;
            }
            if found.session.next_deadline().is_some_and(|at| at <= now) {
                self.give(peer, Input::Tick);
            } else {
                self.arm(peer);
            }
        }
    }

    /// Enters a session's deadline in the timers, unless an earlier entry will look at it.
    fn arm(&mut self, peer: usize) {
        let Some(found) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(deadline) = found.session.next_deadline() else {
            return;
        };
        if found.due.is_none_or(|due| deadline < due) {
            found.due = Some(deadline);
            self.timers.push(Reverse((deadline, peer)));
        }
    }
}

/// What the kernel hands back with what it says of a socket.
fn ticket(peer: usize, sockets: u32) -> u64 {
    ((peer as u64) << 32) | u64::from(sockets)
}

fn ticket_of(data: u64) -> (usize, u32) {
    let low = u32::try_from(data & u64::from(u32::MAX)).unwrap_or(0);
    (usize::try_from(data >> 32).unwrap_or(usize::MAX), low)
}

/// 127.1.0.1 and up: each has ports of its own.
fn source_of(peer: usize) -> Ipv4Addr {
    let number = u32::try_from(peer).unwrap_or(0) / PER_ADDRESS;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

/// How an upgrade is asked for.
fn request_of(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aG9sZGZhc3QtYmVuY2guLg==\r\n\r\n"
    )
    .into_bytes()
}
