//! Tasks. Each change is one statement, so of two who claim a task one gets it.

use rusqlite::params;

use super::{Kept, list, list_json};
use crate::core::limits::TASKS_MAX;
use crate::core::rows::{RecordAnswer, Task, TaskStatus};
use crate::core::time::Wall;
use crate::store::encode::Fields;

impl Kept<'_> {
    /// Where there are as many as there may be, the oldest that is done makes room.
    pub(super) fn create_task(&self, task: &Task) -> rusqlite::Result<RecordAnswer> {
        if self.count("SELECT count(*) FROM task WHERE mesh_id = ?1")? >= TASKS_MAX {
            let gone = self.change(
                "DELETE FROM task WHERE number = (SELECT number FROM task
                 WHERE mesh_id = ?1 AND status = 'done' ORDER BY number LIMIT 1)",
                [self.mesh_id],
            )?;
            if gone == 0 {
                return Ok(RecordAnswer::Full);
            }
        }
        self.change(
            "INSERT INTO task (id, mesh_id, title, assignee, priority, status, tags,
                created_by_name, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                task.id,
                self.mesh_id,
                task.title,
                task.assignee,
                task.priority,
                task.status.name(),
                list_json(&task.tags)?,
                task.created_by,
                task.created_at.0,
            ],
        )?;
        Ok(RecordAnswer::Written)
    }

    pub(super) fn claim_task(
        &self,
        id: &str,
        (by, presence_id): (&str, &str),
        at: Wall,
        limit: u32,
    ) -> rusqlite::Result<RecordAnswer> {
        let claimed = self.change(
            "UPDATE task SET status = 'claimed', claimed_by_name = ?3, claimed_by_presence = ?4,
                claimed_at = ?5
             WHERE id = ?1 AND mesh_id = ?2 AND status = 'open'",
            params![id, self.mesh_id, by, presence_id, at.0],
        )?;
        self.all_tasks(claimed, limit)
    }

    pub(super) fn complete_task(
        &self,
        id: &str,
        result: Option<&str>,
        at: Wall,
        limit: u32,
    ) -> rusqlite::Result<RecordAnswer> {
        let completed = self.change(
            "UPDATE task SET status = 'done', result = ?3, completed_at = ?4
             WHERE id = ?1 AND mesh_id = ?2",
            params![id, self.mesh_id, result, at.0],
        )?;
        self.all_tasks(completed, limit)
    }

    fn all_tasks(&self, changed: usize, limit: u32) -> rusqlite::Result<RecordAnswer> {
        if changed == 0 {
            return Ok(RecordAnswer::Missing);
        }
        self.list_tasks(None, None, limit)
    }

    pub(super) fn list_tasks(
        &self,
        status: Option<TaskStatus>,
        assignee: Option<&str>,
        limit: u32,
    ) -> rusqlite::Result<RecordAnswer> {
        let tasks = self.rows(
            "SELECT id, title, assignee, claimed_by_name, status, priority, created_by_name, tags,
                created_at
             FROM task
             WHERE mesh_id = ?1 AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR assignee = ?3)
             ORDER BY number DESC LIMIT ?4",
            params![self.mesh_id, status.map(TaskStatus::name), assignee, limit],
            |row| {
                let mut fields = Fields::of(row);
                Ok(Task {
                    id: fields.next()?,
                    title: fields.next()?,
                    assignee: fields.next()?,
                    claimed_by: fields.next()?,
                    status: fields.parsed(TaskStatus::parse)?,
                    priority: fields.next()?,
                    created_by: fields.next()?,
                    tags: list(&mut fields)?,
                    created_at: fields.wall()?,
                })
            },
        )?;
        Ok(RecordAnswer::Tasks(tasks))
    }
}
