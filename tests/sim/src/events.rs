//! What happens when an event's time has come.

use holdfast_core::ids::Position;
use holdfast_core::input::{Ask, Closing};
use holdfast_core::rows::{BootRow, Restart, StoreOp, StoreQuery};
use holdfast_core::time::Wall;

use crate::broker::{Broker, Drain};
use crate::disk::{Item, Reply};
use crate::link::{Down, Seat, Up};
use crate::oracle::{Cause, Violation};
use crate::rng::Rng;
use crate::world::{Event, World};

impl World {
    /// One event.
    pub(crate) fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Operation(index) => return self.operate(index),
            Event::Up(link) => return self.arrive_up(link),
            Event::Down(link) => self.arrive_down(link),
            Event::Client(client, wake) => self.wake(client, wake),
            Event::Disk(epoch) if epoch == self.epoch => self.disk_turn(),
            Event::Commit(epoch) if epoch == self.epoch => self.commit(),
            Event::Reply(epoch, shard) if epoch == self.epoch => return self.arrive_reply(shard),
            Event::Lookup(epoch, index) if epoch == self.epoch => self.look_up(index),
            Event::Lane(epoch, shard) if epoch == self.epoch => return self.arrive_parcel(shard),
            Event::Fetched(epoch, fetch) if epoch == self.epoch => return self.fetched(fetch),
            Event::Linger(epoch, link) if epoch == self.epoch => {
                if let Seat::Closing(shard, conn) = self.links[link].seat {
                    return self.drive_closed(shard, conn, Closing::Abrupt);
                }
            }
            Event::Drain(epoch) if epoch == self.epoch => return self.drain(),
            Event::Disk(_)
            | Event::Commit(_)
            | Event::Reply(..)
            | Event::Lookup(..)
            | Event::Lane(..)
            | Event::Fetched(..)
            | Event::Linger(..)
            | Event::Drain(_) => {}
            Event::Boot => return self.boot(),
            Event::Kill if self.healed => {}
            Event::Kill => self.kill(),
            Event::Look => return self.look(),
            Event::Later(index) => {
                let (client, frame) = self.later[index].clone();
                self.say(client, frame);
            }
            Event::Heal => self.heal(),
        }
        Ok(())
    }

    /// A loop that does nothing gets its events when it goes on.
    pub(crate) fn postponed(&mut self, shard: usize, event: Event) -> bool {
        let until = self
            .broker
            .as_ref()
            .map_or(0, |broker| broker.stalled[shard]);
        if until > self.time {
            self.queue.push(until, event);
            return true;
        }
        false
    }

    fn arrive_up(&mut self, link: usize) -> Result<(), Violation> {
        let found = &mut self.links[link];
        if found.up_stall > self.time {
            let at = found.up_stall;
            self.queue.push(at, Event::Up(link));
            return Ok(());
        }
        let at = match found.seat {
            Seat::Moving => {
                found.waiting += 1;
                return Ok(());
            }
            Seat::Nowhere => return self.arrive_first(link),
            Seat::Gone => {
                found.up.pop_front();
                return Ok(());
            }
            Seat::Open(shard, conn) | Seat::Closing(shard, conn) => (shard, conn),
        };
        let (shard, conn) = at;
        if self.postponed(usize::from(shard), Event::Up(link)) {
            return Ok(());
        }
        let found = &mut self.links[link];
        let cause = match found.up.pop_front() {
            None | Some(Up::Open) => return Ok(()),
            Some(Up::Frame(frame)) => {
                if let crate::said::Said::Hello(said) = &frame.said {
                    found.hello.get_or_insert_with(|| std::rc::Rc::clone(said));
                }
                Cause::Frame(frame)
            }
            Some(Up::Binary) => Cause::Binary,
            Some(Up::Ping) => {
                self.deliver(link, Down::Pong);
                Cause::Ping
            }
            Some(Up::Pong(payload)) => Cause::Pong(payload),
            Some(Up::End(how)) => {
                let closing = matches!(found.seat, Seat::Closing(..));
                let how = if closing { Closing::Abrupt } else { how };
                return self.drive_closed(shard, conn, how);
            }
        };
        self.drive(shard, Some(conn), &cause)
    }

    /// The upgrade arrives, or the connection ended before it did.
    fn arrive_first(&mut self, link: usize) -> Result<(), Violation> {
        let refused = self
            .broker
            .as_ref()
            .is_none_or(|broker| broker.drain != Drain::No);
        if refused || !matches!(self.links[link].up.pop_front(), Some(Up::Open)) {
            self.links[link].seat = Seat::Gone;
            self.deliver(link, Down::Reset);
            return Ok(());
        }
        let Some(broker) = &mut self.broker else {
            return Ok(());
        };
        let shard = broker.rng.index(broker.shards.len());
        let conn = broker.sockets[shard].insert(link);
        let shard = u16::try_from(shard).unwrap_or(0);
        self.links[link].seat = Seat::Open(shard, conn);
        self.deliver(link, Down::Accepted);
        self.drive(shard, Some(conn), &Cause::Opened)
    }

    fn arrive_parcel(&mut self, shard: usize) -> Result<(), Violation> {
        if self.postponed(shard, Event::Lane(self.epoch, shard)) {
            return Ok(());
        }
        let Some(broker) = &mut self.broker else {
            return Ok(());
        };
        let Some(parcel) = broker.lanes[shard].pop_front() else {
            return Ok(());
        };
        let link = parcel.link;
        if broker.drain != Drain::No {
            self.links[link].seat = Seat::Gone;
            self.deliver(link, Down::Reset);
            return Ok(());
        }
        let conn = broker.sockets[shard].insert(link);
        let home = u16::try_from(shard).unwrap_or(0);
        self.links[link].seat = Seat::Open(home, conn);
        for _ in 0..std::mem::take(&mut self.links[link].waiting) {
            self.queue.push(self.time, Event::Up(link));
        }
        let Some(said) = self.links[link].hello.clone() else {
            return Err(Violation::new(
                "I7",
                "a socket was handed over without a hello",
            ));
        };
        self.drive(home, Some(conn), &Cause::Adopted(parcel.hello, said))
    }

    // The store.

    fn disk_turn(&mut self) {
        let mut replies = Vec::new();
        let wake = self.disk.begin(self.time, &mut replies);
        self.reply_all(replies);
        if let Some(at) = wake {
            self.queue.push(at, Event::Commit(self.epoch));
        }
    }

    fn commit(&mut self) {
        let mut replies = Vec::new();
        self.disk.end(self.time, &mut replies);
        self.reply_all(replies);
        self.queue.push(self.time, Event::Disk(self.epoch));
    }

    fn reply_all(&mut self, replies: Vec<(usize, Reply)>) {
        for (shard, reply) in replies {
            self.reply(shard, reply);
        }
    }

    fn arrive_reply(&mut self, shard: usize) -> Result<(), Violation> {
        if self.postponed(shard, Event::Reply(self.epoch, shard)) {
            return Ok(());
        }
        let home = u16::try_from(shard).unwrap_or(0);
        if let Some(broker) = &mut self.broker {
            broker.in_flight = broker.in_flight.saturating_sub(1);
        }
        match self.replies[shard].pop_front() {
            None => Ok(()),
            Some(Reply::Stored(token, result)) => {
                self.drive(home, None, &Cause::Stored(token, result))
            }
            Some(Reply::Answered(token, result)) => {
                self.drive(home, None, &Cause::Answered(token, result))
            }
            Some(Reply::Put(row)) => self.drive(home, None, &Cause::Put(row)),
        }
    }

    /// The reader answers from the last commit.
    fn look_up(&mut self, index: usize) {
        let (shard, item) = self.lookups[index].clone();
        if let Item::Query {
            query: query @ StoreQuery::Message { .. },
            token,
        } = item
        {
            let answer = self.disk.tables.answer(&query);
            self.reply(shard, Reply::Answered(token, Ok(answer)));
        }
    }

    // The process.

    fn boot(&mut self) -> Result<(), Violation> {
        if self.broker.is_some() {
            return Ok(());
        }
        self.epoch += 1;
        self.stats.boots += 1;
        let wall = self.wall() + self.wall_offset;
        let log = self.plan.swarm.config.log;
        let (rows, first) = self.disk.tables.boot(&log, Wall(wall));
        let rng = Rng::of(self.plan.seed, &[30, self.epoch]);
        self.broker = Some(Broker::new(&self.plan.swarm, rng, (self.time, wall), first));
        let now = self.now();
        let restart = Restart::new(&self.plan.swarm.config, now.wall, Position::first(first));
        self.oracle.booting(now, restart.heard, &self.disk.tables)?;
        let (epoch, time) = (self.epoch, self.time);
        self.trace.line(|| format!("{time:>9} boot {epoch}"));
        for row in rows {
            if let BootRow::Resume(_) = row {
                for shard in 0..self.plan.swarm.shards {
                    self.drive(shard, None, &Cause::Boot(row.clone()))?;
                }
                continue;
            }
            let mesh = crate::oracle::mesh_of_row(&row, &self.disk.tables);
            let home = holdfast_core::ids::home_of(&mesh, self.plan.swarm.shards);
            self.drive(home, None, &Cause::Boot(row))?;
        }
        let op = StoreOp::Restarted(restart);
        self.give(0, Item::Op { op, token: None });
        self.oracle.booted(&self.disk.tables)
    }

    /// The process dies: every socket is reset, and only what was committed is left.
    pub(crate) fn kill(&mut self) {
        if self.broker.take().is_none() {
            return;
        }
        let time = self.time;
        self.trace.line(|| format!("{time:>9} killed"));
        self.stats.crashes += 1;
        self.disk.crash();
        self.dead();
    }

    fn dead(&mut self) {
        self.epoch += 1;
        self.replies
            .iter_mut()
            .for_each(std::collections::VecDeque::clear);
        for link in 0..self.links.len() {
            let seat = self.links[link].seat;
            if !matches!(seat, Seat::Gone | Seat::Nowhere) {
                self.links[link].seat = Seat::Gone;
                self.deliver(link, Down::Reset);
            }
        }
        self.oracle.died();
    }

    /// The process is told to stop.
    pub(crate) fn stop(&mut self) {
        let until = self.time + 500;
        if let Some(broker) = &mut self.broker
            && broker.drain == Drain::No
        {
            broker.drain = Drain::Flushing(until);
            self.queue.push(self.time, Event::Drain(self.epoch));
        }
    }

    fn drain(&mut self) -> Result<(), Violation> {
        let Some(broker) = &mut self.broker else {
            return Ok(());
        };
        match broker.drain {
            Drain::Flushing(until) if broker.in_flight > 0 && self.time < until => {
                self.queue.push(self.time + 20, Event::Drain(self.epoch));
            }
            Drain::Flushing(_) => {
                broker.drain = Drain::Closing;
                let shards = broker.shards.len();
                for shard in 0..shards {
                    let home = u16::try_from(shard).unwrap_or(0);
                    self.drive(home, None, &Cause::Shutdown)?;
                }
                self.queue.push(self.time + 1_000, Event::Drain(self.epoch));
            }
            Drain::Closing => {
                let time = self.time;
                self.trace.line(|| format!("{time:>9} stopped"));
                self.disk.close(self.time);
                self.broker = None;
                self.dead();
            }
            Drain::No => {}
        }
        Ok(())
    }

    /// Fires what is due on one loop.
    pub(crate) fn fire(&mut self, shard: usize) -> Result<(), Violation> {
        let lateness = self.plan.swarm.lateness;
        let late = match &mut self.broker {
            Some(broker) if !self.healed => broker.rng.below(lateness + 1),
            Some(_) | None => 0,
        };
        if let Some(broker) = &mut self.broker {
            broker.late[shard] = late;
        }
        self.drive(u16::try_from(shard).unwrap_or(0), None, &Cause::Time)
    }

    /// Gauges and lists are compared with the model.
    fn look(&mut self) -> Result<(), Violation> {
        for shard in 0..self.plan.swarm.shards {
            self.drive(shard, None, &Cause::Ask(Ask::Gauges))?;
            for mesh in 0..self.plan.town.meshes.len() {
                if self.plan.town.meshes[mesh].home == shard {
                    let id = self.plan.town.meshes[mesh].id.clone();
                    self.drive(shard, None, &Cause::Ask(Ask::Peers { mesh: id }))?;
                }
            }
            if let Some(broker) = &self.broker {
                let inspected = broker.shards[usize::from(shard)].inspect();
                self.oracle.inspected(shard, &inspected)?;
            }
        }
        let settled = self.disk.idle() && self.broker.is_some();
        if settled {
            self.oracle.rows_agree(&self.disk.tables)?;
        }
        Ok(())
    }
}
