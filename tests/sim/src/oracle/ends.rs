//! The end of leases: each was due, each that was due came, and the journal has it.

use super::conns::Is;
use super::model::{Lease, Saved, Seat};
use super::{Cause, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{Said, Whom};
use crate::town::{Identity, Kind};
use holdfast_core::event::LeaseEnd;
use holdfast_core::input::Closing;
use holdfast_core::rows::BootRow;

impl Oracle {
    /// A lease ended: it was due, and everybody who should hears of it.
    pub(crate) fn ended(&mut self, step: &Step<'_>, id: &str, why: LeaseEnd) -> Verdict {
        let Some(lease) = self.leases.get(id).cloned() else {
            return Err(Violation::new("I3", format!("{id} ended and is not there")));
        };
        let online = lease.conn();
        let due = match why {
            LeaseEnd::Expired => {
                matches!(step.cause, Cause::Time)
                    && matches!(lease.seat, Seat::Grace(until) if self.mono() >= until)
            }
            LeaseEnd::Goodbye => {
                let clean = matches!(step.cause, Cause::Closed(Closing::Clean))
                    && lease.kind() == Kind::ThrowAway;
                let said = matches!(step.cause, Cause::Frame(frame) if matches!(frame.said, Said::Goodbye));
                let own = online.is_some_and(|at| step.conn == Some(at.1));
                // A challenger that was let in says what it had said before.
                let held = self.scratch.reattached.iter().any(|(came, _)| came == id);
                (clean || said) && own || held
            }
            LeaseEnd::Kicked | LeaseEnd::Disconnected => self.is_kicked(step, id, &lease, why),
            LeaseEnd::Banned => self.is_banned(step, &lease),
            LeaseEnd::Replaced => self.is_replaced(step, &lease),
        };
        ensure!(
            due,
            "I3",
            "{id} ended {why:?} by {} while {:?} at {}",
            step.cause.tag(),
            lease.seat,
            self.mono()
        );
        let closed = matches!(step.cause, Cause::Closed(_)) && why == LeaseEnd::Goodbye;
        if let (Some(at), false) = (online, closed) {
            let close = self.scratch.closes.get(&at);
            ensure!(
                close.is_some() || self.stopping,
                "I1",
                "{id} ended {why:?} and its socket stays open"
            );
        }
        if lease.kind() == Kind::Member {
            let saved = Saved {
                groups: lease.groups.clone(),
                visible: lease.visible,
            };
            self.members[lease.who.member].saved = Some(saved);
        }
        self.leases.remove(id);
        self.shares_no_more(id, lease.mesh);
        self.watches.end(id);
        self.calls_ended(id);
        self.ledgers.remove(id);
        if let Some(key) = lease.key {
            self.known
                .insert((lease.mesh, key), (lease.who.member, true));
        }
        for number in &lease.unconfirmed {
            self.messages[*number].holder = None;
        }
        let rows = self
            .scratch
            .closed_rows
            .iter()
            .filter(|(row, _)| row == id)
            .count();
        ensure!(
            rows == 1,
            "I10",
            "{id} ended and its row was ended {rows} times"
        );
        self.left(step, id, lease)?;
        self.counts.expired += u64::from(why == LeaseEnd::Expired);
        self.scratch.ended.push(id.to_owned());
        Ok(())
    }

    /// Whom a kick means (protocol.md §18).
    pub(crate) fn meant(&self, step: &Step<'_>, caller: &str, id: &str, lease: &Lease) -> bool {
        let Cause::Frame(frame) = step.cause else {
            return false;
        };
        let Said::Kick(kick, whom) = &frame.said else {
            return false;
        };
        if *kick && lease.kind() != Kind::Launched {
            return false;
        }
        match whom {
            Whom::All => id != caller,
            Whom::Stale(age) => id != caller && self.mono().saturating_sub(lease.last_proof) > *age,
            Whom::Target(target) => {
                let key = self.plan.town.member_key(lease.who.member).to_string();
                lease.name == *target || key.starts_with(target)
            }
        }
    }

    pub(crate) fn caller(&self, step: &Step<'_>) -> Option<(&String, &Lease)> {
        self.attached((step.shard, step.conn?))
    }

    pub(crate) fn is_kicked(
        &self,
        step: &Step<'_>,
        id: &str,
        lease: &Lease,
        why: LeaseEnd,
    ) -> bool {
        let (Cause::Frame(frame), Some(caller)) = (step.cause, &self.scratch_caller(step)) else {
            return false;
        };
        let Said::Kick(kick, _) = &frame.said else {
            return false;
        };
        let fits = (why == LeaseEnd::Kicked) == *kick;
        fits && caller.2 && caller.1 == lease.mesh && self.meant(step, &caller.0, id, lease)
    }

    /// Who asks: presence, mesh, whether it may moderate. Still known if it kicked itself.
    pub(crate) fn scratch_caller(&self, step: &Step<'_>) -> Option<(String, usize, bool)> {
        let conn = step.conn?;
        if let Some((id, lease)) = self.caller(step) {
            return Some((id.clone(), lease.mesh, self.members[lease.who.member].admin));
        }
        let hello = self.conns.get(&(step.shard, conn))?.hello.as_ref()?;
        let member = hello.who.member;
        Some((
            String::new(),
            self.plan.town.members[member].mesh,
            self.members[member].admin,
        ))
    }

    pub(crate) fn is_banned(&self, step: &Step<'_>, lease: &Lease) -> bool {
        match step.cause {
            Cause::Frame(frame) => {
                let by = self.scratch_caller(step);
                matches!(&frame.said, Said::Ban(true, name)
                    if self.members[lease.who.member].name == *name)
                    && by.is_some_and(|(_, mesh, admin)| admin && mesh == lease.mesh)
            }
            Cause::Put(row) => {
                row.revoked_at.is_some() && self.plan.town.members[lease.who.member].id == row.id
            }
            _ => false,
        }
    }

    pub(crate) fn is_replaced(&self, step: &Step<'_>, lease: &Lease) -> bool {
        let Some(said) = self.hello_of(step) else {
            return false;
        };
        let who: &Identity = &said.who;
        let mesh = self.plan.town.members[who.member].mesh;
        let same_id = lease.who.member == who.member
            && lease.kind() == who.kind
            && lease.who.session_id == who.session_id;
        let foreign_claim = lease.kind() == Kind::ThrowAway
            && lease.who.member != who.member
            && who.kind == Kind::Launched
            && lease.key == who.session_key();
        mesh == lease.mesh && (same_id || foreign_claim)
    }

    /// After the effects: what the table demands of the cause happened.
    pub(crate) fn required(&self, step: &Step<'_>) -> Verdict {
        for (id, lease) in &self.leases {
            ensure!(
                lease.seat != Seat::Entering,
                "I5",
                "{id} was attached and got no hello_ack"
            );
        }
        match step.cause {
            Cause::Closed(_) => {
                let at = step.conn.map(|conn| (step.shard, conn));
                let left = self
                    .leases
                    .iter()
                    .find(|(_, lease)| lease.conn().is_some() && lease.conn() == at);
                if let Some((id, _)) = left.filter(|_| !self.stopping) {
                    return Err(Violation::new(
                        "I1",
                        format!("{id} is online on a socket that is gone"),
                    ));
                }
            }
            Cause::Frame(frame) => {
                let left = step.conn.and_then(|conn| self.attached((step.shard, conn)));
                let stays = left.filter(|_| matches!(frame.said, Said::Goodbye) && !self.stopping);
                ensure!(
                    stays.is_none(),
                    "I3",
                    "{:?} said goodbye and is there",
                    stays.map(|(id, _)| id)
                );
                self.kicked_all(step, &frame.said)?;
            }
            Cause::Put(row) if row.revoked_at.is_some() => self.ended_all(&row.id)?,
            Cause::Boot(BootRow::Presence(row)) => self.was_restored(row)?,
            _ => {}
        }
        for (at, conn) in &self.conns {
            let orphan = conn.is == Is::Attached && self.attached(*at).is_none();
            ensure!(
                !orphan,
                "I1",
                "{at:?} is open and its session has another socket, or none"
            );
        }
        self.rows_follow()?;
        self.deadlines_kept(step)
    }

    pub(crate) fn kicked_all(&self, step: &Step<'_>, said: &Said) -> Verdict {
        let Some((caller, mesh, true)) = self.scratch_caller(step) else {
            return Ok(());
        };
        let attached = step
            .conn
            .and_then(|conn| self.conns.get(&(step.shard, conn)));
        if self.scratch.was_closing || attached.is_none_or(|conn| conn.is == Is::Greeting) {
            return Ok(());
        }
        for (id, lease) in self.leases.iter().filter(|(_, lease)| lease.mesh == mesh) {
            ensure!(
                !self.meant(step, &caller, id, lease),
                "I3",
                "{id} was to be kicked and is there"
            );
            if let Said::Ban(true, name) = said {
                let member = &self.members[lease.who.member];
                let banned = member.name == *name && member.revoked;
                ensure!(!banned, "I3", "{id} was to be banned and is there");
            }
        }
        Ok(())
    }

    pub(crate) fn ended_all(&self, member_id: &str) -> Verdict {
        for (id, lease) in &self.leases {
            let revoked = self.plan.town.members[lease.who.member].id == member_id;
            ensure!(!revoked, "I3", "{id} is of a revoked member and is there");
        }
        Ok(())
    }

    /// Every change of a lease is in the journal of the same step (I10).
    pub(crate) fn rows_follow(&self) -> Verdict {
        let scratch = &self.scratch;
        if self.booting {
            return Ok(());
        }
        for id in scratch
            .began
            .iter()
            .chain(scratch.reattached.iter().map(|(id, _)| id))
        {
            ensure!(
                scratch.put.contains(id),
                "I10",
                "{id} attached and its row was not put"
            );
        }
        for id in &scratch.graced {
            ensure!(
                scratch.marked.contains(id),
                "I10",
                "{id} entered grace and its row was not marked"
            );
        }
        Ok(())
    }
}
