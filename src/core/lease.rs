//! The lease table (design.md §4): every way in which a session gets, keeps, loses and ends its
//! presence. Each transition is one function; a socket's own events reach them only through its
//! handle.

use crate::attachment::Attachment;
use crate::chain::List;
use crate::effect::Close;
use crate::event::{Event, LeaseEnd};
use crate::ids::{ConnId, PeerHandle, Position};
use crate::input::Closing;
use crate::marks::{Mark, mark};
use crate::peer::{Kind, Lease, Online, PeerConn};
use crate::rows::{EndedRow, PresenceRow, Restart, StoreOp};
use crate::shard::{Shard, Timer, Turn};
use crate::time::Millis;

impl Shard {
    /// none -> Online, or Grace at boot: enters a new session; the caller announces it.
    pub(crate) fn enter(&mut self, t: &mut Turn<'_>, peer: PeerConn) -> PeerHandle {
        let (mesh_ix, member_ix) = (peer.mesh, peer.member);
        let (key, kind) = (peer.session_key, peer.kind);
        let handle = self.peers.insert(peer);
        self.enter_cwd(handle.slot);
        if let Some(mesh) = self.meshes.get_mut(mesh_ix.0 as usize) {
            mesh.roster.insert(&mut self.peers, List::Mesh, handle.slot);
        }
        self.hold_id(handle.slot);
        // A proven key outranks a claimed one (B3).
        let held = key.is_some_and(|key| self.key_holder(mesh_ix, &key).is_some());
        if !held || kind == Kind::Launched {
            self.hold_key(handle.slot);
        }
        if let Some(member) = self.members.get_mut(member_ix.0 as usize) {
            member
                .sessions
                .insert(&mut self.peers, List::Member, handle.slot);
        }
        if let Some(peer) = self.peers.get_slot(handle.slot) {
            t.observe(Event::LeaseBegan {
                peer: handle,
                presence_id: peer.presence_id().to_owned(),
                mesh_id: self
                    .mesh(mesh_ix)
                    .map(|m| m.id.to_string())
                    .unwrap_or_default(),
            });
        }
        handle
    }

    /// Grace -> Online and Online -> Online: attaches a socket to a present session. The old
    /// socket, if any, is closed and from here on stale.
    pub(crate) fn attach(&mut self, t: &mut Turn<'_>, slot: u32, conn: ConnId) {
        self.stop_lease_timer(slot);
        self.note_known(slot);
        let attached = self.stamp().0;
        let Some(handle) = self.peers.renew(slot) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        let old = peer.conn();
        peer.attaches = peer.attaches.saturating_add(1);
        peer.last_seen = t.now.mono;
        peer.boot_epochs = 0;
        if let Some(old) = old {
            mark(Mark::Takeover);
            self.leave_online(slot);
            self.close(t, old, Close::SESSION_REPLACED);
        } else {
            mark(Mark::ReattachInGrace);
        }
        if let Some(peer) = self.peers.get_mut(handle) {
            peer.lease =
                Lease::Online(Online::new(conn, attached, (peer.cursor, t.now.mono)).into());
        }
        self.enter_online(slot);
        self.attachments.set(conn, Attachment::Attached(handle));
        self.start_liveness(t.now.mono, handle);
        self.observe_reattached(t, handle, old.is_some());
    }

    /// Stops the timer of the current attachment, or of grace.
    fn stop_lease_timer(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        if let Some(timer) = peer.lease_timer.take() {
            self.wheel.cancel(timer);
        }
    }

    fn observe_reattached(&self, t: &mut Turn<'_>, handle: PeerHandle, takeover: bool) {
        if let Some(peer) = self.peers.get(handle) {
            let presence_id = peer.presence_id().to_owned();
            t.observe(Event::Reattached {
                peer: handle,
                presence_id,
                takeover,
            });
        }
    }

    /// A socket that was attached under `handle` ended.
    pub(crate) fn detached(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        handle: PeerHandle,
        how: Closing,
    ) {
        if self.shutting_down {
            return;
        }
        let Some(peer) = self.peers.get(handle) else {
            t.observe(Event::Stale {
                conn,
                what: "close",
            });
            return;
        };
        match (peer.kind, how) {
            // A one-shot command that says goodbye leaves no ghost (design.md §4).
            (Kind::ThrowAway, Closing::Clean) => {
                mark(Mark::Goodbye);
                self.evict(t, handle.slot, LeaseEnd::Goodbye, None);
            }
            (Kind::ThrowAway, Closing::Abrupt) | (Kind::Launched | Kind::Member, _) => {
                self.begin_grace(t, handle.slot);
            }
        }
        self.admit_challenger(t, handle.slot);
    }

    /// Online -> Grace. Silent; the socket must be gone or told to go.
    pub(crate) fn begin_grace(&mut self, t: &mut Turn<'_>, slot: u32) {
        self.stop_lease_timer(slot);
        self.note_known(slot);
        let Some(grace) = self.peers.get_slot(slot).map(|peer| peer.grace) else {
            return;
        };
        let grace = Millis::from(grace);
        let until = t.now.mono.after(grace);
        self.leave_online(slot);
        // From here on the old attachment's handle finds nothing.
        let Some(handle) = self.peers.renew(slot) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        peer.lease = Lease::Grace(until);
        peer.lease_timer = Some(self.wheel.insert(until, Timer::Grace(slot)));
        peer.rest(t.now.mono);
        let id = peer.presence_id().to_owned();
        let began = Position(peer.order);
        let last_ping_at = t.now.wall_at(peer.last_seen);
        let (cursor, heard, known) = (peer.cursor, peer.heard, peer.known);
        let member = peer.member;
        self.save_peer_state(t, slot);
        let until = t.now.wall.after(grace);
        t.persist(StoreOp::PresenceGrace {
            began,
            id: id.clone(),
            until,
            last_ping_at,
            cursor,
            heard,
            known,
        });
        t.observe(Event::GraceBegan {
            peer: handle,
            presence_id: id,
        });
        self.redistribute(t, member);
    }

    /// Grace ran out.
    pub(crate) fn grace_over(&mut self, t: &mut Turn<'_>, slot: u32) {
        mark(Mark::GraceOver);
        self.evict(t, slot, LeaseEnd::Expired, None);
    }

    /// Any state -> none, in one step: leaves every index, tells those who were told of the join,
    /// ends the row, gives back what was not delivered.
    pub(crate) fn evict(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        why: LeaseEnd,
        close: Option<Close>,
    ) {
        self.save_peer_state(t, slot);
        self.dismiss_challenger(t, slot);
        self.stop_lease_timer(slot);
        let Some(handle) = self.peers.handle_of(slot) else {
            return;
        };
        let Some(mut peer) = self.peers.remove(slot) else {
            return;
        };
        if let Some(timer) = peer.working_timer {
            self.wheel.cancel(timer);
        }
        self.drop_watches(&mut peer);
        // At shutdown every socket has been told to close, and may be gone.
        if let (Some(conn), Some(close), false) = (peer.conn(), close, self.shutting_down) {
            self.close(t, conn, close);
        }
        if peer.conn().is_none() {
            mark(Mark::EvictedInGrace);
        }
        self.leave_indexes(slot, &peer);
        self.leave_streams(&peer);
        self.pause_if_empty(peer.mesh);
        let unconfirmed = peer.outbox.take_all();
        self.record_end(t, &peer);
        self.end_hosting(t, &peer);
        let presence_id = peer.presence_id().to_owned();
        t.observe(Event::LeaseEnded {
            peer: handle,
            presence_id,
            why,
        });
        self.give_back(t, &peer, unconfirmed);
    }

    /// A session is the latest of its member and kind to be online.
    pub(crate) fn enter_online(&mut self, slot: u32) {
        let Some((member, kind)) = self.peers.get_slot(slot).map(|p| (p.member, p.kind)) else {
            return;
        };
        if let Some(member) = self.members.get_mut(member.0 as usize) {
            let online = member.online_mut(kind);
            online.insert(&mut self.peers, List::Online, slot);
        }
    }

    /// A session is about to lose its socket; nothing if it has none.
    fn leave_online(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let Some(online) = peer.online() else { return };
        let (member, kind, link) = (peer.member, peer.kind, online.link);
        if let Some(member) = self.members.get_mut(member.0 as usize) {
            let online = member.online_mut(kind);
            online.remove(&mut self.peers, List::Online, link);
        }
    }

    fn leave_indexes(&mut self, slot: u32, peer: &PeerConn) {
        self.forget_cwd(slot, peer);
        let id = peer.card.session_id();
        let who: (_, _, &str) = (peer.member, peer.kind, &id);
        self.drop_id(peer.mesh, slot, who);
        if let Some(member) = self.members.get_mut(peer.member.0 as usize) {
            let sessions = &mut member.sessions;
            sessions.remove(&mut self.peers, List::Member, peer.links.member);
            if let Some(attachment) = peer.online() {
                let online = member.online_mut(peer.kind);
                online.remove(&mut self.peers, List::Online, attachment.link);
            }
        }
        let heir = peer.session_key.and_then(|_| self.same_key_sibling(peer));
        let Some(mesh) = self.meshes.get_mut(peer.mesh.0 as usize) else {
            return;
        };
        let roster = &mut mesh.roster;
        roster.remove(&mut self.peers, List::Mesh, peer.links.mesh);
        let Some(key) = peer.session_key else { return };
        mesh.known.remember(key, peer.member);
        if self.drop_key(peer.mesh, slot, &key)
            && let Some(heir) = heir
        {
            mark(Mark::KeyInherited);
            self.hold_key(heir);
        }
    }

    /// Another session of the member with the same session key: a `hello` that claimed the key a
    /// `session_hello` has proven. Rare, so it is searched for.
    fn same_key_sibling(&self, peer: &PeerConn) -> Option<u32> {
        if peer.kind != Kind::Launched {
            return None;
        }
        let sessions = self.member(peer.member)?.sessions;
        sessions.iter(&self.peers, List::Member).find(|slot| {
            self.peers.get_slot(*slot).is_some_and(|other| {
                other.kind == Kind::ThrowAway && other.session_key == peer.session_key
            })
        })
    }

    /// boot -> none: a row whose member was revoked meanwhile.
    fn not_restored(&mut self, t: &mut Turn<'_>, row: &PresenceRow) {
        mark(Mark::RestoreRefused);
        let (at, ended) = (t.now.wall, self.stamp());
        t.persist(StoreOp::PresenceEnd {
            began: row.began,
            id: row.id.clone(),
            at,
            ended,
        });
        self.ended_found(t, &EndedRow::of(row, at, ended));
    }

    /// boot -> Grace: a row that was not disconnected becomes a lease again, told to nobody.
    pub(crate) fn restore(&mut self, t: &mut Turn<'_>, row: PresenceRow) {
        if !Restart::extends(&row) {
            mark(Mark::BootEpochsSpent);
        }
        let restart = Restart::new(&self.config, t.now.wall, self.booted);
        let until = t.now.mono.after(restart.left(&row));
        let watches = self.found_watches.remove(&row.began);
        let peer = match self.peer_of_row(t, row, until) {
            Ok(peer) => peer,
            Err(row) => return self.not_restored(t, &row),
        };
        mark(Mark::Restored);
        let handle = self.enter(t, peer);
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        peer.lease_timer = Some(self.wheel.insert(until, Timer::Grace(handle.slot)));
        if peer.status == crate::rows::Status::Working {
            let worked = t.now.wall.since(peer.status_at).0;
            let left = Millis(crate::limits::WORKING_TTL.0.saturating_sub(worked));
            let due = t.now.mono.after(left);
            peer.working_timer = Some(self.wheel.insert(due, Timer::Working(handle.slot)));
        }
        for row in watches.unwrap_or_default() {
            self.restore_watch(t, handle.slot, row);
        }
    }
}
