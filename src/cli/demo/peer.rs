//! One of the demo's peers: a real WebSocket client with its own keys, over loopback.
//!
//! Knows the wire as any client does and nothing of the broker's inside.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::super::stopwatch;
use crate::admin::protocol::NewMember;
use crate::core::identity::{AttestationText, KeyPair, SessionHelloText};
use crate::core::time::{Millis, Wall};

/// How long a connect, an upgrade or a write may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one look at a socket waits for something to read.
const GLANCE: Duration = Duration::from_millis(5);

/// How long the member vouches for the session's key.
const ATTESTATION: Millis = Millis::secs(3600);

/// What a peer cannot get over.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// The socket failed.
    #[error("{name}: {source}")]
    Socket {
        /// Whose.
        name: &'static str,
        /// How.
        source: Box<tungstenite::Error>,
    },
    /// The broker sent something that is no JSON object.
    #[error("{name}: the broker sent {text:?}")]
    Garbage {
        /// To whom.
        name: &'static str,
        /// What.
        text: String,
    },
    /// It acts without being connected.
    #[error("{name} is not connected")]
    Away {
        /// Who.
        name: &'static str,
    },
}

/// A socket whose reads and writes are tried again when interrupted. With a time-out set, the
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

/// A member with one session.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) member: NewMember,
    member_keys: KeyPair,
    session_keys: KeyPair,
    broker: SocketAddr,
    socket: Option<WebSocket<Steady>>,
}

impl Peer {
    /// A peer that has not connected yet. `seed` makes its session key.
    pub(super) fn new(
        name: &'static str,
        member: NewMember,
        member_keys: KeyPair,
        seed: [u8; 32],
        broker: SocketAddr,
    ) -> Self {
        let session_keys = KeyPair::from_seed(seed);
        Self {
            name,
            member,
            member_keys,
            session_keys,
            broker,
            socket: None,
        }
    }

    /// The key others send to.
    pub(super) fn session_key(&self) -> String {
        self.session_keys.public().to_string()
    }

    /// Connects and says who it is, with the same session key every time.
    pub(super) fn connect(&mut self) -> Result<(), PeerError> {
        let socket = self.upgraded().map_err(|source| self.failed(source))?;
        self.socket = Some(socket);
        self.send(&self.hello(stopwatch::wall_now()))
    }

    fn upgraded(&self) -> Result<WebSocket<Steady>, tungstenite::Error> {
        let stream = TcpStream::connect_timeout(&self.broker, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let url = format!("ws://{}/ws", self.broker);
        let (socket, _response) =
            tungstenite::client(url, Steady(stream)).map_err(|error| match error {
                tungstenite::HandshakeError::Failure(error) => error,
                tungstenite::HandshakeError::Interrupted(_) => {
                    io::Error::new(io::ErrorKind::TimedOut, "no answer to the upgrade").into()
                }
            })?;
        socket.get_ref().0.set_read_timeout(Some(GLANCE))?;
        Ok(socket)
    }

    fn hello(&self, now: Wall) -> Value {
        let (member, session) = (&self.member.pubkey, self.session_key());
        let expires_at = now.after(ATTESTATION);
        let vouched = AttestationText {
            parent_pubkey: member,
            session_pubkey: &session,
            expires_at,
        };
        let said = SessionHelloText {
            mesh_id: &self.member.mesh_id,
            parent_pubkey: member,
            session_pubkey: &session,
            timestamp: now,
        };
        json!({
            "type": "session_hello",
            "meshId": self.member.mesh_id,
            "parentMemberId": self.member.member_id,
            "parentMemberPubkey": member,
            "sessionPubkey": session,
            "parentAttestation": {
                "sessionPubkey": session,
                "parentMemberPubkey": member,
                "expiresAt": expires_at.0,
                "signature": self.member_keys.sign(vouched.text().as_bytes()),
            },
            "timestamp": now.0,
            "signature": self.session_keys.sign(said.text().as_bytes()),
            "sessionId": format!("demo-{}", self.name),
            "displayName": self.name,
            "pid": std::process::id(),
            "cwd": format!("/demo/{}", self.name),
            "channel": "holdfast-demo",
        })
    }

    /// Breaks the connection as a dead network does: a reset, no close frame.
    pub(super) fn cut(&mut self) -> Result<(), PeerError> {
        let Some(socket) = self.socket.take() else {
            return Err(PeerError::Away { name: self.name });
        };
        let stream = &socket.get_ref().0;
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))
            .map_err(|errno| self.failed(tungstenite::Error::Io(errno.into())))
    }

    /// Sends one frame.
    pub(super) fn send(&mut self, frame: &Value) -> Result<(), PeerError> {
        let name = self.name;
        let Some(socket) = &mut self.socket else {
            return Err(PeerError::Away { name });
        };
        let sent = socket.send(Message::text(frame.to_string()));
        sent.map_err(|source| PeerError::Socket {
            name,
            source: Box::new(source),
        })
    }

    /// What has arrived: the next frame, or None if nothing comes within a glance. Pings are
    /// answered on the way.
    pub(super) fn glance(&mut self) -> Result<Option<Value>, PeerError> {
        let name = self.name;
        let Some(socket) = &mut self.socket else {
            return Ok(None);
        };
        match socket.read() {
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(frame @ Value::Object(_)) => Ok(Some(frame)),
                Ok(_) | Err(_) => Err(PeerError::Garbage {
                    name,
                    text: text.to_string(),
                }),
            },
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(error)) if nothing_yet(&error) => Ok(None),
            Err(source) => Err(PeerError::Socket {
                name,
                source: Box::new(source),
            }),
        }
    }

    fn failed(&self, source: tungstenite::Error) -> PeerError {
        PeerError::Socket {
            name: self.name,
            source: Box::new(source),
        }
    }
}

fn nothing_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
