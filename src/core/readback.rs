//! Mail that is read back from disk: asked for when a mailbox's memory part has drained, put in
//! its place when the answer comes, and asked for again if the disk fails.

use crate::chain::List;
use crate::ids::{PubKey, Seq, Token};
use crate::limits::{MAILBOX_LOAD_ROWS, MAILBOX_RETRY};
use crate::marks::{Mark, mark};
use crate::outbox::Mail;
use crate::peer::{MemberIx, MeshIx};
use crate::rows::{MessageRow, StoreAnswer, StoreFailure, StoreQuery};
use crate::shard::{Shard, Timer, Turn, Waiting};

impl Shard {
    /// Asks the store for more, where a session's mail goes on on disk.
    pub(crate) fn read_on(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        if peer.conn().is_none() || !peer.outbox.has_room() {
            return;
        }
        let mesh = peer.mesh;
        for key in self.mail_keys(slot, peer).into_iter().flatten() {
            self.unclog(mesh, &key);
            let token = self.next_token();
            let Some(found) = self.mesh_mut(mesh) else {
                return;
            };
            let Some(after) = found
                .mailboxes
                .get_mut(&key)
                .and_then(|m| m.begin_load(token))
            else {
                continue;
            };
            mark(Mark::MailboxLoad);
            let mesh_id = found.id.to_string();
            let limit = MAILBOX_LOAD_ROWS;
            let query = StoreQuery::Mailbox {
                mesh_id,
                target: key,
                after,
                limit,
            };
            self.query(t, token, query, Waiting::Mailbox(mesh, key));
            self.siblings_wait(slot, &key);
        }
        // Also if a sibling asked.
        if self.hidden_before(slot, Seq(u64::MAX)) {
            self.fall_behind(slot);
        }
    }

    /// What is read for the key of a session's member may be for a sibling that has kept up: nothing
    /// overtakes it from here on.
    fn siblings_wait(&mut self, slot: u32, key: &PubKey) {
        let peer = self.peers.get_slot(slot);
        let member = peer.and_then(|peer| self.member(peer.member));
        let Some(member) = member.filter(|member| member.key == *key) else {
            return;
        };
        let siblings = member.sessions.iter(&self.peers, List::Member);
        for sibling in siblings.collect::<Vec<u32>>() {
            self.fall_behind(sibling);
        }
    }

    /// Mail that nobody present may have, such as what the only session of a member sent to its own
    /// member, must not keep back what is behind it on disk.
    fn unclog(&mut self, mesh: MeshIx, key: &PubKey) {
        let mailbox = self.mesh(mesh).and_then(|m| m.mailboxes.get(key));
        let useless = mailbox.is_some_and(|mailbox| {
            mailbox.is_clogged()
                && mailbox
                    .iter()
                    .all(|mail| self.designated(mesh, mail).is_none())
        });
        if !useless {
            return;
        }
        if let Some(mailbox) = self.mailbox_mut(mesh, key) {
            mailbox.skip();
        }
    }

    /// A session attached: what its siblings could not have it perhaps may.
    pub(crate) fn rewind_mail(&mut self, t: &Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let mesh = peer.mesh;
        for key in self.mail_keys(slot, peer).into_iter().flatten() {
            if let Some(mailbox) = self.mailbox_mut(mesh, &key) {
                mailbox.rewind(t.now.mono);
            }
        }
    }

    /// The rows of a mailbox came.
    pub(crate) fn mailbox_answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        (mesh, key): (MeshIx, PubKey),
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let holder = self.key_holder(mesh, &key);
        let member = self.mesh(mesh).and_then(|m| m.by_key.get(&key).copied());
        let rows = match result {
            Ok(StoreAnswer::Mailbox { rows, more }) => Some((rows, more)),
            Ok(StoreAnswer::Message(_) | StoreAnswer::Records(_)) | Err(_) => None,
        };
        let loaded = rows.map(|(rows, more)| {
            let last = rows.last().map(|row| row.seq);
            let fresh = rows
                .into_iter()
                .filter(|row| !self.in_flight(holder, member, row.seq));
            (
                fresh
                    .filter_map(|row| self.mail_of_row(mesh, row))
                    .collect(),
                last,
                more,
            )
        });
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        let Some(mailbox) = found.mailboxes.get_mut(&key).filter(|m| m.awaits(token)) else {
            return;
        };
        match loaded {
            Some((mails, last, more)) => {
                mark(Mark::MailboxLoaded);
                mailbox.loaded(mails, last, more);
            }
            None => {
                mark(Mark::MailboxLoadFailed);
                mailbox.load_failed();
                return self.read_later(t, mesh, key);
            }
        }
        if mailbox.is_empty() {
            found.mailboxes.remove(&key);
        }
        self.drain_key(t, mesh, &key);
    }

    /// The disk did not answer: it is asked again in a while, once for all mailboxes of the mesh.
    fn read_later(&mut self, t: &Turn<'_>, mesh: MeshIx, key: PubKey) {
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        found.unread.push(key);
        if found.unread.len() == 1 {
            let due = t.now.mono.after(MAILBOX_RETRY);
            self.wheel.insert(due, Timer::Mailboxes(mesh));
        }
    }

    /// Asks again for the mail that the disk did not give.
    pub(crate) fn mailboxes_due(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        let unread = std::mem::take(&mut found.unread);
        for key in unread {
            if let Some(mailbox) = self.mailbox_mut(mesh, &key) {
                mailbox.rested();
            }
            self.drain_key(t, mesh, &key);
        }
    }

    /// Gives whoever has that key what it may have now.
    fn drain_key(&mut self, t: &mut Turn<'_>, mesh: MeshIx, key: &PubKey) {
        let holder = self.key_holder(mesh, key);
        let member = self.mesh(mesh).and_then(|m| m.by_key.get(key).copied());
        if let Some(slot) = holder {
            self.drain(t, slot);
        }
        if let Some(member) = member {
            self.drain_member(t, member);
        }
    }

    /// Whether a row read from disk is on its way to a socket already.
    fn in_flight(&self, holder: Option<u32>, member: Option<MemberIx>, seq: Seq) -> bool {
        let siblings = member
            .and_then(|ix| self.member(ix))
            .map(|m| m.sessions.iter(&self.peers, List::Member));
        let mut slots = holder.into_iter().chain(siblings.into_iter().flatten());
        slots.any(|slot| {
            self.peers
                .get_slot(slot)
                .is_some_and(|peer| peer.outbox.holds(seq))
        })
    }

    fn mail_of_row(&self, mesh: MeshIx, row: MessageRow) -> Option<Mail> {
        let target = PubKey::parse(&row.target_spec)?;
        let frame = self.push_frame(mesh, &row, Some(&target));
        Some(Mail::of_row(&row, target, frame))
    }
}
