//! A day of traffic.

use std::time::{Duration, Instant};

use clap::Args;

use super::each;
use super::traffic::{MEMBERS, Traffic};
use crate::cli::{Common, duration};
use crate::fleet::Fleet;
use crate::report::{Figure, Series, Unit};
use crate::stage::{Stage, StageError, Wanted};

/// How busy each hour of the day is, in tenths of the average.
const HOURS: [u32; 24] = [
    2, 1, 1, 1, 1, 2, 4, 8, 14, 19, 20, 18, 12, 16, 20, 20, 18, 14, 10, 9, 9, 8, 6, 4,
];

/// In this hour a tenth of all lose their sockets at once.
const OUTAGE: usize = 14;

/// A day of traffic, compressed
///
/// Four in five sessions stay all day; the others come and go. They send to one another, to groups
/// and to all, change their status, ask who is there, and lose their network now and then; in the
/// afternoon a tenth of them do at the same time. Of those who stay nobody may be told that they
/// came or went, and nothing acknowledged may be lost.
#[derive(Debug, Args)]
pub struct Mixed {
    #[command(flatten)]
    common: Common,

    /// How long the day lasts
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    time: Duration,
}

impl Mixed {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "mixed",
            sessions: 2000,
            meshes: 20,
            members: MEMBERS,
            flags: Vec::new(),
            options: vec![("time", format!("{:?}", self.time))],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let (mut traffic, mut fleet) = Traffic::set(&mut stage)?;
        fleet.forget_latencies();
        let began = stage.cpu()?;
        let hour = self.time / 24;
        let mut load = Vec::with_capacity(HOURS.len());
        stage.begin("the day", Some(HOURS.len()));
        for (clock, busy) in HOURS.into_iter().enumerate() {
            let cpu = stage.cpu()?;
            if clock == OUTAGE {
                traffic.cut_some(&mut fleet, 10);
            }
            let end = Instant::now() + hour;
            traffic.pass(&mut fleet, end, hour, f64::from(busy) / 10.0)?;
            let used = stage.cpu()?.since(cpu).all;
            load.push((clock as f64, used / hour.as_nanos() as f64));
            stage.update(clock + 1);
        }
        stage.end();
        traffic.rest(&mut fleet)?;
        let used = stage.cpu()?.since(began).all;
        let deeds = usize::try_from(traffic.deeds).unwrap_or(usize::MAX);
        tell(&mut stage, &fleet, deeds, each(used, deeds));
        stage.series(Series {
            name: "load: the day".to_owned(),
            x: "hour".to_owned(),
            y: "cores".to_owned(),
            points: load,
        });
        stage.checks(&fleet.tally);
        stage.finish()
    }
}

fn tell(stage: &mut Stage, fleet: &Fleet, deeds: usize, cpu: f64) {
    let count = |name: &str, count: u64| Figure::new(name, count as f64, Unit::Count);
    stage.figure(count("things done", deeds as u64));
    stage.figure(Figure::new("CPU of all threads for each", cpu, Unit::Nanos));
    stage.figures(fleet.push.figures("send to push", None));
    stage.figures(fleet.ack.figures("send to ack", None));
    stage.figures(fleet.hello.figures("hello", None));
    stage.figure(count("messages received", fleet.counts.received));
    stage.figure(count("received again", fleet.counts.repeated));
    stage.figure(count("sockets lost", fleet.counts.lost));
    stage.figure(count("reattached", fleet.counts.reattached));
    stage.figure(count("news of visitors", fleet.counts.peer_events));
    stage.figure(count("hellos over 5 s", fleet.counts.late));
    stage.series(fleet.push.series("send to push"));
}
