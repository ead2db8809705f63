//! `POST /hook/:meshId/:secret` (protocol.md §19): what the world tells a mesh through a webhook.

use serde_json::value::RawValue;

use crate::effect::Effect;
use crate::ids::Ticket;
use crate::input::Answer;
use crate::log::What;
use crate::peer::MeshIx;
use crate::rows::{
    RecordAnswer, RecordAsk, RecordQuery, StoreAnswer, StoreFailure, StoreQuery, Webhook,
};
use crate::shard::{Shard, Turn, Waiting};
use crate::wire::frames;

/// Something that came over HTTP, while its webhook is looked up.
#[derive(Debug)]
pub(crate) struct Posted {
    ticket: Ticket,
    mesh: MeshIx,
    body: Box<RawValue>,
}

impl Shard {
    /// Looks the webhook up; the answer follows. A mesh that is not here has none.
    pub(crate) fn webhook_posted(
        &mut self,
        t: &mut Turn<'_>,
        ticket: Ticket,
        (mesh_id, secret, body): (String, String, Box<RawValue>),
    ) {
        let mesh = self.mesh_ids.get(&*mesh_id).copied();
        let Some(mesh) = mesh.filter(|_| !self.shutting_down) else {
            return answer(t, ticket, Ok(None));
        };
        let token = self.next_token();
        let ask = RecordAsk::FindWebhook { secret };
        let query = StoreQuery::Records(Box::new(RecordQuery { mesh_id, ask }));
        let posted = Posted { ticket, mesh, body };
        self.query(t, token, query, Waiting::Posted(Box::new(posted)));
    }

    /// The webhook was found, or not.
    pub(crate) fn webhook_found(
        &mut self,
        t: &mut Turn<'_>,
        posted: &Posted,
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let delivered = match result {
            Ok(StoreAnswer::Records(RecordAnswer::Webhooks(found))) => {
                let found = found.first();
                Ok(found.map(|webhook| self.tell_posted(t, webhook, posted)))
            }
            Ok(_) => Ok(None),
            Err(failure) => Err(failure),
        };
        answer(t, posted.ticket, delivered);
    }

    /// Tells every session of the mesh, those in grace when they return; gives how many.
    fn tell_posted(&mut self, t: &mut Turn<'_>, webhook: &Webhook, posted: &Posted) -> u64 {
        let message_id = self.mint.uuid_v4();
        let Some(mesh) = self.mesh(posted.mesh) else {
            return 0;
        };
        let frame = frames::encode(&frames::SystemPush {
            subtype: "webhook",
            event: &webhook.name,
            event_data: &posted.body,
            message_id: &message_id,
            mesh_id: &mesh.id,
            sender_pubkey: &format!("webhook:{}", webhook.name),
            priority: "next",
            nonce: "",
            ciphertext: "",
            created_at: t.now.wall,
        });
        let present = mesh.roster.len();
        let at = self.stamp();
        self.publish(t, posted.mesh, at, (What::Posted, frame));
        u64::try_from(present).unwrap_or(u64::MAX)
    }
}

fn answer(t: &mut Turn<'_>, ticket: Ticket, delivered: Result<Option<u64>, StoreFailure>) {
    let answer = Answer::Posted(delivered);
    t.fx.push(Effect::Answer { ticket, answer });
}
