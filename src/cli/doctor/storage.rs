//! The disk below the database, and the database file itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{statfs, statvfs};

use super::super::stopwatch::Stopwatch;
use super::Finding;
use crate::admin::protocol::Status;

/// Below this the broker may soon refuse messages.
const FREE_WANTED: u64 = 1 << 30;

/// Below this it cannot even start: the log alone grows to a few MiB.
const FREE_NEEDED: u64 = 16 << 20;

/// Flushes measured.
const PROBES: usize = 16;

/// A disk slower than this makes every acknowledged message wait noticeably.
const FLUSH_WANTED: Duration = Duration::from_millis(20);

/// File systems by the magic number of `statfs`, that cannot hold a write-ahead log safely.
const NETWORK: [(u64, &str); 4] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
];

/// File systems that may or may not.
const DOUBTFUL: [(u64, &str); 2] = [(0x0102_1997, "9p"), (0x6573_5546, "FUSE")];

/// First bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// All checks of the storage for database `db`.
pub(super) fn check(db: &Path, running: Option<&Status>) -> Vec<Finding> {
    let dir = match db.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    if !dir.is_dir() {
        return vec![Finding::fail(
            "disk",
            format!("there is no folder {}", dir.display()),
            format!("make it: mkdir -p {}", dir.display()),
        )];
    }
    vec![
        space(dir),
        file_system(dir),
        flush(db),
        database(db, running),
    ]
}

fn space(dir: &Path) -> Finding {
    let stat = match statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => return Finding::ok("disk space", format!("cannot be read: {error}")),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{} MiB free in {}", free >> 20, dir.display());
    let advice = "make room or use --db on another disk; a broker without space refuses messages";
    if free < FREE_NEEDED {
        Finding::fail("disk space", found, advice)
    } else if free < FREE_WANTED {
        Finding::warn("disk space", found, advice)
    } else {
        Finding::ok("disk space", found)
    }
}

fn file_system(dir: &Path) -> Finding {
    let Ok(stat) = statfs(dir) else {
        return Finding::ok("file system", "its kind cannot be read");
    };
    // The field is signed on some architectures; the magic numbers have 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern, not a number")]
    let magic = stat.f_type as u64 & 0xffff_ffff;
    let named = |list: &[(u64, &'static str)]| {
        list.iter()
            .find(|(number, _)| *number == magic)
            .map(|(_, name)| *name)
    };
    if let Some(name) = named(&NETWORK) {
        return Finding::fail(
            "file system",
            format!("{} is on {name}", dir.display()),
            "SQLite's write-ahead log needs a local disk; use another --db",
        );
    }
    if let Some(name) = named(&DOUBTFUL) {
        return Finding::warn(
            "file system",
            format!("{} is on {name}", dir.display()),
            "a write-ahead log needs shared memory and locks, which it may lack; prefer a local disk",
        );
    }
    Finding::ok("file system", "local, can hold a write-ahead log")
}

/// How long a flush takes on this disk: what every durable acknowledgement waits for.
fn flush(db: &Path) -> Finding {
    let path = beside(db, "-doctor");
    let times = probe(&path);
    // A probe that could not be made need not be removed.
    drop(fs::remove_file(&path));
    match times {
        Ok(mut times) => {
            times.sort_unstable();
            let median = times[times.len() / 2];
            let found = format!(
                "{:.1} ms at the median, {:.1} ms at worst of {PROBES}",
                median.as_secs_f64() * 1000.0,
                times[times.len() - 1].as_secs_f64() * 1000.0
            );
            if median > FLUSH_WANTED {
                return Finding::warn(
                    "disk flush",
                    found,
                    "every message waits that long for its ack; a faster disk helps, and so does \
                     --durability normal, which may lose the last moments at a power loss",
                );
            }
            Finding::ok("disk flush", found)
        }
        Err(error) => Finding::fail(
            "disk flush",
            format!("{} cannot be written: {error}", path.display()),
            "let the broker's user write in that folder, or use another --db",
        ),
    }
}

fn probe(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    (0..PROBES)
        .map(|_| {
            file.write_all(&[0; 4096])?;
            let watch = Stopwatch::start();
            file.sync_data()?;
            Ok(watch.elapsed())
        })
        .collect()
}

fn database(db: &Path, running: Option<&Status>) -> Finding {
    if let Some(status) = running {
        let Status {
            version,
            pid,
            listen,
        } = status;
        return Finding::ok(
            "database",
            format!("broker {version} runs on it (process {pid}, {listen})"),
        );
    }
    let mut head = [0; 100];
    let read = match File::open(db) {
        Ok(mut file) => read_head(&mut file, &mut head),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::ok("database", format!("{} will be made", db.display()));
        }
        Err(error) => Err(error),
    };
    match read {
        Err(error) => Finding::fail(
            "database",
            format!("{} cannot be read: {error}", db.display()),
            "let the broker's user read and write it, or use another --db",
        ),
        Ok(0) => Finding::ok(
            "database",
            format!("{} is empty and will be filled", db.display()),
        ),
        Ok(_) if !head.starts_with(MAGIC) => Finding::fail(
            "database",
            format!("{} is not a SQLite database", db.display()),
            "use another --db",
        ),
        Ok(_) => held(db),
    }
}

fn read_head(file: &mut File, head: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Whether somebody holds the database: a broker that does not answer, or a command at work.
fn held(db: &Path) -> Finding {
    let free = match File::open(beside(db, ".lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(_) => true,
    };
    if free {
        return Finding::ok("database", format!("{} is there and free", db.display()));
    }
    Finding::fail(
        "database",
        format!("{} is held by a process that does not answer", db.display()),
        "a broker is starting, or hangs (fuser shows which process), or a command is at work",
    )
}

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn states(db: &Path) -> Vec<State> {
        check(db, None)
            .iter()
            .map(|finding| finding.state)
            .collect()
    }

    #[test]
    fn files_that_serve_would_refuse_are_found() {
        let dir = std::env::temp_dir().join(format!("holdfast-doctor-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let db = dir.join("x.db");
        assert!(!states(&db).contains(&State::Fail), "a new one is fine");
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            0,
            "the probe was left behind"
        );
        fs::write(
            &db,
            "hello, I am a text file, and long enough to be looked at",
        )
        .unwrap();
        assert!(states(&db).contains(&State::Fail));
        assert_eq!(states(&dir.join("no/x.db")), [State::Fail]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
