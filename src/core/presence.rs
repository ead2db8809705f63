//! What peers are told of each other: joins, returns, leaves, visibility.

use bytes::Bytes;
use serde::Serialize;

use crate::ids::{PubKey, Token};
use crate::marks::{Mark, mark};
use crate::peer::{Kind, MemberIx, MeshIx, OwedJoin, PeerConn};
use crate::rows::{PeerStateRow, StoreOp, Told};
use crate::shard::{Shard, Turn};
use crate::wire::frames;

/// A join or a leave, and who is to hear of it.
#[derive(Debug)]
struct News {
    mesh: MeshIx,
    kind: Kind,
    member: MemberIx,
    /// Whose it is: a session is told nothing of itself.
    order: u64,
    /// Sessions of this order and later knew it when they came.
    before: u64,
    frame: Bytes,
}

impl News {
    fn of(peer: &PeerConn, before: u64, frame: Bytes) -> Self {
        Self {
            mesh: peer.mesh,
            kind: peer.kind,
            member: peer.member,
            order: peer.order,
            before,
            frame,
        }
    }
}

/// What is told of a lease that ended, when its row says so.
#[derive(Debug)]
pub(crate) struct Farewell {
    id: Box<str>,
    join: Option<News>,
    leave: News,
}

impl Shard {
    /// The key a session is reached by, and that its messages bear: its session key, else its
    /// member's.
    pub(crate) fn public_key(&self, peer: &PeerConn) -> PubKey {
        let member_key = || self.member(peer.member).map_or(PubKey([0; 32]), |m| m.key);
        peer.session_key.unwrap_or_else(member_key)
    }

    /// A broker-made push, encoded once.
    pub(crate) fn system_push<T: Serialize>(
        &self,
        t: &Turn<'_>,
        message_id: &str,
        (mesh, event): (MeshIx, &str),
        event_data: T,
    ) -> Bytes {
        frames::encode(&frames::SystemPush {
            subtype: "system",
            event,
            event_data,
            message_id,
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

    /// The row of a new lease is durable.
    pub(crate) fn joined(&mut self, t: &mut Turn<'_>, slot: u32, order: u64) {
        if self.peers.get_slot(slot).is_some_and(|p| p.order == order) {
            self.announce_joined(t, slot);
        }
    }

    /// A session that has not been announced is: `peer_returned` if its member was known, else
    /// `peer_joined`. Comes when its row is durable, so that a crash forgets no session that
    /// others know; sooner only if the session itself speaks to others.
    pub(crate) fn announce_joined(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let Some(owed) = peer.owed.take() else { return };
        mark(Mark::JoinTold);
        let frame = owed.frame.or_else(|| self.join_frame(t, slot, None));
        let (Some(frame), Some(peer)) = (frame, self.peers.get_slot(slot)) else {
            return;
        };
        let id = peer.presence_id.to_string();
        let news = News::of(peer, owed.before, frame);
        self.tell(t, &news);
        let told = Told::Join;
        t.persist(StoreOp::PresenceTold { id, told });
    }

    /// Owes others the join of a session, as it is now; `saved` is what its member had saved.
    pub(crate) fn owe_join(&mut self, t: &Turn<'_>, slot: u32, saved: Option<&PeerStateRow>) {
        let frame = self.join_frame(t, slot, saved);
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            let before = peer.order;
            peer.owed = Some(Box::new(OwedJoin { frame, before }));
        }
    }

    fn join_frame(
        &mut self,
        t: &Turn<'_>,
        slot: u32,
        saved: Option<&PeerStateRow>,
    ) -> Option<Bytes> {
        let event = if saved.is_some() {
            "peer_returned"
        } else {
            "peer_joined"
        };
        let message_id = self.mint.uuid_v4();
        let peer = self.peers.get_slot(slot)?;
        let data = frames::PeerEvent {
            name: &peer.name,
            pubkey: self.public_key(peer),
            groups: Some(&peer.groups),
            last_seen_at: saved.map(|row| row.last_seen_at),
            summary: saved.and_then(|row| row.last_summary.as_deref()),
        };
        Some(self.system_push(t, &message_id, (peer.mesh, event), data))
    }

    /// Tells those whose sessions began before the news.
    fn tell(&self, t: &mut Turn<'_>, news: &News) {
        self.send_to_mesh(t, news.mesh, &news.frame, |_, peer| {
            peer.order != news.order
                && peer.order < news.before
                && hears_of(peer, news.kind, news.member)
        });
    }

    /// Notes the join of a new session.
    pub(crate) fn audit_joined(&self, t: &mut Turn<'_>, peer: &PeerConn, restored: bool) {
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

    /// What others are to be told of a session that has left every index already: the end, and
    /// the join if it ends before that was told.
    pub(crate) fn farewell(&mut self, t: &Turn<'_>, gone: &PeerConn) -> Farewell {
        let owed = gone.owed.as_ref();
        let join = owed.and_then(|owed| {
            mark(Mark::LeftUntold);
            Some(News::of(gone, owed.before, owed.frame.clone()?))
        });
        let data = frames::PeerEvent {
            name: &gone.name,
            pubkey: self.public_key(gone),
            groups: None,
            last_seen_at: None,
            summary: None,
        };
        let message_id = self.mint.uuid_v4();
        let frame = self.system_push(t, &message_id, (gone.mesh, "peer_left"), data);
        Farewell {
            id: gone.presence_id.clone(),
            join,
            leave: News::of(gone, self.next_order(), frame),
        }
    }

    /// The end of a lease is durable.
    pub(crate) fn left(&mut self, t: &mut Turn<'_>, mesh: MeshIx, token: Token) {
        let farewell = self.mesh_mut(mesh).and_then(|mesh| {
            let farewells = &mut mesh.farewells;
            let index = farewells.iter().position(|(waits, _)| *waits == token)?;
            farewells.remove(index)
        });
        if let Some((_, farewell)) = farewell {
            self.announce_left(t, &farewell);
        }
    }

    /// Somebody looks at who is there: what others are still to be told of a mesh is told first,
    /// so that nobody sees a session come or go in a list before the news of it.
    pub(crate) fn tell_pending(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        if self.shutting_down {
            return;
        }
        while let Some((_, farewell)) = self
            .mesh_mut(mesh)
            .and_then(|mesh| mesh.farewells.pop_front())
        {
            self.announce_left(t, &farewell);
        }
        let slots = self.mesh(mesh).map(|mesh| mesh.roster.values());
        let owing = |slot: &u32| {
            let peer = self.peers.get_slot(*slot);
            let owed = peer.and_then(|peer| peer.owed.as_ref());
            // One restored after a crash is told of when it comes back.
            owed.is_some_and(|owed| owed.frame.is_some())
        };
        let owing: Vec<u32> = slots.into_iter().flatten().copied().filter(owing).collect();
        for slot in owing {
            self.announce_joined(t, slot);
        }
    }

    /// What became of a lease that ended: told to whoever heard, or would have heard, of its join
    /// (design.md §8.2).
    pub(crate) fn announce_left(&self, t: &mut Turn<'_>, gone: &Farewell) {
        for news in gone.join.iter().chain([&gone.leave]) {
            self.tell(t, news);
        }
        t.persist(StoreOp::PresenceTold {
            id: gone.id.to_string(),
            told: Told::Leave,
        });
    }

    /// A session hid or showed itself: told to all others.
    pub(crate) fn announce_visibility(&mut self, t: &mut Turn<'_>, slot: u32) {
        self.announce_joined(t, slot);
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
        let message_id = self.mint.uuid_v4();
        let frame = self.system_push(t, &message_id, (mesh, event), data);
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
