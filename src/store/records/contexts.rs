//! What each member is at.

use rusqlite::params;

use super::{Kept, list, list_json};
use crate::core::rows::{Context, RecordAnswer};
use crate::store::encode::Fields;

impl Kept<'_> {
    /// A member's next context takes the place, and the id, of its last.
    pub(super) fn share_context(&self, context: &Context) -> rusqlite::Result<RecordAnswer> {
        let id = self.value(
            "INSERT INTO context (id, mesh_id, member_id, presence_id, peer_name, summary,
                files_read, key_findings, tags, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (mesh_id, member_id) DO UPDATE SET presence_id = excluded.presence_id,
                peer_name = excluded.peer_name, summary = excluded.summary,
                files_read = excluded.files_read, key_findings = excluded.key_findings,
                tags = excluded.tags, updated_at = excluded.updated_at
             RETURNING id",
            params![
                context.id,
                self.mesh_id,
                context.member_id,
                context.presence_id,
                context.peer_name,
                context.summary,
                list_json(&context.files_read)?,
                list_json(&context.key_findings)?,
                list_json(&context.tags)?,
                context.updated_at.0,
            ],
        )?;
        Ok(RecordAnswer::Kept(id))
    }

    /// One per member, so all of a mesh are looked at.
    pub(super) fn find_contexts(
        &self,
        text: Option<&str>,
        limit: u32,
    ) -> rusqlite::Result<RecordAnswer> {
        let contexts = self.rows(
            "SELECT id, member_id, presence_id, peer_name, summary, files_read, key_findings, tags,
                updated_at
             FROM context
             WHERE mesh_id = ?1 AND (?2 IS NULL OR instr(lower(summary), lower(?2)) > 0
                OR EXISTS (SELECT 1 FROM json_each(context.tags) WHERE value = ?2))
             ORDER BY updated_at DESC, member_id LIMIT ?3",
            params![self.mesh_id, text, limit],
            |row| {
                let mut fields = Fields::of(row);
                Ok(Context {
                    id: fields.next()?,
                    member_id: fields.next()?,
                    presence_id: fields.next()?,
                    peer_name: fields.next()?,
                    summary: fields.next()?,
                    files_read: list(&mut fields)?,
                    key_findings: list(&mut fields)?,
                    tags: list(&mut fields)?,
                    updated_at: fields.wall()?,
                })
            },
        )?;
        Ok(RecordAnswer::Contexts(contexts))
    }
}
