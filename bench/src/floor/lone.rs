//! Floors of what one connection does by itself: `upgrade`, `echo`, `verify`.
//!
//! One task per connection awaits that it can be read and then borrows the one buffer, so an idle
//! connection holds its task and its socket and nothing else.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::rc::Rc;

use holdfast::core::identity::{self, KeyPair, Signature};
use holdfast::core::ids::PubKey;
use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use slab::Slab;

use super::frames::{self, FINAL, Frames, opcode};
use super::serve::Floor;
use super::upgrade::{self, Request};
use super::{Kind, sys};

/// The shared buffer, and so the longest frame.
const BUFFER_BYTES: usize = 64 * 1024;

/// Text that answers a verified signature: as long as an answer to a hello.
const VERDICT_BYTES: usize = 200;

/// See the module.
pub(super) struct Lone {
    kind: Kind,
    buffer: RefCell<Box<[u8]>>,
    /// Those that are upgraded, to be pinged.
    open: RefCell<Slab<Rc<TcpStream>>>,
    proof: Proof,
}

/// One signature that holds, and the frame that says so.
struct Proof {
    key: PubKey,
    message: Vec<u8>,
    signature: Signature,
    verdict: Vec<u8>,
}

/// What a connection keeps between its turns.
#[derive(Default)]
struct Connection {
    slot: Option<usize>,
    verified: bool,
    /// What is not whole yet.
    rest: Vec<u8>,
}

/// The connection is to end.
struct Over;

impl From<frames::Malformed> for Over {
    fn from(_: frames::Malformed) -> Self {
        Self
    }
}

impl Lone {
    pub(super) fn new(kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            kind,
            buffer: RefCell::new(vec![0; BUFFER_BYTES].into()),
            open: RefCell::default(),
            proof: Proof::new(),
        })
    }

    /// The task of one connection.
    async fn run(self: Rc<Self>, socket: Rc<TcpStream>) {
        let mut connection = Connection::default();
        // Owns no data, so nothing is lost if it is dropped.
        while socket.readable(false).await.is_ok() {
            if let Err(Over) = self.turn(&socket, &mut connection) {
                break;
            }
        }
        if let Some(slot) = connection.slot {
            self.open.borrow_mut().remove(slot);
        }
    }

    /// Reads once, and answers.
    fn turn(&self, socket: &Rc<TcpStream>, connection: &mut Connection) -> Result<(), Over> {
        let buffer = &mut self.buffer.borrow_mut()[..];
        let kept = connection.rest.len();
        buffer[..kept].copy_from_slice(&connection.rest);
        let came = match recv(
            sys::borrow(socket),
            &mut buffer[kept..],
            RecvFlags::DONTWAIT,
        ) {
            // Also if a frame fills the buffer and is still not whole.
            Ok((_, 0)) => return Err(Over),
            Ok((_, came)) => came,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(Over),
        };
        let mut bytes = &mut buffer[..kept + came];
        if connection.slot.is_none() {
            let Some(consumed) = upgrade(socket, bytes)? else {
                connection.rest = bytes.to_vec();
                return Ok(());
            };
            connection.slot = Some(self.open.borrow_mut().insert(Rc::clone(socket)));
            bytes = &mut bytes[consumed..];
        }
        // An empty vector holds no memory.
        connection.rest = Vec::new();
        self.absorb(socket, connection, Frames::new(bytes))
    }

    fn absorb(
        &self,
        socket: &TcpStream,
        connection: &mut Connection,
        mut frames: Frames<'_>,
    ) -> Result<(), Over> {
        let (mut prove, mut close) = (false, false);
        while let Some(frame) = frames.next()? {
            match frame.opcode() {
                opcode::PING => frames.answer(&frame, FINAL | opcode::PONG),
                opcode::CLOSE => {
                    frames.answer(&frame, frame.first);
                    close = true;
                    break;
                }
                _ if self.kind == Kind::Echo && frame.is_data() => {
                    frames.answer(&frame, frame.first);
                }
                opcode::TEXT => prove = !mem::replace(&mut connection.verified, true),
                _ => {}
            }
        }
        write(socket, frames.answers())?;
        if prove && self.kind == Kind::Verify {
            write(socket, self.proof.verdict())?;
        }
        if close {
            return Err(Over);
        }
        if !frames.rest().is_empty() {
            connection.rest = frames.rest().to_vec();
        }
        Ok(())
    }
}

impl Floor for Lone {
    fn admit(self: &Rc<Self>, socket: std::net::TcpStream) -> io::Result<()> {
        let socket = Rc::new(TcpStream::from_std(socket)?);
        // Detached: it ends with its connection.
        drop(monoio::spawn(Rc::clone(self).run(socket)));
        Ok(())
    }

    fn slots(&self) -> usize {
        self.open.borrow().capacity()
    }

    fn ping(&self, slot: usize) {
        if let Some(socket) = self.open.borrow().get(slot) {
            // The task that reads finds out what is wrong with a socket that cannot be written.
            write(socket, &[FINAL | opcode::PING, 0]).unwrap_or(());
        }
    }
}

/// Answers the request; None if it is not whole.
fn upgrade(socket: &TcpStream, bytes: &[u8]) -> Result<Option<usize>, Over> {
    match upgrade::read(bytes) {
        Request::Partial => Ok(None),
        Request::Refused => Err(Over),
        Request::Upgrade { answer, consumed } => {
            write(socket, answer.as_bytes())?;
            Ok(Some(consumed))
        }
    }
}

/// Writes all or ends the connection: clients of a floor read.
fn write(socket: &TcpStream, bytes: &[u8]) -> Result<(), Over> {
    if bytes.is_empty() {
        return Ok(());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match send(sys::borrow(socket), bytes, flags) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) | Err(_) => Err(Over),
    }
}

impl Proof {
    fn new() -> Self {
        let pair = KeyPair::from_seed([7; 32]);
        // About as long as the text that a session signs.
        let message = vec![b'm'; 200];
        Self {
            key: pair.public(),
            signature: pair.sign(&message),
            message,
            verdict: frames::frame(FINAL | opcode::TEXT, &[b'v'; VERDICT_BYTES]),
        }
    }

    /// Verifies, and returns the frame to send; nothing if the signature does not hold, which
    /// shows at the client.
    fn verdict(&self) -> &[u8] {
        let holds = identity::verify(&self.key, &self.message, &self.signature);
        if holds { &self.verdict } else { &[] }
    }
}
