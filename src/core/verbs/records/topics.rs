//! `topic_history` (protocol.md §20): what was said in a topic is on disk only.

use bytes::Bytes;
use serde::Serialize;

use super::{Asker, Listed, Then as Any};
use crate::ids::PubKey;
use crate::limits::{NAME_BYTES_MAX, TOPIC_HISTORY_ROWS, TOPIC_HISTORY_ROWS_MAX};
use crate::mint::MessageId;
use crate::rows::{RecordAnswer, RecordAsk, TopicMessage};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) struct Then {
    /// The topic, as it was asked for.
    topic: Box<str>,
}

#[derive(Serialize)]
struct History<'a> {
    topic: &'a str,
    #[serde(flatten)]
    messages: Listed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    sender_pubkey: PubKey,
    sender_member_id: &'a str,
    sender_name: &'a str,
    nonce: &'a str,
    ciphertext: &'a str,
    body_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<&'a str>,
    created_at: Wall,
}

impl Shard {
    pub(in crate::verbs) fn topic_history(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let limit = request.fields.json::<u64>("limit", "a whole number")?;
        let limit = limit.map_or(TOPIC_HISTORY_ROWS, |limit| {
            let rows = u32::try_from(limit).unwrap_or(u32::MAX);
            rows.clamp(1, TOPIC_HISTORY_ROWS_MAX)
        });
        let before = request.fields.opt_str("beforeId", NAME_BYTES_MAX)?;
        let before = before.map(|id| {
            let id = MessageId::parse(&id).map(|id| id.seq());
            id.ok_or_else(|| FieldError::new("beforeId", "the id of a message"))
        });
        let before = before.transpose()?;
        let Some((_, ix, topic)) = self.topic_asked(t, request)? else {
            return Ok(());
        };
        let found = self.topic_in(request.slot, ix);
        let Some(topic_id) = found.map(|topic| topic.id.to_string()) else {
            return Ok(());
        };
        let ask = RecordAsk::TopicHistory {
            topic_id,
            before,
            limit,
        };
        self.ask_records(t, request, ask, Any::Topic(Then { topic }));
        Ok(())
    }

    pub(super) fn topic_answered(
        &self,
        by: &Asker<'_>,
        then: &Then,
        answer: &RecordAnswer,
    ) -> Option<Bytes> {
        let RecordAnswer::TopicMessages(messages) = answer else {
            return None;
        };
        let entries = messages
            .iter()
            .filter_map(|message| self.post_entry(message));
        let history = History {
            topic: &then.topic,
            messages: Listed::new("messages", entries),
        };
        Some(by.reply("topic_history_response", history))
    }

    fn post_entry<'a>(&'a self, message: &'a TopicMessage) -> Option<Entry<'a>> {
        let sender = self.member_ids.get(&*message.sender_member_id)?;
        let sender = self.member(*sender)?;
        Some(Entry {
            id: message.id.as_str(),
            sender_pubkey: message.sender_session_pubkey.unwrap_or(sender.key),
            sender_member_id: &message.sender_member_id,
            sender_name: &sender.name,
            nonce: &message.nonce,
            ciphertext: &message.ciphertext,
            body_version: message.body_version,
            reply_to_id: message.reply_to_id.as_deref(),
            created_at: message.created_at,
        })
    }
}
