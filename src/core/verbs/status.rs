//! What a session says it is doing (protocol.md §9), and what becoming idle releases.

use crate::event::Event;
use crate::limits::{HOOK_FRESH, NAME_BYTES_MAX, WORKING_TTL};
use crate::marks::{Mark, mark};
use crate::rows::{Status, StatusSource};
use crate::shard::{Shard, Timer, Turn};
use crate::verbs::Request;
use crate::wire::FieldError;

impl Shard {
    pub(crate) fn set_status(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let status = Status::parse(&request.fields.str("status", NAME_BYTES_MAX)?)
            .ok_or_else(|| FieldError::new("status", "one of idle, working, dnd"))?;
        self.write_status(t, request.slot, status, StatusSource::Manual);
        Ok(())
    }

    /// The write rule of protocol.md §9; whatever releases held messages drains them.
    pub(crate) fn write_status(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        status: Status,
        source: StatusSource,
    ) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let fresh = t.now.wall.since(peer.status_at) <= HOOK_FRESH;
        let keeps_source = peer.status == status && source < peer.status_source && fresh;
        if !keeps_source {
            peer.status_source = source;
        }
        peer.status = status;
        peer.status_at = t.now.wall;
        if let Some(timer) = peer.working_timer.take() {
            self.wheel.cancel(timer);
        }
        if status == Status::Working {
            let due = t.now.mono.after(WORKING_TTL);
            peer.working_timer = Some(self.wheel.insert(due, Timer::Working(slot)));
        }
        self.persist_presence(t, slot);
        if status == Status::Idle {
            self.drain(t, slot);
        }
    }

    /// Nobody renewed a `working`.
    pub(crate) fn working_over(&mut self, t: &mut Turn<'_>, slot: u32) {
        if let Some(peer) = self.peers.get_slot_mut(slot) {
            peer.working_timer = None;
        }
        mark(Mark::WorkingOver);
        t.observe(Event::StatusExpired);
        self.write_status(t, slot, Status::Idle, StatusSource::Jsonl);
    }
}
