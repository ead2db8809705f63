//! Rows as a journal of what peers were told (design.md §6): from a session to its row, and back.

use crate::card::{Card, Details};
use crate::ids::Position;
use crate::peer::{Kind, Lease, Links, MemberIx, MeshIx, OwedJoin, PeerConn, Rare};
use crate::rows::{AuditRow, PeerStateRow, PresenceRow, StoreOp};
use crate::shard::{Shard, Turn, Waiting};
use crate::time::Mono;
use crate::wire::frames::Profile;

impl Shard {
    /// Ends the row, and tells others when that is durable: told sooner, they would be told again
    /// by a broker that crashed in between.
    pub(crate) fn record_end(&mut self, t: &mut Turn<'_>, peer: &PeerConn) {
        self.keep_join(peer);
        let ended = self.stamp();
        let end = StoreOp::PresenceEnd {
            began: Position(peer.order),
            id: peer.presence_id().to_owned(),
            at: t.now.wall,
            ended,
        };
        let farewell = self.farewell(t, peer, ended);
        let token = self.wait(Waiting::Left(peer.mesh));
        if let Some(mesh) = self.mesh_mut(peer.mesh) {
            mesh.farewells.push_back((token, farewell));
        }
        t.persist_awaited(end, token);
        self.audit(t, peer, "peer_left", serde_json::json!({}));
    }

    /// Appends to the mesh's audit chain on behalf of a session.
    pub(crate) fn audit(
        &self,
        t: &mut Turn<'_>,
        actor: &PeerConn,
        event_type: &'static str,
        payload: serde_json::Value,
    ) {
        if let Some(row) = self.audit_row(t, actor, event_type, payload) {
            t.persist(StoreOp::Audit(Box::new(row)));
        }
    }

    /// What the audit chain says of something that a session did.
    pub(crate) fn audit_row(
        &self,
        t: &Turn<'_>,
        actor: &PeerConn,
        event_type: &'static str,
        payload: serde_json::Value,
    ) -> Option<AuditRow> {
        Some(AuditRow {
            mesh_id: self.mesh(actor.mesh)?.id.to_string(),
            event_type,
            actor_member_id: self.member(actor.member).map(|m| m.id.to_string()),
            actor_display_name: Some(actor.name().to_owned()),
            payload,
            created_at: t.now.wall,
        })
    }

    /// The ids of a session's mesh and member, as its rows have them.
    fn row_ids(&self, peer: &PeerConn) -> (String, String) {
        let mesh = self.mesh(peer.mesh).map(|m| m.id.to_string());
        let member = self.member(peer.member).map(|m| m.id.to_string());
        (mesh.unwrap_or_default(), member.unwrap_or_default())
    }

    /// The whole row of a session, as it is now.
    pub(crate) fn presence_row(&self, t: &Turn<'_>, peer: &PeerConn) -> PresenceRow {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let lease_until = match &peer.lease {
            Lease::Online(_) => None,
            Lease::Grace(until) => Some(t.now.wall.after(until.since(t.now.mono))),
        };
        let (mesh_id, member_id) = self.row_ids(peer);
        PresenceRow {
            id: peer.presence_id().to_owned(),
            mesh_id,
            member_id,
            session_id: peer.card.session_id().to_owned(),
            session_pubkey: peer.session_key,
            role: peer.role(),
            display_name: peer.name().to_owned(),
            pid: peer.card.pid(),
            cwd: peer.card.cwd().to_owned(),
            hostname: text(peer.card.hostname()),
            peer_type: text(peer.card.peer_type()),
            channel: text(peer.card.channel()),
            model: text(peer.card.model()),
            status: peer.status,
            status_source: peer.status_source,
            status_at: peer.status_at,
            summary: text(peer.card.summary()),
            groups: peer.card.groups().to_vec(),
            visible: peer.visible,
            profile: peer.profile_text(),
            connected_at: peer.connected_at,
            last_ping_at: t.now.wall_at(peer.last_seen),
            lease_until,
            generation: peer.attaches,
            attested_until: peer.attested_until.end(),
            boot_epochs: peer.boot_epochs,
            grace: Some(peer.grace.into()),
            began: Position(peer.order),
            joined: peer.joined.at(),
            shown: peer.shown().at(),
            cursor: peer.cursor,
            heard: peer.heard,
            known: peer.known,
        }
    }

    /// Writes the row of a session, as it is now; if others are still to be told of the session,
    /// they are when it is durable.
    pub(crate) fn persist_presence(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let put = StoreOp::PresencePut(Box::new(self.presence_row(t, peer)));
        if peer.owed != OwedJoin::Nothing {
            let order = peer.order;
            let token = self.wait(Waiting::Joined { slot, order });
            t.persist_awaited(put, token);
        } else {
            t.persist(put);
        }
    }

    /// Keeps what a member's next key-less hello finds again. Only key-less connections write it,
    /// so that one-shot commands do not (B15).
    pub(crate) fn save_peer_state(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        if peer.kind != Kind::Member {
            return;
        }
        let added = peer.rare.as_mut().map(|rare| rare.stats_to_save());
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let earlier = self.member(peer.member).and_then(|m| m.saved.as_deref());
        let (mesh_id, member_id) = self.row_ids(peer);
        let row = PeerStateRow {
            mesh_id,
            member_id,
            groups: peer.card.groups().to_vec(),
            profile: peer.profile_text(),
            visible: peer.visible,
            last_summary: peer
                .card
                .summary()
                .filter(|summary| !summary.is_empty())
                .map(str::to_owned)
                .or_else(|| earlier.and_then(|row| row.last_summary.clone())),
            last_display_name: Some(peer.name().to_owned()),
            stats: earlier
                .map(|row| row.stats)
                .unwrap_or_default()
                .plus(&added.unwrap_or_default()),
            last_seen_at: t.now.wall,
        };
        let member = peer.member;
        if let Some(member) = self.member_mut(member) {
            member.saved = Some(Box::new(row.clone()));
        }
        t.persist(StoreOp::PeerStatePut(Box::new(row)));
    }

    /// What a stored row says, if its mesh and member are still there and nobody else has its
    /// identity.
    pub(crate) fn peer_of_row(
        &self,
        t: &Turn<'_>,
        row: PresenceRow,
        until: Mono,
    ) -> Result<PeerConn, Box<PresenceRow>> {
        let Some((mesh, member)) = self.place_of_row(&row) else {
            return Err(Box::new(row));
        };
        let kind = Kind::of(row.role, row.session_pubkey.is_some());
        if self
            .present(mesh, member, kind, row.session_pubkey, &row.session_id)
            .is_some()
        {
            return Err(Box::new(row));
        }
        let owed = match row.joined {
            Some(_) => OwedJoin::Nothing,
            None => OwedJoin::Perhaps,
        };
        let unseen = t.now.wall.since(row.last_ping_at);
        let (heard, known) = self.heard_of_row(&row);
        let profile = serde_json::from_str(&row.profile).unwrap_or_default();
        let rare = (profile != Profile::default() || row.shown.is_some()).then(|| {
            Box::new(Rare {
                profile,
                shown: row.shown.into(),
                ..Rare::default()
            })
        });
        let card = card_of_row(&row);
        Ok(PeerConn {
            mesh,
            member,
            kind,
            session_key: row.session_pubkey,
            lease: Lease::Grace(until),
            grace: self.config.grace_of(row.grace).into(),
            lease_timer: None,
            order: row.began.0,
            attaches: row.generation,
            card,
            links: Links::default(),
            status: row.status,
            status_source: row.status_source,
            status_at: row.status_at,
            working_timer: None,
            visible: row.visible,
            connected_at: row.connected_at,
            last_seen: Mono(t.now.mono.0.saturating_sub(unseen.0)),
            attested_until: row.attested_until.into(),
            boot_epochs: row.boot_epochs,
            owed,
            outbox: crate::outbox::Outbox::default(),
            acknowledges: false,
            joined: row.joined.into(),
            cursor: row.cursor,
            heard,
            known,
            rare,
        })
    }

    /// The mesh of a stored row, and its member, if that may still be there.
    fn place_of_row(&self, row: &PresenceRow) -> Option<(MeshIx, MemberIx)> {
        let mesh = *self.mesh_ids.get(row.mesh_id.as_str())?;
        let member = *self.member_ids.get(row.member_id.as_str())?;
        let active = self.member(member)?.revoked_at.is_none();
        active.then_some((mesh, member))
    }

    /// Up to where the client of a stored row has heard who came and went, and was written the log.
    fn heard_of_row(&self, row: &PresenceRow) -> (Position, Position) {
        // Who was online has heard all that was told before; who was away, up to its cursor.
        match row.lease_until {
            None => (self.booted, self.booted),
            Some(_) => (row.heard, row.known),
        }
    }
}

fn card_of_row(row: &PresenceRow) -> Card {
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    Card::of(&Details {
        presence_id: row.id.as_str().into(),
        session_id: row.session_id.as_str().into(),
        name: row.display_name.as_str().into(),
        summary: text(&row.summary),
        hostname: text(&row.hostname),
        peer_type: text(&row.peer_type),
        channel: text(&row.channel),
        model: text(&row.model),
        cwd: row.cwd.as_str().into(),
        groups: row.groups.clone(),
        pid: row.pid,
    })
}
