//! Topics as the store keeps them (protocol.md §20): who is in them is known to the core as well,
//! what is said in them is on disk only.

use crate::ids::{PubKey, Seq};
use crate::mint::MessageId;
use crate::time::Wall;

/// Whom a topic is meant for; for show, nothing is enforced by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// The mesh.
    #[default]
    Public,
    /// Whoever is in it.
    Private,
    /// Two.
    Dm,
}

impl Visibility {
    /// The name used on the wire and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Dm => "dm",
        }
    }

    /// The value of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Public, Self::Private, Self::Dm]
            .into_iter()
            .find(|visibility| visibility.name() == name)
    }
}

/// What a member is in a topic; for show, nothing is enforced by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicRole {
    /// Made it, or looks after it.
    Lead,
    /// Anybody else.
    #[default]
    Member,
    /// Reads.
    Observer,
}

impl TopicRole {
    /// The name used on the wire and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Member => "member",
            Self::Observer => "observer",
        }
    }

    /// The value of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Lead, Self::Member, Self::Observer]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// A topic of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRow {
    /// Opaque id.
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Unique in its mesh.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whom it is meant for.
    pub visibility: Visibility,
    /// Member id of who made it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

/// That a member is in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicMemberRow {
    /// The mesh.
    pub mesh_id: String,
    /// The topic.
    pub topic_id: String,
    /// The member.
    pub member_id: String,
    /// What it is there.
    pub role: TopicRole,
    /// Since when.
    pub joined_at: Wall,
    /// Up to when it has read what was said, as it says.
    pub last_read_at: Option<Wall>,
}

/// A topic's key, sealed for one member. Nobody has it in the clear but who opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicKeyRow {
    /// The topic.
    pub topic_id: String,
    /// The member that can open it.
    pub member_id: String,
    /// The x25519 key that it was sealed with, in hex.
    pub sender: String,
    /// That key once more and the box, in base64.
    pub encrypted_key: String,
    /// The box's nonce of 24 bytes, in base64.
    pub nonce: String,
}

/// A topic as it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The topic.
    pub topic: TopicRow,
    /// Who made it is in it.
    pub lead: TopicMemberRow,
    /// And has its key, if its own is good for that.
    pub key: Option<TopicKeyRow>,
}

/// A change of topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// There is a new one.
    Created(Box<NewTopic>),
    /// A member joined, has another role, or has read; what it was notified of until then is read.
    MemberPut(TopicMemberRow),
    /// A member left.
    MemberGone {
        /// The mesh.
        mesh_id: String,
        /// The topic.
        topic_id: String,
        /// The member.
        member_id: String,
    },
}

/// What is kept of a message to a topic beside its row, which is deleted after a day: its place in
/// the topic's history, and who is notified of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPost {
    /// The topic.
    pub topic_id: String,
    /// As its sender says.
    pub body_version: u32,
    /// Member ids of those it mentions.
    pub mentions: Vec<String>,
}

/// A message in the history of a topic. It has the id it was pushed under.
#[derive(Clone, Debug)]
pub struct TopicMessage {
    /// Its place in the broker's order.
    pub seq: Seq,
    /// The id peers see.
    pub id: MessageId,
    /// Who sent it.
    pub sender_member_id: String,
    /// The sending session's key, if it had one.
    pub sender_session_pubkey: Option<PubKey>,
    /// Opaque.
    pub nonce: String,
    /// Opaque.
    pub ciphertext: String,
    /// As its sender says.
    pub body_version: u32,
    /// What it answers.
    pub reply_to_id: Option<String>,
    /// When it was accepted.
    pub created_at: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["public", "private", "dm"] {
            assert_eq!(Visibility::parse(name).map(Visibility::name), Some(name));
        }
        for name in ["lead", "member", "observer"] {
            assert_eq!(TopicRole::parse(name).map(TopicRole::name), Some(name));
        }
        assert_eq!(
            (Visibility::parse(""), TopicRole::parse("Lead")),
            (None, None)
        );
    }
}
