//! Presences as SQL: the journal of leases.

use rusqlite::{Connection, params};

use super::watches;
use crate::core::ids::Position;
use crate::core::rows::{PresenceRow, Restart, Told};
use crate::core::time::Wall;
use crate::store::{encode, sharing};

/// A presence that is put is present: whatever end was noted is lifted, by a statement of its own,
/// since one that could set `disconnected_at` would write its index each time. What refers to
/// other tables is looked up there only when the row is made.
pub(super) fn put(conn: &Connection, row: &PresenceRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO presence (began_pos, id, mesh_id, member_id, session_id, session_pubkey, role,
            display_name, pid, cwd, hostname, peer_type, channel, model, status, status_source,
            status_updated_at, summary, groups, visible, profile, connected_at, last_ping_at,
            lease_until, generation, attested_until, boot_epochs, boot, lease_boot, grace,
            joined_pos, shown_pos, cursor_pos, heard_pos, known_pos)
         VALUES (:began, :id, :mesh_id, :member_id, :session_id, :session_pubkey, :role,
            :display_name, :pid, :cwd, :hostname, :peer_type, :channel, :model, :status,
            :status_source, :status_at, :summary, :groups, :visible, :profile, :connected_at,
            :last_ping_at, :lease_until, :generation, :attested_until, :boot_epochs,
            (SELECT coalesce(max(id), 0) FROM boot), (SELECT coalesce(max(id), 0) FROM boot),
            :grace, :joined, :shown, :cursor, :heard, :known)
         ON CONFLICT (began_pos) DO UPDATE SET
            session_id = excluded.session_id, session_pubkey = excluded.session_pubkey,
            role = excluded.role, display_name = excluded.display_name, pid = excluded.pid,
            cwd = excluded.cwd, hostname = excluded.hostname, peer_type = excluded.peer_type,
            channel = excluded.channel, model = excluded.model, status = excluded.status,
            status_source = excluded.status_source,
            status_updated_at = excluded.status_updated_at, summary = excluded.summary,
            groups = excluded.groups, visible = excluded.visible, profile = excluded.profile,
            connected_at = excluded.connected_at, last_ping_at = excluded.last_ping_at,
            lease_until = excluded.lease_until, generation = excluded.generation,
            attested_until = excluded.attested_until, boot_epochs = excluded.boot_epochs,
            boot = excluded.boot, lease_boot = excluded.lease_boot, grace = excluded.grace,
            joined_pos = excluded.joined_pos, shown_pos = excluded.shown_pos,
            cursor_pos = excluded.cursor_pos, heard_pos = excluded.heard_pos,
            known_pos = excluded.known_pos, ended_pos = NULL, left_pos = NULL",
    )?
    // In the order of the names above: to look them up by name took a quarter of the statement.
    .execute(params![
        encode::position(row.began)?,
        row.id,
        row.mesh_id,
        row.member_id,
        row.session_id,
        row.session_pubkey.map(|key| key.to_string()),
        row.role.name(),
        row.display_name,
        row.pid,
        row.cwd,
        row.hostname,
        row.peer_type,
        row.channel,
        row.model,
        row.status.name(),
        row.status_source.name(),
        row.status_at.0,
        row.summary,
        encode::json(&row.groups)?,
        row.visible,
        row.profile,
        row.connected_at.0,
        row.last_ping_at.0,
        row.lease_until.map(|until| until.0),
        row.generation,
        row.attested_until.map(|until| until.0),
        row.boot_epochs,
        row.grace.map(encode::millis),
        row.joined.map(encode::position).transpose()?,
        row.shown.map(encode::position).transpose()?,
        encode::position(row.cursor)?,
        encode::position(row.heard)?,
        encode::position(row.known)?,
    ])?;
    conn.prepare_cached(
        "UPDATE presence SET disconnected_at = NULL
         WHERE began_pos = ?1 AND disconnected_at IS NOT NULL",
    )?
    .execute([encode::position(row.began)?])
    .map(drop)
}

/// `read` is how far its session had confirmed, heard, and may know.
pub(super) fn grace(
    conn: &Connection,
    began: Position,
    (until, last_ping_at): (Wall, Wall),
    read: [Position; 3],
) -> rusqlite::Result<()> {
    let [cursor, heard, known] = read;
    conn.prepare_cached(
        "UPDATE presence SET lease_until = ?2, last_ping_at = ?3, cursor_pos = ?4, heard_pos = ?5,
            known_pos = ?6, lease_boot = (SELECT coalesce(max(id), 0) FROM boot)
         WHERE began_pos = ?1",
    )?
    .execute(params![
        encode::position(began)?,
        until.0,
        last_ping_at.0,
        encode::position(cursor)?,
        encode::position(heard)?,
        encode::position(known)?
    ])
    .map(drop)
}

pub(super) fn cursor(conn: &Connection, began: Position, cursor: Position) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE presence SET cursor_pos = ?2 WHERE began_pos = ?1")?
        .execute(params![encode::position(began)?, encode::position(cursor)?])
        .map(drop)
}

/// What belongs to a lease ends with it.
pub(super) fn end(
    conn: &Connection,
    began: Position,
    (at, ended): (Wall, Position),
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE presence SET disconnected_at = ?2, ended_pos = ?3
         WHERE began_pos = ?1 AND disconnected_at IS NULL",
    )?
    .execute(params![
        encode::position(began)?,
        at.0,
        encode::position(ended)?
    ])?;
    watches::end(conn, began)?;
    sharing::unsubscribe_all(conn, began)
}

pub(super) fn told(conn: &Connection, began: Position, told: Told) -> rusqlite::Result<()> {
    let (sql, at) = match told {
        Told::Join(at) => (
            "UPDATE presence SET joined_pos = ?2 WHERE began_pos = ?1",
            at,
        ),
        Told::Leave(at) => ("UPDATE presence SET left_pos = ?2 WHERE began_pos = ?1", at),
    };
    conn.prepare_cached(sql)?
        .execute(params![encode::position(began)?, encode::position(at)?])
        .map(drop)
}

/// What this start grants goes into its own row. Nothing if there is none: a store that was never
/// booted.
pub(super) fn restarted(conn: &Connection, start: &Restart) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE boot SET restored_at = ?1, grace = ?2, max_grace = ?3, restart_grace = ?4,
            heard_pos = ?5 WHERE id = (SELECT max(id) FROM boot)",
    )?
    .execute(params![
        start.at.0,
        encode::millis(start.grace),
        encode::millis(start.max_grace),
        encode::millis(start.restart_grace),
        encode::position(start.heard)?,
    ])
    .map(drop)
}
