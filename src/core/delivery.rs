//! Direct messages on their way from mailbox to socket and, confirmed, out of the store.

use crate::chain::List;
use crate::event::Event;
use crate::ids::{PubKey, Seq};
use crate::mailbox::Mailbox;
use crate::marks::{Mark, mark};
use crate::outbox::Mail;
use crate::peer::{Kind, Lease, MemberIx, MeshIx, PeerConn};
use crate::rows::{MessageRow, Origin, Priority, StoreOp};
use crate::shard::{Shard, Turn};
use crate::wire::frames;

impl Shard {
    /// A new direct message: written at once if its recipient may have it now, else kept.
    pub(crate) fn deliver(&mut self, t: &mut Turn<'_>, mesh: MeshIx, mail: Mail) {
        let recipient = self
            .designated(mesh, &mail)
            .filter(|slot| self.may_write(*slot, &mail));
        if let Some(slot) = recipient
            && self.keeps_up(slot)
            && self.passes_queue(slot, mesh, &mail)
        {
            self.write(t, slot, mail);
            return;
        }
        let target = mail.target;
        let awaited = self.somebody_has(mesh, &target);
        if let Some(found) = self.mesh_mut(mesh) {
            let mailbox = found.mailbox_or(t.now.mono, target, Mailbox::new);
            mailbox.put(mail);
            if !awaited {
                // Its row is enough until somebody comes for it.
                mailbox.unload(t.now.mono);
            }
        }
        if let Some(slot) = recipient {
            self.drain(t, slot);
        }
    }

    /// The mailbox of a key, if anything waits for it.
    pub(crate) fn mailbox_mut(&mut self, mesh: MeshIx, key: &PubKey) -> Option<&mut Mailbox> {
        self.mesh_mut(mesh)?.mailboxes.get_mut(key)
    }

    /// Whether a session is present that could take mail for that key.
    fn somebody_has(&self, mesh: MeshIx, key: &PubKey) -> bool {
        let Some(found) = self.mesh(mesh) else {
            return false;
        };
        let member = found.by_key.get(key).and_then(|ix| self.member(*ix));
        self.key_holder(mesh, key).is_some()
            || member.is_some_and(|member| !member.sessions.is_empty())
    }

    /// Whether a message may go before what its mailbox holds: if that is nothing, or if it is
    /// `now` and everything there is held for its priority.
    fn passes_queue(&self, slot: u32, mesh: MeshIx, mail: &Mail) -> bool {
        let mailbox = self.mesh(mesh).and_then(|m| m.mailboxes.get(&mail.target));
        let peer = self.peers.get_slot(slot);
        let holds = peer.is_some_and(|peer| !peer.takes(Priority::Low));
        mailbox.is_none_or(|mailbox| {
            let overtakes = holds && mail.priority == Priority::Now && mailbox.may_overtake();
            mailbox.is_empty()
                || (overtakes
                    && mailbox
                        .find(|other| other.priority == Priority::Now)
                        .is_none())
        })
    }

    /// The one session that gets a message (design.md §8.10): the holder of the session key, or
    /// of the member's online sessions the first in rank.
    pub(crate) fn designated(&self, mesh: MeshIx, mail: &Mail) -> Option<u32> {
        let found = self.mesh(mesh)?;
        if let Some(slot) = self.key_holder(mesh, &mail.target) {
            // The sender itself may have inherited the key.
            let holder = self.peers.get_slot(slot)?;
            return (!self.is_sender(holder, mail)).then_some(slot);
        }
        let member = self.member(*found.by_key.get(&mail.target)?)?;
        let ranks = if mail.sender_member == member.key {
            [Kind::Launched, Kind::ThrowAway, Kind::Member]
        } else {
            [Kind::Member, Kind::Launched, Kind::ThrowAway]
        };
        let candidates = ranks
            .iter()
            .flat_map(|kind| member.online(*kind).iter_back(&self.peers, List::Online));
        candidates.into_iter().find(|slot| {
            self.peers
                .get_slot(*slot)
                .is_some_and(|peer| !self.is_sender(peer, mail))
        })
    }

    /// Whether a message came from that session: it never returns to it.
    fn is_sender(&self, peer: &PeerConn, mail: &Mail) -> bool {
        // A row read back does not tell which of a member's key-less sessions sent it.
        if let Some(presence_id) = &mail.sender_presence {
            return **presence_id == *peer.presence_id();
        }
        let member_key = self.member(peer.member).map(|m| m.key);
        member_key == Some(mail.sender_member) && peer.session_key == mail.sender_session
    }

    fn may_write(&self, slot: u32, mail: &Mail) -> bool {
        self.peers.get_slot(slot).is_some_and(|peer| {
            peer.conn().is_some() && peer.takes(mail.priority) && peer.outbox.has_room()
        })
    }

    fn keeps_up(&self, slot: u32) -> bool {
        self.peers
            .get_slot(slot)
            .is_some_and(|peer| peer.walk().is_none())
    }

    fn write(&mut self, t: &mut Turn<'_>, slot: u32, mail: Mail) {
        let mark = self.stamp();
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let Lease::Online(online) = &mut peer.lease else {
            return;
        };
        t.send(online.conn, mail.frame.clone());
        t.observe(Event::Routed {
            priority: mail.priority,
            recipients: 1,
        });
        peer.outbox.push(&mut online.watermarks, mail, mark);
        if !peer.outbox.has_room() {
            self.fall_behind(slot);
        }
        self.watermark_after_push(t, slot);
    }

    /// Writes the message at that place of a mailbox.
    pub(crate) fn write_mail(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        (mesh, key): (MeshIx, PubKey),
        index: usize,
    ) {
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        let Some(mailbox) = found.mailboxes.get_mut(&key) else {
            return;
        };
        let Some(mail) = mailbox.take(index) else {
            return;
        };
        if mailbox.is_empty() {
            found.mailboxes.remove(&key);
        }
        self.write(t, slot, mail);
    }

    /// Mail of a member may have become that of another of its sessions.
    pub(crate) fn redistribute(&mut self, t: &mut Turn<'_>, member: MemberIx) {
        let waits = self.member(member).is_some_and(|owner| {
            let mesh = self.mesh(owner.mesh);
            mesh.is_some_and(|mesh| mesh.mailboxes.contains_key(&owner.key))
        });
        if waits {
            self.drain_member(t, member);
        }
    }

    /// Gives every online session of a member what it may have now.
    pub(crate) fn drain_member(&mut self, t: &mut Turn<'_>, member: MemberIx) {
        let Some(owner) = self.member(member) else {
            return;
        };
        let mesh = self.mesh(owner.mesh);
        let mail = mesh.is_some_and(|mesh| mesh.mailboxes.contains_key(&owner.key));
        let kinds = [Kind::Member, Kind::Launched, Kind::ThrowAway];
        let slots: Vec<u32> = kinds
            .iter()
            .flat_map(|kind| owner.online(*kind).iter_back(&self.peers, List::Online))
            // One may have waited for mail that turned out not to be there.
            .filter(|slot| mail || !self.keeps_up(*slot))
            .collect();
        for slot in slots {
            self.drain(t, slot);
        }
    }

    /// The keys whose mail a session may take: its own, if it holds it, and its member's.
    pub(crate) fn mail_keys(&self, slot: u32, peer: &PeerConn) -> [Option<PubKey>; 2] {
        let held = |key: &PubKey| self.key_holder(peer.mesh, key) == Some(slot);
        [
            peer.session_key.filter(held),
            self.member(peer.member).map(|m| m.key),
        ]
    }

    /// Where the oldest message is that a session may have now, if there is room for it.
    pub(crate) fn next_mail(&self, slot: u32) -> Option<(Seq, MeshIx, PubKey, usize)> {
        let peer = self.peers.get_slot(slot)?;
        peer.conn()?;
        if !peer.outbox.has_room() {
            mark(Mark::OutboxFull);
        }
        let mesh = self.mesh(peer.mesh)?;
        let mut oldest: Option<(Seq, PubKey, usize)> = None;
        for key in self.mail_keys(slot, peer).into_iter().flatten() {
            let Some(mailbox) = mesh.mailboxes.get(&key) else {
                continue;
            };
            let found = mailbox.find(|mail| {
                peer.takes(mail.priority) && self.designated(peer.mesh, mail) == Some(slot)
            });
            // What is on disk comes before what has been kept in memory behind it.
            let all = peer.takes(Priority::Low);
            let found = found.filter(|(_, seq)| !mailbox.hides_before(*seq, all));
            if let Some((index, seq)) = found
                && oldest.is_none_or(|(other, ..)| seq < other)
            {
                oldest = Some((seq, key, index));
            }
        }
        oldest.map(|(seq, key, index)| (seq, peer.mesh, key, index))
    }

    /// The push of a message. `target` is the key of a direct one. What is said to all or to a
    /// group carries no ids of its sender's making.
    pub(crate) fn push_frame(
        &self,
        mesh: MeshIx,
        row: &MessageRow,
        target: Option<&PubKey>,
    ) -> bytes::Bytes {
        let siblings = target.is_some_and(|key| {
            let owner = self.mesh(mesh).and_then(|m| {
                let by_session = self
                    .key_holder(mesh, key)
                    .and_then(|slot| self.peers.get_slot(slot));
                by_session
                    .map(|peer| peer.member)
                    .or_else(|| m.by_key.get(key).copied())
            });
            owner
                .and_then(|ix| self.member(ix))
                .is_some_and(|m| m.key == row.sender_member_pubkey)
        });
        let topic = self.topic_name(mesh, &row.target_spec);
        let named = target.is_some() || topic.is_some();
        let push = frames::Push {
            message_id: row.id,
            mesh_id: &row.mesh_id,
            sender_pubkey: row
                .sender_session_pubkey
                .unwrap_or(row.sender_member_pubkey),
            sender_member_pubkey: (!siblings).then_some(row.sender_member_pubkey),
            sender_member_id: &row.sender_member_id,
            sender_name: &row.sender_name,
            priority: row.priority,
            nonce: &row.nonce,
            ciphertext: &row.ciphertext,
            created_at: row.created_at,
            reply_to_id: row.reply_to_id.as_deref(),
            subtype: (row.origin == Origin::Reminder).then_some("reminder"),
            topic,
            client_message_id: row.client_message_id.as_deref().filter(|_| named),
            request_fingerprint: row.request_fingerprint.as_deref().filter(|_| named),
        };
        push.encode()
    }

    /// Messages reached their recipient: their rows say so, and there is room for more.
    pub(crate) fn confirmed(&mut self, t: &mut Turn<'_>, slot: u32, mails: &[Mail]) {
        let mesh = self.peers.get_slot(slot).map(|peer| peer.mesh);
        for mail in mails {
            t.persist(StoreOp::MessageDelivered {
                seq: mail.seq,
                at: t.now.wall,
            });
            let mailbox = mesh.and_then(|mesh| self.mailbox_mut(mesh, &mail.target));
            if let Some(mailbox) = mailbox {
                mailbox.confirmed(mail.seq);
            }
        }
        if !mails.is_empty() || !self.keeps_up(slot) {
            self.drain(t, slot);
        }
    }

    /// A lease ended: its unconfirmed messages go back to their mailboxes, for a sibling that is
    /// there or for whoever comes back.
    pub(crate) fn give_back(&mut self, t: &mut Turn<'_>, gone: &PeerConn, mails: Vec<Mail>) {
        let Some(member) = self.member(gone.member) else {
            return;
        };
        let (member_key, abandoned) = (member.key, member.sessions.is_empty());
        let own = gone.session_key;
        let heir = own.and_then(|key| self.key_holder(gone.mesh, &key));
        let Some(mesh) = self.mesh_mut(gone.mesh) else {
            return;
        };
        for mail in mails {
            mark(Mark::GivenBack);
            mesh.mailbox_or(t.now.mono, mail.target, Mailbox::new)
                .put_back(mail);
        }
        // With nobody present to take it, mail needs no memory: the rows are on disk.
        let own = own.filter(|_| heir.is_none());
        let idle = own.into_iter().chain(abandoned.then_some(member_key));
        for key in idle {
            if let Some(mailbox) = mesh.mailboxes.get_mut(&key) {
                mailbox.unload(t.now.mono);
                if mailbox.is_empty() {
                    mesh.mailboxes.remove(&key);
                }
            }
        }
        if let Some(heir) = heir {
            self.drain(t, heir);
        }
        self.redistribute(t, gone.member);
    }
}
