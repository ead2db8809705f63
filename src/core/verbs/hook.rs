//! `POST /hook/set-status` (protocol.md §2.3): the session it means, or a status kept for one
//! that is about to come.

use crate::event::Event;
use crate::input::HookCandidate;
use crate::limits::{HOOK_SCAN_MAX, PENDING_STATUS_MAX, PENDING_STATUS_TTL};
use crate::marks::{Mark, mark};
use crate::rows::{Status, StatusSource};
use crate::shard::{Shard, Turn};
use crate::time::Mono;

/// A status without a session yet.
#[derive(Debug)]
pub(crate) struct PendingStatus {
    cwd: String,
    pid: i64,
    status: Status,
    at: Mono,
}

impl Shard {
    /// The session of that directory and process, else the latest of that directory.
    pub(crate) fn hook_find(&self, cwd: &str, pid: Option<i64>) -> Option<HookCandidate> {
        let latest = || self.latest_in(cwd).take(HOOK_SCAN_MAX);
        let has_pid = |slot: &u32| {
            self.peers
                .get_slot(*slot)
                .is_some_and(|p| Some(p.card.pid()) == pid)
        };
        let exact = pid.and_then(|_| latest().find(has_pid));
        let slot = exact.or_else(|| latest().next())?;
        let peer = self.peers.get_slot(slot)?;
        Some(HookCandidate {
            slot,
            presence_id: peer.presence_id().to_owned(),
            exact: exact.is_some(),
            connected_at: peer.connected_at,
        })
    }

    /// Applies a hook's status; a hook never ends `dnd`.
    pub(crate) fn hook_apply(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        presence_id: &str,
        status: Status,
    ) -> bool {
        let peer = self
            .peers
            .get_slot(slot)
            .filter(|peer| *peer.presence_id() == *presence_id);
        let Some(peer) = peer else { return false };
        t.observe(Event::Hook);
        if peer.status != Status::Dnd {
            self.write_status(t, slot, status, StatusSource::Hook);
        } else {
            mark(Mark::HookMetDnd);
        }
        true
    }

    /// Keeps a status for a session to come; the oldest makes room.
    pub(crate) fn hook_pend(&mut self, now: Mono, cwd: String, pid: i64, status: Status) {
        self.drop_old_statuses(now);
        if self.pending_statuses.len() >= PENDING_STATUS_MAX {
            self.pending_statuses.pop_front();
        }
        self.pending_statuses.push_back(PendingStatus {
            cwd,
            pid,
            status,
            at: now,
        });
    }

    /// A new session takes the latest status that was posted for it.
    pub(crate) fn take_pending_status(&mut self, t: &mut Turn<'_>, slot: u32) {
        self.drop_old_statuses(t.now.mono);
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let meant = |p: &PendingStatus| p.pid == peer.card.pid() && *p.cwd == *peer.card.cwd();
        let Some(index) = self.pending_statuses.iter().rposition(meant) else {
            return;
        };
        if let Some(pending) = self.pending_statuses.remove(index) {
            mark(Mark::HookPendingTaken);
            self.write_status(t, slot, pending.status, StatusSource::Hook);
        }
    }

    fn drop_old_statuses(&mut self, now: Mono) {
        self.pending_statuses
            .retain(|pending| now.since(pending.at) <= PENDING_STATUS_TTL);
    }
}
