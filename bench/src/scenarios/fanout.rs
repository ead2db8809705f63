//! One speaks, all others of the mesh hear it.

use std::time::{Duration, Instant};

use clap::Args;
use holdfast::client::Settings;

use super::each;
use crate::cli::Common;
use crate::fleet::{Fleet, Target as To};
use crate::floor::Kind;
use crate::report::latency::Latency;
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};
use crate::swarm::Bare;

/// Deliveries that are measured at each size, so that CPU is told exactly enough.
const DELIVERIES: usize = 200_000;

/// Bytes of what is said.
const BYTES: usize = 200;

/// Broadcasts in meshes of 100, 1 000 and 10 000: CPU per delivery, time to the last
///
/// Each is said when all have heard the one before. The floor writes one frame to as many sockets.
/// Listeners are silent, as commands and scripts are; those of the last run confirm each message, as
/// daemons do, which costs the broker a frame read for each one written.
#[derive(Debug, Args)]
pub struct Fanout {
    #[command(flatten)]
    common: Common,
}

/// What one size costs.
struct Point {
    cpu: f64,
    last: Latency,
}

impl Fanout {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "fanout",
            sessions: 10_000,
            meshes: 4,
            members: 2,
            flags: vec!["--max-sessions-per-mesh=1000000".to_owned()],
            options: Vec::new(),
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let mut curves = (Vec::new(), Vec::new());
        let sizes = sizes(stage.sessions);
        for (mesh, size) in sizes.iter().copied().enumerate() {
            let floor = self.floor(&mut stage, size)?;
            let found = self.measure(&mut stage, (mesh, size), false)?;
            let mut cpu = Figure::new(
                format!("CPU per delivery to {size}"),
                found.cpu,
                Unit::Nanos,
            );
            if let Some(floor) = &floor {
                cpu = cpu.floor(floor.cpu);
                if size >= 1000 {
                    cpu = cpu.target(Target::OfFloorAtMost(1.15));
                }
                curves.1.push((size as f64, floor.cpu));
            }
            curves.0.push((size as f64, found.cpu));
            stage.figure(cpu);
            let floor = floor.map(|floor| floor.last);
            stage.figures(
                found
                    .last
                    .figures(&format!("last of {size}"), floor.as_ref()),
            );
        }
        let confirmed = stage.sessions.min(1000);
        let found = self.measure(&mut stage, (sizes.len(), confirmed), true)?;
        let name = format!("CPU per confirmed delivery to {confirmed}");
        stage.figure(Figure::new(name, found.cpu, Unit::Nanos));
        stage.series(Family::Cost.series("delivery of a broadcast", curves.0));
        stage.series(Family::Cost.series("delivery of a broadcast, floor", curves.1));
        stage.finish()
    }

    fn floor(&self, stage: &mut Stage, size: usize) -> Result<Option<Point>, StageError> {
        let Some(server) = stage.floor(Kind::Fanout, Duration::ZERO)? else {
            return Ok(None);
        };
        let mut bare = Bare::new(server.port(), size)?;
        stage.begin(&format!("floor: 1 to {size}"), None);
        bare.open(None, |_| {})?;
        let times = times(size);
        bare.shout(times / 10 + 1, BYTES)?;
        let cpu = Cpu::of(server.pid())?;
        let last = bare.shout(times, BYTES)?;
        let used = Cpu::of(server.pid())?.since(cpu).all;
        stage.end();
        let cpu = each(used, times * (size - 1));
        Ok(Some(Point { cpu, last }))
    }

    /// Sessions of two members: a broadcast is not for the speaker's own.
    fn measure(
        &self,
        stage: &mut Stage,
        (mesh, size): (usize, usize),
        confirm: bool,
    ) -> Result<Point, StageError> {
        let settings = Settings {
            confirm,
            ..by_hand()
        };
        let mut fleet = stage.people(settings, 0..0)?;
        let nobody = || StageError::Unfit("there are fewer meshes than sizes".to_owned());
        let place = stage.town.meshes.get(mesh).ok_or_else(nobody)?.clone();
        for n in 0..size {
            let member = place.members.get(usize::from(n > 0)).ok_or_else(nobody)?;
            let number = mesh * stage.sessions + n;
            fleet.add(stage.town.session(&place, member, number));
        }
        stage.attach(&mut fleet, &format!("mesh of {size}"), 0..size)?;
        stage.settle(&mut fleet)?;
        fleet.settled = true;
        let times = times(size);
        self.say(stage, &mut fleet, times / 10 + 1)?;
        let cpu = stage.cpu()?;
        let last = self.say(stage, &mut fleet, times)?;
        let used = stage.cpu()?.since(cpu);
        fleet.everybody_heard(u32::try_from(size - 1).unwrap_or(u32::MAX));
        fleet.close_book();
        stage.checks(&fleet.tally);
        fleet.swarm.clear();
        Ok(Point {
            cpu: each(used.all, times * (size - 1)),
            last,
        })
    }

    fn say(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        times: usize,
    ) -> Result<Latency, StageError> {
        let mut last = Latency::new();
        stage.begin("broadcasts", Some(times));
        for said in 0..times {
            let began = Instant::now();
            let number = fleet.send(0, To::All, BYTES);
            let all = u32::try_from(fleet.swarm.count() - 1).unwrap_or(u32::MAX);
            while fleet.received(number) < all {
                fleet.turn(Instant::now() + Duration::from_millis(100))?;
                if began.elapsed() > Duration::from_secs(20) {
                    break;
                }
            }
            last.record(began.elapsed());
            stage.update(said + 1);
        }
        fleet.until("acknowledgements", Fleet::unacknowledged)?;
        stage.end();
        Ok(last)
    }
}

fn times(size: usize) -> usize {
    (DELIVERIES / size).max(20)
}

fn sizes(most: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = [100, 1000]
        .into_iter()
        .filter(|size| *size < most)
        .collect();
    sizes.push(most);
    sizes
}
