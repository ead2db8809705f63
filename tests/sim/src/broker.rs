//! One life of the broker's process: its shards, and what the shell keeps about sockets.

use std::collections::VecDeque;

use holdfast_core::hello::Hello;
use holdfast_core::ids::{ConnId, Seq};
use holdfast_core::shard::{Place, Shard};
use holdfast_core::time::{Mono, Now, Wall};

use crate::rng::Rng;
use crate::swarm::Swarm;

/// A socket on its way to another shard.
pub(crate) struct Parcel {
    pub(crate) link: usize,
    pub(crate) hello: Box<Hello>,
}

/// The sockets of one loop.
#[derive(Default)]
pub(crate) struct Sockets {
    slots: Vec<Option<(u32, usize)>>,
    generation: u32,
}

impl Sockets {
    /// Takes a socket in, in the lowest free slot.
    pub(crate) fn insert(&mut self, link: usize) -> ConnId {
        self.generation += 1;
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some((self.generation, link));
        ConnId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            generation: self.generation,
        }
    }

    /// Whose socket it is.
    pub(crate) fn link(&self, conn: ConnId) -> Option<usize> {
        match self.slots.get(conn.slot as usize)? {
            Some((generation, link)) if *generation == conn.generation => Some(*link),
            _ => None,
        }
    }

    /// Frees its slot.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        if self.link(conn).is_some() {
            self.slots[conn.slot as usize] = None;
        }
    }
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    No,
    /// Until the store has answered, or then.
    Flushing(u64),
    /// Sockets are being closed.
    Closing,
}

/// See the module.
pub(crate) struct Broker {
    pub(crate) shards: Vec<Shard>,
    pub(crate) sockets: Vec<Sockets>,
    /// To each shard.
    pub(crate) lanes: Vec<VecDeque<Parcel>>,
    /// Until when each loop does nothing.
    pub(crate) stalled: Vec<u64>,
    /// How late the next timers of each loop are.
    pub(crate) late: Vec<u64>,
    pub(crate) drain: Drain,
    pub(crate) in_flight: u64,
    born: u64,
    origin: u64,
    pub(crate) rng: Rng,
}

impl Broker {
    pub(crate) fn new(swarm: &Swarm, mut rng: Rng, (born, wall): (u64, i64), first: Seq) -> Self {
        let count = usize::from(swarm.shards);
        // The monotonic clock begins anywhere, also where levels of the wheel turn over.
        let origin = *rng.pick(&[0, 1, 1_000, 40_950, 2_621_430, 1 << 40]);
        let now = Now {
            mono: Mono(origin),
            wall: Wall(wall),
        };
        let shard = |index| {
            let place = Place {
                index,
                count: swarm.shards,
            };
            Shard::new(swarm.config.clone(), place, rng.bytes(), now, first)
        };
        Self {
            shards: (0..swarm.shards).map(shard).collect(),
            sockets: (0..count).map(|_| Sockets::default()).collect(),
            lanes: (0..count).map(|_| VecDeque::new()).collect(),
            stalled: vec![0; count],
            late: vec![0; count],
            drain: Drain::No,
            in_flight: 0,
            born,
            origin,
            rng,
        }
    }

    /// The monotonic clock at a time of the world.
    pub(crate) fn mono(&self, time: u64) -> Mono {
        Mono(time - self.born + self.origin)
    }

    /// When a loop's next timer fires, in the time of the world, as late as it is.
    pub(crate) fn next_timer(&self) -> Option<(u64, usize)> {
        let due = |(index, shard): (usize, &Shard)| {
            let at = shard.next_deadline()?.0.saturating_sub(self.origin) + self.born;
            Some(((at + self.late[index]).max(self.stalled[index]), index))
        };
        self.shards.iter().enumerate().filter_map(due).min()
    }
}
