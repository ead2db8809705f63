//! What peers are told of each other: joins, returns, leaves, visibility.

use bytes::Bytes;
use serde::Serialize;

use crate::ids::{Position, PubKey, Token, news_id};
use crate::log::{Kept, Subject, What};
use crate::marks::{Mark, mark};
use crate::peer::{Kind, MeshIx, OwedJoin, PeerConn};
use crate::rows::{PeerStateRow, StoreOp, Told};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::wire::frames;

/// What is told of a lease that ended, when its row says so.
#[derive(Debug)]
pub(crate) struct Farewell {
    id: Box<str>,
    mesh: MeshIx,
    /// The join, if the lease ended before that was told.
    join: Option<(Subject, Bytes)>,
    joined: Option<Position>,
    /// The last news of its visibility, which the leave takes back.
    shown: Option<Position>,
    leave: (Subject, Bytes),
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
        created_at: Wall,
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
            created_at,
        })
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
        if std::mem::replace(&mut peer.owed, OwedJoin::Nothing) == OwedJoin::Nothing {
            return;
        }
        mark(Mark::JoinTold);
        let kept = peer.rare.as_mut().and_then(|rare| rare.join.take());
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let again = kept.is_none();
        let frame = kept.unwrap_or_else(|| self.join_frame(peer, None));
        let id = peer.presence_id().to_owned();
        let (mesh, who) = (peer.mesh, subject(peer, peer.order));
        let joined = self.tell_join(t, mesh, id, (who, frame));
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            peer.joined = joined.into();
        }
        // What had to be kept for it can not be written anew.
        if let Some(found) = self.mesh_mut(mesh).filter(|_| again) {
            found.log.present(joined, slot);
        }
    }

    fn tell_join(
        &mut self,
        t: &mut Turn<'_>,
        mesh: MeshIx,
        id: String,
        (who, frame): (Subject, Bytes),
    ) -> Position {
        let (at, began) = (self.stamp(), Position(who.order));
        self.publish(t, mesh, at, (What::Joined { who, ended: None }, frame));
        let told = Told::Join(at);
        t.persist(StoreOp::PresenceTold { began, id, told });
        at
    }

    /// Owes others the join of a session; `saved` is what its member had saved.
    pub(crate) fn owe_join(&mut self, slot: u32, saved: Option<&PeerStateRow>) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let returned = saved.map(|_| self.join_frame(peer, saved));
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            peer.owed = OwedJoin::Due;
            if returned.is_some() {
                peer.rare_mut().join = returned;
            }
        }
    }

    /// A session is about to change what its join shows: whoever is still to be told of that is
    /// told what it was.
    pub(crate) fn keep_owed_join(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let kept = peer.rare.as_ref().is_some_and(|rare| rare.join.is_some());
        if peer.owed == OwedJoin::Nothing || kept {
            return;
        }
        let frame = self.join_frame(peer, None);
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            peer.rare_mut().join = Some(frame);
        }
    }

    /// What others are told of a join. It shows the session as it is now: it is written anew each
    /// time that somebody is to be told.
    pub(crate) fn join_frame(&self, peer: &PeerConn, saved: Option<&PeerStateRow>) -> Bytes {
        let event = if saved.is_some() {
            "peer_returned"
        } else {
            "peer_joined"
        };
        let message_id = news_id(&peer.presence_id(), "joined", None);
        let data = frames::PeerEvent {
            name: peer.name(),
            pubkey: self.public_key(peer),
            groups: Some(peer.card.groups()),
            last_seen_at: saved.map(|row| row.last_seen_at),
            summary: saved.and_then(|row| row.last_summary.as_deref()),
        };
        self.system_push(peer.connected_at, &message_id, (peer.mesh, event), data)
    }

    /// A lease ended: until nobody can be told of its join any more, the log keeps what it can no
    /// longer write anew.
    pub(crate) fn keep_join(&mut self, gone: &PeerConn) {
        let Some(at) = gone.joined.at() else { return };
        if self
            .mesh(gone.mesh)
            .is_none_or(|mesh| !mesh.log.is_present(at))
        {
            return;
        }
        let (who, ended) = (subject(gone, gone.order), None);
        let kept = Kept::said(What::Joined { who, ended }, self.join_frame(gone, None));
        if let Some(found) = self.mesh_mut(gone.mesh) {
            found.log.keep(at, kept);
        }
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
                "groups": peer.card.groups(),
                "via": "session_hello",
                "role": "session",
            }),
            Kind::ThrowAway | Kind::Member => serde_json::json!({
                "pubkey": member.key,
                "groups": peer.card.groups(),
                "restored": restored,
                "role": "control-plane",
            }),
        };
        self.audit(t, peer, "peer_joined", payload);
    }

    /// What others are to be told of a session that has left every index already: the end, and
    /// the join if it ends before that was told.
    pub(crate) fn farewell(&self, t: &Turn<'_>, gone: &PeerConn, ended: Position) -> Farewell {
        if gone.owed != OwedJoin::Nothing {
            mark(Mark::LeftUntold);
        }
        let join = (gone.owed == OwedJoin::Due).then(|| {
            let kept = gone.rare.as_ref().and_then(|rare| rare.join.clone());
            let frame = kept.unwrap_or_else(|| self.join_frame(gone, None));
            (subject(gone, gone.order), frame)
        });
        let pubkey = self.public_key(gone);
        let frame = self.leave_frame(t, gone.mesh, (&*gone.presence_id(), gone.name()), pubkey);
        Farewell {
            id: (&*gone.presence_id()).into(),
            mesh: gone.mesh,
            join,
            joined: gone.joined.at(),
            shown: gone.shown().at(),
            leave: (subject(gone, ended.0), frame),
        }
    }

    /// What others are told of the end of a presence, by its id and name.
    pub(crate) fn leave_frame(
        &self,
        t: &Turn<'_>,
        mesh: MeshIx,
        (id, name): (&str, &str),
        pubkey: PubKey,
    ) -> Bytes {
        let data = frames::PeerEvent {
            name,
            pubkey,
            groups: None,
            last_seen_at: None,
            summary: None,
        };
        let message_id = news_id(id, "left", None);
        self.system_push(t.now.wall, &message_id, (mesh, "peer_left"), data)
    }

    /// The end of a lease is durable.
    pub(crate) fn left(&mut self, t: &mut Turn<'_>, mesh: MeshIx, token: Token) {
        let farewell = self.mesh_mut(mesh).and_then(|mesh| {
            let farewells = &mut mesh.farewells;
            let index = farewells.iter().position(|(waits, _)| *waits == token)?;
            farewells.remove(index)
        });
        if let Some((_, farewell)) = farewell {
            self.announce_left(t, farewell);
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
            self.announce_left(t, farewell);
        }
        let slots = self.present_in(mesh);
        let owing = |slot: &u32| {
            let peer = self.peers.get_slot(*slot);
            // One restored after a crash is told of when it comes back.
            peer.is_some_and(|peer| peer.owed == OwedJoin::Due)
        };
        let owing: Vec<u32> = slots.filter(owing).collect();
        for slot in owing {
            self.announce_joined(t, slot);
        }
    }

    /// What became of a lease that ended: told to whoever heard, or would have heard, of its join
    /// (design.md §8.2).
    pub(crate) fn announce_left(&mut self, t: &mut Turn<'_>, gone: Farewell) {
        let id = gone.id.to_string();
        let mut joined = gone.joined;
        if let Some(join) = gone.join {
            joined = Some(self.tell_join(t, gone.mesh, id.clone(), join));
        }
        let left = self.tell_leave(t, gone.mesh, (id, joined), gone.leave);
        if let (Some(shown), Some(found)) = (gone.shown, self.mesh_mut(gone.mesh)) {
            found.log.supersede(shown, left);
        }
    }

    /// Tells that a session left, which had joined there.
    pub(crate) fn tell_leave(
        &mut self,
        t: &mut Turn<'_>,
        mesh: MeshIx,
        (id, joined): (String, Option<Position>),
        (who, frame): (Subject, Bytes),
    ) -> Position {
        let (at, began) = (self.stamp(), Position(who.order));
        self.publish(t, mesh, at, (What::Left { who, joined }, frame));
        let told = Told::Leave(at);
        t.persist(StoreOp::PresenceTold { began, id, told });
        at
    }

    /// A session hid or showed itself: told to all others.
    pub(crate) fn announce_visibility(&mut self, t: &mut Turn<'_>, slot: u32) {
        self.announce_joined(t, slot);
        let at = self.stamp();
        let Some((mesh, entry)) = self.visibility_news(t, slot, at) else {
            return;
        };
        self.publish(t, mesh, at, entry);
        let peer = self.peers.get_slot_mut(slot);
        let earlier =
            peer.and_then(|peer| std::mem::replace(&mut peer.rare_mut().shown, at.into()).at());
        if let (Some(earlier), Some(found)) = (earlier, self.mesh_mut(mesh)) {
            found.log.supersede(earlier, at);
        }
    }

    /// What others are told, at that place, of whether a session hides.
    pub(crate) fn visibility_news(
        &self,
        t: &Turn<'_>,
        slot: u32,
        at: Position,
    ) -> Option<(MeshIx, (What, Bytes))> {
        let peer = self.peers.get_slot(slot)?;
        let event = if peer.visible {
            "peer_visible"
        } else {
            "peer_hidden"
        };
        let data = frames::PeerEvent {
            name: peer.name(),
            pubkey: self.public_key(peer),
            groups: None,
            last_seen_at: None,
            summary: None,
        };
        let message_id = news_id(&peer.presence_id(), "shown", Some(at));
        let frame = self.system_push(t.now.wall, &message_id, (peer.mesh, event), data);
        let (order, superseded) = (peer.order, None);
        Some((peer.mesh, (What::Visibility { order, superseded }, frame)))
    }
}

/// A session as the news of it names it.
pub(crate) fn subject(peer: &PeerConn, before: u64) -> Subject {
    Subject {
        kind: peer.kind,
        member: peer.member,
        order: peer.order,
        before,
    }
}
