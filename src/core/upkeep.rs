//! What becomes of a mesh's log: who has confirmed what, and what nobody needs any more.

use crate::chain::List;
use crate::effect::Close;
use crate::limits::{LOG_WATCHED, WATERMARK_DELAY};
use crate::marks::{Mark, mark};
use crate::peer::{MeshIx, PeerConn};
use crate::shard::{Shard, Timer, Turn};
use crate::time::Millis;

impl Shard {
    /// A while after something was said to a mesh: whoever has not confirmed it is asked to, cursors
    /// are noted, and what everybody has confirmed is forgotten.
    pub(crate) fn burst_over(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        let limits = self.config.log;
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        found.burst = None;
        let end = found.log.end();
        let (mut waiting, mut confirmed, mut noted) = (false, end, end);
        for slot in self.present_slots(mesh) {
            self.note_cursor(t, slot);
            let Some(peer) = self.peers.get_slot(slot) else {
                continue;
            };
            confirmed = confirmed.min(peer.cursor);
            let Some(online) = peer.online() else {
                continue;
            };
            noted = noted.min(online.noted.0);
            if peer.cursor < end && online.watermarks.pinged() < end {
                waiting |= online.watermarks.awaits_pong();
                if let Some(handle) = self.peers.handle_of(slot) {
                    self.ask_watermark(t, handle);
                }
            }
        }
        if let Some(found) = self.mesh_mut(mesh) {
            found.log.release(confirmed);
            found.log.trim(t.now.mono, &limits);
        }
        for slot in self.present_slots(mesh) {
            self.cut_overtaken(t, slot);
        }
        if waiting {
            self.look_after(t, mesh, WATERMARK_DELAY);
        } else if noted < end {
            self.look_after(t, mesh, LOG_WATCHED);
        } else {
            self.watch_log(t, mesh);
        }
    }

    /// Whether the log has dropped what an online session still waits for.
    pub(crate) fn is_overtaken(&self, slot: u32) -> bool {
        let Some(peer) = self.peers.get_slot(slot) else {
            return false;
        };
        let removed = self.mesh(peer.mesh).map(|mesh| mesh.log.removed());
        peer.walk()
            .is_some_and(|walk| removed.is_some_and(|removed| removed > walk.next))
    }

    /// Who is overtaken has to come back to be told so.
    pub(crate) fn cut_overtaken(&mut self, t: &mut Turn<'_>, slot: u32) {
        let conn = self.peers.get_slot(slot).and_then(PeerConn::conn);
        if let Some(conn) = conn.filter(|_| self.is_overtaken(slot)) {
            mark(Mark::Overtaken);
            self.close(t, conn, Close::SLOW_CONSUMER);
            self.begin_grace(t, slot);
        }
    }

    /// Sees that somebody looks after what was said to a mesh within that time.
    pub(crate) fn look_after(&mut self, t: &Turn<'_>, mesh: MeshIx, delay: Millis) {
        let due = t.now.mono.after(delay);
        let burst = self.mesh(mesh).and_then(|found| found.burst);
        match burst {
            Some((soon, _)) if soon <= due => return,
            Some((_, timer)) => {
                self.wheel.cancel(timer);
            }
            None => {}
        }
        let timer = self.wheel.insert(due, Timer::Burst(mesh));
        if let Some(found) = self.mesh_mut(mesh) {
            found.burst = Some((due, timer));
        }
    }

    /// Looks again later at what not all have confirmed.
    pub(crate) fn watch_log(&mut self, t: &Turn<'_>, mesh: MeshIx) {
        if self.mesh(mesh).is_some_and(|found| !found.log.is_empty()) {
            self.look_after(t, mesh, LOG_WATCHED);
        }
    }

    /// The slots of everybody present, in the order in which their leases began.
    pub(crate) fn present_slots(&self, mesh: MeshIx) -> Vec<u32> {
        self.present_in(mesh).collect()
    }

    /// The same, one after the other.
    pub(crate) fn present_in(&self, mesh: MeshIx) -> impl Iterator<Item = u32> {
        let roster = self.mesh(mesh).map(|found| found.roster);
        roster.unwrap_or_default().iter(&self.peers, List::Mesh)
    }
}
