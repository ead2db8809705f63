//! The audit chain of each mesh (protocol.md, section 17): every entry holds the hash of the one before.
//!
//! Remembers the last hash per mesh, so that appending reads nothing. What a transaction adds
//! counts only once it has been committed.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::canon::{GENESIS, audit_hash, canonical_json};
use crate::core::rows::AuditRow;

/// The ends of all chains written to so far. One entry per mesh.
#[derive(Default)]
pub(super) struct Chains {
    committed: HashMap<String, String>,
    staged: HashMap<String, String>,
}

impl Chains {
    /// Appends inside the current transaction.
    pub(super) fn append(&mut self, conn: &Connection, row: &AuditRow) -> rusqlite::Result<()> {
        let prev_hash = self.last_hash(conn, &row.mesh_id)?;
        let payload = canonical_json(&row.payload);
        let hash = audit_hash(
            &prev_hash,
            &row.mesh_id,
            row.event_type,
            row.actor_member_id.as_deref(),
            &payload,
            row.created_at,
        );
        conn.prepare_cached(
            "INSERT INTO audit_log (mesh_id, event_type, actor_member_id, actor_display_name,
                payload, prev_hash, hash, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row.mesh_id,
            row.event_type,
            row.actor_member_id,
            row.actor_display_name,
            payload,
            prev_hash,
            hash,
            row.created_at.0,
        ])?;
        self.staged.insert(row.mesh_id.clone(), hash);
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
