//! Hellos: who may come in, what a refusal needs to be right, and that each gets its answer.

use std::rc::Rc;

use holdfast_core::rows::Status;
use serde_json::Value;

use super::conns::Is;
use super::contests::Contest;
use super::model::Seat;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{HelloSaid, Said};
use crate::town::Kind;

/// Longest difference of clocks, and how long a signature is remembered.
const SKEW: u64 = 60_000;

impl HelloSaid {
    /// What is signed.
    fn stamp(&self, shard: u16) -> String {
        match self.who.kind {
            Kind::Launched => format!(
                "{shard} L {} {:?} {}",
                self.who.member,
                self.who.key,
                self.signed()
            ),
            Kind::ThrowAway | Kind::Member => {
                format!("{shard} H {} {}", self.who.member, self.signed())
            }
        }
    }
}

impl Oracle {
    /// The hello that a step is about.
    pub(crate) fn hello_of(&self, step: &Step<'_>) -> Option<Rc<HelloSaid>> {
        match step.cause {
            Cause::Frame(frame) => match &frame.said {
                Said::Hello(said) => Some(Rc::clone(said)),
                _ => self.contending(step),
            },
            Cause::Adopted(_, said) => Some(Rc::clone(said)),
            _ => self.contending(step),
        }
    }

    fn skewed(&self, said: &HelloSaid) -> bool {
        said.timestamp.abs_diff(self.now.wall.0) > SKEW
    }

    fn heard_before(&self, said: &HelloSaid, shard: u16) -> Option<u64> {
        let stamp = said.stamp(shard);
        self.heard
            .iter()
            .find(|(heard, _)| *heard == stamp)
            .map(|(_, at)| *at)
    }

    /// Another member's session that holds the key.
    fn foreign_holder(&self, said: &HelloSaid) -> Option<Kind> {
        let key = said.who.session_key()?;
        let mesh = self.plan.town.members[said.who.member].mesh;
        let holders = self.leases.values().filter(|lease| {
            lease.key == Some(key) && lease.mesh == mesh && lease.who.member != said.who.member
        });
        holders.map(super::model::Lease::kind).min()
    }

    /// Whether nothing is wrong with a hello, or something stands for what is.
    fn sound(&self, said: &HelloSaid) -> Verdict {
        let spared = match said.wrong {
            None => true,
            Some("bad_signature") => self.resumes(said).1,
            Some("bad_attestation") => self.resumes(said).1 || self.is_attested(said),
            Some(_) => false,
        };
        ensure!(
            spared,
            "I7",
            "a hello that is {:?} was accepted",
            said.wrong
        );
        Ok(())
    }

    /// Whether a hello may begin a lease.
    pub(crate) fn admissible(&self, said: &HelloSaid) -> Verdict {
        self.sound(said)?;
        ensure!(
            !self.members[said.who.member].revoked,
            "I7",
            "a revoked member came in"
        );
        let holder = self.foreign_holder(said);
        ensure!(
            holder.is_none(),
            "I7",
            "a key that another member's {holder:?} holds was claimed"
        );
        Ok(())
    }

    /// `hello_ack`: the first frame of a session on its socket.
    pub(crate) fn welcomed(&mut self, step: &Step<'_>, at: ConnKey, frame: &Value) -> Verdict {
        let id = frame["presenceId"].as_str().unwrap_or_default().to_owned();
        let again = frame["reattached"].as_bool() == Some(true);
        let Some(conn) = self.conns.get(&at).cloned() else {
            return Ok(());
        };
        if conn.is == Is::Attached {
            let attached = self.attached(at).map(|(id, _)| id.clone());
            ensure!(
                attached.as_ref() == Some(&id),
                "I1",
                "{at:?} is told it is {id}, it is {attached:?}"
            );
            self.token_more(&id, frame["resumeToken"].as_str());
            return self.replied(step, at, frame);
        }
        let Some(said) = conn.hello.clone() else {
            return Err(Violation::new(
                "I7",
                format!("{at:?} was welcomed without a hello"),
            ));
        };
        self.sound(&said)?;
        self.token_given(&id, &said, frame["resumeToken"].as_str());
        ensure!(
            !self.members[said.who.member].revoked,
            "I7",
            "a revoked member came in"
        );
        let own = self.lease_of(&said.who).cloned();
        ensure!(
            own.as_ref() == Some(&id),
            "I2",
            "{at:?} was given {id}, its identity has {own:?}"
        );
        let claimed = self
            .scratch
            .reattached
            .iter()
            .any(|(other, _)| *other == id);
        ensure!(
            claimed == again,
            "I2",
            "{id}: the client is told reattached={again}, it is {claimed}"
        );
        // A socket from another shard was checked there, perhaps long ago.
        let here = !matches!(step.cause, Cause::Adopted(..));
        if conn.contends.is_none() {
            ensure!(
                !here || !self.skewed(&said),
                "I7",
                "a hello {} ms off was accepted",
                said.timestamp.abs_diff(self.now.wall.0)
            );
            self.remember(step, &said)?;
        }
        let Some(lease) = self.leases.get_mut(&id) else {
            return Ok(());
        };
        ensure!(
            lease.seat == Seat::Entering,
            "I1",
            "{id} is welcomed and did not attach"
        );
        lease.seat = Seat::Online(at);
        if let Some(conn) = self.conns.get_mut(&at) {
            conn.is = Is::Attached;
            conn.contends = None;
        }
        if again {
            self.refresh(&id, &said);
        } else {
            self.take_pending(step, &id);
        }
        let lease = &self.leases[&id];
        ensure!(
            frame["leaseTtlMs"] == lease.grace,
            "I3",
            "{id} has {} ms and is told {}",
            lease.grace,
            frame["leaseTtlMs"]
        );
        let missed = frame["missed"] == "truncated";
        let (sure, perhaps) = self.scratch.missed.get(&id).copied().unwrap_or_default();
        ensure!(
            missed && perhaps || !missed && !sure,
            "I6",
            "{id} is told missed={missed}, its log dropped something: {sure}, perhaps {perhaps}"
        );
        self.counts.truncated += u64::from(missed);
        let name = &self.leases[&id].name;
        ensure!(
            frame["memberDisplayName"] == **name,
            "I10",
            "{id} is called {}, not {name}",
            frame["memberDisplayName"]
        );
        Ok(())
    }

    /// A signature is accepted once (design.md §7), but for the same moment.
    fn remember(&mut self, step: &Step<'_>, said: &HelloSaid) -> Verdict {
        let now = self.mono();
        if let Some(at) = self.heard_before(said, step.shard) {
            let age = now - at;
            ensure!(
                age <= 2 || age > 2 * SKEW,
                "I7",
                "a hello heard {age} ms ago was accepted again"
            );
        }
        self.heard.push((said.stamp(step.shard), now));
        Ok(())
    }

    /// A second hello on one socket: whether it is the session's own, which it then refreshes.
    pub(crate) fn said_again(&mut self, at: ConnKey, said: &HelloSaid) -> bool {
        let attached = self.attached(at).map(|(id, _)| id.clone());
        let wall = self.now.wall.0;
        let attested = said.who.kind != Kind::Launched
            || said.expires_at > wall && said.expires_at <= wall + 24 * 3_600_000;
        let own = said.wrong.is_none()
            && !self.skewed(said)
            && attested
            && self.lease_of(&said.who) == attached.as_ref();
        if let Some(id) = attached.filter(|_| own) {
            self.attested(&id, said);
            self.refresh(&id, said);
        }
        own
    }

    /// What a reattach brings up to date (design.md §8.4).
    fn refresh(&mut self, id: &str, said: &HelloSaid) {
        let grace = self.grace_of(said.lease);
        let Some(lease) = self.leases.get_mut(id) else {
            return;
        };
        if let Some(name) = &said.name {
            lease.name.clone_from(name);
        }
        if let Some(groups) = said.groups.as_ref().filter(|groups| !groups.is_empty()) {
            lease.groups.clone_from(groups);
        }
        lease.cwd.clone_from(&said.cwd);
        lease.pid = said.pid;
        lease.grace = grace;
        lease.who.session_id.clone_from(&said.who.session_id);
    }

    /// A new session takes the status that was posted for it.
    fn take_pending(&mut self, step: &Step<'_>, id: &str) {
        let now = self.mono();
        self.pending_status
            .retain(|pending| now - pending.at <= 10_000);
        let Some(lease) = self.leases.get(id) else {
            return;
        };
        let fits = |pending: &super::rows::Pending| {
            pending.shard == step.shard && pending.cwd == lease.cwd && pending.pid == lease.pid
        };
        if let Some(index) = self.pending_status.iter().rposition(fits) {
            let status = self.pending_status.remove(index).status;
            self.set_status(id, status);
        }
    }

    /// A status is written; `working` runs out by itself.
    pub(crate) fn set_status(&mut self, id: &str, status: Status) {
        let until = self.mono() + 60_000;
        if let Some(lease) = self.leases.get_mut(id) {
            lease.status = status;
            lease.working_until = (status == Status::Working).then_some(until);
        }
    }

    /// A hello was refused: for a reason that holds.
    pub(crate) fn hello_refused(&mut self, step: &Step<'_>, at: ConnKey, code: &str) -> Verdict {
        let Some(conn) = self.conns.get(&at) else {
            return Ok(());
        };
        let Some(said) = conn.hello.clone() else {
            return Err(Violation::new(
                "I7",
                format!("{at:?} said no hello and was refused: {code}"),
            ));
        };
        let contends = conn.contends;
        self.refusal_holds(step, &said, code, contends)?;
        self.scratch.refused.push((at, code.to_owned()));
        if matches!(code, "capacity" | "bad_session_pubkey") && contends.is_none() {
            self.heard.push((said.stamp(step.shard), self.mono()));
        }
        Ok(())
    }

    fn refusal_holds(
        &self,
        step: &Step<'_>,
        said: &HelloSaid,
        code: &str,
        contends: Option<Contest>,
    ) -> Verdict {
        let wall = self.now.wall.0;
        let own = self.lease_of(&said.who).and_then(|id| self.leases.get(id));
        let holds = match code {
            "bad_signature" => {
                matches!(said.wrong, Some("bad_signature" | "bad_attestation"))
                    && !self.resumes(said).0
            }
            "malformed" => said.wrong == Some(code),
            "timestamp_skew" => self.skewed(said),
            "expired" => said.expires_at <= wall,
            "ttl_too_long" => said.expires_at > wall + 24 * 3_600_000,
            "revoked" => self.members[said.who.member].revoked,
            "replayed" => self.heard_before(said, step.shard).is_some(),
            "capacity" => {
                let mesh = self.plan.town.members[said.who.member].mesh;
                let present = self
                    .leases
                    .values()
                    .filter(|lease| lease.mesh == mesh)
                    .count();
                own.is_none() && present >= self.plan.swarm.config.max_sessions_per_mesh as usize
            }
            "bad_session_pubkey" => {
                own.is_none()
                    && match self.foreign_holder(said) {
                        None => false,
                        Some(Kind::Launched) => true,
                        Some(_) => said.who.kind != Kind::Launched,
                    }
            }
            "session_conflict" => {
                let id = self.lease_of(&said.who);
                let lost = |contest| id.is_some_and(|id| self.lost(step, id, contest));
                own.is_some_and(|lease| lease.conn().is_some()) && contends.is_some_and(lost)
            }
            _ => false,
        };
        ensure!(
            holds,
            "I2",
            "a hello of {:?} was refused for no reason: {code}",
            said.who
        );
        Ok(())
    }

    /// After the effects: every hello got its answer, or waits for the incumbent's.
    pub(crate) fn hello_settled(&mut self, step: &Step<'_>) -> Verdict {
        let (Some(conn), true) = (step.conn, self.is_hello(step)) else {
            return Ok(());
        };
        let at = (step.shard, conn);
        let now = self.mono();
        if self.scratch.handed_off || self.scratch.was_closing || self.stopping {
            return Ok(());
        }
        let refused = self.scratch.refused.iter().any(|(other, _)| *other == at);
        let Some(found) = self.conns.get(&at) else {
            return Ok(());
        };
        if refused || found.is != Is::Greeting || found.contends.is_some() {
            return Ok(());
        }
        let Some(said) = found.hello.clone() else {
            return Ok(());
        };
        self.heard.push((said.stamp(step.shard), now));
        let contest = self
            .place_of_earlier(&said)
            .or_else(|| self.contest_begun(&said));
        ensure!(
            contest.is_some(),
            "I2",
            "a hello of {:?} got no answer",
            said.who
        );
        if let Some(found) = self.conns.get_mut(&at) {
            found.contends = contest;
        }
        Ok(())
    }

    pub(super) fn is_hello(&self, step: &Step<'_>) -> bool {
        match step.cause {
            Cause::Adopted(..) => true,
            Cause::Frame(frame) => matches!(frame.said, Said::Hello(_)),
            _ => false,
        }
    }
}
