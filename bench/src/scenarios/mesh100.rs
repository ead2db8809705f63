//! A hundred peers, a thousand messages each, to random others.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Pick, each};
use crate::cli::{Common, duration};
use crate::fleet::{Fleet, Target as To};
use crate::report::{Figure, Target, Unit};
use crate::stage::{Stage, StageError, Wanted, by_hand};

/// What the original took to the last delivery (targets.md).
const ORIGINAL: Duration = Duration::from_secs(827);

/// 100 peers send 1 000 messages each to random others: time to the last delivery
#[derive(Debug, Args)]
pub struct Mesh100 {
    #[command(flatten)]
    common: Common,

    /// Messages of each peer
    #[arg(long, value_name = "N", default_value_t = 1000)]
    messages: usize,

    /// Messages of one peer on their way to the broker
    #[arg(long, value_name = "N", default_value_t = 10)]
    window: usize,

    /// When to give up
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    patience: Duration,
}

impl Mesh100 {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "mesh100",
            sessions: 100,
            meshes: 1,
            members: 1,
            flags: Vec::new(),
            options: vec![
                ("messages", self.messages.to_string()),
                ("window", self.window.to_string()),
            ],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let mut fleet = stage.everybody(by_hand())?;
        let cpu = stage.cpu()?;
        let took = self.send(&mut stage, &mut fleet)?;
        let used = stage.cpu()?.since(cpu);
        let count = stage.sessions * self.messages;
        let late = fleet.outstanding();
        let nanos = took.as_nanos() as f64;
        stage.figure(Figure::new("time to the last delivery", nanos, Unit::Nanos));
        if self.messages == 1000 && stage.sessions == 100 {
            let faster = ORIGINAL.as_secs_f64() / took.as_secs_f64();
            let figure = Figure::new("times faster than the original", faster, Unit::Ratio);
            stage.figure(figure.target(Target::AtLeast(200.0)));
        }
        let rate = count as f64 / took.as_secs_f64();
        stage.figure(Figure::new("messages delivered", rate, Unit::PerSecond));
        stage.figure(Figure::new(
            "CPU per message",
            each(used.all, count),
            Unit::Nanos,
        ));
        let delivered = 1.0 - late as f64 / count.max(1) as f64;
        stage.figure(Figure::new("delivered", delivered, Unit::Ratio).target(Target::AtLeast(1.0)));
        stage.figures(fleet.push.figures("send to push", None));
        fleet
            .tally
            .add_many("received twice", fleet.counts.repeated, || {
                "see above".to_owned()
            });
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    fn send(&self, stage: &mut Stage, fleet: &mut Fleet) -> Result<Duration, StageError> {
        let peers = stage.sessions;
        let total = peers * self.messages;
        let mut pick = Pick::new(self.common.seed);
        let mut left = vec![self.messages; peers];
        let mut flying: Vec<Vec<u64>> = vec![Vec::new(); peers];
        stage.begin("messages", Some(total));
        let began = Instant::now();
        loop {
            let mut busy = false;
            for from in 0..peers {
                let (Some(left), Some(flying)) = (left.get_mut(from), flying.get_mut(from)) else {
                    continue;
                };
                flying.retain(|number| !fleet.is_acked(*number));
                while *left > 0 && flying.len() < self.window {
                    let to = (from + 1 + pick.below(peers - 1)) % peers;
                    flying.push(fleet.send(from, To::One(to), 200));
                    *left -= 1;
                }
                busy |= *left > 0 || !flying.is_empty();
            }
            stage.update(usize::try_from(fleet.counts.received).unwrap_or(total));
            let there = fleet.counts.received >= total as u64;
            if (!busy && there) || began.elapsed() > self.patience {
                break;
            }
            fleet.turn(Instant::now() + Duration::from_millis(20))?;
        }
        stage.end();
        Ok(began.elapsed())
    }
}
