//! What a client may ask: one file per family of requests.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::attachment::Attachment;
use crate::effect::Close;
use crate::event::LeaseEnd;
use crate::hello::Hello;
use crate::ids::{ConnId, PeerHandle, Token};
use crate::replies::Line;
use crate::rows::{StoreFailure, StoreOp};
use crate::shard::{Shard, Turn, Waiting};
use crate::wire::{FieldError, Fields, ParseError, frames};

mod absent;
mod calls;
mod clock;
mod edited;
pub(crate) mod hook;
mod mcp;
mod moderation;
mod peers;
pub(crate) mod posted;
mod receipts;
pub(crate) mod records;
mod relay;
pub(crate) mod repeat;
pub(crate) mod schedule;
pub(crate) mod send;
mod state;
mod status;
mod streams;
mod topics;
mod watches;

/// One request of an attached session.
pub(crate) struct Request<'a> {
    /// Who asks.
    pub(crate) slot: u32,
    /// What for.
    pub(crate) fields: &'a Fields<'a>,
    /// What to echo.
    pub(crate) req_id: Option<Cow<'a, str>>,
}

/// A value that others will read: no deeper and no more broken than they can be expected to.
fn readable(field: &'static str, raw: &RawValue) -> Result<serde_json::Value, FieldError> {
    serde_json::from_str(raw.get()).map_err(|_| FieldError::new(field, "readable JSON"))
}

impl Shard {
    /// A whole message arrived.
    pub(crate) fn frame(&mut self, t: &mut Turn<'_>, conn: ConnId, text: &str) {
        if self.shutting_down {
            return;
        }
        if let Some(Attachment::Contending { slot }) = self.attachments.get_mut(conn) {
            let slot = *slot;
            return self.hold_frame(t, conn, slot, text);
        }
        let greeting = matches!(
            self.attachments.get_mut(conn),
            Some(Attachment::Greeting(_))
        );
        let slot = match self.attached(t, conn, "frame") {
            Some(handle) => Some(handle.slot),
            None if greeting => None,
            None => return,
        };
        let fields = match Fields::parse(text) {
            Ok(fields) => fields,
            Err(error) => return self.malformed(t, conn, slot, error, None),
        };
        let kind = fields.lenient_str("type");
        match (slot, kind) {
            (None, kind) => self.greet(t, conn, &kind.unwrap_or_default(), &fields),
            (Some(slot), Some(kind)) => self.request(t, slot, &kind, &fields),
            (Some(_), None) => {
                let req_id = fields.req_id();
                self.malformed(t, conn, slot, ParseError::NotObject, req_id.as_deref());
            }
        }
    }

    /// A binary message that is no text arrived.
    pub(crate) fn undecodable(&mut self, t: &mut Turn<'_>, conn: ConnId) {
        let slot = self.attached(t, conn, "frame").map(|handle| handle.slot);
        let greeting = matches!(
            self.attachments.get_mut(conn),
            Some(Attachment::Greeting(_))
        );
        if slot.is_some() || greeting {
            self.malformed(t, conn, slot, ParseError::NotJson, None);
        }
    }

    fn malformed(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        slot: Option<u32>,
        why: ParseError,
        req_id: Option<&str>,
    ) {
        let message = match why {
            ParseError::NotJson => "message is not JSON",
            ParseError::NotObject => "message is not a JSON object with a type",
        };
        t.observe(crate::event::Event::SendRefused {
            reason: "parse_or_handler",
        });
        let frame = frames::error("malformed", message, req_id);
        match slot {
            Some(slot) => self.reply(t, slot, frame),
            None => t.send(conn, frame),
        }
    }

    fn request(&mut self, t: &mut Turn<'_>, slot: u32, kind: &str, fields: &Fields<'_>) {
        let request = Request {
            slot,
            fields,
            req_id: fields.req_id(),
        };
        let done = match kind {
            "hello" | "session_hello" if !self.may_repeat_hello(t, slot) => {
                let message = "too many hellos on one connection; wait ten seconds";
                self.reply(t, slot, frames::error("rate_limited", message, None));
                Ok(())
            }
            "hello" => {
                let hello = Hello::member(fields, t.now.wall, None);
                self.greet_again(t, slot, hello);
                Ok(())
            }
            "session_hello" => {
                let hello = Hello::session(fields, t.now.wall, None);
                self.greet_again(t, slot, hello);
                Ok(())
            }
            "goodbye" => {
                self.evict(t, slot, LeaseEnd::Goodbye, Some(Close::GOODBYE));
                Ok(())
            }
            "send" => {
                self.send(t, &request);
                Ok(())
            }
            "client_ack" => self.client_ack(t, &request),
            "message_status" => self.message_status(t, &request),
            "list_peers" => {
                self.list_peers(t, &request);
                Ok(())
            }
            "set_status" => self.set_status(t, &request),
            "set_summary" => self.set_summary(t, &request),
            "set_stats" => self.set_stats(&request),
            "set_visible" => self.set_visible(t, &request),
            "set_profile" => self.set_profile(t, &request),
            "join_group" => self.join_group(t, &request),
            "leave_group" => self.leave_group(t, &request),
            "kick" | "disconnect" => self.kick(t, &request, kind == "kick"),
            "ban" => self.ban(t, &request),
            "unban" => self.unban(t, &request),
            "list_bans" => {
                self.list_bans(t, &request);
                Ok(())
            }
            _ => self.further_request(t, &request, kind),
        };
        if let Err(error) = done {
            t.observe(crate::event::Event::SendRefused {
                reason: "parse_or_handler",
            });
            self.invalid(t, &request, &error);
        }
    }

    /// What a mesh shares, what sessions own, what is kept on disk only, topics, what peers ask of each
    /// other, what is not here, and what nobody knows.
    fn further_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Result<(), FieldError> {
        if let Some(done) = self.request_of_what_is_shared(t, request, kind) {
            return done;
        }
        if let Some(done) = self.request_of_owned(t, request, kind) {
            return done;
        }
        if let Some(done) = self.record_request(t, request, kind) {
            return done;
        }
        if let Some(done) = self.topic_request(t, request, kind) {
            return done;
        }
        if let Some(done) = self.relay_request(t, request, kind) {
            return done;
        }
        if let Some(done) = self.absent_request(t, request, kind) {
            return done;
        }
        // Never `unknown_message_type`: existing session clients stop for good at that.
        let kind: String = kind.chars().take(64).collect();
        let message = format!("{kind} is not supported here");
        self.error(t, request, "unsupported", &message);
        Ok(())
    }

    /// Requests of state, streams and the clock; None if it is none of them.
    fn request_of_what_is_shared(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        let done = match kind {
            "set_state" => self.set_state(t, request),
            "get_state" => self.get_state(t, request),
            "list_state" => {
                self.list_state(t, request);
                Ok(())
            }
            "create_stream" => self.create_stream(t, request),
            "subscribe" => self.subscribe(t, request),
            "unsubscribe" => self.unsubscribe(t, request),
            "publish" => self.publish_data(t, request),
            "list_streams" => {
                self.list_streams(t, request);
                Ok(())
            }
            "set_clock" => {
                self.set_clock(t, request);
                Ok(())
            }
            "pause_clock" => {
                self.pause_clock(t, request);
                Ok(())
            }
            "resume_clock" => {
                self.resume_clock(t, request);
                Ok(())
            }
            "get_clock" => {
                self.answer_clock(t, request);
                Ok(())
            }
            _ => return None,
        };
        Some(done)
    }

    /// Requests for what belongs to a session or its member; None if it is for something else.
    fn request_of_owned(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        Some(match kind {
            "schedule" | "list_scheduled" | "cancel_scheduled" => {
                self.schedule_request(t, request, kind)
            }
            "mcp_register" | "mcp_unregister" | "mcp_list" | "mcp_call" | "mcp_call_response"
            | "mcp_catalog" => self.mcp_request(t, request, kind),
            "watch" => self.watch(t, request),
            "unwatch" => self.unwatch(t, request),
            "watch_list" => self.watch_list(t, request),
            _ => return None,
        })
    }

    fn invalid(&mut self, t: &mut Turn<'_>, request: &Request<'_>, error: &FieldError) {
        self.error(t, request, "invalid_argument", &error.to_string());
    }

    /// Refuses what is too many or too large; the limit is in the message.
    fn over_limit(&mut self, t: &mut Turn<'_>, request: &Request<'_>, message: &str) {
        self.error(t, request, "limit", message);
    }

    /// Answers a request with an error.
    pub(crate) fn error(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        code: &str,
        message: &str,
    ) {
        let frame = frames::error(code, message, request.req_id.as_deref());
        self.reply(t, request.slot, frame);
    }

    /// Answers a request with a frame of its own type.
    pub(crate) fn answer<T: Serialize>(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
        body: T,
    ) {
        let req_id = request.req_id.as_deref();
        let frame = frames::encode(&frames::Reply { kind, body, req_id });
        self.reply(t, request.slot, frame);
    }

    /// Answers a request that is in effect already, when `op` is durable.
    pub(crate) fn answer_when_stored<T: Serialize>(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        op: StoreOp,
        kind: &str,
        body: T,
    ) {
        let req_id = request.req_id.as_deref();
        let frame = frames::encode(&frames::Reply { kind, body, req_id });
        let token = self.next_token();
        if let Some(asker) = self.wait_in_line(t, request.slot, token) {
            let waiting = Waiting::Answer {
                asker,
                frame,
                req_id: request.req_id.as_deref().map(Into::into),
            };
            self.waiting.insert(token, waiting);
        }
        t.persist_awaited(op, token);
    }

    /// What [`Self::answer_when_stored`] waited for has come.
    pub(crate) fn answer_stored(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        asker: PeerHandle,
        frame: Bytes,
        failed: Option<(StoreFailure, Option<&str>)>,
    ) {
        let frame = failed.map_or(frame, |(failure, req_id)| {
            let message = format!("{failure}: in effect now, written when the disk allows");
            frames::error("storage", &message, req_id)
        });
        self.fill_reply(t, asker, token, frame);
    }

    /// Writes an answer, behind those that still wait for the store.
    pub(crate) fn reply(&mut self, t: &mut Turn<'_>, slot: u32, frame: Bytes) {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let Some(online) = peer.online_mut() else {
            return;
        };
        let conn = online.conn;
        match online.replies.ready(frame) {
            Line::Free(frame) => t.send(conn, frame),
            Line::Kept => {}
            Line::Overfull => self.close_slow(t, slot),
        }
    }

    /// The bare ack of `set_visible` and `set_profile` (protocol.md §10).
    fn bare_ack(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let req_id = request.req_id.as_deref();
        let frame = frames::encode(&frames::Ack {
            id: req_id.unwrap_or_default(),
            message_id: "",
            queued: false,
            deferred: false,
            error: None,
            req_id,
        });
        self.reply(t, request.slot, frame);
    }
}
