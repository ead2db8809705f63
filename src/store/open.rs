//! Opening the file: lock, permissions, connections and their PRAGMAs.
//!
//! Must not touch a file that is not ours: what it finds is checked by `schema` before anything
//! persistent (journal mode included) is changed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

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
    /// SQLite says no.
    #[error("cannot open the database: {0}")]
    Sqlite(#[from] rusqlite::Error),
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
    options.open(path).map_err(|source| OpenError::Unwritable {
        path: path.to_owned(),
        source,
    })
}

/// A connection that may write, on a file known to be ours or new.
pub(super) fn writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    drop(create_private(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    schema::check(&conn, path)?;
    if conn.is_readonly("main")? {
        return Err(OpenError::ReadOnly(path.to_owned()));
    }
    common_pragmas(&conn)?;
    // Readers never block the writer, and a commit is one append and at most one fsync.
    conn.pragma_update(None, "journal_mode", "wal")?;
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
    conn.pragma_update(None, "cache_spill", false)?;
    Ok(conn)
}

/// A connection that only reads. The file must have been opened by [`writer`] before.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    common_pragmas(&conn)?;
    Ok(conn)
}

fn common_pragmas(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Statements are few and all are used again.
    conn.set_prepared_statement_cache_capacity(64);
    // No temporary files: another place that could be full.
    conn.pragma_update(None, "temp_store", "memory")?;
    // KiB when negative: holds the hot ends of tables and indexes.
    conn.pragma_update(None, "cache_size", -16 * 1024)?;
    // Off: a read error on a mapped page is a SIGBUS, not an error we could report.
    conn.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}
