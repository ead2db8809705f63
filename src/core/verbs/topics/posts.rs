//! Messages to topics: what is kept of them beside their rows, and whom they mention.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{MENTIONED_MAX, MENTIONS_MAX, RECORD_LIST_BYTES_MAX};
use crate::peer::{MemberIx, MeshIx};
use crate::routing::Target;
use crate::rows::TopicPost;
use crate::shard::Shard;
use crate::verbs::Request;
use crate::wire::FieldError;

impl Shard {
    /// What else is kept of a send, if it is to a topic.
    pub(in crate::verbs) fn topic_post(
        &self,
        request: &Request<'_>,
        target_spec: &str,
        ciphertext: &str,
    ) -> Result<Option<Box<TopicPost>>, FieldError> {
        let peer = self.peers.get_slot(request.slot);
        let (Target::Topic(_), Some(peer)) = (Target::parse(target_spec), peer) else {
            return Ok(None);
        };
        let whole = "a whole number below 2^32";
        let body_version = request.fields.json("bodyVersion", whole)?;
        let named = request.fields.list("mentions", RECORD_LIST_BYTES_MAX)?;
        let post = self.post_of((peer.member, target_spec), ciphertext, named);
        Ok(post.map(|post| {
            let body_version = body_version.unwrap_or(post.body_version);
            Box::new(TopicPost {
                body_version,
                ..post
            })
        }))
    }

    /// The same of what a member sends to a target, with the names its sender gives or those that
    /// are in it.
    pub(crate) fn post_of(
        &self,
        (member, target_spec): (MemberIx, &str),
        ciphertext: &str,
        named: Option<Vec<String>>,
    ) -> Option<TopicPost> {
        let Target::Topic(id) = Target::parse(target_spec) else {
            return None;
        };
        let names = named.unwrap_or_else(|| mentions_in(ciphertext));
        let mesh = self.member(member)?.mesh;
        Some(TopicPost {
            topic_id: id.to_owned(),
            body_version: 1,
            mentions: self.mentioned((mesh, member), &names),
        })
    }

    /// Ids of the members beside the sender who go by those names, whatever their case.
    fn mentioned(&self, (mesh, sender): (MeshIx, MemberIx), names: &[String]) -> Vec<String> {
        let names = names.iter().take(MENTIONS_MAX);
        let names: Vec<String> = names
            .map(|name| name.strip_prefix('@').unwrap_or(name).to_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        if names.is_empty() {
            return Vec::new();
        }
        let members = self.mesh(mesh).into_iter().flat_map(|mesh| &mesh.members);
        let active = members
            .filter(|ix| **ix != sender)
            .filter_map(|ix| self.member(*ix))
            .filter(|member| member.revoked_at.is_none());
        let meant = active.filter(|member| {
            let lower = || member.name.chars().flat_map(char::to_lowercase);
            names.iter().any(|name| lower().eq(name.chars()))
        });
        let ids = meant.map(|member| member.id.to_string());
        ids.take(MENTIONED_MAX).collect()
    }
}

/// The names behind the first `@` signs of a body that is plain text in base64.
fn mentions_in(ciphertext: &str) -> Vec<String> {
    let decoded = STANDARD.decode(ciphertext).ok();
    let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return Vec::new();
    };
    let in_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut names = Vec::new();
    let mut before = None;
    for (at, c) in text.char_indices() {
        // In `a@b` it is part of an address.
        if c == '@' && !before.is_some_and(in_name) {
            let rest = text.get(at + 1..).unwrap_or_default();
            let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
            let name = rest.get(..end).unwrap_or_default();
            if !name.is_empty() {
                names.push(name.to_owned());
            }
            if names.len() == MENTIONS_MAX {
                break;
            }
        }
        before = Some(c);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        mentions_in(&STANDARD.encode(text))
    }

    #[test]
    fn names_behind_at_signs_are_mentions() {
        assert_eq!(
            found("@bob, see (@carol-2) and a@b.c @ @"),
            ["bob", "carol-2"]
        );
        assert_eq!(found("@\u{fc}mit!"), ["\u{fc}mit"]);
        assert_eq!(found("nobody"), Vec::<String>::new());
        assert_eq!(found(&"@x ".repeat(40)).len(), MENTIONS_MAX);
    }

    #[test]
    fn what_is_not_plain_mentions_nobody() {
        assert_eq!(mentions_in("@bob"), Vec::<String>::new());
        assert_eq!(
            mentions_in(&STANDARD.encode([0xff, b'@', b'a'])),
            Vec::<String>::new()
        );
    }
}
