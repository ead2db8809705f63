//! The broker ends under load and starts again.

use std::time::{Duration, Instant};

use clap::Args;

use super::Pick;
use crate::cli::Common;
use crate::fleet::{Fleet, Target as To};
use crate::floor::insert;
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Stage, StageError, Wanted, by_hand};

/// Sockets at a time while the leases are made.
const WAVE: usize = 8000;

/// Those who are online when the broker ends, and come back.
const LIVE: usize = 2000;

/// kill -9 and SIGTERM under load, with many leases in the file
///
/// Leases in grace fill the file; 2 000 sessions are online and send. The broker is killed and
/// started again, then stopped and started again: nobody may be told of anybody, and nothing
/// acknowledged may be lost. The floor of the start is a bare reading of the rows.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    common: Common,
}

impl Restart {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "restart",
            sessions: 100_000,
            meshes: 100,
            members: 1,
            flags: ["--grace=1h", "--max-grace=1h", "--restart-grace=1h"]
                .map(str::to_owned)
                .to_vec(),
            options: Vec::new(),
            live: false,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        stage.own()?;
        let live = LIVE.min(stage.sessions);
        let mut next = live;
        while next < stage.sessions {
            let end = stage.sessions.min(next + WAVE);
            let mut fleet = stage.people(by_hand(), next..end)?;
            stage.attach(
                &mut fleet,
                &format!("leases: {next} and more"),
                0..end - next,
            )?;
            stage.settle(&mut fleet)?;
            fleet.swarm.clear();
            stage.checks(&fleet.tally);
            next = end;
        }
        let mut fleet = stage.people(by_hand(), 0..live)?;
        stage.attach(&mut fleet, "online", 0..live)?;
        stage.settle(&mut fleet)?;
        fleet.settled = true;
        for (how, kill) in [("kill -9", true), ("SIGTERM", false)] {
            self.end_and_start(&mut stage, &mut fleet, how, kill)?;
        }
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    fn end_and_start(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        how: &str,
        kill: bool,
    ) -> Result<(), StageError> {
        let mut pick = Pick::new(self.common.seed);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            talk(stage, fleet, &mut pick)?;
        }
        let broker = stage.own()?;
        if kill {
            broker.kill()?;
            fleet.broker_killed();
        } else {
            let took = broker.stop()?;
            let figure = Figure::new("stop", took.as_nanos() as f64, Unit::Nanos);
            stage.figure(figure);
        }
        let db = stage.own()?.db();
        // Sockets that the broker's end has broken are noticed before the next one is there.
        fleet.run(Duration::from_millis(200))?;
        let rows = if stage.common.no_floor {
            None
        } else {
            Some(insert::read_rows(&db)?)
        };
        let took = stage.own()?.start_again()?;
        let nanos = took.as_nanos() as f64;
        let mut figure = Figure::new(format!("start after {how}"), nanos, Unit::Nanos);
        if let Some(rows) = rows {
            figure = figure
                .floor(rows.as_nanos() as f64)
                .target(Target::OfFloorAtMost(2.0));
        }
        stage.figure(figure);
        fleet.forget_latencies();
        let began = Instant::now();
        let live = fleet.swarm.count();
        stage.attach(fleet, &format!("back after {how}"), 0..live)?;
        let back = began.elapsed().as_nanos() as f64;
        stage.figure(Figure::new(
            format!("all back after {how}"),
            back,
            Unit::Nanos,
        ));
        stage.series(fleet.hello.series(&format!("hello after {how}")));
        fleet.until("messages to arrive", Fleet::outstanding)?;
        stage.settle(fleet)?;
        if let Some(memory) = stage.memory()? {
            let bytes = memory as f64 / stage.sessions as f64;
            let series = Family::Memory.series(
                "after a restart, all of the process",
                vec![(stage.sessions as f64, bytes)],
            );
            stage.series(series);
        }
        Ok(())
    }
}

/// One message to somebody of the same mesh.
fn talk(stage: &Stage, fleet: &mut Fleet, pick: &mut Pick) -> Result<(), StageError> {
    let (meshes, live) = (stage.town.meshes.len(), fleet.swarm.count());
    let from = pick.below(live);
    let to = (from + meshes * (1 + pick.below(live / meshes.max(1)))) % live;
    // Numbers wrap around at a mesh's border; those stay silent.
    if to % meshes == from % meshes && to != from {
        fleet.send(from, To::One(to), 200);
    }
    fleet.turn(Instant::now() + Duration::from_micros(500))?;
    Ok(())
}
