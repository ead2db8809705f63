//! After the faults have ended: everything that was promised is kept, and nothing is left over.

use holdfast_core::marks::Inspect;

use super::conns::Is;
use super::mail::{Fate, Target};
use super::model::Seat;
use super::{Oracle, Verdict, Violation, ensure};

impl Oracle {
    /// What is still pending though all is well.
    pub(crate) fn settled(&self) -> Verdict {
        for (id, lease) in &self.leases {
            let grace = matches!(lease.seat, Seat::Grace(_));
            ensure!(
                !grace,
                "I3",
                "{id} of {} is in grace long after the faults",
                lease.who.session_id
            );
            ensure!(
                lease.unconfirmed.is_empty() || !self.confirms(lease.who.member),
                "I6",
                "{id} has unconfirmed mail"
            );
        }
        for (at, conn) in &self.conns {
            ensure!(conn.owed.is_empty(), "I5", "{at:?} is owed {:?}", conn.owed);
            // Whoever may not come in tries again and again.
            let young = self.mono().saturating_sub(conn.opened) < 15_000;
            ensure!(
                conn.is == Is::Attached || young,
                "I8",
                "{at:?} is {:?} long after the faults",
                conn.is
            );
        }
        self.all_told()?;
        for message in &self.messages {
            self.arrived(message)?;
        }
        Ok(())
    }

    fn confirms(&self, _member: usize) -> bool {
        false
    }

    /// A session's identity is online.
    pub(crate) fn online(&self, who: &crate::town::Identity) -> bool {
        let lease = self.lease_of(who).and_then(|id| self.leases.get(id));
        lease.is_some_and(|lease| lease.conn().is_some())
    }

    /// Whether somebody may be kept out for good.
    pub(crate) fn kept_out(&self, who: &crate::town::Identity) -> bool {
        let mesh = self.plan.town.members[who.member].mesh;
        let present = self
            .leases
            .values()
            .filter(|lease| lease.mesh == mesh)
            .count();
        self.members[who.member].revoked
            || present >= self.plan.swarm.config.max_sessions_per_mesh as usize
    }

    fn arrived(&self, message: &super::mail::Message) -> Verdict {
        let Target::Key(key) = message.target else {
            return Ok(());
        };
        let promised = message.fate == Fate::Acked;
        if !promised || message.received || message.renounced || message.delivered {
            return Ok(());
        }
        let member = message.sender_member;
        let vague = self.vague(message, key);
        let meant = self.designated(message.mesh, key, &message.sender, member);
        let there = meant
            .and_then(|id| self.leases.get(id))
            .is_some_and(|lease| lease.conn().is_some());
        if there && !vague && meant != Some(&message.sender) {
            let text = format!(
                "m{} was acknowledged and did not reach {meant:?}",
                message.said.number
            );
            return Err(Violation::new("I4", text));
        }
        Ok(())
    }

    /// Nothing waits in a shard.
    pub(crate) fn at_rest(&self, inspect: &Inspect) -> Verdict {
        ensure!(
            inspect.waiting == 0,
            "I8",
            "{} wait for the store long after the faults",
            inspect.waiting
        );
        Ok(())
    }
}
