//! Direct messages: what one costs, how fast they are, how many there can be.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Pick, each};
use crate::cli::{Common, duration};
use crate::fleet::{Fleet, Target as To};
use crate::floor::{Kind, insert};
use crate::report::latency::Latency;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};
use crate::swarm::Bare;

/// Messages of the closed loop.
const CLOSED: usize = 50_000;

/// Bytes of a message's text.
const BYTES: usize = 200;

/// Rows that one commit of the floor writes, about as many as the broker does under load.
const GROUP: usize = 64;

/// Direct messages: CPU, latency and rate
///
/// First closed, each pair with one message on its way: CPU per message. Then open, at half the
/// rate that was reached: latency as users see it, with messages sent when they are due and not
/// when there is time. Floors: two echoes of the barest loop, and the barest group commit.
#[derive(Debug, Args)]
pub struct Dm {
    #[command(flatten)]
    common: Common,

    /// Pairs with a message on its way in the closed loop
    #[arg(long, value_name = "N", default_value_t = 200)]
    pairs: usize,

    /// Messages of the closed loop
    #[arg(long, value_name = "N", default_value_t = CLOSED)]
    messages: usize,

    /// How long the open loop lasts
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    time: Duration,

    /// Messages per second of the open loop [default: half of what the closed loop reached]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
}

/// What the closed loop found.
pub(super) struct Closed {
    /// For each message.
    pub(super) cpu: Cpu,
    /// Acknowledged, per second.
    pub(super) rate: f64,
}

impl Dm {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "dm",
            sessions: 1000,
            meshes: 10,
            members: 1,
            flags: Vec::new(),
            options: vec![
                ("pairs", self.pairs.to_string()),
                ("messages", self.messages.to_string()),
                ("time", format!("{:?}", self.time)),
                (
                    "rate",
                    self.rate
                        .map_or_else(|| "half".into(), |rate| rate.to_string()),
                ),
            ],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let mut fleet = stage.everybody(by_hand())?;
        let echo = self.echo(&mut stage)?;
        let inserts = self.inserts(&mut stage)?;
        closed(&mut stage, &mut fleet, (self.pairs, self.messages / 10))?;
        let closed = closed(&mut stage, &mut fleet, (self.pairs, self.messages))?;
        let mut cpu = Figure::new("CPU of the loop per message", closed.cpu.loops, Unit::Nanos);
        if let Some((echo, _)) = &echo {
            cpu = cpu.floor(2.0 * echo).target(Target::OfFloorAtMost(1.3));
        }
        stage.figure(cpu);
        stage.figure(Figure::new(
            "CPU of all threads per message",
            closed.cpu.all,
            Unit::Nanos,
        ));
        let mut rate = Figure::new(
            "messages acknowledged durable",
            closed.rate,
            Unit::PerSecond,
        );
        if let Some(inserts) = inserts {
            rate = rate.floor(inserts).target(Target::OfFloorAtLeast(0.5));
        }
        stage.figure(rate);
        let floor = echo.map(|(_, latency)| latency);
        self.open(&mut stage, &mut fleet, closed.rate, floor.as_ref())?;
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    fn echo(&self, stage: &mut Stage) -> Result<Option<(f64, Latency)>, StageError> {
        let Some(server) = stage.floor(Kind::Echo, Duration::ZERO)? else {
            return Ok(None);
        };
        let mut bare = Bare::new(server.port(), stage.sessions)?;
        stage.begin("floor: echoes", None);
        bare.open(None, |_| {})?;
        bare.echo(self.messages / 10, BYTES, self.pairs)?;
        let cpu = Cpu::of(server.pid())?;
        bare.echo(self.messages, BYTES, self.pairs)?;
        let used = Cpu::of(server.pid())?.since(cpu).all;
        let alone = bare.echo(2000.min(self.messages), BYTES, 1)?;
        stage.end();
        Ok(Some((each(used, self.messages), alone)))
    }

    fn inserts(&self, stage: &mut Stage) -> Result<Option<f64>, StageError> {
        let Some(broker) = stage.broker.as_ref().filter(|_| !stage.common.no_floor) else {
            return Ok(None);
        };
        let dir = broker.dir().to_owned();
        stage.begin("floor: commits", None);
        let found = insert::inserts(&dir, GROUP, self.messages as u64, 500)?;
        stage.end();
        Ok(Some(found.rows_per_second))
    }

    /// Messages between random sessions of one mesh, each sent when it is due.
    fn open(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        reached: f64,
        floor: Option<&Latency>,
    ) -> Result<(), StageError> {
        let rate = self.rate.map_or(reached / 2.0, f64::from).max(1.0);
        let gap = Duration::from_secs_f64(1.0 / rate);
        let meshes = stage.town.meshes.len();
        let mut pick = Pick::new(self.common.seed);
        fleet.forget_latencies();
        stage.begin(
            "open loop",
            Some(usize::try_from(self.time.as_secs()).unwrap_or(0)),
        );
        let began = Instant::now();
        let mut due = began;
        while due < began + self.time {
            while due <= Instant::now() {
                let from = pick.below(stage.sessions);
                let to = pick.below(stage.sessions / meshes) * meshes + from % meshes;
                let to = if to == from {
                    (to + meshes) % stage.sessions
                } else {
                    to
                };
                fleet.send_due(from, To::One(to), BYTES, due);
                due += gap;
            }
            fleet.turn(due)?;
            stage.update(usize::try_from(began.elapsed().as_secs()).unwrap_or(0));
        }
        fleet.until("messages to arrive", Fleet::outstanding)?;
        stage.end();
        stage.figure(Figure::new("rate of the open loop", rate, Unit::PerSecond));
        stage.figures(fleet.push.figures("send to push", floor));
        stage.figures(fleet.ack.figures("send to ack", None));
        if let (Some(half), Some(tail)) = (fleet.push.at(0.5), fleet.push.at(0.99)) {
            let figure = Figure::new("send to push, p99 to p50", tail / half, Unit::Ratio);
            stage.figure(figure.target(Target::AtMost(5.0)));
        }
        stage.series(fleet.push.series("send to push"));
        stage.series(fleet.ack.series("send to ack"));
        Ok(())
    }
}

/// Pairs of sessions of one mesh, each with one message on its way.
pub(super) fn closed(
    stage: &mut Stage,
    fleet: &mut Fleet,
    (pairs, messages): (usize, usize),
) -> Result<Closed, StageError> {
    let meshes = stage.town.meshes.len();
    let pairs = pairs.min(stage.sessions.saturating_sub(meshes)).max(1);
    stage.begin("closed loop", Some(messages));
    let cpu = stage.cpu()?;
    let began = Instant::now();
    let mut flying: Vec<(usize, u64)> = Vec::with_capacity(pairs);
    let mut sent = 0;
    let acked = fleet.counts.acked;
    for pair in 0..pairs.min(messages) {
        flying.push((pair, fleet.send(pair, To::One(pair + meshes), BYTES)));
        sent += 1;
    }
    while !flying.is_empty() {
        fleet.turn(Instant::now() + Duration::from_millis(100))?;
        let mut landed = Vec::new();
        flying.retain(|(pair, number)| {
            let there = fleet.is_done(*number);
            if there {
                landed.push(*pair);
            }
            !there
        });
        for pair in landed {
            if sent < messages {
                flying.push((pair, fleet.send(pair, To::One(pair + meshes), BYTES)));
                sent += 1;
            }
        }
        stage.update(sent);
        if began.elapsed() > Duration::from_secs(300) {
            break;
        }
    }
    let took = began.elapsed().as_secs_f64();
    stage.end();
    let used = stage.cpu()?.since(cpu);
    let acked = fleet.counts.acked - acked;
    Ok(Closed {
        cpu: Cpu {
            loops: each(used.loops, messages),
            all: each(used.all, messages),
        },
        rate: acked as f64 / took,
    })
}
