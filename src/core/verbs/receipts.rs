//! What became of a message: `client_ack` and `message_status` (protocol.md §8.6, §8.7).

use crate::ids::{PeerHandle, Seq, Token};
use crate::limits::NAME_BYTES_MAX;
use crate::marks::{Mark, mark};
use crate::mint::{MessageId, is_base62};
use crate::routing::Target;
use crate::rows::{MessageRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery};
use crate::shard::{Shard, Turn, Waiting};
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

/// What waits for a row: who asked, what for, and what to echo.
pub(crate) type Asked = (PeerHandle, Box<str>, Option<Box<str>>);

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageStatus<'a> {
    message_id: &'a str,
    target_spec: &'a str,
    delivered: bool,
    delivered_at: Option<crate::time::Wall>,
    recipients: Vec<Recipient<'a>>,
}

#[derive(serde::Serialize)]
struct Recipient<'a> {
    name: &'a str,
    pubkey: String,
    status: &'a str,
}

impl Shard {
    /// The recipient has a message for good. No answer. One said to many is not waited for, and
    /// its row has no recipient that could be noted.
    pub(crate) fn client_ack(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let broker_id = request.fields.opt_str("brokerMessageId", NAME_BYTES_MAX)?;
        let client_id = request.fields.opt_str("clientMessageId", NAME_BYTES_MAX)?;
        if broker_id.is_none() && client_id.is_none() {
            return Err(FieldError::new(
                "brokerMessageId",
                "given, or clientMessageId",
            ));
        }
        let seq = broker_id
            .as_deref()
            .and_then(MessageId::parse)
            .map(|id| id.seq());
        let said = seq.is_some_and(|seq| self.said_to_many(request.slot, seq));
        let Some(peer) = self.peers.get_slot_mut(request.slot) else {
            return Ok(());
        };
        peer.acknowledges = true;
        if said {
            mark(Mark::AckOfMany);
            return Ok(());
        }
        let confirmed = peer.outbox.acknowledge(seq, client_id.as_deref());
        if !confirmed.is_empty() {
            mark(Mark::AckInMemory);
            self.confirmed(t, request.slot, &confirmed);
            return Ok(());
        }
        // No longer in memory: the row decides, if it is for one of this session's keys.
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let (Some(mesh), Some(member)) = (self.mesh(peer.mesh), self.member(peer.member)) else {
            return Ok(());
        };
        mark(Mark::AckOnDisk);
        t.persist(StoreOp::MessageAcked {
            mesh_id: mesh.id.to_string(),
            seq,
            client_message_id: client_id.map(std::borrow::Cow::into_owned),
            keys: peer.session_key.into_iter().chain([member.key]).collect(),
            at: t.now.wall,
        });
        Ok(())
    }

    /// Whether a message is in the log of the session's mesh, and not among its direct ones.
    fn said_to_many(&self, slot: u32, seq: Seq) -> bool {
        let peer = self.peers.get_slot(slot);
        let direct = peer.is_some_and(|peer| peer.outbox.holds(seq));
        let mesh = peer.and_then(|peer| self.mesh(peer.mesh));
        !direct && mesh.is_some_and(|mesh| mesh.log.said(seq))
    }

    /// Asks for the row; the answer follows.
    pub(crate) fn message_status(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let asked = request.fields.str("messageId", NAME_BYTES_MAX)?;
        if !(8..=32).contains(&asked.len()) || !is_base62(&asked) {
            let length = asked.encode_utf16().count();
            let message = format!("messageId must be 8-32 base62 chars (got {length})");
            self.error(t, request, "invalid_argument", &message);
            return Ok(());
        }
        let Some(seq) = MessageId::seq_of_prefix(&asked) else {
            self.error(t, request, "not_found", "message not found");
            return Ok(());
        };
        let token = self.next_token();
        let Some(asker) = self.wait_in_line(t, request.slot, token) else {
            return Ok(());
        };
        let req_id = request.req_id.as_deref().map(Into::into);
        let waiting = Waiting::MessageStatus {
            asker,
            asked: (&*asked).into(),
            req_id,
        };
        self.query(t, token, StoreQuery::Message { seq }, waiting);
        Ok(())
    }

    /// The row came, or not.
    pub(crate) fn message_status_answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        (asker, asked, req_id): Asked,
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let Some(peer) = self.peers.get(asker) else {
            return;
        };
        let mesh_id = self
            .mesh(peer.mesh)
            .map(|m| std::rc::Rc::clone(&m.id))
            .unwrap_or_default();
        let frame = match result {
            Ok(StoreAnswer::Message(Some(row)))
                if *row.mesh_id == *mesh_id && row.id.as_str().starts_with(&*asked) =>
            {
                let kind = "message_status_result";
                let body = MessageStatus {
                    message_id: &asked,
                    target_spec: &row.target_spec,
                    delivered: row.delivered_at.is_some(),
                    delivered_at: row.delivered_at,
                    recipients: self.recipients(peer.mesh, &row),
                };
                frames::encode(&frames::Reply {
                    kind,
                    body,
                    req_id: req_id.as_deref(),
                })
            }
            Ok(_) => frames::error("not_found", "message not found", req_id.as_deref()),
            Err(failure) => frames::error("storage", failure, req_id.as_deref()),
        };
        self.fill_reply(t, asker, token, frame);
    }

    /// Whom a message is for, as far as they are present (protocol.md §8.7).
    fn recipients(&self, mesh: crate::peer::MeshIx, row: &MessageRow) -> Vec<Recipient<'_>> {
        let status = if row.delivered_at.is_some() {
            "delivered"
        } else {
            "held"
        };
        let target = Target::parse(&row.target_spec);
        let audience = self.audience(mesh, &row.target_spec);
        let present = self.present_in(mesh);
        let peers = present.filter_map(|slot| self.peers.get_slot(slot));
        let meant = peers.filter(|peer| match target {
            Target::Everyone => true,
            Target::Group(group) => peer.in_group(group),
            Target::Key(key) => key == Some(self.public_key(peer)),
            Target::Topic(_) => audience.as_ref().is_some_and(|it| self.is_among(peer, it)),
        });
        let found: Vec<_> = meant
            .map(|peer| Recipient {
                name: peer.name(),
                pubkey: self.public_key(peer).to_string(),
                status,
            })
            .collect();
        let direct = matches!(target, Target::Key(_));
        if found.is_empty() && direct {
            let pubkey: String = row.target_spec.chars().take(16).collect();
            return vec![Recipient {
                name: "unknown",
                pubkey,
                status: "disconnected",
            }];
        }
        found
    }
}
