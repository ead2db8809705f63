//! What a mesh keeps on disk only (protocol.md §17, §19, §20): one file per family.
//!
//! A request is checked and bounded here, goes to the store as one typed question, and waits in the
//! line of its connection until that is answered; what it wrote is durable by then. Nothing of it
//! is kept in memory.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use bytes::Bytes;

use crate::ids::{PeerHandle, Token};
use crate::limits::{ANSWER_BYTES_MAX, NAME_BYTES_MAX, RECORD_LIST_BYTES_MAX};
use crate::peer::PeerConn;
use crate::replies::Question;
use crate::rows::{RecordAsk, RecordQuery, StoreAnswer, StoreFailure, StoreQuery};
use crate::shard::{Shard, Turn, Waiting};
use crate::verbs::Request;
use crate::wire::{FieldError, Fields, frames};

mod api_keys;
mod audit;
mod contexts;
mod memories;
mod mesh_info;
mod skills;
mod tasks;
mod topics;
mod vault;
mod webhooks;

/// A request that waits for the store.
#[derive(Debug)]
pub(crate) struct Asked {
    asker: PeerHandle,
    req_id: Option<Box<str>>,
    /// Whether it counts among those that are looked up for its connection.
    reads: bool,
    then: Then,
}

/// What is to be made of the store's answer.
#[derive(Debug)]
enum Then {
    Memory(memories::Then),
    Context(contexts::Then),
    Task(tasks::Then),
    MeshInfo,
    Skill(skills::Then),
    ApiKey(api_keys::Then),
    Vault(vault::Then),
    Webhook(webhooks::Then),
    Audit(audit::Then),
    Topic(topics::Then),
}

/// Whose answer it is, while it is made.
struct Asker<'a> {
    handle: PeerHandle,
    req_id: Option<&'a str>,
}

impl Asker<'_> {
    fn reply<T: Serialize>(&self, kind: &str, body: T) -> Bytes {
        let req_id = self.req_id;
        frames::encode(&frames::Reply { kind, body, req_id })
    }

    fn error(&self, code: &str, message: &str) -> Bytes {
        frames::error(code, message, self.req_id)
    }

    /// The mesh has as many as it may have.
    fn full(&self, max: usize, what: &str) -> Bytes {
        self.error("limit", &format!("a mesh may have at most {max} {what}"))
    }
}

/// Who asks, as rows have it.
pub(super) struct Who {
    pub(super) member_id: String,
    /// The member's name, whatever its session goes by.
    name: String,
    presence_id: String,
}

impl Shard {
    /// Carries out a request of these families; None if it is of another.
    pub(crate) fn record_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        match kind {
            "list_contexts" => self.list_contexts(t, request),
            "mesh_info" => self.mesh_info(t, request),
            "apikey_create" => self.apikey_create(t, request),
            "apikey_list" => self.apikey_list(t, request),
            "apikey_revoke" => self.apikey_revoke(t, request),
            "vault_list" => self.vault_list(t, request),
            "list_webhooks" => self.list_webhooks(t, request),
            "audit_verify" => self.audit_verify(t, request),
            _ => return self.checked_request(t, request, kind),
        }
        Some(Ok(()))
    }

    /// The same of those that have fields to be checked.
    fn checked_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        Some(match kind {
            "remember" => self.remember(t, request),
            "recall" => self.recall_memories(t, request),
            "forget" => self.forget(t, request),
            "share_context" => self.share_context(t, request),
            "get_context" => self.get_context(t, request),
            "create_task" => self.create_task(t, request),
            "claim_task" => self.claim_task(t, request),
            "complete_task" => self.complete_task(t, request),
            "list_tasks" => self.list_tasks(t, request),
            "share_skill" => self.share_skill(t, request),
            "get_skill" => self.get_skill(t, request),
            "list_skills" => self.list_skills(t, request),
            "remove_skill" => self.remove_skill(t, request),
            "vault_set" => self.vault_set(t, request),
            "vault_get" => self.vault_get(t, request),
            "vault_delete" => self.vault_delete(t, request),
            "create_webhook" => self.create_webhook(t, request),
            "delete_webhook" => self.delete_webhook(t, request),
            "audit_query" => self.audit_query(t, request),
            _ => return None,
        })
    }

    /// Asks the store; the answer follows. With `then` goes what is to be made of it. False if
    /// nobody is left to be answered.
    fn ask_records(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        ask: RecordAsk,
        then: Then,
    ) -> bool {
        let token = self.next_token();
        let Some(asker) = self.wait_in_line(t, request.slot, token) else {
            return false;
        };
        let mesh = self.peers.get(asker).and_then(|peer| self.mesh(peer.mesh));
        let Some(mesh_id) = mesh.map(|mesh| mesh.id.to_string()) else {
            return false;
        };
        let asked = Asked {
            asker,
            req_id: request.req_id.as_deref().map(Into::into),
            reads: ask.only_reads(),
            then,
        };
        let query = Box::new(RecordQuery { mesh_id, ask });
        let asked = Box::new(asked);
        if asked.reads {
            let question = Question {
                token,
                query,
                asked,
            };
            self.look_up(t, asker, question);
        } else {
            let query = StoreQuery::Records(query);
            self.query(t, token, query, Waiting::Records(asked));
        }
        true
    }

    /// Asks the store something that changes nothing, in its turn.
    fn look_up(&mut self, t: &mut Turn<'_>, asker: PeerHandle, question: Question) {
        let peer = self.peers.get_mut(asker);
        let Some(online) = peer.and_then(PeerConn::online_mut) else {
            return;
        };
        if !online.replies.ask(question) {
            return self.close_slow(t, asker.slot);
        }
        self.look_up_more(t, asker);
    }

    /// Asks the store what a connection is to have looked up next.
    pub(crate) fn look_up_more(&mut self, t: &mut Turn<'_>, asker: PeerHandle) {
        loop {
            let peer = self.peers.get_mut(asker);
            let online = peer.and_then(PeerConn::online_mut);
            let Some(next) = online.and_then(|online| online.replies.next_question()) else {
                return;
            };
            let query = StoreQuery::Records(next.query);
            self.query(t, next.token, query, Waiting::Records(next.asked));
        }
    }

    /// The store answered.
    pub(crate) fn records_answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        asked: Asked,
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let Asked {
            asker,
            req_id,
            reads,
            then,
        } = asked;
        let peer = self.peers.get_mut(asker).filter(|_| reads);
        if let Some(online) = peer.and_then(PeerConn::online_mut) {
            online.replies.looked_up();
        }
        let req_id = req_id.as_deref();
        let handle = asker;
        let by = &Asker { handle, req_id };
        let answer = match result {
            Ok(StoreAnswer::Records(answer)) => Ok(answer),
            Ok(StoreAnswer::Mailbox { .. } | StoreAnswer::Message(_)) => Err(StoreFailure::Io),
            Err(failure) => Err(failure),
        };
        // What came of it is in effect even if whoever asked for it has gone.
        let frame = match (then, answer) {
            (Then::Memory(then), answer) => {
                return self.memory_answered(t, token, by, (then, answer));
            }
            (Then::Audit(then), answer) => self.audit_answered(by, then, answer),
            (_, Err(failure)) => Some(by.error("storage", &failure.to_string())),
            (Then::Context(then), Ok(answer)) => self.context_answered(t, by, then, answer),
            (Then::Task(then), Ok(answer)) => tasks::answered(by, then, answer),
            (Then::MeshInfo, Ok(answer)) => self.mesh_info_answered(by, &answer),
            (Then::Skill(then), Ok(answer)) => skills::answered(by, then, answer),
            (Then::ApiKey(then), Ok(answer)) => api_keys::answered(by, then, answer),
            (Then::Vault(then), Ok(answer)) => vault::answered(by, then, answer),
            (Then::Webhook(then), Ok(answer)) => webhooks::answered(by, then, answer),
            (Then::Topic(then), Ok(answer)) => self.topic_answered(by, &then, &answer),
        };
        let frame = frame.unwrap_or_else(|| by.error("storage", &StoreFailure::Io.to_string()));
        self.fill_reply(t, asker, token, frame);
    }

    pub(super) fn who(&self, slot: u32) -> Option<Who> {
        let peer = self.peers.get_slot(slot)?;
        let member = self.member(peer.member)?;
        Some(Who {
            member_id: member.id.to_string(),
            name: member.name.to_string(),
            presence_id: peer.presence_id().to_owned(),
        })
    }
}

/// Rows under their name, as many as fit into an answer.
pub(super) struct Listed {
    name: &'static str,
    rows: Vec<Box<RawValue>>,
    truncated: bool,
}

impl Listed {
    pub(super) fn new<T: Serialize>(name: &'static str, rows: impl IntoIterator<Item = T>) -> Self {
        let mut listed = Self {
            name,
            rows: Vec::new(),
            truncated: false,
        };
        let mut bytes = 0;
        for row in rows {
            // Our own structs cannot fail to be encoded.
            let Ok(row) = to_raw_value(&row) else {
                continue;
            };
            bytes += row.get().len();
            if bytes > ANSWER_BYTES_MAX && !listed.rows.is_empty() {
                listed.truncated = true;
                break;
            }
            listed.rows.push(row);
        }
        listed
    }
}

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.name, &self.rows)?;
        // An addition: who does not know it takes what there is for all.
        if self.truncated {
            map.serialize_entry("truncated", &true)?;
        }
        map.end()
    }
}

/// A required text that is not empty.
pub(super) fn name<'a>(
    fields: &Fields<'a>,
    field: &'static str,
) -> Result<std::borrow::Cow<'a, str>, FieldError> {
    let name = fields.str(field, NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(FieldError::new(field, "not empty"));
    }
    Ok(name)
}

/// An optional text.
pub(super) fn optional(
    fields: &Fields<'_>,
    field: &'static str,
    max: usize,
) -> Result<Option<String>, FieldError> {
    let text = fields.opt_str(field, max)?;
    Ok(text.map(std::borrow::Cow::into_owned))
}

/// A list of texts; none is an empty one.
fn list(fields: &Fields<'_>, field: &'static str) -> Result<Vec<String>, FieldError> {
    Ok(fields
        .list(field, RECORD_LIST_BYTES_MAX)?
        .unwrap_or_default())
}
