//! Messages on their way out: to whom, in which order, and never twice (I5, I6, I7).

use std::collections::BTreeMap;

use holdfast_core::ids::PubKey;

use super::conns::TICK;
use super::ledger::{News, What};
use super::mail::{Fate, Message, Target};
use super::model::Lease;
use super::{ConnKey, Oracle, Verdict, Violation, ensure};
use holdfast_core::rows::{Priority, Status};
use serde_json::Value;

impl Oracle {
    /// A message was written to a session.
    pub(crate) fn pushed(&mut self, at: ConnKey, frame: &Value, bytes: usize) -> Verdict {
        let is = self.conns.get(&at).map(|conn| conn.is);
        ensure!(
            is == Some(super::conns::Is::Attached),
            "I5",
            "{at:?} gets a message before its hello_ack"
        );
        self.same_mesh(at, frame)?;
        let id = frame["messageId"].as_str().unwrap_or_default();
        let text = frame["ciphertext"].as_str().unwrap_or_default();
        let known = self.by_id.get(id).copied();
        let Some(index) = known.or_else(|| self.by_text(text)) else {
            return Err(Violation::new(
                "I7",
                format!("a message nobody sent: {frame}"),
            ));
        };
        let message = self.messages[index].clone();
        let number = message.said.number;
        let known = message.id.as_deref().unwrap_or(id);
        ensure!(
            known == id,
            "I6",
            "m{number} is {known} and was sent again as {id}"
        );
        self.messages[index].id = Some(id.to_owned());
        self.by_id.insert(id.to_owned(), index);
        let sender = message
            .sender_key
            .unwrap_or_else(|| self.plan.town.member_key(message.sender_member));
        ensure!(
            frame["senderPubkey"] == *sender.to_string(),
            "I7",
            "m{number} bears {}",
            frame["senderPubkey"]
        );
        let member_id = &self.plan.town.members[message.sender_member].id;
        ensure!(
            frame["senderMemberId"] == **member_id,
            "I7",
            "m{number} bears {}",
            frame["senderMemberId"]
        );
        ensure!(
            frame["senderName"] == *message.sender_name,
            "I7",
            "m{number} bears {}",
            frame["senderName"]
        );
        let again = self
            .conns
            .get_mut(&at)
            .is_some_and(|conn| !conn.written.insert(index));
        ensure!(
            !again,
            "I6",
            "m{number} was written twice to {at:?}, which is open"
        );
        match &message.target {
            Target::Key(key) => self.pushed_direct(at, index, *key),
            _ => {
                self.scratch.multicast.push(at);
                let fits = |_: &Self, news: &News| news.what == What::Message(index);
                self.news_written(at, (id, bytes), &fits, &format!("m{number}"))
            }
        }
    }

    pub(crate) fn pushed_direct(&mut self, at: ConnKey, index: usize, target: PubKey) -> Verdict {
        let message = self.messages[index].clone();
        let number = message.said.number;
        let Some((id, lease)) = self.attached(at) else {
            return Ok(());
        };
        let (id, lease) = (id.clone(), lease.clone());
        let own =
            lease.key == Some(target) || self.plan.town.member_key(lease.who.member) == target;
        ensure!(own, "I7", "m{number} for {target} went to {id}");
        ensure!(
            message.sender != id,
            "I7",
            "m{number} returned to its sender {id}"
        );
        ensure!(
            !message.delivered,
            "I6",
            "m{number} is confirmed and was written again to {id}"
        );
        if let Some(news) = self.next_due(&id) {
            let later = |news: &News| {
                let seqs = news.seq.zip(message.seq);
                seqs.is_some_and(|(seq, own)| seq > own)
            };
            // Something that may come again, and comes later, keeps back what is behind it.
            let waits = later(news) || self.perhaps_due(&id).any(later);
            ensure!(
                waits,
                "I5",
                "{id} was written m{number} before {}",
                self.name_of(news)
            );
        }
        let next = self
            .leases
            .get_mut(&id)
            .and_then(|lease| lease.rewrite.pop_front());
        if let Some(next) = next {
            let wanted = self.messages[next].said.number;
            ensure!(
                next == index,
                "I5",
                "{id} came back and got m{number} before m{wanted}"
            );
            self.counts.redelivered += 1;
            return Ok(());
        }
        ensure!(
            message.fate != Fate::Refused || message.was_written,
            "I4",
            "m{number} was refused and written to {id}"
        );
        let other = message
            .holder
            .as_ref()
            .filter(|holder| self.leases.contains_key(*holder));
        ensure!(
            other.is_none(),
            "I6",
            "m{number} went to {id} while {other:?} has it unconfirmed"
        );
        let held = message.said.priority != Priority::Now && self.holds(&lease);
        ensure!(
            !held,
            "I5",
            "m{number} was written to {id}, which is {:?}",
            lease.status
        );
        self.is_designated(&id, &message, target)?;
        self.in_order(&id, &lease, index, target)?;
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.unconfirmed.push(index);
        }
        let message = &mut self.messages[index];
        message.holder = Some(id);
        message.was_written = true;
        Ok(())
    }

    /// Whether it cannot be told which session sent a message to its own key or its member's: a row read
    /// back names keys only.
    pub(crate) fn vague(&self, message: &Message, target: PubKey) -> bool {
        let member_key = self.plan.town.member_key(message.sender_member);
        let own = member_key == target || message.sender_key == Some(target);
        // What was scheduled is of no session.
        let own = own && !message.sender.is_empty();
        let twin = |(id, lease): (&String, &Lease)| {
            *id != message.sender && lease.key == message.sender_key
        };
        own && (message.sender_key.is_none() || self.leases.iter().any(twin))
    }

    pub(crate) fn is_designated(&self, id: &String, message: &Message, target: PubKey) -> Verdict {
        let (mesh, member) = (message.mesh, message.sender_member);
        // A row read back does not tell which of a member's key-less sessions sent it.
        let vague = self.vague(message, target);
        if !vague {
            let meant = self.designated(mesh, target, &message.sender, member);
            ensure!(
                meant == Some(id),
                "I7",
                "m{} went to {id}, it was for {meant:?}",
                message.said.number
            );
        }
        Ok(())
    }

    /// Whether a session's status holds what is not urgent, for sure.
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        match (lease.status, lease.working_until) {
            (Status::Idle, _) => false,
            (Status::Working, Some(until)) => self.mono() < until,
            (Status::Working, None) | (Status::Dnd, _) => true,
        }
    }

    /// Whether it may be that the status holds what is not urgent.
    pub(crate) fn may_hold(&self, lease: &Lease) -> bool {
        lease.status != Status::Idle
            && lease
                .working_until
                .is_none_or(|until| self.mono() < until + TICK + 5_000)
    }

    /// No earlier message of that sender to that key is still to be written to that session.
    pub(crate) fn in_order(
        &self,
        id: &String,
        lease: &Lease,
        index: usize,
        target: PubKey,
    ) -> Verdict {
        let this = &self.messages[index];
        // A row read back does not tell which of a member's key-less sessions sent it.
        if self.vague(this, target) {
            return Ok(());
        }
        for earlier in &self.messages[..index] {
            let same = earlier.sender == this.sender
                && earlier.sender_member == this.sender_member
                && earlier.target == Target::Key(target);
            let open = earlier.id.is_some()
                && earlier.fate != Fate::Refused
                && !earlier.delivered
                && !earlier.lost
                && !earlier.renounced;
            if !same || !open || earlier.holder.as_ref() == Some(id) {
                continue;
            }
            let elsewhere = earlier
                .holder
                .as_ref()
                .is_some_and(|holder| self.leases.contains_key(holder));
            let held = earlier.said.priority != Priority::Now && self.may_hold(lease);
            ensure!(
                elsewhere || held,
                "I5",
                "m{} was written to {id} before m{} of the same sender",
                this.said.number,
                earlier.said.number
            );
        }
        Ok(())
    }

    /// Before a message to many comes what was sent to the session itself before it.
    pub(crate) fn mail_before(&self, at: ConnKey, id: &str, seq: Option<u64>) -> Verdict {
        let (Some(seq), Some(lease)) = (seq, self.leases.get(id)) else {
            return Ok(());
        };
        // What was written once comes in that order again, and all else behind it: mail that was
        // held then stays behind what overtook it.
        let again = lease.rewrite.front().map(|index| &self.messages[*index]);
        if again.is_some_and(|again| again.seq > Some(seq)) {
            return Ok(());
        }
        let written = |index: &usize| {
            let conn = self.conns.get(&at);
            conn.is_some_and(|conn| conn.written.contains(index))
        };
        let name = id.to_owned();
        // Held mail that fills the memory keeps what is urgent on disk, and a sibling's what is
        // behind it.
        let stuck = self.may_hold(lease) && self.open_mail(id, lease).count() >= 128;
        let mut others: BTreeMap<PubKey, usize> = BTreeMap::new();
        for (earlier, index) in self.by_seq.range(..seq) {
            let message = &self.messages[*index];
            let Target::Key(key) = message.target else {
                continue;
            };
            let open = message.fate != Fate::Refused
                && !(message.delivered || message.lost || message.renounced);
            if !open || message.mesh != lease.mesh || written(index) {
                continue;
            }
            let again = lease.rewrite.contains(index);
            let held = stuck || message.said.priority != Priority::Now && self.may_hold(lease);
            let meant = !self.vague(message, key)
                && self.designated(message.mesh, key, &message.sender, message.sender_member)
                    == Some(&name)
                && message
                    .holder
                    .as_ref()
                    .is_none_or(|holder| *holder == name || !self.leases.contains_key(holder));
            let ahead = others.entry(key).or_default();
            if !(again || meant && !held) {
                *ahead += 1;
                continue;
            }
            ensure!(
                !again && *ahead >= 128,
                "I5",
                "{id} was written what has place {seq} before m{} at {earlier}",
                message.said.number
            );
        }
        Ok(())
    }
}
