//! Each [`StoreOp`] and each question as SQL.
//!
//! An operation is one statement, and perhaps further ones that no constraint can refuse, so that
//! SQLite undoes a refused one by itself and the rest of its transaction stands: no savepoints.

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::audit::Chains;
use super::merge::Merged;
use super::{encode, sharing, topics};
use crate::core::ids::{PubKey, Seq};
use crate::core::rows::{MessageRow, Origin, PeerStateRow, StoreAnswer, StoreOp, StoreQuery};
use crate::core::time::Wall;

mod presences;
mod schedules;
mod servers;
mod watches;

/// Carries out one operation inside the current transaction. Returns by how much the number of
/// undelivered rows changed.
pub(super) fn apply(
    conn: &Connection,
    (chains, merged): (&mut Chains, &mut Merged),
    op: &StoreOp,
) -> rusqlite::Result<i64> {
    #[cfg(test)]
    super::tests::panic_if_told(op);
    match op {
        StoreOp::PresencePut(row) => presences::put(conn, row).map(|()| 0),
        StoreOp::PresenceGrace {
            began,
            until,
            last_ping_at,
            cursor,
            heard,
            known,
            ..
        } => {
            let read = [*cursor, *heard, *known];
            presences::grace(conn, *began, (*until, *last_ping_at), read).map(|()| 0)
        }
        StoreOp::PresenceCursor { began, cursor, .. } => {
            presences::cursor(conn, *began, *cursor).map(|()| 0)
        }
        StoreOp::PresenceEnd {
            began, at, ended, ..
        } => presences::end(conn, *began, (*at, *ended)).map(|()| 0),
        StoreOp::StateSet { row, audit } => {
            sharing::state_set(conn, chains, (row, audit)).map(|()| 0)
        }
        StoreOp::StreamCreate(row) => sharing::stream_create(conn, row).map(|()| 0),
        StoreOp::Subscribed {
            began,
            stream,
            subscribed,
            ..
        } => sharing::subscribed(conn, *began, (stream, *subscribed)).map(|()| 0),
        StoreOp::PresenceTold { began, told, .. } => {
            presences::told(conn, *began, *told).map(|()| 0)
        }
        StoreOp::Restarted(start) => presences::restarted(conn, start).map(|()| 0),
        StoreOp::PeerStatePut(row) => peer_state_put(conn, row).map(|()| 0),
        StoreOp::MessageInsert(row) => message_sent(conn, (chains, merged), row),
        StoreOp::MessageDelivered { seq, .. } if merged.at(*seq).is_some() => Ok(0),
        StoreOp::MessageDelivered { seq, at } => message_delivered(conn, *seq, *at),
        StoreOp::MessageAcked {
            mesh_id,
            seq,
            client_message_id,
            keys,
            at,
        } => {
            let acked = Acked {
                mesh_id,
                keys,
                at: *at,
            };
            message_acked(conn, &acked, *seq, client_message_id.as_deref())
        }
        StoreOp::Audit(row) => chains.append(conn, row).map(|()| 0),
        StoreOp::Fence => Ok(0),
        StoreOp::MemberRevoked { id, at } => member_revoked(conn, id, *at).map(|()| 0),
        StoreOp::SchedulePut(row) => schedules::put(conn, row).map(|()| 0),
        StoreOp::ScheduleCancelled { id } => schedules::delete(conn, id).map(|()| 0),
        StoreOp::ScheduleFired { id, sent, next } => {
            schedules::fired(conn, chains, (id, sent.as_deref(), *next))
        }
        StoreOp::ServerPut(row) => servers::put(conn, row).map(|()| 0),
        StoreOp::ServerRemoved { mesh_id, name } => {
            servers::delete(conn, mesh_id, name).map(|()| 0)
        }
        StoreOp::Topic(change) => topics::change(conn, change).map(|()| 0),
        StoreOp::WatchPut(row) => watches::put(conn, row).map(|()| 0),
        StoreOp::WatchRemoved { began, id } => watches::delete(conn, *began, *id).map(|()| 0),
    }
}

fn member_revoked(conn: &Connection, id: &str, at: Option<Wall>) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE member SET revoked_at = ?2 WHERE id = ?1")?
        .execute(params![id, at.map(|at| at.0)])
        .map(drop)
}

fn fewer(rows: usize) -> i64 {
    i64::try_from(rows).map_or(0, |rows| -rows)
}

fn peer_state_put(conn: &Connection, row: &PeerStateRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO peer_state (mesh_id, member_id, groups, profile, visible, last_summary,
            last_display_name, cumulative_stats, last_seen_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?9)
         ON CONFLICT (mesh_id, member_id) DO UPDATE SET groups = excluded.groups,
            profile = excluded.profile, visible = excluded.visible,
            last_summary = excluded.last_summary,
            last_display_name = excluded.last_display_name,
            cumulative_stats = excluded.cumulative_stats,
            last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at",
    )?
    .execute(params![
        row.mesh_id,
        row.member_id,
        encode::json(&row.groups)?,
        row.profile,
        row.visible,
        row.last_summary,
        row.last_display_name,
        encode::json(&row.stats)?,
        row.last_seen_at.0,
    ])
    .map(drop)
}

fn message_insert(
    conn: &Connection,
    row: &MessageRow,
    delivered: Option<Wall>,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO message_queue (seq, id, mesh_id, sender_member_id, sender_member_pubkey,
            sender_session_pubkey, sender_name, target_spec, priority, nonce, ciphertext,
            created_at, delivered_at, client_message_id, request_fingerprint, reply_to_id, position,
            deferred, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
            ?19)",
    )?
    .execute(params![
        encode::rowid(row.seq)?,
        row.id.as_str(),
        row.mesh_id,
        row.sender_member_id,
        row.sender_member_pubkey.to_string(),
        row.sender_session_pubkey.map(|key| key.to_string()),
        row.sender_name,
        row.target_spec,
        row.priority.name(),
        row.nonce,
        row.ciphertext,
        row.created_at.0,
        delivered.map(|at| at.0),
        row.client_message_id,
        row.request_fingerprint,
        row.reply_to_id,
        row.position.map(encode::position).transpose()?,
        row.deferred,
        (row.origin != Origin::Sent).then(|| row.origin.name()),
    ])?;
    match &row.post {
        Some(post) => topics::post(conn, row, post),
        None => Ok(()),
    }
}

/// If the row is refused, nothing is audited; an audit entry has nothing to be refused.
fn message_sent(
    conn: &Connection,
    (chains, merged): (&mut Chains, &mut Merged),
    row: &MessageRow,
) -> rusqlite::Result<i64> {
    let delivered = row.delivered_at.or_else(|| merged.at(row.seq));
    message_insert(conn, row, delivered).inspect_err(|_| merged.refused(row.seq))?;
    chains.append_sent(conn, row)?;
    Ok(i64::from(delivered.is_none()))
}

fn message_delivered(conn: &Connection, seq: Seq, at: Wall) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "UPDATE message_queue SET delivered_at = ?2 WHERE seq = ?1 AND delivered_at IS NULL",
    )?
    .execute(params![encode::rowid(seq)?, at.0])
    .map(fewer)
}

struct Acked<'a> {
    mesh_id: &'a str,
    keys: &'a [PubKey],
    at: Wall,
}

impl Acked<'_> {
    /// One statement per key, so that each is a lookup; none can be refused by a constraint.
    fn mark(&self, conn: &Connection, sql: &str, name: &dyn ToSql) -> rusqlite::Result<usize> {
        let mut rows = 0;
        for key in self.keys {
            rows += conn.prepare_cached(sql)?.execute(params![
                name,
                self.mesh_id,
                key.to_string(),
                self.at.0
            ])?;
        }
        Ok(rows)
    }
}

/// By primary key.
const ACKED_BY_SEQ: &str = "UPDATE message_queue SET delivered_at = ?4
    WHERE seq = ?1 AND mesh_id = ?2 AND target_spec = ?3 AND delivered_at IS NULL";

/// By that index, since the planner knows nothing of how long mailboxes are.
pub(super) const ACKED_BY_CLIENT_ID: &str =
    "UPDATE message_queue INDEXED BY message_by_name SET delivered_at = ?4
    WHERE client_message_id = ?1 AND mesh_id = ?2 AND target_spec = ?3 AND delivered_at IS NULL";

/// The sender's id is looked for only if the broker's finds nothing.
fn message_acked(
    conn: &Connection,
    acked: &Acked<'_>,
    seq: Option<Seq>,
    client_message_id: Option<&str>,
) -> rusqlite::Result<i64> {
    let mut rows = 0;
    if let Some(seq) = seq {
        rows = acked.mark(conn, ACKED_BY_SEQ, &encode::rowid(seq)?)?;
    }
    if let Some(client_message_id) = client_message_id.filter(|_| rows == 0) {
        rows = acked.mark(conn, ACKED_BY_CLIENT_ID, &client_message_id)?;
    }
    Ok(fewer(rows))
}

/// Answers a question from what this connection sees.
pub(super) fn answer(conn: &Connection, query: &StoreQuery) -> rusqlite::Result<StoreAnswer> {
    #[cfg(test)]
    super::tests::fail_if_told(conn, query)?;
    match query {
        StoreQuery::Mailbox {
            mesh_id,
            target,
            after,
            limit,
        } => {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT {} FROM message_queue WHERE mesh_id = ?1 AND target_spec = ?2 AND seq > ?3
                 AND delivered_at IS NULL ORDER BY seq LIMIT ?4",
                encode::MESSAGE
            ))?;
            // One more than asked for tells whether there are more.
            let bound = params![
                mesh_id,
                target.to_string(),
                encode::rowid(*after)?,
                i64::from(*limit) + 1
            ];
            let mut rows = statement
                .query_map(bound, encode::message)?
                .collect::<rusqlite::Result<Vec<MessageRow>>>()?;
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            let more = rows.len() > limit;
            rows.truncate(limit);
            Ok(StoreAnswer::Mailbox { rows, more })
        }
        StoreQuery::Message { seq } => message(conn, *seq),
        StoreQuery::Sent {
            mesh_id,
            sender_member_id,
            client_message_id,
        } => {
            let row = conn
                .prepare_cached(&format!(
                    "SELECT {} FROM message_queue WHERE mesh_id = ?1 AND sender_member_id = ?2
                     AND client_message_id = ?3 ORDER BY seq LIMIT 1",
                    encode::MESSAGE
                ))?
                .query_row(
                    [mesh_id, sender_member_id, client_message_id],
                    encode::message,
                )
                .optional()?;
            Ok(StoreAnswer::Message(row.map(Box::new)))
        }
        StoreQuery::Records(query) => super::records::answer(conn, query).map(StoreAnswer::Records),
    }
}

/// One message by primary key.
pub(super) fn message(conn: &Connection, seq: Seq) -> rusqlite::Result<StoreAnswer> {
    let row = conn
        .prepare_cached(&format!(
            "SELECT {} FROM message_queue WHERE seq = ?1",
            encode::MESSAGE
        ))?
        .query_row([encode::rowid(seq)?], encode::message)
        .optional()?;
    Ok(StoreAnswer::Message(row.map(Box::new)))
}

/// How many messages no recipient has confirmed; read from the partial index alone.
pub(super) fn undelivered(conn: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = conn.query_row(
        "SELECT count(*) FROM message_queue WHERE delivered_at IS NULL",
        [],
        |row| row.get(0),
    )?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// SQLite's clock, so that the store reads none of its own. For rows and retention only: nothing
/// that peers see is decided by it.
pub(super) fn wall(conn: &Connection) -> rusqlite::Result<Wall> {
    conn.prepare_cached("SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)")?
        .query_row([], |row| row.get(0))
        .map(Wall)
}
