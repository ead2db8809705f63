//! What the last process left, read once before the loops accept.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::open::advice;
use super::{apply, encode};
use crate::core::identity::ResumeKey;
use crate::core::ids::{Position, PubKey, Seq};
use crate::core::limits::{LogLimits, REPEATS_MAX};
use crate::core::rows::{BootRow, LogRow, MailboxRow, PresenceRow, SentRow, StoreFailure};
use crate::core::time::Wall;

/// Sequences are given out in memory and a message is pushed before its row is durable, so the
/// last process may have used some above every row. Each boot starts at a multiple of this, past
/// the start of the boot before and past the highest row. So it must be more than a process can
/// use without storing one: 2^28 sends refused in a row take seven hours at ten thousand a
/// second. And message ids can encode about 2^47 sequences: 2^19 boots, six days of one a second.
pub(super) const SEQ_STRIDE: u64 = 1 << 28;

/// Ended presences given to the shards: all of a day with three ends a second.
const ENDED_MAX: usize = 1 << 18;

/// Everything the shards must know.
#[derive(Debug)]
pub struct BootImage {
    /// In the order in which to give them to their home shards: the key of resume tokens, meshes, members, peer states,
    /// presences, ended presences, logs, sends, mailboxes. A presence's `boot_epochs` counts this boot already.
    pub rows: Vec<BootRow>,
    /// The sequence of the next message: above every row, also of those since deleted.
    pub next_seq: Seq,
    /// Rows that could not be understood and were left out (each is logged).
    pub skipped: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// SQLite says no.
    #[error("cannot read {}: {source}{}", .path.display(), advice(.source))]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The store cannot write.
    #[error("{0}")]
    Failing(StoreFailure),
    /// The store is closed.
    #[error("the store is closed")]
    Stopped,
}

/// Counts the boot and reads the image, in one transaction: a boot that fails is not counted.
pub(super) fn read(conn: &mut Connection, log: &LogLimits) -> rusqlite::Result<BootImage> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next_seq = next_seq(&tx)?;
    let boot: i64 = tx.query_row("SELECT coalesce(max(id), 0) + 1 FROM boot", [], |row| {
        row.get(0)
    })?;
    let mut image = BootImage {
        rows: Vec::new(),
        next_seq,
        skipped: 0,
    };
    image.rows.push(BootRow::Resume(resume_key(&tx)?));
    image.read(&tx, "mesh", encode::MESH, "archived_at IS NULL", |row| {
        encode::mesh(row).map(|row| Some(BootRow::Mesh(row)))
    })?;
    image.read(&tx, "member", encode::MEMBER, "TRUE", |row| {
        encode::member(row).map(|row| Some(BootRow::Member(row)))
    })?;
    image.read(&tx, "peer_state", encode::PEER_STATE, "TRUE", |row| {
        encode::peer_state(row).map(|row| Some(BootRow::PeerState(row)))
    })?;
    let before = image.rows.len();
    let columns = format!("{}, boot", encode::PRESENCE);
    image.read(
        &tx,
        "presence",
        &columns,
        "disconnected_at IS NULL",
        |row| presence(row, boot).map(|row| Some(BootRow::Presence(Box::new(row)))),
    )?;
    let presences = i64::try_from(image.rows.len() - before).unwrap_or(i64::MAX);
    image.read_ended(&tx)?;
    let meshes = image.meshes_present();
    let oldest = apply::wall(&tx)?.0 - i64::try_from(log.age.0).unwrap_or(i64::MAX / 2);
    for mesh_id in meshes {
        image.read_log(&tx, mesh_id, log, Wall(oldest))?;
    }
    image.read_sent(&tx)?;
    let mailboxes = "DISTINCT mesh_id, target_spec";
    image.read(
        &tx,
        "message_queue",
        mailboxes,
        "delivered_at IS NULL",
        mailbox,
    )?;
    tx.execute(
        "INSERT INTO boot (id, started_at, version, first_seq, presences)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            boot,
            apply::wall(&tx)?.0,
            env!("CARGO_PKG_VERSION"),
            encode::rowid(next_seq)?,
            presences,
        ],
    )?;
    tx.commit()?;
    Ok(image)
}

/// With the boots since it was put added to its epochs.
fn presence(row: &Row<'_>, boot: i64) -> rusqlite::Result<PresenceRow> {
    let mut presence = encode::presence(row)?;
    let put: i64 = encode::Fields::after(row, encode::PRESENCE).next()?;
    let since = u8::try_from(boot.saturating_sub(put).max(0)).unwrap_or(u8::MAX);
    presence.boot_epochs = presence.boot_epochs.saturating_add(since);
    Ok(presence)
}

/// The key of resume tokens, made at the first boot.
fn resume_key(conn: &Connection) -> rusqlite::Result<ResumeKey> {
    let made: Option<[u8; 32]> = conn
        .query_row(
            "SELECT value FROM secret WHERE name = 'resume'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(key) = made {
        return Ok(ResumeKey(key));
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    conn.execute(
        "INSERT INTO secret (name, value) VALUES ('resume', ?1)",
        [key],
    )?;
    Ok(ResumeKey(key))
}

fn next_seq(conn: &Connection) -> rusqlite::Result<Seq> {
    // Retention never deletes the highest row, so this is the highest ever stored.
    let last_row: Option<i64> =
        conn.query_row("SELECT max(seq) FROM message_queue", [], |row| row.get(0))?;
    let last_boot: Option<i64> = conn
        .query_row(
            "SELECT first_seq FROM boot ORDER BY id DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let used = last_row.max(last_boot).unwrap_or(0);
    let used = u64::try_from(used).unwrap_or(0);
    Ok(Seq((used / SEQ_STRIDE)
        .saturating_add(1)
        .saturating_mul(SEQ_STRIDE)))
}

/// Only keys have mailboxes: an undelivered row for anything else is nobody's.
fn mailbox(row: &Row<'_>) -> rusqlite::Result<Option<BootRow>> {
    let mut fields = encode::Fields::of(row);
    let mesh_id = fields.next()?;
    let target: String = fields.next()?;
    let target = PubKey::parse(&target);
    Ok(target.map(|target| BootRow::Mailbox(MailboxRow { mesh_id, target })))
}

impl BootImage {
    /// The presences that ended last, oldest first: their keys are still known, and their ends may
    /// be news.
    fn read_ended(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let before = self.rows.len();
        let last =
            format!("disconnected_at IS NOT NULL ORDER BY disconnected_at DESC LIMIT {ENDED_MAX}");
        self.read(conn, "presence", encode::ENDED, &last, |row| {
            encode::ended(row).map(|row| Some(BootRow::Ended(Box::new(row))))
        })?;
        self.rows[before..].reverse();
        Ok(())
    }

    /// Meshes in which somebody is present: only they have a log.
    fn meshes_present(&self) -> BTreeSet<String> {
        let rows = self.rows.iter();
        rows.filter_map(|row| {
            if let BootRow::Presence(row) = row {
                Some(row.mesh_id.clone())
            } else {
                None
            }
        })
        .collect()
    }

    /// What was said to many in a mesh, from the last backwards until the limits of its log.
    fn read_log(
        &mut self,
        conn: &Connection,
        mesh_id: String,
        log: &LogLimits,
        oldest: Wall,
    ) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT {} FROM message_queue WHERE mesh_id = ?1 AND position IS NOT NULL
             ORDER BY position DESC",
            encode::MESSAGE
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([&mesh_id])?;
        let (mut said, mut bytes, mut since) = (Vec::new(), 0, Position::default());
        while let Some(row) = rows.next()? {
            let row = match encode::message(row) {
                Ok(row) => row,
                Err(error) => {
                    self.leave_out("message_queue", &error);
                    continue;
                }
            };
            bytes += row.ciphertext.len();
            if said.len() >= log.entries || bytes > log.bytes || row.created_at < oldest {
                since = row.position.unwrap_or_default();
                break;
            }
            said.push(BootRow::Said(Box::new(row)));
        }
        said.reverse();
        self.rows.append(&mut said);
        self.rows.push(BootRow::Log(LogRow { mesh_id, since }));
        Ok(())
    }

    /// The last sends that their senders named, oldest first.
    fn read_sent(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let before = self.rows.len();
        let last = format!("client_message_id IS NOT NULL ORDER BY seq DESC LIMIT {REPEATS_MAX}");
        let columns = "mesh_id, sender_member_id, client_message_id";
        self.read(conn, "message_queue", columns, &last, |row| {
            let mut fields = encode::Fields::of(row);
            Ok(Some(BootRow::Sent(SentRow {
                mesh_id: fields.next()?,
                sender_member_id: fields.next()?,
                client_message_id: fields.next()?,
            })))
        })?;
        self.rows[before..].reverse();
        Ok(())
    }

    fn leave_out(&mut self, table: &'static str, error: &rusqlite::Error) {
        self.skipped += 1;
        tracing::error!(table, %error, "a row was left out");
    }

    /// One damaged row must not keep all others from their leases: it is left out.
    fn read(
        &mut self,
        conn: &Connection,
        table: &'static str,
        columns: &str,
        condition: &str,
        mut decode: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<BootRow>>,
    ) -> rusqlite::Result<()> {
        let sql = format!("SELECT {columns} FROM {table} WHERE {condition}");
        let mut statement = conn.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match decode(row) {
                Ok(decoded) => self.rows.extend(decoded),
                Err(error) => self.leave_out(table, &error),
            }
        }
        Ok(())
    }
}
