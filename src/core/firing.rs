//! Scheduled messages that fall due: a send on behalf of the member, whoever of it is there.
//!
//! They are due by the wall clock, which may be put forward or back. One timer waits for the first
//! of them, and no longer than the clock may go unwatched.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::chain::List;
use crate::cron;
use crate::event::Event;
use crate::ids::PeerHandle;
use crate::limits::{SCHEDULE_RETRY, SCHEDULES_AT_ONCE, SCHEDULES_WATCHED};
use crate::log::What;
use crate::marks::{Mark, mark};
use crate::outbox::Mail;
use crate::peer::{MemberIx, MeshIx};
use crate::routing::{Audience, NoRecipient, Recipient, Target};
use crate::rows::{MessageRow, Origin, Priority, ScheduleRow, StoreFailure, StoreOp};
use crate::schedules::Key;
use crate::shard::{Shard, Timer, Turn, Waiting};
use crate::verbs::send::{accepted, refusal, topic_not_found};
use crate::wheel::TICK;

/// A message that falls due, and where it goes.
type Due = (MessageRow, Way);

enum Way {
    Direct(Recipient),
    Many(Audience),
}

impl Shard {
    /// A scheduled message found at boot. One that should have been sent meanwhile is sent now; what
    /// repeats waits for its next time.
    pub(crate) fn schedule_found(&mut self, t: &Turn<'_>, mut row: ScheduleRow) {
        let Some(member) = self.member_ids.get(row.member_id.as_str()).copied() else {
            return;
        };
        if let Some(expression) = &row.cron
            && row.deliver_at <= t.now.wall
        {
            row.deliver_at = cron::next(expression, t.now.wall).unwrap_or(row.deliver_at);
        }
        mark(Mark::ScheduleFound);
        let due = row.deliver_at;
        let key = self.schedules.insert(member, row);
        self.schedules.wake(key, due);
        self.await_schedules(t);
    }

    /// Sees that the first scheduled message is looked at in time.
    pub(crate) fn await_schedules(&mut self, t: &Turn<'_>) {
        let Some((first, _)) = self.schedules.first() else {
            return;
        };
        // Not at this very moment, so that the timers of one call come to an end.
        let span = first.since(t.now.wall).max(TICK).min(SCHEDULES_WATCHED);
        let due = t.now.mono.after(span);
        match self.schedules.timer {
            Some((soon, _)) if soon <= due => return,
            Some((_, timer)) => {
                self.wheel.cancel(timer);
            }
            None => {}
        }
        let timer = self.wheel.insert(due, Timer::Schedules);
        self.schedules.timer = Some((due, timer));
    }

    /// Sends what is due by the wall clock.
    pub(crate) fn schedules_due(&mut self, t: &mut Turn<'_>) {
        self.schedules.timer = None;
        for _ in 0..SCHEDULES_AT_ONCE {
            match self.schedules.first() {
                Some((wakes, key)) if wakes <= t.now.wall => self.fire(t, key),
                Some(_) | None => break,
            }
        }
        self.await_schedules(t);
    }

    /// Sends one, and notes that it did, in one operation of the store.
    fn fire(&mut self, t: &mut Turn<'_>, key: Key) {
        let (rate, burst) = (self.config.send_rate, self.config.send_burst);
        let member = self.member_mut(key.0);
        if member.is_some_and(|member| !member.bucket.take(t.now.mono, rate, burst)) {
            mark(Mark::SchedulePaced);
            self.schedules.wake(key, t.now.wall.after(SCHEDULE_RETRY));
            return;
        }
        let Some(schedule) = self.schedules.get(key) else {
            return;
        };
        let row = schedule.row.clone();
        let now = t.now.wall.max(row.deliver_at);
        let next = row.cron.as_deref().and_then(|cron| cron::next(cron, now));
        match next {
            Some(next) => {
                mark(Mark::CronSent);
                self.schedules.fired(key, next);
            }
            None => {
                mark(Mark::ScheduleSent);
                self.schedules.remove(key);
            }
        }
        let author = self.author(key.0, &row.presence_id);
        if let Some(author) = author {
            // Whoever hears from it must have heard of it first.
            self.announce_joined(t, author.slot);
        }
        let ack_id = self.mint.uuid_v4();
        let op = |sent| {
            let id = row.id.clone();
            StoreOp::ScheduleFired { id, sent, next }
        };
        match self.due_message(t, key.0, &row) {
            Ok((message, way)) => {
                let op = op(Some(Box::new(message.clone())));
                self.persist_fired(t, op, (author, accepted(&ack_id, &message)));
                self.say_due(t, key.0, (message, way));
            }
            Err(refused) => {
                mark(Mark::ScheduleRefused);
                t.observe(Event::SendRefused {
                    reason: "no_recipient",
                });
                let error = match Target::parse(&row.target_spec) {
                    Target::Topic(_) => topic_not_found(&row.target_spec),
                    Target::Key(_) | Target::Everyone | Target::Group(_) => refused.to_string(),
                };
                let answer = refusal(&ack_id, &error);
                self.persist_fired(t, op(None), (author, answer));
            }
        }
    }

    /// The session that made a schedule, if it is online.
    fn author(&self, member: MemberIx, presence_id: &str) -> Option<PeerHandle> {
        let sessions = self.member(member)?.sessions;
        let slot = sessions.iter(&self.peers, List::Member).find(|slot| {
            let peer = self.peers.get_slot(*slot);
            peer.is_some_and(|peer| peer.conn().is_some() && *peer.presence_id() == *presence_id)
        });
        slot.and_then(|slot| self.peers.handle_of(slot))
    }

    /// Gives the operation to the store; its commit releases what the author is told.
    fn persist_fired(
        &mut self,
        t: &mut Turn<'_>,
        op: StoreOp,
        (author, frame): (Option<PeerHandle>, bytes::Bytes),
    ) {
        match author {
            Some(author) => {
                let token = self.wait(Waiting::Fired(author, frame));
                t.persist_awaited(op, token);
            }
            None => t.persist(op),
        }
    }

    /// A message was sent that was scheduled. If that can not be written now, it is when the disk
    /// allows, and its author, who asked for nothing just now, is told nothing.
    pub(crate) fn fired_stored(
        &mut self,
        t: &mut Turn<'_>,
        (author, frame): (PeerHandle, bytes::Bytes),
        result: Result<(), StoreFailure>,
    ) {
        if result.is_ok() && self.peers.get(author).is_some() {
            self.reply(t, author.slot, frame);
        }
    }

    /// What a schedule sends, and to whom.
    fn due_message(
        &mut self,
        t: &mut Turn<'_>,
        member: MemberIx,
        row: &ScheduleRow,
    ) -> Result<Due, NoRecipient> {
        let way = match Target::parse(&row.target_spec) {
            Target::Key(key) => {
                let checked = self.check_scheduled(member, key);
                if checked == Err(NoRecipient::Blocked) {
                    t.observe(Event::GrantDenied { cap: "dm" });
                }
                Way::Direct(checked?)
            }
            Target::Everyone | Target::Group(_) | Target::Topic(_) => {
                let mesh = self.member(member).map(|owner| owner.mesh);
                let audience = mesh.and_then(|mesh| self.audience(mesh, &row.target_spec));
                Way::Many(audience.ok_or(NoRecipient::Absent)?)
            }
        };
        let ciphertext = BASE64_STANDARD.encode(&row.message);
        let post = self.post_of((member, &row.target_spec), &ciphertext, None);
        let seq = self.next_seq();
        let id = self.mint.message_id(seq);
        let position = match way {
            Way::Direct(_) => None,
            Way::Many(_) => Some(self.stamp()),
        };
        let owner = self.member(member).ok_or(NoRecipient::Absent)?;
        if owner.revoked_at.is_some() {
            return Err(NoRecipient::Absent);
        }
        // The client of a session drops what bears its own key.
        let own = [Some(owner.key), row.session_pubkey];
        let to_itself =
            matches!(&way, Way::Direct(recipient) if own.contains(&Some(recipient.key)));
        let direct = matches!(way, Way::Direct(_));
        let message = MessageRow {
            seq,
            id,
            mesh_id: row.mesh_id.clone(),
            sender_member_id: row.member_id.clone(),
            sender_member_pubkey: owner.key,
            sender_session_pubkey: row.session_pubkey.filter(|_| !to_itself),
            sender_name: row.sender_name.clone(),
            target_spec: row.target_spec.clone(),
            priority: Priority::Now,
            nonce: String::new(),
            ciphertext,
            created_at: t.now.wall,
            delivered_at: (!direct).then_some(t.now.wall),
            // Should it be sent again by a broker that crashed here, recipients can tell.
            client_message_id: direct.then(|| format!("{}-{}", row.id, row.deliver_at.0)),
            request_fingerprint: None,
            reply_to_id: None,
            position,
            deferred: matches!(&way, Way::Direct(recipient) if recipient.deferred),
            origin: if row.reminder {
                Origin::Reminder
            } else {
                Origin::Scheduled
            },
            post: post.map(Box::new),
        };
        Ok((message, way))
    }

    fn say_due(&mut self, t: &mut Turn<'_>, member: MemberIx, (row, way): Due) {
        let Some(mesh) = self.member(member).map(|owner| owner.mesh) else {
            return;
        };
        match (way, row.position) {
            (Way::Direct(recipient), _) => {
                let frame = self.push_frame(mesh, &row, Some(&recipient.key));
                self.deliver(t, mesh, Mail::of_row(&row, recipient.key, frame));
            }
            (Way::Many(audience), Some(at)) => {
                let what = What::message(&row, member, audience);
                self.say_due_to_many(t, (mesh, what), &row, at);
            }
            (Way::Many(_), None) => {}
        }
    }

    fn say_due_to_many(
        &mut self,
        t: &mut Turn<'_>,
        (mesh, what): (MeshIx, What),
        row: &MessageRow,
        at: crate::ids::Position,
    ) {
        let frame = self.push_frame(mesh, row, None);
        let recipients = self.publish(t, mesh, at, (what, frame));
        t.observe(Event::Routed {
            priority: row.priority,
            recipients,
        });
    }
}
