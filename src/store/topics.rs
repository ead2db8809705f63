//! Topics, who is in them, what was said in them, and who is notified of it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::encode::{self, Fields};
use crate::core::ids::Seq;
use crate::core::limits::{ANSWER_BYTES_MAX, TOPIC_MESSAGES_MAX};
use crate::core::mint::MessageId;
use crate::core::rows::{
    MessageRow, RecordAnswer, TopicChange, TopicKeyRow, TopicMemberRow, TopicMessage, TopicPost,
    TopicRole, TopicRow, Visibility,
};

/// - `topic.messages`: how many there are in its history, which is bounded.
/// - `topic_message`: the history. `message_queue` has the same messages for a day, to deliver
///   them; here they have the same `seq` and `id`.
/// - `notification`: goes with its message. Its index is of those not read.
/// - No foreign keys, as with messages: nothing that they would refer to is ever deleted.
pub(super) const V12: &str = "
CREATE TABLE topic (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    visibility TEXT NOT NULL CHECK (visibility IN ('public', 'private', 'dm')),
    created_by_member_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0,
    UNIQUE (mesh_id, name)
) STRICT;

CREATE TABLE topic_member (
    topic_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('lead', 'member', 'observer')),
    joined_at INTEGER NOT NULL,
    last_read_at INTEGER,
    PRIMARY KEY (topic_id, member_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE topic_message (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    topic_id TEXT NOT NULL,
    sender_member_id TEXT NOT NULL,
    sender_session_pubkey TEXT,
    nonce TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    body_version INTEGER NOT NULL,
    reply_to_id TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX topic_message_by_topic ON topic_message (topic_id);

CREATE TABLE notification (
    message_seq INTEGER NOT NULL,
    recipient_member_id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    topic_id TEXT NOT NULL,
    sender_member_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    read_at INTEGER,
    PRIMARY KEY (message_seq, recipient_member_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX notification_unread ON notification (topic_id, recipient_member_id)
    WHERE read_at IS NULL;
";

/// Keys of topics, one for each member that has one. `encrypted_key_pubkey` (hex) is the x25519 key
/// that the maker's was sealed with. Topics made before have none.
pub(super) const V14: &str = "
ALTER TABLE topic ADD COLUMN encrypted_key_pubkey TEXT;
CREATE TABLE topic_member_key (
    topic_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    encrypted_key TEXT NOT NULL,
    nonce TEXT NOT NULL,
    PRIMARY KEY (topic_id, member_id)
) STRICT, WITHOUT ROWID;
";

/// Columns of [`topic`].
pub(super) const TOPIC: &str =
    "id, mesh_id, name, description, visibility, created_by_member_id, created_at";

pub(super) fn topic(row: &Row<'_>) -> rusqlite::Result<TopicRow> {
    let fields = &mut Fields::of(row);
    Ok(TopicRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        name: fields.next()?,
        description: fields.next()?,
        visibility: fields.parsed(Visibility::parse)?,
        created_by: fields.next()?,
        created_at: fields.wall()?,
    })
}

/// Columns of [`member`].
pub(super) const MEMBER: &str = "mesh_id, topic_id, member_id, role, joined_at, last_read_at";

pub(super) fn member(row: &Row<'_>) -> rusqlite::Result<TopicMemberRow> {
    let fields = &mut Fields::of(row);
    Ok(TopicMemberRow {
        mesh_id: fields.next()?,
        topic_id: fields.next()?,
        member_id: fields.next()?,
        role: fields.parsed(TopicRole::parse)?,
        joined_at: fields.wall()?,
        last_read_at: fields.optional_wall()?,
    })
}

/// Carries out a change.
pub(super) fn change(conn: &Connection, change: &TopicChange) -> rusqlite::Result<()> {
    match change {
        TopicChange::Created(made) => {
            // Nothing can refuse what follows.
            topic_insert(conn, &made.topic, made.key.as_ref())?;
            member_put(conn, &made.lead)?;
            made.key
                .as_ref()
                .map_or(Ok(()), |key| key_insert(conn, key))
        }
        TopicChange::MemberPut(row) => member_put(conn, row),
        TopicChange::MemberGone {
            topic_id,
            member_id,
            ..
        } => conn
            .prepare_cached("DELETE FROM topic_member WHERE topic_id = ?1 AND member_id = ?2")?
            .execute([topic_id, member_id])
            .map(drop),
    }
}

fn topic_insert(
    conn: &Connection,
    row: &TopicRow,
    key: Option<&TopicKeyRow>,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO topic (id, mesh_id, name, description, visibility, created_by_member_id,
            created_at, encrypted_key_pubkey)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        row.id,
        row.mesh_id,
        row.name,
        row.description,
        row.visibility.name(),
        row.created_by,
        row.created_at.0,
        key.map(|key| &key.sender),
    ])
    .map(drop)
}

fn key_insert(conn: &Connection, row: &TopicKeyRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO topic_member_key (topic_id, member_id, encrypted_key, nonce)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute([
        &row.topic_id,
        &row.member_id,
        &row.encrypted_key,
        &row.nonce,
    ])
    .map(drop)
}

fn member_put(conn: &Connection, row: &TopicMemberRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO topic_member (topic_id, member_id, mesh_id, role, joined_at, last_read_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (topic_id, member_id) DO UPDATE SET role = excluded.role,
            joined_at = excluded.joined_at, last_read_at = excluded.last_read_at",
    )?
    .execute(params![
        row.topic_id,
        row.member_id,
        row.mesh_id,
        row.role.name(),
        row.joined_at.0,
        row.last_read_at.map(|at| at.0),
    ])?;
    let Some(read) = row.last_read_at else {
        return Ok(());
    };
    conn.prepare_cached(
        "UPDATE notification SET read_at = ?3
         WHERE topic_id = ?1 AND recipient_member_id = ?2 AND read_at IS NULL AND created_at <= ?3",
    )?
    .execute(params![row.topic_id, row.member_id, read.0])
    .map(drop)
}

/// Puts a message whose row has just been inserted into the history of its topic; nothing can
/// refuse that. The oldest makes room for it.
pub(super) fn post(conn: &Connection, row: &MessageRow, post: &TopicPost) -> rusqlite::Result<()> {
    let seq = encode::rowid(row.seq)?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO topic_message (seq, id, topic_id, sender_member_id,
            sender_session_pubkey, nonce, ciphertext, body_version, reply_to_id, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        seq,
        row.id.as_str(),
        post.topic_id,
        row.sender_member_id,
        row.sender_session_pubkey.map(|key| key.to_string()),
        row.nonce,
        row.ciphertext,
        post.body_version,
        row.reply_to_id,
        row.created_at.0,
    ])?;
    for recipient in &post.mentions {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO notification (message_seq, recipient_member_id, mesh_id,
                topic_id, sender_member_id, kind, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'mention', ?6)",
        )?
        .execute(params![
            seq,
            recipient,
            row.mesh_id,
            post.topic_id,
            row.sender_member_id,
            row.created_at.0,
        ])?;
    }
    make_room(conn, &post.topic_id)
}

fn make_room(conn: &Connection, topic_id: &str) -> rusqlite::Result<()> {
    let messages: Option<i64> = conn
        .prepare_cached(
            "UPDATE topic SET messages = messages + 1 WHERE id = ?1 RETURNING messages",
        )?
        .query_row([topic_id], |row| row.get(0))
        .optional()?;
    let messages = messages.and_then(|messages| usize::try_from(messages).ok());
    if messages.is_none_or(|messages| messages <= TOPIC_MESSAGES_MAX) {
        return Ok(());
    }
    let oldest: i64 = conn
        .prepare_cached("SELECT min(seq) FROM topic_message WHERE topic_id = ?1")?
        .query_row([topic_id], |row| row.get(0))?;
    for sql in [
        "DELETE FROM notification WHERE message_seq = ?1",
        "DELETE FROM topic_message WHERE seq = ?1",
    ] {
        conn.prepare_cached(sql)?.execute([oldest])?;
    }
    conn.prepare_cached("UPDATE topic SET messages = messages - 1 WHERE id = ?1")?
        .execute([topic_id])
        .map(drop)
}

/// What was said in a topic, the latest first; no more is read than fits into an answer, and one.
pub(super) fn history(
    conn: &Connection,
    topic_id: &str,
    before: Option<Seq>,
    limit: u32,
) -> rusqlite::Result<RecordAnswer> {
    let before = before.map(encode::rowid).transpose()?.unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(
        "SELECT seq, id, sender_member_id, sender_session_pubkey, nonce, ciphertext, body_version,
            reply_to_id, created_at
         FROM topic_message WHERE topic_id = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
    )?;
    let mut rows = statement.query(params![topic_id, before, limit])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()?.filter(|_| bytes <= ANSWER_BYTES_MAX) {
        let message = message(row)?;
        bytes += message.ciphertext.len() + message.nonce.len();
        messages.push(message);
    }
    Ok(RecordAnswer::TopicMessages(messages))
}

fn message(row: &Row<'_>) -> rusqlite::Result<TopicMessage> {
    let fields = &mut Fields::of(row);
    Ok(TopicMessage {
        seq: fields.seq()?,
        id: fields.parsed(MessageId::parse)?,
        sender_member_id: fields.next()?,
        sender_session_pubkey: fields.optional_key()?,
        nonce: fields.next()?,
        ciphertext: fields.next()?,
        body_version: fields.next()?,
        reply_to_id: fields.next()?,
        created_at: fields.wall()?,
    })
}
