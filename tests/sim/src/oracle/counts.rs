//! Inputs without a socket, and recounts: gauges, lists and sizes against the model (I8, I9).

use super::conns::Is;
use super::model::Lease;
use super::rows::Pending;
use super::{Cause, Oracle, Step, Verdict, ensure};
use holdfast_core::input::{Answer, Ask, Gauges, PeerView};
use holdfast_core::marks::Inspect;
use holdfast_core::rows::Status;

impl Oracle {
    /// What an input without a socket means.
    pub(crate) fn prepare_other(&mut self, step: &Step<'_>) -> Verdict {
        let now = self.mono();
        match step.cause {
            Cause::Put(row) => {
                let found = self
                    .plan
                    .town
                    .members
                    .iter()
                    .position(|member| member.id == row.id);
                if let Some(member) = found {
                    // An older row does not lift a ban that is not on disk yet.
                    let revoked = self.members[member].revoked;
                    self.members[member].take(row);
                    self.members[member].revoked |= revoked;
                }
            }
            Cause::Shutdown => self.stopping = true,
            Cause::Stored(token, result) => {
                let at = (step.shard, *token);
                self.scratch.due = self.waiting.get(&at).cloned();
                if let Some(super::told::Due::Joined(_)) = self.scratch.due {
                    self.waiting.remove(&at);
                }
                // Its sender may be gone before it is told.
                if let (Some(index), Err(_)) = (self.tokens.get(&at), result) {
                    self.messages[*index].lost = true;
                }
                self.schedule_stored(at, result);
                self.store_refused |= result.is_err();
            }
            Cause::Answered(_, result) => self.store_refused |= result.is_err(),
            Cause::Fetched(token, result) => self.fetched((step.shard, *token), result),
            Cause::Ask(Ask::HookPend { cwd, pid, status }) => {
                self.pending_status
                    .retain(|pending| now - pending.at <= 10_000);
                self.pending_status.push(Pending {
                    shard: step.shard,
                    cwd: cwd.clone(),
                    pid: *pid,
                    status: *status,
                    at: now,
                });
            }
            Cause::Ask(Ask::HookApply {
                presence_id,
                status,
                ..
            }) => {
                let dnd = self
                    .leases
                    .get(presence_id)
                    .is_none_or(|l| l.status == Status::Dnd);
                if !dnd {
                    self.set_status(presence_id, *status);
                }
            }
            Cause::Time => {
                if !self.stopping {
                    self.calls_overdue(step);
                }
                let over = |lease: &&mut Lease| {
                    lease
                        .working_until
                        .is_some_and(|until| now >= until + super::conns::TICK)
                };
                for lease in self
                    .leases
                    .values_mut()
                    .filter(|l| l.shard == step.shard)
                    .filter(over)
                {
                    lease.status = Status::Idle;
                    lease.working_until = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A question was answered: by what the model says.
    pub(crate) fn answered(&mut self, step: &Step<'_>, answer: &Answer) -> Verdict {
        match answer {
            Answer::Gauges(gauges) => self.gauges_agree(step, gauges),
            Answer::Peers(peers) => self.peers_agree(step, peers.as_deref().unwrap_or_default()),
            Answer::HookCandidate(found) => {
                self.candidate = found
                    .as_ref()
                    .map(|found| (found.slot, found.presence_id.clone()));
                let Some(found) = found else { return Ok(()) };
                let there = self.leases.contains_key(&found.presence_id);
                ensure!(
                    there,
                    "I9",
                    "a hook found {}, which is not there",
                    found.presence_id
                );
                Ok(())
            }
            Answer::HookDone(_) | Answer::Edited(_) | Answer::Posted(_) => Ok(()),
        }
    }

    pub(crate) fn gauges_agree(&self, step: &Step<'_>, gauges: &Gauges) -> Verdict {
        if self.stopping {
            return Ok(());
        }
        let mine = || {
            self.leases
                .values()
                .filter(|lease| lease.shard == step.shard)
        };
        let online = mine().filter(|lease| lease.conn().is_some()).count() as u64;
        let grace = mine().count() as u64 - online;
        ensure!(
            (gauges.online, gauges.grace) == (online, grace),
            "I9",
            "{gauges:?}, counted {online} and {grace}"
        );
        let greeting = self.conns.iter().filter(|(at, conn)| {
            at.0 == step.shard && conn.is == Is::Greeting && conn.contends.is_none()
        });
        let greeting = greeting.count() as u64;
        ensure!(
            gauges.greeting == greeting,
            "I9",
            "{gauges:?}, {greeting} sockets greet"
        );
        Ok(())
    }

    pub(crate) fn peers_agree(&self, step: &Step<'_>, peers: &[PeerView]) -> Verdict {
        let Cause::Ask(Ask::Peers { mesh }) = step.cause else {
            return Ok(());
        };
        let mesh = self
            .plan
            .town
            .meshes
            .iter()
            .position(|found| found.id == *mesh)
            .unwrap_or(0);
        let expected: Vec<(&str, &str)> = self
            .in_mesh(mesh)
            .into_iter()
            .map(|(id, lease)| {
                (
                    id.as_str(),
                    if lease.conn().is_some() {
                        "online"
                    } else {
                        "grace"
                    },
                )
            })
            .collect();
        let got: Vec<(&str, &str)> = peers
            .iter()
            .map(|peer| (peer.presence_id.as_str(), peer.lease))
            .collect();
        ensure!(
            got == expected,
            "I9",
            "peers are {got:?}, the model has {expected:?}"
        );
        Ok(())
    }

    /// Sizes are what is there, and no more (I8).
    pub(crate) fn inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        if self.stopping {
            return Ok(());
        }
        let leases = self
            .leases
            .values()
            .filter(|lease| lease.shard == shard)
            .count();
        let greeting = self
            .conns
            .iter()
            .filter(|(at, conn)| at.0 == shard && conn.is == Is::Greeting);
        let greeting = greeting.count();
        ensure!(
            inspect.sessions == leases,
            "I9",
            "{inspect:?}, {leases} leases"
        );
        // Each session has one timer of its lease, and at most a watermark's and a status's; each
        // watch at most one, and each call one; each mesh at most one for mail that the disk did not give, one after a burst, and one of its
        // clock; the shard one of what is scheduled.
        let meshes = self.plan.town.meshes.len();
        let watches = self.watches_on(shard);
        let (least, most) = (
            leases,
            leases * 3 + greeting + 3 * meshes + watches + inspect.calls + 1,
        );
        let timers = inspect.timers;
        ensure!(
            (least..=most).contains(&timers),
            "I8",
            "{inspect:?} for {leases} leases and {greeting} greeting"
        );
        let online = self
            .leases
            .values()
            .filter(|l| l.shard == shard && l.conn().is_some())
            .count();
        ensure!(
            inspect.online == online,
            "I9",
            "{inspect:?}, {online} are online"
        );
        let (by_key, by_id) = (inspect.by_key <= leases, inspect.by_id == leases);
        ensure!(
            inspect.roster == leases && by_key && by_id,
            "I9",
            "{inspect:?}, {leases} leases"
        );
        ensure!(
            inspect.cwd_entries == leases,
            "I9",
            "{inspect:?}, {leases} leases"
        );
        self.sharing_inspected(shard, inspect)?;
        self.watches_inspected(shard, inspect)?;
        self.schedules_inspected(shard, inspect)?;
        self.servers_inspected(shard, inspect)?;
        self.calls_inspected(shard, inspect)
    }
}
