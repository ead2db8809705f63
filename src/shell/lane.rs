//! The only way from one thread to another loop: a bounded queue with a bell.
//!
//! The bell is an eventfd that the receiver polls through its own ring, so no waker crosses a
//! thread (monoio's `sync` stays off). The protocol, and why no message is slept over:
//!
//! - sender: push, then `armed.swap(false)`; whoever finds it true rings.
//! - receiver: drain; when empty `armed.swap(true)`, *drain again*, and only then wait.
//!
//! A push before the second drain is seen by it; a push after it finds `armed` true and rings.
//! Nobody disarms on the receiver's side: a bell rung for nothing costs one empty drain.
//!
//! [`Lane::offer`] refuses at the bound and gives the message back; [`Lane::deliver`] does not,
//! and is for messages whose number another bound already limits. What each message does at the
//! bound is said at its variant of `shell::message::Message`.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use monoio::net::UnixStream;
use rustix::event::{EventfdFlags, eventfd};

/// Batches taken without sleeping before the other tasks of the loop get their turn.
const STREAK_MAX: u8 = 4;

/// One loop's inbox.
pub(super) struct Lane<M> {
    queue: Mutex<Queue<M>>,
    armed: AtomicBool,
    bell: OwnedFd,
    bound: usize,
}

struct Queue<M> {
    messages: Vec<M>,
    closed: bool,
}

impl<M> Lane<M> {
    /// An empty lane for `bound` messages.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn new(bound: usize) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let queue = Mutex::new(Queue {
            messages: Vec::new(),
            closed: false,
        });
        Ok(Self {
            queue,
            armed: AtomicBool::new(false),
            bell,
            bound,
        })
    }

    /// Sends, unless the lane is full or closed.
    pub(super) fn offer(&self, message: M) -> Result<(), M> {
        self.push(message, self.bound)
    }

    /// Sends beyond the bound too; refused only by a closed lane.
    pub(super) fn deliver(&self, message: M) -> Result<(), M> {
        self.push(message, usize::MAX)
    }

    fn push(&self, message: M, bound: usize) -> Result<(), M> {
        let mut queue = self.lock();
        if queue.closed || queue.messages.len() >= bound {
            return Err(message);
        }
        queue.messages.push(message);
        drop(queue);
        if self.armed.swap(false, Ordering::SeqCst) {
            self.ring();
        }
        Ok(())
    }

    /// Refuses whatever comes later, and drops what is there: fds close, askers are told.
    pub(super) fn close(&self) {
        let messages = {
            let mut queue = self.lock();
            queue.closed = true;
            mem::take(&mut queue.messages)
        };
        drop(messages);
    }

    /// Messages waiting.
    pub(super) fn len(&self) -> usize {
        self.lock().messages.len()
    }

    fn drain(&self, into: &mut Vec<M>) {
        let mut queue = self.lock();
        if into.is_empty() {
            mem::swap(&mut queue.messages, into);
        } else {
            into.append(&mut queue.messages);
        }
    }

    fn ring(&self) {
        // Fails only if the counter is full, and then it is readable anyway.
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
    }

    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        // No code that can panic runs under the lock, so a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving end, in the loop's own thread.
pub(super) struct Receiver<'a, M> {
    lane: &'a Lane<M>,
    /// The bell as the runtime polls it: nothing is ever read or written through this type.
    bell: UnixStream,
    streak: u8,
}

impl<'a, M> Receiver<'a, M> {
    /// Registers the bell with the loop's driver.
    ///
    /// # Errors
    /// If no descriptor is left or the driver refuses it.
    pub(super) fn new(lane: &'a Lane<M>) -> io::Result<Self> {
        let bell = std::os::unix::net::UnixStream::from(lane.bell.as_fd().try_clone_to_owned()?);
        Ok(Self {
            lane,
            bell: UnixStream::from_std(bell)?,
            streak: 0,
        })
    }

    /// Waits for messages and appends them, at least one.
    ///
    /// # Errors
    /// If the driver cannot poll any more.
    pub(super) async fn receive(&mut self, batch: &mut Vec<M>) -> io::Result<()> {
        if self.streak >= STREAK_MAX {
            // A sleep that ends at once: other tasks run meanwhile (a self-wake would not do).
            self.lane.ring();
            self.sleep().await?;
        }
        loop {
            self.lane.drain(batch);
            if batch.is_empty() {
                self.lane.armed.swap(true, Ordering::SeqCst);
                self.lane.drain(batch);
            }
            if !batch.is_empty() {
                self.streak += 1;
                return Ok(());
            }
            self.sleep().await?;
        }
    }

    async fn sleep(&mut self) -> io::Result<()> {
        self.streak = 0;
        self.bell.readable(false).await?;
        let mut counter = [0_u8; 8];
        // Empty if it was rung for nothing.
        rustix::io::read(&self.lane.bell, &mut counter).ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::shell::runtime::{Driver, block_on};

    #[test]
    fn a_full_lane_gives_the_message_back_but_takes_what_must_arrive() {
        let lane = Lane::new(2).unwrap();
        assert_eq!(lane.offer(1), Ok(()));
        assert_eq!(lane.offer(2), Ok(()));
        assert_eq!(lane.offer(3), Err(3));
        assert_eq!(lane.deliver(4), Ok(()));
        assert_eq!(lane.len(), 3);
        lane.close();
        assert_eq!(lane.deliver(5), Err(5));
        assert_eq!(lane.len(), 0);
    }

    /// Four threads, bursts and pauses: every message arrives, each sender's in order.
    fn stress(driver: Driver) {
        const SENDERS: u32 = 4;
        const EACH: u32 = 20_000;
        let lane = Arc::new(Lane::new(64).unwrap());
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let lane = Arc::clone(&lane);
                thread::spawn(move || {
                    for n in 0..EACH {
                        let mut message = (sender, n);
                        while let Err(back) = lane.offer(message) {
                            message = back;
                            thread::yield_now();
                        }
                        if n % 997 == 0 {
                            thread::sleep(std::time::Duration::from_micros(300));
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; SENDERS as usize];
        block_on(driver, async {
            let mut receiver = Receiver::new(&lane).unwrap();
            let mut batch = Vec::new();
            while next.iter().any(|&n| n < EACH) {
                receiver.receive(&mut batch).await.unwrap();
                for (sender, n) in batch.drain(..) {
                    assert_eq!(n, next[sender as usize]);
                    next[sender as usize] += 1;
                }
            }
        })
        .unwrap();
        for sender in senders {
            sender.join().unwrap();
        }
    }

    #[test]
    fn nothing_is_slept_over_on_the_ring() {
        if Driver::choose(None) == Driver::IoUring {
            stress(Driver::IoUring);
        }
    }

    #[test]
    fn nothing_is_slept_over_on_epoll() {
        stress(Driver::Epoll);
    }
}
