//! Messages: what was promised, to whom, in which order, and whether it came (I4, I5, I6).

use std::rc::Rc;

use holdfast_core::ids::{PubKey, Token};
use holdfast_core::rows::StoreOp;
use serde_json::Value;

use super::model::Lease;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{Said, SendSaid};

/// What the sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    Asked,
    /// That it is safe.
    Acked,
    /// That it was not taken.
    Refused,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Key(PubKey),
    Everyone,
    Group(String),
    Nobody,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) said: Rc<SendSaid>,
    pub(crate) mesh: usize,
    pub(crate) sender: String,
    pub(crate) sender_member: usize,
    pub(crate) sender_key: Option<PubKey>,
    pub(crate) sender_name: String,
    pub(crate) target: Target,
    pub(crate) fate: Fate,
    pub(crate) id: Option<String>,
    /// The session it was written to and that has not confirmed it.
    pub(crate) holder: Option<String>,
    pub(crate) was_written: bool,
    /// Its row says so.
    pub(crate) delivered: bool,
    /// A client has it.
    pub(crate) received: bool,
    /// Somebody entitled said so without having it.
    pub(crate) renounced: bool,
    /// Gone with a process that had not promised it.
    pub(crate) lost: bool,
    /// Somebody was there to take it when it was sent.
    present: bool,
}

impl Target {
    pub(crate) fn of(spec: &str) -> Self {
        match spec {
            "*" | "@all" => Self::Everyone,
            _ if spec.starts_with('#') => Self::Nobody,
            _ => match spec.strip_prefix('@') {
                Some(group) => Self::Group(group.to_owned()),
                None => PubKey::parse(spec).map_or(Self::Nobody, Self::Key),
            },
        }
    }
}

impl Oracle {
    /// A request of an attached session, as it changes the model.
    pub(crate) fn apply_request(&mut self, step: &Step<'_>, at: ConnKey, said: &Said) {
        let Some((id, lease)) = self.attached(at) else {
            return;
        };
        let (id, lease) = (id.clone(), lease.clone());
        match said {
            Said::Send(said) => self.asked(&id, &lease, said),
            Said::Status(status) => self.set_status(&id, *status),
            Said::Ban(ban, name) => self.apply_ban(&lease, *ban, name),
            Said::Join(name) => {
                if let Some(lease) = self
                    .leases
                    .get_mut(&id)
                    .filter(|l| !l.groups.contains(name))
                {
                    lease.groups.push(name.clone());
                }
            }
            Said::Leave(name) => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.groups.retain(|group| group != name);
                }
            }
            Said::Visible(visible) => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.visible = *visible;
                }
            }
            Said::Ack {
                id: message,
                client_id,
            } => self.confirm(&lease, message, client_id, step),
            Said::Hello(_) | Said::Kick(..) | Said::Other => {}
        }
    }

    /// Who may lies about what it has; the message is then nobody's duty any more.
    pub(crate) fn confirm(
        &mut self,
        lease: &Lease,
        id: &Option<String>,
        client_id: &Option<String>,
        _: &Step<'_>,
    ) {
        let member_key = self.plan.town.member_key(lease.who.member);
        for message in &mut self.messages {
            let named = message.id.is_some() && message.id == *id
                || message.said.client_id.is_some() && message.said.client_id == *client_id;
            let own = matches!(message.target, Target::Key(key) if Some(key) == lease.key || key == member_key);
            if named && own && message.mesh == lease.mesh {
                message.renounced = true;
            }
        }
    }

    pub(crate) fn apply_ban(&mut self, caller: &Lease, ban: bool, name: &str) {
        if !self.members[caller.who.member].admin {
            return;
        }
        let meant = (0..self.members.len()).find(|n| {
            self.plan.town.members[*n].mesh == caller.mesh
                && self.members[*n].name == name
                && self.members[*n].revoked != ban
        });
        if let Some(member) = meant.filter(|member| !ban || *member != caller.who.member) {
            self.members[member].revoked = ban;
        }
    }

    pub(crate) fn asked(&mut self, id: &str, lease: &Lease, said: &Rc<SendSaid>) {
        let target = Target::of(&said.target);
        let present = match &target {
            Target::Key(key) => {
                let others = self.leases.iter().filter(|(other, _)| *other != id);
                let by_member = others.into_iter().any(|(_, peer)| {
                    peer.mesh == lease.mesh && self.plan.town.member_key(peer.who.member) == *key
                });
                by_member
                    || self
                        .holder(lease.mesh, *key)
                        .is_some_and(|holder| holder != id)
            }
            _ => false,
        };
        self.messages.push(Message {
            said: Rc::clone(said),
            mesh: lease.mesh,
            sender: id.to_owned(),
            sender_member: lease.who.member,
            sender_key: lease.key,
            sender_name: lease.name.clone(),
            target,
            fate: Fate::Asked,
            id: None,
            holder: None,
            was_written: false,
            delivered: false,
            received: false,
            renounced: false,
            lost: false,
            present,
        });
    }

    /// A client has a message.
    pub(crate) fn received(&mut self, id: &str) {
        if let Some(index) = self.by_id.get(id) {
            self.messages[*index].received = true;
        }
    }

    /// The number at the start of a message's text.
    pub(crate) fn by_text(&self, text: &str) -> Option<usize> {
        let number: usize = text.strip_prefix('m')?.split(' ').next()?.parse().ok()?;
        self.messages
            .iter()
            .rposition(|message| message.said.number == number)
    }

    /// An `ack` was written.
    pub(crate) fn send_answered(
        &mut self,
        step: &Step<'_>,
        at: ConnKey,
        id: &str,
        frame: &Value,
    ) -> Verdict {
        let number = id
            .strip_prefix('s')
            .and_then(|number| number.parse::<usize>().ok());
        let of_it = |message: &Message| Some(message.said.number) == number;
        let Some(index) = self.messages.iter().rposition(of_it) else {
            return Ok(());
        };
        let message = &mut self.messages[index];
        ensure!(message.fate == Fate::Asked, "I5", "{id} was answered twice");
        if frame["queued"] == true {
            message.fate = Fate::Acked;
            self.counts.acked += 1;
            let seq = self
                .by_seq
                .iter()
                .find(|(_, other)| **other == index)
                .map(|(seq, _)| *seq);
            let row = seq.and_then(|seq| step.tables.messages.get(&seq));
            let Some(row) = row else {
                return Err(Violation::new(
                    "I4",
                    format!("{id} was acknowledged before it was on disk"),
                ));
            };
            ensure!(
                frame["messageId"] == *row.id.as_str(),
                "I4",
                "{id} was acknowledged as {}",
                frame["messageId"]
            );
            return Ok(());
        }
        message.fate = Fate::Refused;
        let (message, text) = (message.clone(), frame["error"].as_str().unwrap_or_default());
        let sender = self.leases.get(&message.sender);
        let holds = match text.split([':', ' ']).next().unwrap_or_default() {
            "no" => !message.present,
            "blocked" => sender.is_some_and(|sender| self.blocked(&message, sender)),
            // It may have waited behind other answers.
            "storage" => self.store_refused,
            "rate_limit" => self.plan.swarm.config.send_rate > 0,
            "unsupported" => message.target == Target::Nobody,
            _ => false,
        };
        ensure!(
            holds,
            "I4",
            "{id} on {at:?} was refused for no reason: {text}"
        );
        Ok(())
    }

    pub(crate) fn blocked(&self, message: &Message, sender: &Lease) -> bool {
        let Target::Key(key) = message.target else {
            return false;
        };
        let town = &self.plan.town;
        (0..self.members.len()).any(|member| {
            let holds = town.member_key(member) == key && town.members[member].mesh == message.mesh
                || self
                    .leases
                    .values()
                    .any(|l| l.key == Some(key) && l.who.member == member);
            holds && !self.allows(member, sender, false)
        })
    }

    /// Something is to be made durable.
    pub(crate) fn persisted(
        &mut self,
        step: &Step<'_>,
        op: &StoreOp,
        token: Option<Token>,
    ) -> Verdict {
        match op {
            StoreOp::PresencePut(row) => {
                self.scratch.put.push(row.id.clone());
                if let Some(token) = token {
                    self.waiting.insert(
                        (step.shard, token),
                        super::told::News::Joined(row.id.clone()),
                    );
                }
            }
            StoreOp::PresenceTold { id, .. } => self.scratch.told_rows.push(id.clone()),
            StoreOp::PresenceGrace { id, .. } => self.scratch.marked.push(id.clone()),
            StoreOp::PresenceEnd { id, .. } => self.scratch.closed_rows.push((id.clone(), token)),
            StoreOp::MessageInsert { row, .. } => {
                let Some(index) = self.by_text(&row.ciphertext) else {
                    return Err(Violation::new("I7", "stores a message nobody sent"));
                };
                ensure!(
                    token.is_some(),
                    "I4",
                    "nobody waits for the row of m{}",
                    self.messages[index].said.number
                );
                if let Some(token) = token {
                    self.tokens.insert((step.shard, token), index);
                }
                let id = row.id.to_string();
                self.messages[index].id = Some(id.clone());
                self.by_id.insert(id, index);
                let twice = self.by_seq.insert(row.seq.0, index);
                ensure!(
                    twice.is_none(),
                    "I6",
                    "sequence {} was given twice",
                    row.seq.0
                );
            }
            StoreOp::MessageDelivered { seq, .. } => {
                let Some(index) = self.by_seq.get(&seq.0).copied() else {
                    return Err(Violation::new("I4", "confirms a message nobody sent"));
                };
                let message = &mut self.messages[index];
                let number = message.said.number;
                ensure!(
                    message.received || message.renounced,
                    "I4",
                    "m{number} is called delivered and nobody has it"
                );
                message.delivered = true;
                if let Some(holder) = message.holder.take()
                    && let Some(lease) = self.leases.get_mut(&holder)
                {
                    lease.unconfirmed.retain(|other| *other != index);
                }
            }
            StoreOp::MessageAcked { .. } => self.keys_are_own(step, op)?,
            StoreOp::PeerStatePut(_) | StoreOp::Audit(_) | StoreOp::MemberRevoked { .. } => {}
        }
        Ok(())
    }

    /// After the effects: a message to many reached exactly whom it is for, and who came back was
    /// written everything again.
    pub(crate) fn mail_settled(&mut self, step: &Step<'_>) -> Verdict {
        for (id, left) in &self.scratch.replay {
            // Who came and went in one step got what it could.
            let there = self
                .leases
                .get(id)
                .is_some_and(|lease| lease.conn().is_some());
            let next = left.front().map(|index| self.messages[*index].said.number);
            ensure!(
                left.is_empty() || !there,
                "I4",
                "{id} came back and was not written m{next:?}"
            );
        }
        let Cause::Frame(frame) = step.cause else {
            return Ok(());
        };
        let Said::Send(said) = &frame.said else {
            return Ok(());
        };
        let Some(message) = self
            .messages
            .last()
            .filter(|last| last.said.number == said.number)
        else {
            return Ok(());
        };
        let group = match &message.target {
            Target::Everyone => None,
            Target::Group(group) => Some(group),
            Target::Key(_) | Target::Nobody => return Ok(()),
        };
        let Some(sender) = self.leases.get(&message.sender) else {
            return Ok(());
        };
        let wanted = |lease: &Lease| {
            lease.who.member != sender.who.member
                && lease.visible
                && group.is_none_or(|group| lease.in_group(group))
                && self.allows(lease.who.member, sender, true)
        };
        let peers = self
            .leases
            .values()
            .filter(|lease| lease.mesh == message.mesh && wanted(lease));
        let mut expected: Vec<ConnKey> = peers.filter_map(Lease::conn).collect();
        expected.sort();
        self.scratch.multicast.sort();
        // Not taken: its refusal may still wait behind other answers.
        if message.id.is_none() {
            expected.clear();
        }
        let got = &self.scratch.multicast;
        ensure!(
            *got == expected,
            "I7",
            "m{} to {}: got by {got:?}, for {expected:?}",
            said.number,
            said.target
        );
        Ok(())
    }
}
