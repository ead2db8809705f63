//! The audit chain of each mesh (protocol.md, section 17): every entry holds the hash of the one before.
//!
//! Remembers the last hash per mesh, so that appending reads nothing. What a transaction adds
//! counts only once it has been committed.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::canon::{GENESIS, audit_hash, canonical_json, canonical_texts};
use crate::core::rows::{AuditRow, MessageRow};
use crate::core::time::Wall;

/// The ends of all chains written to so far. One entry per mesh.
#[derive(Default)]
pub(super) struct Chains {
    committed: HashMap<String, String>,
    staged: HashMap<String, String>,
}

/// One entry, its payload canonical.
struct Entry<'a> {
    mesh_id: &'a str,
    event_type: &'a str,
    actor_member_id: Option<&'a str>,
    actor_display_name: Option<&'a str>,
    payload: String,
    created_at: Wall,
}

impl Chains {
    /// Appends inside the current transaction.
    pub(super) fn append(&mut self, conn: &Connection, row: &AuditRow) -> rusqlite::Result<()> {
        let entry = Entry {
            mesh_id: &row.mesh_id,
            event_type: row.event_type,
            actor_member_id: row.actor_member_id.as_deref(),
            actor_display_name: row.actor_display_name.as_deref(),
            payload: canonical_json(&row.payload),
            created_at: row.created_at,
        };
        self.insert(conn, &entry)
    }

    /// The same of a message that was sent.
    pub(super) fn append_sent(
        &mut self,
        conn: &Connection,
        row: &MessageRow,
    ) -> rusqlite::Result<()> {
        let payload = canonical_texts(&[
            ("priority", row.priority.name()),
            ("targetSpec", &row.target_spec),
        ]);
        let entry = Entry {
            mesh_id: &row.mesh_id,
            event_type: "message_sent",
            actor_member_id: Some(&row.sender_member_id),
            actor_display_name: Some(&row.sender_name),
            payload,
            created_at: row.created_at,
        };
        self.insert(conn, &entry)
    }

    fn insert(&mut self, conn: &Connection, entry: &Entry<'_>) -> rusqlite::Result<()> {
        let prev_hash = self.last_hash(conn, entry.mesh_id)?;
        let hash = audit_hash(
            &prev_hash,
            entry.mesh_id,
            entry.event_type,
            entry.actor_member_id,
            &entry.payload,
            entry.created_at,
        );
        conn.prepare_cached(
            "INSERT INTO audit_log (mesh_id, event_type, actor_member_id, actor_display_name,
                payload, prev_hash, hash, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            entry.mesh_id,
            entry.event_type,
            entry.actor_member_id,
            entry.actor_display_name,
            entry.payload,
            prev_hash,
            hash,
            entry.created_at.0,
        ])?;
        match self.staged.get_mut(entry.mesh_id) {
            Some(last) => *last = hash,
            None => drop(self.staged.insert(entry.mesh_id.to_owned(), hash)),
        }
        Ok(())
    }

    fn last_hash(&self, conn: &Connection, mesh_id: &str) -> rusqlite::Result<String> {
        if let Some(hash) = self
            .staged
            .get(mesh_id)
            .or_else(|| self.committed.get(mesh_id))
        {
            return Ok(hash.clone());
        }
        let stored = conn
            .prepare_cached(
                "SELECT hash FROM audit_log WHERE mesh_id = ?1 ORDER BY id DESC LIMIT 1",
            )?
            .query_row([mesh_id], |row| row.get(0))
            .optional()?;
        Ok(stored.unwrap_or_else(|| GENESIS.to_owned()))
    }

    /// The transaction was committed.
    pub(super) fn keep(&mut self) {
        self.committed.extend(self.staged.drain());
    }

    /// The transaction was rolled back.
    pub(super) fn forget(&mut self) {
        self.staged.clear();
    }
}
