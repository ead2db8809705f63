//! A shard: the meshes of one loop. Holds the state and dispatches; rules are in the modules.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::Hasher;
use crate::attachment::{Attachment, Attachments};
use crate::cwds::Cwds;
use crate::effect::{Close, Effect, Effects};
use crate::event::Event;
use crate::handle::HandleSlab;
use crate::hello::Hello;
use crate::identity::ResumeKey;
use crate::ids::{ConnId, PeerHandle, Position, PubKey, Seq, Ticket, Token, WatchId};
use crate::input::{Answer, Ask, Closing, Input};
use crate::limits::Config;
use crate::marks::{Mark, mark};
use crate::mesh::{Member, Mesh};
use crate::mint::Mint;
use crate::peer::{MemberIx, MeshIx, PeerConn};
use crate::repeats::Repeats;
use crate::replay::Replay;
use crate::rows::{BootRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery, WatchRow};
use crate::schedules::Schedules;
use crate::time::{Mono, Now};
use crate::verbs::hook::PendingStatus;
use crate::verbs::repeat::Doubted;
use crate::verbs::schedule::Scheduling;
use crate::verbs::send::Unstored;
use crate::watching::Fetching;
use crate::wheel::Wheel;

/// Which of how many shards this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0-based.
    pub index: u16,
    /// At least 1.
    pub count: u16,
}

/// What a timer is for. Timers of an attachment carry its handle; those of a lease its slot, and
/// are cancelled with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A socket that has not completed its hello.
    Hello(ConnId),
    /// The end of a lease in grace.
    Grace(u32),
    /// The next ping, or the end of patience.
    Liveness(PeerHandle),
    /// The end of a `working` status.
    Working(u32),
    /// The incumbent's time to answer a challenger.
    Conflict(u32),
    /// Something was said to a mesh a while ago.
    Burst(MeshIx),
    /// Mail that the disk did not give.
    Mailboxes(MeshIx),
    /// The next tick of a mesh's simulation clock.
    Clock(MeshIx),
    /// Requests for peers' files that may have waited long enough.
    Relays(MeshIx),
    /// Scheduled messages may be due.
    Schedules,
    /// The end of patience with a call.
    Call(MeshIx, u32),
    /// A watch of the session in that slot is to be checked.
    Watch(u32, WatchId),
}

/// Who waits for a store operation or query.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// The sender of a message.
    Send(Box<Unstored>),
    /// The sender of a message that may have been sent before.
    Repeat(Doubted),
    /// Whoever asked for a change that is in effect.
    Answer {
        asker: PeerHandle,
        frame: bytes::Bytes,
        req_id: Option<Box<str>>,
    },
    /// The row of a new lease: others are told when it is durable.
    Joined {
        slot: u32,
        /// Which lease in that slot.
        order: u64,
    },
    /// The end of a lease: others are told when it is durable.
    Left(MeshIx),
    /// Whoever scheduled a message.
    Scheduled(Box<Scheduling>),
    /// Whoever scheduled a message that is being sent, and what it is told.
    Fired(PeerHandle, bytes::Bytes),
    /// A mailbox that is read back.
    Mailbox(MeshIx, PubKey),
    /// Something of what a mesh keeps on disk only.
    Records(Box<crate::verbs::records::Asked>),
    /// Something that came through a webhook.
    Posted(Box<crate::verbs::posted::Posted>),
    /// `message_status`.
    MessageStatus {
        asker: PeerHandle,
        asked: Box<str>,
        req_id: Option<Box<str>>,
    },
}

/// The moment and the effects of one call, passed down together.
pub(crate) struct Turn<'t> {
    pub(crate) now: Now,
    pub(crate) fx: &'t mut Effects,
}

impl Turn<'_> {
    pub(crate) fn send(&mut self, conn: ConnId, frame: bytes::Bytes) {
        self.fx.push(Effect::Send { conn, frame });
    }

    pub(crate) fn persist(&mut self, op: StoreOp) {
        self.fx.push(Effect::Persist { op, token: None });
    }

    pub(crate) fn persist_awaited(&mut self, op: StoreOp, token: Token) {
        let token = Some(token);
        self.fx.push(Effect::Persist { op, token });
    }

    pub(crate) fn observe(&mut self, event: Event) {
        self.fx.push(Effect::Observe(event));
    }
}

/// The state of one loop's meshes.
pub struct Shard {
    pub(crate) config: Config,
    pub(crate) place: Place,
    pub(crate) mint: Mint,
    pub(crate) hasher: Hasher,
    pub(crate) wheel: Wheel<Timer>,
    pub(crate) attachments: Attachments,
    pub(crate) peers: HandleSlab<PeerConn>,
    pub(crate) meshes: Vec<Mesh>,
    pub(crate) mesh_ids: HashMap<Box<str>, MeshIx, Hasher>,
    pub(crate) members: Vec<Member>,
    pub(crate) member_ids: HashMap<Box<str>, MemberIx, Hasher>,
    pub(crate) replay: Replay,
    pub(crate) repeats: Repeats,
    pub(crate) cwds: Cwds,
    pub(crate) pending_statuses: VecDeque<PendingStatus>,
    pub(crate) schedules: Schedules,
    pub(crate) waiting: HashMap<Token, Waiting, Hasher>,
    /// For which watches something is being fetched. Bounded by what those who fetch take.
    pub(crate) fetching: HashMap<Token, Fetching, Hasher>,
    /// At boot: watches whose leases are still to come, by where those began.
    pub(crate) found_watches: BTreeMap<Position, Vec<WatchRow>>,
    pub(crate) shutting_down: bool,
    /// With which resume tokens are made, once it has been given.
    pub(crate) resume_key: Option<ResumeKey>,
    /// The last place in what this shard has written.
    pub(crate) written: Position,
    /// The last place that a process before this one may have used.
    pub(crate) booted: Position,
    next_seq: Seq,
    next_token: Token,
}

impl Shard {
    /// An empty shard. `seed` is all the entropy it will ever use; `first_seq` is above every
    /// message row in the store.
    #[must_use]
    pub fn new(config: Config, place: Place, seed: [u8; 32], now: Now, first_seq: Seq) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = seed;
        let hasher = Hasher::with_seed(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        let count = u64::from(place.count.max(1));
        // Shards take turns in the order of the broker: each counts in its own residue class.
        let booted = Position(Position::first(first_seq).0 + u64::from(place.index));
        let first = first_seq.0.max(1).next_multiple_of(count) + u64::from(place.index);
        Self {
            config,
            place,
            mint: Mint::new(seed),
            hasher: hasher.clone(),
            wheel: Wheel::new(now.mono),
            attachments: Attachments::default(),
            peers: HandleSlab::default(),
            meshes: Vec::new(),
            mesh_ids: HashMap::with_hasher(hasher.clone()),
            members: Vec::new(),
            member_ids: HashMap::with_hasher(hasher.clone()),
            replay: Replay::new(hasher.clone()),
            repeats: Repeats::new(hasher.clone()),
            cwds: Cwds::default(),
            pending_statuses: VecDeque::new(),
            schedules: Schedules::new(&hasher),
            waiting: HashMap::with_hasher(hasher.clone()),
            fetching: HashMap::with_hasher(hasher),
            found_watches: BTreeMap::new(),
            shutting_down: false,
            resume_key: None,
            written: booted,
            booted,
            next_seq: Seq(first),
            next_token: Token(1),
        }
    }

    /// Takes one input and appends what must be done about it.
    pub fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        let t = &mut Turn { now, fx };
        match input {
            Input::Opened { conn } => self.opened(t, conn),
            Input::Frame { conn, text } => self.frame(t, conn, text),
            Input::Undecodable { conn } => self.undecodable(t, conn),
            Input::Pinged { conn } => self.proof_of_life(t, conn, "ping"),
            Input::Ponged { conn, payload } => self.ponged(t, conn, payload),
            Input::Closed { conn, how } => self.closed(t, conn, how),
            Input::Adopted { conn, hello } => self.adopted(t, conn, hello),
            Input::Stored { token, result } => self.stored(t, token, result),
            Input::Answered { token, result } => self.answered(t, token, result),
            Input::Fetched { token, result } => self.fetched(t, token, result),
            Input::Boot(row) => self.boot(t, row),
            Input::MeshPut(row) => self.mesh_put(*row),
            Input::MemberPut(row) => self.member_put(t, *row),
            Input::Ask { ticket, ask } => {
                if let Some(answer) = self.ask(t, ticket, ask) {
                    t.fx.push(Effect::Answer { ticket, answer });
                }
            }
            Input::Shutdown => self.shutdown(t),
        }
    }

    /// Fires every timer due at or before `now`, in deadline order. Calling again with the same
    /// `now` does nothing.
    pub fn advance(&mut self, now: Now, fx: &mut Effects) {
        let t = &mut Turn { now, fx };
        while let Some((_, timer)) = self.wheel.pop_due(now.mono) {
            if self.shutting_down {
                // Every socket has been told to close, and leases stay as their rows say.
                continue;
            }
            match timer {
                Timer::Hello(conn) => self.hello_overdue(t, conn),
                Timer::Grace(slot) => self.grace_over(t, slot),
                Timer::Liveness(peer) => self.check_liveness(t, peer),
                Timer::Working(slot) => self.working_over(t, slot),
                Timer::Conflict(slot) => self.incumbent_silent(t, slot),
                Timer::Burst(mesh) => self.burst_over(t, mesh),
                Timer::Mailboxes(mesh) => self.mailboxes_due(t, mesh),
                Timer::Clock(mesh) => self.clock_due(t, mesh),
                Timer::Relays(mesh) => self.relays_due(t, mesh),
                Timer::Schedules => self.schedules_due(t),
                Timer::Call(mesh, number) => self.call_overdue(t, mesh, number),
                Timer::Watch(slot, id) => self.watch_due(t, slot, id),
            }
        }
    }

    /// When to call [`Self::advance`] next, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.wheel.next_deadline()
    }

    pub(crate) fn next_seq(&mut self) -> Seq {
        let seq = self.next_seq;
        self.next_seq = Seq(seq.0 + u64::from(self.place.count.max(1)));
        seq
    }

    pub(crate) fn next_token(&mut self) -> Token {
        let token = self.next_token;
        self.next_token = Token(token.0 + 1);
        token
    }

    /// Notes what is to be done when the operation is durable, or has failed.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> Token {
        let token = self.next_token();
        self.waiting.insert(token, waiting);
        token
    }

    /// The next place in everything this shard writes and does. Shards take turns, so that places
    /// are unique over all of them.
    pub(crate) fn stamp(&mut self) -> Position {
        self.written.0 += u64::from(self.place.count.max(1));
        self.written
    }

    pub(crate) fn mesh(&self, mesh: MeshIx) -> Option<&Mesh> {
        self.meshes.get(mesh.0 as usize)
    }

    pub(crate) fn mesh_mut(&mut self, mesh: MeshIx) -> Option<&mut Mesh> {
        self.meshes.get_mut(mesh.0 as usize)
    }

    pub(crate) fn member(&self, member: MemberIx) -> Option<&Member> {
        self.members.get(member.0 as usize)
    }

    pub(crate) fn member_mut(&mut self, member: MemberIx) -> Option<&mut Member> {
        self.members.get_mut(member.0 as usize)
    }

    /// Asks the disk; the answer comes to `waiting`.
    pub(crate) fn query(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        query: StoreQuery,
        waiting: Waiting,
    ) {
        self.waiting.insert(token, waiting);
        t.fx.push(Effect::Query { query, token });
    }

    fn opened(&mut self, t: &mut Turn<'_>, conn: ConnId) {
        if self.shutting_down {
            self.close(t, conn, Close::SHUTTING_DOWN);
            return;
        }
        let deadline = t.now.mono.after(self.config.hello_timeout);
        let timer = self.wheel.insert(deadline, Timer::Hello(conn));
        self.attachments.set(conn, Attachment::Greeting(timer));
    }

    fn hello_overdue(&mut self, t: &mut Turn<'_>, conn: ConnId) {
        if matches!(
            self.attachments.get_mut(conn),
            Some(Attachment::Greeting(_))
        ) {
            t.observe(Event::HelloRefused {
                conn,
                reason: "hello_timeout",
            });
            mark(Mark::HelloOverdue);
            self.close(t, conn, Close::policy("hello_timeout"));
        }
    }

    fn adopted(&mut self, t: &mut Turn<'_>, conn: ConnId, hello: Box<Hello>) {
        if self.shutting_down {
            self.close(t, conn, Close::SHUTTING_DOWN);
        } else {
            mark(Mark::Adopted);
            self.admit(t, conn, hello);
        }
    }

    /// Ends a socket with a close frame; nothing it says counts from here on.
    pub(crate) fn close(&mut self, t: &mut Turn<'_>, conn: ConnId, close: Close) {
        if matches!(self.attachments.get_mut(conn), Some(Attachment::Closing)) {
            return;
        }
        self.attachments.set(conn, Attachment::Closing);
        t.fx.push(Effect::Close { conn, close });
    }

    fn closed(&mut self, t: &mut Turn<'_>, conn: ConnId, how: Closing) {
        match self.attachments.remove(conn) {
            None | Some(Attachment::Closing) => mark(Mark::StaleClose),
            Some(Attachment::Greeting(timer)) => {
                mark(Mark::ClosedWhileGreeting);
                self.wheel.cancel(timer);
            }
            Some(Attachment::Contending { slot }) => self.challenger_left(slot, conn),
            Some(Attachment::Attached(peer)) => self.detached(t, conn, peer, how),
        }
    }

    fn stored(&mut self, t: &mut Turn<'_>, token: Token, result: Result<(), StoreFailure>) {
        let waiting = self.waiting.remove(&token);
        if self.shutting_down {
            // Nobody is left to be told, and the rows must not say that somebody was.
            return;
        }
        match waiting {
            Some(Waiting::Send(unstored)) => self.send_stored(t, token, *unstored, result),
            Some(Waiting::Answer {
                asker,
                frame,
                req_id,
            }) => {
                let failed = result.err().map(|failure| (failure, req_id.as_deref()));
                self.answer_stored(t, token, asker, frame, failed);
            }
            // Presence goes on when the disk does not: a failure holds back no news.
            Some(Waiting::Joined { slot, order }) => self.joined(t, slot, order),
            Some(Waiting::Left(mesh)) => self.left(t, mesh, token),
            Some(Waiting::Scheduled(asked)) => self.schedule_stored(t, token, &asked, result),
            Some(Waiting::Fired(author, frame)) => self.fired_stored(t, (author, frame), result),
            Some(
                Waiting::Mailbox(..)
                | Waiting::MessageStatus { .. }
                | Waiting::Records(_)
                | Waiting::Posted(_)
                | Waiting::Repeat(_),
            )
            | None => {}
        }
    }

    fn answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let waiting = self.waiting.remove(&token);
        if self.shutting_down {
            return;
        }
        match waiting {
            Some(Waiting::Mailbox(mesh, key)) => {
                self.mailbox_answered(t, token, (mesh, key), result);
            }
            Some(Waiting::MessageStatus {
                asker,
                asked,
                req_id,
            }) => {
                self.message_status_answered(t, token, (asker, asked, req_id), result);
            }
            Some(Waiting::Records(asked)) => self.records_answered(t, token, *asked, result),
            Some(Waiting::Posted(posted)) => self.webhook_found(t, &posted, result),
            Some(Waiting::Repeat(doubted)) => self.repeat_answered(t, token, doubted, result),
            Some(
                Waiting::Send(_)
                | Waiting::Answer { .. }
                | Waiting::Joined { .. }
                | Waiting::Left(_)
                | Waiting::Scheduled(_)
                | Waiting::Fired(..),
            )
            | None => {}
        }
    }

    fn boot(&mut self, t: &mut Turn<'_>, row: BootRow) {
        match row {
            BootRow::Resume(key) => self.resume_key = Some(key),
            BootRow::Mesh(row) => self.mesh_put(row),
            BootRow::Member(row) => self.member_put(t, row),
            BootRow::PeerState(row) => self.peer_state_put(row),
            BootRow::State(row) => self.state_found(*row),
            BootRow::Stream(row) => self.stream_found(*row),
            BootRow::Topic(row) => self.topic_found(&row),
            BootRow::TopicMember(row) => self.topic_member_found(&row),
            BootRow::Watch(row) => self.found_watches.entry(row.began).or_default().push(*row),
            BootRow::Presence(row) => self.restore(t, *row),
            BootRow::Subscription(row) => self.subscription_found(&row),
            BootRow::Ended(row) => self.ended_found(t, &row),
            BootRow::Server(row) => self.server_found(t, *row),
            BootRow::Said(row) => self.said_found(t.now, &row),
            BootRow::Log(row) => self.log_found(t, &row),
            BootRow::Sent(row) => self.sent_found(&row),
            BootRow::Mailbox(row) => self.mailbox_found(t.now.mono, &row),
            BootRow::Schedule(row) => self.schedule_found(t, *row),
        }
    }

    /// The answer, if it is known at once.
    fn ask(&mut self, t: &mut Turn<'_>, ticket: Ticket, ask: Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Gauges => Answer::Gauges(self.gauges()),
            Ask::Peers { mesh } => {
                let found = self.find_mesh(&mesh);
                if let Some(found) = found {
                    self.tell_pending(t, found);
                }
                Answer::Peers(found.map(|found| self.peer_views(t.now, found)))
            }
            Ask::HookFind { cwd, pid } => Answer::HookCandidate(self.hook_find(&cwd, pid)),
            Ask::HookApply {
                slot,
                presence_id,
                status,
            } => Answer::HookDone(
                !self.shutting_down && self.hook_apply(t, slot, &presence_id, status),
            ),
            Ask::HookPend { cwd, pid, status } => {
                self.hook_pend(t.now.mono, cwd, pid, status);
                Answer::HookDone(true)
            }
            Ask::Edited(edited) => Answer::Edited(!self.shutting_down && self.edited(t, &edited)),
            Ask::Post {
                mesh_id,
                secret,
                body,
            } => {
                self.webhook_posted(t, ticket, (mesh_id, secret, body));
                return None;
            }
        })
    }

    /// Sockets are told to come back later; leases stay as their rows say (design.md §6).
    fn shutdown(&mut self, t: &mut Turn<'_>) {
        mark(Mark::Shutdown);
        self.shutting_down = true;
        let open: Vec<ConnId> = self.attachments.open().collect();
        for conn in open {
            if let Some(Attachment::Attached(peer)) = self.attachments.get_mut(conn) {
                let slot = peer.slot;
                self.note_cursor_now(t, slot);
            }
            self.close(t, conn, Close::SHUTTING_DOWN);
        }
    }
}
