//! Two hosts with one session key (design.md §8.1): the newcomer takes over as always, but from
//! the third takeover within ten seconds the incumbent is pinged first, and if its pong comes
//! within two seconds the newcomer is refused.

use crate::attachment::{Attachment, Challenger};
use crate::event::Event;
use crate::hello::{Hello, Refusal};
use crate::ids::ConnId;
use crate::limits::{CONFLICT_ANSWER, CONFLICT_TAKEOVERS, CONFLICT_WINDOW, REPEATED_HELLOS};
use crate::marks::{Mark, mark};
use crate::peer::{PeerConn, Rivalry};
use crate::shard::{Shard, Timer, Turn};
use crate::time::Mono;

/// Frames, and their bytes, held for a challenger; one that sends more before its answer is
/// closed.
const HELD_MAX: usize = 64;
const HELD_BYTES_MAX: usize = 256 * 1024;

impl Rivalry {
    /// Whether nothing of it counts any more.
    pub(crate) fn is_over(&self, now: Mono) -> bool {
        self.challenger.is_none() && now.since(self.since) > CONFLICT_WINDOW
    }
}

/// What happened within the window, which begins anew if it has passed.
fn recent(peer: &mut PeerConn, now: Mono) -> &mut Rivalry {
    let rivalry = &mut peer.rare_mut().rivalry;
    if now.since(rivalry.since) > CONFLICT_WINDOW {
        rivalry.since = now;
        rivalry.takeovers = 0;
        rivalry.repeats = 0;
    }
    rivalry
}

impl Shard {
    /// A hello for a present session: reattach, take over, or ask the incumbent first.
    pub(crate) fn reattach_or_contend(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        conn: ConnId,
        hello: Box<Hello>,
    ) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        if peer.conn().is_none() {
            return self.reattach(t, slot, conn, &hello);
        }
        let rivalry = recent(peer, t.now.mono);
        if let Some(challenger) = &mut rivalry.challenger {
            // Whoever comes later is the likelier to live: the first may be a socket of the same
            // client whose end is still unseen.
            mark(Mark::ChallengerReplaced);
            let first = std::mem::replace(&mut challenger.conn, conn);
            challenger.hello = hello;
            challenger.held.clear();
            self.attachments.set(conn, Attachment::Contending { slot });
            return self.refuse_rival(t, slot, first);
        }
        rivalry.takeovers = rivalry.takeovers.saturating_add(1);
        if rivalry.takeovers < CONFLICT_TAKEOVERS {
            return self.reattach(t, slot, conn, &hello);
        }
        self.challenge(t, slot, conn, hello);
    }

    /// Asks the incumbent whether it lives, and has the newcomer wait for the answer.
    fn challenge(&mut self, t: &mut Turn<'_>, slot: u32, conn: ConnId, hello: Box<Hello>) {
        let Some(incumbent) = self.peers.handle_of(slot) else {
            return;
        };
        mark(Mark::Contend);
        self.ping_watermark(t, incumbent);
        let deadline = t.now.mono.after(CONFLICT_ANSWER);
        let timer = self.wheel.insert(deadline, Timer::Conflict(slot));
        if let Some(peer) = self.peers.get_slot_mut(slot)
            && let Some(online) = peer.online()
        {
            let asked = online.watermarks.pinged();
            peer.rare_mut().rivalry.challenger = Some(Challenger {
                conn,
                hello,
                held: Vec::new(),
                asked,
                timer,
            });
        }
        self.attachments.set(conn, Attachment::Contending { slot });
    }

    /// Whether a socket that has joined may say hello once more.
    pub(crate) fn may_repeat_hello(&mut self, t: &Turn<'_>, slot: u32) -> bool {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return false;
        };
        let rivalry = recent(peer, t.now.mono);
        rivalry.repeats = rivalry.repeats.saturating_add(1);
        rivalry.repeats <= REPEATED_HELLOS
    }

    /// The incumbent answered a ping. Only the one that asked it, or a later, shows that it lives:
    /// anything else may have been under way when its socket died.
    pub(crate) fn incumbent_ponged(&mut self, t: &mut Turn<'_>, slot: u32) {
        let online = self.peers.get_slot(slot).and_then(PeerConn::online);
        let ponged = online.map(|online| online.watermarks.ponged());
        let asked = self.challenger(slot).map(|challenger| challenger.asked);
        if asked.is_some()
            && asked <= ponged
            && let Some(challenger) = self.take_challenger(slot)
        {
            self.wheel.cancel(challenger.timer);
            mark(Mark::ConflictRefused);
            self.refuse_rival(t, slot, challenger.conn);
        }
    }

    /// The incumbent did not answer in time.
    pub(crate) fn incumbent_silent(&mut self, t: &mut Turn<'_>, slot: u32) {
        self.admit_challenger(t, slot);
    }

    /// The incumbent is gone or silent: the challenger takes its place.
    pub(crate) fn admit_challenger(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(challenger) = self.take_challenger(slot) else {
            return;
        };
        self.wheel.cancel(challenger.timer);
        mark(Mark::ChallengerAdmitted);
        self.attachments.remove(challenger.conn);
        self.reattach(t, slot, challenger.conn, &challenger.hello);
        for text in challenger.held {
            self.frame(t, challenger.conn, &text);
        }
    }

    /// A frame of a challenger waits for its hello's answer.
    pub(crate) fn hold_frame(&mut self, t: &mut Turn<'_>, conn: ConnId, slot: u32, text: &str) {
        let Some(challenger) = self.challenger_mut(slot).filter(|c| c.conn == conn) else {
            return;
        };
        let bytes: usize = challenger.held.iter().map(|frame| frame.len()).sum();
        if challenger.held.len() < HELD_MAX && bytes + text.len() <= HELD_BYTES_MAX {
            mark(Mark::FrameHeld);
            challenger.held.push(text.into());
            return;
        }
        self.challenger_left(slot, conn);
        self.close(t, conn, crate::effect::Close::SLOW_CONSUMER);
    }

    /// The challenger's socket ended.
    pub(crate) fn challenger_left(&mut self, slot: u32, conn: ConnId) {
        if self.challenger(slot).is_some_and(|c| c.conn == conn)
            && let Some(challenger) = self.take_challenger(slot)
        {
            mark(Mark::ChallengerLeft);
            self.wheel.cancel(challenger.timer);
        }
    }

    /// The session is going: whoever waits for its place is told to try again.
    pub(crate) fn dismiss_challenger(&mut self, t: &mut Turn<'_>, slot: u32) {
        if let Some(challenger) = self.take_challenger(slot) {
            self.wheel.cancel(challenger.timer);
            mark(Mark::ChallengerDismissed);
            self.close(t, challenger.conn, crate::effect::Close::SESSION_GONE);
        }
    }

    fn challenger(&self, slot: u32) -> Option<&Challenger> {
        let rare = self.peers.get_slot(slot)?.rare.as_ref()?;
        rare.rivalry.challenger.as_ref()
    }

    fn challenger_mut(&mut self, slot: u32) -> Option<&mut Challenger> {
        let rare = self.peers.get_slot_mut(slot)?.rare.as_mut()?;
        rare.rivalry.challenger.as_mut()
    }

    fn take_challenger(&mut self, slot: u32) -> Option<Challenger> {
        let rare = self.peers.get_slot_mut(slot)?.rare.as_mut()?;
        rare.rivalry.challenger.take()
    }

    fn refuse_rival(&mut self, t: &mut Turn<'_>, slot: u32, conn: ConnId) {
        if let Some(peer) = self.peers.handle_of(slot) {
            t.observe(Event::Conflict { peer });
        }
        self.refuse(
            t,
            conn,
            Refusal::new(
                "session_conflict",
                "this session is connected from elsewhere",
            ),
        );
    }
}
