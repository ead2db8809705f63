//! What the events in a session's life cost as sessions grow: hello, close, reattach, send.

use std::time::{Duration, Instant};

use clap::Args;

use super::each;
use crate::cli::Common;
use crate::fleet::{Fleet, Target as To};
use crate::report::plot::Family;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};

/// Sessions whose events are measured at each size.
const PROBES: usize = 1000;

/// Messages that each probe sends.
const MESSAGES: usize = 10;

/// Sessions with a socket at a time; the rest are in grace, and present all the same.
const WAVE: usize = 8000;

/// The cost of hello, close, reattach and send as sessions grow
///
/// Fills the broker to 1 000, 3 000, 10 000, ... present sessions, and at each size measures the
/// CPU of 1 000 hellos, closes, reattachments, and 10 000 direct messages. Sessions beyond 8 000
/// have no socket and are in grace, which takes no descriptor.
#[derive(Debug, Args)]
pub struct Connect {
    #[command(flatten)]
    common: Common,
}

/// One of the costs.
type Of = fn(&Point) -> f64;

const KINDS: [(&str, Of); 4] = [
    ("hello", |point| point.hello),
    ("send", |point| point.send),
    ("close", |point| point.close),
    ("reattach", |point| point.reattach),
];

/// What the probes' events cost at one size.
struct Point {
    present: usize,
    hello: f64,
    send: f64,
    close: f64,
    reattach: f64,
}

impl Connect {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        let wanted = Wanted {
            scenario: "connect",
            sessions: 100_000,
            meshes: 1000,
            members: 1,
            flags: vec!["--grace=1h".to_owned(), "--max-grace=1h".to_owned()],
            options: Vec::new(),
            live: false,
        };
        let mut stage = Stage::set(&self.common, &wanted)?;
        let sizes = sizes(stage.sessions);
        let mut points = Vec::new();
        let mut present = 0;
        for size in sizes {
            self.fill(&mut stage, present..size.saturating_sub(PROBES))?;
            points.push(self.probe(&mut stage, size)?);
            present = size;
        }
        tell(&mut stage, &points);
        stage.finish()
    }

    /// Makes these sessions present, and leaves them in grace.
    fn fill(&self, stage: &mut Stage, sessions: std::ops::Range<usize>) -> Result<(), StageError> {
        let mut next = sessions.start;
        while next < sessions.end {
            let end = sessions.end.min(next + WAVE);
            let mut fleet = stage.people(by_hand(), crowd(stage, next..end))?;
            stage.attach(
                &mut fleet,
                &format!("present: {next} and more"),
                0..end - next,
            )?;
            stage.settle(&mut fleet)?;
            fleet.swarm.clear();
            stage.checks(&fleet.tally);
            next = end;
        }
        Ok(())
    }

    /// The last of `size` sessions, measured; they stay in grace.
    fn probe(&self, stage: &mut Stage, size: usize) -> Result<Point, StageError> {
        let probes = PROBES.min(size);
        let mut fleet = stage.people(by_hand(), crowd(stage, size - probes..size))?;
        stage.settle(&mut fleet)?;
        let mut costs = Costs::begin(stage)?;
        stage.attach(&mut fleet, &format!("hello at {size}"), 0..probes)?;
        stage.settle(&mut fleet)?;
        let hello = costs.each(stage, probes)?;
        send(stage, &mut fleet, size - probes..size)?;
        let messages = costs.each(stage, probes * MESSAGES)?;
        for peer in 0..probes {
            fleet.cut(peer);
        }
        stage.settle(&mut fleet)?;
        let close = costs.each(stage, probes)?;
        fleet.settled = true;
        stage.attach(&mut fleet, &format!("reattach at {size}"), 0..probes)?;
        stage.settle(&mut fleet)?;
        let reattach = costs.each(stage, probes)?;
        fleet.close_book();
        stage.checks(&fleet.tally);
        fleet.swarm.clear();
        Ok(Point {
            present: size,
            hello,
            send: messages,
            close,
            reattach,
        })
    }
}

/// CPU since the last look.
struct Costs(Cpu);

impl Costs {
    fn begin(stage: &Stage) -> Result<Self, StageError> {
        Ok(Self(stage.cpu()?))
    }

    fn each(&mut self, stage: &Stage, count: usize) -> Result<f64, StageError> {
        let now = stage.cpu()?;
        let used = now.since(self.0).all;
        self.0 = now;
        Ok(each(used, count))
    }
}

/// Sessions that fill one mesh after the other, so that meshes are as large with few sessions as
/// with many: what is measured grows with the sessions, not with the audience of each.
fn crowd(stage: &Stage, who: std::ops::Range<usize>) -> impl Iterator<Item = usize> + use<> {
    let meshes = stage.town.meshes.len();
    let each = each_mesh(stage);
    // Number n is in mesh n % meshes.
    who.map(move |n| n / each % meshes + n % each * meshes)
}

/// Sessions of a mesh.
fn each_mesh(stage: &Stage) -> usize {
    stage.sessions.div_ceil(stage.town.meshes.len()).max(2)
}

/// Who comes after that one among those of its mesh that are here, in a ring.
fn next_in_mesh(n: usize, each: usize, here: &std::ops::Range<usize>) -> usize {
    let first = (n - n % each).max(here.start);
    let end = (n - n % each + each).min(here.end);
    if n + 1 < end { n + 1 } else { first }
}

/// Direct messages between those of one mesh, a few at a time.
fn send(
    stage: &mut Stage,
    fleet: &mut Fleet,
    here: std::ops::Range<usize>,
) -> Result<(), StageError> {
    let (each, probes) = (each_mesh(stage), here.len());
    stage.begin("messages", Some(probes * MESSAGES));
    for round in 0..MESSAGES {
        for from in 0..probes {
            let to = next_in_mesh(here.start + from, each, &here) - here.start;
            // Alone in its mesh.
            if to != from {
                fleet.send(from, To::One(to), 200);
            }
            fleet.turn(Instant::now() + Duration::from_micros(20))?;
            stage.update(round * probes + from + 1);
        }
    }
    stage.end();
    fleet.until("messages to arrive", Fleet::outstanding)?;
    Ok(())
}

/// 1 000, 3 000, 10 000 and so on, up to the last.
fn sizes(last: usize) -> Vec<usize> {
    let decades = (3..).map(|power| 10_usize.pow(power));
    let steps = decades.flat_map(|decade| [decade, 3 * decade]);
    let mut sizes: Vec<usize> = steps.take_while(|size| *size < last).collect();
    sizes.push(last);
    sizes
}

fn tell(stage: &mut Stage, points: &[Point]) {
    for (name, of) in KINDS {
        let curve = points.iter().map(|p| (p.present as f64, of(p))).collect();
        stage.series(Family::Cost.series(name, curve));
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            continue;
        };
        let figure = Figure::new(
            format!("CPU per {name} at {} present", last.present),
            of(last),
            Unit::Nanos,
        );
        // The floor of this one is itself, with few sessions.
        stage.figure(figure.floor(of(first)).target(Target::OfFloorAtMost(1.15)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_to_its_mesh_and_to_those_who_are_here() {
        let next = |n| next_in_mesh(n, 60, &(200..1200));
        assert_eq!((next(200), next(238), next(239)), (201, 239, 200));
        assert_eq!((next(240), next(299), next(1199)), (241, 240, 1140));
        assert_eq!(next_in_mesh(7, 2, &(7..20)), 7, "alone");
    }
}
