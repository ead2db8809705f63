//! The command line: one file per command.
//!
//! Owns what is typed and what is printed. Must not: decide anything about sessions or write to
//! the database itself; changes go through `crate::admin`, the broker through `crate::shell`.

mod audit;
mod client_config;
#[cfg(feature = "client")]
mod demo;
mod doctor;
mod invite;
mod member;
mod mesh;
mod output;
mod peers;
mod serve;
mod stopwatch;
#[cfg(test)]
mod tests;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin::client::AskError;
use crate::config::{ConfigError, DEFAULT_DB};
use crate::shell::StartError;

/// Holdfast: a continuous-presence broker
///
/// Clients connect over WebSocket and are present in a mesh. Presence is a lease, not a socket:
/// whoever loses the connection and returns within the grace time was never away, nobody is told,
/// and everything meant for it in between is delivered in order.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_long_help = format!("{TRY_IT}{EXAMPLES}")
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[cfg(feature = "client")]
const TRY_IT: &str = "\
Try it:
  holdfast demo

";
#[cfg(not(feature = "client"))]
const TRY_IT: &str = "";

const EXAMPLES: &str = "\
First steps with a database of your own (serve in one terminal, the rest in another):
  holdfast serve
  holdfast mesh create team
  holdfast member add team --name alice
  holdfast peers team

Exit codes: 0 done, 1 not done and why on standard error, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Mesh(mesh::Mesh),
    Member(member::Member),
    Invite(invite::Invite),
    ClientConfig(client_config::ClientConfig),
    Peers(peers::Peers),
    Audit(audit::Audit),
    Doctor(doctor::Doctor),
    #[cfg(feature = "client")]
    Demo(demo::Demo),
}

/// The database option of every command but `serve`.
#[derive(Debug, Args)]
struct Db {
    /// Database of the broker, running or not [default: holdfast.db]
    ///
    /// If a broker runs on it, the command talks to that broker over FILE.sock and takes effect
    /// at once; otherwise it works on the file itself.
    #[arg(
        long = "db",
        env = "HOLDFAST_DB",
        value_name = "FILE",
        default_value = DEFAULT_DB,
        hide_default_value = true
    )]
    path: PathBuf,
}

/// The output option of every command that prints data.
#[derive(Debug, Args)]
struct Json {
    /// Print JSON for scripts instead of text for people
    #[arg(long)]
    json: bool,
}

/// Why a command ended without having done its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was asked for makes no sense: exit 2.
    #[error("{0}")]
    Usage(String),
    /// It could not be done: exit 1.
    #[error("{0}")]
    Failed(String),
    /// Already explained on standard output: exit 1.
    #[error("not everything is well; see above")]
    Shown,
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Parses, runs, and says how it went.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error, &args),
    };
    let mut out = io::stdout().lock();
    match cli.command.run(&mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Shown) => ExitCode::FAILURE,
        Err(Failure::Usage(why)) => {
            usage::complain(&why);
            ExitCode::from(usage::EXIT_USAGE)
        }
        Err(failure @ (Failure::Failed(_) | Failure::Output(_))) => {
            usage::complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Serve(command) => command.run(out),
            Self::Mesh(command) => command.run(out),
            Self::Member(command) => command.run(out),
            Self::Invite(command) => command.run(out),
            Self::ClientConfig(command) => command.run(out),
            Self::Peers(command) => command.run(out),
            Self::Audit(command) => command.run(out),
            Self::Doctor(command) => command.run(out),
            #[cfg(feature = "client")]
            Self::Demo(command) => command.run(out),
        }
    }
}

impl Db {
    /// How to name this database in a command to copy; empty for the default one.
    fn flag(&self) -> String {
        if self.path.as_os_str() == DEFAULT_DB {
            String::new()
        } else {
            format!(" --db {}", self.path.display())
        }
    }
}

impl Failure {
    /// The broker answered something that does not fit the question.
    fn strange_reply() -> Self {
        Self::Failed(
            "the broker gave an unexpected reply; is it of another version than this command?"
                .to_owned(),
        )
    }
}
