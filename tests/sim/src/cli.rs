//! The command line, progress and report.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;

use crate::plan::Plan;
use crate::report::Failure;
use crate::run::run;
use crate::{pool, seeds, shrink};

/// Seeds from which on every mark must have been reached.
const MARKS_SEEDS: u64 = 20_000;

/// Runs Holdfast's core in a simulated world, one run per seed.
#[derive(Debug, Parser)]
#[command(name = "scripts/sim", max_term_width = 100)]
struct Args {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first of them: a number, or 0x and its hex digits
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = seeds::parse)]
    start: u64,
    /// Derives the first seed from a text, such as a commit id
    #[arg(long, value_name = "TEXT", conflicts_with = "start")]
    fresh_from: Option<String>,
    /// Runs for so long instead of a number of seeds
    #[arg(long, value_name = "M", conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// Runs only this seed
    #[arg(long, alias = "replay", value_name = "SEED", value_parser = seeds::parse, conflicts_with_all = ["seeds", "start", "minutes", "fresh_from"])]
    seed: Option<u64>,
    /// Prints everything that happens in the run of --seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Runs only these operations of the plan of --seed: 3,17,18
    #[arg(long, value_name = "LIST", requires = "seed", value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Runs each seed twice and compares the hashes of what happened
    #[arg(long)]
    twice: bool,
    /// Threads [default: one per core]
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Prints the summary as one line of JSON
    #[arg(long)]
    json: bool,
    /// Seconds that leaving out operations of a failed run may take
    #[arg(long, value_name = "S", default_value_t = 20)]
    shrink: u64,
}

/// Runs the command line: 0 if nothing was violated, 1 if something was, 2 if it makes no sense.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = error.exit_code();
            // Printing help fails only if nobody reads it.
            error.print().ok();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    crate::run::catch_panics();
    match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    }
}

/// One seed, told in full.
fn one(args: &Args, seed: u64) -> ExitCode {
    let mut plan = Plan::draw(seed);
    if let Some(only) = &args.only {
        if let Some(unknown) = only.iter().find(|n| **n >= plan.operations.len()) {
            eprintln!(
                "seed {seed} has no operation {unknown}, only 0 to {}",
                plan.operations.len()
            );
            return ExitCode::from(2);
        }
        plan.operations
            .retain(|operation| only.contains(&operation.number));
    }
    let plan = Rc::new(plan);
    let outcome = run(&plan, args.trace);
    for line in outcome.lines.iter().flatten() {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} steps, {} ms, hash {:016x}",
        outcome.stats.steps, outcome.stats.virtual_ms, outcome.hash
    );
    println!("{}", plan.swarm);
    if args.twice && run(&plan, false).hash != outcome.hash {
        println!("determinism: the second run of seed {seed} differs");
        return ExitCode::FAILURE;
    }
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(args: &Args) -> ExitCode {
    let start = args
        .fresh_from
        .as_deref()
        .map_or(args.start, seeds::of_text);
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let budget = pool::Budget {
        start,
        seeds: args.minutes.map_or(args.seeds, |_| u64::MAX),
        time: args
            .minutes
            .map(|minutes| Duration::from_secs(minutes * 60)),
        jobs: jobs.max(1),
        twice: args.twice,
        quiet: args.json,
    };
    let report = pool::run_all(&budget);
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    if let Some(failure) = &report.failure {
        explain(failure, Duration::from_secs(args.shrink));
        return ExitCode::FAILURE;
    }
    let missing = report.missing_marks();
    if report.runs >= MARKS_SEEDS && !missing.is_empty() {
        println!(
            "after {} seeds these points of the core were not reached: {missing:?}",
            report.runs
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints the seed, the step, the invariant, the fewest operations found, and how to see it again.
fn explain(failure: &Failure, budget: Duration) {
    let Failure {
        seed,
        step,
        violation,
        time,
    } = failure;
    println!("\nseed {seed} at step {step}, {time} ms: {violation}");
    println!("  scripts/sim --replay {seed} --trace");
    if violation.invariant == "determinism" {
        return;
    }
    let plan = shrink::shrink(&Plan::draw(*seed), violation.invariant, budget);
    let numbers: Vec<String> = plan
        .operations
        .iter()
        .map(|op| op.number.to_string())
        .collect();
    let only = if numbers.is_empty() {
        "no operation".to_owned()
    } else {
        numbers.join(",")
    };
    println!(
        "shrunk to {} of {} operations: {only}",
        numbers.len(),
        Plan::draw(*seed).operations.len()
    );
    for operation in &plan.operations {
        println!("  {:>8} ms {:?}", operation.at, operation.what);
    }
    let plan = Rc::new(plan);
    let outcome = run(&plan, true);
    println!("{}", plan.swarm);
    println!("the last of what happened:");
    let lines = outcome.lines.unwrap_or_default();
    for line in &lines[lines.len().saturating_sub(60)..] {
        println!("  {}", line.chars().take(260).collect::<String>());
    }
    if let Some(violation) = outcome.violation {
        println!("{violation}");
    }
    if !numbers.is_empty() {
        println!("  scripts/sim --replay {seed} --only {only} --trace");
    }
}
