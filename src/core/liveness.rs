//! Proof of life: any inbound frame is one; pings ask for it; silence ends the attachment.

use crate::attachment::Attachment;
use crate::effect::Effect;
use crate::event::Event;
use crate::ids::{ConnId, PeerHandle, Position};
use crate::limits::WATERMARK_DELAY;
use crate::marks::{Mark, mark};
use crate::peer::{Lease, PeerConn};
use crate::shard::{Shard, Timer, Turn};
use crate::time::{Millis, Mono};
use crate::watching::Watches;

impl Shard {
    /// Something arrived on a socket: gives the session, if the socket is attached to one.
    pub(crate) fn proof_of_life(&mut self, t: &mut Turn<'_>, conn: ConnId, what: &'static str) {
        self.attached(t, conn, what);
    }

    /// The session a socket is attached to, now alive; None, and counted, if it is stale.
    pub(crate) fn attached(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        what: &'static str,
    ) -> Option<PeerHandle> {
        let handle = match self.attachments.get_mut(conn)? {
            Attachment::Attached(handle) => *handle,
            Attachment::Greeting(_) | Attachment::Contending { .. } => return None,
            Attachment::Closing => {
                mark(Mark::StaleInput);
                t.observe(Event::Stale { conn, what });
                return None;
            }
        };
        let Some(peer) = self.peers.get_mut(handle) else {
            t.observe(Event::Stale { conn, what });
            self.close(t, conn, crate::effect::Close::SESSION_GONE);
            return None;
        };
        peer.last_seen = t.now.mono;
        Some(handle)
    }

    /// A pong: proof of life, and of what the client's WebSocket stack has taken.
    pub(crate) fn ponged(&mut self, t: &mut Turn<'_>, conn: ConnId, payload: &[u8]) {
        let Some(handle) = self.attached(t, conn, "pong") else {
            return;
        };
        let Ok(watermark) = <[u8; 8]>::try_from(payload).map(u64::from_be_bytes) else {
            return;
        };
        let watermark = Position(watermark);
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        let Lease::Online(online) = &mut peer.lease else {
            return;
        };
        let marks = &mut online.watermarks;
        let confirmed = peer.outbox.pong(marks, watermark, peer.acknowledges);
        let known = watermark <= marks.pinged();
        // Only the latest ping says how much of the log was written before it.
        if watermark == online.watermarks.pinged() {
            let read = online.walk.as_mut().map_or(watermark, |walk| {
                walk.unconfirmed = 0;
                walk.pinged
            });
            peer.confirm_log(read);
            self.note_cursor(t, handle.slot);
        }
        if !confirmed.is_empty() {
            mark(Mark::WatermarkConfirmed);
        }
        self.confirmed(t, handle.slot, &confirmed);
        if known {
            self.watches_confirmed(t, handle.slot, watermark);
        }
        self.incumbent_ponged(t, handle.slot);
    }

    /// Arms the first liveness check of an attachment: between half an interval and a whole one
    /// after it, spread so that sessions that came together are not pinged together.
    pub(crate) fn start_liveness(&mut self, now: Mono, handle: PeerHandle) {
        let half = (self.config.ping_interval.0 / 2).max(1);
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        // Fibonacci hashing: consecutive numbers land far apart.
        let attached = peer.online().map_or(0, |online| online.attached);
        let offset = attached.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let due = now.after(Millis(half + offset % half));
        peer.lease_timer = Some(self.wheel.insert(due, Timer::Liveness(handle)));
    }

    /// The timer of an attachment fired: ping, wait on, or give up.
    pub(crate) fn check_liveness(&mut self, t: &mut Turn<'_>, handle: PeerHandle) {
        let (ping_interval, pong_timeout) = (self.config.ping_interval, self.config.pong_timeout);
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        let Some(online) = peer.online() else {
            return;
        };
        let conn = online.conn;
        let dead_at = peer.last_seen.after(pong_timeout);
        if t.now.mono >= dead_at {
            mark(Mark::Silent);
            t.observe(Event::Silent { peer: handle });
            self.attachments.set(conn, Attachment::Closing);
            t.fx.push(Effect::Abort { conn });
            self.begin_grace(t, handle.slot);
            self.admit_challenger(t, handle.slot);
            return;
        }
        // The first ping comes early, so that sessions that attached together part.
        let due = online.watermarks.pinged() == Position::default()
            || t.now.mono >= peer.ping_due(ping_interval);
        let unconfirmed = peer.outbox.len() > 0 || peer.watches().is_some_and(Watches::tell);
        let burst = online.watermarks.unpinged() && unconfirmed;
        if due {
            peer.rest(t.now.mono);
        } else if burst {
            mark(Mark::WatermarkPing);
        }
        if due || burst {
            self.ping_watermark(t, handle);
        }
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        let ping_due = peer.ping_due(ping_interval);
        peer.lease_timer = Some(
            self.wheel
                .insert(ping_due.min(dead_at), Timer::Liveness(handle)),
        );
    }

    /// After a push: a watermark ping soon, or at once if so much is unconfirmed that delivery
    /// would stall.
    pub(crate) fn watermark_after_push(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(handle) = self.peers.handle_of(slot) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(handle) else {
            return;
        };
        let Lease::Online(online) = &peer.lease else {
            return;
        };
        if peer.outbox.wants_ping(&online.watermarks) {
            return self.ping_watermark(t, handle);
        }
        let due = t.now.mono.after(WATERMARK_DELAY);
        let Some(timer) = peer.lease_timer else {
            return;
        };
        // One timer per session: it fires sooner, and finds the burst.
        if self.wheel.deadline(timer).is_some_and(|at| at > due) {
            self.wheel.cancel(timer);
            peer.lease_timer = Some(self.wheel.insert(due, Timer::Liveness(handle)));
        }
    }

    /// Pings, unless the last ping is still under way: only the latest counts in full, so that a
    /// slow client must not be overtaken by the next.
    pub(crate) fn ask_watermark(&mut self, t: &mut Turn<'_>, handle: PeerHandle) {
        let online = self.peers.get(handle).and_then(PeerConn::online);
        if online.is_some_and(|online| !online.watermarks.awaits_pong()) {
            self.ping_watermark(t, handle);
        }
    }

    /// Writes a ping that stands behind everything written so far.
    pub(crate) fn ping_watermark(&mut self, t: &mut Turn<'_>, handle: PeerHandle) {
        let written = self.stamp();
        let peer = self.peers.get_mut(handle);
        let Some(online) = peer.and_then(PeerConn::online_mut) else {
            return;
        };
        online.last_ping = t.now.mono;
        online.watermarks.ping(written);
        if let Some(walk) = &mut online.walk {
            walk.pinged = walk.next;
        }
        t.fx.push(Effect::Ping {
            conn: online.conn,
            watermark: written.0,
        });
    }
}
