//! The binary, a folder for it, and a broker started by it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a database in it, and the binary to run on it.
pub(crate) struct Shell {
    dir: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder must be makeable"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the temporary folder must be writable");
        path.to_str()
            .expect("temporary folders have plain names")
            .to_owned()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.current_dir(self.dir.path()).args(args);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HOLDFAST_")) {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary must start")
    }

    /// Runs, wants success, gives what was printed.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {} {stderr}",
            output.status
        );
        String::from_utf8(output.stdout).expect("output must be UTF-8")
    }

    /// Runs with `--json`, wants success, gives the value.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        let text = self.done(&args);
        assert_eq!(text.lines().count(), 1, "one line for scripts: {text}");
        serde_json::from_str(&text).expect("--json must print JSON")
    }

    /// Runs, wants this exit code and one line, gives the line.
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> String {
        one_line(code, &self.run(args), args)
    }
}

pub(crate) fn one_line(code: i32, output: &Output, args: &[&str]) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(
        stderr.lines().count(),
        1,
        "{args:?}: not one line: {stderr}"
    );
    assert!(stderr.starts_with("holdfast: "), "{stderr}");
    stderr
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string was promised")
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .expect("an object was promised")
        .keys()
        .map(String::as_str)
        .collect()
}

/// A broker that was started by the command line and says so on its standard output.
pub(crate) struct Broker {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start(shell: &Shell) -> Self {
        let mut command = shell.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary must start");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("it must be readable");
        let address = first
            .strip_prefix("serving ws://")
            .and_then(|rest| rest.split_once("/ws"));
        let address = address.expect("the first line says where").0.to_owned();
        Self {
            child,
            lines,
            address,
        }
    }

    /// SIGTERM; gives the exit code and what else was printed.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let kill = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(kill.expect("kill must exist").success());
        let rest = std::io::read_to_string(&mut self.lines).expect("it must be readable");
        (self.child.wait().expect("it must end").code(), rest)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only a test that failed has not stopped it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
