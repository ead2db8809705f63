//! The client of the floors: sockets, upgrades and frames, and no sessions.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frames::{self, Heard};
use super::socket::{Said, Socket, Trouble};
use super::{BATCH, BUFFER, request_of, source_of};
use crate::report::latency::Latency;

/// Upgrades on their way at a time: as many as of sessions.
const WINDOW: usize = crate::fleet::WINDOW;

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Plain WebSockets with one of the floor's servers.
pub struct Bare {
    epoll: OwnedFd,
    address: SocketAddr,
    request: Vec<u8>,
    sockets: Vec<Option<Socket>>,
    opened: usize,
    /// Text frames that came, and on which socket the last ones did.
    heard: Vec<usize>,
    buffer: Vec<u8>,
    broken: Option<Trouble>,
}

impl Bare {
    /// So many, none open yet.
    ///
    /// # Errors
    /// The system has nothing to give.
    pub fn new(port: u16, count: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            request: request_of("127.0.0.1", "ws"),
            sockets: (0..count).map(|_| None).collect(),
            opened: 0,
            heard: Vec::new(),
            buffer: vec![0; BUFFER],
            broken: None,
        })
    }

    /// Opens all; on each the text `greeting` is sent and its answer waited for, if there is one.
    ///
    /// # Errors
    /// One does not open.
    pub fn open(
        &mut self,
        greeting: Option<&str>,
        mut progress: impl FnMut(usize),
    ) -> io::Result<()> {
        self.opened = 0;
        self.heard.clear();
        let (mut begun, mut greeted, mut answered) = (0, 0, 0);
        let mut moved = Instant::now();
        loop {
            let done = if greeting.is_some() {
                answered
            } else {
                self.opened
            };
            if done == self.sockets.len() {
                return Ok(());
            }
            while begun < self.sockets.len() && begun - done < WINDOW {
                self.connect(begun)?;
                begun += 1;
            }
            let before = (self.opened, self.heard.len());
            self.turn(Instant::now() + Duration::from_millis(100))?;
            if let Some(text) = greeting {
                answered += self.heard.len();
                self.heard.clear();
                while greeted < begun && self.is_open(greeted) {
                    self.send(greeted, text)?;
                    greeted += 1;
                }
            }
            if before != (self.opened, self.heard.len()) || answered > done {
                moved = Instant::now();
            }
            progress(done);
            patient(moved)?;
        }
    }

    fn is_open(&self, index: usize) -> bool {
        self.sockets
            .get(index)
            .and_then(Option::as_ref)
            .is_some_and(Socket::is_open)
    }

    /// Breaks all connections.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn cut(&mut self) -> io::Result<()> {
        for socket in &mut self.sockets {
            if let Some(socket) = socket.take() {
                socket.reset()?;
            }
        }
        Ok(())
    }

    /// Lets time pass, answering pings.
    ///
    /// # Errors
    /// A connection broke.
    pub fn run(&mut self, span: Duration) -> io::Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.turn(until)?;
            self.heard.clear();
        }
        Ok(())
    }

    /// Sends so many texts of so many bytes, one at a time on each of the first `pairs` sockets,
    /// and waits for each to come back.
    ///
    /// # Errors
    /// One does not.
    pub fn echo(&mut self, texts: usize, bytes: usize, pairs: usize) -> io::Result<Latency> {
        let text = "x".repeat(bytes);
        let pairs = pairs.min(self.sockets.len()).max(1);
        let mut sent_at = vec![Instant::now(); pairs];
        let mut latency = Latency::new();
        let (mut sent, mut back) = (0, 0);
        for (index, at) in sent_at.iter_mut().enumerate().take(texts) {
            *at = Instant::now();
            self.send(index, &text)?;
            sent += 1;
        }
        let mut moved = Instant::now();
        while back < texts {
            self.turn(Instant::now() + Duration::from_millis(100))?;
            for index in std::mem::take(&mut self.heard) {
                moved = Instant::now();
                back += 1;
                if let Some(at) = sent_at.get_mut(index) {
                    latency.record(at.elapsed());
                    *at = Instant::now();
                }
                if sent < texts {
                    self.send(index, &text)?;
                    sent += 1;
                }
            }
            patient(moved)?;
        }
        Ok(latency)
    }

    /// One says a text of so many bytes, so many times, each when all others have the one before.
    ///
    /// # Errors
    /// Somebody does not get it.
    pub fn shout(&mut self, times: usize, bytes: usize) -> io::Result<Latency> {
        let text = "x".repeat(bytes);
        let mut latency = Latency::new();
        for _ in 0..times {
            let at = Instant::now();
            self.send(0, &text)?;
            let mut got = 0;
            while got + 1 < self.sockets.len() {
                self.turn(Instant::now() + Duration::from_millis(100))?;
                got += self.heard.len();
                self.heard.clear();
                patient(at)?;
            }
            latency.record(at.elapsed());
        }
        Ok(latency)
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let socket = Socket::connect(self.address, Some(source_of(index)))?;
        let data = epoll::EventData::new_u64(index as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&self.epoll, &socket, data, flags)?;
        if let Some(place) = self.sockets.get_mut(index) {
            *place = Some(socket);
        }
        Ok(())
    }

    fn send(&mut self, index: usize, text: &str) -> io::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        frames::write(
            OpCode::Data(Data::Text),
            text.as_bytes(),
            0x5a3c_7e11,
            &mut frame,
        );
        let socket = self.sockets.get_mut(index).and_then(Option::as_mut);
        let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
        socket.send(&frame).map_err(io::Error::other)
    }

    fn turn(&mut self, until: Instant) -> io::Result<()> {
        let wait = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut events = [const { MaybeUninit::uninit() }; BATCH];
        let (ready, _) = epoll::wait(&self.epoll, &mut events, Some(&timeout))?;
        for event in ready {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let flags = event.flags;
            self.ready(index, flags);
        }
        match self.broken.take() {
            Some(trouble) => Err(io::Error::other(trouble)),
            None => Ok(()),
        }
    }

    fn ready(&mut self, index: usize, flags: epoll::EventFlags) {
        let Some(socket) = self.sockets.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let outcome = step(socket, flags, &self.request, &mut self.buffer, |text| {
            if text {
                self.heard.push(index);
            } else {
                self.opened += 1;
            }
        });
        let mut wanted = epoll::EventFlags::IN;
        wanted.set(epoll::EventFlags::OUT, socket.wants_to_write());
        let data = epoll::EventData::new_u64(index as u64);
        let watched = match flags.contains(epoll::EventFlags::OUT) {
            true => epoll::modify(&self.epoll, &*socket, data, wanted).map_err(Trouble::from),
            false => Ok(()),
        };
        if let Err(trouble) = outcome.and(watched) {
            self.broken = Some(trouble);
        }
    }
}

/// Writes and reads what a socket is ready for; tells of each text frame (true) and of the upgrade
/// (false).
fn step(
    socket: &mut Socket,
    flags: epoll::EventFlags,
    request: &[u8],
    buffer: &mut [u8],
    mut tell: impl FnMut(bool),
) -> Result<(), Trouble> {
    if flags.contains(epoll::EventFlags::OUT) {
        socket.writable(request)?;
    }
    if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
        return Ok(());
    }
    let mut pongs = Vec::new();
    socket.read(buffer, &mut |said| match said {
        Said::Opened => tell(false),
        Said::Heard(Heard::Text(_)) => tell(true),
        Said::Heard(Heard::Ping(payload)) => {
            frames::write(OpCode::Control(Control::Pong), payload, 7, &mut pongs);
        }
        Said::Heard(Heard::Pong(_) | Heard::Close(..)) => {}
    })?;
    socket.send(&pongs)
}

fn patient(since: Instant) -> io::Result<()> {
    if since.elapsed() < PATIENCE {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "the floor's server does not answer",
    ))
}
