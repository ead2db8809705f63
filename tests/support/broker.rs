//! A real `holdfast serve` with a temporary database on a free port.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

/// The binary under test.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_holdfast");

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Below the ephemeral ports, so that no client of another test sits on ours.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);
static NEXT_DIR: AtomicU32 = AtomicU32::new(0);

/// How a broker is started.
#[derive(Clone, Default)]
pub(crate) struct Launch {
    /// Beside `--listen` and `--db`.
    pub(crate) flags: Vec<String>,
    /// A command that becomes the one given behind it (`nsenter ...`, `sh -c '...; exec "$@"' sh`).
    /// Admin commands are run through it as well.
    pub(crate) wrapper: Vec<String>,
    /// Environment of the broker.
    pub(crate) env: Vec<(String, String)>,
    /// The database, if it is to be elsewhere than in the folder of the broker.
    pub(crate) db: Option<PathBuf>,
}

/// A broker that can be killed, stopped and started again on the same port and database. Dropped,
/// it is killed and its files are removed.
pub(crate) struct Broker {
    dir: PathBuf,
    port: u16,
    pub(crate) launch: Launch,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker and waits until it is ready.
    pub(crate) fn start(launch: Launch) -> Self {
        let n = NEXT_DIR.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("holdfast-test-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).expect("the temporary folder must be writable");
        let mut broker = Self {
            dir,
            port: free_port(),
            launch,
            child: None,
        };
        broker.start_again();
        broker
    }

    /// Starts the process and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Starts the process, and no more.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the broker already runs");
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("the log must be writable");
        let err = log.try_clone().expect("a file must be clonable");
        let child = self
            .command()
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", self.port),
                "--db",
            ])
            .arg(self.db())
            .args(&self.launch.flags)
            .envs(self.launch.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            .spawn()
            .expect("the broker must start");
        self.child = Some(child);
    }

    /// The binary, through the wrapper if there is one.
    fn command(&self) -> Command {
        let Some((program, args)) = self.launch.wrapper.split_first() else {
            return Command::new(BIN);
        };
        let mut command = Command::new(program);
        command.args(args).arg(BIN);
        command
    }

    fn ready(&mut self) {
        wait_for("the broker to be ready", || {
            if let Some(status) = self.exited() {
                panic!("the broker ended at start: {status}\n{}", self.last_words());
            }
            ready(self.port)
        });
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the broker must be killable");
            child.wait().expect("the broker must be waitable");
        }
    }

    /// SIGTERM; answers the exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
        assert!(
            sent.expect("kill must exist").success(),
            "SIGTERM must be deliverable"
        );
        let mut status = None;
        wait_for("the broker to stop", || {
            status = self.exited();
            status.is_some()
        });
        self.child = None;
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the broker must run").id()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the kernel must tell of its processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.expect("VmRSS must be a number of kB")
    }

    /// Runs an admin command with `--json` on this broker's database.
    pub(crate) fn admin(&self, args: &[&str]) -> Value {
        let out = self
            .command()
            .args(args)
            .arg("--json")
            .env("HOLDFAST_DB", self.db())
            .output();
        let out = out.expect("the command must start");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "holdfast {args:?}: {} {said}",
            out.status
        );
        serde_json::from_slice(&out.stdout).expect("--json must print JSON")
    }

    /// The address as `scheme://host:port`.
    pub(crate) fn address(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn db(&self) -> PathBuf {
        let elsewhere = self.launch.db.clone();
        elsewhere.unwrap_or_else(|| self.dir.join("holdfast.db"))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// The end of the broker's log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child
            .as_mut()?
            .try_wait()
            .expect("the broker must be waitable")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _gone_or_left_behind = fs::remove_dir_all(&self.dir);
    }
}

/// Polls every 10 ms.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let pause = Duration::from_millis(10);
    let mut left = PATIENCE;
    while !holds() {
        assert!(!left.is_zero(), "waited {PATIENCE:?} for {what}");
        std::thread::sleep(pause);
        left = left.saturating_sub(pause);
    }
}

fn ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let _best_effort = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut head = [0; 12];
    stream
        .write_all(request)
        .and_then(|()| stream.read_exact(&mut head))
        .is_ok()
        && &head == b"HTTP/1.1 200"
}

fn free_port() -> u16 {
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    for _ in 0..1000 {
        let port = base + NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port above {base}");
}
