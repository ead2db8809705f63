//! `share_context`, `get_context`, `list_contexts` (protocol.md §20).

use serde::Serialize;

use super::{Asker, Listed, Then as Any, list};
use crate::ids::PeerHandle;
use crate::limits::{CONTEXT_ROWS, LIST_ROWS, RECORD_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use crate::rows::{Context, RecordAnswer, RecordAsk};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Shared { name: String, summary: String },
    Found,
    Listed,
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
        let name = who.name.clone();
        let context = Context {
            id: self.mint.record_id(),
            member_id: who.member_id,
            presence_id: who.presence_id,
            peer_name: who.name,
            summary: summary.clone(),
            files_read,
            key_findings,
            tags,
            updated_at: t.now.wall,
        };
        let then = Any::Context(Then::Shared { name, summary });
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

    /// Tells all others that a member is at something else: `_context:<its name>` is set to it.
    fn tell_context(
        &mut self,
        _t: &mut Turn<'_>,
        _sharer: PeerHandle,
        _name: &str,
        _summary: &str,
    ) {
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
            (Then::Shared { name, summary }, RecordAnswer::Kept(id)) => {
                self.tell_context(t, by.handle, &name, &summary);
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
            (Then::Shared { .. } | Then::Found | Then::Listed, _) => None,
        }
    }
}
