//! The lease table (design.md §4): each transition the core claims is one the table has, and each
//! the table demands is claimed.

use holdfast_core::effect::Close;

use super::model::{Lease, Saved, Seat};
use super::{Cause, Oracle, Step, Verdict, Violation, ensure};
use crate::town::Kind;

impl Oracle {
    /// A lease began: with a hello, or at boot.
    pub(crate) fn began(&mut self, step: &Step<'_>, id: &str) -> Verdict {
        ensure!(!self.leases.contains_key(id), "I3", "{id} began twice");
        if let Cause::Boot(row) = step.cause {
            return self.restored(id, row);
        }
        let said = self.hello_of(step);
        let Some(said) = said else {
            return Err(Violation::new("I3", format!("{id} began without a hello")));
        };
        if let Some(other) = self.lease_of(&said.who) {
            return Err(Violation::new(
                "I2",
                format!("{id} began although {other} has that identity"),
            ));
        }
        for (other, rival) in &self.leases {
            let same_id = rival.who.member == said.who.member
                && rival.kind() == said.who.kind
                && rival.who.session_id == said.who.session_id;
            ensure!(
                !same_id,
                "I3",
                "{id} began although {other} has its session id"
            );
        }
        let mesh = self.plan.town.members[said.who.member].mesh;
        let present = self
            .leases
            .values()
            .filter(|lease| lease.mesh == mesh)
            .count();
        let most = self.plan.swarm.config.max_sessions_per_mesh as usize;
        ensure!(
            present < most,
            "I8",
            "{id} began in a mesh of {present} sessions"
        );
        self.admissible(&said)?;
        let (groups, visible) = self.first_groups(&said);
        self.order += 1;
        let now = self.mono();
        let lease = Lease {
            mesh,
            shard: step.shard,
            key: said.who.session_key(),
            name: said
                .name
                .clone()
                .unwrap_or_else(|| self.members[said.who.member].name.clone()),
            groups,
            visible,
            cwd: said.cwd.clone(),
            pid: said.pid,
            status: holdfast_core::rows::Status::Idle,
            working_until: None,
            seat: Seat::Entering,
            order: self.order,
            attached: self.order,
            last_proof: now,
            last_ping: 0,
            owed: super::told::Owed::Join,
            takeovers: Vec::new(),
            sudden: Vec::new(),
            unconfirmed: Vec::new(),
            rewrite: std::collections::VecDeque::new(),
            acks: false,
            grace: self.grace_of(said.lease),
            who: said.who.clone(),
        };
        self.leases.insert(id.to_owned(), lease);
        self.orders.insert(id.to_owned(), self.order);
        let account = super::ledger::Ledger::new(self.news.len());
        self.ledgers.insert(id.to_owned(), account);
        self.scratch.began.push(id.to_owned());
        self.counts.begun += 1;
        Ok(())
    }

    /// Groups and visibility of a new session (protocol.md §4, §5).
    pub(crate) fn first_groups(&self, said: &crate::said::HelloSaid) -> (Vec<String>, bool) {
        let member = &self.members[said.who.member];
        let given = said.groups.clone();
        if said.who.kind == Kind::Launched {
            return (given.unwrap_or_else(|| member.default_groups.clone()), true);
        }
        let saved = member.saved.as_ref();
        let visible = saved.is_none_or(|saved| saved.visible);
        let groups = given.filter(|names| !names.is_empty());
        let groups = groups.or_else(|| {
            saved
                .map(|saved| saved.groups.clone())
                .filter(|names| !names.is_empty())
        });
        (
            groups.unwrap_or_else(|| member.default_groups.clone()),
            visible,
        )
    }

    /// How long a session that asks for so much stays without a socket.
    pub(crate) fn grace_of(&self, wanted: Option<u64>) -> u64 {
        let config = &self.plan.swarm.config;
        let least = holdfast_core::limits::GRACE_MIN.0.min(config.grace.0);
        let most = config.max_grace.0.max(config.grace.0);
        wanted.map_or(config.grace.0, |wanted| wanted.clamp(least, most))
    }

    /// A session got a socket, or another socket.
    pub(crate) fn reattached(&mut self, step: &Step<'_>, id: &str, takeover: bool) -> Verdict {
        let now = self.mono();
        self.order += 1;
        let order = self.order;
        let Some(lease) = self.leases.get_mut(id) else {
            return Err(Violation::new(
                "I2",
                format!("{id} reattached and is not there"),
            ));
        };
        let was = std::mem::replace(&mut lease.seat, Seat::Entering);
        match was {
            Seat::Online(old) => {
                ensure!(
                    takeover,
                    "I1",
                    "{id} was online and its reattach is no takeover"
                );
                lease.takeovers.push(now);
                // Two in ten seconds at once, and two in the next; further ones ask first.
                if matches!(step.cause, Cause::Frame(_) | Cause::Adopted(..)) {
                    lease.sudden.push(now);
                }
                let recent = lease.sudden.iter().filter(|at| now - **at <= 10_000);
                let recent = recent.count();
                ensure!(
                    recent <= 4,
                    "I2",
                    "{id} was taken over {recent} times in ten seconds"
                );
                let close = self.scratch.closes.get(&old);
                ensure!(
                    close == Some(&Close::SESSION_REPLACED),
                    "I1",
                    "{id} was taken over, its old socket got {close:?}"
                );
                self.counts.takeovers += 1;
            }
            // Its time may be over, if nobody has looked since.
            Seat::Grace(_) => {
                ensure!(!takeover, "I1", "{id} was in grace and was taken over");
            }
            Seat::Entering => return Err(Violation::new("I1", format!("{id} attached twice"))),
        }
        lease.attached = order;
        lease.last_proof = now;
        lease.last_ping = 0;
        lease.rewrite = lease.unconfirmed.iter().copied().collect();
        let missed = self.truncated(id);
        self.sharing.torn.remove(id);
        self.scratch.missed.insert(id.to_owned(), missed);
        self.account_again(id);
        self.scratch.reattached.push((id.to_owned(), takeover));
        self.counts.reattached += 1;
        ensure!(
            !matches!(step.cause, Cause::Boot(_)),
            "I3",
            "{id} reattached at boot"
        );
        Ok(())
    }

    /// A session lost its socket.
    pub(crate) fn grace_began(&mut self, step: &Step<'_>, id: &str) -> Verdict {
        let now = self.mono();
        let Some(lease) = self.leases.get_mut(id) else {
            return Err(Violation::new(
                "I1",
                format!("{id} entered grace and is not there"),
            ));
        };
        let Seat::Online(at) = lease.seat else {
            return Err(Violation::new(
                "I1",
                format!("{id} entered grace and was not online"),
            ));
        };
        let closed = matches!(step.cause, Cause::Closed(_)) && step.conn == Some(at.1);
        let aborted = self.scratch.aborts.contains(&at);
        let slow = self.scratch.closes.get(&at) == Some(&Close::SLOW_CONSUMER);
        ensure!(
            closed || aborted || slow,
            "I1",
            "{id} lost a socket that is there, by {}",
            step.cause.tag()
        );
        lease.seat = Seat::Grace(now + lease.grace);
        let saved = Saved {
            groups: lease.groups.clone(),
            visible: lease.visible,
        };
        let (kind, member) = (lease.kind(), lease.who.member);
        if kind == Kind::Member {
            self.members[member].saved = Some(saved);
        }
        self.scratch.graced.push(id.to_owned());
        Ok(())
    }
}
