//! The floor of broadcasts: each text of a client goes to all others as one shared frame.
//!
//! Each connection has a task that writes: waking all of them queues one operation each, and the
//! loop submits those together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::TcpStream;
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use slab::Slab;

use super::frames::{self, FINAL, Frames, Malformed, opcode};
use super::serve::{self, Floor};
use super::upgrade::{self, Request};

/// What is read at once.
const READ_BYTES: usize = 4096;

/// Longest message.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Frames that wait for one client; far more than a client that reads ever lets wait.
const WAITING_MAX: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Fanout {
    open: RefCell<Slab<Rc<Outbox>>>,
}

/// What is to be written to one connection.
#[derive(Default)]
struct Outbox {
    frames: RefCell<VecDeque<Bytes>>,
    writer: RefCell<Option<Waker>>,
    over: Cell<bool>,
}

impl Outbox {
    fn push(&self, frame: Bytes) {
        let mut frames = self.frames.borrow_mut();
        if frames.len() >= WAITING_MAX {
            // Going on would measure something else.
            serve::give_up("a client of the fan-out does not read");
        }
        frames.push_back(frame);
        self.wake();
    }

    fn end(&self) {
        self.over.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
    }

    /// The next frame; None at the end.
    async fn next(&self) -> Option<Bytes> {
        poll_fn(|cx| {
            if let Some(frame) = self.frames.borrow_mut().pop_front() {
                return Poll::Ready(Some(frame));
            }
            if self.over.get() {
                return Poll::Ready(None);
            }
            *self.writer.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The task that writes.
async fn write(outbox: Rc<Outbox>, mut half: TcpOwnedWriteHalf) {
    while let Some(frame) = outbox.next().await {
        let (written, _) = half.write_all(frame).await;
        if written.is_err() {
            // The task that reads finds out too.
            return;
        }
    }
}

impl Fanout {
    /// The task that reads.
    async fn read(self: Rc<Self>, outbox: Rc<Outbox>, mut half: TcpOwnedReadHalf) {
        let mut slot = None;
        let mut pending = Vec::new();
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            let (read, filled) = half.read(buffer).await;
            buffer = filled;
            match read {
                Ok(1..) => pending.extend_from_slice(&buffer),
                Ok(0) | Err(_) => break,
            }
            let Ok(consumed) = self.absorb(&outbox, &mut slot, &mut pending) else {
                break;
            };
            pending.drain(..consumed);
            if pending.len() > MESSAGE_BYTES_MAX {
                break;
            }
        }
        if let Some(slot) = slot {
            self.open.borrow_mut().remove(slot);
        }
        outbox.end();
    }

    /// Deals with what has come, and returns how much of it is done with.
    fn absorb(
        &self,
        outbox: &Rc<Outbox>,
        slot: &mut Option<usize>,
        pending: &mut [u8],
    ) -> Result<usize, Malformed> {
        let mut head = 0;
        if slot.is_none() {
            match upgrade::read(pending) {
                Request::Partial => return Ok(0),
                Request::Refused => return Err(Malformed),
                Request::Upgrade { answer, consumed } => {
                    outbox.push(answer.into());
                    head = consumed;
                }
            }
            *slot = Some(self.open.borrow_mut().insert(Rc::clone(outbox)));
        }
        let mut frames = Frames::new(&mut pending[head..]);
        while let Some(frame) = frames.next()? {
            let payload = frames.payload(&frame);
            match frame.opcode() {
                opcode::PING => {
                    outbox.push(frames::frame(FINAL | opcode::PONG, payload).into());
                }
                opcode::CLOSE => {
                    outbox.push(frames::frame(FINAL | opcode::CLOSE, payload).into());
                    return Err(Malformed);
                }
                _ if frame.is_data() => {
                    self.broadcast(*slot, frames::frame(frame.first, payload).into());
                }
                _ => {}
            }
        }
        Ok(head + frames.consumed())
    }

    fn broadcast(&self, from: Option<usize>, frame: Bytes) {
        for (slot, outbox) in &*self.open.borrow() {
            if Some(slot) != from {
                outbox.push(frame.clone());
            }
        }
    }
}

impl Floor for Fanout {
    fn admit(self: &Rc<Self>, socket: std::net::TcpStream) -> io::Result<()> {
        let (reading, writing) = TcpStream::from_std(socket)?.into_split();
        let outbox = Rc::<Outbox>::default();
        // Detached: both end with their connection.
        drop(monoio::spawn(write(Rc::clone(&outbox), writing)));
        drop(monoio::spawn(Rc::clone(self).read(outbox, reading)));
        Ok(())
    }

    fn slots(&self) -> usize {
        self.open.borrow().capacity()
    }

    fn ping(&self, slot: usize) {
        if let Some(outbox) = self.open.borrow().get(slot) {
            outbox.push(Bytes::from_static(&[FINAL | opcode::PING, 0]));
        }
    }
}
