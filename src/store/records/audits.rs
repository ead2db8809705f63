//! The audit log read back: by pages, and as a chain (protocol.md §17).

use rusqlite::{Connection, params};

use super::Kept;
use crate::core::canon::{GENESIS, audit_hash, canonical_json};
use crate::core::limits::AUDIT_REACH;
use crate::core::rows::{AuditEntry, AuditPage, Chain, RecordAnswer};
use crate::core::time::Wall;
use crate::store::encode::Fields;

/// Entries verified in one step: some milliseconds.
const STEP: i64 = 4096;

impl Kept<'_> {
    /// Of one type, only the latest [`AUDIT_REACH`] entries of the mesh are looked at: there is no
    /// index by type, which every send would have to write.
    pub(super) fn audit_page(
        &self,
        event_type: Option<&str>,
        limit: u32,
        offset: u64,
    ) -> rusqlite::Result<RecordAnswer> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let all = self.count("SELECT count(*) FROM audit_log WHERE mesh_id = ?1")?;
        let reach = if event_type.is_some() {
            AUDIT_REACH
        } else {
            all
        };
        let rows = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let (looked_at, skipped, rest) = match event_type {
            None => (i64::from(limit), offset, 0),
            Some(_) => (rows(reach), 0, offset),
        };
        let total = match event_type {
            None => rows(all),
            Some(event_type) => self.value(
                "SELECT count(*) FROM audit_log WHERE event_type = ?2 AND id IN (SELECT id
                 FROM audit_log WHERE mesh_id = ?1 ORDER BY id DESC LIMIT ?3)",
                params![self.mesh_id, event_type, looked_at],
            )?,
        };
        // The innermost query reads the index alone.
        let entries = self.rows(
            "SELECT id, event_type, coalesce(actor_display_name, actor_member_id, 'system'),
                payload, hash, created_at
             FROM audit_log WHERE (?2 IS NULL OR event_type = ?2) AND id IN (SELECT id
                FROM audit_log WHERE mesh_id = ?1 ORDER BY id DESC LIMIT ?3 OFFSET ?4)
             ORDER BY id DESC LIMIT ?5 OFFSET ?6",
            params![self.mesh_id, event_type, looked_at, skipped, limit, rest],
            |row| {
                let mut fields = Fields::of(row);
                Ok(AuditEntry {
                    id: fields.next()?,
                    event_type: fields.next()?,
                    actor: fields.next()?,
                    payload: fields.next()?,
                    hash: fields.next()?,
                    created_at: fields.wall()?,
                })
            },
        )?;
        Ok(RecordAnswer::Audit(AuditPage {
            entries,
            total: u64::try_from(total).unwrap_or(0),
            truncated: reach < all,
        }))
    }
}

/// A chain that is being verified, some entries at a time, so that whoever does it can do something
/// else in between.
#[derive(Debug)]
pub(in crate::store) struct Verifying {
    mesh_id: String,
    /// The last entry looked at …
    after: i64,
    /// … and the hash that the next must build on.
    prev_hash: String,
    found: Chain,
}

impl Verifying {
    pub(in crate::store) fn of(mesh_id: &str) -> Self {
        Self {
            mesh_id: mesh_id.to_owned(),
            after: i64::MIN,
            prev_hash: GENESIS.to_owned(),
            found: Chain::default(),
        }
    }

    /// Looks at some more; what was found, if that was all. Behind the first entry that does not
    /// fit, entries are only counted.
    pub(in crate::store) fn step(&mut self, conn: &Connection) -> rusqlite::Result<Option<Chain>> {
        let mut statement = conn.prepare_cached(
            "SELECT id, event_type, actor_member_id, payload, prev_hash, hash, created_at
             FROM audit_log WHERE mesh_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![self.mesh_id, self.after, STEP])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            seen += 1;
            self.after = id;
            self.found.entries += 1;
            if self.found.broken_at.is_some() {
                continue;
            }
            match self.checked(row) {
                Ok(Some(hash)) => self.prev_hash = hash,
                // A column of another type than was ever written is a change like any other.
                Ok(None) | Err(rusqlite::Error::InvalidColumnType(..)) => {
                    self.found.broken_at = Some(id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((seen < STEP).then_some(self.found))
    }

    /// The entry's hash, if it is what was written. The payload is brought into canonical form
    /// again, as an entry of the original may have it in another.
    fn checked(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<String>> {
        let mut fields = Fields::of(row);
        let _id: i64 = fields.next()?;
        let event_type: String = fields.next()?;
        let actor: Option<String> = fields.next()?;
        let payload: String = fields.next()?;
        let prev_hash: String = fields.next()?;
        let hash: String = fields.next()?;
        let created_at: Wall = fields.wall()?;
        let Ok(payload) = serde_json::from_str(&payload) else {
            return Ok(None);
        };
        let expected = audit_hash(
            &self.prev_hash,
            &self.mesh_id,
            &event_type,
            actor.as_deref(),
            &canonical_json(&payload),
            created_at,
        );
        Ok((prev_hash == self.prev_hash && hash == expected).then_some(hash))
    }
}

/// The whole chain of a mesh.
pub(in crate::store) fn verify(conn: &Connection, mesh_id: &str) -> rusqlite::Result<Chain> {
    let mut verifying = Verifying::of(mesh_id);
    loop {
        if let Some(found) = verifying.step(conn)? {
            return Ok(found);
        }
    }
}
