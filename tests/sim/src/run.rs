//! A run: the plan is carried out, then all faults end, and everything must settle.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::client::Client;
use crate::oracle::{Counts, Violation};
use crate::plan::Plan;
use crate::world::{Event, Stats, World};

/// Events after which a run is called endless.
const EVENTS_MAX: u64 = 3_000_000;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// The step at which it was noticed.
    pub(crate) stats: Stats,
    pub(crate) counts: Counts,
    /// Hash of everything that happened.
    pub(crate) hash: u64,
    /// Points of the core that were reached.
    pub(crate) marks: u128,
    pub(crate) lines: Option<Vec<String>>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics become violations; their text is kept instead of printed.
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with_borrow_mut(|kept| *kept = Some(text));
    }));
}

/// Carries out a plan.
pub(crate) fn run(plan: &Rc<Plan>, keep_trace: bool) -> Outcome {
    // What this thread reached before is not this run's.
    let _before = holdfast_core::marks::take();
    let mut world = World::new(plan, keep_trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match result {
        Ok(verdict) => verdict.err(),
        Err(_panic) => {
            let text = PANIC.with_borrow_mut(Option::take).unwrap_or_default();
            Some(Violation::new("panic", text))
        }
    };
    world.stats.virtual_ms = world.time;
    Outcome {
        violation,
        stats: world.stats,
        counts: world.oracle.counts,
        hash: world.trace.hash(),
        marks: holdfast_core::marks::take(),
        lines: world.trace.lines.take(),
    }
}

impl World {
    /// From the first boot to the end of the settled time.
    fn live(&mut self) -> Result<(), Violation> {
        self.queue.push(0, Event::Boot);
        for (index, persona) in self.plan.personas.clone().into_iter().enumerate() {
            self.add_client(Client::new(persona), 5 + index as u64 * 7);
        }
        let plan = Rc::clone(&self.plan);
        for (index, operation) in plan.operations.iter().enumerate() {
            self.queue.push(500 + operation.at, Event::Operation(index));
        }
        let heal = 1_000 + plan.swarm.span;
        for look in 1..40 {
            self.queue.push(heal * look / 40, Event::Look);
        }
        self.queue.push(heal, Event::Heal);
        self.until(heal)?;
        self.until(heal + self.settling_time())?;
        // What has just fallen due arrives. Not much of it is left.
        for _ in 0..100 {
            if !self.oracle.fired_lately() {
                break;
            }
            self.until(self.time + 5_000)?;
        }
        self.final_checks()
    }

    /// By when every promise must be kept once the faults have ended.
    fn settling_time(&self) -> u64 {
        let config = &self.plan.swarm.config;
        let lease = config
            .grace
            .0
            .max(config.restart_grace.0)
            .max(config.max_grace.0);
        // Half-open sockets are noticed, backoffs end, leases run out, too.
        let backoffs = if self.plan.swarm.tiny { 15_000 } else { 80_000 };
        2 * (config.pong_timeout.0 + lease) + backoffs + config.hello_timeout.0
    }

    fn until(&mut self, end: u64) -> Result<(), Violation> {
        let mut events = 0_u64;
        loop {
            let timer = self
                .broker
                .as_ref()
                .and_then(crate::broker::Broker::next_timer);
            let next = self.queue.next_at();
            let fires = timer.filter(|(at, _)| next.is_none_or(|next| *at <= next));
            let at = fires.map(|(at, _)| at).or(next);
            if at.is_none_or(|at| at > end) {
                self.time = end;
                return Ok(());
            }
            events += 1;
            if events > EVENTS_MAX {
                return Err(Violation::new("I8", "the run does not come to rest"));
            }
            if let Some((at, shard)) = fires {
                self.time = self.time.max(at);
                self.fire(shard)?;
            } else if let Some((at, event)) = self.queue.pop() {
                self.time = self.time.max(at);
                self.happen(event)?;
            }
        }
    }

    fn final_checks(&mut self) -> Result<(), Violation> {
        let Some(broker) = &self.broker else {
            return Err(Violation::new("I8", "the broker does not run at the end"));
        };
        if !self.disk.idle() {
            return Err(Violation::new("I8", "the store is still busy at the end"));
        }
        for shard in &broker.shards {
            self.oracle.at_rest(&shard.inspect())?;
        }
        self.oracle.rows_agree(&self.disk.tables)?;
        self.oracle.fired_promised(&self.disk.tables);
        self.oracle.settled()?;
        for client in self.clients.iter().filter(|client| !client.extra) {
            let who = &client.persona.who;
            let online = self.oracle.online(who) || self.oracle.kept_out(who);
            if !online {
                let text = format!("{} is not back long after the faults", who.session_id);
                return Err(Violation::new("I3", text));
            }
        }
        Ok(())
    }
}
