//! `create_task`, `claim_task`, `complete_task`, `list_tasks` (protocol.md §20).

use bytes::Bytes;
use serde::Serialize;

use super::{Asker, Listed, Then as Any, list, optional};
use crate::limits::{NAME_BYTES_MAX, RECORD_TEXT_BYTES_MAX, TASK_ROWS, TASKS_MAX, TEXT_BYTES_MAX};
use crate::rows::{RecordAnswer, RecordAsk, Task, TaskStatus};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Created { id: String },
    Listed(Changed),
}

/// What was done before tasks are listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Changed {
    Nothing,
    Claimed,
    Completed,
}

#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    title: &'a str,
    assignee: Option<&'a str>,
    claimed_by: Option<&'a str>,
    status: &'a str,
    priority: &'a str,
    created_by: Option<&'a str>,
    tags: &'a [String],
    created_at: Wall,
}

impl Shard {
    pub(crate) fn create_task(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let title = fields.str("title", TEXT_BYTES_MAX)?.into_owned();
        let assignee = optional(fields, "assignee", NAME_BYTES_MAX)?;
        let priority = optional(fields, "priority", NAME_BYTES_MAX)?;
        let tags = list(fields, "tags")?;
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let id = self.mint.record_id();
        let task = Task {
            id: id.clone(),
            title,
            assignee,
            claimed_by: None,
            status: TaskStatus::Open,
            priority: priority.unwrap_or_else(|| "normal".to_owned()),
            created_by: Some(who.name),
            tags,
            created_at: t.now.wall,
        };
        let then = Any::Task(Then::Created { id });
        self.ask_records(t, request, RecordAsk::CreateTask(task), then);
        Ok(())
    }

    pub(crate) fn claim_task(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let id = request.fields.str("taskId", NAME_BYTES_MAX)?.into_owned();
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let ask = RecordAsk::ClaimTask {
            id,
            by: who.name,
            presence_id: who.presence_id,
            at: t.now.wall,
            limit: TASK_ROWS,
        };
        let then = Any::Task(Then::Listed(Changed::Claimed));
        self.ask_records(t, request, ask, then);
        Ok(())
    }

    pub(crate) fn complete_task(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let id = request.fields.str("taskId", NAME_BYTES_MAX)?.into_owned();
        let result = optional(request.fields, "result", RECORD_TEXT_BYTES_MAX)?;
        let ask = RecordAsk::CompleteTask {
            id,
            result,
            at: t.now.wall,
            limit: TASK_ROWS,
        };
        let then = Any::Task(Then::Listed(Changed::Completed));
        self.ask_records(t, request, ask, then);
        Ok(())
    }

    pub(crate) fn list_tasks(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let status = match request.fields.opt_str("status", NAME_BYTES_MAX)? {
            None => None,
            Some(name) => {
                let status = TaskStatus::parse(&name);
                Some(status.ok_or_else(|| FieldError::new("status", "open, claimed or done"))?)
            }
        };
        let assignee = optional(request.fields, "assignee", NAME_BYTES_MAX)?;
        let ask = RecordAsk::ListTasks {
            status,
            assignee,
            limit: TASK_ROWS,
        };
        let then = Any::Task(Then::Listed(Changed::Nothing));
        self.ask_records(t, request, ask, then);
        Ok(())
    }
}

pub(super) fn answered(by: &Asker<'_>, then: Then, answer: RecordAnswer) -> Option<Bytes> {
    match (then, answer) {
        (Then::Created { id }, RecordAnswer::Written) => {
            Some(by.reply("task_created", Created { id: &id }))
        }
        (Then::Created { .. }, RecordAnswer::Full) => Some(by.full(TASKS_MAX, "tasks not done")),
        (Then::Listed(_), RecordAnswer::Tasks(tasks)) => {
            let entries = tasks.iter().map(entry);
            Some(by.reply("task_list", Listed::new("tasks", entries)))
        }
        (Then::Listed(Changed::Claimed), RecordAnswer::Missing) => {
            let message = "task is not open or does not exist";
            Some(by.error("task_not_claimable", message))
        }
        (Then::Listed(Changed::Completed), RecordAnswer::Missing) => {
            Some(by.error("task_not_found", "task not found in this mesh"))
        }
        (Then::Created { .. } | Then::Listed(_), _) => None,
    }
}

fn entry(task: &Task) -> Entry<'_> {
    Entry {
        id: &task.id,
        title: &task.title,
        assignee: task.assignee.as_deref(),
        claimed_by: task.claimed_by.as_deref(),
        status: task.status.name(),
        priority: &task.priority,
        created_by: task.created_by.as_deref(),
        tags: &task.tags,
        created_at: task.created_at,
    }
}
