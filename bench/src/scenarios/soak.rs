//! The same load for a long time: what grows?

use std::time::{Duration, Instant};

use clap::Args;

use super::each;
use super::traffic::{MEMBERS, Traffic};
use crate::cli::{Common, duration};
use crate::report::{Figure, Series, Unit};
use crate::stage::{Stage, StageError, Wanted};

/// Traffic pauses this often, so that everything that is owed can be counted.
const ROUNDS: u32 = 20;

/// How long an hour of traffic takes: 24 of them in two minutes, as in `mixed`.
const HOUR: Duration = Duration::from_secs(5);

/// A constant load for a long time: what grows
///
/// The traffic of `mixed` without its quiet hours. After every twentieth of the time all messages
/// are accounted for, and the broker's memory, CPU and file are looked at: the last
/// look is set beside the first one after the broker has warmed up.
#[derive(Debug, Args)]
pub struct Soak {
    #[command(flatten)]
    common: Common,

    /// How long
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration)]
    time: Duration,
}

/// What the broker has and uses.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    seconds: f64,
    memory: f64,
    cpu: f64,
    file: f64,
}

impl Soak {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "soak",
            sessions: 2000,
            meshes: 20,
            members: MEMBERS,
            flags: Vec::new(),
            options: vec![("time", format!("{:?}", self.time))],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let (mut traffic, mut fleet) = Traffic::set(&mut stage)?;
        let began = Instant::now();
        let mut looks = Vec::new();
        stage.begin("soaking", usize::try_from(self.time.as_secs()).ok());
        for round in 1..=ROUNDS {
            let (cpu, deeds) = (stage.cpu()?, traffic.deeds);
            let end = began + self.time * round / ROUNDS;
            while Instant::now() < end {
                let soon = end.min(Instant::now() + Duration::from_secs(1));
                traffic.pass(&mut fleet, soon, HOUR, 1.0)?;
                stage.update(usize::try_from(began.elapsed().as_secs()).unwrap_or(0));
            }
            traffic.rest(&mut fleet)?;
            let used = stage.cpu()?.since(cpu).all;
            let done = usize::try_from(traffic.deeds - deeds).unwrap_or(usize::MAX);
            looks.push(Look {
                seconds: began.elapsed().as_secs_f64(),
                memory: stage.memory()?.unwrap_or(0) as f64,
                cpu: each(used, done),
                file: size(&stage),
            });
        }
        stage.end();
        let count = |name: &str, count: u64| Figure::new(name, count as f64, Unit::Count);
        stage.figure(count("things done", traffic.deeds));
        stage.figure(count("messages received", fleet.counts.received));
        stage.figure(count("sockets lost", fleet.counts.lost));
        stage.figure(count("hellos over 5 s", fleet.counts.late));
        stage.figures(fleet.push.figures("send to push", None));
        compare(&mut stage, &looks);
        stage.checks(&fleet.tally);
        stage.finish()
    }
}

/// Bytes of the broker's database, without its write-ahead log.
fn size(stage: &Stage) -> f64 {
    let data = stage.broker.as_ref().map(|broker| broker.db().metadata());
    data.and_then(Result::ok)
        .map_or(0.0, |data| data.len() as f64)
}

/// The last look beside the one after a quarter of the time.
fn compare(stage: &mut Stage, looks: &[Look]) {
    let (Some(early), Some(late)) = (looks.get(looks.len() / 4), looks.last()) else {
        return;
    };
    let mut tell = |name: &str, of: fn(&Look) -> f64, unit| {
        let figure = Figure::new(format!("{name}, at the end"), of(late), unit);
        stage.figure(figure.floor(of(early)));
        stage.series(Series {
            name: format!("soak: {name}"),
            x: "time (s)".to_owned(),
            y: name.to_owned(),
            points: looks.iter().map(|look| (look.seconds, of(look))).collect(),
        });
    };
    tell("memory of the broker", |look| look.memory, Unit::Bytes);
    tell("CPU of all threads for each", |look| look.cpu, Unit::Nanos);
    tell("database", |look| look.file, Unit::Bytes);
}
