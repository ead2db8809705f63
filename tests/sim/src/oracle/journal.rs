//! What is given to the store: rows of messages and of presences, and what they say.

use holdfast_core::effect::Effect;
use holdfast_core::ids::{Position, PubKey, Token};
use holdfast_core::rows::{StoreOp, StoreQuery};

use super::conns::TICK;
use super::ledger::What;
use super::mail::Reading;
use super::told::Due;
use super::{Cause, Oracle, Step, Verdict, Violation, ensure};

impl Oracle {
    /// Messages whose rows are given to the store in this step, with their places in the order.
    pub(crate) fn inserted(&mut self, step: &Step<'_>) -> Verdict {
        for effect in step.effects {
            let Effect::Persist { op, token } = effect else {
                continue;
            };
            let StoreOp::MessageInsert(row) = op else {
                continue;
            };
            let Some(index) = self.by_text(&row.ciphertext) else {
                return Err(Violation::new("I7", "stores a message nobody sent"));
            };
            let message = &mut self.messages[index];
            let before = message
                .seq
                .filter(|seq| step.tables.messages.contains_key(seq));
            ensure!(
                before.is_none(),
                "I6",
                "m{} is stored twice",
                message.said.number
            );
            let Some(token) = token else {
                let text = format!("nobody waits for the row of m{}", message.said.number);
                return Err(Violation::new("I4", text));
            };
            let id = row.id.to_string();
            message.id = Some(id.clone());
            message.seq = Some(row.seq.0);
            message.position = row.position;
            message.size = row.ciphertext.len();
            self.tokens.insert((step.shard, *token), index);
            self.by_id.insert(id, index);
            let twice = self.by_seq.insert(row.seq.0, index);
            ensure!(
                twice.is_none(),
                "I6",
                "sequence {} was given twice",
                row.seq.0
            );
        }
        Ok(())
    }

    /// Something is to be made durable.
    pub(crate) fn persisted(
        &mut self,
        step: &Step<'_>,
        op: &StoreOp,
        token: Option<Token>,
    ) -> Verdict {
        self.cursor_noted(op)?;
        match op {
            StoreOp::PresencePut(row) => {
                self.scratch.put.push(row.id.clone());
                self.known_noted(&row.id, row.lease_until.map(|_| row.known));
                if let Some(token) = token {
                    let news = Due::Joined(row.id.clone());
                    self.waiting.insert((step.shard, token), news);
                }
            }
            StoreOp::PresenceGrace { id, known, .. } => {
                self.scratch.marked.push(id.clone());
                self.known_noted(id, Some(*known));
            }
            StoreOp::PresenceEnd { id, .. } => self.scratch.closed_rows.push((id.clone(), token)),
            StoreOp::MessageDelivered { seq, .. } => self.delivered(seq.0)?,
            StoreOp::MessageAcked { .. } => self.keys_are_own(step, op)?,
            StoreOp::WatchPut(row) => self.watch_noted(step, row)?,
            StoreOp::WatchRemoved { began, id } => self.watch_gone((*began, *id), step.tables)?,
            StoreOp::MessageInsert(_)
            | StoreOp::StateSet { .. }
            | StoreOp::StreamCreate(_)
            | StoreOp::Subscribed { .. }
            | StoreOp::PresenceTold { .. }
            | StoreOp::PresenceCursor { .. }
            | StoreOp::Restarted(_)
            | StoreOp::PeerStatePut(_)
            | StoreOp::Audit(_)
            | StoreOp::Fence
            | StoreOp::MemberRevoked { .. }
            | StoreOp::SchedulePut(_)
            | StoreOp::ScheduleFired { .. }
            | StoreOp::ScheduleCancelled { .. }
            | StoreOp::ServerPut(_)
            | StoreOp::ServerRemoved { .. }
            | StoreOp::Topic(_) => {}
        }
        Ok(())
    }

    /// Up to where a session without a socket knows the log is written down.
    pub(super) fn known_noted(&mut self, id: &str, known: Option<Position>) {
        if let Some(ledger) = self.ledgers.get_mut(id) {
            ledger.known = known;
        }
    }

    /// A cursor is written down: not beyond what was said to all and is surely not confirmed.
    fn cursor_noted(&mut self, op: &StoreOp) -> Verdict {
        let (id, cursor) = match op {
            StoreOp::PresencePut(row) => (&row.id, row.cursor),
            StoreOp::PresenceGrace { id, cursor, .. }
            | StoreOp::PresenceCursor { id, cursor, .. } => (id, *cursor),
            _ => return Ok(()),
        };
        let (Some(ledger), Some(lease)) = (self.ledgers.get(id), self.leases.get(id)) else {
            return Ok(());
        };
        let owed = ledger.done.iter().chain(&ledger.due);
        for entry in owed.filter(|entry| entry.sure && !entry.gone) {
            let news = &self.news[entry.news];
            let What::Message(index) = news.what else {
                continue;
            };
            let at = self.messages[index].position;
            ensure!(
                at.is_none_or(|at| at > cursor) || !self.sees(id, lease, news),
                "I4",
                "{id} has not confirmed what stands at {at:?}, and its cursor is at {cursor:?}"
            );
        }
        if let Some(ledger) = self.ledgers.get_mut(id) {
            ledger.noted = cursor;
        }
        Ok(())
    }

    /// A broker that is stopped in order leaves the cursors of all sessions on disk: nobody hears
    /// again what it had confirmed.
    pub(crate) fn cursors_noted(&self, step: &Step<'_>) -> Verdict {
        if !matches!(step.cause, Cause::Shutdown) {
            return Ok(());
        }
        for (id, lease) in self.leases.iter().filter(|(_, l)| l.shard == step.shard) {
            let Some(ledger) = self.ledgers.get(id).filter(|_| lease.conn().is_some()) else {
                continue;
            };
            ensure!(
                ledger.taken.is_none_or(|taken| taken <= ledger.noted),
                "I10",
                "{id} has confirmed {:?}, the broker stops with its cursor at {:?}",
                ledger.taken,
                ledger.noted
            );
        }
        Ok(())
    }

    fn delivered(&mut self, seq: u64) -> Verdict {
        let Some(index) = self.by_seq.get(&seq).copied() else {
            return Err(Violation::new("I4", "confirms a message nobody sent"));
        };
        self.scratch.delivered.push(index);
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
            lease.rewrite.retain(|other| *other != index);
        }
        Ok(())
    }

    /// Rows are asked for.
    pub(crate) fn asked_store(&mut self, step: &Step<'_>, query: &StoreQuery, token: Token) {
        let StoreQuery::Mailbox {
            mesh_id, target, ..
        } = query
        else {
            return;
        };
        self.read_mailbox((step.shard, token), mesh_id, *target);
    }

    fn read_mailbox(&mut self, at: (u16, Token), mesh_id: &str, key: PubKey) {
        let meshes = &self.plan.town.meshes;
        let Some(mesh) = meshes.iter().position(|mesh| mesh.id == mesh_id) else {
            return;
        };
        self.reading
            .retain(|_, old| old.until.is_none() || (old.mesh, old.key) != (mesh, key));
        let until = None;
        self.reading.insert(at, Reading { mesh, key, until });
    }

    /// Rows came, or the disk failed and is asked again in a second.
    pub(crate) fn read_ended(&mut self, step: &Step<'_>) {
        let now = self.mono();
        if let Cause::Time = step.cause {
            let rests = |reading: &Reading| reading.until.is_none_or(|until| now < until);
            self.reading
                .retain(|(shard, _), reading| *shard != step.shard || rests(reading));
        }
        let Cause::Answered(token, result) = step.cause else {
            return;
        };
        let at = (step.shard, *token);
        let until = now + 1_000 + TICK;
        if result.is_ok() {
            self.reading.remove(&at);
        } else if let Some(reading) = self.reading.get_mut(&at) {
            reading.until = Some(until);
        }
    }
}
