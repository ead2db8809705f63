//! Tasks, for all that a mesh keeps on disk only: what was answered is on disk, and of those who
//! claim a task one gets it.

use holdfast_core::rows::TaskStatus;
use serde_json::Value;

use super::{ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::TaskAsked;

/// What clients were told of tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// Ids, in the order answered, each with whether somebody was told to have claimed it.
    known: Vec<(String, bool)>,
}

impl Tasks {
    /// The id of a task, if there is one.
    pub(crate) fn some(&self, chance: u64) -> Option<&str> {
        let count = u64::try_from(self.known.len()).unwrap_or(0).max(1);
        let index = usize::try_from(chance % count).unwrap_or(0);
        self.known.get(index).map(|(id, _)| &**id)
    }
}

impl Oracle {
    /// An answer to a request for a task.
    pub(crate) fn task_answered(
        &mut self,
        step: &Step<'_>,
        at: ConnKey,
        asked: &TaskAsked,
        frame: &Value,
    ) -> Verdict {
        if frame["type"] == "error" {
            let code = frame["code"].as_str().unwrap_or_default();
            let fits = match (asked, code) {
                (_, "storage") => self.store_refused,
                (TaskAsked::Claim(_), "task_not_claimable") => true,
                _ => false,
            };
            ensure!(fits, "I4", "{asked:?} was refused for no reason: {frame}");
            return Ok(());
        }
        match asked {
            TaskAsked::Create => {
                let id = frame["id"].as_str().unwrap_or_default().to_owned();
                self.on_disk(step, at, &id)?;
                self.tasks.known.push((id, false));
                Ok(())
            }
            TaskAsked::Claim(id) => {
                let known = self.tasks.known.iter_mut().find(|(known, _)| known == id);
                let before = known.is_some_and(|(_, claimed)| std::mem::replace(claimed, true));
                ensure!(!before, "I10", "{id} was claimed twice");
                let status = self.on_disk(step, at, id)?;
                ensure!(
                    status != TaskStatus::Open,
                    "I4",
                    "{id} was claimed before it was so on disk"
                );
                Ok(())
            }
            TaskAsked::List => {
                for task in frame["tasks"].as_array().into_iter().flatten() {
                    let id = task["id"].as_str().unwrap_or_default();
                    self.on_disk(step, at, id)?;
                }
                Ok(())
            }
        }
    }

    /// How far a task is, which must be on disk, and of the mesh of whoever is told of it.
    fn on_disk(&self, step: &Step<'_>, at: ConnKey, id: &str) -> Result<TaskStatus, Violation> {
        let row = step.tables.tasks.iter().find(|(_, task)| task.id == id);
        let Some((mesh_id, task)) = row else {
            return Err(Violation::new(
                "I4",
                format!("task {id} was told of before it was on disk"),
            ));
        };
        let town = &self.plan.town;
        let hello = self.conns.get(&at).and_then(|conn| conn.hello.as_ref());
        let mesh = hello.map(|hello| &town.meshes[town.members[hello.who.member].mesh].id);
        ensure!(
            mesh.is_none_or(|mesh| mesh == mesh_id),
            "I7",
            "task {id} of {mesh_id} was told in another mesh"
        );
        Ok(task.status)
    }
}
