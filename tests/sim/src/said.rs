//! What clients say: the frames, and beside each what it means to the oracle.

use std::rc::Rc;

use holdfast_core::rows::{Priority, Status};
use serde_json::{Value, json};

use crate::keys;
use crate::town::{Identity, KEYS, Kind, SERVERS, STREAMS, Town};

/// A text message on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) text: Rc<str>,
    pub(crate) said: Said,
    pub(crate) expect: Expect,
}

/// What a frame means.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Hello(Rc<HelloSaid>),
    Send(Rc<SendSaid>),
    /// A confirmation, by the broker's id or the sender's.
    Ack {
        id: Option<String>,
        client_id: Option<String>,
    },
    Status(Status),
    Join(String),
    Leave(String),
    Visible(bool),
    /// It leaves for good.
    Goodbye,
    /// kick (true) or disconnect.
    Kick(bool, Whom),
    /// Ban (true) or unban of a member by name.
    Ban(bool, String),
    /// `set_state`: which key, and the number that is its value.
    Set(usize, usize),
    GetState(usize, String),
    CreateStream(usize),
    /// `subscribe` (true) or `unsubscribe`.
    Subscribe(usize, bool, String),
    /// To which stream, and the number that is its data.
    Publish(usize, usize, String),
    Clock(Clocked),
    /// `watch`: its number is in its URL.
    Watch(usize),
    /// `unwatch`: which, by its id.
    Unwatch(String, String),
    /// `schedule`, `cancel_scheduled`, `list_scheduled`.
    Schedule(ScheduleAsked, String),
    /// A request about MCP servers.
    Mcp(McpAsked, String),
    /// `watch_list`.
    Watches(String),
    /// Anything that changes no lease and reaches nobody else.
    Other,
}

/// What is done to a clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clocked {
    Set(u64),
    Pause,
    Resume,
}

/// Whom a kick means.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    All,
    Stale(u64),
    Target(String),
}

/// A hello, as it was meant.
#[derive(Clone, Debug)]
pub(crate) struct HelloSaid {
    pub(crate) who: Identity,
    pub(crate) name: Option<String>,
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) cwd: String,
    pub(crate) pid: i64,
    /// The client's clock.
    pub(crate) timestamp: i64,
    pub(crate) expires_at: i64,
    /// `leaseMs`.
    pub(crate) lease: Option<u64>,
    /// What is wrong with it, if anything: the error code it may get, or `bad_attestation`.
    pub(crate) wrong: Option<&'static str>,
    /// `resumeToken`.
    pub(crate) token: Option<String>,
}

/// A message, as it was meant.
#[derive(Clone, Debug)]
pub(crate) struct SendSaid {
    /// Which message of the run: its text.
    pub(crate) number: usize,
    pub(crate) target: String,
    pub(crate) priority: Priority,
    pub(crate) client_id: Option<String>,
}

/// A request for tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskAsked {
    /// A new one.
    Create,
    /// That one, for whoever asks.
    Claim(String),
    /// All.
    List,
}

/// A request about what is scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleAsked {
    /// A new one.
    Make,
    /// That one is cancelled.
    Cancel(String),
    /// Those of the member.
    List,
}

/// A request about MCP servers, which go by the place of their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum McpAsked {
    /// `mcp_register`, and whether it is to outlive its host.
    Register(usize, bool),
    /// `mcp_unregister`.
    Unregister(usize),
    /// `mcp_list`.
    List,
    /// `mcp_call`, with its number.
    Call(usize, usize),
    /// `mcp_call_response` to a call of that id, with that number.
    Respond(String, usize),
}

/// The answer a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    /// `ack` with that `id`.
    SendAck(String),
    /// A frame of that type, or an error, with that `_reqId`.
    Reply(&'static str, String),
    /// The answer to a request for tasks, or an error, with that `_reqId`.
    Task(TaskAsked, String),
    /// An error without `_reqId`.
    Error,
    /// `state_result` with that number, or none.
    State(Option<usize>, String),
    /// An error of that code, with that `_reqId`.
    Refused(&'static str, String),
    /// `watch_ack` of that watch, or an error, with that `_reqId`.
    Watch(usize, String),
    /// `watch_ack` for a watch of that id that is no more.
    Unwatched(String, String),
    /// `watch_list_result` with those, by the number in their URLs.
    Watches(Vec<usize>, String),
    /// `scheduled_ack`, or an error, with that `_reqId`.
    Schedule(String),
    /// `scheduled_list` with those.
    Schedules(Vec<String>, String),
    /// `cancel_scheduled_ack` for that one, and whether it was there.
    Cancelled(String, bool, String),
    /// `mcp_register_ack`, or an error, with that `_reqId`.
    Registered(usize, String),
    /// `mcp_list_result` with those, and whether each is online.
    Servers(Vec<(&'static str, bool)>, String),
    /// A second hello on one socket: `hello_ack` if it is of the session itself, else an error.
    Hello(bool),
}

fn frame(value: &Value, said: Said, expect: Expect) -> Frame {
    Frame {
        text: value.to_string().into(),
        said,
        expect,
    }
}

impl HelloSaid {
    /// The moment that its signature is over: a bad one's is one that no client ever gives.
    pub(crate) fn signed(&self) -> i64 {
        match self.wrong {
            Some("bad_signature") => -self.timestamp,
            _ => self.timestamp,
        }
    }

    /// The frame.
    pub(crate) fn frame(self: &Rc<Self>, town: &Town) -> Frame {
        let member = &town.members[self.who.member];
        let mesh = &town.meshes[member.mesh].id;
        let pubkey = &keys::pair(member.key).hex;
        let mut value = json!({
            "meshId": mesh, "sessionId": self.who.session_id, "pid": self.pid, "cwd": self.cwd,
            "timestamp": self.timestamp, "displayName": self.name, "leaseMs": self.lease,
            "resumeToken": self.token,
            "groups": self.groups.as_ref().map(|names| {
                names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()
            }),
        });
        let signed = self.signed();
        let signature = match (self.who.kind, self.who.key) {
            (Kind::Launched, Some(key)) => {
                let own = &keys::pair(key).hex;
                // A bad one is good for a moment that no client ever gives.
                let damaged = self.wrong == Some("bad_attestation");
                let until = if damaged {
                    -self.expires_at
                } else {
                    self.expires_at
                };
                let attested = keys::attest(member.key, key, until);
                value["type"] = "session_hello".into();
                value["parentMemberPubkey"] = pubkey.as_str().into();
                value["parentMemberId"] = member.id.as_str().into();
                value["sessionPubkey"] = own.as_str().into();
                value["parentAttestation"] = json!({
                    "sessionPubkey": own, "parentMemberPubkey": pubkey,
                    "expiresAt": self.expires_at, "signature": &*attested,
                });
                keys::sign_session(key, mesh, member.key, signed)
            }
            (_, key) => {
                value["type"] = "hello".into();
                value["memberId"] = member.id.as_str().into();
                value["pubkey"] = pubkey.as_str().into();
                value["sessionPubkey"] = key.map(|key| keys::pair(key).hex.clone()).into();
                keys::sign_hello(member.key, mesh, &member.id, signed)
            }
        };
        value["signature"] = signature.into();
        if self.wrong == Some("malformed") {
            value["signature"] = "nonsense".into();
        }
        frame(&value, Said::Hello(Rc::clone(self)), Expect::Nothing)
    }
}

impl SendSaid {
    /// The frame; `padding` bytes make it larger.
    pub(crate) fn frame(self, padding: usize) -> Frame {
        let id = format!("s{}", self.number);
        let text = format!("m{} {}", self.number, "x".repeat(padding));
        let value = json!({
            "type": "send", "id": id, "targetSpec": self.target, "priority": self.priority,
            "nonce": "n", "ciphertext": text, "client_message_id": self.client_id,
        });
        frame(&value, Said::Send(Rc::new(self)), Expect::SendAck(id))
    }
}

/// A confirmation.
pub(crate) fn ack(id: Option<&str>, client_id: Option<&str>) -> Frame {
    let value = json!({"type": "client_ack", "brokerMessageId": id, "clientMessageId": client_id});
    let said = Said::Ack {
        id: id.map(str::to_owned),
        client_id: client_id.map(str::to_owned),
    };
    frame(&value, said, Expect::Nothing)
}

/// `set_status`.
pub(crate) fn status(status: Status) -> Frame {
    let value = json!({"type": "set_status", "status": status});
    frame(&value, Said::Status(status), Expect::Nothing)
}

/// `join_group` or `leave_group`.
pub(crate) fn group(join: bool, name: &str) -> Frame {
    if join {
        let value = json!({"type": "join_group", "name": name});
        return frame(&value, Said::Join(name.to_owned()), Expect::Nothing);
    }
    let value = json!({"type": "leave_group", "name": name});
    frame(&value, Said::Leave(name.to_owned()), Expect::Nothing)
}

/// `goodbye`.
pub(crate) fn goodbye() -> Frame {
    frame(&json!({"type": "goodbye"}), Said::Goodbye, Expect::Nothing)
}

/// `set_visible`.
pub(crate) fn visible(visible: bool, req: &str) -> Frame {
    let value = json!({"type": "set_visible", "visible": visible, "_reqId": req});
    frame(
        &value,
        Said::Visible(visible),
        Expect::Reply("ack", req.to_owned()),
    )
}

/// `kick` or `disconnect`.
pub(crate) fn kick(kick: bool, whom: Whom, req: &str) -> Frame {
    let (kind, reply) = if kick {
        ("kick", "kick_ack")
    } else {
        ("disconnect", "disconnect_ack")
    };
    let value = match &whom {
        Whom::All => json!({"type": kind, "all": true, "_reqId": req}),
        Whom::Stale(age) => json!({"type": kind, "stale": age, "_reqId": req}),
        Whom::Target(target) => json!({"type": kind, "target": target, "_reqId": req}),
    };
    frame(
        &value,
        Said::Kick(kick, whom),
        Expect::Reply(reply, req.to_owned()),
    )
}

/// `ban` or `unban`.
pub(crate) fn ban(ban: bool, target: &str, req: &str) -> Frame {
    let (kind, reply) = if ban {
        ("ban", "ban_ack")
    } else {
        ("unban", "unban_ack")
    };
    let value = json!({"type": kind, "target": target, "_reqId": req});
    frame(
        &value,
        Said::Ban(ban, target.to_owned()),
        Expect::Reply(reply, req.to_owned()),
    )
}

/// `set_state`.
pub(crate) fn set_state(key: usize, number: usize) -> Frame {
    let value = json!({"type": "set_state", "key": KEYS[key], "value": number});
    frame(&value, Said::Set(key, number), Expect::Nothing)
}

/// `get_state`.
pub(crate) fn get_state(key: usize, req: &str) -> Frame {
    let value = json!({"type": "get_state", "key": KEYS[key], "_reqId": req});
    let said = Said::GetState(key, req.to_owned());
    frame(&value, said, Expect::State(None, req.to_owned()))
}

/// `create_stream`.
pub(crate) fn create_stream(stream: usize, req: &str) -> Frame {
    let value = json!({"type": "create_stream", "name": STREAMS[stream], "_reqId": req});
    let expect = Expect::Reply("stream_created", req.to_owned());
    frame(&value, Said::CreateStream(stream), expect)
}

/// `subscribe` or `unsubscribe`.
pub(crate) fn subscribe(stream: usize, subscribe: bool, req: &str) -> Frame {
    let kind = if subscribe {
        "subscribe"
    } else {
        "unsubscribe"
    };
    let value = json!({"type": kind, "stream": STREAMS[stream], "_reqId": req});
    let said = Said::Subscribe(stream, subscribe, req.to_owned());
    frame(&value, said, Expect::Reply("subscribed", req.to_owned()))
}

/// `publish`.
pub(crate) fn publish(stream: usize, number: usize, req: &str) -> Frame {
    let value = json!({
        "type": "publish", "stream": STREAMS[stream], "data": number, "_reqId": req,
    });
    let said = Said::Publish(stream, number, req.to_owned());
    frame(&value, said, Expect::Nothing)
}

/// Something is done to the clock.
pub(crate) fn clock(what: Clocked, req: &str) -> Frame {
    let mut value = match what {
        Clocked::Set(speed) => json!({"type": "set_clock", "speed": speed}),
        Clocked::Pause => json!({"type": "pause_clock"}),
        Clocked::Resume => json!({"type": "resume_clock"}),
    };
    value["_reqId"] = req.into();
    let expect = Expect::Reply("clock_status", req.to_owned());
    frame(&value, Said::Clock(what), expect)
}

/// `watch` of a URL that nobody else watches.
pub(crate) fn watch(number: usize, req: &str) -> Frame {
    let value = json!({
        "type": "watch", "url": watch_url(number), "interval": 5, "mode": "hash", "_reqId": req,
    });
    let expect = Expect::Watch(number, req.to_owned());
    frame(&value, Said::Watch(number), expect)
}

/// Where a watch looks.
fn watch_url(number: usize) -> String {
    format!("https://pages.example/{number}")
}

/// The number in a watch's URL.
pub(crate) fn watch_number(url: &str) -> Option<usize> {
    url.rsplit('/').next()?.parse().ok()
}

/// `unwatch`.
pub(crate) fn unwatch(id: &str, req: &str) -> Frame {
    let value = json!({"type": "unwatch", "watchId": id, "_reqId": req});
    let said = Said::Unwatch(id.to_owned(), req.to_owned());
    frame(&value, said, Expect::Nothing)
}

/// `schedule`: a message to be sent then, or every minute.
pub(crate) fn schedule(number: usize, to: &str, at: Option<i64>, req: &str) -> Frame {
    let text = format!("m{number}");
    let mut value = json!({"type": "schedule", "to": to, "message": text, "_reqId": req});
    match at {
        Some(at) => value["deliverAt"] = at.into(),
        None => value["cron"] = "* * * * *".into(),
    }
    let said = Said::Schedule(ScheduleAsked::Make, req.to_owned());
    frame(&value, said, Expect::Nothing)
}

/// `cancel_scheduled`.
pub(crate) fn cancel(id: &str, req: &str) -> Frame {
    let value = json!({"type": "cancel_scheduled", "scheduledId": id, "_reqId": req});
    let said = Said::Schedule(ScheduleAsked::Cancel(id.to_owned()), req.to_owned());
    frame(&value, said, Expect::Nothing)
}

/// `list_scheduled`.
pub(crate) fn scheduled(req: &str) -> Frame {
    let value = json!({"type": "list_scheduled", "_reqId": req});
    let said = Said::Schedule(ScheduleAsked::List, req.to_owned());
    frame(&value, said, Expect::Nothing)
}

/// A request about MCP servers.
pub(crate) fn mcp(asked: McpAsked, req: &str) -> Frame {
    let mut value = match &asked {
        McpAsked::Register(name, persistent) => json!({
            "type": "mcp_register", "serverName": SERVERS[*name], "description": "",
            "tools": [], "persistent": persistent,
        }),
        McpAsked::Unregister(name) => {
            json!({"type": "mcp_unregister", "serverName": SERVERS[*name]})
        }
        McpAsked::List => json!({"type": "mcp_list"}),
        McpAsked::Call(name, number) => json!({
            "type": "mcp_call", "serverName": SERVERS[*name], "toolName": format!("t{number}"),
        }),
        McpAsked::Respond(call, number) => json!({
            "type": "mcp_call_response", "callId": call, "result": {"n": number},
        }),
    };
    value["_reqId"] = req.into();
    frame(&value, Said::Mcp(asked, req.to_owned()), Expect::Nothing)
}

/// `watch_list`.
pub(crate) fn watches(req: &str) -> Frame {
    let value = json!({"type": "watch_list", "_reqId": req});
    frame(&value, Said::Watches(req.to_owned()), Expect::Nothing)
}

/// A request that only asks, or changes only what is shown.
pub(crate) fn plain(mut value: Value, reply: Option<&'static str>, req: &str) -> Frame {
    let expect = match reply {
        Some(kind) => {
            value["_reqId"] = req.into();
            Expect::Reply(kind, req.to_owned())
        }
        None => Expect::Nothing,
    };
    frame(&value, Said::Other, expect)
}

/// A request for tasks.
pub(crate) fn task(asked: TaskAsked, req: &str) -> Frame {
    let value = match &asked {
        TaskAsked::Create => json!({"type": "create_task", "title": "t", "_reqId": req}),
        TaskAsked::Claim(id) => json!({"type": "claim_task", "taskId": id, "_reqId": req}),
        TaskAsked::List => json!({"type": "list_tasks", "_reqId": req}),
    };
    frame(&value, Said::Other, Expect::Task(asked, req.to_owned()))
}

/// Text that is no request at all.
pub(crate) fn noise(text: &str) -> Frame {
    Frame {
        text: text.into(),
        said: Said::Other,
        expect: Expect::Error,
    }
}
