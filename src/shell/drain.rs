//! The end of a loop: stop accepting, let the store answer, close sockets 1001 in a spread, end.
//!
//! ```text
//!  Flushing --store has answered, or DRAIN_FLUSH--> Closing --no socket left--> drained
//! ```
//! Clients have no jitter of their own, so the spread is what keeps them from coming back at once.

use std::collections::VecDeque;

use super::connection::Phase;
use super::limits::{DRAIN_AT_ONCE, DRAIN_FLUSH, DRAIN_SPREAD, DRAIN_STEP, LINGER};
use super::reactor::{Reactor, Timer};
use crate::core::effect::Close;
use crate::core::ids::ConnId;
use crate::core::input::Input;
use crate::core::time::Mono;

/// How far a shutdown has come.
pub(super) struct Drain {
    stage: Stage,
    /// Sockets not yet closed.
    queue: VecDeque<ConnId>,
    /// Sockets per step.
    share: usize,
    announced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for the store until then.
    Flushing { until: Mono },
    /// Closes sockets; whatever is left then is cut off.
    Closing { until: Mono },
}

impl Reactor {
    /// The process is to end.
    pub(super) fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let until = self.clock.mono().after(DRAIN_FLUSH);
        let stage = Stage::Flushing { until };
        self.drain = Some(Drain {
            stage,
            queue: VecDeque::new(),
            share: 0,
            announced: false,
        });
        self.drain_step();
    }

    /// Goes on with the shutdown.
    pub(super) fn drain_step(&mut self) {
        let now = self.clock.mono();
        match self.drain.as_ref().map(|drain| drain.stage) {
            None => return,
            Some(Stage::Flushing { until }) if self.in_flight > 0 && now < until => {}
            Some(Stage::Flushing { .. }) => self.begin_closing(now),
            Some(Stage::Closing { until }) => self.close_some(now >= until),
        }
        self.timers.insert(now.after(DRAIN_STEP), Timer::Drain);
    }

    fn begin_closing(&mut self, now: Mono) {
        let ids = self.conns.ids();
        let until = now.after(DRAIN_SPREAD).after(LINGER);
        if let Some(drain) = &mut self.drain {
            drain.stage = Stage::Closing { until };
            let steps = usize::try_from(DRAIN_SPREAD.0 / DRAIN_STEP.0).unwrap_or(1);
            drain.share = ids.len().div_ceil(steps).max(DRAIN_AT_ONCE);
        }
        // The core closes every socket it knows; those closes are spread below.
        self.drive(Input::Shutdown);
        // What it does not know, or did not close, ends the same way.
        for conn in ids {
            match self.conns.get_mut(conn).map(|found| &found.phase) {
                Some(Phase::Http) => self.finish(conn),
                Some(Phase::Open(_)) => {
                    self.spread(conn);
                }
                Some(Phase::Departing(_) | Phase::Closing | Phase::Dead) | None => {}
            }
        }
        self.close_some(false);
    }

    /// Puts off a close until its turn in the spread, though the core is told now; false if no
    /// shutdown is under way.
    pub(super) fn spread(&mut self, conn: ConnId) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        drain.queue.push_back(conn);
        self.hold(conn);
        true
    }

    fn close_some(&mut self, all: bool) {
        let share = self.drain.as_ref().map_or(0, |drain| drain.share);
        for _ in 0..share {
            let next = self
                .drain
                .as_mut()
                .and_then(|drain| drain.queue.pop_front());
            let Some(conn) = next else { break };
            self.release(conn, Close::SHUTTING_DOWN);
        }
        if all {
            for conn in self.conns.ids() {
                self.abort(conn);
            }
        }
    }

    /// Whether the shutdown has just come to its end: true once.
    pub(super) fn drained(&mut self) -> bool {
        let empty = self.conns.len() == 0;
        match &mut self.drain {
            Some(drain) if empty && !drain.announced => {
                let closing = matches!(drain.stage, Stage::Closing { .. });
                drain.announced = closing;
                closing
            }
            Some(_) | None => false,
        }
    }
}
