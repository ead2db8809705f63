//! From a target to its recipients (protocol.md §8).

use crate::event::Event;
use crate::ids::PubKey;
use crate::peer::{MeshIx, PeerConn};
use crate::shard::{Shard, Turn};

/// A parsed `targetSpec`. Forms are exact and case-sensitive (protocol.md §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// `*` or `@all`.
    Everyone,
    /// `@name`.
    Group(&'a str),
    /// `#topicId`.
    Topic,
    /// A key; None if it is not the hex of one, and so names nobody.
    Key(Option<PubKey>),
}

impl<'a> Target<'a> {
    pub(crate) fn parse(spec: &'a str) -> Self {
        match spec {
            "*" | "@all" => Self::Everyone,
            _ if spec.starts_with('#') => Self::Topic,
            _ => spec
                .strip_prefix('@')
                .map_or_else(|| Self::Key(PubKey::parse(spec)), Self::Group),
        }
    }
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
    /// Whether a direct message from the session in `slot` may be sent to `key` (protocol.md §8.2
    /// checks 3 and 4).
    pub(crate) fn check_direct(
        &self,
        slot: u32,
        sender: &PeerConn,
        key: Option<PubKey>,
    ) -> Result<PubKey, NoRecipient> {
        let key = key.ok_or(NoRecipient::Absent)?;
        let mesh = self.mesh(sender.mesh).ok_or(NoRecipient::Absent)?;
        let holder = mesh
            .by_session_key
            .get(&key)
            .copied()
            .filter(|holder| *holder != slot);
        let by_session = holder
            .and_then(|holder| self.peers.get_slot(holder))
            .map(|p| p.member);
        let by_member = mesh.by_key.get(&key).copied().filter(|ix| {
            self.member(*ix)
                .is_some_and(|m| m.sessions.values().any(|other| *other != slot))
        });
        let owner = by_session.or(by_member).and_then(|ix| self.member(ix));
        let owner = owner.ok_or(NoRecipient::Absent)?;
        let sender_key = self
            .member(sender.member)
            .map(|m| m.key)
            .ok_or(NoRecipient::Absent)?;
        // For direct messages the grant of the member key decides.
        if !owner.allows(&sender_key, None).dm {
            return Err(NoRecipient::Blocked);
        }
        Ok(key)
    }

    /// Sends a multicast frame to everybody it is for: online, visible, of another member, in the
    /// group if there is one, and willing (protocol.md §8.4). Gives how many got it.
    pub(crate) fn multicast(
        &self,
        t: &mut Turn<'_>,
        sender: &PeerConn,
        group: Option<&str>,
        frame: &bytes::Bytes,
    ) -> u64 {
        let Some(sender_key) = self.member(sender.member).map(|m| m.key) else {
            return 0;
        };
        let mut recipients = 0;
        for (member, peer) in self.others(sender.mesh, sender) {
            if !peer.visible || group.is_some_and(|group| !peer.in_group(group)) {
                continue;
            }
            if !member
                .allows(&sender_key, sender.session_key.as_ref())
                .broadcast
            {
                t.observe(Event::GrantDenied { cap: "broadcast" });
                continue;
            }
            if let Some(conn) = peer.conn() {
                t.send(conn, frame.clone());
                recipients += 1;
            }
        }
        recipients
    }

    fn others<'s>(
        &'s self,
        mesh: MeshIx,
        sender: &'s PeerConn,
    ) -> impl Iterator<Item = (&'s crate::mesh::Member, &'s PeerConn)> {
        let slots = self
            .mesh(mesh)
            .into_iter()
            .flat_map(|mesh| mesh.roster.values());
        slots
            .filter_map(|slot| self.peers.get_slot(*slot))
            .filter(move |peer| peer.member != sender.member)
            .filter_map(|peer| self.member(peer.member).map(|member| (member, peer)))
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
        assert_eq!(Target::parse("#t"), Target::Topic);
        assert_eq!(Target::parse("nobody"), Target::Key(None));
        let key = "ab".repeat(32);
        assert_eq!(Target::parse(&key), Target::Key(Some(PubKey([0xab; 32]))));
        assert_eq!(Target::parse(&key.to_uppercase()), Target::Key(None));
    }
}
