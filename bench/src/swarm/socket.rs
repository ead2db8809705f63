//! A non-blocking socket: connecting, upgrading to WebSocket, open. Holds no buffer while nothing
//! is half read or half written.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with, sockopt,
};
use tungstenite::protocol::frame::coding::OpCode;

use super::frames::{self, Heard, Unreadable};

/// Longest answer to an upgrade, in bytes.
const HEAD_MAX: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Open,
}

/// What a socket tells.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// The WebSocket is open.
    Opened,
    /// A frame came.
    Heard(Heard<'a>),
}

/// Why a socket is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The system says so.
    #[error("{0}")]
    System(#[from] Errno),
    /// The broker sent what is no WebSocket.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// The upgrade was answered, but not by yes.
    #[error("the upgrade was answered by: {0}")]
    Refused(String),
    /// The end, without a close frame.
    #[error("the connection ended")]
    Ended,
}

/// One client socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    stage: Stage,
    /// The beginning of a frame, or of the answer to the upgrade.
    half: Vec<u8>,
    /// What the kernel has not taken.
    unsent: Vec<u8>,
}

impl Socket {
    /// Begins to connect, from `source` if there is one. [`Self::writable`] goes on.
    ///
    /// # Errors
    /// No descriptor, no port.
    pub(super) fn connect(to: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Self> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        if let Some(source) = source {
            bind(&fd, &SocketAddrV4::new(source, 0))?;
        }
        match connect(&fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self {
            fd,
            stage: Stage::Connecting,
            half: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// Whether the upgrade was answered.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the kernel is to say when it takes more.
    pub(super) fn wants_to_write(&self) -> bool {
        self.stage == Stage::Connecting || !self.unsent.is_empty()
    }

    /// The kernel takes more: asks for the upgrade by `request` if the connection was just made.
    pub(super) fn writable(&mut self, request: &[u8]) -> Result<(), Trouble> {
        if self.stage == Stage::Connecting {
            sockopt::socket_error(&self.fd)??;
            self.stage = Stage::Upgrading;
            self.unsent.extend_from_slice(request);
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    /// Sends, behind what waits.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads once and tells what it makes; `buffer` is shared by all sockets. Gives whether there
    /// may be more. The first error is told after what came before it.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        tell: &mut impl FnMut(Said<'_>),
    ) -> Result<bool, Trouble> {
        let read = match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(Trouble::Ended),
            Ok((read, _)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let full = read == buffer.len();
        let bytes = buffer.get(..read).unwrap_or_default();
        if self.half.is_empty() {
            let used = self.take(bytes, tell)?;
            self.half = bytes.get(used..).unwrap_or_default().to_vec();
        } else {
            let mut whole = std::mem::take(&mut self.half);
            whole.extend_from_slice(bytes);
            let used = self.take(&whole, tell)?;
            if used < whole.len() {
                whole.drain(..used);
                self.half = whole;
            }
        }
        Ok(full)
    }

    /// Tells what `bytes` make; gives how many of them that took.
    fn take(&mut self, bytes: &[u8], tell: &mut impl FnMut(Said<'_>)) -> Result<usize, Trouble> {
        let mut used = 0;
        if self.stage != Stage::Open {
            let Some(head) = find_end(bytes) else {
                if bytes.len() > HEAD_MAX {
                    return Err(Trouble::Refused("more than 8 KiB of headers".to_owned()));
                }
                return Ok(0);
            };
            upgraded(bytes.get(..head).unwrap_or_default())?;
            self.stage = Stage::Open;
            used = head;
            tell(Said::Opened);
        }
        while let Some((heard, length)) = frames::parse(bytes.get(used..).unwrap_or_default())? {
            tell(Said::Heard(heard));
            used += length;
        }
        Ok(used)
    }

    /// Breaks the connection as a crash does: a reset, no close frame.
    pub(super) fn reset(self) -> io::Result<()> {
        sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Says goodbye by a close frame (1000) and ends.
    pub(super) fn close(mut self) -> Result<(), Trouble> {
        let mut frame = Vec::new();
        let close = OpCode::Control(tungstenite::protocol::frame::coding::Control::Close);
        frames::write(close, &1000_u16.to_be_bytes(), 0, &mut frame);
        self.send(&frame)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where the head of an answer ends.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

fn upgraded(head: &[u8]) -> Result<(), Trouble> {
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(Trouble::Refused(String::from_utf8_lossy(line).into_owned()))
}
