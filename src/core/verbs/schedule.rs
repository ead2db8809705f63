//! `schedule`, `list_scheduled`, `cancel_scheduled` (protocol.md §16). A schedule belongs to the
//! member: it is there whoever is connected, and each of the member's sessions may look at it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use crate::cron;
use crate::ids::{PeerHandle, Token};
use crate::limits::{CRON_BYTES_MAX, NAME_BYTES_MAX, SCHEDULED_BYTES_MAX, SCHEDULES_MAX};
use crate::peer::{Kind, MemberIx};
use crate::routing::Target;
use crate::rows::{ScheduleRow, StoreFailure, StoreOp};
use crate::schedules::{Key, Schedule};
use crate::shard::{Shard, Turn, Waiting};
use crate::time::Wall;
use crate::verbs::Request;
use crate::verbs::records::Listed;
use crate::verbs::send::size;
use crate::wire::{FieldError, frames};

/// The last moment that timestamps can say: 9999-12-31T23:59:59.999Z.
const LAST: f64 = 253_402_300_799_999.0;

/// A schedule that waits for its row, and who asked for it.
#[derive(Debug)]
pub(crate) struct Scheduling {
    key: Key,
    asker: PeerHandle,
    frame: Bytes,
    req_id: Option<Box<str>>,
}

/// A schedule as asked for.
struct Asked<'a> {
    to: Cow<'a, str>,
    message: Cow<'a, str>,
    deliver_at: Wall,
    cron: Option<Cow<'a, str>>,
    reminder: bool,
}

/// Why there is no schedule: an error's code, and what it says.
struct Refused(&'static str, String);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    to: &'a str,
    message: &'a str,
    deliver_at: i64,
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fired_count: Option<u32>,
}

impl<'a> Entry<'a> {
    fn of(Schedule { row, .. }: &'a Schedule) -> Self {
        Self {
            id: &row.id,
            to: &row.to,
            message: &row.message,
            deliver_at: row.deliver_at.0,
            created_at: row.created_at.0,
            cron: row.cron.as_deref(),
            fired_count: row.cron.as_ref().map(|_| row.fired_count),
        }
    }
}

impl Shard {
    /// One of the three requests.
    pub(crate) fn schedule_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Result<(), FieldError> {
        match kind {
            "schedule" => self.schedule(t, request),
            "cancel_scheduled" => self.cancel_scheduled(t, request),
            _ => {
                self.list_scheduled(t, request);
                Ok(())
            }
        }
    }

    /// Answered when it is on disk; from then on it falls due.
    fn schedule(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Ack<'a> {
            scheduled_id: &'a str,
            deliver_at: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            cron: Option<&'a str>,
        }

        let asked = match asked(t, request)? {
            Ok(asked) => asked,
            Err(Refused(code, message)) => {
                self.error(t, request, code, &message);
                return Ok(());
            }
        };
        let Some((member, row)) = self.schedule_row(t, request.slot, asked) else {
            return Ok(());
        };
        if let Err(message) = self.has_room(member, &row) {
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let token = self.next_token();
        let Some(asker) = self.wait_in_line(t, request.slot, token) else {
            return Ok(());
        };
        let req_id = request.req_id.as_deref();
        let body = Ack {
            scheduled_id: &row.id,
            deliver_at: row.deliver_at.0,
            cron: row.cron.as_deref(),
        };
        let kind = "scheduled_ack";
        let frame = frames::encode(&frames::Reply { kind, body, req_id });
        let put = StoreOp::SchedulePut(Box::new(row.clone()));
        let scheduling = Scheduling {
            key: self.schedules.insert(member, row),
            asker,
            frame,
            req_id: req_id.map(Into::into),
        };
        self.waiting
            .insert(token, Waiting::Scheduled(Box::new(scheduling)));
        t.persist_awaited(put, token);
        Ok(())
    }

    fn schedule_row(
        &mut self,
        t: &Turn<'_>,
        slot: u32,
        asked: Asked<'_>,
    ) -> Option<(MemberIx, ScheduleRow)> {
        let id = self.mint.uuid_v4();
        let peer = self.peers.get_slot(slot)?;
        let (mesh, member) = (self.mesh(peer.mesh)?, self.member(peer.member)?);
        let own = peer.session_key.filter(|_| peer.kind == Kind::ThrowAway);
        // Such a connection is gone by then, and its key with it: it means its member.
        let itself =
            matches!(Target::parse(&asked.to), Target::Key(key) if key == own && key.is_some());
        let target_spec = if itself {
            member.key.to_string()
        } else {
            asked.to.to_string()
        };
        let row = ScheduleRow {
            id,
            mesh_id: mesh.id.to_string(),
            member_id: member.id.to_string(),
            presence_id: peer.presence_id().to_owned(),
            session_pubkey: peer.session_key,
            sender_name: peer.name().to_owned(),
            to: asked.to.into_owned(),
            target_spec,
            message: asked.message.into_owned(),
            deliver_at: asked.deliver_at,
            cron: asked.cron.map(Cow::into_owned),
            reminder: asked.reminder,
            fired_count: 0,
            created_at: t.now.wall,
        };
        Some((peer.member, row))
    }

    /// Whether a member may schedule one more; if not, why.
    fn has_room(&self, member: MemberIx, row: &ScheduleRow) -> Result<(), String> {
        // What is sent is the text in base64.
        let encoded = row.message.len().div_ceil(3).saturating_mul(4);
        let max = self.config.max_message_bytes;
        if size(&[&row.message, &row.to], max).is_err() || encoded + row.to.len() > max {
            return Err(format!(
                "payload too large: {} bytes > MAX_MESSAGE_BYTES={max}",
                encoded + row.to.len()
            ));
        }
        let sizes = self
            .schedules
            .of(member)
            .map(|other| other.row.message.len());
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        if count >= SCHEDULES_MAX {
            return Err(format!(
                "too many scheduled messages: at most {SCHEDULES_MAX}"
            ));
        }
        if bytes + row.message.len() > SCHEDULED_BYTES_MAX {
            return Err(format!(
                "too much is scheduled: at most {SCHEDULED_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    /// The row of a schedule is durable, or is not written.
    pub(crate) fn schedule_stored(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        asked: &Scheduling,
        result: Result<(), StoreFailure>,
    ) {
        let frame = match result {
            Ok(()) => {
                // Unless it was cancelled meanwhile.
                if let Some(due) = self.schedules.get(asked.key).map(|s| s.row.deliver_at) {
                    self.schedules.wake(asked.key, due);
                    self.await_schedules(t);
                }
                asked.frame.clone()
            }
            Err(failure) => {
                self.schedules.remove(asked.key);
                let message = format!("{failure}: nothing was scheduled, ask again");
                frames::error("storage", message, asked.req_id.as_deref())
            }
        };
        self.fill_reply(t, asked.asker, token, frame);
    }

    /// What the member has scheduled, in the order it did.
    fn list_scheduled(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(member) = self.peers.get_slot(request.slot).map(|peer| peer.member) else {
            return;
        };
        let listed = Listed::new("messages", self.schedules.of(member).map(Entry::of));
        self.answer(t, request, "scheduled_list", listed);
    }

    /// `ok:false` for what is not there, or is no longer.
    fn cancel_scheduled(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Ack<'a> {
            scheduled_id: &'a str,
            ok: bool,
        }

        let id = request.fields.str("scheduledId", NAME_BYTES_MAX)?;
        let peer = self.peers.get_slot(request.slot);
        let Some((member, mesh)) = peer.map(|peer| (peer.member, peer.mesh)) else {
            return Ok(());
        };
        let mut body = Ack {
            scheduled_id: &id,
            ok: false,
        };
        let kind = "cancel_scheduled_ack";
        let found = self
            .schedules
            .find(&id)
            .filter(|(owner, _)| self.member(*owner).is_some_and(|owner| owner.mesh == mesh));
        match found {
            Some((owner, _)) if owner != member => {
                let message = "only the member that scheduled a message may cancel it";
                self.error(t, request, "forbidden", message);
            }
            Some(key) => {
                self.schedules.remove(key);
                body.ok = true;
                let op = StoreOp::ScheduleCancelled { id: id.to_string() };
                self.answer_when_stored(t, request, op, kind, body);
            }
            None => self.answer(t, request, kind, body),
        }
        Ok(())
    }
}

/// Reads a schedule.
fn asked<'a>(
    t: &Turn<'_>,
    request: &Request<'a>,
) -> Result<Result<Asked<'a>, Refused>, FieldError> {
    let fields = request.fields;
    let to = fields.str("to", NAME_BYTES_MAX)?;
    if matches!(Target::parse(&to), Target::Key(None)) {
        return Err(FieldError::new("to", "a key, *, @group or #topic"));
    }
    let message = fields.str("message", usize::MAX)?;
    let reminder = match fields.opt_str("subtype", NAME_BYTES_MAX)?.as_deref() {
        Some("reminder") => true,
        Some(_) => return Err(FieldError::new("subtype", "reminder")),
        None => false,
    };
    let deliver_at = fields.opt_number("deliverAt")?;
    let cron = fields
        .opt_str("cron", usize::MAX)?
        .filter(|cron| !cron.is_empty());
    let deliver_at = match (&cron, deliver_at) {
        (Some(cron), _) => match cron::next(cron, t.now.wall) {
            Some(next) => next,
            None => {
                let cron: String = cron.chars().take(CRON_BYTES_MAX).collect();
                let message = format!("Invalid cron expression: {cron}");
                return Ok(Err(Refused("invalid_cron", message)));
            }
        },
        (None, Some(at)) if at > LAST => {
            return Err(FieldError::new("deliverAt", "before the year 10000"));
        }
        // What is past is sent at once.
        (None, Some(at)) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole milliseconds will do"
            )]
            Wall(at.max(0.0) as i64)
        }
        (None, None) => t.now.wall,
    };
    Ok(Ok(Asked {
        to,
        message,
        deliver_at,
        cron,
        reminder,
    }))
}
