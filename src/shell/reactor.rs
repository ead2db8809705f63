//! One loop: one thread, one runtime, one shard.
//!
//! All state is in [`Reactor`], which tasks reach through [`Loop::turn`] and never across an
//! await. A turn gives the core any number of inputs, each with all its effects before the next;
//! what they write is gathered and goes out at the end of the turn, one system call per socket.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::ask::Gather;
use super::clerk::Errand;
use super::clock::Clock;
use super::connection::Connections;
use super::drain::Drain;
use super::limits::{CATCH_UP, CATCH_UPS_MAX, EFFECTS_KEPT, READ_BYTES, STALL};
use super::message::{Asker, Message};
use super::notify::Notify;
use super::observe::Counters;
use super::outbound::Outbound;
use super::poller::Poller;
use super::shared::Shared;
use crate::core::effect::Effects;
use crate::core::ids::ConnId;
use crate::core::input::{Closing, Input};
use crate::core::shard::Shard;
use crate::core::time::{Mono, Now, Wall};
use crate::core::wheel::Wheel;
use crate::store::{Completion, StoreClient};

/// What the shell itself waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A request that does not come, or a peer that does not end.
    Connection(ConnId),
    /// The next step of the shutdown.
    Drain,
}

/// A loop's state. See the module.
pub(super) struct Reactor {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) max_frame_bytes: usize,
    pub(super) shard: Shard,
    pub(super) store: StoreClient,
    /// Kept for its capacity.
    effects: Effects,
    /// Ends of sockets that the core has yet to be told of.
    pub(super) unreported_ends: VecDeque<(ConnId, Closing)>,
    pub(super) conns: Connections,
    pub(super) poller: Poller,
    pub(super) timers: Wheel<Timer>,
    /// Sockets with something queued in this turn.
    pub(super) dirty: Vec<ConnId>,
    /// Sockets aborted in this turn.
    pub(super) dying: Vec<ConnId>,
    /// A descriptor was closed in this turn.
    pub(super) freed: bool,
    /// Queues for reuse.
    #[expect(clippy::vec_box, reason = "a connection holds a pointer, not a queue")]
    pub(super) pool: Vec<Box<Outbound>>,
    /// The one read buffer.
    pub(super) buffer: Box<[u8]>,
    /// Questions given to this shard, by ticket.
    pub(super) asked: BTreeMap<u64, Asker>,
    /// Questions put by tasks of this loop, by ticket.
    pub(super) gathers: BTreeMap<u64, Rc<Gather>>,
    /// HTTP requests of this loop that wait for the clerk, by ticket.
    pub(super) errands: BTreeMap<u64, Rc<Errand>>,
    pub(super) next_ticket: u64,
    /// Store operations whose result has not come.
    pub(super) in_flight: u64,
    pub(super) drain: Option<Drain>,
}

/// What a reactor is made of.
pub(super) struct Parts {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) max_frame_bytes: usize,
    pub(super) shard: Shard,
    pub(super) store: StoreClient,
    pub(super) poller: Poller,
}

impl Reactor {
    /// A loop's state before its first turn.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            index,
            shared,
            max_frame_bytes,
            shard,
            store,
            poller,
        } = parts;
        let clock = shared.clock;
        Self {
            index,
            shared,
            clock,
            max_frame_bytes,
            shard,
            store,
            effects: Effects::new(),
            unreported_ends: VecDeque::new(),
            conns: Connections::default(),
            poller,
            timers: Wheel::new(clock.mono()),
            dirty: Vec::new(),
            dying: Vec::new(),
            freed: false,
            pool: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            asked: BTreeMap::new(),
            gathers: BTreeMap::new(),
            errands: BTreeMap::new(),
            next_ticket: 0,
            in_flight: 0,
            drain: None,
        }
    }

    /// This loop's counters.
    pub(super) fn counters(&self) -> &Counters {
        self.shared.counters(self.index)
    }

    /// Gives the core one input and carries out all its effects.
    pub(super) fn drive(&mut self, input: Input<'_>) {
        let now = self.clock.now();
        self.step(|shard, effects| shard.handle(now, input, effects));
        self.report_ends();
    }

    /// Tells the core of sockets that have ended.
    fn report_ends(&mut self) {
        while let Some((conn, how)) = self.unreported_ends.pop_front() {
            let now = self.clock.now();
            self.step(|shard, effects| shard.handle(now, Input::Closed { conn, how }, effects));
        }
    }

    fn step(&mut self, call: impl FnOnce(&mut Shard, &mut Effects)) {
        let mut effects = mem::take(&mut self.effects);
        call(&mut self.shard, &mut effects);
        for effect in effects.drain(..) {
            self.apply(effect);
        }
        // A storm leaves room for one effect per session.
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
    }

    /// Fires everything due.
    fn advance(&mut self, now: Now) {
        self.step(|shard, effects| shard.advance(now, effects));
        self.report_ends();
        while let Some((_, timer)) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Connection(conn) => self.timed_out(conn),
                Timer::Drain => self.drain_step(),
            }
        }
    }

    /// The end of a turn: the core knows every end, and the kernel every byte it takes.
    fn settle(&mut self) {
        loop {
            self.report_ends();
            self.flush_all();
            self.bury();
            // Writing may have shown that a socket is at its end.
            if self.unreported_ends.is_empty() {
                return;
            }
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        match (self.shard.next_deadline(), self.timers.next_deadline()) {
            (Some(core), Some(own)) => Some(core.min(own)),
            (core, own) => core.or(own),
        }
    }

    /// Takes a message from another thread.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            // These are the receiving task's business.
            Message::Listen | Message::Drained => {}
            Message::Stored(batch) => {
                for completion in batch {
                    self.stored(completion);
                }
            }
            Message::Fetched { token, result } => self.drive(Input::Fetched { token, result }),
            Message::Handoff(parcel) => {
                if self.drain.is_none() {
                    self.adopt(*parcel);
                } else {
                    // Dropped: its client reconnects to whoever comes after us.
                    self.shared.socket_closed();
                }
            }
            Message::Ask { ask, asker } => self.ask(ask, asker),
            Message::Answer {
                ticket,
                from,
                answer,
            } => self.answered(ticket, from, answer),
            Message::Replied { ticket, reply } => self.replied(ticket, reply),
            Message::PutMesh(row, taken) => {
                self.drive(Input::MeshPut(row));
                // The administrator may have given up.
                taken.send(()).ok();
            }
            Message::PutMember(row, taken) => {
                self.drive(Input::MemberPut(row));
                taken.send(()).ok();
            }
            Message::Shutdown => self.begin_drain(),
        }
    }

    fn stored(&mut self, completion: Completion) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match completion {
            Completion::Stored { token, result } => self.drive(Input::Stored { token, result }),
            Completion::Answered { token, result } => {
                self.drive(Input::Answered { token, result });
            }
        }
    }
}

/// What the tasks of a loop share.
pub(super) struct Loop {
    reactor: RefCell<Reactor>,
    pub(super) shared: Arc<Shared>,
    index: u16,
    clock: Clock,
    timer: Notify,
    armed: Cell<Option<Mono>>,
    /// A descriptor has been freed.
    pub(super) freed: Notify,
    /// No more is to be accepted.
    pub(super) stopping: Cell<bool>,
    /// No timer is needed any more.
    ended: Cell<bool>,
}

impl Loop {
    /// Wraps a reactor for its tasks.
    pub(super) fn new(reactor: Reactor) -> Rc<Self> {
        Rc::new(Self {
            shared: Arc::clone(&reactor.shared),
            index: reactor.index,
            clock: reactor.clock,
            reactor: RefCell::new(reactor),
            timer: Notify::default(),
            armed: Cell::new(None),
            freed: Notify::default(),
            stopping: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// This loop's counters.
    pub(super) fn counters(&self) -> &Counters {
        self.shared.counters(self.index)
    }

    /// This moment.
    pub(super) fn mono(&self) -> Mono {
        self.clock.mono()
    }

    /// The same on the clock for people.
    pub(super) fn wall(&self) -> Wall {
        self.clock.now().wall
    }

    /// Runs `work`, then writes what it queued, and sees to the timer.
    pub(super) fn turn<R>(self: &Rc<Self>, work: impl FnOnce(&mut Reactor) -> R) -> R {
        let mut reactor = self.reactor.borrow_mut();
        let result = work(&mut reactor);
        reactor.settle();
        self.end_turn(reactor);
        result
    }

    fn end_turn(self: &Rc<Self>, mut reactor: RefMut<'_, Reactor>) {
        let freed = mem::take(&mut reactor.freed);
        let deadline = reactor.next_deadline();
        let drained = reactor.drained();
        drop(reactor);
        if freed {
            self.freed.notify();
        }
        if drained && let Some(lane) = self.shared.lanes.get(usize::from(self.index)) {
            // Our own lane, which the loop's first task closes after it has seen this.
            lane.deliver(Message::Drained).ok();
        }
        let sooner = match (deadline, self.armed.get()) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.timer.notify();
        }
    }

    /// Ends the timer's task.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.timer.notify();
    }

    /// The one timer: sleeps until the earliest deadline, or until an input brings an earlier one.
    pub(super) async fn run_timer(self: Rc<Self>) {
        while !self.ended.get() {
            // Armed for the past: no turn inside this one rings.
            self.armed.set(Some(Mono(0)));
            let next = self.turn(|reactor| {
                let now = reactor.clock.now();
                reactor.advance(now);
                reactor.settle();
                reactor.next_deadline()
            });
            self.armed.set(next);
            match next {
                Some(deadline) => {
                    // At least one tick of the runtime: never a busy loop, whatever the core says.
                    let left = deadline.since(self.clock.mono()).0.max(1);
                    let span = Duration::from_millis(left);
                    monoio::time::timeout(span, self.timer.wait()).await.ok();
                    if self.clock.mono().since(deadline) > STALL {
                        self.catch_up().await;
                    }
                }
                None => self.timer.wait().await,
            }
        }
    }
}

impl Loop {
    /// After a stall: lets what came meanwhile be read, so that nobody is judged silent for it.
    /// The runtime may look at its clock before it looks at its sockets (epoll does, when a stop
    /// of the process has interrupted it).
    async fn catch_up(&self) {
        let span = Duration::from_millis(CATCH_UP.0);
        for _ in 0..CATCH_UPS_MAX {
            let began = self.clock.mono();
            monoio::time::sleep(span).await;
            // Woken in time: the loop has nothing else to do.
            if self.clock.mono().since(began).0 < 2 * CATCH_UP.0 {
                return;
            }
        }
    }
}
