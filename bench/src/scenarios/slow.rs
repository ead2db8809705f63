//! Some do not read; the others must not notice.

use std::time::{Duration, Instant};

use clap::Args;

use super::Pick;
use crate::cli::{Common, duration};
use crate::fleet::{Fleet, Target as To};
use crate::report::latency::Latency;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Stage, StageError, Wanted, by_hand};

/// Slow consumers among fast ones: what the fast ones notice
///
/// Messages between fast sessions are timed; then one in a hundred sessions stops reading, is sent
/// broadcasts and messages all the same, and the fast ones are timed again.
#[derive(Debug, Args)]
pub struct Slow {
    #[command(flatten)]
    common: Common,

    /// Messages per second between fast sessions
    #[arg(long, value_name = "N", default_value_t = 500)]
    rate: u32,

    /// How long each half lasts
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    time: Duration,
}

impl Slow {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "slow",
            sessions: 2000,
            meshes: 1,
            members: 2,
            flags: Vec::new(),
            options: vec![
                ("rate", self.rate.to_string()),
                ("time", format!("{:?}", self.time)),
            ],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let mut fleet = stage.everybody(by_hand())?;
        let slow = (stage.sessions / 100).max(1);
        let alone = self.talk(&mut stage, &mut fleet, "all read", slow)?;
        for peer in 0..slow {
            fleet.swarm.stop_reading(peer);
        }
        let among = self.talk(&mut stage, &mut fleet, "some do not read", slow)?;
        stage.figure(Figure::new("slow sessions", slow as f64, Unit::Count));
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let (Some(alone), Some(among)) = (alone.at(share), among.at(share)) else {
                continue;
            };
            let name = format!("send to push {name} among slow ones");
            let mut figure = Figure::new(name, among, Unit::Nanos).floor(alone);
            if share > 0.9 {
                figure = figure.target(Target::OfFloorAtMost(1.2));
            }
            stage.figure(figure);
        }
        stage.series(alone.series("all read"));
        stage.series(among.series("one in a hundred does not"));
        // Those who stopped reading have not received what waits for them.
        fleet.excuse(slow);
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    /// Messages between random fast sessions, and now and then one to a slow one, and to all.
    fn talk(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        what: &str,
        slow: usize,
    ) -> Result<Latency, StageError> {
        let gap = Duration::from_secs(1) / self.rate.max(1);
        let mut pick = Pick::new(self.common.seed);
        let fast = stage.sessions - slow;
        fleet.forget_latencies();
        let seconds = usize::try_from(self.time.as_secs()).unwrap_or(0);
        stage.begin(what, Some(seconds));
        let began = Instant::now();
        let (mut due, mut count) = (began, 0_u32);
        while due < began + self.time {
            while due <= Instant::now() {
                let from = slow + pick.below(fast);
                let to = slow + (from - slow + 1 + pick.below(fast - 1)) % fast;
                count += 1;
                let to = if count.is_multiple_of(10) {
                    pick.below(slow)
                } else {
                    to
                };
                let bytes = if to < slow { 20_000 } else { 200 };
                fleet.send_due(from, To::One(to), bytes, due);
                due += gap;
            }
            fleet.turn(due)?;
            stage.update(usize::try_from(began.elapsed().as_secs()).unwrap_or(0));
        }
        fleet.until("messages to arrive", |fleet| fleet.outstanding_beyond(slow))?;
        stage.end();
        Ok(std::mem::take(&mut fleet.push))
    }
}
