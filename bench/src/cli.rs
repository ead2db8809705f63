//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::floor;
use crate::report::{plot, summary};
use crate::scenarios;

/// Measure a presence broker: what a session costs, and what happens when all come back at once
///
/// Each scenario starts a broker of its own in a temporary folder, makes meshes and members,
/// loads it with sessions that speak the real protocol and sign for real, and measures the broker
/// from outside. Floors, where there are any, are measured in the same run by the same client
/// against the barest server that could do the thing.
///
/// A run that loses a message, sees a flap or a protocol error ends with exit code 1 and says
/// which; one that cannot be made ends with 2.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version, max_term_width = 100, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  holdfast-bench idle --sessions 15000
  holdfast-bench storm --sessions 15000 --json bench/results/storm.json
  holdfast-bench dm --compare bench/results/dm.json
  holdfast-bench mesh100 --url ws://127.0.0.1:8080/ws --mesh-file meshes.json
  holdfast-bench summary bench/results/*.json
  holdfast-bench plots bench/results/*.json --out bench/results";

#[derive(Debug, Subcommand)]
enum Command {
    Idle(scenarios::idle::Idle),
    Connect(scenarios::connect::Connect),
    Storm(scenarios::storm::Storm),
    Dm(scenarios::dm::Dm),
    Mesh100(scenarios::mesh100::Mesh100),
    Fanout(scenarios::fanout::Fanout),
    Loops(scenarios::loops::Loops),
    Restart(scenarios::restart::Restart),
    Slow(scenarios::slow::Slow),
    Mixed(scenarios::mixed::Mixed),
    Soak(scenarios::soak::Soak),
    Million(scenarios::million::Million),
    Plots(Plots),
    Summary(Summary),
    #[command(hide = true)]
    FloorServer(floor::Args),
}

/// What all scenarios can be told
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Sessions [default: as many as suit the scenario and the limit of open files]
    #[arg(long, value_name = "N")]
    pub sessions: Option<usize>,

    /// Meshes they are spread over
    #[arg(long, value_name = "N")]
    pub meshes: Option<usize>,

    /// Decides all keys and choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// The broker's binary [default: beside this one]
    #[arg(long, value_name = "FILE")]
    pub broker: Option<PathBuf>,

    /// Loops of the broker
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,

    /// An option for the broker, as in --with=--grace=1h; may be repeated
    #[arg(long, value_name = "FLAG")]
    pub with: Vec<String>,

    /// Where the broker's folder is made [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Measure a broker that runs already, which needs --mesh-file; its memory and CPU are
    /// measured if --pid says which process it is
    #[arg(long, value_name = "ws://HOST:PORT/PATH", requires = "mesh_file")]
    pub url: Option<String>,

    /// Meshes and members of the broker at --url
    #[arg(long, value_name = "FILE", long_help = MESH_FILE)]
    pub mesh_file: Option<PathBuf>,

    /// Process id of the broker at --url
    #[arg(long, value_name = "PID", requires = "url")]
    pub pid: Option<u32>,

    /// Leave the floors out
    #[arg(long)]
    pub no_floor: bool,

    /// Append one line of JSON to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Print ratios to the last run of this scenario in a file of such lines; refused if anything
    /// but the broker differs
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

const MESH_FILE: &str = "\
Meshes and members of the broker at --url, as JSON:
  [{\"meshId\": \"...\", \"members\": [{\"memberId\": \"...\", \"secretKey\": \"128 hex digits\"}]}]";

/// Draw plots from files of JSON lines
#[derive(Debug, Args)]
struct Plots {
    /// Files written with --json
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Where the SVG files go
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
}

/// What several runs come to: medians, least and most
///
/// Runs of the same scenario with the same options on the same machine are taken together. Each
/// figure is judged by the median of its ratios to the floors, each in its own run.
#[derive(Debug, Args)]
struct Summary {
    /// Files written with --json
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Width of a summary, which has more columns than a table of one run.
const SUMMARY_WIDTH: usize = 140;

/// A duration as people write it.
pub fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// Runs what the arguments say.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Idle(scenario) => scenario.run(),
        Command::Connect(scenario) => scenario.run(),
        Command::Storm(scenario) => scenario.run(),
        Command::Dm(scenario) => scenario.run(),
        Command::Mesh100(scenario) => scenario.run(),
        Command::Fanout(scenario) => scenario.run(),
        Command::Loops(scenario) => scenario.run(),
        Command::Restart(scenario) => scenario.run(),
        Command::Slow(scenario) => scenario.run(),
        Command::Mixed(scenario) => scenario.run(),
        Command::Soak(scenario) => scenario.run(),
        Command::Million(scenario) => scenario.run(),
        Command::Plots(Plots { files, out }) => return plotted(&files, &out),
        Command::Summary(Summary { files }) => return summed(&files),
        Command::FloorServer(args) => return floor::serve(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => trouble(&error),
    }
}

fn plotted(files: &[PathBuf], out: &std::path::Path) -> ExitCode {
    match plot::plots(files, out) {
        Ok(made) => {
            for path in made {
                println!("{}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => trouble(&error),
    }
}

fn summed(files: &[PathBuf]) -> ExitCode {
    match summary::of_files(files) {
        Ok(all) => {
            let tables: Vec<String> = all.iter().map(|one| one.table(SUMMARY_WIDTH)).collect();
            print!("{}", tables.join("\n"));
            ExitCode::SUCCESS
        }
        Err(error) => trouble(&error),
    }
}

fn trouble(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}
