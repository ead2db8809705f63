//! Who hears what a mesh says, at once or later: appending to the log, and walking it.
//!
//! A session that keeps up is written every entry as it is appended. One that came back, or whose
//! direct messages have to wait, *walks*: unconfirmed messages, mail and log entries are merged by
//! their place in the broker's order, and no faster than its watermarks come back, until it has
//! reached the end.

use bytes::Bytes;

use crate::event::Event;
use crate::ids::{Position, PubKey, Seq};
use crate::limits::WATERMARK_DELAY;
use crate::log::{Entry, Kept, Knowledge, Subject, Walk, What};
use crate::marks::{Mark, mark};
use crate::mesh::Cap;
use crate::peer::{Kind, Lease, MeshIx, PeerConn};
use crate::presence::subject;
use crate::shard::{Shard, Turn};
use crate::streams::Subscriptions;

/// Bytes of log entries a walk may have written beyond its last confirmed watermark: together with
/// a full outbox well below what the shell buffers for a socket.
const WALK_BYTES_MAX: usize = crate::limits::OUTBOUND_BYTES_MAX / 4;

/// What a session is written next.
enum Step {
    /// A message that its last socket may have swallowed.
    Again,
    /// A message from a mailbox, at that place.
    Mail(MeshIx, PubKey, usize),
    /// The log entry there.
    Entry(Position),
}

/// Whether a session is told an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Seen,
    Unseen,
    /// It does not let the sender.
    Unwilling(Cap),
}

impl Shard {
    /// Says something to a mesh, at a place just [stamped](Self::stamp): now to those who keep up,
    /// later to those who do not. Gives how many online sessions it is for.
    pub(crate) fn publish(
        &mut self,
        t: &mut Turn<'_>,
        mesh: MeshIx,
        position: Position,
        (what, frame): (What, Bytes),
    ) -> u64 {
        let (reached, behind) = self.fan_out(t, mesh, (&what, position), &frame);
        let limits = self.config.log;
        let Some(found) = self.mesh_mut(mesh) else {
            return 0;
        };
        let walked = !behind.is_empty();
        found
            .log
            .append(t.now.mono, &limits, position, ((what, frame), walked));
        self.look_after(t, mesh, WATERMARK_DELAY);
        for slot in behind {
            self.cut_overtaken(t, slot);
            self.drain(t, slot);
        }
        reached
    }

    /// Writes to those who keep up; gives how many it is for, and who of them walks.
    fn fan_out(
        &self,
        t: &mut Turn<'_>,
        mesh: MeshIx,
        (what, position): (&What, Position),
        frame: &Bytes,
    ) -> (u64, Vec<u32>) {
        let mut reached = 0;
        let mut behind = Vec::new();
        for slot in self.present_in(mesh) {
            let Some(peer) = self.peers.get_slot(slot) else {
                continue;
            };
            let Some(conn) = peer.conn() else { continue };
            let seen = match self.sight(peer, what, position) {
                Sight::Seen => true,
                Sight::Unseen => false,
                Sight::Unwilling(cap) => {
                    let cap = cap.name();
                    t.observe(Event::GrantDenied { cap });
                    false
                }
            };
            reached += u64::from(seen);
            if peer.walk().is_some() {
                behind.push(slot);
            } else if seen {
                t.send(conn, frame.clone());
            }
        }
        (reached, behind)
    }

    /// Who is told what (protocol.md §8.4, design.md §8.2).
    fn sight(&self, peer: &PeerConn, what: &What, at: Position) -> Sight {
        let seen = |seen: bool| if seen { Sight::Seen } else { Sight::Unseen };
        match what {
            What::Message {
                audience,
                sender,
                sender_session,
                ..
            } => {
                let meant = peer.member != *sender && peer.visible && self.is_among(peer, audience);
                let (Some(owner), Some(sender)) = (
                    self.member(peer.member),
                    self.member(*sender).filter(|_| meant),
                ) else {
                    return Sight::Unseen;
                };
                let caps = owner.allows(&sender.key, sender_session.as_ref());
                if caps.has(audience.cap()) {
                    Sight::Seen
                } else {
                    Sight::Unwilling(audience.cap())
                }
            }
            What::Joined { who, .. } | What::Left { who, .. } => seen(hears_of(peer, who)),
            What::Visibility { order, .. } => seen(peer.order != *order),
            What::Posted => Sight::Seen,
            What::Profile { member } => seen(peer.member == *member),
            What::State { setter, .. } => seen(peer.order != *setter),
            What::Stream { stream, publisher } => {
                let since = peer.subscriptions().and_then(|own| own.since(*stream));
                seen(peer.order != *publisher && since.is_some_and(|since| at > since))
            }
            What::Server { host, .. } => seen(peer.order != *host),
        }
    }

    /// The same of an entry of the log.
    fn sight_of(&self, peer: &PeerConn, entry: &Entry) -> Sight {
        match &entry.kept {
            Kept::Said(said) => self.sight(peer, &said.0, entry.position),
            Kept::Present(slot) => match self.joined_at(*slot, entry.position) {
                Some(other) if hears_of(peer, &subject(other, other.order)) => Sight::Seen,
                Some(_) | None => Sight::Unseen,
            },
            Kept::Past | Kept::Superseded => Sight::Unseen,
        }
    }

    /// The session in that slot, if it is the one whose join is told there.
    fn joined_at(&self, slot: u32, position: Position) -> Option<&PeerConn> {
        let peer = self.peers.get_slot(slot);
        peer.filter(|peer| peer.joined.at() == Some(position))
    }

    /// A new socket: everything unconfirmed is to be written to it.
    pub(crate) fn walk_from_cursor(&mut self, slot: u32) {
        let written = self.written;
        let mesh = self.peers.get_slot(slot).map(|peer| peer.mesh);
        let removed = mesh
            .and_then(|mesh| self.mesh(mesh))
            .map(|mesh| mesh.log.removed());
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            peer.outbox.begin_attachment();
            let known = Knowledge {
                order: peer.order,
                heard: peer.heard,
                known: peer.known,
            };
            let mut walk = Walk::new(peer.cursor, written, known);
            // What is gone it has been told of.
            if let Some(removed) = removed {
                walk.pass(removed, Some(removed));
            }
            if let Some(online) = peer.online_mut() {
                online.walk = Some(Box::new(walk));
            }
        }
    }

    /// A socket has been written its last: notes how much of the log its client may have.
    pub(crate) fn note_known(&mut self, slot: u32) {
        let written = self.written;
        if let Some(peer) = self.peers.get_slot_mut(slot)
            && let Some(online) = peer.online_mut()
        {
            let walk = online.walk.take();
            let read = walk.as_ref().map_or(written, |walk| walk.next);
            peer.known = peer.known.max(read);
            if let Some(walk) = walk {
                peer.walked(&walk);
            }
        }
    }

    /// Direct messages have to wait: from here on the session walks, so that nothing that comes
    /// after them overtakes.
    pub(crate) fn fall_behind(&mut self, slot: u32) {
        let written = self.written;
        let peer = self.peers.get_slot_mut(slot);
        if let Some(online) = peer.and_then(PeerConn::online_mut) {
            let pinged = online.watermarks.pinged();
            online.walk.get_or_insert_with(|| {
                let mut walk = Walk::new(written, written, Knowledge::default());
                // A ping that is still under way stands behind all that was written.
                walk.pinged = pinged;
                Box::new(walk)
            });
        }
    }

    /// Whether the log still holds everything the session has not confirmed.
    pub(crate) fn log_reaches(&self, slot: u32) -> bool {
        self.peers.get_slot(slot).is_none_or(|peer| {
            self.mesh(peer.mesh).is_none_or(|mesh| {
                let since = peer.subscriptions().and_then(Subscriptions::first);
                mesh.log.reaches(peer.cursor, peer.heard)
                    && since.is_none_or(|since| mesh.log.reaches_data(peer.cursor.max(since)))
            })
        })
    }

    /// Writes everything a session may have now, in order.
    pub(crate) fn drain(&mut self, t: &mut Turn<'_>, slot: u32) {
        // At shutdown every socket has been told to close, and the rows wait for the next broker.
        // Who is overtaken is about to be cut: it must not go on behind what it was not written.
        if self.shutting_down || self.is_overtaken(slot) {
            return;
        }
        while let Some(step) = self.next_step(slot) {
            match step {
                Step::Again => self.write_again(t, slot),
                Step::Mail(mesh, key, index) => self.write_mail(t, slot, (mesh, key), index),
                Step::Entry(position) => self.write_entry(t, slot, position),
            }
        }
        self.read_on(t, slot);
        self.end_walk(t, slot);
    }

    fn next_step(&mut self, slot: u32) -> Option<Step> {
        let entry = self.next_entry(slot);
        let peer = self.peers.get_slot(slot)?;
        peer.conn()?;
        let paced = peer
            .walk()
            .is_none_or(|walk| walk.unconfirmed < WALK_BYTES_MAX);
        if let Some(again) = peer.outbox.next_rewrite() {
            let first = entry.filter(|(_, seq)| seq.is_none_or(|seq| seq < again));
            return match first {
                Some((position, _)) => paced.then_some(Step::Entry(position)),
                None => Some(Step::Again),
            };
        }
        let room = peer.outbox.has_room();
        let mail = self.next_mail(slot);
        let first = entry.filter(|(_, seq)| match (seq, &mail) {
            (Some(seq), Some((mail, ..))) => seq < mail,
            (None, _) | (_, None) => true,
        });
        let hidden = |seq: Option<Seq>| seq.is_some_and(|seq| self.hidden_before(slot, seq));
        match (first, mail) {
            // What comes after an entry that has to wait waits, too.
            (Some((position, seq)), _) => (paced && !hidden(seq)).then_some(Step::Entry(position)),
            (None, Some((seq, mesh, key, index))) => {
                (room && !self.hidden_before(slot, seq)).then_some(Step::Mail(mesh, key, index))
            }
            (None, None) => None,
        }
    }

    /// The next log entry for a session that walks, passing over what is not for it.
    fn next_entry(&mut self, slot: u32) -> Option<(Position, Option<Seq>)> {
        let peer = self.peers.get_slot(slot)?;
        let walk = peer.walk()?;
        let log = &self.mesh(peer.mesh)?.log;
        let passed = peer.rare.as_ref().map(|rare| &rare.passed);
        let (mut next, mut news) = (walk.next, None);
        let found = loop {
            let Some(entry) = log.after(next) else {
                break None;
            };
            if walk.tells(entry, passed) && self.sight_of(peer, entry) == Sight::Seen {
                break Some((entry.position, entry.kept.seq()));
            }
            next = entry.position;
            if entry.kept.is_of_presence() {
                news = Some(next);
            }
        };
        if let Some(walk) = self.peers.get_slot_mut(slot)?.walk_mut() {
            walk.pass(next, news);
        }
        found
    }

    /// Whether a message of that place must wait for rows on disk that may come before it, and that
    /// are read without anybody else's doing.
    pub(crate) fn hidden_before(&self, slot: u32, seq: Seq) -> bool {
        let Some(peer) = self.peers.get_slot(slot) else {
            return false;
        };
        let all = peer.takes(crate::rows::Priority::Low);
        let Some(mesh) = self.mesh(peer.mesh) else {
            return false;
        };
        self.mail_keys(slot, peer)
            .into_iter()
            .flatten()
            .filter_map(|key| mesh.mailboxes.get(&key))
            // Mail in memory that is held, or for a sibling that does not read, keeps the rest on
            // disk for as long as it pleases; nothing waits for that.
            .filter(|mailbox| !mailbox.is_clogged())
            .any(|mailbox| mailbox.hides_before(seq, all))
    }

    fn write_again(&mut self, t: &mut Turn<'_>, slot: u32) {
        let place = self.stamp();
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        if let Lease::Online(online) = &mut peer.lease
            && let Some(frame) = peer.outbox.rewrite(&mut online.watermarks, place)
        {
            mark(Mark::Rewritten);
            t.send(online.conn, frame);
            self.watermark_after_push(t, slot);
        }
    }

    fn write_entry(&mut self, t: &mut Turn<'_>, slot: u32, position: Position) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (Some(conn), Some(frame)) = (peer.conn(), self.entry_frame(peer.mesh, position)) else {
            return;
        };
        let peer = self.peers.get_slot_mut(slot);
        if let Some(walk) = peer.and_then(PeerConn::walk_mut) {
            walk.next = position;
            walk.unconfirmed += frame.len();
            walk.wrote = true;
        }
        t.send(conn, frame);
    }

    /// What an entry of a log tells: kept, or written anew.
    fn entry_frame(&self, mesh: MeshIx, position: Position) -> Option<Bytes> {
        match &self.mesh(mesh)?.log.entry(position)?.kept {
            Kept::Said(said) => Some(said.1.clone()),
            Kept::Present(slot) => {
                mark(Mark::JoinWrittenAnew);
                let joined = self.joined_at(*slot, position)?;
                Some(self.join_frame(joined, None))
            }
            Kept::Past | Kept::Superseded => None,
        }
    }

    /// A walk that has reached the end of everything is over; one that waits, for its watermark
    /// or for the disk, asks for the watermark of what it has written.
    fn end_walk(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let Some(walk) = peer.walk() else { return };
        let (wrote, asks) = (walk.wrote, walk.wrote && walk.next > walk.pinged);
        // Without room for the next message the session would be behind with that.
        let waits = !peer.outbox.has_room()
            || peer.outbox.next_rewrite().is_some()
            || self.next_mail(slot).is_some()
            || self.hidden_before(slot, Seq(u64::MAX))
            || self.next_entry(slot).is_some();
        let Some(handle) = self.peers.handle_of(slot) else {
            return;
        };
        if waits {
            if asks {
                self.ask_watermark(t, handle);
            }
            return;
        }
        let written = self.stamp();
        if let Some(peer) = self.peers.get_mut(handle) {
            let walk = peer.online_mut().and_then(|online| online.walk.take());
            let Some(walk) = walk else { return };
            peer.walked(&walk);
            if !wrote {
                // Nothing in it was for this session; what was written before it may wait still.
                if walk.from <= peer.cursor {
                    peer.confirm_log(written);
                }
                return;
            }
        }
        self.ping_watermark(t, handle);
    }
}

/// Whether a peer is told of joins and leaves: of launched sessions all others are, siblings
/// included; of a `hello` connection all but its own member.
fn hears_of(listener: &PeerConn, who: &Subject) -> bool {
    let other = listener.order != who.order && listener.order < who.before;
    other
        && match who.kind {
            Kind::Launched => true,
            Kind::ThrowAway | Kind::Member => listener.member != who.member,
        }
}
