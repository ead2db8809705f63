//! Opening the file: lock, permissions, connections and their PRAGMAs.
//!
//! Must not touch a file that is not ours: what it finds is checked by `schema` before anything
//! persistent (journal mode included) is changed. Must not open the database but through SQLite
//! once there is a connection: see [`create`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::Access;

use super::schema;
use crate::config::Durability;

/// Why the database cannot be used. Each prints as one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another broker, or an admin command, holds `<db>.lock`.
    #[error("{} is in use by another holdfast process", .0.display())]
    Locked(PathBuf),
    /// The file, or its folder, cannot be created or written.
    #[error("cannot write {}: {source}", .path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has several names, so that neither the lock nor the WAL, which are named after
    /// it, would keep two brokers apart.
    #[error("{} has another name (a hard link): remove one of them", .0.display())]
    HardLinked(PathBuf),
    /// The file can be read but not written.
    #[error("{} is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// The file is not an SQLite database.
    #[error("{} is not a database", .0.display())]
    NotADatabase(PathBuf),
    /// The file is an SQLite database of another program.
    #[error("{} is a database of another program, not of holdfast", .0.display())]
    Foreign(PathBuf),
    /// The file was written by a later version.
    #[error(
        "{} has schema version {found}, but this holdfast knows versions up to {known}: \
         use a newer holdfast",
        .path.display()
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A store thread cannot be started.
    #[error("cannot start a store thread: {0}")]
    Thread(#[from] io::Error),
    /// The file system, or SQLite, cannot do write-ahead logging.
    #[error("{} cannot have a write-ahead log (journal mode stays {mode:?}): use a local disk", .path.display())]
    NoWal {
        /// Which.
        path: PathBuf,
        /// The journal mode it has instead.
        mode: String,
    },
    /// SQLite says no.
    #[error("cannot open {}: {source}{}", .path.display(), advice(.source))]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// An error of SQLite on the file at `path`.
    pub(super) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sqlite {
            path: path.to_owned(),
            source,
        }
    }
}

/// SQLite calls a file read-only, or cannot open it, also when it cannot make the WAL beside it.
pub(super) fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            " (holdfast must be allowed to write the file and its folder)"
        }
        Some(_) | None => "",
    }
}

/// Only people's tools (sqlite3, backups) can hold a lock against us: wait, but not for ever,
/// since acks wait with us.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The exclusive lock beside the database, held while this lives. The kernel lifts it when the
/// process ends, however it ends; the file itself stays, since removing it would race.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(super) fn take(db: &Path) -> Result<Self, OpenError> {
        let mut name = db.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = create_private(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(db.to_owned())),
            Err(TryLockError::Error(source)) => Err(OpenError::Unwritable { path, source }),
        }
    }
}

/// Only the owner may read it: the database holds the secret keys of mesh owners. SQLite gives
/// the WAL and its index the same mode.
fn create_private(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.open(path).map_err(unwritable(path))
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Unwritable {
        path: path.to_owned(),
        source,
    }
}

/// Makes the database if there is none, and returns its one true path: two names of a file must
/// not make two locks.
///
/// A file that is there is not opened. Closing any descriptor of it drops all the POSIX locks that
/// SQLite has on it in this process, and without them a tool that opens and closes the database
/// takes itself for its last user, and deletes the WAL with all that was acknowledged.
pub(super) fn create(path: &Path) -> Result<PathBuf, OpenError> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Nobody can have a connection to what was not there.
            drop(create_private(path)?);
            fs::metadata(path)
        }
        found => found,
    };
    let found = found.map_err(unwritable(path))?;
    if !found.is_file() {
        return Err(unwritable(path)(io::Error::other("it is not a file")));
    }
    if found.nlink() > 1 {
        return Err(OpenError::HardLinked(path.to_owned()));
    }
    rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK)
        .map_err(|error| unwritable(path)(error.into()))?;
    path.canonicalize().map_err(unwritable(path))
}

/// A connection that may write, on a file made by [`create`] and known to be ours or new.
pub(super) fn writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let sqlite = OpenError::sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(&sqlite)?;
    schema::check(&conn, path)?;
    if conn.is_readonly("main").map_err(&sqlite)? {
        return Err(OpenError::ReadOnly(path.to_owned()));
    }
    common_pragmas(&conn).map_err(&sqlite)?;
    use_wal(&conn, path)?;
    writer_pragmas(&conn, durability).map_err(&sqlite)?;
    Ok(conn)
}

/// Readers never block the writer, and a commit is one append and at most one fsync. Where there
/// can be no WAL, SQLite keeps the mode it has and reports no error.
pub(super) fn use_wal(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode: String = conn
        .query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))
        .map_err(OpenError::sqlite(path))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(OpenError::NoWal {
        path: path.to_owned(),
        mode,
    })
}

fn writer_pragmas(conn: &Connection, durability: Durability) -> rusqlite::Result<()> {
    // FULL syncs the WAL at each commit: an answered operation survives power loss. NORMAL syncs
    // only at checkpoints: it survives kill -9, and power loss rolls back a little, in order.
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // Checkpoints inside commits make their p99; `checkpoint` runs its own.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    // After a burst the WAL is cut back to this when it starts anew.
    conn.pragma_update(None, "journal_size_limit", super::checkpoint::WAL_BYTES_MAX)?;
    // A broken reference is a bug of ours that should show at once.
    conn.pragma_update(None, "foreign_keys", true)?;
    // A transaction that outgrows the cache must not take locks or disk before its commit.
    conn.pragma_update(None, "cache_spill", false)
}

/// A connection that only reads. The file must have been opened by [`writer`] before.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = OpenError::sqlite(path);
    let conn = Connection::open_with_flags(path, flags).map_err(&sqlite)?;
    common_pragmas(&conn).map_err(&sqlite)?;
    Ok(conn)
}

fn common_pragmas(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Statements are few and all are used again.
    conn.set_prepared_statement_cache_capacity(64);
    // No temporary files: another place that could be full.
    conn.pragma_update(None, "temp_store", "memory")?;
    // KiB when negative: holds the hot ends of tables and indexes. What else is read often lies in
    // the system's cache of the file.
    conn.pragma_update(None, "cache_size", -2 * 1024)?;
    // Off: a read error on a mapped page is a SIGBUS, not an error we could report.
    conn.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}
