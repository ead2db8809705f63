//! One loop's thread, from its rows to its end.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use rustix::net::{Shutdown, shutdown};

use super::boot::Notice;
use super::lane::Receiver;
use super::message::Message;
use super::poller::{self, Poller};
use super::reactor::{Loop, Parts, Reactor};
use super::shared::Shared;
use super::{accept, runtime};
use crate::core::ids::Seq;
use crate::core::input::Input;
use crate::core::limits::Config;
use crate::core::rows::BootRow;
use crate::core::shard::{Place, Shard};
use crate::store::StoreClient;

/// What the last process left, as it is read.
pub(super) enum Rows {
    /// To be given to the shard.
    Some(Vec<BootRow>),
    /// That was all, and the store takes what the shard made of it.
    End,
}

/// What a loop starts with.
pub(super) struct LoopStart {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) store: StoreClient,
    pub(super) core: Config,
    pub(super) max_frame_bytes: usize,
    pub(super) seed: [u8; 32],
    pub(super) first_seq: Seq,
    pub(super) rows: mpsc::Receiver<Rows>,
    /// Bound, not yet listening.
    pub(super) listener: TcpListener,
    pub(super) notify: Sender<Notice>,
}

/// Tells the waiting thread if this one unwinds.
pub(super) struct Tripwire(pub(super) Sender<Notice>);

impl Drop for Tripwire {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(Notice::Died).ok();
        }
    }
}

/// The thread's main function.
pub(super) fn run_loop(start: LoopStart) {
    let tripwire = Tripwire(start.notify.clone());
    let shared = Arc::clone(&start.shared);
    let index = usize::from(start.index);
    let ended = runtime::block_on(shared.driver, run(start)).and_then(|ended| ended);
    if let Some(lane) = shared.lanes.get(index) {
        lane.close();
    }
    if let Err(error) = ended {
        tripwire.0.send(Notice::Failed(error)).ok();
    }
}

/// The loop's first task, which ends last.
async fn run(start: LoopStart) -> io::Result<()> {
    let shared = Arc::clone(&start.shared);
    let Some(lane) = shared.lanes.get(usize::from(start.index)) else {
        return Ok(());
    };
    let mut receiver = Receiver::new(lane)?;
    let polled = monoio::net::TcpListener::from_std(start.listener.try_clone()?)?;
    let listener = start.listener.try_clone()?;
    let notify = start.notify.clone();
    let poller = Poller::new()?;
    let polled_set = poller.polled()?;
    let Some(lp) = build(start, poller) else {
        return Ok(());
    };
    let timer = monoio::spawn(Rc::clone(&lp).run_timer());
    monoio::spawn(poller::run(Rc::clone(&lp), polled_set));
    notify.send(Notice::Ready).ok();
    let mut waiting = Some((listener.try_clone()?, polled));
    let mut accepting = None;
    let mut batch = Vec::new();
    let mut over = false;
    while !over {
        receiver.receive(&mut batch).await?;
        for message in &batch {
            match message {
                Message::Listen => {
                    if let Some((ours, polled)) = waiting.take() {
                        accepting = Some(monoio::spawn(accept::run(Rc::clone(&lp), ours, polled)));
                    }
                }
                Message::Shutdown => {
                    lp.stopping.set(true);
                    // Ends the wait of the accepting task.
                    shutdown(&listener, Shutdown::Both).ok();
                }
                Message::Drained => over = true,
                Message::Stored(_)
                | Message::Fetched { .. }
                | Message::Handoff(_)
                | Message::Ask { .. }
                | Message::Answer { .. }
                | Message::PutMesh(..)
                | Message::PutMember(..)
                | Message::Replied { .. } => {}
            }
        }
        lp.turn(|reactor| {
            for message in batch.drain(..) {
                reactor.take(message);
            }
        });
    }
    lp.end();
    timer.await;
    if let Some(accepting) = accepting {
        accepting.await;
    }
    Ok(())
}

/// Builds the shard in its own thread, and gives it what the last process left; None if that cannot
/// be read to its end, of which whoever starts the loops knows more.
pub(super) fn build(start: LoopStart, poller: Poller) -> Option<Rc<Loop>> {
    let count = u16::try_from(start.shared.lanes.len()).unwrap_or(u16::MAX);
    let place = Place {
        index: start.index,
        count,
    };
    let now = start.shared.clock.now();
    let shard = Shard::new(start.core, place, start.seed, now, start.first_seq);
    let lp = Loop::new(Reactor::new(Parts {
        index: start.index,
        shared: start.shared,
        max_frame_bytes: start.max_frame_bytes,
        shard,
        store: start.store,
        poller,
    }));
    while let Rows::Some(rows) = start.rows.recv().ok()? {
        lp.turn(|reactor| {
            for row in rows {
                reactor.drive(Input::Boot(row));
            }
        });
    }
    Some(lp)
}
