//! What a mesh keeps on disk only: each [`RecordAsk`] as SQL.
//!
//! Every text is bound, never pasted. What is written is written inside the writer's transaction;
//! each ask that writes has one statement that could be refused, and it comes first, so that
//! SQLite undoes a refused ask by itself (see `apply`). What only reads is read by the reader, when
//! everything before it has been committed.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};

use super::encode::{self, Fields};
use super::topics;
use crate::core::rows::{RecordAnswer, RecordAsk, RecordQuery};

mod api_keys;
mod audits;
mod contexts;
mod memories;
mod schema;
mod skills;
mod tasks;
mod vault;
mod webhooks;

pub(super) use audits::{Verifying, verify};
pub(super) use schema::V10;

/// Carries out what is asked, or looks it up.
pub(super) fn answer(conn: &Connection, query: &RecordQuery) -> rusqlite::Result<RecordAnswer> {
    let mesh = Kept {
        conn,
        mesh_id: &query.mesh_id,
    };
    match &query.ask {
        RecordAsk::Remember(memory) => mesh.remember(memory),
        RecordAsk::Recall { words, limit } => mesh.recall(words, *limit),
        RecordAsk::Forget { id } => mesh.forget(id),
        RecordAsk::ShareContext(context) => mesh.share_context(context),
        RecordAsk::FindContexts { text, limit } => mesh.find_contexts(text.as_deref(), *limit),
        RecordAsk::CreateTask(task) => mesh.create_task(task),
        RecordAsk::ClaimTask {
            id,
            by,
            presence_id,
            at,
            limit,
        } => mesh.claim_task(id, (by, presence_id), *at, *limit),
        RecordAsk::CompleteTask {
            id,
            result,
            at,
            limit,
        } => mesh.complete_task(id, result.as_deref(), *at, *limit),
        RecordAsk::ListTasks {
            status,
            assignee,
            limit,
        } => mesh.list_tasks(*status, assignee.as_deref(), *limit),
        RecordAsk::Tally => mesh.tally(),
        RecordAsk::ShareSkill(skill) => mesh.share_skill(skill),
        RecordAsk::GetSkill { name } => mesh.get_skill(name),
        RecordAsk::ListSkills { text, limit } => mesh.list_skills(text.as_deref(), *limit),
        RecordAsk::RemoveSkill { name } => mesh.remove_skill(name),
        RecordAsk::CreateApiKey(key) => mesh.create_api_key(key),
        RecordAsk::ListApiKeys { limit } => mesh.list_api_keys(*limit),
        RecordAsk::RevokeApiKey { id, at } => mesh.revoke_api_key(id, *at),
        RecordAsk::VaultSet(entry) => mesh.vault_set(entry),
        RecordAsk::VaultList { member_id, limit } => mesh.vault_list(member_id, *limit),
        RecordAsk::VaultGet { member_id, keys } => mesh.vault_get(member_id, keys),
        RecordAsk::VaultDelete { member_id, key } => mesh.vault_delete(member_id, key),
        RecordAsk::CreateWebhook(webhook) => mesh.create_webhook(webhook),
        RecordAsk::ListWebhooks { limit } => mesh.list_webhooks(*limit),
        RecordAsk::FindWebhook { secret } => mesh.find_webhook(secret),
        RecordAsk::DeleteWebhook { name } => mesh.delete_webhook(name),
        RecordAsk::TopicHistory {
            topic_id,
            before,
            limit,
        } => topics::history(conn, topic_id, *before, *limit),
        RecordAsk::AuditPage {
            event_type,
            limit,
            offset,
        } => mesh.audit_page(event_type.as_deref(), *limit, *offset),
        RecordAsk::AuditVerify => verify(conn, &query.mesh_id).map(RecordAnswer::Chain),
    }
}

/// What one mesh keeps.
struct Kept<'a> {
    conn: &'a Connection,
    mesh_id: &'a str,
}

impl Kept<'_> {
    /// How many rows a statement changed.
    fn change(&self, sql: &str, bound: impl Params) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute(bound)
    }

    /// The rows of a statement.
    fn rows<T>(
        &self,
        sql: &str,
        bound: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        statement.query_map(bound, read)?.collect()
    }

    /// The one value of a statement.
    fn value<T: FromSql>(&self, sql: &str, bound: impl Params) -> rusqlite::Result<T> {
        self.conn
            .prepare_cached(sql)?
            .query_row(bound, |row| row.get(0))
    }

    /// How many rows of a mesh a statement counts.
    fn count(&self, sql: &str) -> rusqlite::Result<usize> {
        let count: i64 = self.value(sql, [self.mesh_id])?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// What came of a statement that changes one row, if it is there.
fn changed(rows: usize) -> RecordAnswer {
    if rows == 0 {
        RecordAnswer::Missing
    } else {
        RecordAnswer::Written
    }
}

/// A list of texts, as its column has it.
fn list_json(list: &[String]) -> rusqlite::Result<String> {
    encode::json(list)
}

/// A column with a list of texts.
fn list(fields: &mut Fields<'_, '_>) -> rusqlite::Result<Vec<String>> {
    fields.parsed(|json| serde_json::from_str(json).ok())
}
