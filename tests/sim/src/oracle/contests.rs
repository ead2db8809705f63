//! Contests: a hello for a session that is online and was taken over often waits until the
//! incumbent answers, ends, or has been silent for two seconds.

use std::rc::Rc;

use super::conns::Is;
use super::{Oracle, Step, Verdict, ensure};
use crate::said::HelloSaid;

/// From this takeover within this time the incumbent is asked first.
const CONFLICT: (usize, u64) = (2, 10_000);

/// What a challenger waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contest {
    pub(crate) since: u64,
    /// The ping that the incumbent was asked with.
    pub(crate) asked: u64,
}

impl Oracle {
    /// The hello of a challenger that this step may let in.
    pub(super) fn contending(&self, step: &Step<'_>) -> Option<Rc<HelloSaid>> {
        let mut waiting = self.conns.iter().filter(|(at, _)| at.0 == step.shard);
        waiting.find_map(|(_, conn)| conn.hello.clone().filter(|_| conn.contends.is_some()))
    }

    /// Whether this step decides against a challenger for a session: the incumbent answers the
    /// ping that asked it, or a later challenger comes.
    pub(super) fn lost(&self, step: &Step<'_>, own: &str, contest: Contest) -> bool {
        let answered = self.scratch.answered.as_ref();
        let answered = answered.is_some_and(|(id, ping)| id == own && *ping >= contest.asked);
        let rival = self.hello_of(step).filter(|_| self.is_hello(step));
        answered || rival.is_some_and(|rival| self.lease_of(&rival.who).is_some_and(|id| id == own))
    }

    /// After a pong: no challenger waits on after its incumbent's answer.
    pub(super) fn answer_counted(&self) -> Verdict {
        let Some((id, ping)) = &self.scratch.answered else {
            return Ok(());
        };
        for (at, conn) in self
            .conns
            .iter()
            .filter(|(_, conn)| conn.is == Is::Greeting)
        {
            let theirs = conn
                .hello
                .as_ref()
                .and_then(|said| self.lease_of(&said.who));
            let answered = conn.contends.is_some_and(|c| c.asked <= *ping) && theirs == Some(id);
            ensure!(
                !answered || self.scratch.refused.iter().any(|(other, _)| other == at),
                "I2",
                "{at:?} waits on, its incumbent has answered"
            );
        }
        Ok(())
    }

    /// The place of the challenger that was just refused in favour of this one.
    pub(super) fn place_of_earlier(&self, said: &HelloSaid) -> Option<Contest> {
        let refused = self.scratch.refused.iter();
        let refused = refused.filter(|(_, code)| code == "session_conflict");
        let mut refused = refused.filter_map(|(at, _)| self.conns.get(at));
        refused.find_map(|conn| {
            let earlier = conn.hello.as_ref()?;
            conn.contends
                .filter(|_| self.lease_of(&earlier.who) == self.lease_of(&said.who))
        })
    }

    /// The contest that begins with this hello, if it may: the incumbent was just pinged, and has
    /// replaced others lately.
    pub(super) fn contest_begun(&self, said: &HelloSaid) -> Option<Contest> {
        let id = self.lease_of(&said.who)?;
        let lease = self.leases.get(id)?;
        let now = self.mono();
        let since = now.saturating_sub(CONFLICT.1);
        let recent = lease.takeovers.iter().filter(|at| **at >= since).count();
        let pinged = self.scratch.pings.contains(&lease.conn()?) && recent >= CONFLICT.0;
        let ping = self.ledgers.get(id)?.pings.last().filter(|_| pinged)?;
        Some(Contest {
            since: now,
            asked: ping.watermark,
        })
    }
}
