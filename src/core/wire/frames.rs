//! Messages the broker sends, with their fields in the order existing clients have seen them.

use std::fmt::Display;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::card::Groups;
use crate::ids::PubKey;
use crate::mint::MessageId;
use crate::packing::Id;
use crate::rows::{Group, Priority, Stats};
use crate::time::Wall;
use crate::wire::object::object;

/// Room for most frames, so that few grow while they are encoded.
const FRAME_BYTES: usize = 512;

/// Encodes a frame once; every recipient shares the bytes. They are as many as were asked for: a
/// frame may be kept for hours.
pub fn encode<T: Serialize>(frame: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(FRAME_BYTES);
    // Serialising our own structs into memory cannot fail: no map has a key that is not a string.
    match serde_json::to_writer(&mut bytes, frame) {
        Ok(()) => Bytes::from(bytes.into_boxed_slice()),
        Err(_) => Bytes::new(),
    }
}

/// `{type:"error", code, message, id?, _reqId?}` (protocol.md §3).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "error")]
pub struct ErrorFrame<'a> {
    /// Closed set of codes (protocol.md §21).
    pub code: &'a str,
    /// For people.
    pub message: &'a str,
    /// Where clients of some families look for the request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Echo of the request id.
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<&'a str>,
}

/// Answer to a hello (protocol.md §4, §5, design.md §8.8).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "hello_ack", rename_all = "camelCase")]
pub struct HelloAck<'a> {
    /// The same across reattaches.
    pub presence_id: &'a str,
    /// The name the session goes by.
    pub member_display_name: &'a str,
    /// Absent on reattach of a `session_hello`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_profile: Option<MemberProfile<'a>>,
    /// The mesh's policy, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_policy: Option<MeshPolicy<'a>>,
    /// What was found of an earlier presence.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored<'a>>,
    /// Always empty here: there are no managed services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<[(); 0]>,
    /// Whether an existing lease was found.
    pub reattached: bool,
    /// `truncated` if something said to many while it was away is no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<&'static str>,
    /// How long the session stays present without a socket.
    pub lease_ttl_ms: u64,
    /// With which the next hello needs no signature checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
}

/// `memberProfile`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberProfile<'a> {
    /// Free text or null.
    pub role_tag: Option<&'a str>,
    /// The member's default groups.
    pub groups: &'a [Group],
    /// `push`, `inbox` or `off`.
    pub message_mode: &'a str,
}

/// `meshPolicy`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicy<'a> {
    /// What members may edit of themselves.
    pub self_editable: &'a RawValue,
}

/// The `restored…` fields (protocol.md §4).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored<'a> {
    /// Always true.
    pub restored: bool,
    /// If there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_summary: Option<&'a str>,
    /// When it was last seen.
    pub last_seen_at: Wall,
    /// Only if the hello named none and there were some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_groups: Option<&'a [Group]>,
    /// Cumulative.
    pub restored_stats: StatsOut,
}

/// [`Stats`] with whole numbers written as such.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsOut {
    #[serde(serialize_with = "number")]
    messages_in: f64,
    #[serde(serialize_with = "number")]
    messages_out: f64,
    #[serde(serialize_with = "number")]
    tool_calls: f64,
    #[serde(serialize_with = "number")]
    errors: f64,
}

impl From<Stats> for StatsOut {
    fn from(stats: Stats) -> Self {
        let Stats {
            messages_in,
            messages_out,
            tool_calls,
            errors,
        } = stats;
        Self {
            messages_in,
            messages_out,
            tool_calls,
            errors,
        }
    }
}

/// A number as JavaScript writes it: a whole one without a fraction.
pub(crate) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // 2^53: beyond it a double is no exact integer anyway.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}

/// A broker-made push (protocol.md §7).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "push", rename_all = "camelCase")]
pub struct SystemPush<'a, T: Serialize> {
    /// Always `system`.
    pub subtype: &'a str,
    /// E.g. `peer_left`.
    pub event: &'a str,
    /// Depends on `event`.
    pub event_data: T,
    /// A fresh UUID.
    pub message_id: &'a str,
    /// The mesh.
    pub mesh_id: &'a str,
    /// Always `system`.
    pub sender_pubkey: &'a str,
    /// Always `low` for presence.
    pub priority: &'a str,
    /// Empty.
    pub nonce: &'a str,
    /// Empty.
    pub ciphertext: &'a str,
    /// Now.
    pub created_at: Wall,
}

/// `eventData` of `peer_joined`, `peer_returned`, `peer_left`, `peer_hidden`, `peer_visible`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerEvent<'a> {
    /// The name it goes by.
    pub name: &'a str,
    /// Session key, else member key.
    pub pubkey: PubKey,
    /// Joins and returns only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups<'a>>,
    /// Returns only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Wall>,
    /// Returns only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<&'a str>,
}

/// Answer to a send (protocol.md §8.2).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "ack", rename_all = "camelCase")]
pub struct Ack<'a> {
    /// The request's `id`, or empty.
    pub id: &'a str,
    /// The message's id, or empty.
    pub message_id: &'a str,
    /// Whether the message is on disk.
    pub queued: bool,
    /// Nobody has that key now: it waits for its return.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// Only on the acks of `set_visible` and `set_profile`.
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<&'a str>,
}

/// A message on its way to a peer (protocol.md §8.4, §8.5).
#[derive(Debug)]
pub struct Push<'a> {
    /// The message's id.
    pub message_id: MessageId,
    /// The mesh.
    pub mesh_id: &'a str,
    /// The key the sender encrypts with: its session key, else its member key.
    pub sender_pubkey: PubKey,
    /// Absent between sessions of one member: its control-plane client drops, unacknowledged,
    /// what bears its own member key (protocol.md §26).
    pub sender_member_pubkey: Option<PubKey>,
    /// The sender's member.
    pub sender_member_id: &'a str,
    /// The sender's name.
    pub sender_name: &'a str,
    /// As sent.
    pub priority: Priority,
    /// As sent.
    pub nonce: &'a str,
    /// As sent.
    pub ciphertext: &'a str,
    /// When it was accepted.
    pub created_at: Wall,
    /// As sent.
    pub reply_to_id: Option<&'a str>,
    /// `reminder`, if it is one.
    pub subtype: Option<&'a str>,
    /// The name of the topic it was sent to, if it was.
    pub topic: Option<&'a str>,
    /// As sent; direct messages and those to topics only.
    pub client_message_id: Option<&'a str>,
    /// As sent; direct messages and those to topics only.
    pub request_fingerprint: Option<&'a str>,
}

impl Push<'_> {
    /// The frame; as [`encode`], and several times as fast.
    pub fn encode(&self) -> Bytes {
        let sender = self.sender_pubkey.to_string();
        let member = self.sender_member_pubkey.map(|key| key.to_string());
        let created_at = self.created_at.to_string();
        object(&[
            ("type", Some("push")),
            ("messageId", Some(self.message_id.as_str())),
            ("meshId", Some(self.mesh_id)),
            ("senderPubkey", Some(&sender)),
            ("senderMemberPubkey", member.as_deref()),
            ("senderMemberId", Some(self.sender_member_id)),
            ("senderName", Some(self.sender_name)),
            ("priority", Some(self.priority.name())),
            ("nonce", Some(self.nonce)),
            ("ciphertext", Some(self.ciphertext)),
            ("createdAt", Some(&created_at)),
            ("replyToId", self.reply_to_id),
            ("subtype", self.subtype),
            ("topic", self.topic),
            ("client_message_id", self.client_message_id),
            ("request_fingerprint", self.request_fingerprint),
        ])
    }
}

/// One entry of `peers_list` (protocol.md §7).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerEntry<'a> {
    /// Session key, else member key.
    pub pubkey: PubKey,
    /// Member key.
    pub member_pubkey: PubKey,
    /// The name it goes by.
    pub display_name: &'a str,
    /// `idle`, `working` or `dnd`.
    pub status: &'a str,
    /// What it is about.
    pub summary: Option<&'a str>,
    /// Groups.
    pub groups: Groups<'a>,
    /// The client's session id.
    pub session_id: Id<'a>,
    /// When the lease began.
    pub connected_at: Wall,
    /// Working directory.
    pub cwd: &'a str,
    /// `control-plane` or `session`.
    pub peer_role: &'a str,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<&'a str>,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<&'a str>,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    /// As reported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<&'a RawValue>,
    /// Whether others see it.
    pub visible: bool,
    /// If not empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'a Profile>,
    /// `online` or `grace` (design.md §8.8).
    pub lease: &'a str,
    /// Last proof of life (design.md §8.8).
    pub last_seen_at: Wall,
}

/// What `set_profile` keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Profile {
    /// Usually one emoji.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<Box<str>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Box<str>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<Box<str>>,
    /// Free texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Box<str>>>,
}

/// A reply that is a list or a pair of names under a type of its own.
#[derive(Debug, Serialize)]
pub struct Reply<'a, T: Serialize> {
    /// The reply's type.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// What it says.
    #[serde(flatten)]
    pub body: T,
    /// Echo of the request id.
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub req_id: Option<&'a str>,
}

/// A reply.
pub fn reply<T: Serialize>(kind: &str, body: T, req_id: Option<&str>) -> Bytes {
    encode(&Reply { kind, body, req_id })
}

/// An error frame.
pub fn error(code: &str, message: impl Display, req_id: Option<&str>) -> Bytes {
    encode(&ErrorFrame {
        code,
        message: &message.to_string(),
        id: None,
        req_id,
    })
}

/// An error frame that has the request id under `id` as well (protocol.md §3).
pub fn error_with_id(code: &str, message: impl Display, req_id: Option<&str>) -> Bytes {
    encode(&ErrorFrame {
        code,
        message: &message.to_string(),
        id: req_id,
        req_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::mint::Mint;

    #[test]
    fn a_push_says_what_it_has_to_say_in_the_order_known() {
        let push = Push {
            message_id: Mint::new([7; 32]).message_id(Seq(1)),
            mesh_id: "mesh",
            sender_pubkey: PubKey([0xab; 32]),
            sender_member_pubkey: None,
            sender_member_id: "member",
            sender_name: "a \"name\"",
            priority: Priority::Next,
            nonce: "n",
            ciphertext: "c",
            created_at: Wall(0),
            reply_to_id: None,
            subtype: None,
            topic: None,
            client_message_id: Some("mine"),
            request_fingerprint: None,
        };
        let (id, key) = (push.message_id.as_str(), "ab".repeat(32));
        let expected = format!(
            r#"{{"type":"push","messageId":"{id}","meshId":"mesh","senderPubkey":"{key}","senderMemberId":"member","senderName":"a \"name\"","priority":"next","nonce":"n","ciphertext":"c","createdAt":"1970-01-01T00:00:00.000Z","client_message_id":"mine"}}"#
        );
        assert_eq!(push.encode(), expected.as_bytes());
    }
}
