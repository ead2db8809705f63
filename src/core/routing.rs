//! From a target to its recipients (protocol.md §8).

use crate::chain::List;
use crate::ids::PubKey;
use crate::mesh::Cap;
use crate::peer::{MemberIx, MeshIx, PeerConn};
use crate::shard::Shard;
use crate::topics::TopicIx;

/// A parsed `targetSpec`. Forms are exact and case-sensitive (protocol.md §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// `*` or `@all`.
    Everyone,
    /// `@name`.
    Group(&'a str),
    /// `#topicId`.
    Topic(&'a str),
    /// A key; None if it is not the hex of one, and so names nobody.
    Key(Option<PubKey>),
}

impl<'a> Target<'a> {
    pub(crate) fn parse(spec: &'a str) -> Self {
        match spec {
            "*" | "@all" => Self::Everyone,
            _ => match (spec.strip_prefix('#'), spec.strip_prefix('@')) {
                (Some(topic), _) => Self::Topic(topic),
                (None, Some(group)) => Self::Group(group),
                (None, None) => Self::Key(PubKey::parse(spec)),
            },
        }
    }
}

/// Whom a message to many is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All of the mesh.
    Everyone,
    /// Those in a group, or in one below it.
    Group(Box<str>),
    /// The members of a topic.
    Topic(TopicIx),
}

impl Audience {
    /// What the recipient must let the sender do (protocol.md §8.3).
    pub(crate) fn cap(&self) -> Cap {
        match self {
            Self::Everyone | Self::Group(_) => Cap::Broadcast,
            Self::Topic(_) => Cap::Dm,
        }
    }
}

/// Whom a direct message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) key: PubKey,
    /// Nobody has that key now.
    pub(crate) deferred: bool,
}

/// Why a direct message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRecipient {
    /// Nobody present has that key.
    #[error(
        "no connected peer for target (not online, or targetSpec is your own key without another session)"
    )]
    Absent,
    /// Nobody who has it lets the sender.
    #[error("blocked by recipient grants (sender lacks dm capability)")]
    Blocked,
}

impl Shard {
    /// Whom a message to that target is for, if it is to many, and not to a topic unknown.
    pub(crate) fn audience(&self, mesh: MeshIx, target_spec: &str) -> Option<Audience> {
        match Target::parse(target_spec) {
            Target::Everyone => Some(Audience::Everyone),
            Target::Group(group) => Some(Audience::Group(group.into())),
            Target::Topic(id) => self.topics(mesh)?.by_id(id).map(Audience::Topic),
            Target::Key(_) => None,
        }
    }

    /// Whether a session is among those.
    pub(crate) fn is_among(&self, peer: &PeerConn, audience: &Audience) -> bool {
        match audience {
            Audience::Everyone => true,
            Audience::Group(group) => peer.in_group(group),
            Audience::Topic(topic) => {
                let topics = self.topics(peer.mesh);
                topics.is_some_and(|topics| topics.has(*topic, peer.member))
            }
        }
    }

    /// Whether a direct message from the session in `slot` may be sent to `key` (protocol.md §8.2
    /// checks 3 and 4), and to whom: one who is there, or one whose return it waits for.
    pub(crate) fn check_direct(
        &self,
        slot: u32,
        sender: &PeerConn,
        key: Option<PubKey>,
    ) -> Result<Recipient, NoRecipient> {
        let key = key.ok_or(NoRecipient::Absent)?;
        let mesh = self.mesh(sender.mesh).ok_or(NoRecipient::Absent)?;
        let holder = self.key_holder(sender.mesh, &key);
        let holder = holder.filter(|holder| *holder != slot);
        let by_session = holder
            .and_then(|holder| self.peers.get_slot(holder))
            .map(|p| p.member);
        let by_member = mesh.by_key.get(&key).copied().filter(|ix| {
            self.member(*ix).is_some_and(|m| {
                m.sessions
                    .iter(&self.peers, List::Member)
                    .any(|s| s != slot)
            })
        });
        let present = by_session.or(by_member);
        let owner = present.or_else(|| self.absent_owner(sender, &key));
        let owner = owner
            .and_then(|ix| self.member(ix))
            .ok_or(NoRecipient::Absent)?;
        let sender_key = self
            .member(sender.member)
            .map(|m| m.key)
            .ok_or(NoRecipient::Absent)?;
        // For direct messages the grant of the member key decides.
        if !owner.allows(&sender_key, None).dm {
            return Err(NoRecipient::Blocked);
        }
        Ok(Recipient {
            key,
            deferred: present.is_none(),
        })
    }

    /// The same of a message that a member has scheduled: none of its sessions sends it, so that
    /// none is left out, and its own keys are among those to wait for.
    pub(crate) fn check_scheduled(
        &self,
        sender: MemberIx,
        key: Option<PubKey>,
    ) -> Result<Recipient, NoRecipient> {
        let key = key.ok_or(NoRecipient::Absent)?;
        let member = self.member(sender).ok_or(NoRecipient::Absent)?;
        let mesh = self.mesh(member.mesh).ok_or(NoRecipient::Absent)?;
        let by_key = mesh.by_key.get(&key).copied();
        let has_sessions = |ix: &MemberIx| self.member(*ix).is_some_and(|m| !m.sessions.is_empty());
        let holder = self.key_holder(member.mesh, &key);
        let by_session = holder.and_then(|holder| self.peers.get_slot(holder));
        let by_session = by_session.map(|peer| peer.member);
        let present = by_session.or_else(|| by_key.filter(has_sessions));
        let owner = present.or(by_key).or_else(|| mesh.known.owner(&key));
        let owner = owner.and_then(|ix| self.member(ix));
        let owner = owner.filter(|owner| owner.revoked_at.is_none());
        let owner = owner.ok_or(NoRecipient::Absent)?;
        if owner.key != member.key && !owner.allows(&member.key, None).dm {
            return Err(NoRecipient::Blocked);
        }
        Ok(Recipient {
            key,
            deferred: present.is_none(),
        })
    }

    /// Whose a known key is that nobody present has. The sender's own keys are none to wait for.
    fn absent_owner(&self, sender: &PeerConn, key: &PubKey) -> Option<MemberIx> {
        let mesh = self.mesh(sender.mesh)?;
        if sender.session_key == Some(*key) {
            return None;
        }
        let by_member = mesh.by_key.get(key).copied();
        let by_member = by_member.filter(|owner| *owner != sender.member);
        by_member.or_else(|| mesh.known.owner(key)).filter(|owner| {
            self.member(*owner)
                .is_some_and(|member| member.revoked_at.is_none())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_exact() {
        assert_eq!(Target::parse("*"), Target::Everyone);
        assert_eq!(Target::parse("@all"), Target::Everyone);
        assert_eq!(Target::parse("@All"), Target::Group("All"));
        assert_eq!(Target::parse("@a/b"), Target::Group("a/b"));
        assert_eq!(Target::parse("#t"), Target::Topic("t"));
        assert_eq!(Target::parse("nobody"), Target::Key(None));
        let key = "ab".repeat(32);
        assert_eq!(Target::parse(&key), Target::Key(Some(PubKey([0xab; 32]))));
        assert_eq!(Target::parse(&key.to_uppercase()), Target::Key(None));
    }
}
