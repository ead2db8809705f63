//! The frames a session reads and writes, after its hello.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::event::{Message, PeerChange, PeerEvent, Welcome};
use crate::core::rows::{Group, Priority, Status};

/// A frame of the broker, understood.
#[derive(Debug)]
pub(super) enum Inbound {
    Welcome(Welcome),
    Message(Message),
    /// A system push of which peers are the subject, with its message id.
    Peer(PeerEvent, String),
    Ack(Ack),
    Error(ErrorFrame),
    Other(Value),
}

/// Answer to a send, and to two other requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Ack {
    pub(super) id: String,
    pub(super) message_id: String,
    pub(super) deferred: bool,
    pub(super) error: Option<String>,
}

/// What the broker did not like.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorFrame {
    pub(super) code: String,
    pub(super) message: String,
    #[serde(rename = "_reqId")]
    pub(super) req_id: Option<String>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    subtype: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SystemPush<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(default)]
    event_data: Value,
    #[serde(default)]
    message_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PeerData {
    name: String,
    pubkey: String,
    groups: Vec<Group>,
}

impl Inbound {
    /// Reads a frame; an error if it is not shaped as its type wants.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let Kind { kind, subtype } = serde_json::from_str(text)?;
        Ok(match (&*kind, &*subtype) {
            ("hello_ack", _) => Self::Welcome(serde_json::from_str(text)?),
            ("push", "system") => Self::system(text)?,
            ("push", _) => Self::Message(serde_json::from_str(text)?),
            ("ack", _) => Self::Ack(serde_json::from_str(text)?),
            ("error", _) => Self::Error(serde_json::from_str(text)?),
            _ => Self::Other(serde_json::from_str(text)?),
        })
    }

    fn system(text: &str) -> Result<Self, serde_json::Error> {
        let push: SystemPush<'_> = serde_json::from_str(text)?;
        let Some(change) = PeerChange::parse(&push.event) else {
            return serde_json::from_str(text).map(Self::Other);
        };
        let data: PeerData = serde_json::from_value(push.event_data)?;
        let peer = PeerEvent {
            change,
            name: data.name,
            pubkey: data.pubkey,
            groups: data.groups,
        };
        Ok(Self::Peer(peer, push.message_id))
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The sender's name for it, kept when it is sent again. Unique per member: the broker takes
    /// a second send under the same id for a repetition of the first. Empty: for
    /// [`Client::send`](super::Client::send) to make.
    pub client_message_id: String,
    /// A key, `*`, `@group` or `#topic`.
    pub target: String,
    /// How urgent it is.
    pub priority: Priority,
    /// For the recipient.
    pub nonce: String,
    /// For the recipient: base64 of a text, or encrypted.
    pub ciphertext: String,
    /// The broker's id of the message it answers.
    pub reply_to_id: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "send", rename_all = "camelCase")]
struct Send<'a> {
    /// The ack repeats it.
    id: &'a str,
    #[serde(rename = "client_message_id")]
    client_message_id: &'a str,
    target_spec: &'a str,
    priority: Priority,
    nonce: &'a str,
    ciphertext: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<&'a str>,
}

impl Outgoing {
    /// A message of priority `now`, without nonce and without an id.
    #[must_use]
    pub fn new(target: impl Into<String>, ciphertext: impl Into<String>) -> Self {
        Self {
            client_message_id: String::new(),
            target: target.into(),
            priority: Priority::Now,
            nonce: String::new(),
            ciphertext: ciphertext.into(),
            reply_to_id: None,
        }
    }

    pub(super) fn frame(&self) -> String {
        let send = Send {
            id: &self.client_message_id,
            client_message_id: &self.client_message_id,
            target_spec: &self.target,
            priority: self.priority,
            nonce: &self.nonce,
            ciphertext: &self.ciphertext,
            reply_to_id: self.reply_to_id.as_deref(),
        };
        // A struct of texts: there is nothing in it that JSON cannot say.
        serde_json::to_string(&send).unwrap_or_default()
    }
}

/// `client_ack` of a message that has arrived.
pub(super) fn client_ack(message: &Message) -> String {
    let client = message.client_message_id.as_ref();
    json!({
        "type": "client_ack",
        "clientMessageId": client.unwrap_or(&message.message_id),
        "brokerMessageId": message.message_id,
    })
    .to_string()
}

pub(super) fn set_status(status: Status) -> String {
    json!({"type": "set_status", "status": status.name()}).to_string()
}

pub(super) fn join_group(name: &str, role: Option<&str>) -> String {
    let mut frame = json!({"type": "join_group", "name": name});
    if let Some(role) = role {
        frame["role"] = role.into();
    }
    frame.to_string()
}

pub(super) fn leave_group(name: &str) -> String {
    json!({"type": "leave_group", "name": name}).to_string()
}

pub(super) const GOODBYE: &str = r#"{"type":"goodbye"}"#;
