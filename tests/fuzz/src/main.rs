//! `holdfast-fuzz`: searches without coverage, replays inputs, lists targets.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use holdfast_fuzz::{TARGETS, Target, corpus, engine, targets};

/// Inputs tried between two looks at the clock.
const BATCH: u64 = 50;

/// How often progress is told.
const TELL: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(about = "Fuzz targets of Holdfast", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names the targets
    List,
    /// Tries inputs made from a seed, until the time is over or one fails
    Search {
        /// Of all targets together
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// Decimal or 0x hexadecimal; a new one each time if not given
        #[arg(long, value_parser = parse_seed)]
        seed: Option<u64>,
        /// The first input to try
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// All targets if none is named
        target: Vec<String>,
    },
    /// Tries inputs of files; the target's corpus if none is named
    Replay {
        /// Which
        target: String,
        /// Files
        file: Vec<PathBuf>,
    },
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a seed is a number, such as 7 or 0xc0ffee".to_owned())
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::List => {
            for target in TARGETS {
                println!("{}", target.name);
            }
            Ok(())
        }
        Command::Search {
            minutes,
            seed,
            from,
            target,
        } => named(&target).and_then(|targets| search(&targets, minutes, seed, from)),
        Command::Replay { target, file } => replay(&target, &file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("holdfast-fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    targets::find(name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("no target {name:?}; there are {}", names.join(", "))
    })
}

fn named(names: &[String]) -> Result<Vec<&'static Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    names.iter().map(|name| find(name)).collect()
}

#[expect(clippy::disallowed_methods, reason = "a search for so many minutes")]
fn clock() -> Instant {
    Instant::now()
}

fn search(
    targets: &[&'static Target],
    minutes: f64,
    seed: Option<u64>,
    from: u64,
) -> Result<(), String> {
    let span = Duration::try_from_secs_f64(minutes * 60.0)
        .map_err(|_| format!("{minutes} minutes are no time to search"))?;
    let seed = seed.unwrap_or_else(|| fastrand::Rng::new().u64(..));
    let mut corpora = Vec::new();
    for target in targets {
        corpora.push(engine::replay(target)?);
        println!(
            "{}: {} inputs of the corpus pass",
            target.name,
            corpora[corpora.len() - 1].len()
        );
    }
    println!("seed {seed:#x}");
    let begin = clock();
    let mut told = begin;
    let mut next = from;
    while begin.elapsed() < span {
        for (target, corpus) in targets.iter().zip(&corpora) {
            engine::search(target, corpus, seed, next..next + BATCH)?;
        }
        next += BATCH;
        if told.elapsed() >= TELL {
            told = clock();
            let seconds = begin.elapsed().as_secs();
            println!("{seconds} s: {} inputs of each target", next - from);
        }
    }
    println!("passed: {} inputs of each target, from {from}", next - from);
    Ok(())
}

fn replay(name: &str, files: &[PathBuf]) -> Result<(), String> {
    let target = find(name)?;
    if files.is_empty() {
        let count = engine::replay(target)?.len();
        println!(
            "{count} inputs of {} pass",
            corpus::directory(name).display()
        );
        return Ok(());
    }
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        engine::attempt(target, &bytes)
            .map_err(|why| format!("{} fails:\n{why}", file.display()))?;
        println!("{} passes", file.display());
    }
    Ok(())
}
