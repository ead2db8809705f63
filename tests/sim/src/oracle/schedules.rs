//! Scheduled messages: there until they are sent or cancelled, whoever of their member is, sent
//! when they are due by the wall clock, and each in the transaction that notes it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use holdfast_core::effect::Effect;
use holdfast_core::ids::Token;
use holdfast_core::limits::SCHEDULES_WATCHED;
use holdfast_core::marks::Inspect;
use holdfast_core::rows::{MessageRow, Priority, ScheduleRow, StoreFailure, StoreOp};
use holdfast_core::time::Wall;
use serde_json::Value;

use super::conns::TICK;
use super::mail::{Fate, Message, Target};
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::disk::Tables;
use crate::said::{Expect, ScheduleAsked, SendSaid};

/// Milliseconds between two times that the cron expression of the clients here names.
const EVERY: i64 = 60_000;

/// One scheduled message.
#[derive(Clone, Debug)]
struct Schedule {
    row: ScheduleRow,
    member: usize,
    /// Its row is durable, so that it falls due.
    durable: bool,
    /// Its maker was told so.
    answered: bool,
    /// Since when it is seen to be due, by the monotonic clock.
    due: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedules {
    /// In the order made.
    all: Vec<Schedule>,
    /// Those whose rows are on their way to the disk.
    puts: BTreeMap<(u16, Token), String>,
    /// Those that were sent for the last time, with their times: each has a message.
    sent: BTreeMap<String, Wall>,
    /// Those that were due and had nobody to go to: their rows go with the next commit.
    refused: BTreeSet<String>,
    /// When something fell due last.
    last: Option<u64>,
}

impl Schedules {
    /// The id of one that somebody was told.
    pub(crate) fn some(&self, chance: u64) -> Option<String> {
        let told = || self.all.iter().filter(|schedule| schedule.answered);
        let count = u64::try_from(told().count()).unwrap_or(0).max(1);
        let index = usize::try_from(chance % count).unwrap_or(0);
        told().nth(index).map(|schedule| schedule.row.id.clone())
    }

    fn find(&mut self, id: &str) -> Option<&mut Schedule> {
        self.all.iter_mut().find(|schedule| schedule.row.id == id)
    }

    /// Whose each is, by its id.
    fn owner(&self, id: &str) -> Option<usize> {
        let found = self.all.iter().find(|schedule| schedule.row.id == id);
        found.map(|schedule| schedule.member)
    }

    fn of(&self, member: usize) -> Vec<String> {
        let own = self.all.iter().filter(|of| of.member == member);
        own.map(|schedule| schedule.row.id.clone()).collect()
    }

    fn remove(&mut self, id: &str) {
        self.all.retain(|schedule| schedule.row.id != id);
    }
}

impl Oracle {
    /// Schedules that are first given to the store in this step, and messages that fall due.
    pub(crate) fn scheduled(&mut self, step: &Step<'_>) -> Verdict {
        for effect in step.effects {
            let Effect::Persist { op, token } = effect else {
                continue;
            };
            match op {
                StoreOp::SchedulePut(row) => self.schedule_made(step, row, *token)?,
                StoreOp::ScheduleFired { id, sent, next } => {
                    self.schedule_fired(step, (id, *next), sent.as_deref())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn schedule_made(
        &mut self,
        step: &Step<'_>,
        row: &ScheduleRow,
        token: Option<Token>,
    ) -> Verdict {
        let speaker = self.scratch.speaker.as_ref();
        let lease = speaker.and_then(|id| self.leases.get(id));
        let (Some(token), Some(lease)) = (token, lease) else {
            let text = format!("{} is scheduled and nobody asked for it", row.id);
            return Err(Violation::new("I10", text));
        };
        let own = &self.plan.town.members[lease.who.member].id;
        ensure!(
            row.member_id == *own,
            "I7",
            "what {own} schedules is of {}",
            row.member_id
        );
        self.schedules.all.push(Schedule {
            row: row.clone(),
            member: lease.who.member,
            durable: false,
            answered: false,
            due: None,
        });
        let at = (step.shard, token);
        self.schedules.puts.insert(at, row.id.clone());
        Ok(())
    }

    /// A row is durable, or was refused and is none.
    pub(crate) fn schedule_stored(&mut self, at: (u16, Token), result: &Result<(), StoreFailure>) {
        let Some(id) = self.schedules.puts.remove(&at) else {
            return;
        };
        if result.is_err() {
            self.schedules.remove(&id);
        } else if let Some(schedule) = self.schedules.find(&id) {
            schedule.durable = true;
        }
    }

    fn schedule_fired(
        &mut self,
        step: &Step<'_>,
        (id, next): (&str, Option<Wall>),
        sent: Option<&MessageRow>,
    ) -> Verdict {
        let wall = self.now.wall;
        let Some(schedule) = self.schedules.find(id) else {
            let text = format!("{id} is sent and not scheduled");
            return Err(Violation::new("I6", text));
        };
        let due = schedule.row.deliver_at;
        ensure!(
            schedule.durable && due <= wall && matches!(step.cause, Cause::Time),
            "I2",
            "{id} is due at {due}, and is sent at {wall} by {}: {schedule:?}",
            step.cause.tag()
        );
        let repeats = schedule.row.cron.is_some();
        let later = next.is_some_and(|next| next > wall && next.0 % EVERY == 0);
        ensure!(
            later == repeats && (repeats || next.is_none()),
            "I2",
            "{id} is next due at {next:?}, it is {wall}"
        );
        let was = schedule.clone();
        self.schedules.last = Some(self.now.mono.0);
        let Some(schedule) = self.schedules.find(id) else {
            return Ok(());
        };
        match next {
            Some(next) => {
                schedule.row.deliver_at = next;
                schedule.row.fired_count += 1;
                schedule.due = None;
            }
            None => {
                self.schedules.remove(id);
                if sent.is_some() {
                    self.schedules.sent.insert(id.to_owned(), due);
                } else {
                    self.schedules.refused.insert(id.to_owned());
                }
            }
        }
        // Whoever hears from its maker must have heard of it first.
        self.scratch.authors.push(was.row.presence_id.clone());
        match sent {
            Some(row) => self.fired(&was, row),
            None => self.refused_when_due(&was),
        }
    }

    /// A message falls due: from here on it is one like others, of a sender that is not there.
    fn fired(&mut self, schedule: &Schedule, row: &MessageRow) -> Verdict {
        let was = &schedule.row;
        let text = BASE64_STANDARD.encode(&was.message);
        let same = row.ciphertext == text
            && row.sender_member_id == was.member_id
            && row.sender_name == was.sender_name
            && row.target_spec == was.target_spec
            && row.mesh_id == was.mesh_id;
        ensure!(same, "I7", "{was:?} is sent as {row:?}");
        let number = was.message.trim_start_matches('m').parse();
        let said = SendSaid {
            number: number.unwrap_or_default(),
            target: row.target_spec.clone(),
            priority: Priority::Now,
            client_id: row.client_message_id.clone(),
        };
        let index = self.messages.len();
        self.messages.push(Message {
            id: Some(row.id.to_string()),
            seq: Some(row.seq.0),
            position: row.position,
            size: row.ciphertext.len(),
            sender_member: schedule.member,
            sender_key: row.sender_session_pubkey,
            sender_name: row.sender_name.clone(),
            mesh: self.plan.town.members[schedule.member].mesh,
            ..Message::new(Rc::new(said), Target::of(&row.target_spec))
        });
        self.by_id.insert(row.id.to_string(), index);
        let twice = self.by_seq.insert(row.seq.0, index);
        ensure!(
            twice.is_none(),
            "I6",
            "sequence {} was given twice",
            row.seq.0
        );
        Ok(())
    }

    /// What was due had nobody to go to.
    fn refused_when_due(&self, schedule: &Schedule) -> Verdict {
        let Target::Key(key) = Target::of(&schedule.row.target_spec) else {
            return Ok(());
        };
        let (town, member) = (&self.plan.town, schedule.member);
        let mesh = town.members[member].mesh;
        let has = |lease: &&super::model::Lease| {
            let own = town.member_key(lease.who.member) == key;
            lease.mesh == mesh && (own || lease.key == Some(key))
        };
        let mut holders = self.leases.values().filter(has).peekable();
        let there = holders.peek().is_some() && !self.members[member].revoked;
        let willing = holders.all(|lease| {
            lease.who.member == member || self.lets(lease.who.member, (member, None), false)
        });
        ensure!(
            !(there && willing),
            "I4",
            "{} was due and not sent, though its recipient is there",
            schedule.row.id
        );
        Ok(())
    }

    /// The answer to a request about schedules.
    pub(crate) fn schedule_expected(
        &self,
        member: usize,
        asked: &ScheduleAsked,
        req: &str,
    ) -> Expect {
        let req = req.to_owned();
        match asked {
            ScheduleAsked::Make => Expect::Schedule(req),
            ScheduleAsked::List => Expect::Schedules(self.schedules.of(member), req),
            ScheduleAsked::Cancel(id) => {
                let town = &self.plan.town;
                let mesh = |member: usize| town.members[member].mesh;
                let owner = self.schedules.owner(id);
                match owner.filter(|owner| mesh(*owner) == mesh(member)) {
                    Some(owner) if owner != member => Expect::Refused("forbidden", req),
                    found => Expect::Cancelled(id.clone(), found.is_some(), req),
                }
            }
        }
    }

    /// A member cancels what it has scheduled.
    pub(crate) fn schedule_cancelled(&mut self, member: usize, id: &str) {
        if self.schedules.owner(id) == Some(member) {
            self.schedules.remove(id);
        }
    }

    /// `schedule` was answered.
    pub(crate) fn schedule_answered(&mut self, step: &Step<'_>, frame: &Value) -> Verdict {
        if frame["type"] == "error" {
            ensure!(
                frame["code"] == "storage" && self.store_refused,
                "I4",
                "nothing was scheduled for no reason: {frame}"
            );
            return Ok(());
        }
        let id = frame["scheduledId"].as_str().unwrap_or_default();
        let stored = step.tables.schedules.iter().any(|row| row.id == id);
        match self.schedules.find(id) {
            Some(schedule) => {
                schedule.answered = true;
                ensure!(stored, "I4", "{id} was scheduled before it was on disk");
            }
            // Its answer waited behind others, and it fell due meanwhile.
            None => ensure!(
                self.schedules.sent.contains_key(id)
                    || self.schedules.refused.contains(id)
                    || !stored,
                "I4",
                "{id} is on disk and not scheduled"
            ),
        }
        Ok(())
    }

    /// The maker of a schedule is told that it was sent: when it is on disk.
    pub(crate) fn told_fired(&mut self, step: &Step<'_>, at: ConnKey, frame: &Value) -> Verdict {
        let Some(member) = self.attached(at).map(|(_, lease)| lease.who.member) else {
            return Err(Violation::new("I1", "an ack for nobody"));
        };
        if frame["queued"] != true {
            return Ok(());
        }
        let id = frame["messageId"].as_str().unwrap_or_default();
        let message = self.by_id.get(id).map(|index| &mut self.messages[*index]);
        let Some(message) = message.filter(|message| message.sender_member == member) else {
            let text = format!("{at:?} is told of the message {id} of somebody else");
            return Err(Violation::new("I7", text));
        };
        let seq = message.seq.unwrap_or_default();
        ensure!(
            step.tables.messages.contains_key(&seq),
            "I4",
            "{id} is said to have been sent before it is on disk"
        );
        message.fate = Fate::Acked;
        Ok(())
    }

    /// After the effects of time: what is due was sent.
    pub(crate) fn schedules_kept(&mut self, step: &Step<'_>) -> Verdict {
        if !matches!(step.cause, Cause::Time) || self.stopping {
            return Ok(());
        }
        let (now, wall) = (self.mono(), self.now.wall);
        let town = &self.plan.town;
        // A member that sends too much waits with what is due.
        let paced = self.plan.swarm.config.send_rate > 0;
        for schedule in &mut self.schedules.all {
            let here = town.mesh_of(schedule.member).home == step.shard;
            if !here || !schedule.durable || schedule.row.deliver_at > wall {
                if here {
                    schedule.due = None;
                }
                continue;
            }
            let since = *schedule.due.get_or_insert(now);
            ensure!(
                paced || now < since + SCHEDULES_WATCHED.0 + TICK,
                "I2",
                "{} is due for {} ms and was not sent",
                schedule.row.id,
                now - since
            );
        }
        Ok(())
    }

    /// A process begins with what is on disk; what was answered is, and what was sent is no more.
    pub(crate) fn schedules_restored(&mut self, tables: &Tables) -> Verdict {
        let before = std::mem::take(&mut self.schedules);
        for row in &tables.schedules {
            let again = before.sent.get(&row.id).is_some_and(|at| {
                let name = format!("{}-{}", row.id, at.0);
                let mut rows = tables.messages.values();
                rows.any(|sent| sent.client_message_id.as_ref() == Some(&name))
            });
            ensure!(
                !again,
                "I6",
                "{} was sent, and is scheduled on disk",
                row.id
            );
            let members = &self.plan.town.members;
            let member = members.iter().position(|of| of.id == row.member_id);
            let mut row = row.clone();
            if row.cron.is_some() && row.deliver_at <= self.now.wall {
                // It waits for its next time.
                row.deliver_at = Wall((self.now.wall.0 / EVERY + 1) * EVERY);
            }
            self.schedules.all.push(Schedule {
                row,
                member: member.unwrap_or_default(),
                durable: true,
                answered: true,
                due: None,
            });
        }
        for schedule in before.all.iter().filter(|schedule| schedule.answered) {
            let id = &schedule.row.id;
            ensure!(
                self.schedules.owner(id).is_some(),
                "I4",
                "{id} was answered, and is not on disk"
            );
        }
        Ok(())
    }

    /// What fell due and is on disk is promised.
    pub(crate) fn fired_promised(&mut self, tables: &Tables) {
        let fired =
            |message: &&mut Message| message.sender.is_empty() && message.fate == Fate::Asked;
        for message in self.messages.iter_mut().filter(fired) {
            let seq = message.seq.unwrap_or_default();
            if tables.messages.contains_key(&seq) {
                message.fate = Fate::Acked;
            }
        }
    }

    /// Whether something fell due a moment ago.
    pub(crate) fn fired_lately(&self) -> bool {
        let last = self.schedules.last;
        last.is_some_and(|at| self.mono() < at + 5_000)
    }

    /// Sizes are what is there (I9).
    pub(crate) fn schedules_inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        let town = &self.plan.town;
        let here = |of: &&Schedule| town.mesh_of(of.member).home == shard;
        let all = self.schedules.all.iter().filter(here).count();
        let durable = self.schedules.all.iter().filter(here);
        let durable = durable.filter(|schedule| schedule.durable).count();
        ensure!(
            (inspect.schedules, inspect.schedules_due) == ((all, all), durable),
            "I9",
            "{inspect:?}, {all} schedules, {durable} of them fall due"
        );
        Ok(())
    }

    /// At rest the rows are the model.
    pub(crate) fn schedule_rows_agree(&self, tables: &Tables) -> Verdict {
        // The result of a put may still be on its way.
        let open: Vec<&String> = self.schedules.puts.values().collect();
        let rows = tables.schedules.iter().map(|row| &row.id);
        let all = self.schedules.all.iter().map(|of| &of.row.id);
        let mut rows: Vec<_> = rows.filter(|id| !open.contains(id)).collect();
        let mut all: Vec<_> = all.filter(|id| !open.contains(id)).collect();
        rows.sort_unstable();
        all.sort_unstable();
        ensure!(
            rows == all,
            "I10",
            "scheduled are {all:?}, on disk {rows:?}"
        );
        Ok(())
    }
}

/// The listed schedules are those of the member, in the order made.
pub(crate) fn schedules_listed(ids: &[String], frame: &Value) -> Verdict {
    let listed = frame["messages"].as_array().into_iter().flatten();
    let listed: Vec<&str> = listed
        .map(|of| of["id"].as_str().unwrap_or_default())
        .collect();
    ensure!(
        listed == ids,
        "I9",
        "the schedules {ids:?} are listed as {listed:?}"
    );
    Ok(())
}
