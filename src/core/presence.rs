//! What peers are told of each other: joins, returns, leaves, visibility.

use bytes::Bytes;
use serde::Serialize;

use crate::ids::PubKey;
use crate::peer::{Kind, MemberIx, MeshIx, PeerConn};
use crate::rows::PeerStateRow;
use crate::shard::{Shard, Turn};
use crate::wire::frames;

impl Shard {
    /// The key a session is reached by, and that its messages bear: its session key, else its
    /// member's.
    pub(crate) fn public_key(&self, peer: &PeerConn) -> PubKey {
        let member_key = || self.member(peer.member).map_or(PubKey([0; 32]), |m| m.key);
        peer.session_key.unwrap_or_else(member_key)
    }

    /// A broker-made push, encoded once.
    pub(crate) fn system_push<T: Serialize>(
        &mut self,
        t: &Turn<'_>,
        mesh: MeshIx,
        event: &str,
        event_data: T,
    ) -> Bytes {
        let message_id = self.mint.uuid_v4();
        frames::encode(&frames::SystemPush {
            subtype: "system",
            event,
            event_data,
            message_id: &message_id,
            mesh_id: self.mesh(mesh).map(|m| &*m.id).unwrap_or_default(),
            sender_pubkey: "system",
            priority: "low",
            nonce: "",
            ciphertext: "",
            created_at: t.now.wall,
        })
    }

    /// Sends a frame to every online session of a mesh that `wanted` takes, in roster order.
    pub(crate) fn send_to_mesh(
        &self,
        t: &mut Turn<'_>,
        mesh: MeshIx,
        frame: &Bytes,
        wanted: impl Fn(u32, &PeerConn) -> bool,
    ) {
        let Some(mesh) = self.mesh(mesh) else { return };
        for slot in mesh.roster.values() {
            if let Some(peer) = self.peers.get_slot(*slot)
                && let Some(conn) = peer.conn()
                && wanted(*slot, peer)
            {
                t.send(conn, frame.clone());
            }
        }
    }

    /// A new session is announced: `peer_returned` if its member was known, else `peer_joined`.
    pub(crate) fn announce_joined(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        saved: Option<&PeerStateRow>,
    ) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, member, kind) = (peer.mesh, peer.member, peer.kind);
        let (name, pubkey) = (peer.name.clone(), self.public_key(peer));
        let groups = peer.groups.clone();
        self.audit_joined(t, peer, saved.is_some());
        let event = if saved.is_some() {
            "peer_returned"
        } else {
            "peer_joined"
        };
        let data = frames::PeerEvent {
            name: &name,
            pubkey,
            groups: Some(&groups),
            last_seen_at: saved.map(|row| row.last_seen_at),
            summary: saved.and_then(|row| row.last_summary.as_deref()),
        };
        let frame = self.system_push(t, mesh, event, data);
        self.send_to_mesh(t, mesh, &frame, |other, peer| {
            other != slot && hears_of(peer, kind, member)
        });
    }

    fn audit_joined(&self, t: &mut Turn<'_>, peer: &PeerConn, restored: bool) {
        let Some(member) = self.member(peer.member) else {
            return;
        };
        let payload = match peer.kind {
            Kind::Launched => serde_json::json!({
                "pubkey": member.key,
                "session_pubkey": peer.session_key,
                "groups": peer.groups,
                "via": "session_hello",
                "role": "session",
            }),
            Kind::ThrowAway | Kind::Member => serde_json::json!({
                "pubkey": member.key,
                "groups": peer.groups,
                "restored": restored,
                "role": "control-plane",
            }),
        };
        self.audit(t, peer, "peer_joined", payload);
    }

    /// A session that has left every index already: told to whoever heard, or would have heard,
    /// of its join (design.md §8.2).
    pub(crate) fn announce_left(&mut self, t: &mut Turn<'_>, gone: &PeerConn) {
        let pubkey = self.public_key(gone);
        let data = frames::PeerEvent {
            name: &gone.name,
            pubkey,
            groups: None,
            last_seen_at: None,
            summary: None,
        };
        let frame = self.system_push(t, gone.mesh, "peer_left", data);
        self.send_to_mesh(t, gone.mesh, &frame, |_, peer| {
            hears_of(peer, gone.kind, gone.member)
        });
    }

    /// A session hid or showed itself: told to all others.
    pub(crate) fn announce_visibility(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, name, pubkey) = (peer.mesh, peer.name.clone(), self.public_key(peer));
        let event = if peer.visible {
            "peer_visible"
        } else {
            "peer_hidden"
        };
        let data = frames::PeerEvent {
            name: &name,
            pubkey,
            groups: None,
            last_seen_at: None,
            summary: None,
        };
        let frame = self.system_push(t, mesh, event, data);
        self.send_to_mesh(t, mesh, &frame, |other, _| other != slot);
    }
}

/// Whether a peer is told of joins and leaves: of launched sessions all others are, siblings
/// included; of a `hello` connection all but its own member.
fn hears_of(listener: &PeerConn, kind: Kind, member: MemberIx) -> bool {
    match kind {
        Kind::Launched => true,
        Kind::ThrowAway | Kind::Member => listener.member != member,
    }
}
