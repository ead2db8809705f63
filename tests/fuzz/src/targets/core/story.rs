//! Plays a story: keeps the sockets, feeds the shards, gives every effect to the judge.

use std::collections::VecDeque;

use holdfast_core::effect::{Effect, Effects};
use holdfast_core::ids::ConnId;
use holdfast_core::input::{Answer, Ask, Closing, Gauges, Input};
use holdfast_core::limits::SCHEDULES_WATCHED;
use holdfast_core::shard::Shard;
use holdfast_core::time::{Millis, Now, Wall};
use holdfast_core::wheel::TICK;

use super::expect::{Decoded, Expect};
use super::script::{self, MEMBERS, SOCKETS, Step, member_keys, mesh_of};
use super::world::{self, SHARDS, Store};
use crate::corpus::fingerprint;

/// Deadlines met one by one while time passes; beyond that it jumps.
const WAKES_MAX: usize = 500;

/// Longest time that passes at once: ten days.
const PASS_MAX: u64 = 10 * 24 * 3600 * 1000;

/// What a socket is to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Greeting,
    /// Its hello waits for what the incumbent does.
    Contending,
    Attached,
    /// Told to close: it gets nothing any more.
    Told,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: ConnId,
    pub(super) shard: usize,
    pub(super) state: State,
    /// The member its hello names.
    pub(super) member: Option<u8>,
    /// Answers it is owed, in order.
    pub(super) owed: VecDeque<Expect>,
}

/// Why a shard was called.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// Time, the store, the end of a socket, the operator.
    Event,
    /// What that socket said.
    Message(usize, &'a Decoded),
}

pub(super) struct Story {
    pub(super) sockets: [Option<Socket>; SOCKETS],
    pub(super) store: Store,
    /// The newest message's id.
    pub(super) last: String,
    shards: Vec<Shard>,
    now: Now,
    opened: u32,
    trace: u64,
    tracing: bool,
    /// Whether the broker was told to stop: leases stay, sockets go.
    pub(super) stopped: bool,
    /// Something was scheduled, which outlives sessions.
    pub(super) scheduled: bool,
}

impl Story {
    /// A broker with nobody present. `tracing` makes [`Story::trace`] tell apart what happens.
    pub(super) fn new(small: bool, tracing: bool) -> Self {
        let now = world::beginning();
        Self {
            sockets: std::array::from_fn(|_| None),
            store: Store::default(),
            last: "0".repeat(32),
            shards: world::shards(now, small),
            now,
            opened: 0,
            trace: 0,
            tracing,
            stopped: false,
            scheduled: false,
        }
    }

    /// A fingerprint of every effect so far.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Does one thing, and checks everything that follows from it.
    pub(super) fn play(&mut self, step: &Step<'_>) {
        self.pass(1);
        match *step {
            Step::Message(socket, text) => {
                let text = script::expand(text, &self.last);
                self.say(socket, &text);
            }
            Step::Hello(socket, spec) => {
                let text = script::expand(&spec.text(self.now.wall), &self.last);
                self.say(socket, &text);
            }
            Step::Binary(socket) => self.undecodable(socket),
            Step::Ping(socket) => self.touch(socket, None),
            Step::Pong(socket, mark) => self.touch(socket, Some(mark)),
            Step::Close(socket, clean) => self.close(socket, clean),
            Step::Pass(span) => self.pass(span.min(PASS_MAX)),
            Step::Wall(by) => self.now.wall = Wall(self.now.wall.0.saturating_add(by)),
            Step::Hold(held) => {
                self.store.held = held;
                self.let_the_store_answer();
            }
            Step::Fail(failing) => self.store.failing = failing,
            Step::Shutdown => {
                self.stopped = true;
                for shard in 0..SHARDS {
                    self.feed(shard, Input::Shutdown, Cause::Event);
                }
            }
            // Of a broker that stops only the sockets are watched.
            Step::Hook(_) if self.stopped => {}
            Step::Hook(body) => self.hook(body.as_bytes()),
            Step::Small => {}
        }
        self.settle();
    }

    /// The socket of that name, opened if it is not open.
    fn open(&mut self, name: usize) -> (usize, ConnId) {
        if let Some(socket) = &self.sockets[name] {
            return (socket.shard, socket.id);
        }
        self.opened += 1;
        let (id, shard) = (world::conn(name, self.opened), name % SHARDS);
        self.sockets[name] = Some(Socket {
            id,
            shard,
            state: State::Greeting,
            member: None,
            owed: VecDeque::new(),
        });
        self.feed(shard, Input::Opened { conn: id }, Cause::Event);
        (shard, id)
    }

    fn say(&mut self, name: usize, text: &str) {
        let (shard, conn) = self.open(name);
        let Some(socket) = self.sockets[name].as_mut() else {
            return;
        };
        let greeted = socket.state != State::Greeting;
        let decoded = Decoded::read(text, greeted);
        let frame = Input::Frame { conn, text };
        if socket.state == State::Told {
            return self.say_too_late(name, frame);
        }
        if decoded.is_hello() && !greeted {
            socket.member = named_member(&decoded);
        }
        socket.owed.extend(decoded.answer.clone());
        socket.owed.extend(decoded.also.clone());
        self.feed(shard, frame, Cause::Message(name, &decoded));
    }

    /// What a socket says after it was told to close changes nothing.
    fn say_too_late(&mut self, name: usize, frame: Input<'_>) {
        let Some(socket) = &self.sockets[name] else {
            return;
        };
        let fx = self.call(socket.shard, frame);
        assert!(
            fx.iter().all(|effect| matches!(effect, Effect::Observe(_))),
            "a closed socket had an effect: {fx:?}"
        );
        self.close(name, true);
    }

    fn undecodable(&mut self, name: usize) {
        let (shard, conn) = self.open(name);
        let frame = Input::Undecodable { conn };
        let Some(socket) = self.sockets[name].as_mut() else {
            return;
        };
        match socket.state {
            State::Told => return self.say_too_late(name, frame),
            // Nothing waits for a challenger but text.
            State::Contending => {}
            State::Greeting | State::Attached => {
                socket.owed.extend(Decoded::read("\u{0}", true).answer);
            }
        }
        let decoded = Decoded::read("\u{0}", true);
        self.feed(shard, frame, Cause::Message(name, &decoded));
    }

    fn touch(&mut self, name: usize, pong: Option<u64>) {
        let (shard, conn) = self.open(name);
        let payload = pong.unwrap_or_default().to_be_bytes();
        let input = match pong {
            Some(_) => Input::Ponged {
                conn,
                payload: &payload,
            },
            None => Input::Pinged { conn },
        };
        self.feed(shard, input, Cause::Event);
    }

    fn close(&mut self, name: usize, clean: bool) {
        if let Some(Socket { id, shard, .. }) = self.sockets[name].take() {
            let how = if clean {
                Closing::Clean
            } else {
                Closing::Abrupt
            };
            self.feed(shard, Input::Closed { conn: id, how }, Cause::Event);
        }
    }

    fn pass(&mut self, span: u64) {
        let end = self.now.mono.after(Millis(span));
        for wake in 0.. {
            let next = self.shards.iter().filter_map(Shard::next_deadline).min();
            let to = next.filter(|next| *next < end && wake < WAKES_MAX);
            let to = to.unwrap_or(end).max(self.now.mono);
            let by = to.since(self.now.mono);
            self.now = Now {
                mono: to,
                wall: self.now.wall.after(by),
            };
            for shard in 0..SHARDS {
                let mut fx = Vec::new();
                self.shards[shard].advance(self.now, &mut fx);
                self.carry_out(shard, fx, Cause::Event);
            }
            if to == end {
                break;
            }
        }
    }

    fn feed(&mut self, shard: usize, input: Input<'_>, cause: Cause<'_>) {
        let fx = self.call(shard, input);
        self.carry_out(shard, fx, cause);
    }

    /// What follows from an input, not carried out yet.
    pub(super) fn call(&mut self, shard: usize, input: Input<'_>) -> Effects {
        let mut fx = Vec::new();
        self.shards[shard].handle(self.now, input, &mut fx);
        fx
    }

    pub(super) fn carry_out(&mut self, shard: usize, fx: Effects, cause: Cause<'_>) {
        let mut moved = Vec::new();
        for effect in fx {
            if self.tracing {
                self.trace ^= fingerprint(format!("{effect:?}").as_bytes());
                self.trace = self.trace.rotate_left(9);
            }
            self.judge(shard, &effect, cause);
            self.store.take(shard, &effect);
            if let Effect::Handoff { conn, shard, hello } = effect {
                moved.push((usize::from(shard), Input::Adopted { conn, hello }));
            }
        }
        for (shard, input) in moved {
            self.feed(shard, input, cause);
        }
        self.let_the_store_answer();
    }

    fn let_the_store_answer(&mut self) {
        while let Some((shard, input)) = self.store.next() {
            self.feed(shard, input, Cause::Event);
        }
    }

    /// Lets the store answer, then asks every session for a sign of life, then ends them all.
    pub(super) fn finish(&mut self) {
        self.store.held = false;
        self.store.failing = false;
        self.let_the_store_answer();
        self.settle();
        if self.stopped {
            return;
        }
        self.recount();
        for name in 0..SOCKETS {
            let attached = |socket: &&Socket| socket.state == State::Attached;
            if self.sockets[name].as_ref().filter(attached).is_some() {
                self.say(name, r#"{"type":"list_peers","_reqId":"alive"}"#);
            }
        }
        self.settle();
        for name in 0..SOCKETS {
            self.close(name, name % 2 == 0);
        }
        self.pass(24 * 3600 * 1000);
        for shard in 0..SHARDS {
            let left = self.gauges(shard);
            assert_eq!(
                (left.online, left.grace, left.greeting),
                (0, 0, 0),
                "sessions are left without sockets"
            );
            let timer = self.shards[shard].next_deadline();
            let watched = self.now.mono.after(SCHEDULES_WATCHED).after(TICK);
            assert!(
                timer.is_none_or(|at| self.scheduled && at <= watched),
                "a timer is left of sessions that are gone"
            );
        }
    }

    /// The counters say what there is.
    fn recount(&mut self) {
        for shard in 0..SHARDS {
            let count = |state| {
                let here = |socket: &&Socket| socket.shard == shard && socket.state == state;
                self.sockets.iter().flatten().filter(here).count() as u64
            };
            let counted = (count(State::Attached), count(State::Greeting));
            let gauges = self.gauges(shard);
            assert_eq!((gauges.online, gauges.greeting), counted, "shard {shard}");
        }
    }

    fn gauges(&mut self, shard: usize) -> Gauges {
        let Answer::Gauges(gauges) = self.ask(shard, Ask::Gauges) else {
            panic!("another answer to what there is");
        };
        gauges
    }
}

/// The member a hello speaks for, whether or not it may.
fn named_member(hello: &Decoded) -> Option<u8> {
    let field = match hello.text("type").as_deref() {
        Some("hello") => "pubkey",
        _ => "parentMemberPubkey",
    };
    let (key, mesh) = (hello.text(field)?, hello.text("meshId")?);
    (1..=MEMBERS)
        .find(|member| mesh == mesh_of(*member) && key == member_keys(*member).public().to_string())
}
