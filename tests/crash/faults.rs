//! Ways to make the database of a running broker fail, and to mend it.

use std::process::Command;

use rusqlite::Connection;

use super::cage::Cage;
use super::database;
use super::support::broker::{Broker, Launch};

/// Something that can be broken and mended.
pub(crate) trait Fault {
    /// Where the broker must live for this.
    fn launch(&self, _launch: &mut Launch) {}

    /// What senders are told, as a regular expression.
    fn reason(&self) -> &'static str;

    /// Nothing can be written from here on.
    fn start(&mut self, broker: &Broker);

    /// As before.
    fn end(&mut self, broker: &Broker);

    /// Looks at the database from where it can be seen.
    fn check(&self, broker: &Broker) -> String {
        database::check(broker)
    }
}

/// A file system without room.
pub(crate) struct Full(pub(crate) Cage);

impl Fault for Full {
    fn launch(&self, launch: &mut Launch) {
        launch.wrapper = self.0.wrapper();
        launch.db = Some(self.0.path().join("holdfast.db"));
    }

    fn reason(&self) -> &'static str {
        "^storage is full: "
    }

    fn start(&mut self, _: &Broker) {
        self.0.run("! cat /dev/zero > filler");
    }

    fn end(&mut self, _: &Broker) {
        self.0.run("rm filler");
    }

    fn check(&self, broker: &Broker) -> String {
        database::check_file(&self.0.seen_from_outside("holdfast.db"), broker)
    }
}

/// A limit on the size of files, which also meets the log: every write fails with EFBIG.
pub(crate) struct Limited;

impl Limited {
    fn set(broker: &Broker, limit: &str) {
        let done = Command::new("prlimit")
            .arg(format!("--pid={}", broker.pid()))
            .arg(format!("--fsize={limit}:"))
            .status();
        assert!(done.expect("prlimit must exist").success(), "prlimit");
    }
}

impl Fault for Limited {
    fn reason(&self) -> &'static str {
        "^storage (failed|is full): "
    }

    fn start(&mut self, broker: &Broker) {
        Self::set(broker, "0");
    }

    fn end(&mut self, broker: &Broker) {
        Self::set(broker, "unlimited");
    }
}

/// Files that nobody may write, not even through a descriptor that is open (ext4 and others).
pub(crate) struct Immutable;

impl Immutable {
    /// Whether this machine and its file system allow it.
    pub(crate) fn possible() -> bool {
        let file = tempfile::NamedTempFile::new().expect("the temporary folder must be writable");
        let set = |flag: &str| {
            let done = Command::new("chattr").arg(flag).arg(file.path()).output();
            done.is_ok_and(|out| out.status.success())
        };
        if !set("+i") {
            println!("  chattr +i is forbidden here");
            return false;
        }
        let refused = std::io::Write::write_all(&mut file.as_file(), b"x").is_err();
        assert!(set("-i"), "chattr -i must work where +i does");
        refused
    }

    fn set(broker: &Broker, flag: &str) {
        let db = broker.db();
        let done = Command::new("chattr")
            .arg(flag)
            .args(["", "-wal"].map(|suffix| database::with_suffix(&db, suffix)))
            .status();
        assert!(done.expect("chattr must exist").success(), "chattr {flag}");
    }
}

impl Fault for Immutable {
    fn reason(&self) -> &'static str {
        "^storage (failed|is read-only): "
    }

    fn start(&mut self, broker: &Broker) {
        Self::set(broker, "+i");
    }

    fn end(&mut self, broker: &Broker) {
        Self::set(broker, "-i");
    }
}

/// Somebody's tool holds the write lock.
#[derive(Default)]
pub(crate) struct Locked(Option<Connection>);

impl Fault for Locked {
    fn reason(&self) -> &'static str {
        "^storage is too slow: "
    }

    fn start(&mut self, broker: &Broker) {
        let tool = Connection::open(broker.db()).expect("a tool must be able to open the database");
        tool.busy_timeout(std::time::Duration::from_secs(5))
            .and_then(|()| tool.execute_batch("BEGIN IMMEDIATE"))
            .expect("a tool must be able to lock the database");
        self.0 = Some(tool);
    }

    fn end(&mut self, _: &Broker) {
        let tool = self.0.take().expect("what is mended was broken");
        tool.execute_batch("ROLLBACK")
            .expect("a transaction must be endable");
    }
}
