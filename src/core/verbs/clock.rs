//! The simulation clock of a mesh: `set_clock`, `pause_clock`, `resume_clock`, `get_clock`
//! (protocol.md §15). In memory only; ticks are told to those online, and not told again.

use serde::Serialize;

use crate::clock::Clock;
use crate::marks::{Mark, mark};
use crate::peer::{MeshIx, PeerConn};
use crate::shard::{Shard, Timer, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::frames::number;

/// The slowest and the fastest a clock may run.
const SPEEDS: (f64, f64) = (1.0, 100.0);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClockStatus {
    #[serde(serialize_with = "number")]
    speed: f64,
    paused: bool,
    tick: u64,
    sim_time: Wall,
    started_at: Wall,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tick {
    tick: u64,
    sim_time: Wall,
    #[serde(serialize_with = "number")]
    speed: f64,
}

impl Shard {
    /// Makes the clock of a mesh, which runs, or changes its speed; a clock that is paused stays
    /// so. Whatever is no speed counts as 1, as existing clients know it.
    pub(crate) fn set_clock(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let asked = request.fields.opt_number("speed").ok().flatten();
        let (slowest, fastest) = SPEEDS;
        let speed = asked.unwrap_or(slowest).clamp(slowest, fastest);
        let Some(mesh) = self.peers.get_slot(request.slot).map(|peer| peer.mesh) else {
            return;
        };
        let made = self.clock_mut(mesh).is_none();
        if let Some(found) = self.mesh_mut(mesh) {
            let clock = || Box::new(Clock::new(t.now.wall));
            found.clock.get_or_insert_with(clock).speed = speed;
        }
        let runs = self
            .clock_mut(mesh)
            .is_some_and(|clock| clock.running.is_some());
        if made || runs {
            self.run_clock(t, mesh);
        }
        self.answer_clock(t, request);
    }

    /// Nothing happens if it is paused already.
    pub(crate) fn pause_clock(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        if let Some(mesh) = self.mesh_with_clock(t, request) {
            self.stop_clock(mesh);
            self.answer_clock(t, request);
        }
    }

    /// A whole interval begins, unless it runs already.
    pub(crate) fn resume_clock(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(mesh) = self.mesh_with_clock(t, request) else {
            return;
        };
        if self
            .clock_mut(mesh)
            .is_some_and(|clock| clock.running.is_none())
        {
            self.run_clock(t, mesh);
        }
        self.answer_clock(t, request);
    }

    /// What a mesh without a clock shows is paused, and now.
    pub(crate) fn answer_clock(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let clock = mesh.and_then(|mesh| self.mesh(mesh)?.clock.as_ref());
        let status = clock.map_or(
            ClockStatus {
                speed: 0.0,
                paused: true,
                tick: 0,
                sim_time: t.now.wall,
                started_at: t.now.wall,
            },
            |clock| ClockStatus {
                speed: clock.speed,
                paused: clock.running.is_none(),
                tick: clock.tick,
                sim_time: clock.sim_time(),
                started_at: clock.started_at,
            },
        );
        self.answer(t, request, "clock_status", status);
    }

    /// The mesh of whoever asks, if it has a clock; else it is told.
    fn mesh_with_clock(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Option<MeshIx> {
        let mesh = self.peers.get_slot(request.slot)?.mesh;
        if self.clock_mut(mesh).is_none() {
            self.error(t, request, "no_clock", "No clock running for this mesh");
            return None;
        }
        Some(mesh)
    }

    fn clock_mut(&mut self, mesh: MeshIx) -> Option<&mut Clock> {
        self.mesh_mut(mesh)?.clock.as_deref_mut()
    }

    /// An interval begins now.
    fn run_clock(&mut self, t: &Turn<'_>, mesh: MeshIx) {
        self.stop_clock(mesh);
        let since = t.now.mono;
        let Some(due) = self.clock_mut(mesh).map(|clock| clock.first_due(since)) else {
            return;
        };
        let timer = self.wheel.insert(due, Timer::Clock(mesh));
        if let Some(clock) = self.clock_mut(mesh) {
            clock.run(since, timer);
        }
    }

    fn stop_clock(&mut self, mesh: MeshIx) {
        let running = self.clock_mut(mesh).and_then(|clock| clock.running.take());
        if let Some(running) = running {
            self.wheel.cancel(running.timer);
        }
    }

    /// The last lease of a mesh ended: its clock stands until somebody resumes it.
    pub(crate) fn pause_if_empty(&mut self, mesh: MeshIx) {
        let found = self.mesh(mesh);
        if found.is_some_and(|found| found.clock.is_some() && found.roster.is_empty()) {
            mark(Mark::ClockPausedAlone);
            self.stop_clock(mesh);
        }
    }

    /// A tick is due. Of several that are, after a stall, all are counted and the last is told.
    pub(crate) fn clock_due(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        let Some(clock) = self.clock_mut(mesh) else {
            return;
        };
        let ticked = clock.advance(t.now.mono);
        let Some(due) = clock.next_due() else { return };
        let timer = self.wheel.insert(due, Timer::Clock(mesh));
        if let Some(running) = self.clock_mut(mesh).and_then(|c| c.running.as_mut()) {
            running.timer = timer;
        }
        if ticked {
            self.tell_tick(t, mesh);
        }
    }

    fn tell_tick(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        let message_id = self.mint.uuid_v4();
        let Some(clock) = self.clock_mut(mesh) else {
            return;
        };
        let tick = Tick {
            tick: clock.tick,
            sim_time: clock.sim_time(),
            speed: clock.speed,
        };
        let frame = self.system_push(t.now.wall, &message_id, (mesh, "tick"), tick);
        mark(Mark::Ticked);
        let peers = self.present_in(mesh);
        let peers = peers.filter_map(|slot| self.peers.get_slot(slot));
        for conn in peers.filter_map(PeerConn::conn) {
            t.send(conn, frame.clone());
        }
    }
}
