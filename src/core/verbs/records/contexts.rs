//! `share_context`, `get_context`, `list_contexts` (protocol.md §20).

use serde::Serialize;

use super::{Asker, Listed, Then as Any, list};
use crate::limits::{CONTEXT_ROWS, LIST_ROWS, RECORD_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use crate::log::What;
use crate::peer::MeshIx;
use crate::rows::{Context, RecordAnswer, RecordAsk};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Shared(Box<News>),
    Found,
    Listed,
}

/// What all others are told of a context.
#[derive(Debug)]
pub(super) struct News {
    mesh: MeshIx,
    /// By which session: its place among the leases.
    setter: u64,
    /// The member's name.
    name: String,
    summary: String,
}

/// To others a context looks like a key of shared state (protocol.md §20).
#[derive(Serialize)]
#[serde(tag = "type", rename = "state_change", rename_all = "camelCase")]
struct StateChange<'a> {
    key: &'a str,
    value: &'a str,
    updated_by: &'a str,
}

#[derive(Serialize)]
struct Shared<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    peer_name: &'a str,
    summary: &'a str,
    files_read: &'a [String],
    key_findings: &'a [String],
    tags: &'a [String],
    updated_at: Wall,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Short<'a> {
    peer_name: &'a str,
    summary: &'a str,
    tags: &'a [String],
    updated_at: Wall,
}

impl Shard {
    pub(crate) fn share_context(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let summary = fields.str("summary", RECORD_TEXT_BYTES_MAX)?.into_owned();
        let (files_read, key_findings) = (list(fields, "filesRead")?, list(fields, "keyFindings")?);
        let tags = list(fields, "tags")?;
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let news = News {
            mesh: peer.mesh,
            setter: peer.order,
            name: who.name.clone(),
            summary: summary.clone(),
        };
        let context = Context {
            id: self.mint.record_id(),
            member_id: who.member_id,
            presence_id: who.presence_id,
            peer_name: who.name,
            summary,
            files_read,
            key_findings,
            tags,
            updated_at: t.now.wall,
        };
        let then = Any::Context(Then::Shared(Box::new(news)));
        self.ask_records(t, request, RecordAsk::ShareContext(context), then);
        Ok(())
    }

    pub(crate) fn get_context(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let text = request.fields.str("query", TEXT_BYTES_MAX)?.into_owned();
        let ask = RecordAsk::FindContexts {
            text: Some(text),
            limit: CONTEXT_ROWS,
        };
        self.ask_records(t, request, ask, Any::Context(Then::Found));
        Ok(())
    }

    pub(crate) fn list_contexts(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let ask = RecordAsk::FindContexts {
            text: None,
            limit: LIST_ROWS,
        };
        self.ask_records(t, request, ask, Any::Context(Then::Listed));
    }

    /// Of what was shared all others are told, once it is durable.
    pub(super) fn context_answered(
        &mut self,
        t: &mut Turn<'_>,
        by: &Asker<'_>,
        then: Then,
        answer: RecordAnswer,
    ) -> Option<bytes::Bytes> {
        match (then, answer) {
            (Then::Shared(news), RecordAnswer::Kept(id)) => {
                self.tell_context(t, &news);
                Some(by.reply("context_shared", Shared { id: &id }))
            }
            (Then::Found, RecordAnswer::Contexts(contexts)) => {
                let found = contexts.iter().map(|context| Found {
                    peer_name: &context.peer_name,
                    summary: &context.summary,
                    files_read: &context.files_read,
                    key_findings: &context.key_findings,
                    tags: &context.tags,
                    updated_at: context.updated_at,
                });
                Some(by.reply("context_results", Listed::new("contexts", found)))
            }
            (Then::Listed, RecordAnswer::Contexts(contexts)) => {
                let short = contexts.iter().map(|context| Short {
                    peer_name: &context.peer_name,
                    summary: &context.summary,
                    tags: &context.tags,
                    updated_at: context.updated_at,
                });
                Some(by.reply("context_list", Listed::new("contexts", short)))
            }
            (Then::Shared(_) | Then::Found | Then::Listed, _) => None,
        }
    }
    /// Tells all others that a member is at something else.
    fn tell_context(&mut self, t: &mut Turn<'_>, news: &News) {
        let frame = frames::encode(&StateChange {
            key: &format!("_context:{}", news.name),
            value: &news.summary,
            updated_by: &news.name,
        });
        let what = What::State {
            setter: news.setter,
            earlier: None,
            superseded: None,
        };
        let at = self.stamp();
        self.publish(t, news.mesh, at, (what, frame));
    }
}
