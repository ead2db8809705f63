//! Watermarks: what a pong confirms, who may be kept waiting for one, and by when it is asked for.

use std::collections::BTreeSet;

use super::conns::TICK;
use super::ledger::{News, Ping, What};
use super::mail::{Fate, Message, Target};
use super::model::Lease;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use holdfast_core::limits;
use holdfast_core::rows::Priority;

/// Bytes of news that may be written late without a watermark coming back.
pub(crate) const WALK_BYTES: usize = limits::OUTBOUND_BYTES_MAX / 4;

impl Oracle {
    /// A ping was written: it stands behind everything written to the socket.
    pub(crate) fn pinged(&mut self, at: ConnKey, watermark: u64) -> Verdict {
        let now = self.mono();
        let Some(id) = self.attached(at).map(|(id, _)| id.clone()) else {
            return Err(Violation::new(
                "I1",
                format!("a ping to {at:?}, which is not attached"),
            ));
        };
        let most = self.reach(&id);
        let Some(lease) = self.leases.get_mut(&id) else {
            return Ok(());
        };
        lease.last_ping = now;
        let written = lease.unconfirmed.iter().copied();
        let direct = written
            .filter(|index| !lease.rewrite.contains(index))
            .collect();
        let ledger = self.ledgers.entry(id.clone()).or_default();
        let last = ledger.pings.last().map_or(0, |ping| ping.watermark);
        ensure!(
            watermark > last,
            "I5",
            "{id} is pinged with {watermark} after {last}"
        );
        let least = ledger.due.front().map_or(most, |entry| entry.news);
        ledger.pings.push(Ping {
            watermark,
            read: (least.min(most), most),
            direct,
        });
        ledger.asked = true;
        ledger.unasked = None;
        self.watches.pinged(at, watermark);
        self.calls.pinged(at, watermark);
        self.scratch.pings.push(at);
        Ok(())
    }

    /// What was said in this step and was not for who was pinged may have stood before the ping: it
    /// is known only now.
    pub(crate) fn pings_completed(&mut self) {
        for at in &self.scratch.pings {
            let attached = self.leases.iter().find(|(_, l)| l.conn() == Some(*at));
            let ledger = attached.and_then(|(id, _)| self.ledgers.get_mut(id));
            let Some(ledger) = ledger else { continue };
            let owed = ledger.done.iter().chain(&ledger.due);
            let owed: BTreeSet<usize> = owed.map(|entry| entry.news).collect();
            let Some(ping) = ledger.pings.last_mut() else {
                continue;
            };
            while ping.read.1 < self.news.len() && !owed.contains(&ping.read.1) {
                ping.read.1 += 1;
            }
        }
    }

    /// A pong came: one to a ping of this socket confirms what stood before that.
    pub(crate) fn ponged(&mut self, at: ConnKey, payload: &[u8]) {
        let now = self.mono();
        self.scratch.ponged = Some(Vec::new());
        let Some(id) = self.attached(at).map(|(id, _)| id.clone()) else {
            return;
        };
        let Ok(watermark) = <[u8; 8]>::try_from(payload).map(u64::from_be_bytes) else {
            return;
        };
        let ledger = self.ledgers.entry(id.clone()).or_default();
        let place = ledger.pings.iter().position(|p| p.watermark == watermark);
        let Some(place) = place else { return };
        self.scratch.answered = Some((id, watermark));
        let (least, most) = ledger.pings[place].read;
        self.scratch.ponged = Some(ledger.pings[place].direct.clone());
        if place + 1 == ledger.pings.len() {
            let messages = &self.messages;
            let taken = ledger.done.iter().filter(|e| e.ever && e.news < least);
            let taken = taken.filter_map(|entry| match self.news[entry.news].what {
                What::Message(index) => messages[index].position,
                _ => None,
            });
            ledger.taken = taken.max().max(ledger.taken);
            ledger.confirm(least, most);
            ledger.bytes = 0;
            ledger.late = 0;
            ledger.asked = false;
            ledger.answered = now;
        } else {
            // Only the last ping tells how much of the news stood before it.
            let sure = ledger.cursor.0;
            ledger.confirm(sure, most);
        }
    }

    /// After a pong: exactly what stood before its ping is confirmed.
    pub(crate) fn pong_counted(&self, step: &Step<'_>) -> Verdict {
        let (Some(before), Some(conn)) = (&self.scratch.ponged, step.conn) else {
            return Ok(());
        };
        for index in &self.scratch.delivered {
            ensure!(
                before.contains(index),
                "I4",
                "m{} was confirmed by a pong that does not",
                self.messages[*index].said.number
            );
        }
        let Some((id, lease)) = self.attached((step.shard, conn)) else {
            return Ok(());
        };
        if lease.acks || self.stopping {
            return Ok(());
        }
        let left = before
            .iter()
            .find(|index| lease.unconfirmed.contains(index));
        ensure!(
            left.is_none(),
            "I6",
            "the pong of {id} does not confirm message {left:?}"
        );
        Ok(())
    }

    /// Whether what a session is written waits for a watermark.
    fn paced(&self, id: &str) -> bool {
        self.ledgers.get(id).is_some_and(|l| l.bytes >= WALK_BYTES)
    }

    /// Whether mail that comes before may keep a session waiting: some that cannot be written, or
    /// that is still read from disk.
    fn waits_for_mail(&self, id: &str, lease: &Lease) -> bool {
        let key = self.plan.town.member_key(lease.who.member);
        let full = lease.unconfirmed.len() >= limits::OUTBOX_MESSAGES_MAX / 2;
        let read = self.reading.iter().any(|(_, reading)| {
            reading.mesh == lease.mesh && (Some(reading.key) == lease.key || reading.key == key)
        });
        if full || read {
            return true;
        }
        let held = |priority| priority != Priority::Now && self.holds(lease);
        self.open_mail(id, lease)
            .any(|message| !held(message.said.priority))
    }

    /// Direct messages that a session may be meant to get and has not been written.
    pub(crate) fn open_mail<'a>(
        &'a self,
        id: &'a str,
        lease: &'a Lease,
    ) -> impl Iterator<Item = &'a Message> {
        let key = self.plan.town.member_key(lease.who.member);
        let own = move |target: &Target| matches!(target, Target::Key(to) if Some(*to) == lease.key || *to == key);
        let messages = self.messages.iter().enumerate();
        let open = messages.filter(move |(index, message)| {
            message.mesh == lease.mesh
                && own(&message.target)
                && message.fate != Fate::Refused
                && !(message.delivered || message.lost || message.renounced)
                && !lease.unconfirmed.contains(index)
                && message.sender != *id
                && message
                    .holder
                    .as_ref()
                    .is_none_or(|holder| !self.leases.contains_key(holder))
        });
        open.map(|(_, message)| message)
    }

    /// After the effects: whoever keeps up has been written everything.
    pub(crate) fn accounts_settled(&mut self) -> Verdict {
        let ids: Vec<String> = self.leases.keys().cloned().collect();
        for id in ids {
            let Some(lease) = self.leases.get(&id).filter(|l| l.conn().is_some()) else {
                continue;
            };
            let paced = self.paced(&id);
            if !lease.rewrite.is_empty() && !self.stopping {
                let next = lease
                    .rewrite
                    .front()
                    .map(|at| self.messages[*at].said.number);
                ensure!(paced, "I4", "{id} came back and was not written m{next:?}");
            }
            if self.ledgers.get(&id).is_none_or(|l| l.due.is_empty()) || self.stopping {
                continue;
            }
            if let Some(news) = self.next_due(&id) {
                let waits = paced || self.waits_for_mail(&id, lease);
                ensure!(waits, "I4", "{id} was not told {}", self.name_of(news));
            } else if !paced && !self.waits_for_mail(&id, lease) {
                // Nothing there was for it.
                if let Some(ledger) = self.ledgers.get_mut(&id) {
                    let rest = std::mem::take(&mut ledger.due);
                    ledger.done.extend(rest);
                }
            }
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn name_of(&self, news: &News) -> String {
        match news.what {
            What::Message(index) => format!(
                "m{} to {}",
                self.messages[index].said.number, self.messages[index].said.target
            ),
            what => format!("{what:?} of {}", news.of),
        }
    }

    /// A burst is followed by a ping within a second, unless one is still unanswered (issue: a
    /// session that is not asked never confirms).
    pub(crate) fn asked_in_time(&self, id: &str, lease: &Lease) -> Verdict {
        let Some(ledger) = self.ledgers.get(id) else {
            return Ok(());
        };
        let (Some(since), false) = (ledger.unasked, ledger.asked) else {
            return Ok(());
        };
        let waits = !ledger.due.is_empty() || !lease.rewrite.is_empty();
        let waited = self.mono().saturating_sub(since.max(ledger.answered));
        ensure!(
            waits || waited < limits::WATERMARK_DELAY.0 + TICK,
            "I8",
            "{id} was not asked for a watermark for {waited} ms"
        );
        Ok(())
    }

    /// Who may see what has changed: what somebody could not see for a while need not come.
    pub(crate) fn reconsider(&mut self, step: &Step<'_>) {
        use crate::said::Said;
        let changes = match step.cause {
            Cause::Frame(frame) => matches!(
                frame.said,
                Said::Join(_)
                    | Said::Leave(_)
                    | Said::Visible(_)
                    | Said::Hello(_)
                    | Said::Subscribe(..)
            ),
            Cause::Adopted(..) | Cause::Put(_) => true,
            _ => false,
        };
        if !changes {
            return;
        }
        let mut ledgers = std::mem::take(&mut self.ledgers);
        for (id, ledger) in &mut ledgers {
            let Some(lease) = self.leases.get(id) else {
                continue;
            };
            for entry in ledger.done.iter_mut().chain(&mut ledger.due) {
                entry.sure = entry.sure && self.sees(id, lease, &self.news[entry.news]);
            }
        }
        self.ledgers = ledgers;
    }
}
