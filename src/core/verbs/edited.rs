//! Members, and settings of a mesh, that were changed over HTTP (protocol.md §2.6): whom it concerns
//! is told, and it is audited.

use serde::Serialize;

use crate::input::Edited;
use crate::log::What;
use crate::rows::{AuditRow, StoreOp};
use crate::shard::{Shard, Turn};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Updated<'a> {
    member_id: &'a str,
    changes: &'a serde_json::Value,
}

impl Shard {
    /// The change itself has been made, and given as [`Input::MemberPut`](crate::Input) or
    /// [`Input::MeshPut`](crate::Input). False if the mesh is not here.
    pub(crate) fn edited(&mut self, t: &mut Turn<'_>, edited: &Edited) -> bool {
        let Some(mesh) = self.mesh_ids.get(&*edited.mesh_id).copied() else {
            return false;
        };
        let name_of = |id: &String| {
            let member = self.member_ids.get(&**id)?;
            Some(self.member(*member)?.name.to_string())
        };
        let (event_type, payload) = match &edited.member_id {
            Some(member_id) => {
                let updated = Updated {
                    member_id,
                    changes: &edited.changes,
                };
                ("member_updated", serde_json::to_value(updated))
            }
            None => ("settings_updated", Ok(edited.changes.clone())),
        };
        t.persist(StoreOp::Audit(Box::new(AuditRow {
            mesh_id: edited.mesh_id.clone(),
            event_type,
            actor_member_id: edited.by.clone(),
            actor_display_name: edited.by.as_ref().and_then(name_of),
            // Our own struct cannot fail to be encoded.
            payload: payload.unwrap_or_default(),
            created_at: t.now.wall,
        })));
        let Some(member_id) = edited.member_id.as_deref() else {
            return true;
        };
        let Some(member) = self.member_ids.get(member_id).copied() else {
            return true;
        };
        let message_id = self.mint.uuid_v4();
        let updated = Updated {
            member_id,
            changes: &edited.changes,
        };
        let event = (mesh, "profile_updated");
        let frame = self.system_push(t.now.wall, &message_id, event, updated);
        let at = self.stamp();
        self.publish(t, mesh, at, (What::Profile { member }, frame));
        true
    }
}
