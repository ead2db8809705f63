//! What the last process left, read once before the loops accept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::open::advice;
use super::{apply, encode, sharing, topics};
use crate::core::identity::ResumeKey;
use crate::core::ids::{Position, PubKey, Seq};
use crate::core::limits::{LogLimits, REPEATS_MAX};
use crate::core::rows::{
    BootRow, LogRow, MailboxRow, PresenceRow, Restart, SentRow, StoreFailure, SubscriptionRow,
};
use crate::core::time::Wall;

/// Sequences are given out in memory and a message is pushed before its row is durable, so the
/// last process may have used some above every row. Each boot starts at a multiple of this, past
/// the start of the boot before and past the highest row. So it must be more than a process can
/// use without storing one: 2^28 sends refused in a row take seven hours at ten thousand a
/// second. And message ids can encode about 2^47 sequences: 2^19 boots, six days of one a second.
pub(super) const SEQ_STRIDE: u64 = 1 << 28;

/// Ended presences given to the shards: all of a day with three ends a second.
const ENDED_MAX: i64 = 1 << 18;

/// Rows given at a time.
const BATCH: usize = 256;

/// Takes the rows as they are read, in the order in which to give them to their home shards: the
/// key of resume tokens, meshes, members, peer states, shared state, streams, topics and who is in
/// them, watches, presences with their subscriptions, ended presences, MCP servers, logs, sends, mailboxes,
/// scheduled messages. A presence is as the starts since it was written have left it, and its
/// `boot_epochs` count this boot already.
pub(super) type Deliver<'a> = &'a mut (dyn FnMut(Vec<BootRow>) + 'a);

/// What has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Rows given.
    pub rows: usize,
    /// Rows that could not be understood and were left out (each is logged).
    pub skipped: usize,
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

/// Counts the boot and reads all rows, in one transaction: a boot that fails is not counted.
pub(super) fn read(
    conn: &mut Connection,
    log: &LogLimits,
    deliver: Deliver<'_>,
) -> rusqlite::Result<Image> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next_seq = next_seq(&tx)?;
    let boot: i64 = tx.query_row("SELECT coalesce(max(id), 0) + 1 FROM boot", [], |row| {
        row.get(0)
    })?;
    let mut reading = Reading::new(deliver);
    reading.give(BootRow::Resume(resume_key(&tx)?));
    reading.read(&tx, "mesh", encode::MESH, "archived_at IS NULL", |row| {
        encode::mesh(row).map(|row| Some(BootRow::Mesh(row)))
    })?;
    reading.read(&tx, "member", encode::MEMBER, "TRUE", |row| {
        encode::member(row).map(|row| Some(BootRow::Member(row)))
    })?;
    reading.read(&tx, "peer_state", encode::PEER_STATE, "TRUE", |row| {
        encode::peer_state(row).map(|row| Some(BootRow::PeerState(row)))
    })?;
    reading.read_shared(&tx)?;
    let (presences, meshes) = reading.read_presences(&tx, boot)?;
    reading.read_ended(&tx)?;
    reading.read(&tx, "mcp_server", encode::SERVER, "TRUE", |row| {
        encode::server(row).map(|row| Some(BootRow::Server(Box::new(row))))
    })?;
    let oldest = apply::wall(&tx)?.0 - i64::try_from(log.age.0).unwrap_or(i64::MAX / 2);
    for mesh_id in meshes {
        reading.read_log(&tx, mesh_id, log, Wall(oldest))?;
    }
    reading.read_sent(&tx)?;
    let mailboxes = "DISTINCT mesh_id, target_spec";
    reading.read(
        &tx,
        "message_queue",
        mailboxes,
        "delivered_at IS NULL",
        mailbox,
    )?;
    let all = "TRUE ORDER BY number";
    reading.read(&tx, "scheduled_message", encode::SCHEDULE, all, |row| {
        encode::schedule(row).map(|row| Some(BootRow::Schedule(Box::new(row))))
    })?;
    let image = reading.end();
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

/// What earlier starts have granted, by boot, ascending.
struct Restarts(Vec<(i64, Restart)>);

impl Restarts {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let sql = format!(
            "SELECT {}, id FROM boot WHERE restored_at IS NOT NULL ORDER BY id",
            encode::RESTART
        );
        let mut statement = conn.prepare(&sql)?;
        let restart = |row: &Row<'_>| {
            let fields = &mut encode::Fields::of(row);
            let restart = encode::restart_of(fields)?;
            Ok((fields.next()?, restart))
        };
        statement
            .query_map([], restart)?
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The row of a presence as the starts since have left it, at the boot `boot`.
    fn presence(&self, row: &Row<'_>, boot: i64) -> rusqlite::Result<PresenceRow> {
        let fields = &mut encode::Fields::of(row);
        let mut presence = encode::presence_of(fields)?;
        let (put, written): (i64, i64) = (fields.next()?, fields.next()?);
        let epochs = presence.boot_epochs;
        let at = |boot: i64| {
            let since = u8::try_from(boot.saturating_sub(put).max(0)).unwrap_or(u8::MAX);
            epochs.saturating_add(since)
        };
        let since = self.0.partition_point(|(boot, _)| *boot <= written);
        for (boot, restart) in self.0.iter().skip(since) {
            presence.boot_epochs = at(*boot);
            restart.note(&mut presence);
        }
        presence.boot_epochs = at(boot);
        Ok(presence)
    }
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

pub(super) fn next_seq(conn: &Connection) -> rusqlite::Result<Seq> {
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

/// Gives rows in batches as they are read.
struct Reading<'a> {
    deliver: Deliver<'a>,
    batch: Vec<BootRow>,
    image: Image,
}

impl<'a> Reading<'a> {
    fn new(deliver: Deliver<'a>) -> Self {
        Self {
            deliver,
            batch: Vec::with_capacity(BATCH),
            image: Image::default(),
        }
    }

    fn give(&mut self, row: BootRow) {
        self.image.rows += 1;
        self.batch.push(row);
        if self.batch.len() == BATCH {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            (self.deliver)(batch);
        }
    }

    fn end(self) -> Image {
        (self.deliver)(self.batch);
        self.image
    }

    /// What meshes share, and the watches of those present.
    fn read_shared(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let by_key = "TRUE ORDER BY mesh_id, key";
        self.read(conn, "state", sharing::STATE, by_key, |row| {
            sharing::state(row).map(|row| Some(BootRow::State(Box::new(row))))
        })?;
        let oldest_first = "TRUE ORDER BY created_at, rowid";
        self.read(conn, "stream", sharing::STREAM, oldest_first, |row| {
            sharing::stream(row).map(|row| Some(BootRow::Stream(Box::new(row))))
        })?;
        let ordered = "TRUE ORDER BY number";
        self.read(conn, "topic", topics::TOPIC, ordered, |row| {
            topics::topic(row).map(|row| Some(BootRow::Topic(Box::new(row))))
        })?;
        self.read(conn, "topic_member", topics::MEMBER, "TRUE", |row| {
            topics::member(row).map(|row| Some(BootRow::TopicMember(Box::new(row))))
        })?;
        let present = "began_pos IN (SELECT began_pos FROM presence WHERE disconnected_at IS NULL)";
        self.read(conn, "watch", encode::WATCH, present, |row| {
            encode::watch(row).map(|row| Some(BootRow::Watch(Box::new(row))))
        })?;
        Ok(())
    }

    /// Everybody present; gives how many, and the meshes they are in: only they have a log.
    fn read_presences(
        &mut self,
        conn: &Connection,
        boot: i64,
    ) -> rusqlite::Result<(i64, BTreeSet<String>)> {
        let restarts = Restarts::read(conn)?;
        let (mut presences, mut meshes) = (0, BTreeSet::new());
        let mut subscriptions = self.read_subscriptions(conn)?;
        let columns = format!("{}, boot, lease_boot", encode::PRESENCE);
        let present = (&*columns, "disconnected_at IS NULL");
        self.each(conn, "presence", present, |reading, row| {
            let row = restarts.presence(row, boot)?;
            presences += 1;
            if !meshes.contains(&row.mesh_id) {
                meshes.insert(row.mesh_id.clone());
            }
            let (began, mesh_id) = (row.began, row.mesh_id.clone());
            reading.give(BootRow::Presence(Box::new(row)));
            for stream in subscriptions.remove(&began).unwrap_or_default() {
                reading.give(BootRow::Subscription(SubscriptionRow {
                    mesh_id: mesh_id.clone(),
                    began,
                    stream,
                }));
            }
            Ok(())
        })?;
        Ok((presences, meshes))
    }

    /// Few sessions have any, so they are read before these rather than beside each.
    fn read_subscriptions(
        &mut self,
        conn: &Connection,
    ) -> rusqlite::Result<BTreeMap<Position, Vec<String>>> {
        let mut found: BTreeMap<Position, Vec<String>> = BTreeMap::new();
        let columns = (sharing::SUBSCRIPTION, "TRUE ORDER BY began_pos, stream");
        self.each(conn, "subscription", columns, |_, row| {
            let (began, stream) = sharing::subscription(row)?;
            found.entry(began).or_default().push(stream);
            Ok(())
        })?;
        Ok(found)
    }

    /// The presences that ended last, oldest first: their keys are still known, and their ends may
    /// be news.
    fn read_ended(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let oldest: Option<(i64, i64)> = conn
            .query_row(
                "SELECT disconnected_at, rowid FROM presence WHERE disconnected_at IS NOT NULL
                 ORDER BY disconnected_at DESC, rowid DESC LIMIT 1 OFFSET ?1",
                [ENDED_MAX - 1],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let (at, rowid) = oldest.unwrap_or((i64::MIN, i64::MIN));
        let last =
            format!("(disconnected_at, rowid) >= ({at}, {rowid}) ORDER BY disconnected_at, rowid");
        self.read(conn, "presence", encode::ENDED, &last, |row| {
            encode::ended(row).map(|row| Some(BootRow::Ended(Box::new(row))))
        })
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
        for row in said.into_iter().rev() {
            self.give(row);
        }
        self.give(BootRow::Log(LogRow { mesh_id, since }));
        Ok(())
    }

    /// The last sends that their senders named, oldest first.
    fn read_sent(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let last = format!("client_message_id IS NOT NULL ORDER BY seq DESC LIMIT {REPEATS_MAX}");
        let columns = "mesh_id, sender_member_id, client_message_id";
        let mut sent = Vec::new();
        self.each(conn, "message_queue", (columns, &last), |_, row| {
            let mut fields = encode::Fields::of(row);
            sent.push(SentRow {
                mesh_id: fields.next()?,
                sender_member_id: fields.next()?,
                client_message_id: fields.next()?,
            });
            Ok(())
        })?;
        for row in sent.into_iter().rev() {
            self.give(BootRow::Sent(row));
        }
        Ok(())
    }

    fn leave_out(&mut self, table: &'static str, error: &rusqlite::Error) {
        self.image.skipped += 1;
        tracing::error!(table, %error, "a row was left out");
    }

    fn read(
        &mut self,
        conn: &Connection,
        table: &'static str,
        columns: &str,
        condition: &str,
        mut decode: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<BootRow>>,
    ) -> rusqlite::Result<()> {
        self.each(conn, table, (columns, condition), |reading, row| {
            if let Some(row) = decode(row)? {
                reading.give(row);
            }
            Ok(())
        })
    }

    /// One damaged row must not keep all others from their leases: it is left out.
    fn each(
        &mut self,
        conn: &Connection,
        table: &'static str,
        (columns, condition): (&str, &str),
        mut take: impl FnMut(&mut Self, &Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let sql = format!("SELECT {columns} FROM {table} WHERE {condition}");
        let mut statement = conn.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(error) = take(self, row) {
                self.leave_out(table, &error);
            }
        }
        Ok(())
    }
}
