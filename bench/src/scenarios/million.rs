//! As many present sessions as there can be, in waves of as many sockets as there may be.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Pick, each};
use crate::cli::Common;
use crate::fleet::{Fleet, Target as To};
use crate::machine::kernel::Slabs;
use crate::machine::limits::Limits;
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Stage, StageError, Wanted, by_hand};

/// Sessions that stay online all the time and are told of whoever comes or goes, one per mesh of
/// the first so many.
const WATCHERS: usize = 100;

/// Sockets at a time, if the limit of open files lets us.
const WAVE: usize = 15_000;

/// Messages sent during each wave to those who come back in it.
const MESSAGES: usize = 200;

/// A million present sessions in one process
///
/// Each wave connects, its sockets are cut, and the next comes, until all are present; then each
/// returns, wave by wave, under observation, with messages and broadcasts meanwhile: nobody may be
/// told that anybody came or went, and nothing acknowledged may be lost. Then the broker is killed,
/// and all return once more.
#[derive(Debug, Args)]
pub struct Million {
    #[command(flatten)]
    common: Common,

    /// Sockets at a time [default: as many as the limit of open files allows, at most 15 000]
    #[arg(long, value_name = "N")]
    wave: Option<usize>,
}

impl Million {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "million",
            sessions: 1_000_000,
            meshes: 10_000,
            members: 1,
            flags: [
                "--grace=6h",
                "--max-grace=6h",
                "--restart-grace=6h",
                "--mesh-log-age=6h",
            ]
            .map(str::to_owned)
            .to_vec(),
            options: Vec::new(),
            live: false,
        };
        let limits = Limits::find()?;
        let room = limits.room(1 << 14);
        for line in &room.lines {
            eprintln!("{line}");
        }
        let mut stage = Stage::set(&self.common, &wanted)?;
        stage.own()?;
        let fits = usize::try_from(room.connections).unwrap_or(WAVE);
        let wave = self
            .wave
            .unwrap_or(WAVE)
            .min(fits.saturating_sub(WATCHERS + 200))
            .max(1);
        let watchers = WATCHERS
            .min(stage.town.meshes.len())
            .min(stage.sessions / 10)
            .max(1);
        eprintln!(
            "{} sessions in {} meshes: waves of {wave}, {watchers} watchers stay",
            stage.sessions,
            stage.town.meshes.len()
        );
        stage.warm_up()?;
        let mut watch = stage.people(by_hand(), 0..watchers)?;
        stage.attach(&mut watch, "watchers", 0..watchers)?;
        let mut run = Run {
            stage,
            watch,
            wave,
            watchers,
        };
        let empty = run.stage.memory()?.unwrap_or(0);
        run.gather(empty)?;
        run.watch.settled = true;
        run.come_back("reattach", true)?;
        run.kill()?;
        run.come_back("reattach after kill -9", false)?;
        let Run {
            mut stage,
            mut watch,
            ..
        } = run;
        watch.close_book();
        stage.checks(&watch.tally);
        stage.finish()
    }
}

struct Run {
    stage: Stage,
    watch: Fleet,
    wave: usize,
    watchers: usize,
}

impl Run {
    fn waves(&self) -> Vec<std::ops::Range<usize>> {
        let mut waves = Vec::new();
        let mut next = self.watchers;
        while next < self.stage.sessions {
            let end = self.stage.sessions.min(next + self.wave);
            waves.push(next..end);
            next = end;
        }
        waves
    }

    /// Makes all present.
    fn gather(&mut self, empty: u64) -> Result<(), StageError> {
        let (mut hello, mut memory) = (Vec::new(), Vec::new());
        let mut idle = Vec::new();
        for wave in self.waves() {
            let mut fleet = self.stage.people(by_hand(), wave.clone())?;
            let kernel = Slabs::now().ok();
            let cpu = self.stage.cpu()?;
            let name = format!("present: {} of {}", wave.start, self.stage.sessions);
            self.stage.attach(&mut fleet, &name, 0..wave.len())?;
            self.stage.settle(&mut fleet)?;
            let used = self.stage.cpu()?.since(cpu).all;
            hello.push((wave.end as f64, each(used, wave.len())));
            if let Some(growth) = kernel.and_then(|before| Some(Slabs::now().ok()?.since(&before)))
                && wave.start == self.watchers
                && let Some(bytes) = growth.per_connection(wave.len() as u64)
            {
                let figure = Figure::new("kernel memory per session online", bytes, Unit::Bytes);
                self.stage.figure(figure);
            }
            self.stage.checks(&fleet.tally);
            fleet.swarm.clear();
            self.stage.settle(&mut self.watch)?;
            let now = self.stage.memory()?.unwrap_or(0);
            memory.push((wave.end as f64, each(now as f64 - empty as f64, wave.end)));
            let cpu = self.stage.cpu()?;
            self.watch.run(Duration::from_secs(2))?;
            let used = self.stage.cpu()?.since(cpu).all;
            idle.push((wave.end as f64, used / 2.0));
        }
        if let Some((_, bytes)) = memory.last() {
            let figure = Figure::new("memory per session in grace", *bytes, Unit::Bytes);
            self.stage.figure(figure.target(Target::AtMost(500.0)));
        }
        self.curve("hello", hello);
        self.stage.series(Family::Memory.series("in grace", memory));
        if let Some((_, nanos)) = idle.last() {
            let figure = Figure::new(
                "CPU of the whole broker per idle second",
                *nanos,
                Unit::Nanos,
            );
            self.stage.figure(figure);
        }
        self.stage
            .series(Family::Cost.series("one idle second of the broker", idle));
        let size = std::fs::metadata(self.stage.own()?.db())?.len() as f64;
        self.stage
            .figure(Figure::new("database", size, Unit::Bytes));
        let each_row = size / self.stage.sessions as f64;
        self.stage
            .figure(Figure::new("database per session", each_row, Unit::Bytes));
        Ok(())
    }

    /// All return, wave by wave; some are sent messages while they are away.
    fn come_back(&mut self, what: &str, first: bool) -> Result<(), StageError> {
        let mut curve = Vec::new();
        let mut pick = Pick::new(self.stage.common.seed);
        let began = Instant::now();
        let mut back = 0;
        for wave in self.waves() {
            let mut fleet = self.stage.people(by_hand(), wave.clone())?;
            fleet.resume_earlier();
            // Later waves joined while this one was away.
            fleet.joins_expected = first;
            let sent = self.send(&fleet, wave.start, &mut pick)?;
            let cpu = self.stage.cpu()?;
            let name = format!("{what}: {} of {}", wave.start, self.stage.sessions);
            self.stage.attach(&mut fleet, &name, 0..wave.len())?;
            self.stage.settle(&mut fleet)?;
            let used = self.stage.cpu()?.since(cpu).all;
            curve.push((wave.end as f64, each(used, wave.len())));
            self.receive(&mut fleet, &sent)?;
            back += wave.len();
            self.stage.checks(&fleet.tally);
            fleet.swarm.clear();
            self.watch.run(Duration::from_millis(200))?;
        }
        let seconds = began.elapsed().as_nanos() as f64;
        self.stage.figure(Figure::new(
            format!("{what}: all {back}"),
            seconds,
            Unit::Nanos,
        ));
        self.curve(what, curve);
        Ok(())
    }

    /// Messages from watchers to some of those who are away; gives which.
    fn send(
        &mut self,
        fleet: &Fleet,
        start: usize,
        pick: &mut Pick,
    ) -> Result<Vec<u64>, StageError> {
        let mut sent = Vec::new();
        let (meshes, count) = (self.stage.town.meshes.len(), fleet.swarm.count());
        for _ in 0..MESSAGES {
            // Of those whose mesh has a watcher to send from.
            let watcher = pick.below(self.watchers);
            let turns = count / meshes;
            let number = start - start % meshes + watcher + meshes * pick.below(turns.max(1));
            let peer = if number < start {
                number + meshes
            } else {
                number
            } - start;
            let Some(key) = fleet.swarm.session(peer).map(|s| s.identity().key()) else {
                continue;
            };
            sent.push(self.watch.send(watcher, To::Key(key), 200));
            self.watch
                .turn(Instant::now() + Duration::from_micros(200))?;
        }
        for watcher in 0..self.watchers.min(10) {
            self.watch.send(watcher, To::All, 200);
        }
        self.watch
            .until("acknowledgements", Fleet::unacknowledged)?;
        Ok(sent)
    }

    /// What was sent to those of this wave has arrived.
    fn receive(&mut self, fleet: &mut Fleet, sent: &[u64]) -> Result<(), StageError> {
        fleet.run(Duration::from_millis(100))?;
        for number in sent {
            self.watch.settle(*number, fleet.has_received(*number));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), StageError> {
        self.stage.settle(&mut self.watch)?;
        self.stage.own()?.kill()?;
        self.watch.broker_killed();
        self.watch.run(Duration::from_millis(200))?;
        let took = self.stage.own()?.start_again()?;
        let nanos = took.as_nanos() as f64;
        self.stage
            .figure(Figure::new("start after kill -9", nanos, Unit::Nanos));
        if let Some(memory) = self.stage.memory()? {
            let bytes = each(memory as f64, self.stage.sessions);
            self.stage.figure(Figure::new(
                "memory per session after a start",
                bytes,
                Unit::Bytes,
            ));
        }
        let watchers = self.watchers;
        self.stage
            .attach(&mut self.watch, "watchers again", 0..watchers)
    }

    fn curve(&mut self, name: &str, curve: Vec<(f64, f64)>) {
        if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
            let figure = Figure::new(format!("CPU per {name}, at the end"), last.1, Unit::Nanos);
            let figure = figure.floor(first.1).target(Target::OfFloorAtMost(1.15));
            self.stage.figure(figure);
        }
        self.stage.series(Family::Cost.series(name, curve));
    }
}
