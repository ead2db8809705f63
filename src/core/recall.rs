//! What a mesh said before this process began: its log, put together again from the rows, so that
//! those who come back have missed nothing; and the cursors that the rows keep for it.

use crate::ids::Position;
use crate::limits::CURSOR_NOTED;
use crate::log::{Kept, Subject, What};
use crate::marks::{Mark, mark};
use crate::peer::{Kind, MeshIx};
use crate::rows::{EndedRow, LogRow, MessageRow, SentRow, StoreOp};
use crate::shard::{Shard, Turn};
use crate::time::{Mono, Now, Wall};

impl Shard {
    /// Puts what others were told of a restored session back into the log, unless all have heard.
    fn recall_news(&mut self, t: &Turn<'_>, slot: u32, heard: Position) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, then) = (peer.mesh, peer.connected_at);
        let news = |at: Option<Position>| at.filter(|at| *at > heard);
        let (joined, shown) = (news(peer.joined.at()), news(peer.shown().at()));
        if let Some(at) = joined {
            self.recall(t.now, mesh, (then, at), Kept::Present(slot));
        }
        if let Some(at) = shown {
            let news = self.visibility_news(t, slot, at);
            // When it was is not in the row; no longer ago than it joined.
            if let Some((_, (what, frame))) = news {
                self.recall(t.now, mesh, (t.now.wall, at), Kept::said(what, frame));
            }
        }
    }

    /// An ended presence: its key stays known; its end is news to those who were away, and to all
    /// if nobody has been told of it.
    pub(crate) fn ended_found(&mut self, t: &mut Turn<'_>, row: &EndedRow) {
        let mesh = self.mesh_ids.get(row.mesh_id.as_str()).copied();
        let member = self.member_ids.get(row.member_id.as_str()).copied();
        let (Some(mesh), Some(member)) = (mesh, member) else {
            return;
        };
        if let (Some(found), Some(key)) = (self.mesh_mut(mesh), row.session_pubkey) {
            found.known.remember(key, member);
        }
        if row.joined.is_none() && row.left.is_none() {
            // Nobody has heard of it.
            return;
        }
        if row
            .left
            .is_some_and(|at| !self.recalls(t.now, row.ended_at, (mesh, at)))
        {
            return;
        }
        let Some(owner) = self.member(member) else {
            return;
        };
        let who = Subject {
            kind: Kind::of(row.role, row.session_pubkey.is_some()),
            member,
            order: row.began.0,
            before: row.ended.0,
        };
        let pubkey = row.session_pubkey.unwrap_or(owner.key);
        let frame = self.leave_frame(t, mesh, (&row.id, &row.display_name), pubkey);
        let joined = row.joined;
        match row.left {
            Some(at) => {
                let kept = Kept::said(What::Left { who, joined }, frame);
                self.recall(t.now, mesh, (row.ended_at, at), kept);
            }
            None => {
                mark(Mark::LeaveRecalled);
                self.tell_leave(t, mesh, (row.id.clone(), joined), (who, frame));
            }
        }
    }

    /// A message to many.
    pub(crate) fn said_found(&mut self, now: Now, row: &MessageRow) {
        let mesh = self.mesh_ids.get(row.mesh_id.as_str()).copied();
        let sender = self.member_ids.get(row.sender_member_id.as_str()).copied();
        let (Some(mesh), Some(sender), Some(at)) = (mesh, sender, row.position) else {
            return;
        };
        let Some(audience) = self.audience(mesh, &row.target_spec) else {
            return;
        };
        mark(Mark::SaidRecalled);
        let frame = self.push_frame(mesh, row, None);
        let kept = Kept::said(What::message(row, sender, audience), frame);
        self.recall(now, mesh, (row.created_at, at), kept);
    }

    /// Everything that is known of a mesh's log is there, and who will come for it.
    pub(crate) fn log_found(&mut self, t: &Turn<'_>, row: &LogRow) {
        let Some(mesh) = self.mesh_ids.get(row.mesh_id.as_str()).copied() else {
            return;
        };
        let slots: Vec<u32> = self.present_slots(mesh);
        let peers = slots.iter().filter_map(|slot| self.peers.get_slot(*slot));
        let cursors = peers.map(|peer| (peer.cursor, peer.cursor.max(peer.heard)));
        let cursors: Vec<_> = cursors.collect();
        let confirmed = cursors.iter().map(|(cursor, _)| *cursor).min();
        let heard = cursors.iter().map(|(_, heard)| *heard).min();
        for slot in slots {
            self.recall_news(t, slot, heard.unwrap_or_default());
        }
        self.recall_state(t, mesh, confirmed.unwrap_or_default());
        let (limits, booted) = (self.config.log, self.booted);
        if let Some(found) = self.mesh_mut(mesh) {
            // Of what was published there are no rows.
            found.log.data_lost(booted);
            found.log.restored(t.now.mono, &limits, row.since);
        }
        self.watch_log(t, mesh);
    }

    /// A send that may be repeated.
    pub(crate) fn sent_found(&mut self, row: &SentRow) {
        let member = self.member_ids.get(row.sender_member_id.as_str()).copied();
        if let Some(member) = member {
            let hash = self.send_hash(member, &row.client_message_id);
            self.repeats.note(hash);
        }
    }

    /// Whether a log still holds what was said then; if not, it knows.
    fn recalls(&mut self, now: Now, then: Wall, (mesh, at): (MeshIx, Position)) -> bool {
        let recent = now.wall.since(then) <= self.config.log.age;
        if let Some(found) = self.mesh_mut(mesh).filter(|_| !recent) {
            found.log.forget(at);
        }
        recent
    }

    pub(crate) fn recall(
        &mut self,
        now: Now,
        mesh: MeshIx,
        (then, at): (Wall, Position),
        kept: Kept,
    ) {
        if !self.recalls(now, then, (mesh, at)) {
            return;
        }
        let since = Mono(now.mono.0.saturating_sub(now.wall.since(then).0));
        if let Some(found) = self.mesh_mut(mesh) {
            found.log.restore(since, at, kept);
        }
    }

    /// The cursor of a session moved: its row follows, now and then, if there is anything that the
    /// session would otherwise hear again after a crash.
    pub(crate) fn note_cursor(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let online = peer.online();
        if online.is_some_and(|online| t.now.mono.since(online.noted.1) >= CURSOR_NOTED) {
            self.note_cursor_now(t, slot);
        }
    }

    /// As [`Self::note_cursor`], at once.
    pub(crate) fn note_cursor_now(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let cursor = peer.cursor;
        let Some((noted, _)) = peer.online().map(|online| online.noted) else {
            return;
        };
        let mesh = self.mesh(peer.mesh);
        let said = mesh.is_some_and(|mesh| mesh.log.end() > noted);
        if !said || cursor <= noted {
            return;
        }
        mark(Mark::CursorNoted);
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        if let Some(online) = peer.online_mut() {
            online.noted = (cursor, t.now.mono);
        }
        let (began, id) = (Position(peer.order), peer.presence_id().to_owned());
        t.persist(StoreOp::PresenceCursor { began, id, cursor });
    }
}
