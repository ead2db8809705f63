//! The floor of durable messages: rows appended to a bare table, so many in one transaction.
//!
//! With the settings of the broker's writer (`src/store/open.rs`), but with nothing beside it: no
//! index, no deletes, no checkpoints, no other connection. The write-ahead log grows to all that
//! is inserted, so ask for tens of thousands of rows, not for millions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rusqlite::{Connection, OpenFlags};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// No row, no group, or a group that is larger than all.
    #[error("{rows} rows in groups of {group}: nothing to measure")]
    Empty {
        /// Rows asked for.
        rows: u64,
        /// Rows in a group.
        group: usize,
    },
    /// There can be no write-ahead log in this folder.
    #[error("{} cannot have a write-ahead log: use a local disk", .0.display())]
    NoWal(PathBuf),
    /// The folder cannot be written.
    #[error("cannot make a database: {0}")]
    Folder(#[from] std::io::Error),
    /// SQLite says no.
    #[error("cannot insert: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// How fast bare inserts were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InsertFloor {
    /// Rows made durable per second.
    pub rows_per_second: f64,
    /// Time of a transaction, from its begin to its commit: half took less.
    pub commit_p50: Duration,
    /// One in a hundred took more.
    pub commit_p99: Duration,
    /// How many transactions there were.
    pub commits: u64,
}

/// Inserts `rows` rows of `row_bytes` each, `group` in each transaction, into a new database in
/// `dir`, which is removed again.
///
/// # Errors
/// If `dir` cannot hold such a database.
pub fn inserts(
    dir: &Path,
    group: usize,
    rows: u64,
    row_bytes: usize,
) -> Result<InsertFloor, InsertError> {
    if group == 0 || rows < group as u64 {
        return Err(InsertError::Empty { rows, group });
    }
    let folder = tempfile::Builder::new().prefix("floor-").tempdir_in(dir)?;
    let mut conn = open(&folder.path().join("floor.db"))?;
    let body = vec![b'r'; row_bytes];
    let commits = rows / group as u64;
    let mut spans = Histogram::<u64>::new(3).map_err(std::io::Error::other)?;
    // The first one makes the log and its index.
    commit(&mut conn, group, &body)?;
    let start = now();
    for _ in 0..commits {
        let begin = now();
        commit(&mut conn, group, &body)?;
        let span = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Grows with what it is given, which `saturating_record` would not do.
        spans.record(span).map_err(std::io::Error::other)?;
    }
    let whole = start.elapsed();
    Ok(InsertFloor {
        rows_per_second: (commits * group as u64) as f64 / whole.as_secs_f64(),
        commit_p50: Duration::from_nanos(spans.value_at_quantile(0.50)),
        commit_p99: Duration::from_nanos(spans.value_at_quantile(0.99)),
        commits,
    })
}

fn open(path: &Path) -> Result<Connection, InsertError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(InsertError::NoWal(path.to_owned()));
    }
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -16 * 1024)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_spill", false)?;
    conn.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")?;
    Ok(conn)
}

fn commit(conn: &mut Connection, group: usize, body: &[u8]) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO rows (body) VALUES (?1)")?;
        for _ in 0..group {
            insert.execute([body])?;
        }
    }
    transaction.commit()
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured here")]
fn now() -> Instant {
    Instant::now()
}

/// How long it takes to read all presences of a broker's database, each column of each row, and to
/// do nothing with them. The broker must not run.
///
/// # Errors
/// If there is no such database.
pub fn read_rows(db: &Path) -> Result<Duration, InsertError> {
    let conn = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let began = Instant::now();
    let mut statement = conn.prepare("SELECT * FROM presence WHERE disconnected_at IS NULL")?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            std::hint::black_box(row.get_ref(column)?);
        }
    }
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_share_a_commit_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let floor = inserts(dir.path(), 10, 205, 500).unwrap();
        assert_eq!(floor.commits, 20);
        assert!(floor.rows_per_second > 1.0, "{floor:?}");
        assert!(floor.commit_p99 >= floor.commit_p50, "{floor:?}");
        // What was told of each commit agrees with what was told of all.
        let (commits, rows) = (20.0, 200.0);
        let whole = rows / floor.rows_per_second;
        assert!(
            floor.commit_p50.as_secs_f64() * commits / 2.0 <= whole * 1.01,
            "{floor:?}"
        );
        assert!(
            floor.commit_p99.as_secs_f64() * commits >= whole * 0.9,
            "{floor:?}"
        );
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn every_row_is_there_after_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let mut conn = open(&path).unwrap();
        commit(&mut conn, 7, b"body").unwrap();
        let other = Connection::open(&path).unwrap();
        let count: i64 = other
            .query_row("SELECT count(*) FROM rows", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 7);
        let synchronous: i64 = conn
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!(synchronous, 2, "full");
    }

    #[test]
    fn nothing_cannot_be_measured() {
        let dir = tempfile::tempdir().unwrap();
        for (group, rows) in [(0, 5), (6, 5)] {
            let error = inserts(dir.path(), group, rows, 1).unwrap_err();
            assert!(matches!(error, InsertError::Empty { .. }), "{error}");
        }
        let error = inserts(Path::new("/nonexistent"), 1, 1, 1).unwrap_err();
        assert!(matches!(error, InsertError::Folder(_)), "{error}");
    }
}
