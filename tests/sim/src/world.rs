//! The world: clients, network, disk and broker in virtual time. One event at a time; each call of
//! the core is judged before its effects are carried out.

use holdfast_core::effect::{Effect, Effects};
use holdfast_core::ids::ConnId;
use holdfast_core::input::Closing;
use holdfast_core::time::{Now, Wall};

use crate::broker::Broker;
use crate::client::{Client, Wake};
use crate::disk::{Disk, Item, Reply, Tables};
use crate::link::{Down, Link, Seat, Up};
use crate::oracle::{Cause, Oracle, Step, Violation};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::trace::Trace;

/// The wall clock as the world begins.
pub(crate) const WALL: i64 = 1_700_000_000_000;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// An operation of the plan.
    Operation(usize),
    /// Something arrives at the broker, or at the client.
    Up(usize),
    Down(usize),
    Client(usize, Wake),
    /// The writer looks for work, or ends a commit. Of which process.
    Disk(u64),
    Commit(u64),
    /// A result of the store comes to a shard.
    Reply(u64, usize),
    /// A message looked up by the reader.
    Lookup(u64, usize),
    /// A socket from another shard.
    Lane(u64, usize),
    /// A document was fetched for a watch, or could not be.
    Fetched(u64, crate::own::Fetch),
    /// The core is told of a socket it closed.
    Linger(u64, usize),
    Drain(u64),
    Boot,
    /// The process dies.
    Kill,
    /// Somebody looks at the gauges.
    Look,
    /// A frame that an operation prepared is sent by a client, if it can.
    Later(usize),
    /// All faults end.
    Heal,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) steps: u64,
    pub(crate) boots: u64,
    pub(crate) crashes: u64,
    pub(crate) handoffs: u64,
    pub(crate) virtual_ms: u64,
}

/// See the module.
pub(crate) struct World {
    pub(crate) plan: std::rc::Rc<Plan>,
    pub(crate) time: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) clients: Vec<Client>,
    pub(crate) links: Vec<Link>,
    pub(crate) broker: Option<Broker>,
    /// Which process; events of an earlier one mean nothing.
    pub(crate) epoch: u64,
    pub(crate) disk: Disk,
    pub(crate) replies: Vec<std::collections::VecDeque<Reply>>,
    reply_at: Vec<u64>,
    pub(crate) lookups: Vec<(usize, Item)>,
    pub(crate) later: Vec<(usize, crate::said::Frame)>,
    pub(crate) oracle: Oracle,
    /// By how much the broker's wall clock is off.
    pub(crate) wall_offset: i64,
    pub(crate) trace: Trace,
    pub(crate) healed: bool,
    pub(crate) stats: Stats,
    effects: Effects,
}

impl World {
    pub(crate) fn new(plan: &std::rc::Rc<Plan>, keep_trace: bool) -> Self {
        let plan = std::rc::Rc::clone(plan);
        let tables = Tables::new(plan.town.mesh_rows(), plan.town.member_rows());
        let disk = Disk::new(tables, plan.swarm.disk, Rng::of(plan.seed, &[20]));
        let shards = usize::from(plan.swarm.shards);
        let oracle = Oracle::new(&plan);
        Self {
            time: 0,
            queue: Queue::new(),
            clients: Vec::new(),
            links: Vec::new(),
            broker: None,
            epoch: 0,
            disk,
            replies: (0..shards)
                .map(|_| std::collections::VecDeque::new())
                .collect(),
            reply_at: vec![0; shards],
            lookups: Vec::new(),
            later: Vec::new(),
            oracle,
            wall_offset: 0,
            trace: Trace::new(keep_trace),
            healed: false,
            stats: Stats::default(),
            effects: Effects::new(),
            plan,
        }
    }

    /// The wall clock that everybody but the broker has.
    pub(crate) fn wall(&self) -> i64 {
        WALL.saturating_add_unsigned(self.time)
    }

    /// The moment as the broker sees it.
    pub(crate) fn now(&self) -> Now {
        let mono = self
            .broker
            .as_ref()
            .map(|broker| broker.mono(self.time))
            .unwrap_or_default();
        Now {
            mono,
            wall: Wall(self.wall() + self.wall_offset),
        }
    }

    /// Gives a shard one input, judges what it does, and does it.
    pub(crate) fn drive(
        &mut self,
        shard: u16,
        conn: Option<ConnId>,
        cause: &Cause,
    ) -> Result<(), Violation> {
        let now = self.now();
        let Some(broker) = &mut self.broker else {
            return Ok(());
        };
        let mut effects = std::mem::take(&mut self.effects);
        let core = &mut broker.shards[usize::from(shard)];
        if let Cause::Time = cause {
            core.advance(now, &mut effects);
            if core.next_deadline().is_some_and(|next| next <= now.mono) {
                return Err(Violation::new(
                    "I8",
                    "a timer that is due was not fired: livelock",
                ));
            }
        } else if let Some(input) = cause.input(conn) {
            core.handle(now, input, &mut effects);
        }
        self.note(shard, conn, cause, &effects);
        let step = Step {
            now,
            shard,
            conn,
            cause,
            effects: &effects,
            tables: &self.disk.tables,
        };
        self.oracle.judge(&step)?;
        self.carry_out(shard, &mut effects)?;
        effects.clear();
        self.effects = effects;
        Ok(())
    }

    fn note(&mut self, shard: u16, conn: Option<ConnId>, cause: &Cause, effects: &Effects) {
        self.stats.steps += 1;
        let time = self.time;
        self.trace.number(time);
        self.trace.fold(cause.tag().as_bytes());
        self.trace.line(|| {
            let conn = conn.map(crate::trace::name).unwrap_or_default();
            format!("{time:>9} shard {shard} {conn} {}", cause.describe())
        });
        for effect in effects {
            self.trace.effect(effect);
        }
    }

    fn carry_out(&mut self, shard: u16, effects: &mut Effects) -> Result<(), Violation> {
        let mut owed = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { conn, frame } => {
                    self.write(shard, conn, Down::Frame(frame), &mut owed);
                }
                Effect::Ping { conn, watermark } => {
                    self.write(shard, conn, Down::Ping(watermark), &mut owed);
                }
                Effect::Close { conn, .. } => {
                    self.close_by_core(shard, conn, Down::Close, &mut owed);
                }
                Effect::Abort { conn } => self.close_by_core(shard, conn, Down::Reset, &mut owed),
                Effect::Handoff {
                    conn,
                    shard: home,
                    hello,
                } => self.hand_off(shard, conn, home, hello),
                Effect::Persist { op, token } => {
                    self.give(shard, Item::Op { op, token });
                }
                Effect::Query { query, token } => self.ask_store(shard, query, token),
                Effect::Fetch { request, token } => self.fetch(shard, &request.url, token),
                Effect::Answer { .. } | Effect::Observe(_) => {}
            }
        }
        for (conn, how) in owed {
            self.drive_closed(shard, conn, how)?;
        }
        Ok(())
    }

    /// The core hears the last of a socket.
    pub(crate) fn drive_closed(
        &mut self,
        shard: u16,
        conn: ConnId,
        how: Closing,
    ) -> Result<(), Violation> {
        if let Some(broker) = &mut self.broker {
            let sockets = &mut broker.sockets[usize::from(shard)];
            if let Some(link) = sockets.link(conn) {
                self.links[link].seat = Seat::Gone;
            }
            sockets.remove(conn);
        }
        self.drive(shard, Some(conn), &Cause::Closed(how))
    }

    fn write(&mut self, shard: u16, conn: ConnId, item: Down, owed: &mut Vec<(ConnId, Closing)>) {
        let Some(link) = self.link_of(shard, conn) else {
            return;
        };
        let net = self.plan.swarm.net;
        let found = &mut self.links[link];
        if found.seat != Seat::Open(shard, conn) {
            return;
        }
        let size = if let Down::Frame(frame) = &item {
            frame.len()
        } else {
            12
        };
        let waiting = found.unread.saturating_sub(net.kernel);
        if waiting > 0 && waiting + size > net.cap {
            found.drop_unread();
            self.deliver(link, Down::Close);
            self.links[link].seat = Seat::Gone;
            owed.push((conn, Closing::Abrupt));
            return;
        }
        self.deliver(link, item);
    }

    /// Queues something for a link's client.
    pub(crate) fn deliver(&mut self, link: usize, item: Down) {
        let net = self.plan.swarm.net;
        if let Some(at) = self.links[link].send_down(self.time, &net, item) {
            self.queue.push(at, Event::Down(link));
        }
    }

    fn link_of(&self, shard: u16, conn: ConnId) -> Option<usize> {
        self.broker
            .as_ref()?
            .sockets
            .get(usize::from(shard))?
            .link(conn)
    }

    /// The core closes a socket. The present shell tells it at once that it is closed; the
    /// contract also allows later, with what came meanwhile.
    fn close_by_core(
        &mut self,
        shard: u16,
        conn: ConnId,
        last: Down,
        owed: &mut Vec<(ConnId, Closing)>,
    ) {
        let Some(link) = self.link_of(shard, conn) else {
            return;
        };
        if self.links[link].seat != Seat::Open(shard, conn) {
            return;
        }
        self.deliver(link, last);
        if self.plan.swarm.late_close {
            self.links[link].seat = Seat::Closing(shard, conn);
            let after = self.links[link].rng.below(3_000);
            self.queue
                .push(self.time + after, Event::Linger(self.epoch, link));
        } else {
            self.links[link].seat = Seat::Gone;
            owed.push((conn, Closing::Abrupt));
        }
    }

    fn hand_off(
        &mut self,
        shard: u16,
        conn: ConnId,
        home: u16,
        hello: Box<holdfast_core::hello::Hello>,
    ) {
        let Some(link) = self.link_of(shard, conn) else {
            return;
        };
        let (net, time, epoch) = (self.plan.swarm.net, self.time, self.epoch);
        let Some(broker) = &mut self.broker else {
            return;
        };
        broker.sockets[usize::from(shard)].remove(conn);
        self.stats.handoffs += 1;
        self.links[link].seat = Seat::Moving;
        let closing = broker.drain != crate::broker::Drain::No;
        if closing || broker.rng.chance(net.handoff_loss) {
            self.links[link].seat = Seat::Gone;
            return self.deliver(link, Down::Reset);
        }
        let home = usize::from(home);
        broker.lanes[home].push_back(crate::broker::Parcel { link, hello });
        let after = broker.rng.below(if net.spike > 0 { 40 } else { 3 });
        self.queue.push(time + after, Event::Lane(epoch, home));
    }

    // The store.

    pub(crate) fn give(&mut self, shard: u16, item: Item) {
        let token = match &item {
            Item::Op { token, .. } => token.is_some(),
            Item::Query { .. } => true,
            Item::Put(..) => false,
        };
        if let Some(broker) = &mut self.broker {
            broker.in_flight += u64::from(token);
        }
        let shard = usize::from(shard);
        match self.disk.give(self.time, shard, item) {
            Some(refusal) => self.reply(shard, refusal),
            None => self.queue.push(self.time, Event::Disk(self.epoch)),
        }
    }

    fn ask_store(
        &mut self,
        shard: u16,
        query: holdfast_core::rows::StoreQuery,
        token: holdfast_core::ids::Token,
    ) {
        let item = Item::Query { query, token };
        if let Item::Query {
            query: holdfast_core::rows::StoreQuery::Message { .. },
            ..
        } = &item
        {
            if let Some(broker) = &mut self.broker {
                broker.in_flight += 1;
            }
            self.lookups.push((usize::from(shard), item));
            let at = self.time + self.disk.reply_delay();
            self.queue
                .push(at, Event::Lookup(self.epoch, self.lookups.len() - 1));
        } else {
            self.give(shard, item);
        }
    }

    /// A result is on its way; they arrive in order.
    pub(crate) fn reply(&mut self, shard: usize, reply: Reply) {
        let at = (self.time + self.disk.reply_delay()).max(self.reply_at[shard]);
        self.reply_at[shard] = at;
        self.replies[shard].push_back(reply);
        self.queue.push(at, Event::Reply(self.epoch, shard));
    }

    /// Queues something from a client, if its link still carries anything.
    pub(crate) fn send_up(&mut self, link: usize, item: Up) {
        let net = self.plan.swarm.net;
        if let Some(at) = self.links[link].send_up(self.time, &net, item) {
            self.queue.push(at, Event::Up(link));
        }
    }
}
