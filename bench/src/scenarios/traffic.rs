//! Traffic of every kind, as sessions and the people behind them make it.

use std::time::{Duration, Instant};

use holdfast::client::{Backoff, Command, Settings};
use holdfast::core::rows::Status;
use holdfast::core::time::Millis;
use serde_json::json;

use super::Pick;
use crate::fleet::{Fleet, FleetError, Target as To};
use crate::stage::{Stage, StageError, by_hand};

/// Bytes of a message's text.
const BYTES: usize = 200;

/// One session in so many is a visitor, who comes and goes; the others stay.
const VISITORS: usize = 5;

/// Meshes have this many members; what one of them says to all is for the others' sessions.
pub(super) const MEMBERS: usize = 2;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// A message to one other.
    Direct,
    /// One that waits while the other works.
    Patient,
    /// A message to a group.
    Group,
    /// A message to all.
    Broadcast,
    /// Another status.
    Status,
    /// Asks who is there.
    List,
    /// Its network fails.
    Cut,
    /// A visitor comes or goes.
    Visit,
}

/// How often each is done, in an hour of average length: by one session.
const DEEDS: [(Deed, f64); 8] = [
    (Deed::Direct, 5.0),
    (Deed::Patient, 1.0),
    (Deed::Group, 0.02),
    (Deed::Broadcast, 0.04),
    (Deed::Status, 6.0),
    (Deed::List, 1.0),
    (Deed::Cut, 0.5),
    (Deed::Visit, 0.4),
];

/// Sessions that talk, come and go.
pub(super) struct Traffic {
    pick: Pick,
    /// The sessions from here on are visitors.
    regulars: usize,
    sessions: usize,
    meshes: usize,
    due: [Instant; DEEDS.len()],
    /// What was done.
    pub(super) deeds: u64,
}

impl Traffic {
    /// All sessions of a stage, attached.
    ///
    /// # Errors
    /// Some do not get in.
    pub(super) fn set(stage: &mut Stage) -> Result<(Self, Fleet), StageError> {
        let backoff = Backoff {
            first: Millis(500),
            max: Millis(2000),
        };
        let settings = Settings {
            reconnect: Some(backoff),
            ..by_hand()
        };
        let meshes = stage.town.meshes.len();
        let block = meshes * MEMBERS;
        let regulars = (stage.sessions - stage.sessions / VISITORS) / block * block;
        if regulars < 2 * block {
            return Err(StageError::Unfit(format!(
                "{} sessions are too few for {meshes} meshes: give at least --sessions {}",
                stage.sessions,
                3 * block
            )));
        }
        let mut fleet = stage.everybody(settings)?;
        for peer in regulars..stage.sessions {
            fleet.is_visitor(peer);
        }
        let traffic = Self {
            pick: Pick::new(stage.common.seed),
            regulars,
            sessions: stage.sessions,
            meshes,
            due: [Instant::now(); DEEDS.len()],
            deeds: 0,
        };
        Ok((traffic, fleet))
    }

    /// Lets time pass until then, `hour` being how long an hour of average activity takes, and
    /// `busy` how much more is done in this one.
    ///
    /// # Errors
    /// The client cannot go on.
    pub(super) fn pass(
        &mut self,
        fleet: &mut Fleet,
        until: Instant,
        hour: Duration,
        busy: f64,
    ) -> Result<(), FleetError> {
        let gaps = DEEDS.map(|(_, times)| {
            let rate = times * busy * self.sessions as f64 / hour.as_secs_f64();
            Duration::from_secs_f64((1.0 / rate).min(3600.0))
        });
        // What was not due in a quieter hour is due no later than it would be in this one.
        let latest = gaps.map(|gap| Instant::now() + gap);
        for (due, latest) in self.due.iter_mut().zip(latest) {
            *due = (*due).min(latest);
        }
        while Instant::now() < until {
            let mut next = until;
            for (at, ((deed, _), gap)) in DEEDS.into_iter().zip(gaps).enumerate() {
                let Some(mut due) = self.due.get(at).copied() else {
                    continue;
                };
                while due <= Instant::now() {
                    self.act(fleet, deed, due);
                    self.deeds += 1;
                    due += gap;
                }
                next = next.min(due);
                if let Some(place) = self.due.get_mut(at) {
                    *place = due;
                }
            }
            fleet.turn(next)?;
        }
        Ok(())
    }

    fn act(&mut self, fleet: &mut Fleet, deed: Deed, due: Instant) {
        let from = self.pick.below(self.regulars);
        match deed {
            Deed::Direct => {
                fleet.send_due(from, To::One(self.other(from)), BYTES, due);
            }
            Deed::Patient => {
                fleet.send_patiently(from, To::One(self.other(from)), BYTES);
            }
            Deed::Group => {
                fleet.send_due(from, To::Group("backend"), BYTES, due);
            }
            Deed::Broadcast => {
                fleet.send_due(from, To::All, BYTES, due);
            }
            Deed::Status => {
                let status = if self.pick.below(2) == 0 {
                    Status::Idle
                } else {
                    Status::Working
                };
                fleet.swarm.command(from, Command::SetStatus(status));
            }
            Deed::List => {
                let request = json!({"type": "list_peers", "_reqId": "who"});
                fleet.swarm.command(from, Command::Request(request));
            }
            Deed::Cut => fleet.cut(from),
            Deed::Visit => {
                let visitors = self.sessions - self.regulars;
                let visitor = self.regulars + self.pick.below(visitors.max(1));
                if fleet.is_attached(visitor) {
                    fleet.leave(visitor);
                } else if visitor < self.sessions {
                    fleet.connect(visitor);
                }
            }
        }
    }

    /// Another regular of the same mesh.
    fn other(&mut self, from: usize) -> usize {
        let turns = 1 + self.pick.below(self.regulars / self.meshes - 1);
        (from + turns * self.meshes) % self.regulars
    }

    /// One regular in `share` loses its socket, all at once.
    pub(super) fn cut_some(&self, fleet: &mut Fleet, share: usize) {
        for peer in (0..self.regulars).step_by(share.max(1)) {
            fleet.cut(peer);
        }
    }

    /// Waits until all are back and have what is theirs, and closes the book.
    ///
    /// # Errors
    /// Somebody does not come back.
    pub(super) fn rest(&mut self, fleet: &mut Fleet) -> Result<(), FleetError> {
        let regulars = self.regulars;
        for peer in 0..regulars {
            let idle = Command::SetStatus(Status::Idle);
            fleet.swarm.command(peer, idle);
        }
        fleet.until("everybody to be back", |fleet| {
            (0..regulars)
                .filter(|peer| !fleet.is_attached(*peer))
                .count()
        })?;
        fleet.until("messages to arrive", Fleet::outstanding)?;
        let hear = self.regulars / self.meshes / MEMBERS;
        let hear = u32::try_from(hear).unwrap_or(u32::MAX);
        fleet.until("broadcasts to arrive", |fleet| fleet.unheard(hear))?;
        fleet.everybody_heard(hear);
        fleet.close_book();
        // Whoever was on their way in or out is there.
        fleet.run(Duration::from_millis(500))?;
        self.due = [Instant::now(); DEEDS.len()];
        Ok(())
    }
}
