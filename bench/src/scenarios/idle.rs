//! What a session costs that does nothing: memory and CPU, online and in grace.

use std::time::{Duration, Instant};

use clap::Args;

use super::each;
use crate::cli::{Common, duration};
use crate::fleet::{Fleet, Target as To};
use crate::floor::Kind;
use crate::machine::kernel::Slabs;
use crate::machine::process;
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};

/// Sessions that come before the broker may rest: idle ones are measured, not the room that a storm
/// needs for a moment.
const AT_ONCE: usize = 1000;

/// Broadcasts said to those in grace, of which none may cost memory per session.
const SAID: usize = 2000;

/// Memory and CPU of idle sessions, online and in grace
///
/// Lets some come and leave, so that the broker is warm. Connects the sessions, lets them be, and
/// reads the broker's memory and CPU from outside; then cuts all sockets, and reads the memory of
/// sessions in grace, before and after the mesh has said 2 000 things that they will have to be
/// told.
#[derive(Debug, Args)]
pub struct Idle {
    #[command(flatten)]
    common: Common,

    /// How long CPU is measured; the default is two rounds of pings
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    window: Duration,
}

/// What one state costs.
struct Cost {
    user: Option<f64>,
    kernel: Option<f64>,
    cpu: f64,
}

/// The broker before the sessions came.
struct Before {
    resident: Option<u64>,
    /// Whose memory it had already.
    sessions: usize,
}

impl Before {
    /// By how much it has grown for each session since.
    fn grown(&self, resident: Option<u64>, sessions: usize) -> Option<f64> {
        let new = sessions.saturating_sub(self.sessions).max(1);
        Some(each(grown(self.resident, resident)?, new))
    }
}

impl Idle {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "idle",
            sessions: 15_000,
            meshes: 150,
            members: 1,
            flags: vec!["--grace=1h".to_owned(), "--max-grace=1h".to_owned()],
            options: vec![("window", format!("{:?}", self.window))],
            live: true,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let floor = self.floor(&mut stage)?;
        let warm = stage.warm_up()?;
        let mut fleet = stage.people(by_hand(), 0..stage.sessions)?;
        let before = Before {
            resident: stage.memory()?,
            sessions: warm,
        };
        let kernel = Slabs::now();
        for first in (0..stage.sessions).step_by(AT_ONCE) {
            let some = first..stage.sessions.min(first + AT_ONCE);
            let name = format!("sessions: {first} of {}", stage.sessions);
            stage.attach(&mut fleet, &name, some)?;
            stage.settle(&mut fleet)?;
        }
        fleet.settled = true;
        let online = self.cost(&mut stage, &mut fleet, &before, kernel.as_ref().ok())?;
        self.tell_online(&mut stage, &online, floor.as_ref());
        self.grace(&mut stage, &mut fleet, &before)?;
        fleet.close_book();
        stage.checks(&fleet.tally);
        stage.finish()
    }

    fn cost(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        before: &Before,
        slabs: Option<&Slabs>,
    ) -> Result<Cost, StageError> {
        let cpu = stage.cpu()?;
        stage.begin("idle", Some(secs(self.window)));
        let began = Instant::now();
        while began.elapsed() < self.window {
            let left = self.window.saturating_sub(began.elapsed());
            fleet.run(left.min(Duration::from_secs(1)))?;
            stage.update(secs(began.elapsed()));
        }
        stage.end();
        let cpu = stage.cpu()?.since(cpu);
        let sessions = stage.sessions;
        let full = stage.memory()?;
        let kernel = slabs.and_then(|slabs| grown_kernel(slabs, sessions));
        Ok(Cost {
            user: before.grown(full, sessions),
            kernel,
            cpu: each(cpu.all, sessions) / self.window.as_secs_f64(),
        })
    }

    fn floor(&self, stage: &mut Stage) -> Result<Option<Cost>, StageError> {
        let Some(server) = stage.floor(Kind::Upgrade, Duration::from_secs(30))? else {
            return Ok(None);
        };
        let mut swarm = crate::swarm::Bare::new(server.port(), stage.sessions)?;
        let empty = process::memory(server.pid())?.resident;
        let kernel = Slabs::now();
        stage.begin("floor: sockets", Some(stage.sessions));
        swarm.open(None, |done| stage.update(done))?;
        stage.end();
        swarm.run(Duration::from_secs(1))?;
        let full = process::memory(server.pid())?.resident;
        let kernel = kernel
            .ok()
            .and_then(|before| grown_kernel(&before, stage.sessions));
        let cpu = Cpu::of(server.pid())?;
        stage.begin("floor: idle", None);
        swarm.run(self.window)?;
        stage.end();
        let cpu = Cpu::of(server.pid())?.since(cpu);
        let sessions = stage.sessions;
        Ok(Some(Cost {
            user: grown(Some(empty), Some(full)).map(|bytes| each(bytes, sessions)),
            kernel,
            cpu: each(cpu.all, sessions) / self.window.as_secs_f64(),
        }))
    }

    fn tell_online(&self, stage: &mut Stage, online: &Cost, floor: Option<&Cost>) {
        let sessions = stage.sessions as f64;
        if let Some(user) = online.user {
            let figure = Figure::new("user memory per session online", user, Unit::Bytes);
            let floor = floor.and_then(|floor| floor.user);
            let figure = Figure { floor, ..figure };
            stage.figure(figure.target(Target::AtMost(900.0)));
            let point = vec![(sessions, user)];
            stage.series(Family::Memory.series("online, user", point));
        }
        if let (Some(user), Some(kernel)) = (online.user, online.kernel) {
            let mut own = Figure::new("kernel memory per session online", kernel, Unit::Bytes);
            own.floor = floor.and_then(|floor| floor.kernel);
            stage.figure(own);
            let name = "user and kernel memory per session online";
            let both = Figure::new(name, user + kernel, Unit::Bytes);
            stage.figure(both.target(Target::AtMost(4900.0)));
            let point = vec![(sessions, user + kernel)];
            stage.series(Family::Memory.series("online, user and kernel", point));
        }
        let mut cpu = Figure::new("CPU per session online and second", online.cpu, Unit::Nanos);
        if let Some(floor) = floor {
            cpu = cpu.floor(floor.cpu).target(Target::OfFloorAtMost(2.0));
        }
        stage.figure(cpu);
    }

    fn grace(
        &self,
        stage: &mut Stage,
        fleet: &mut Fleet,
        before: &Before,
    ) -> Result<(), StageError> {
        let sessions = stage.sessions;
        stage.begin("cutting", Some(sessions));
        let speakers = stage.town.meshes.len().min(sessions);
        for peer in speakers..sessions {
            fleet.cut(peer);
        }
        stage.end();
        stage.settle(fleet)?;
        let quiet = stage.memory()?;
        stage.begin("broadcasts", Some(SAID));
        for said in 0..SAID {
            fleet.send(said % speakers, To::All, 200);
            fleet.turn(Instant::now() + Duration::from_micros(500))?;
            stage.update(said + 1);
        }
        fleet.until("broadcasts to be acknowledged", Fleet::outstanding)?;
        stage.end();
        stage.settle(fleet)?;
        let loud = stage.memory()?;
        let in_grace = sessions - speakers;
        for (name, memory) in [("in grace", quiet), ("in grace, after broadcasts", loud)] {
            let Some(user) = before.grown(memory, in_grace) else {
                continue;
            };
            let figure = Figure::new(format!("memory per session {name}"), user, Unit::Bytes);
            stage.figure(figure.target(Target::AtMost(500.0)));
            let point = vec![(in_grace as f64, user)];
            stage.series(Family::Memory.series(name, point));
        }
        Ok(())
    }
}

fn grown(before: Option<u64>, after: Option<u64>) -> Option<f64> {
    Some(after? as f64 - before? as f64)
}

/// What the broker's end of a connection costs the kernel, if it tells.
fn grown_kernel(before: &Slabs, connections: usize) -> Option<f64> {
    let now = Slabs::now().ok()?;
    now.since(before).per_connection(connections as u64)
}

fn secs(span: Duration) -> usize {
    usize::try_from(span.as_secs()).unwrap_or(usize::MAX)
}
