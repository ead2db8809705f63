//! What a mesh shares beside messages: state, streams, subscriptions.

use rusqlite::{Connection, Row, params};

use super::audit::Chains;
use super::encode::{self, Fields};
use crate::core::ids::Position;
use crate::core::rows::{AuditRow, StateRow, StreamRow};

/// The last value of a key, and that it was set; if the row is refused, nothing is audited.
pub(super) fn state_set(
    conn: &Connection,
    chains: &mut Chains,
    (row, audit): (&StateRow, &AuditRow),
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO state (mesh_id, key, value, updated_by_name, updated_by_began, updated_at,
            position)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (mesh_id, key) DO UPDATE SET value = excluded.value,
            updated_by_name = excluded.updated_by_name,
            updated_by_began = excluded.updated_by_began, updated_at = excluded.updated_at,
            position = excluded.position",
    )?
    .execute(params![
        row.mesh_id,
        row.key,
        row.value,
        row.updated_by,
        encode::position(row.setter)?,
        row.updated_at.0,
        encode::position(row.position)?,
    ])?;
    chains.append(conn, audit)
}

/// Whoever creates it again finds the first.
pub(super) fn stream_create(conn: &Connection, row: &StreamRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO stream (id, mesh_id, name, created_by_name, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (mesh_id, name) DO NOTHING",
    )?
    .execute(params![
        row.id,
        row.mesh_id,
        row.name,
        row.created_by,
        row.created_at.0
    ])
    .map(drop)
}

/// Whether the presence that began there is subscribed to a stream.
pub(super) fn subscribed(
    conn: &Connection,
    began: Position,
    (stream, subscribed): (&str, bool),
) -> rusqlite::Result<()> {
    let sql = if subscribed {
        "INSERT INTO subscription (began_pos, stream) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM subscription WHERE began_pos = ?1 AND stream = ?2"
    };
    conn.prepare_cached(sql)?
        .execute(params![encode::position(began)?, stream])
        .map(drop)
}

/// A presence ended.
pub(super) fn unsubscribe_all(conn: &Connection, began: Position) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM subscription WHERE began_pos = ?1")?
        .execute([encode::position(began)?])
        .map(drop)
}

/// Columns of [`state`].
pub(super) const STATE: &str = "mesh_id, key, value, updated_by_name, updated_at, \
     updated_by_began, position";

pub(super) fn state(row: &Row<'_>) -> rusqlite::Result<StateRow> {
    let fields = &mut Fields::of(row);
    Ok(StateRow {
        mesh_id: fields.next()?,
        key: fields.next()?,
        value: fields.next()?,
        updated_by: fields.next()?,
        updated_at: fields.wall()?,
        setter: fields.position()?,
        position: fields.position()?,
    })
}

/// Columns of [`stream`].
pub(super) const STREAM: &str = "id, mesh_id, name, created_by_name, created_at";

pub(super) fn stream(row: &Row<'_>) -> rusqlite::Result<StreamRow> {
    let fields = &mut Fields::of(row);
    Ok(StreamRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        name: fields.next()?,
        created_by: fields.next()?,
        created_at: fields.wall()?,
    })
}

/// Columns of [`subscription`].
pub(super) const SUBSCRIPTION: &str = "began_pos, stream";

/// Where a presence began, and a stream it is subscribed to.
pub(super) fn subscription(row: &Row<'_>) -> rusqlite::Result<(Position, String)> {
    let fields = &mut Fields::of(row);
    Ok((fields.position()?, fields.next()?))
}
