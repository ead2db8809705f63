//! A small file system of its own for one broker: a tmpfs in a mount namespace that only the
//! broker, and whoever is sent in, can see. Needs root or user namespaces.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lives as long as the process that holds the namespace.
pub(crate) struct Cage {
    holder: Child,
    user: bool,
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Cage {
    /// With so much room; None, after saying so, where mounting is forbidden.
    pub(crate) fn new(mebibytes: u32) -> Option<Self> {
        let made = [false, true]
            .into_iter()
            .find_map(|user| Self::enter(mebibytes, user));
        if made.is_none() {
            println!("  no file system can be mounted here, not even in a user namespace");
        }
        made
    }

    fn enter(mebibytes: u32, user: bool) -> Option<Self> {
        let folder = tempfile::tempdir().expect("the temporary folder must be writable");
        let path = folder.path().to_owned();
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if user {
            command.args(["--user", "--map-root-user"]);
        }
        let script =
            "mount -t tmpfs -o size=$2m,mode=0700 holdfast \"$1\" && echo ready && exec cat";
        let mut holder = command
            .args(["sh", "-c", script, "sh"])
            .arg(&path)
            .arg(mebibytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout must be a pipe");
        BufReader::new(stdout).read_line(&mut line).ok();
        let cage = Self {
            holder,
            user,
            _folder: folder,
            path,
        };
        (line == "ready\n").then_some(cage)
    }

    /// The folder in which the file system is mounted, for those inside.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file inside, for those outside, who can read and write it but must not follow links.
    pub(crate) fn seen_from_outside(&self, name: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.holder.id(), self.path.display());
        Path::new(&root).join(name)
    }

    /// The command that becomes, inside, the command behind it.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let mut wrapper = vec![
            "nsenter".to_owned(),
            format!("--target={}", self.holder.id()),
            "--mount".to_owned(),
        ];
        if self.user {
            wrapper.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        wrapper
    }

    /// Runs a shell script inside, in the folder.
    pub(crate) fn run(&self, script: &str) {
        let wrapper = self.wrapper();
        let done = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .args(["sh", "-c", &format!("cd \"$1\" && {script}"), "sh"])
            .arg(&self.path)
            .output()
            .expect("nsenter must start");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {said}");
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ended_already = self.holder.kill();
        let _ended = self.holder.wait();
    }
}
