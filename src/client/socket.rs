//! A WebSocket over TCP that never blocks once it is open.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::io::Frame;

/// Most that waits to be written; beyond it the broker does not read.
const UNWRITTEN_MAX: usize = 16 << 20;

/// Largest message taken from a broker.
const MESSAGE_MAX: usize = 16 << 20;

/// Room for what is read and written at once.
const BUFFER: usize = 16 << 10;

/// How often a closing socket waits for its end.
const CLOSING_TURNS: u32 = 100;
const CLOSING_TURN: Duration = Duration::from_millis(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// TLS is not spoken here.
    #[error(
        "{0}: wss:// is not supported; give a ws:// address, or one of a TLS tunnel's near end"
    )]
    Tls(String),
    /// It is no `ws://host[:port]/path`.
    #[error("{0}: not a ws:// address")]
    Malformed(String),
}

/// Where a broker is.
#[derive(Clone, Debug)]
pub(super) struct Url {
    text: String,
    host: String,
    port: u16,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(UrlError::Tls(text.to_owned())),
            Some(_) | None => return Err(malformed()),
        }
        let host = uri.host().ok_or_else(malformed)?;
        // Resolvers want IPv6 addresses bare.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
        })
    }
}

/// A stream whose reads and writes are tried again when interrupted. With a time-out set, the
/// kernel interrupts them also for its own work, such as taking down an io_uring of this thread.
struct Steady(TcpStream);

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(buffer))
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// An open WebSocket.
pub(super) struct Socket {
    socket: WebSocket<Steady>,
    /// Whether something waits until the kernel takes it.
    unwritten: bool,
}

impl Socket {
    /// Connects and upgrades; no step of it takes longer than `patience`.
    pub(super) fn open(url: &Url, patience: Duration) -> Result<Self, Error> {
        let stream = connect(url, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(UNWRITTEN_MAX)
            .max_message_size(Some(MESSAGE_MAX));
        let (socket, _response) =
            tungstenite::client::client_with_config(&*url.text, Steady(stream), Some(config))
                .map_err(|error| match error {
                    HandshakeError::Failure(error) => error,
                    HandshakeError::Interrupted(_) => {
                        io::Error::new(io::ErrorKind::TimedOut, "no answer to the upgrade").into()
                    }
                })?;
        socket.get_ref().0.set_nonblocking(true)?;
        Ok(Self {
            socket,
            unwritten: false,
        })
    }

    /// Queues a frame behind those before it.
    pub(super) fn write(&mut self, frame: Frame) -> Result<(), Error> {
        let message = match frame {
            Frame::Text(text) => Message::text(text),
            Frame::Ping(payload) => Message::Ping(payload.into()),
            // tungstenite has answered the ping it read.
            Frame::Pong(_) => return Ok(()),
        };
        self.unwritten = true;
        later(self.socket.write(message)).map(drop)
    }

    /// Gives the kernel what it takes.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.unwritten = later(self.socket.flush())?.is_none();
        Ok(())
    }

    /// Whether [`Self::flush`] has to be called again when the socket is writable.
    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// The next message; `None` if nothing more is there.
    pub(super) fn read(&mut self) -> Result<Option<Message>, Error> {
        later(self.socket.read())
    }

    /// Breaks the connection as a dead network does, or a crash: a reset, no close frame.
    pub(super) fn reset(self) -> io::Result<()> {
        let stream = &self.socket.get_ref().0;
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Closes cleanly: the close frame behind what was written, then waits a little for the end,
    /// since a socket dropped with something unread resets, and that may overtake the frame.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let stream = &self.socket.get_ref().0;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CLOSING_TURN))?;
        self.socket.close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        }))?;
        for _ in 0..CLOSING_TURNS {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::Io(error)) if is_later(&error) => {}
                // The end that was waited for, in whichever form it comes.
                Err(_) => break,
            }
        }
        Ok(self.socket.get_ref().0.shutdown(Shutdown::Both)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().0.as_fd()
    }
}

/// The first of the host's addresses that answers.
fn connect(url: &Url, patience: Duration) -> io::Result<TcpStream> {
    let mut last = None;
    for address in (&*url.host, url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    Err(last.unwrap_or_else(nowhere))
}

/// What would block is done later.
fn later<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io(error)) if is_later(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ws_and_nothing_else() {
        let url = Url::parse("ws://127.0.0.1:7900/ws").unwrap();
        assert_eq!((&*url.host, url.port), ("127.0.0.1", 7900));
        let url = Url::parse("ws://[::1]/ws").unwrap();
        assert_eq!((&*url.host, url.port), ("::1", 80));
        let tls = Url::parse("wss://example.org/ws").unwrap_err();
        assert!(matches!(tls, UrlError::Tls(_)));
        assert!(tls.to_string().contains("not supported"), "{tls}");
        for text in ["", "/ws", "http://h/ws", "ws://", "ws:// h/", "host:1"] {
            let error = Url::parse(text).unwrap_err();
            assert!(matches!(error, UrlError::Malformed(_)), "{text}: {error}");
        }
    }
}
