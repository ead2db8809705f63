//! Looks at the database that a dead broker left, on a copy: opening the file itself would
//! recover its log, and that is for the broker to do.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::support::broker::Broker;

/// A copy of the database and its log.
struct Copy {
    conn: Connection,
}

impl Copy {
    fn of(broker: &Broker) -> Self {
        Self::in_folder(&broker.db(), &broker.dir().join("copy"))
    }

    fn in_folder(db: &Path, folder: &Path) -> Self {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("the old copy must be removable: {error}")
            }
            _ => fs::create_dir_all(folder).expect("the folder of the broker must be writable"),
        }
        let copy = folder.join("copy.db");
        fs::copy(db, &copy).expect("the database must be readable");
        let log = with_suffix(db, "-wal");
        if log.exists() {
            fs::copy(log, with_suffix(&copy, "-wal")).expect("the log must be readable");
        }
        let conn = Connection::open(&copy).expect("a copy must open");
        Self { conn }
    }

    fn text(&self, sql: &str) -> String {
        let found: rusqlite::Result<Vec<String>> = self
            .conn
            .prepare(sql)
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect());
        found.map_or_else(|error| error.to_string(), |rows| rows.join(", "))
    }

    fn rows(
        &self,
        sql: &str,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Value>,
    ) -> Value {
        let mut statement = self.conn.prepare(sql).expect("the tables must be ours");
        let rows = statement
            .query_map([], |row| read(row))
            .and_then(Iterator::collect);
        Value::Array(rows.expect("a sound database must be readable"))
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `ok` if the database is sound and no link of an audit chain is broken.
pub(crate) fn check(broker: &Broker) -> String {
    check_file(&broker.db(), broker)
}

/// The same of a database that is elsewhere.
pub(crate) fn check_file(db: &Path, broker: &Broker) -> String {
    let copy = Copy::in_folder(db, &broker.dir().join("copy"));
    let sound = copy.text("PRAGMA integrity_check");
    if sound != "ok" {
        return format!("integrity_check: {sound}");
    }
    let orphans = copy.text("SELECT \"table\" || ' ' || rowid FROM pragma_foreign_key_check");
    if !orphans.is_empty() {
        return format!("foreign_key_check: {orphans}");
    }
    let broken = copy.text(
        "SELECT id || '' FROM (SELECT id, prev_hash,
             lag(hash, 1, 'genesis') OVER (PARTITION BY mesh_id ORDER BY id) AS before
         FROM audit_log) WHERE prev_hash <> before",
    );
    if broken.is_empty() {
        "ok".to_owned()
    } else {
        format!("audit rows that do not follow the row before: {broken}")
    }
}

/// Writes the audit log to a file and answers its name.
pub(crate) fn audit(broker: &Broker) -> String {
    let rows = Copy::of(broker).rows(
        "SELECT id, mesh_id, event_type, actor_member_id, payload, prev_hash, hash, created_at
         FROM audit_log ORDER BY id",
        |row| {
            Ok(json!({
                "id": row.get::<_, i64>(0)?,
                "mesh": row.get::<_, String>(1)?,
                "event": row.get::<_, String>(2)?,
                "actor": row.get::<_, Option<String>>(3)?,
                "payload": row.get::<_, String>(4)?,
                "prev": row.get::<_, String>(5)?,
                "hash": row.get::<_, String>(6)?,
                "at": row.get::<_, i64>(7)?,
            }))
        },
    );
    let path = broker.dir().join("audit.json");
    fs::write(&path, rows.to_string()).expect("the folder of the broker must be writable");
    path.display().to_string()
}

/// The session keys of all presences that have ended, as JSON.
pub(crate) fn ended(broker: &Broker) -> String {
    let rows = Copy::of(broker).rows(
        "SELECT session_pubkey FROM presence
         WHERE session_pubkey IS NOT NULL AND disconnected_at IS NOT NULL",
        |row| Ok(Value::String(row.get(0)?)),
    );
    rows.to_string()
}

/// Exchanges the oldest and the newest message that wait for the recipient of the latest.
pub(crate) const SWAP: &str = "
    CREATE TEMP TABLE ends AS SELECT min(seq) AS first, max(seq) AS last FROM message_queue
        WHERE delivered_at IS NULL GROUP BY target_spec, sender_session_pubkey
        ORDER BY max(seq) DESC LIMIT 1;
    CREATE TEMP TABLE texts AS SELECT seq, ciphertext FROM message_queue, ends
        WHERE seq IN (first, last);
    UPDATE message_queue SET ciphertext = (SELECT texts.ciphertext FROM texts, ends
        WHERE texts.seq = iif(message_queue.seq = first, last, first))
        WHERE seq IN (SELECT seq FROM texts)";

/// Does what no broker may do to its database, so that the tests have something to find.
pub(crate) fn spoil(broker: &Broker, sql: &str) -> String {
    let conn = Connection::open(broker.db()).expect("a sound database must open");
    conn.execute_batch(sql).expect("the tables must be ours");
    "ok".to_owned()
}
