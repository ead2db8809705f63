//! URL watches as SQL: rows that go with the leases of their owners.

use rusqlite::{Connection, params};

use crate::core::ids::{Position, WatchId};
use crate::core::rows::WatchRow;
use crate::store::encode;

/// Of a watch that is there only its value changes.
pub(super) fn put(conn: &Connection, row: &WatchRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO watch (began_pos, id, mesh_id, url, mode, extract, interval, notify_on,
            headers, label, value, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (began_pos, id) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![
        encode::position(row.began)?,
        row.id.to_string(),
        row.mesh_id,
        row.url,
        row.mode.name(),
        row.extract,
        encode::millis(row.interval),
        row.notify_on.to_string(),
        encode::json(&row.headers)?,
        row.label,
        row.value,
        row.created_at.0,
    ])
    .map(drop)
}

pub(super) fn delete(conn: &Connection, began: Position, id: WatchId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM watch WHERE began_pos = ?1 AND id = ?2")?
        .execute(params![encode::position(began)?, id.to_string()])
        .map(drop)
}

/// A lease ended: so do its watches.
pub(super) fn end(conn: &Connection, began: Position) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM watch WHERE began_pos = ?1")?
        .execute([encode::position(began)?])
        .map(drop)
}
