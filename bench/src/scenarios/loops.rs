//! Several loops against one.

use std::time::Instant;

use clap::Args;

use super::dm::{Closed, closed};
use crate::cli::Common;
use crate::fleet::Tally;
use crate::report::{Figure, Target, Unit};
use crate::stage::{Cpu, Stage, StageError, Wanted, by_hand};

/// Several loops against one: direct messages per second, meshes spread over the loops
///
/// The closed loop of `dm` against a broker with one loop, and against one with --threads of them.
/// Client and store want CPU, too: how busy each was says whether the machine had any left for
/// another loop. What does not depend on that is the CPU per message, which several loops must not
/// raise.
#[derive(Debug, Args)]
pub struct Loops {
    #[command(flatten)]
    common: Common,

    /// Pairs with a message on its way
    #[arg(long, value_name = "N", default_value_t = 200)]
    pairs: usize,

    /// Messages
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    messages: usize,
}

/// What one broker reached.
struct Found {
    loops: usize,
    closed: Closed,
    /// Cores that its loops, all its threads, and the client kept busy.
    busy: (f64, f64, f64),
}

impl Loops {
    /// Runs it; whether nothing happened that must not.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self) -> Result<bool, StageError> {
        if self.common.url.is_some() {
            return Err(StageError::Unfit(
                "this scenario starts brokers of its own: it cannot use --url".into(),
            ));
        }
        let (stage, one, tally) = self.with(1)?;
        drop(stage);
        let (mut stage, many, more) = self.with(self.common.threads.max(2))?;
        tell(&mut stage, &one, None);
        tell(&mut stage, &many, Some(&one));
        stage.checks(&tally);
        stage.checks(&more);
        stage.finish()
    }

    fn with(&self, threads: usize) -> Result<(Stage, Found, Tally), StageError> {
        let wanted = Wanted {
            scenario: "loops",
            sessions: 1000,
            meshes: 20,
            members: 1,
            flags: Vec::new(),
            options: vec![
                ("pairs", self.pairs.to_string()),
                ("messages", self.messages.to_string()),
            ],
            live: true,
        };
        let common = Common {
            threads,
            ..self.common.clone()
        };
        let mut stage = Stage::set(&common, &wanted)?;
        let mut fleet = stage.everybody(by_hand())?;
        closed(&mut stage, &mut fleet, (self.pairs, self.messages / 10))?;
        let (began, cpu) = (Instant::now(), stage.cpu()?);
        let client = Cpu::of(std::process::id())?;
        let closed = closed(&mut stage, &mut fleet, (self.pairs, self.messages))?;
        let nanos = began.elapsed().as_nanos() as f64;
        let broker = stage.cpu()?.since(cpu);
        let client = Cpu::of(std::process::id())?.since(client);
        fleet.close_book();
        let found = Found {
            loops: threads,
            closed,
            busy: (broker.loops / nanos, broker.all / nanos, client.all / nanos),
        };
        Ok((stage, found, fleet.tally))
    }
}

fn tell(stage: &mut Stage, found: &Found, one: Option<&Found>) {
    let Found {
        loops,
        closed,
        busy: (busy, all, client),
    } = found;
    let name = |what: &str| match loops {
        1 => format!("{what}, 1 loop"),
        _ => format!("{what}, {loops} loops"),
    };
    let mut rate = Figure::new(name("messages per second"), closed.rate, Unit::PerSecond);
    let mut cpu = Figure::new(
        name("CPU of the loops per message"),
        closed.cpu.loops,
        Unit::Nanos,
    );
    if let Some(one) = one {
        rate = rate.floor(one.closed.rate);
        rate = rate.target(Target::OfFloorAtLeast(1.7));
        cpu = cpu.floor(one.closed.cpu.loops);
    }
    stage.figure(rate);
    stage.figure(cpu);
    let mut cores = |what: &str, cores: f64| {
        stage.figure(Figure::new(name(what), cores, Unit::Count));
    };
    cores("cores busy with the loops", *busy);
    cores("cores busy with the broker", *all);
    cores("cores busy with the client", *client);
}
