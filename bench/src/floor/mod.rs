//! Physical floors: the barest servers that could do what is measured, run as processes of their
//! own, so that they are seen from outside exactly as a broker is; and the barest inserts.
//!
//! ```text
//!  upgrade  accept, upgrade, pings; nothing else  floor of connecting and of idleness
//!  echo     each frame comes back                 two of them: floor of a direct message
//!  verify   one Ed25519 check, one answer         floor of a return with a signature
//!  fanout   each text goes to all others          floor of a broadcast
//!  inserts  rows appended in groups, one commit   floor of durable messages
//! ```
//! They run on the runtime of the broker's loops, one thread each. Must not: know the protocol.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod fanout;
mod frames;
pub mod insert;
mod lone;
mod serve;
mod sys;
#[cfg(test)]
mod tests;
mod upgrade;

pub use serve::serve;

/// The hidden subcommand that [`FloorServer::start`] calls.
pub const SUBCOMMAND: &str = "floor-server";

/// How long a server may take to say its port.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server does for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Answers the upgrade and pings; otherwise idle.
    Upgrade,
    /// As `upgrade`, and gives each frame back.
    Echo,
    /// As `upgrade`; the first text costs one verification and is answered by 200 bytes.
    Verify,
    /// As `upgrade`, and writes each text to all other connections.
    Fanout,
}

impl Kind {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Echo => "echo",
            Self::Verify => "verify",
            Self::Fanout => "fanout",
        }
    }
}

/// The arguments of [`SUBCOMMAND`].
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    pub kind: Kind,
    /// Where to listen; port 0 is any that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Seconds between two pings of a connection; 0 for none.
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    pub ping: u64,
}

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// This program cannot start itself.
    #[error("cannot start a floor server: {0}")]
    Start(#[from] io::Error),
    /// It ended, or said something else than its port.
    #[error("the {kind} floor server does not serve; it said {said:?}")]
    NoPort {
        /// Which.
        kind: &'static str,
        /// What came instead.
        said: String,
    },
}

/// A floor in a process of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct FloorServer {
    child: Child,
    port: u16,
}

impl FloorServer {
    /// Starts one on 127.0.0.1 that pings each connection once in `ping`, whole seconds; never if
    /// that is zero.
    pub fn start(kind: Kind, ping: Duration) -> Result<Self, FloorError> {
        Self::start_program(&std::env::current_exe()?, kind, ping)
    }

    fn start_program(program: &Path, kind: Kind, ping: Duration) -> Result<Self, FloorError> {
        let child = Command::new(program)
            .args([SUBCOMMAND, kind.name(), "--ping"])
            .arg(ping.as_secs().to_string())
            // It ends when this pipe does, whatever becomes of us.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // From here on the child is ended if something goes wrong.
        let mut server = Self { child, port: 0 };
        let said = server.first_line()?;
        server.port = said.trim().parse().map_err(|_| FloorError::NoPort {
            kind: kind.name(),
            said,
        })?;
        Ok(server)
    }

    fn first_line(&mut self) -> io::Result<String> {
        let Some(output) = self.child.stdout.take() else {
            return Ok(String::new());
        };
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        let mut line = String::new();
        if poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&patience))? > 0 {
            BufReader::new(output).read_line(&mut line)?;
        }
        Ok(line)
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, for [`crate::machine::process`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // Neither fails but if the child has ended and been waited for, which only happens here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
