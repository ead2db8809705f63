//! A send made again: the same answer as the first time, and no second message (design.md §5).

use crate::event::Event;
use crate::ids::{PeerHandle, Token};
use crate::marks::{Mark, mark};
use crate::peer::MemberIx;
use crate::rows::{MessageRow, StoreAnswer, StoreFailure, StoreQuery};
use crate::shard::{Shard, Turn, Waiting};
use crate::verbs::send::{accepted, refusal};

/// A send that may be a repeat, while the disk is asked: whose, its request's id, its hash.
pub(crate) type Doubted = (PeerHandle, Box<str>, u64);

impl Shard {
    /// What a send is known by: its sender's member, and what the sender calls it.
    pub(crate) fn send_hash(&self, member: MemberIx, client_message_id: &str) -> u64 {
        std::hash::BuildHasher::hash_one(&self.hasher, (member, client_message_id))
    }

    /// Notes a send by its hash, if its sender gave it a name; true if it may have been made
    /// before, and the disk is asked for the answer.
    pub(crate) fn may_repeat(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        (id, row): (&str, &MessageRow),
    ) -> Result<Option<u64>, ()> {
        let member = self.peers.get_slot(slot).map(|peer| peer.member);
        let (Some(member), Some(name)) = (member, &row.client_message_id) else {
            return Ok(None);
        };
        let hash = self.send_hash(member, name);
        if !self.repeats.note(hash) {
            return Ok(Some(hash));
        }
        mark(Mark::SendRepeated);
        let token = self.next_token();
        let Some(asker) = self.wait_in_line(t, slot, token) else {
            return Err(());
        };
        let query = StoreQuery::Sent {
            mesh_id: row.mesh_id.clone(),
            sender_member_id: row.sender_member_id.clone(),
            client_message_id: name.clone(),
        };
        let doubted = (asker, id.into(), hash);
        self.query(t, token, query, Waiting::Repeat(doubted));
        Err(())
    }

    /// The first answer came from the disk, or there was none.
    pub(crate) fn repeat_answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        (asker, id, hash): Doubted,
        result: Result<StoreAnswer, StoreFailure>,
    ) {
        let frame = match result {
            Ok(StoreAnswer::Message(Some(row))) => {
                t.observe(Event::SendRepeated);
                accepted(&id, &row)
            }
            Ok(
                StoreAnswer::Message(None) | StoreAnswer::Mailbox { .. } | StoreAnswer::Records(_),
            ) => {
                // The first attempt was refused by the disk, or is older than what is kept.
                self.repeats.forget(hash);
                t.observe(Event::SendRefused { reason: "storage" });
                refusal(&id, "the first attempt was not accepted, send it again")
            }
            Err(failure) => {
                t.observe(Event::SendRefused { reason: "storage" });
                refusal(&id, &format!("{failure}: send it again"))
            }
        };
        self.fill_reply(t, asker, token, frame);
    }
}
