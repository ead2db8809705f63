//! The broker under test: one of our own, started in a folder of its own, or one that runs already.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a start or a stop may take; a million rows are read in a few seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a broker that starts or stops is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Why there is no broker to measure.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The binary is not there.
    #[error(
        "cannot start {path}: {source}; build it (cargo build --release) or name one (--broker)"
    )]
    NoBinary {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("the broker ended at its start ({status}); its last words: {words}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        words: String,
    },
    /// It is not ready, or does not stop.
    #[error("the broker did not {what} within {} s; its last words: {words}", PATIENCE.as_secs())]
    Slow {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        words: String,
    },
    /// A folder, a port.
    #[error("cannot prepare a broker: {0}")]
    System(#[from] io::Error),
}

/// How brokers are started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary.
    pub binary: PathBuf,
    /// Beside `--listen` and `--db`.
    pub flags: Vec<String>,
    /// Where the folder for its files is made; the system's folder for temporary files if `None`.
    pub dir: Option<PathBuf>,
}

/// A broker of ours. Dropped, it is killed and its files are removed.
#[derive(Debug)]
pub struct Broker {
    launch: Launch,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or does not get ready.
    pub fn start(launch: Launch) -> Result<Self, BrokerError> {
        let dir = match &launch.dir {
            Some(dir) => TempDir::with_prefix_in("holdfast-bench-", dir)?,
            None => TempDir::with_prefix("holdfast-bench-")?,
        };
        let mut broker = Self {
            launch,
            dir,
            port: free_port()?,
            child: None,
        };
        broker.start_again()?;
        Ok(broker)
    }

    /// Starts the process; gives how long it took until it was ready.
    ///
    /// # Errors
    /// It cannot be started, or does not get ready.
    pub fn start_again(&mut self) -> Result<Duration, BrokerError> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let began = Instant::now();
        let child = Command::new(&self.launch.binary)
            .args(["serve", "--listen"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--db")
            .arg(self.db())
            .args(&self.launch.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|source| BrokerError::NoBinary {
                path: self.launch.binary.display().to_string(),
                source,
            })?;
        self.child = Some(child);
        while !ready(self.port) {
            let status = self.child.as_mut().map(Child::try_wait).transpose()?;
            if let Some(status) = status.flatten() {
                let words = self.last_words();
                return Err(BrokerError::Ended { status, words });
            }
            self.patient(began, "get ready")?;
        }
        Ok(began.elapsed())
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn kill(&mut self) -> Result<(), BrokerError> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; gives how long it took to end.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<Duration, BrokerError> {
        let began = Instant::now();
        let Some(mut child) = self.child.take() else {
            return Ok(Duration::ZERO);
        };
        if let Some(pid) = Pid::from_child(&child).into() {
            kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        }
        while child.try_wait()?.is_none() {
            self.patient(began, "stop")?;
        }
        Ok(began.elapsed())
    }

    fn patient(&self, since: Instant, what: &'static str) -> Result<(), BrokerError> {
        if since.elapsed() > PATIENCE {
            let words = self.last_words();
            return Err(BrokerError::Slow { what, words });
        }
        thread::sleep(LOOK);
        Ok(())
    }

    /// The process; 0 while none runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Its database.
    pub fn db(&self) -> PathBuf {
        self.dir.path().join("holdfast.db")
    }

    /// The folder of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("broker.log")
    }

    /// The last lines it wrote.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.reverse();
        lines.join(" | ")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

fn ready(port: u16) -> bool {
    asked(SocketAddr::from(([127, 0, 0, 1], port)), "/health/ready").is_ok_and(|answer| {
        answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200")
    })
}

/// The answer to an HTTP request, head and body.
///
/// # Errors
/// Nobody answers.
pub fn asked(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A port that nobody listens on, below those that clients are given.
fn free_port() -> io::Result<u16> {
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let none = || io::Error::new(io::ErrorKind::AddrInUse, "no free port");
    (base..base + 1000).find(free).ok_or_else(none)
}
