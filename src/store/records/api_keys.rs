//! API keys. Only the hash of a secret is kept.

use rusqlite::{Row, params};

use super::{Kept, list, list_json};
use crate::core::limits::API_KEYS_MAX;
use crate::core::rows::{ApiKey, RecordAnswer, Revoked};
use crate::core::time::Wall;
use crate::store::encode::Fields;

impl Kept<'_> {
    /// Where there are as many as there may be, the oldest that is revoked makes room.
    pub(super) fn create_api_key(&self, key: &ApiKey) -> rusqlite::Result<RecordAnswer> {
        if self.count("SELECT count(*) FROM api_key WHERE mesh_id = ?1")? >= API_KEYS_MAX {
            let gone = self.change(
                "DELETE FROM api_key WHERE number = (SELECT number FROM api_key
                 WHERE mesh_id = ?1 AND revoked_at IS NOT NULL ORDER BY number LIMIT 1)",
                [self.mesh_id],
            )?;
            if gone == 0 {
                return Ok(RecordAnswer::Full);
            }
        }
        self.change(
            "INSERT INTO api_key (id, mesh_id, label, secret_hash, secret_prefix, capabilities,
                topic_scopes, issued_by_member_id, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                key.id,
                self.mesh_id,
                key.label,
                key.secret_hash,
                key.prefix,
                list_json(&key.capabilities)?,
                key.topic_scopes.as_deref().map(list_json).transpose()?,
                key.member_id,
                key.created_at.0,
                key.expires_at.map(|at| at.0),
            ],
        )?;
        Ok(RecordAnswer::Written)
    }

    pub(super) fn list_api_keys(&self, limit: u32) -> rusqlite::Result<RecordAnswer> {
        let keys = self.rows(
            "SELECT id, label, secret_prefix, capabilities, topic_scopes, issued_by_member_id,
                created_at, last_used_at, revoked_at, expires_at
             FROM api_key WHERE mesh_id = ?1 ORDER BY number DESC LIMIT ?2",
            params![self.mesh_id, limit],
            api_key,
        )?;
        Ok(RecordAnswer::ApiKeys(keys))
    }

    /// By id, whatever its state; else the one key in use whose id or secret begins so.
    pub(super) fn revoke_api_key(&self, id: &str, at: Wall) -> rusqlite::Result<RecordAnswer> {
        let begins = "SELECT id FROM api_key WHERE mesh_id = ?1 AND (id = ?2
                OR (revoked_at IS NULL AND (substr(id, 1, length(?2)) = ?2
                    OR substr(secret_prefix, 1, length(?2)) = ?2)))";
        let mut found: Vec<String> = self.rows(begins, [self.mesh_id, id], |row| row.get(0))?;
        if found.iter().any(|found| found == id) {
            found = vec![id.to_owned()];
        }
        let revoked = match found.as_slice() {
            [] => Revoked::NotFound,
            [one] => {
                self.change(
                    "UPDATE api_key SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
                    params![one, at.0],
                )?;
                Revoked::Key(one.clone())
            }
            many => Revoked::NotUnique(u64::try_from(many.len()).unwrap_or(u64::MAX)),
        };
        Ok(RecordAnswer::Revoked(revoked))
    }
}

fn api_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let mut fields = Fields::of(row);
    Ok(ApiKey {
        id: fields.next()?,
        label: fields.next()?,
        secret_hash: String::new(),
        prefix: fields.next()?,
        capabilities: list(&mut fields)?,
        topic_scopes: fields
            .next::<Option<String>>()?
            .and_then(|json| serde_json::from_str(&json).ok()),
        member_id: fields.next()?,
        created_at: fields.wall()?,
        last_used_at: fields.optional_wall()?,
        revoked_at: fields.optional_wall()?,
        expires_at: fields.optional_wall()?,
    })
}
