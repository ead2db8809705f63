//! How far each mesh's log reaches back, and so who is told that it missed something.

use std::collections::VecDeque;

use holdfast_core::limits::LogLimits;
use holdfast_core::time::Wall;

use super::ledger::{Entry, News, What};
use super::model::Lease;
use super::{Oracle, Verdict, ensure};
use crate::disk::Tables;

/// What the log of a mesh keeps. Its bytes are not known exactly: a frame that nobody was written
/// has not been seen. Nor is, after a restart, what of the news of presences it has again.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogModel {
    entries: VecDeque<Logged>,
    /// News below are gone: for sure, perhaps.
    pub(crate) dropped: (usize, usize),
    /// News below that everybody may have missed are gone for sure.
    missed: usize,
}

/// One entry, or what is known of it.
#[derive(Clone, Copy, Debug)]
struct Logged {
    place: usize,
    /// When it was said, at the latest and at the earliest that the log may think.
    at: (u64, u64),
    /// At least and at most.
    bytes: (usize, usize),
    /// Said by the present process: it is there for sure.
    fresh: bool,
    /// Only some may miss it: what was published, or a key, which may have been set again.
    light: bool,
}

impl LogModel {
    fn append(&mut self, entry: Logged, limits: &LogLimits) {
        let now = entry.at.0;
        self.entries.push_back(entry);
        let old = |at: u64| now.saturating_sub(at) > limits.age.0;
        let (mut count, mut least) = (0, 0);
        for entry in self.entries.iter().rev().filter(|entry| entry.fresh) {
            count += 1;
            least += entry.bytes.0;
            if count > limits.entries || least > limits.bytes || old(entry.at.0) {
                self.dropped.0 = self.dropped.0.max(entry.place + 1);
                break;
            }
        }
        let gone = self.dropped.0;
        let lost = self
            .entries
            .iter()
            .filter(|entry| entry.place < gone && !entry.light);
        self.missed = lost
            .map(|entry| entry.place + 1)
            .max()
            .unwrap_or(0)
            .max(self.missed);
        self.entries.retain(|entry| entry.place >= gone);
        self.doubt(now, limits);
    }

    /// What may be gone by now.
    fn doubt(&mut self, now: u64, limits: &LogLimits) {
        let (mut count, mut most) = (0, 0);
        for entry in self.entries.iter().rev() {
            count += 1;
            most += entry.bytes.1;
            let old = now.saturating_sub(entry.at.1) > limits.age.0;
            if count > limits.entries || most > limits.bytes || old {
                self.dropped.1 = self.dropped.1.max(entry.place + 1);
                break;
            }
        }
        self.dropped.1 = self.dropped.1.max(self.dropped.0);
    }
}

impl Oracle {
    /// A new process has put the logs together again, by the ages that its clock tells.
    pub(crate) fn logs_restarted(&mut self, tables: &Tables) {
        let (now, wall) = (self.mono(), self.now.wall);
        let limits = self.plan.swarm.config.log;
        let mut logs = std::mem::take(&mut self.logs);
        for log in &mut logs {
            log.dropped.0 = 0;
            log.missed = 0;
            for entry in &mut log.entries {
                let then = self.said_at(entry.place, tables).unwrap_or(wall);
                let age = wall.since(then).0;
                entry.at = (now, now.saturating_sub(age));
                entry.fresh = false;
                if age > limits.age.0 {
                    log.dropped.1 = log.dropped.1.max(entry.place + 1);
                }
            }
            log.doubt(now, &limits);
        }
        self.logs = logs;
    }

    /// When a piece of news was said, as its row has it.
    fn said_at(&self, place: usize, tables: &Tables) -> Option<Wall> {
        let news = &self.news[place];
        let of = tables.presences.get(&news.of);
        match news.what {
            What::Message(index) => {
                let seq = self.messages[index].seq?;
                tables.messages.get(&seq).map(|row| row.created_at)
            }
            What::Joined => of.map(|of| of.row.connected_at),
            What::Left => of.and_then(|of| of.ended).map(|(at, _)| at),
            What::Set(key, _) => {
                let row = super::sharing::state_row(self, tables, news.mesh, key);
                row.map(|row| row.updated_at)
            }
            What::Served(_, name) => {
                let row = self.server_row(tables, (news.mesh, name));
                row.map(|row| row.told.1)
            }
            What::Shown(_) | What::Data(..) => None,
        }
    }

    /// A piece of news goes into its mesh's log; what falls out need not come any more.
    pub(crate) fn log(&mut self, place: usize, news: &News) {
        let bytes = match news.what {
            What::Message(index) => {
                let size = self.messages[index].size;
                (size, size + 3_000)
            }
            // The news of who is there is written anew, and not kept.
            What::Joined => (0, 3_000),
            What::Left | What::Shown(_) | What::Served(..) => (150, 3_000),
            What::Set(..) => (0, 3_000),
            What::Data(..) => (60, 3_000),
        };
        let now = self.mono();
        let limits = self.plan.swarm.config.log;
        let log = &mut self.logs[news.mesh];
        let before = log.dropped;
        let entry = Logged {
            place,
            at: (now, now),
            bytes,
            fresh: true,
            light: matches!(news.what, What::Set(..) | What::Data(..)),
        };
        log.append(entry, &limits);
        if log.dropped != before {
            self.counts.dropped += 1;
            self.doubt_accounts(news.mesh);
        }
    }

    /// Time passes for logs, too.
    pub(crate) fn age_logs(&mut self) {
        let (now, limits) = (self.mono(), self.plan.swarm.config.log);
        for mesh in 0..self.logs.len() {
            let before = self.logs[mesh].dropped;
            self.logs[mesh].doubt(now, &limits);
            if self.logs[mesh].dropped != before {
                self.doubt_accounts(mesh);
            }
        }
    }

    /// What the log of a mesh may have dropped need not come; what it has cannot.
    fn doubt_accounts(&mut self, mesh: usize) {
        let dropped = self.logs[mesh].dropped;
        for (id, ledger) in &mut self.ledgers {
            let Some(lease) = self.leases.get(id).filter(|l| l.mesh == mesh) else {
                continue;
            };
            if let Some(at) = lease.conn() {
                let lost = |entry: &&Entry| entry.sure && !entry.gone && entry.news < dropped.0;
                let lost = ledger.due.iter().filter(lost).count() as u64;
                self.counts.overtaken += lost;
                if lost > 0 {
                    self.scratch.overtaken.push((id.clone(), at));
                }
            }
            for entry in ledger.due.iter_mut().chain(&mut ledger.done) {
                entry.sure &= entry.news >= dropped.1;
                entry.gone |= entry.news < dropped.0;
            }
        }
    }

    /// Who was still to be written what a log has dropped comes back to be told so.
    pub(crate) fn overtaken_cut(&self) -> Verdict {
        for (id, at) in &self.scratch.overtaken {
            let there = self.leases.get(id).and_then(Lease::conn) == Some(*at);
            ensure!(
                !there,
                "I6",
                "{id} is online and the log has dropped what it was still to be written"
            );
        }
        Ok(())
    }

    /// Whether the log no longer holds all that a session has not confirmed: for sure, perhaps.
    pub(crate) fn truncated(&self, id: &str) -> (bool, bool) {
        let (Some(ledger), Some(lease)) = (self.ledgers.get(id), self.leases.get(id)) else {
            return (false, true);
        };
        let (least, mut most) = ledger.cursor;
        if !ledger.wrote {
            most = most.max(self.reach(id));
        }
        let log = &self.logs[lease.mesh];
        // Of what was published before a restart there is nothing.
        let torn = self.sharing.torn.contains(id);
        let perhaps = torn || self.sharing.restored.contains(id);
        (torn || most < log.missed, perhaps || least < log.dropped.1)
    }
}
