//! Meshes and members as administrators made them, and what is counted over all of them.

use crate::bucket::Bucket;
use crate::chain::List;
use crate::effect::Close;
use crate::event::LeaseEnd;
use crate::input::{Gauges, PeerView};
use crate::mailbox::Mailbox;
use crate::marks::{Mark, mark};
use crate::mesh::{Member, Mesh};
use crate::peer::{Lease, MemberIx, MeshIx, PeerConn};
use crate::rows::{MailboxRow, MemberRow, MeshRow, PeerStateRow};
use crate::shard::{Shard, Turn};
use crate::time::{Mono, Now};

impl Shard {
    /// A mesh was made or changed.
    pub(crate) fn mesh_put(&mut self, row: MeshRow) {
        if let Some(mesh) = self
            .mesh_ids
            .get(row.id.as_str())
            .and_then(|ix| self.meshes.get_mut(ix.0 as usize))
        {
            mesh.update(row);
            return;
        }
        let Ok(index) = u32::try_from(self.meshes.len()) else {
            return;
        };
        self.mesh_ids.insert(row.id.as_str().into(), MeshIx(index));
        self.meshes.push(Mesh::new(row, &self.hasher));
    }

    /// A member was made or changed; if it was revoked, its sessions end.
    pub(crate) fn member_put(&mut self, t: &mut Turn<'_>, row: MemberRow) {
        let Some(&mesh_ix) = self.mesh_ids.get(row.mesh_id.as_str()) else {
            return;
        };
        let (key, revoked) = (row.pubkey, row.revoked_at.is_some());
        let known = self.member_ids.get(row.id.as_str()).copied();
        let member_ix = if let Some(member_ix) = known {
            if let Some(member) = self.member_mut(member_ix) {
                member.update(row);
            }
            member_ix
        } else {
            let Ok(index) = u32::try_from(self.members.len()) else {
                return;
            };
            self.member_ids
                .insert(row.id.as_str().into(), MemberIx(index));
            let bucket = Bucket::full(self.config.send_burst, t.now.mono);
            self.members.push(Member::new(row, mesh_ix, bucket));
            if let Some(mesh) = self.mesh_mut(mesh_ix) {
                mesh.members.push(MemberIx(index));
            }
            MemberIx(index)
        };
        self.index_member(mesh_ix, key, member_ix);
        if revoked {
            self.end_member(t, member_ix);
        }
    }

    /// The active member of a key is found by it; a revoked one only if there is no other.
    pub(crate) fn index_member(&mut self, mesh: MeshIx, key: crate::ids::PubKey, member: MemberIx) {
        let active = |ix: MemberIx| self.member(ix).is_some_and(|m| m.revoked_at.is_none());
        let keep = self.mesh(mesh).and_then(|m| m.by_key.get(&key).copied());
        if keep.is_some_and(|other| other != member && active(other)) {
            return;
        }
        if let Some(mesh) = self.mesh_mut(mesh) {
            mesh.by_key.insert(key, member);
        }
    }

    /// Ends every session of a member that may no longer be here.
    pub(crate) fn end_member(&mut self, t: &mut Turn<'_>, member: MemberIx) {
        let slots: Vec<u32> = self
            .member(member)
            .map(|m| m.sessions.iter(&self.peers, List::Member).collect())
            .unwrap_or_default();
        for slot in slots {
            mark(Mark::MemberEnded);
            self.evict(t, slot, LeaseEnd::Banned, Some(Close::BANNED));
        }
    }

    /// A member's saved state, found at boot.
    pub(crate) fn peer_state_put(&mut self, row: PeerStateRow) {
        let member = self.member_ids.get(row.member_id.as_str()).copied();
        if let Some(member) = member.and_then(|ix| self.member_mut(ix)) {
            member.saved = Some(Box::new(row));
        }
    }

    /// Somebody has mail on disk, found at boot.
    pub(crate) fn mailbox_found(&mut self, now: Mono, row: &MailboxRow) {
        let mesh = self.mesh_ids.get(row.mesh_id.as_str()).copied();
        if let Some(mesh) = mesh.and_then(|ix| self.mesh_mut(ix)) {
            mesh.mailbox_or(now, row.target, || Mailbox::on_disk(now));
        }
    }

    /// Counts by walking everything, so that gauges cannot drift (I9).
    pub(crate) fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            greeting: self.attachments.greeting(),
            ..Gauges::default()
        };
        for (_, peer) in self.peers.iter() {
            match &peer.lease {
                Lease::Online(_) => gauges.online += 1,
                Lease::Grace(_) => gauges.grace += 1,
            }
            gauges.queued += peer.outbox.len() as u64;
        }
        // A sum: the order in which mailboxes are visited cannot be seen.
        for mesh in &self.meshes {
            gauges.queued += mesh
                .mailboxes
                .values()
                .map(|mail| mail.len() as u64)
                .sum::<u64>();
        }
        gauges
    }

    /// Who is present in a mesh, by id or slug; None if it does not live here.
    pub(crate) fn peer_views(&self, now: Now, mesh: MeshIx) -> Vec<PeerView> {
        self.present_in(mesh)
            .filter_map(|slot| self.peers.get_slot(slot))
            .map(|peer| self.peer_view(now, peer))
            .collect()
    }

    /// The mesh of that id or slug, if it lives here.
    pub(crate) fn find_mesh(&self, mesh: &str) -> Option<MeshIx> {
        let index = self
            .meshes
            .iter()
            .position(|m| &*m.id == mesh || &*m.slug == mesh)?;
        u32::try_from(index).ok().map(MeshIx)
    }

    fn peer_view(&self, now: Now, peer: &PeerConn) -> PeerView {
        let member_pubkey = self
            .member(peer.member)
            .map(|m| m.key.to_string())
            .unwrap_or_default();
        let (lease, grace_left_ms) = match &peer.lease {
            Lease::Online(_) => ("online", None),
            Lease::Grace(until) => ("grace", Some(until.since(now.mono).0)),
        };
        PeerView {
            presence_id: peer.presence_id().to_owned(),
            pubkey: peer
                .session_key
                .map_or_else(|| member_pubkey.clone(), |key| key.to_string()),
            member_pubkey,
            display_name: peer.name().to_owned(),
            peer_role: peer.role().name(),
            lease,
            grace_left_ms,
            status: peer.status.name(),
            cwd: peer.card.cwd().to_owned(),
            connected_at: peer.connected_at,
            last_seen_at: now.wall_at(peer.last_seen),
            generation: peer.attaches,
        }
    }
}
