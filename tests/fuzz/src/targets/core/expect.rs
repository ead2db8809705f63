//! What the protocol says must come back for a message, decided anew from the message alone.

use std::collections::BTreeMap;

use holdfast_core::rows::Stats;
use serde_json::Value;
use serde_json::value::RawValue;

const NAME_BYTES_MAX: usize = 512;
const TEXT_BYTES_MAX: usize = 4096;
const OBJECT_BYTES_MAX: usize = 16 * 1024;

/// What a message may do to other connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    Own,
    /// Pushes.
    Push,
    /// A hello: pushes, and the end of a socket it takes the place of.
    Hello,
    /// Pushes and closes, if the sender is an admin.
    Moderate,
}

/// The answer that must come.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    /// Type, and for an error its code; `*` is any.
    pub(super) any_of: Vec<(&'static str, &'static str)>,
    /// To be echoed.
    pub(super) req_id: Option<String>,
    /// To be echoed in an ack.
    pub(super) id: Option<String>,
    /// Whether it must come: only the limit of groups, and what topics there are, depend on
    /// more than the message.
    pub(super) must: bool,
}

/// A message as far as the oracle needs it.
#[derive(Debug)]
pub(super) struct Decoded {
    fields: BTreeMap<String, Box<RawValue>>,
    /// What it may do to others.
    pub(super) reach: Reach,
    /// What must come back.
    pub(super) answer: Option<Expect>,
    /// What may come behind it.
    pub(super) also: Option<Expect>,
}

impl Decoded {
    /// Reads a message of a socket that has said hello (`greeted`) or has not.
    #[must_use]
    pub(super) fn read(text: &str, greeted: bool) -> Self {
        let mut decoded = Self {
            fields: BTreeMap::new(),
            reach: Reach::Own,
            answer: None,
            also: None,
        };
        match serde_json::from_str(text) {
            Ok(fields) => decoded.fields = fields,
            Err(_) => {
                decoded.answer = Some(decoded.error("malformed"));
                return decoded;
            }
        }
        let kind = decoded.text("type");
        let hello = matches!(kind.as_deref(), Some("hello" | "session_hello"));
        if hello {
            decoded.reach = Reach::Hello;
            decoded.answer = Some(decoded.plain("hello_ack"));
        } else if !greeted {
            decoded.answer = Some(Expect {
                req_id: None,
                ..decoded.error("no_hello")
            });
        } else if let Some(kind) = kind {
            decoded.reach = reach(&kind);
            decoded.answer = decoded.answer_to(&kind);
            decoded.also = decoded.repeated(&kind);
        } else {
            decoded.answer = Some(decoded.error("malformed"));
        }
        decoded
    }

    /// Whether it is one of the hellos.
    #[must_use]
    pub(super) fn is_hello(&self) -> bool {
        self.reach == Reach::Hello
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .get(name)
            .map(|raw| raw.get())
            .filter(|text| *text != "null")
    }

    /// A string field.
    #[must_use]
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// Whether the field is a string of at most that many bytes, or absent.
    fn short(&self, name: &str, max: usize) -> bool {
        self.get(name).is_none() || self.text(name).is_some_and(|text| text.len() <= max)
    }

    fn has_short(&self, name: &str, max: usize) -> bool {
        self.get(name).is_some() && self.short(name, max)
    }

    fn reply(&self, any_of: Vec<(&'static str, &'static str)>) -> Expect {
        Expect {
            any_of,
            req_id: self.text("_reqId").filter(|id| !id.is_empty()),
            id: None,
            must: true,
        }
    }

    fn error(&self, code: &'static str) -> Expect {
        self.reply(vec![("error", code)])
    }

    /// A hello's answer, which never echoes.
    fn plain(&self, kind: &'static str) -> Expect {
        Expect {
            req_id: None,
            ..self.reply(vec![(kind, ""), ("error", "*")])
        }
    }

    fn either(&self, kind: &'static str, codes: &[&'static str]) -> Expect {
        let errors = codes.iter().map(|code| ("error", *code));
        self.reply([(kind, "")].into_iter().chain(errors).collect())
    }

    /// No answer if the request is sound.
    fn silent_if(&self, sound: bool) -> Option<Expect> {
        (!sound).then(|| self.error("invalid_argument"))
    }

    /// protocol.md §7 to §10 and §18: which requests are answered, and with what.
    fn answer_to(&self, kind: &str) -> Option<Expect> {
        let groups = |name| self.has_short(name, NAME_BYTES_MAX);
        match kind {
            "send" => Some(Expect {
                req_id: None,
                id: Some(self.text("id").unwrap_or_default()),
                ..self.reply(vec![("ack", "")])
            }),
            "client_ack" => {
                let ids = ["brokerMessageId", "clientMessageId"];
                let sound = ids.iter().all(|id| self.short(id, NAME_BYTES_MAX));
                self.silent_if(sound && ids.iter().any(|id| self.get(id).is_some()))
            }
            "message_status" => {
                let codes = ["invalid_argument", "not_found", "storage"];
                Some(self.either("message_status_result", &codes))
            }
            "list_peers" => Some(self.either("peers_list", &[])),
            "set_status" => {
                let status = self.text("status");
                self.silent_if(matches!(
                    status.as_deref(),
                    Some("idle" | "working" | "dnd")
                ))
            }
            "set_summary" => self.silent_if(self.has_short("summary", TEXT_BYTES_MAX)),
            "set_stats" => self.silent_if(self.sound_stats()),
            "set_visible" => {
                let visible = self.get("visible").map(serde_json::from_str::<bool>);
                Some(match visible {
                    Some(Ok(_)) => self.bare_ack(),
                    _ => self.error("invalid_argument"),
                })
            }
            "set_profile" => Some(if self.sound_profile() {
                self.bare_ack()
            } else {
                self.error("invalid_argument")
            }),
            "join_group" if !groups("name") || self.text("name").as_deref() == Some("") => {
                self.silent_if(false)
            }
            "join_group" if !self.short("role", NAME_BYTES_MAX) => self.silent_if(false),
            "join_group" => Some(Expect {
                must: false,
                ..self.error("limit")
            }),
            // Whether there is such a topic depends on more than the message.
            "topic_join" | "topic_leave" | "topic_mark_read" => Some(Expect {
                must: !self.has_short("topic", NAME_BYTES_MAX),
                ..self.error("*")
            }),
            "leave_group" => self.silent_if(groups("name")),
            "kick" => Some(self.either("kick_ack", &["forbidden", "invalid_argument"])),
            "disconnect" => Some(self.either("disconnect_ack", &["forbidden", "invalid_argument"])),
            "ban" => Some(self.either("ban_ack", &MODERATION_ERRORS)),
            "unban" => Some(self.either("unban_ack", &MODERATION_ERRORS)),
            "list_bans" => Some(self.either("list_bans_result", &[])),
            "watch" => {
                let codes = ["invalid_argument", "limit", "storage"];
                Some(self.either("watch_ack", &codes))
            }
            "unwatch" => {
                let codes = ["invalid_argument", "not_found", "forbidden", "storage"];
                Some(self.either("watch_ack", &codes))
            }
            "watch_list" => Some(self.either("watch_list_result", &[])),
            _ => self.answer_of_what_is_shared(kind),
        }
    }

    /// protocol.md §11, §12, §15.
    fn answer_of_what_is_shared(&self, kind: &str) -> Option<Expect> {
        let made = ["invalid_argument", "limit", "storage"];
        Some(match kind {
            "set_state" | "publish" | "unsubscribe" => {
                let codes = ["invalid_argument", "limit", "not_found"];
                Expect {
                    must: false,
                    ..self.reply(codes.map(|code| ("error", code)).to_vec())
                }
            }
            "get_state" => self.either("state_result", &["invalid_argument"]),
            "list_state" => self.either("state_list", &[]),
            "create_stream" => self.either("stream_created", &made),
            "subscribe" => self.either("subscribed", &made),
            "list_streams" => self.either("stream_list", &[]),
            "set_clock" | "get_clock" => self.either("clock_status", &[]),
            "pause_clock" | "resume_clock" => self.either("clock_status", &["no_clock"]),
            _ => return self.answer_of_owned(kind),
        })
    }

    /// protocol.md §14 and §16. The result of a call may come later, and is nobody's turn.
    fn answer_of_owned(&self, kind: &str) -> Option<Expect> {
        let perhaps = |codes: &[&'static str]| Expect {
            must: false,
            ..self.reply(codes.iter().map(|code| ("error", *code)).collect())
        };
        Some(match kind {
            "schedule" => {
                let codes = ["invalid_argument", "invalid_cron", "limit", "storage"];
                self.either("scheduled_ack", &codes)
            }
            "list_scheduled" => self.either("scheduled_list", &[]),
            "cancel_scheduled" => {
                let codes = ["invalid_argument", "forbidden", "storage"];
                self.either("cancel_scheduled_ack", &codes)
            }
            "mcp_register" => {
                let codes = ["invalid_argument", "forbidden", "limit", "storage"];
                self.either("mcp_register_ack", &codes)
            }
            "mcp_unregister" => perhaps(&["invalid_argument", "forbidden", "not_found"]),
            "mcp_list" => self.either("mcp_list_result", &[]),
            "mcp_catalog" => self.either("mcp_catalog_result", &[]),
            "mcp_call" => perhaps(&["invalid_argument", "limit"]),
            "mcp_call_response" => {
                perhaps(&["invalid_argument", "not_found", "forbidden", "limit"])
            }
            _ => return self.answer_of_records(kind),
        })
    }

    /// protocol.md §17, §19, §20, and what nobody knows.
    fn answer_of_records(&self, kind: &str) -> Option<Expect> {
        Some(match reply_of(kind) {
            Some(reply) => self.either(reply, &["*"]),
            None => self.error("unsupported"),
        })
    }

    /// A recall is answered in two forms, unless it failed.
    fn repeated(&self, kind: &str) -> Option<Expect> {
        (kind == "recall").then(|| Expect {
            must: false,
            ..self.reply(vec![("memory_recall_result", "")])
        })
    }

    fn bare_ack(&self) -> Expect {
        let expect = self.reply(vec![("ack", "")]);
        let id = Some(expect.req_id.clone().unwrap_or_default());
        Expect { id, ..expect }
    }

    /// A flat object of numbers, which every peer can read in its list.
    fn sound_stats(&self) -> bool {
        self.get("stats").is_some_and(|text| {
            let flat = serde_json::from_str::<BTreeMap<String, Value>>(text);
            text.len() <= OBJECT_BYTES_MAX
                && flat.is_ok_and(|flat| flat.values().all(Value::is_number))
                && serde_json::from_str::<Stats>(text).is_ok()
        })
    }

    fn sound_profile(&self) -> bool {
        let texts = ["avatar", "title", "bio"];
        let capabilities = self.get("capabilities").is_none_or(|text| {
            text.len() <= OBJECT_BYTES_MAX && serde_json::from_str::<Vec<String>>(text).is_ok()
        });
        capabilities && texts.iter().all(|name| self.short(name, TEXT_BYTES_MAX))
    }
}

const MODERATION_ERRORS: [&str; 5] = [
    "forbidden",
    "invalid_argument",
    "invalid",
    "not_found",
    "storage",
];

/// The type of the answer to a request for what is on disk only, or not here (protocol.md §17, §19,
/// §20). What is an error anyway has no other.
fn reply_of(kind: &str) -> Option<&'static str> {
    let reply = match kind {
        "remember" => "memory_stored",
        "recall" => "memory_results",
        "forget" => "ack",
        "share_context" => "context_shared",
        "get_context" => "context_results",
        "list_contexts" => "context_list",
        "create_task" => "task_created",
        "claim_task" | "complete_task" | "list_tasks" => "task_list",
        "mesh_info" => "mesh_info_result",
        "share_skill" | "remove_skill" => "skill_ack",
        "get_skill" => "skill_data",
        "list_skills" => "skill_list",
        "apikey_create" => "apikey_created",
        "apikey_list" => "apikey_list_response",
        "apikey_revoke" => "apikey_revoke_response",
        "vault_set" | "vault_delete" => "vault_ack",
        "vault_list" => "vault_list_result",
        "vault_get" => "vault_get_result",
        "create_webhook" | "delete_webhook" => "webhook_ack",
        "list_webhooks" => "webhook_list",
        "topic_create" => "topic_created",
        "topic_list" => "topic_list_response",
        "topic_members" => "topic_members_response",
        "topic_history" => "topic_history_response",
        "audit_query" => "audit_result",
        "audit_verify" => "audit_verify_result",
        "list_files" => "file_list",
        "mesh_schema" => "mesh_schema_result",
        "vector_search" => "vector_results",
        "list_collections" => "collection_list",
        "mcp_catalog" => "mcp_catalog_result",
        "get_file" | "file_status" | "delete_file" | "grant_file_access" | "mesh_query"
        | "mesh_execute" | "vector_store" | "vector_delete" | "graph_query" | "graph_execute"
        | "mcp_deploy" | "mcp_update" | "mcp_undeploy" | "mcp_logs" | "mcp_scope"
        | "mcp_schema" | "skill_deploy" => "error",
        _ => return None,
    };
    Some(reply)
}

fn reach(kind: &str) -> Reach {
    match kind {
        // A list is preceded by the news that it would give away.
        "send" | "set_visible" | "list_peers" | "set_state" | "publish" => Reach::Push,
        "mcp_register" | "mcp_unregister" | "mcp_call" | "mcp_call_response" => Reach::Push,
        "kick" | "disconnect" | "ban" => Reach::Moderate,
        _ => Reach::Own,
    }
}

impl Expect {
    /// Whether a frame is this answer.
    #[must_use]
    pub(super) fn fits(&self, frame: &Value) -> bool {
        let text = |name: &str| frame.get(name).and_then(Value::as_str);
        let kind = text("type").unwrap_or_default();
        let code = text("code").unwrap_or_default();
        let known = self.any_of.iter().any(|(want, code_wanted)| {
            *want == kind && (kind != "error" || *code_wanted == "*" || *code_wanted == code)
        });
        let id_fits = kind == "error" || self.id.is_none() || text("id") == self.id.as_deref();
        known && id_fits && text("_reqId") == self.req_id.as_deref()
    }
}
