//! The tables, as numbered migrations, and how to tell a file of ours from another.
//!
//! Times are Unix milliseconds, keys are lower-case hex, JSON is text. Tables are STRICT, so that
//! what is written is what the types here say.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::OpenError;

/// `HFst`: marks the file as ours (PRAGMA `application_id`).
const APPLICATION_ID: i64 = 0x4846_7374;

/// Migration `n` (counted from 1) leads from version `n - 1` to `n`. Released ones never change.
pub(super) const MIGRATIONS: &[&str] = &[
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    V8,
    V9,
    super::records::V10,
    V11,
    super::topics::V12,
    V13,
    super::topics::V14,
];

/// Notes on the choices:
/// - `presence`: one index on `disconnected_at` finds both what boot wants (NULL) and what
///   retention wants (oldest). Nobody asks by member, so there is no index on it.
/// - `presence.boot` is the boot in which the row was put: later boots add to `boot_epochs` by
///   being later, and write to no presence.
/// - `message_queue`: `seq` is the rowid, given by the core, and inserts append. The partial index
///   ends with the rowid, as every index does, so a mailbox is one range in order; delivered rows
///   are not in it. No index on `id`: it encodes `seq`.
/// - `message_queue`, `audit_log`: no foreign keys. They are written on every send, and members
///   are never deleted.
/// - `audit_log`: never deleted from, so a plain rowid ascends.
/// - `probe`: written to and emptied again to find out whether a failing disk is back.
const V1: &str = "
CREATE TABLE mesh (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    owner_user_id TEXT,
    owner_pubkey TEXT NOT NULL,
    owner_secret_key TEXT NOT NULL,
    root_key TEXT NOT NULL,
    self_editable TEXT,
    visibility TEXT NOT NULL DEFAULT 'private',
    transport TEXT NOT NULL DEFAULT 'managed',
    tier TEXT NOT NULL DEFAULT 'free',
    max_peers INTEGER,
    created_at INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;

CREATE TABLE member (
    id TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    user_id TEXT,
    peer_pubkey TEXT NOT NULL,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    role_tag TEXT,
    default_groups TEXT NOT NULL DEFAULT '[]',
    message_mode TEXT NOT NULL DEFAULT 'push',
    dashboard_user_id TEXT,
    joined_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    revoked_at INTEGER,
    peer_grants TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE UNIQUE INDEX member_active_key ON member (mesh_id, peer_pubkey) WHERE revoked_at IS NULL;

CREATE TABLE presence (
    id TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    member_id TEXT NOT NULL REFERENCES member(id),
    session_id TEXT NOT NULL,
    session_pubkey TEXT,
    role TEXT NOT NULL,
    display_name TEXT NOT NULL,
    pid INTEGER NOT NULL,
    cwd TEXT NOT NULL,
    hostname TEXT,
    peer_type TEXT,
    channel TEXT,
    model TEXT,
    status TEXT NOT NULL,
    status_source TEXT NOT NULL,
    status_updated_at INTEGER NOT NULL,
    summary TEXT,
    groups TEXT NOT NULL,
    visible INTEGER NOT NULL,
    profile TEXT NOT NULL,
    connected_at INTEGER NOT NULL,
    last_ping_at INTEGER NOT NULL,
    lease_until INTEGER,
    generation INTEGER NOT NULL,
    attested_until INTEGER,
    boot_epochs INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    disconnected_at INTEGER
) STRICT;
CREATE INDEX presence_by_end ON presence (disconnected_at);

CREATE TABLE peer_state (
    id INTEGER PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    member_id TEXT NOT NULL REFERENCES member(id),
    groups TEXT NOT NULL,
    profile TEXT NOT NULL,
    visible INTEGER NOT NULL,
    last_summary TEXT,
    last_display_name TEXT,
    cumulative_stats TEXT NOT NULL,
    last_seen_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (mesh_id, member_id)
) STRICT;

CREATE TABLE message_queue (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    sender_member_id TEXT NOT NULL,
    sender_member_pubkey TEXT NOT NULL,
    sender_session_pubkey TEXT,
    sender_name TEXT NOT NULL,
    target_spec TEXT NOT NULL,
    priority TEXT NOT NULL,
    nonce TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    delivered_at INTEGER,
    client_message_id TEXT,
    request_fingerprint TEXT,
    reply_to_id TEXT
) STRICT;
CREATE INDEX message_undelivered ON message_queue (mesh_id, target_spec)
    WHERE delivered_at IS NULL;

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY,
    mesh_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    actor_member_id TEXT,
    actor_display_name TEXT,
    payload TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_by_mesh ON audit_log (mesh_id);

CREATE TABLE boot (
    id INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL,
    version TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    presences INTEGER NOT NULL
) STRICT;

CREATE TABLE probe (
    id INTEGER PRIMARY KEY,
    filler BLOB NOT NULL
) STRICT;
";

/// `presence.told`: what others were told of it: 0 nothing, 1 that it joined, 2 that it left. Of
/// those that were there before, all that is known is that they did not end untold.
const V2: &str = "
ALTER TABLE presence ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE presence SET told = CASE WHEN disconnected_at IS NULL THEN 1 ELSE 2 END;
";

/// A message confirmed by the sender's id is found without reading the whole mailbox it is in.
const V3: &str = "
CREATE INDEX message_by_client_id ON message_queue (mesh_id, target_spec, client_message_id)
    WHERE delivered_at IS NULL AND client_message_id IS NOT NULL;
";

/// Positions (columns `*_pos`) order what a mesh was told: where a lease began and ended, where
/// others were told that it joined, left and last hid or showed itself (which takes the place of
/// `told`), up to where the session itself has heard. Rows from before know only that.
///
/// - `presence.grace`: how long it stays without a socket.
/// - `secret`: keys that only this broker uses, made when they are first wanted.
/// - `message_queue.position`: of messages to many; by it their mesh's log is read back.
/// - `message_queue.deferred`: part of the answer, should the sender ask again.
const V4: &str = "
ALTER TABLE presence ADD COLUMN grace INTEGER;
ALTER TABLE presence ADD COLUMN began_pos INTEGER NOT NULL DEFAULT 0;
ALTER TABLE presence ADD COLUMN ended_pos INTEGER;
ALTER TABLE presence ADD COLUMN joined_pos INTEGER;
ALTER TABLE presence ADD COLUMN left_pos INTEGER;
ALTER TABLE presence ADD COLUMN shown_pos INTEGER;
ALTER TABLE presence ADD COLUMN cursor_pos INTEGER NOT NULL DEFAULT 0;
ALTER TABLE presence ADD COLUMN heard_pos INTEGER NOT NULL DEFAULT 0;
ALTER TABLE presence ADD COLUMN known_pos INTEGER NOT NULL DEFAULT 0;
UPDATE presence SET began_pos = rowid,
    ended_pos = CASE WHEN disconnected_at IS NOT NULL THEN 0 END,
    joined_pos = CASE WHEN told >= 1 THEN 0 END,
    left_pos = CASE WHEN told = 2 THEN 0 END;
ALTER TABLE presence DROP COLUMN told;
ALTER TABLE message_queue ADD COLUMN position INTEGER;
ALTER TABLE message_queue ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0;
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
CREATE INDEX message_to_many ON message_queue (mesh_id, position) WHERE position IS NOT NULL;
CREATE INDEX message_by_sender ON message_queue (mesh_id, sender_member_id, client_message_id)
    WHERE client_message_id IS NOT NULL;
";

/// What a start grants to the leases it finds is in its row of `boot`, not in theirs; all NULL if it
/// ended before it could grant anything. `presence.lease_boot` is the boot in which the row was
/// last written as a lease: later ones have extended it since.
const V5: &str = "
ALTER TABLE presence ADD COLUMN lease_boot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE boot ADD COLUMN restored_at INTEGER;
ALTER TABLE boot ADD COLUMN grace INTEGER;
ALTER TABLE boot ADD COLUMN max_grace INTEGER;
ALTER TABLE boot ADD COLUMN restart_grace INTEGER;
ALTER TABLE boot ADD COLUMN heard_pos INTEGER;
";

/// The key of a presence is where it began, which rises, rather than its id, which is random: a row
/// is found without an index, and those of one time lie together. Nobody asks by id. An earlier
/// broker gave no place twice.
const V6: &str = "
CREATE TABLE presence_by_place (
    began_pos INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    member_id TEXT NOT NULL REFERENCES member(id),
    session_id TEXT NOT NULL,
    session_pubkey TEXT,
    role TEXT NOT NULL,
    display_name TEXT NOT NULL,
    pid INTEGER NOT NULL,
    cwd TEXT NOT NULL,
    hostname TEXT,
    peer_type TEXT,
    channel TEXT,
    model TEXT,
    status TEXT NOT NULL,
    status_source TEXT NOT NULL,
    status_updated_at INTEGER NOT NULL,
    summary TEXT,
    groups TEXT NOT NULL,
    visible INTEGER NOT NULL,
    profile TEXT NOT NULL,
    connected_at INTEGER NOT NULL,
    last_ping_at INTEGER NOT NULL,
    lease_until INTEGER,
    generation INTEGER NOT NULL,
    attested_until INTEGER,
    boot_epochs INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    lease_boot INTEGER NOT NULL,
    grace INTEGER,
    ended_pos INTEGER,
    joined_pos INTEGER,
    left_pos INTEGER,
    shown_pos INTEGER,
    cursor_pos INTEGER NOT NULL,
    heard_pos INTEGER NOT NULL,
    known_pos INTEGER NOT NULL,
    disconnected_at INTEGER
) STRICT;
INSERT INTO presence_by_place
    SELECT began_pos, id, mesh_id, member_id, session_id, session_pubkey, role, display_name, pid,
        cwd, hostname, peer_type, channel, model, status, status_source, status_updated_at, summary,
        groups, visible, profile, connected_at, last_ping_at, lease_until, generation,
        attested_until, boot_epochs, boot, lease_boot, grace, ended_pos, joined_pos, left_pos,
        shown_pos, cursor_pos, heard_pos, known_pos, disconnected_at
    FROM presence ORDER BY began_pos;
DROP TABLE presence;
ALTER TABLE presence_by_place RENAME TO presence;
CREATE INDEX presence_by_end ON presence (disconnected_at);
";

/// One index by the sender's id for both who look by it, instead of two: within a mesh it is of few
/// senders, and of each once. Nothing is removed from it when a message is confirmed.
const V7: &str = "
DROP INDEX message_by_client_id;
DROP INDEX message_by_sender;
CREATE INDEX message_by_name ON message_queue (mesh_id, client_message_id, sender_member_id)
    WHERE client_message_id IS NOT NULL;
";

/// `invite.token` is what clients are given and what they are found by.
const V8: &str = "
CREATE TABLE invite (
    id TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    token TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    max_uses INTEGER NOT NULL,
    used_count INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX invite_by_mesh ON invite (mesh_id);
";

/// Shared state, streams, and who is subscribed. `subscription` goes by where a presence began, as
/// operations do; it is written when somebody subscribes, and emptied with the end of a presence.
const V9: &str = "
CREATE TABLE state (
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_by_name TEXT NOT NULL,
    updated_by_began INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, key)
) STRICT;
CREATE TABLE stream (
    id TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    name TEXT NOT NULL,
    created_by_name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (mesh_id, name)
) STRICT;
CREATE TABLE subscription (
    began_pos INTEGER NOT NULL,
    stream TEXT NOT NULL,
    PRIMARY KEY (began_pos, stream)
) STRICT, WITHOUT ROWID;
";

/// - `message_queue.origin`: how it came to be sent; NULL if by a session.
/// - `mcp_server.host_pos`: where the lease of its host began (`presence.began_pos`); NULL while it
///   waits for its host.
/// - `scheduled_message`: what is still to be sent. Rows go when they have fired for the last time,
///   or are cancelled.
const V11: &str = "
ALTER TABLE message_queue ADD COLUMN origin TEXT;
CREATE TABLE scheduled_message (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    member_id TEXT NOT NULL REFERENCES member(id),
    presence_id TEXT NOT NULL,
    session_pubkey TEXT,
    sender_name TEXT NOT NULL,
    send_to TEXT NOT NULL,
    target_spec TEXT NOT NULL,
    message TEXT NOT NULL,
    deliver_at INTEGER NOT NULL,
    cron TEXT,
    reminder INTEGER NOT NULL,
    fired_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE mcp_server (
    mesh_id TEXT NOT NULL REFERENCES mesh(id),
    name TEXT NOT NULL,
    member_id TEXT NOT NULL REFERENCES member(id),
    role TEXT NOT NULL,
    session_pubkey TEXT,
    host_pos INTEGER,
    offline_since INTEGER,
    hosted_by TEXT NOT NULL,
    description TEXT NOT NULL,
    tools TEXT NOT NULL,
    persistent INTEGER NOT NULL,
    told_pos INTEGER NOT NULL,
    told_at INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, name)
) STRICT;
";

/// A watch is found by its lease, with which it goes. `value` is what its owner knows of.
const V13: &str = "
CREATE TABLE watch (
    began_pos INTEGER NOT NULL,
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    url TEXT NOT NULL,
    mode TEXT NOT NULL,
    extract TEXT,
    interval INTEGER NOT NULL,
    notify_on TEXT NOT NULL,
    headers TEXT NOT NULL,
    label TEXT,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (began_pos, id)
) STRICT, WITHOUT ROWID;
";

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Whether the file is new or ours, and not from the future. Changes nothing.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = match number("application_id") {
        Ok(id) => id,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(OpenError::NotADatabase(path.to_owned()));
        }
        Err(error) => return Err(OpenError::sqlite(path)(error)),
    };
    let found = number("user_version").map_err(OpenError::sqlite(path))?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(OpenError::sqlite(path))?;
    let fresh = application == 0 && found == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if found > known() {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: known(),
        });
    }
    Ok(())
}

/// Brings the file up to date. Each migration is one transaction with its new version in it, so a
/// crash leaves the file at some version, never between two.
pub(super) fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, migration) in (1_i64..).zip(MIGRATIONS) {
        if version <= found {
            continue;
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}
