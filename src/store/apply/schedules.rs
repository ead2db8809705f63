//! Scheduled messages as SQL.

use rusqlite::{Connection, params};

use super::{Chains, message_insert};
use crate::core::rows::{MessageRow, ScheduleRow};
use crate::core::time::Wall;

pub(super) fn put(conn: &Connection, row: &ScheduleRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO scheduled_message (id, mesh_id, member_id, presence_id, session_pubkey,
            sender_name, send_to, target_spec, message, deliver_at, cron, reminder, fired_count,
            created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        row.id,
        row.mesh_id,
        row.member_id,
        row.presence_id,
        row.session_pubkey.map(|key| key.to_string()),
        row.sender_name,
        row.to,
        row.target_spec,
        row.message,
        row.deliver_at.0,
        row.cron,
        row.reminder,
        row.fired_count,
        row.created_at.0,
    ])
    .map(drop)
}

pub(super) fn delete(conn: &Connection, id: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM scheduled_message WHERE id = ?1")?
        .execute([id])
        .map(drop)
}

/// The message first, since only its row can be refused. Returns by how much the number of
/// undelivered rows changed.
pub(super) fn fired(
    conn: &Connection,
    chains: &mut Chains,
    (id, sent, next): (&str, Option<&MessageRow>, Option<Wall>),
) -> rusqlite::Result<i64> {
    if let Some(row) = sent {
        message_insert(conn, row, row.delivered_at)?;
        chains.append_sent(conn, row)?;
    }
    match next {
        Some(next) => conn
            .prepare_cached(
                "UPDATE scheduled_message SET deliver_at = ?2, fired_count = fired_count + 1
                 WHERE id = ?1",
            )?
            .execute(params![id, next.0])
            .map(drop)?,
        None => delete(conn, id)?,
    }
    let undelivered = sent.is_some_and(|row| row.delivered_at.is_none());
    Ok(i64::from(undelivered))
}
