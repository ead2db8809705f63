//! Operations on the broker, its disk and its clock, and the end of all faults.

use holdfast_core::input::Ask;
use holdfast_core::rows::{Status, StoreFailure};

use crate::broker::Drain;
use crate::disk::{Change, Item};
use crate::oracle::{Cause, Violation};
use crate::plan::Do;
use crate::rng::Rng;
use crate::world::{Event, World};

impl World {
    pub(crate) fn operate_broker(&mut self, what: Do, rng: &mut Rng) -> Result<(), Violation> {
        let grace = self.plan.swarm.config.grace.0;
        match what {
            Do::Kill | Do::KillOften => {
                self.kill();
                let times = if what == Do::KillOften {
                    rng.between(3, 7)
                } else {
                    1
                };
                let mut at = self.time + down_time(rng, grace);
                self.queue.push(at, Event::Boot);
                for _ in 1..times {
                    at += rng.below(grace);
                    self.queue.push(at, Event::Kill);
                    at += rng.below(grace / 2);
                    self.queue.push(at, Event::Boot);
                }
            }
            Do::Stop => {
                self.stop();
                self.queue
                    .push(self.time + 1_600 + down_time(rng, grace), Event::Boot);
            }
            Do::Stall => {
                let shard = rng.index(usize::from(self.plan.swarm.shards));
                let longest = if rng.chance(800) { 500 } else { grace * 2 };
                let until = self.time + rng.below(longest);
                if let Some(broker) = &mut self.broker {
                    broker.stalled[shard] = until;
                }
            }
            Do::WallStep => {
                let steps = [500, 5_000, 20_000, 90_000, 4_000_000];
                let most = *rng.pick(&steps);
                let step = i64::try_from(rng.below(most)).unwrap_or(0);
                self.wall_offset += if rng.chance(500) { step } else { -step };
                if rng.chance(500) {
                    self.wall_offset = 0;
                }
            }
            Do::DiskFails => {
                let failures = [
                    StoreFailure::Full,
                    StoreFailure::ReadOnly,
                    StoreFailure::Corrupt,
                    StoreFailure::Io,
                ];
                let until = self.time + rng.below(grace * 2);
                self.disk.failing = Some((until, *rng.pick(&failures)));
            }
            Do::DiskSlow => self.disk.slow = (self.time + rng.below(grace * 2), rng.below(4_000)),
            Do::DiskCrowded => self.disk.crowded = self.time + rng.below(grace),
            Do::AdminPut => self.administer(rng),
            _ => return self.hook(rng),
        }
        Ok(())
    }

    /// A member is renamed, its grants change, or it is revoked for good.
    fn administer(&mut self, rng: &mut Rng) {
        if self
            .broker
            .as_ref()
            .is_none_or(|broker| broker.drain != Drain::No)
        {
            return;
        }
        let member = rng.index(self.plan.town.members.len());
        let id = self.plan.town.members[member].id.clone();
        let home = self.plan.town.mesh_of(member).home;
        let change = match rng.below(4) {
            0 => Change::Revoke(self.now().wall),
            1 => Change::Rename,
            _ => {
                let other = rng.index(self.plan.town.members.len());
                let caps = [vec![], vec!["dm".to_owned()], vec!["broadcast".to_owned()]];
                let caps = rng.chance(700).then(|| rng.pick(&caps).clone());
                Change::Grant(self.plan.town.member_key(other), caps)
            }
        };
        self.give(home, Item::Put(id, change));
    }

    fn hook(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let (cwd, pid) = (
            format!("/srv/{}", rng.below(3)),
            i64::try_from(rng.below(4)).unwrap_or(0),
        );
        let status = [Status::Idle, Status::Working, Status::Dnd][rng.index(3)];
        for shard in 0..self.plan.swarm.shards {
            let stalled = self
                .broker
                .as_ref()
                .is_none_or(|b| b.stalled[usize::from(shard)] > self.time);
            if stalled {
                continue;
            }
            let ask = Ask::HookFind {
                cwd: cwd.clone(),
                pid: rng.chance(800).then_some(pid),
            };
            self.drive(shard, None, &Cause::Ask(ask))?;
            let ask = match self.oracle.take_candidate() {
                Some((slot, presence_id)) => Ask::HookApply {
                    slot,
                    presence_id,
                    status,
                },
                None => Ask::HookPend {
                    cwd: cwd.clone(),
                    pid,
                    status,
                },
            };
            self.drive(shard, None, &Cause::Ask(ask))?;
        }
        Ok(())
    }

    /// All faults end: the broker is up, the disk works, everybody who wants to be there is awake.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.wall_offset = 0;
        self.disk.failing = None;
        self.disk.slow = (0, 0);
        self.disk.crowded = 0;
        self.queue.push(self.time, Event::Disk(self.epoch));
        let swarm = &mut std::rc::Rc::make_mut(&mut self.plan).swarm;
        swarm.net.delay = (0, 2);
        swarm.net.spike = 0;
        swarm.net.loss = 0;
        swarm.net.handoff_loss = 0;
        swarm.disk.commit = (0, 2);
        swarm.disk.split = 0;
        self.disk.heal(swarm.disk);
        match &mut self.broker {
            None => self.queue.push(self.time, Event::Boot),
            Some(broker) => {
                broker.stalled.fill(self.time);
                broker.late.fill(0);
                if broker.drain != Drain::No {
                    self.queue.push(self.time + 2_000, Event::Boot);
                }
            }
        }
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            link.up_stall = self.time;
            link.down_stall = self.time;
            // What waited for the end of a pause comes now.
            for _ in 0..link.up.len() {
                self.queue.push(self.time, Event::Up(index));
            }
            for _ in 0..link.down.len() {
                self.queue.push(self.time, Event::Down(index));
            }
        }
        for client in 0..self.clients.len() {
            let found = &mut self.clients[client];
            found.paused_until = self.time;
            found.wanted = !found.extra;
            if found.extra {
                found.persona.stays = false;
                self.part(client, crate::client::Parting::Cut);
            } else if found.link.is_none() {
                self.connect_in(client, 10);
            } else {
                let idle = crate::said::status(Status::Idle);
                self.say(client, idle);
                if let Some(link) = self.clients[client].link {
                    let watch = crate::client::Wake::Watch(link);
                    self.queue
                        .push(self.time + 1_000, Event::Client(client, watch));
                    let wake = crate::client::Wake::NoAnswer(link);
                    self.queue
                        .push(self.time + 5_000, Event::Client(client, wake));
                }
            }
        }
    }
}

fn down_time(rng: &mut Rng, grace: u64) -> u64 {
    let times = [0, 20, 1_000, grace / 2, grace, grace * 2];
    let most = times[rng.weighted(&[2, 3, 3, 2, 1, 1])];
    rng.below(most + 1)
}
