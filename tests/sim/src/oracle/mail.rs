//! Messages: what was promised, to whom, in which order, and whether it came (I4, I5, I6).

use std::rc::Rc;

use holdfast_core::ids::{Position, PubKey};
use serde_json::Value;

use super::model::Lease;
use super::{ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{McpAsked, Said, ScheduleAsked, SendSaid};

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
    /// The session; of what was scheduled none is.
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
    /// Its place in the order of the broker, once its row is given to the store.
    pub(crate) seq: Option<u64>,
    /// Its place in the log of its mesh, as its row has it.
    pub(crate) position: Option<Position>,
    /// Bytes of its text.
    pub(crate) size: usize,
    /// Somebody was there to take it when it was sent.
    pub(super) present: bool,
    /// Nobody was, and it waits for who was known: for sure, perhaps.
    pub(super) deferred: (bool, bool),
    /// How often it was sent once more.
    pub(super) repeats: usize,
}

impl Message {
    /// One that is sent, by nobody yet.
    pub(crate) fn new(said: Rc<SendSaid>, target: Target) -> Self {
        Self {
            said,
            target,
            mesh: 0,
            sender: String::new(),
            sender_member: 0,
            sender_key: None,
            sender_name: String::new(),
            fate: Fate::Asked,
            id: None,
            holder: None,
            was_written: false,
            delivered: false,
            received: false,
            renounced: false,
            lost: false,
            seq: None,
            position: None,
            size: 0,
            present: false,
            deferred: (false, false),
            repeats: 0,
        }
    }
}

/// A mailbox that is being read from disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) mesh: usize,
    pub(crate) key: PubKey,
    /// The disk failed: it is asked again by then.
    pub(crate) until: Option<u64>,
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
            } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.acks = true;
                }
                self.confirm(&lease, message, client_id, step);
            }
            Said::Set(..)
            | Said::GetState(..)
            | Said::CreateStream(_)
            | Said::Subscribe(..)
            | Said::Publish(..)
            | Said::Clock(_) => self.share(&id, lease.mesh, said),
            Said::Schedule(ScheduleAsked::Cancel(which), _) => {
                self.schedule_cancelled(lease.who.member, which);
            }
            Said::Mcp(McpAsked::Call(server, number), req) => {
                self.called(at, (&id, lease.mesh), (*server, *number, req));
            }
            Said::Mcp(McpAsked::Respond(call, result), _) => {
                self.responded(&id, lease.mesh, (call, *result));
            }
            Said::Unwatch(watch, _) => self.unwatched(&id, watch),
            Said::Hello(_)
            | Said::Kick(..)
            | Said::Goodbye
            | Said::Watch(..)
            | Said::Watches(_)
            | Said::Schedule(..)
            | Said::Mcp(..)
            | Said::Other => {}
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
        let same = |message: &Message| message.said.number == said.number;
        if let Some(message) = self.messages.iter_mut().rfind(|message| same(message)) {
            let taken = message.id.is_some() && !message.lost;
            if taken && message.fate != Fate::Refused {
                message.repeats += 1;
                return;
            }
            // What was not taken is sent anew, and is another message.
        }
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
        let deferred = match &target {
            Target::Key(key) if !present => self.awaited(lease, *key),
            _ => (false, false),
        };
        self.messages.push(Message {
            mesh: lease.mesh,
            sender: id.to_owned(),
            sender_member: lease.who.member,
            sender_key: lease.key,
            sender_name: lease.name.clone(),
            present,
            deferred,
            ..Message::new(Rc::clone(said), target)
        });
    }

    /// Whether mail for a key that nobody present has is kept for its return: for sure, perhaps.
    /// The sender's own keys are none to wait for.
    fn awaited(&self, sender: &Lease, key: PubKey) -> (bool, bool) {
        if sender.key == Some(key) {
            return (false, false);
        }
        let town = &self.plan.town;
        let by_member = (0..self.members.len()).find(|member| {
            town.members[*member].mesh == sender.mesh
                && town.member_key(*member) == key
                && *member != sender.who.member
        });
        let known = self.known.get(&(sender.mesh, key)).copied();
        match by_member.map(|member| (member, true)).or(known) {
            Some((owner, sure)) => {
                let there = !self.members[owner].revoked;
                (sure && there, there)
            }
            None => (false, false),
        }
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
        let named = frame["messageId"]
            .as_str()
            .and_then(|id| self.by_id.get(id));
        let of_it = |message: &Message| Some(message.said.number) == number;
        let last = self.messages.iter().rposition(of_it);
        let Some(index) = named.copied().or(last) else {
            return Ok(());
        };
        let sent = self.messages.iter().filter(|message| of_it(message));
        let attempts: usize = sent.map(|message| 1 + message.repeats).sum();
        let message = &mut self.messages[index];
        let again = message.fate != Fate::Asked;
        ensure!(!again || attempts > 1, "I5", "{id} was answered twice");
        if attempts > 1 && frame["queued"] != true {
            // Which of the attempts was refused is not told.
            return Ok(());
        }
        if frame["queued"] == true {
            message.fate = Fate::Acked;
            self.counts.acked += u64::from(!again);
            let seq = self.messages[index].seq;
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
            let message = &self.messages[index];
            let deferred = frame["deferred"] == true;
            ensure!(
                !deferred || (!message.present && message.deferred.1),
                "I4",
                "{id} was deferred for no reason"
            );
            let direct = matches!(message.target, Target::Key(_));
            ensure!(
                deferred || message.present || !direct,
                "I4",
                "{id} is queued for nobody"
            );
            self.counts.deferred += u64::from(deferred);
            return Ok(());
        }
        let stored = message
            .seq
            .is_some_and(|seq| step.tables.messages.contains_key(&seq));
        if !stored {
            message.fate = Fate::Refused;
        }
        let (message, text) = (message.clone(), frame["error"].as_str().unwrap_or_default());
        let sender = self.leases.get(&message.sender);
        let holds = match text.split([':', ' ']).next().unwrap_or_default() {
            "no" => !message.present && !message.deferred.0,
            "blocked" => sender.is_some_and(|sender| self.blocked(&message, sender)),
            // It may have waited behind other answers.
            "storage" => self.store_refused,
            "rate_limit" => self.plan.swarm.config.send_rate > 0,
            // Its first attempt was.
            "the" => !stored,
            "topic_not_found" => message.target == Target::Nobody,
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
        let absent = self
            .known
            .get(&(message.mesh, key))
            .map(|(owner, _)| *owner);
        (0..self.members.len()).any(|member| {
            let holds = absent == Some(member)
                || town.member_key(member) == key && town.members[member].mesh == message.mesh
                || self
                    .leases
                    .values()
                    .any(|l| l.key == Some(key) && l.who.member == member);
            holds && !self.allows(member, sender, false)
        })
    }
}
