//! Everybody loses the socket at once, and comes back.

use std::time::{Duration, Instant};

use clap::Args;
use holdfast::client::{Backoff, Settings};
use holdfast::core::time::Millis;

use super::{Pick, each};
use crate::cli::Common;
use crate::fleet::{Fleet, Target as To};
use crate::floor::Kind;
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};
use crate::swarm::Bare;

/// Sessions that are not cut: they go on sending, and watch who is said to come and go.
const WATCHERS: usize = 8;

/// Between two points of the timeline.
const POINT: Duration = Duration::from_millis(50);

/// All sockets cut at once, and all sessions return
///
/// A few sessions stay: they go on sending to those who are away, directly and to all, and must be
/// told of nobody's coming or going. Counts hellos answered after more than 5 s, news of peers, and
/// messages lost: all must be 0.
#[derive(Debug, Args)]
pub struct Storm {
    #[command(flatten)]
    common: Common,

    /// Come back with resume tokens instead of signatures
    #[arg(long)]
    token: bool,

    /// Come back at once, not after the clients' jittered backoff
    #[arg(long)]
    at_once: bool,

    /// Direct messages per second while they are away and coming back
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,
}

impl Storm {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "storm",
            sessions: 15_000,
            meshes: 15,
            members: 2,
            flags: Vec::new(),
            options: vec![
                ("token", self.token.to_string()),
                ("at once", self.at_once.to_string()),
                ("rate", self.rate.to_string()),
            ],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let floor = self.floor(&mut stage)?;
        let mut fleet = stage.everybody(self.settings())?;
        fleet.forget_latencies();
        let used = self.storm(&mut stage, &mut fleet)?;
        self.tell(&mut stage, &fleet, used, floor);
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    fn settings(&self) -> Settings {
        let backoff = Backoff {
            first: Millis(1000),
            max: Millis(30_000),
        };
        Settings {
            reconnect: (!self.at_once).then_some(backoff),
            resume: self.token,
            ..by_hand()
        }
    }

    /// CPU of the barest server for as many connections, and as many signatures if there are any.
    fn floor(&self, stage: &mut Stage) -> Result<Option<f64>, StageError> {
        let kind = if self.token {
            Kind::Upgrade
        } else {
            Kind::Verify
        };
        let greeting = (!self.token).then_some("hello");
        let Some(server) = stage.floor(kind, Duration::ZERO)? else {
            return Ok(None);
        };
        let count = stage.sessions.saturating_sub(WATCHERS);
        let mut bare = Bare::new(server.port(), count)?;
        stage.begin("floor", Some(count));
        bare.open(greeting, |_| {})?;
        bare.cut()?;
        let cpu = Cpu::of(server.pid())?;
        bare.open(greeting, |done| stage.update(done))?;
        stage.end();
        let used = Cpu::of(server.pid())?.since(cpu).all;
        Ok(Some(each(used, count)))
    }

    /// Cuts all but the watchers and lets them come back; gives the CPU that took, less what the
    /// messages would have taken without.
    fn storm(&self, stage: &mut Stage, fleet: &mut Fleet) -> Result<Cpu, StageError> {
        let watchers = WATCHERS.min(stage.sessions / 2);
        let cut = watchers..stage.sessions;
        let mut pick = Pick::new(self.common.seed);
        let cpu = stage.cpu()?;
        let began = Instant::now();
        for peer in cut.clone() {
            fleet.cut(peer);
            if self.at_once {
                fleet.connect(peer);
            }
        }
        stage.begin("coming back", Some(cut.len()));
        let mut attached = Vec::new();
        let mut point = began;
        let mut due = began;
        let gap = Duration::from_secs(1) / self.rate.max(1);
        let mut settled = cpu;
        let mut back = None;
        loop {
            let now = Instant::now();
            let here = fleet.attached();
            if now >= point {
                attached.push((began.elapsed().as_secs_f64(), here as f64));
                stage.update(here.saturating_sub(watchers));
                point = now + POINT;
                if here == stage.sessions && back.is_none() {
                    back = Some(began.elapsed());
                    settled = stage.cpu()?;
                }
                if back.is_some_and(|back| began.elapsed() > back + Duration::from_secs(1)) {
                    break;
                }
                if began.elapsed() > Duration::from_secs(120) {
                    break;
                }
            }
            if now >= due && self.rate > 0 && back.is_none() {
                let from = pick.below(watchers);
                let to = cut.start + pick.below(cut.len());
                // A message goes to somebody of the same mesh.
                let meshes = stage.town.meshes.len();
                let to = to - to % meshes + from % meshes;
                let to = if cut.contains(&to) {
                    To::One(to)
                } else {
                    To::All
                };
                fleet.send(from, if pick.below(50) == 0 { To::All } else { to }, 200);
                due += gap;
            }
            fleet.turn(point.min(due.max(now + Duration::from_micros(100))))?;
        }
        stage.end();
        fleet.until("messages to arrive", Fleet::outstanding)?;
        stage.series(Family::Storm.series("attached", attached));
        if let Some(back) = back {
            let nanos = back.as_nanos() as f64;
            stage.figure(Figure::new("all attached after", nanos, Unit::Nanos));
        }
        let missing = stage.sessions - fleet.attached();
        fleet
            .tally
            .add_many("not back after two minutes", missing as u64, || {
                "see above".to_owned()
            });
        Ok(settled.since(cpu))
    }

    fn tell(&self, stage: &mut Stage, fleet: &Fleet, used: Cpu, floor: Option<f64>) {
        let back = stage.sessions - WATCHERS.min(stage.sessions / 2);
        let bound = if self.token { 1.5 } else { 1.3 };
        let mut cpu = Figure::new("CPU per reattach", each(used.all, back), Unit::Nanos);
        if let Some(floor) = floor {
            cpu = cpu.floor(floor).target(Target::OfFloorAtMost(bound));
        }
        stage.figure(cpu);
        stage.figure(Figure::new(
            "CPU of the loops per reattach",
            each(used.loops, back),
            Unit::Nanos,
        ));
        stage.figures(fleet.hello.figures("hello", None));
        stage.series(fleet.hello.series("hello in a storm"));
        stage.figures(fleet.push.figures("message in a storm", None));
        let late = Figure::new("hellos over 5 s", fleet.counts.late as f64, Unit::Count);
        stage.figure(late.target(Target::AtMost(0.0)));
        let count = |name: &str, count: u64| Figure::new(name, count as f64, Unit::Count);
        stage.figure(count("reattached", fleet.counts.reattached));
        stage.figure(count("messages acknowledged", fleet.counts.acked));
        stage.figure(count("messages received", fleet.counts.received));
        stage.figure(count("received again", fleet.counts.repeated));
        stage.figure(count("truncated", fleet.counts.truncated));
    }
}
