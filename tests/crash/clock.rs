//! A wall clock that can be stepped: a small library loaded before the C library of the broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::support::broker::Launch;

/// The clock of one broker.
pub(crate) struct WallClock {
    folder: TempDir,
}

impl WallClock {
    /// None, after saying so, where no C compiler is found.
    pub(crate) fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("the temporary folder must be writable");
        let clock = Self { folder };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/clock.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let done = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(clock.library())
            .arg(source)
            .output();
        let Ok(done) = done else {
            println!("  {compiler} is not installed");
            return None;
        };
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{compiler}: {said}");
        clock.step(0);
        Some(clock)
    }

    pub(crate) fn launch(&self, launch: &mut Launch) {
        for (name, path) in [
            ("LD_PRELOAD", self.library()),
            ("CLOCK_OFFSET_FILE", self.offset()),
        ] {
            launch
                .env
                .push((name.to_owned(), path.display().to_string()));
        }
    }

    /// The broker's wall clock is off by so many seconds from now on.
    pub(crate) fn step(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.offset());
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0))
            .expect("the temporary folder must be writable");
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}
