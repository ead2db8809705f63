//! Webhooks, by name. One that is deleted keeps its name, so that its address is never another's.

use rusqlite::{Row, params};

use super::{Kept, changed};
use crate::core::limits::WEBHOOKS_MAX;
use crate::core::rows::{RecordAnswer, Webhook};
use crate::store::encode::Fields;

impl Kept<'_> {
    pub(super) fn create_webhook(&self, webhook: &Webhook) -> rusqlite::Result<RecordAnswer> {
        if self.count("SELECT count(*) FROM webhook WHERE mesh_id = ?1")? >= WEBHOOKS_MAX {
            return Ok(RecordAnswer::Full);
        }
        let made = self.change(
            "INSERT INTO webhook (id, mesh_id, name, secret, created_by, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (mesh_id, name) DO NOTHING",
            params![
                webhook.id,
                self.mesh_id,
                webhook.name,
                webhook.secret,
                webhook.member_id,
                webhook.created_at.0,
            ],
        )?;
        Ok(if made == 0 {
            RecordAnswer::Taken
        } else {
            RecordAnswer::Written
        })
    }

    pub(super) fn list_webhooks(&self, limit: u32) -> rusqlite::Result<RecordAnswer> {
        let webhooks = self.rows(
            "SELECT id, name, secret, created_by, created_at FROM webhook
             WHERE mesh_id = ?1 AND active = 1 ORDER BY number LIMIT ?2",
            params![self.mesh_id, limit],
            webhook,
        )?;
        Ok(RecordAnswer::Webhooks(webhooks))
    }

    pub(super) fn find_webhook(&self, secret: &str) -> rusqlite::Result<RecordAnswer> {
        let webhooks = self.rows(
            "SELECT id, name, secret, created_by, created_at FROM webhook
             WHERE secret = ?1 AND mesh_id = ?2 AND active = 1",
            [secret, self.mesh_id],
            webhook,
        )?;
        Ok(RecordAnswer::Webhooks(webhooks))
    }

    pub(super) fn delete_webhook(&self, name: &str) -> rusqlite::Result<RecordAnswer> {
        self.change(
            "UPDATE webhook SET active = 0 WHERE mesh_id = ?1 AND name = ?2 AND active = 1",
            [self.mesh_id, name],
        )
        .map(changed)
    }
}

fn webhook(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    let mut fields = Fields::of(row);
    Ok(Webhook {
        id: fields.next()?,
        name: fields.next()?,
        secret: fields.next()?,
        member_id: fields.next()?,
        created_at: fields.wall()?,
    })
}
