//! Vaults: one for each member, of entries that only its clients can read.

use rusqlite::{Row, params};

use super::{Kept, changed};
use crate::core::limits::VAULT_ENTRIES_MAX;
use crate::core::rows::{RecordAnswer, VaultEntry};
use crate::store::encode::Fields;

impl Kept<'_> {
    pub(super) fn vault_set(&self, entry: &VaultEntry) -> rusqlite::Result<RecordAnswer> {
        let others: i64 = self.value(
            "SELECT count(*) FROM vault_entry WHERE mesh_id = ?1 AND member_id = ?2 AND key <> ?3",
            [self.mesh_id, &entry.member_id, &entry.key],
        )?;
        if usize::try_from(others).unwrap_or(0) >= VAULT_ENTRIES_MAX {
            return Ok(RecordAnswer::Full);
        }
        self.change(
            "INSERT INTO vault_entry (mesh_id, member_id, key, ciphertext, nonce, sealed_key,
                entry_type, mount_path, description, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)
             ON CONFLICT (mesh_id, member_id, key) DO UPDATE SET ciphertext = excluded.ciphertext,
                nonce = excluded.nonce, sealed_key = excluded.sealed_key,
                entry_type = excluded.entry_type, mount_path = excluded.mount_path,
                description = excluded.description, updated_at = excluded.updated_at",
            params![
                self.mesh_id,
                entry.member_id,
                entry.key,
                entry.ciphertext,
                entry.nonce,
                entry.sealed_key,
                entry.entry_type,
                entry.mount_path,
                entry.description,
                entry.updated_at.0,
            ],
        )?;
        Ok(RecordAnswer::Written)
    }

    pub(super) fn vault_list(&self, member_id: &str, limit: u32) -> rusqlite::Result<RecordAnswer> {
        let entries = self.rows(
            "SELECT member_id, key, '', '', '', entry_type, mount_path, description, updated_at
             FROM vault_entry WHERE mesh_id = ?1 AND member_id = ?2 ORDER BY key LIMIT ?3",
            params![self.mesh_id, member_id, limit],
            entry,
        )?;
        Ok(RecordAnswer::Vault(entries))
    }

    /// Those that are there, in the order asked.
    pub(super) fn vault_get(
        &self,
        member_id: &str,
        keys: &[String],
    ) -> rusqlite::Result<RecordAnswer> {
        let mut entries = Vec::new();
        for key in keys {
            entries.append(&mut self.rows(
                "SELECT member_id, key, ciphertext, nonce, sealed_key, entry_type, mount_path,
                    description, updated_at
                 FROM vault_entry WHERE mesh_id = ?1 AND member_id = ?2 AND key = ?3",
                [self.mesh_id, member_id, key],
                entry,
            )?);
        }
        Ok(RecordAnswer::Vault(entries))
    }

    pub(super) fn vault_delete(
        &self,
        member_id: &str,
        key: &str,
    ) -> rusqlite::Result<RecordAnswer> {
        self.change(
            "DELETE FROM vault_entry WHERE mesh_id = ?1 AND member_id = ?2 AND key = ?3",
            [self.mesh_id, member_id, key],
        )
        .map(changed)
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<VaultEntry> {
    let mut fields = Fields::of(row);
    Ok(VaultEntry {
        member_id: fields.next()?,
        key: fields.next()?,
        ciphertext: fields.next()?,
        nonce: fields.next()?,
        sealed_key: fields.next()?,
        entry_type: fields.next()?,
        mount_path: fields.next()?,
        description: fields.next()?,
        updated_at: fields.wall()?,
    })
}
