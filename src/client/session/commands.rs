//! What the user wants.

use serde_json::Value;

use super::{Phase, Session};
use crate::client::event::{End, Event};
use crate::client::io::{Command, Frame, Output};
use crate::client::outbox::Queued;
use crate::client::standing::Standing;
use crate::client::wire::{self, Outgoing};
use crate::core::time::Now;

impl Session {
    pub(super) fn command(&mut self, now: Now, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Connect => {
                if matches!(self.phase, Phase::Idle | Phase::Waiting(_)) {
                    self.connect(now, out);
                }
            }
            Command::Send(message) => self.send(message, out),
            Command::SetStatus(status) => {
                self.stand(out, |standing| Some(standing.set_status(status)));
            }
            Command::JoinGroup { name, role } => {
                self.stand(out, |standing| standing.join(&name, role.as_deref()));
            }
            Command::LeaveGroup { name } => self.stand(out, |standing| standing.leave(&name)),
            Command::Request(request) => self.request(&request, out),
            Command::Goodbye => self.goodbye(now, out),
        }
    }

    fn send(&mut self, message: Outgoing, out: &mut Vec<Output>) {
        let refusal = if self.is_gone() || self.goodbye_by.is_some() || self.is_leaving() {
            "the session is leaving or over"
        } else if message.client_message_id.is_empty() {
            "it has no id"
        } else {
            match self.outbox.push(&message, &self.settings) {
                Queued::New(frame) => {
                    if self.phase == Phase::Attached {
                        out.push(Output::Write(Frame::Text(frame)));
                    }
                    return;
                }
                Queued::Known => return,
                Queued::Full => "too many messages are waiting for their acknowledgement",
            }
        };
        out.push(Output::told(Event::Refused {
            client_message_id: message.client_message_id,
            error: refusal.to_owned(),
        }));
    }

    /// Changes what the session is to be, and says so if there is somebody to tell.
    fn stand(
        &mut self,
        out: &mut Vec<Output>,
        change: impl FnOnce(&mut Standing) -> Option<String>,
    ) {
        let attached = self.phase == Phase::Attached;
        let refusal = if self.is_gone() || self.is_leaving() {
            "the session is leaving or over"
        } else {
            let standing = self.standing.get_or_insert_default();
            match change(standing) {
                Some(frame) if attached => {
                    out.push(Output::Write(Frame::Text(frame)));
                    out.push(Output::Write(Frame::Ping(standing.proof())));
                    return;
                }
                Some(_) => return,
                None => "too many groups",
            }
        };
        out.push(Output::told(Event::Unsent {
            req_id: None,
            why: refusal,
        }));
    }

    fn request(&self, request: &Value, out: &mut Vec<Output>) {
        let why = if !request.is_object() {
            "not a JSON object"
        } else if self.phase == Phase::Attached {
            out.push(Output::Write(Frame::Text(request.to_string())));
            return;
        } else {
            "not connected"
        };
        let req_id = request["_reqId"].as_str().map(str::to_owned);
        out.push(Output::told(Event::Unsent { req_id, why }));
    }

    fn goodbye(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.is_gone() || self.is_leaving() || self.goodbye_by.is_some() {
            return;
        }
        if self.phase == Phase::Idle {
            return self.end(End::Unsaid, out);
        }
        self.goodbye_by = Some(now.mono.after(self.settings.goodbye_timeout));
        self.leave_if_done(now, out);
    }

    /// Says goodbye if it is wanted and nothing is left to wait for.
    pub(super) fn leave_if_done(&mut self, now: Now, out: &mut Vec<Output>) {
        let wanted = self.goodbye_by.is_some();
        if wanted && self.phase == Phase::Attached && self.outbox.is_empty() {
            self.leave(now, out);
        }
    }

    /// The goodbye cannot wait any longer.
    pub(super) fn goodbye_overdue(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Attached => self.leave(now, out),
            Phase::Connecting(_) | Phase::Greeting(_) => {
                out.push(Output::Close);
                self.end(End::Unsaid, out);
            }
            Phase::Idle | Phase::Waiting(_) => self.end(End::Unsaid, out),
            Phase::Leaving(_) | Phase::Gone => {}
        }
    }

    fn leave(&mut self, now: Now, out: &mut Vec<Output>) {
        self.goodbye_by = None;
        self.phase = Phase::Leaving(now.mono.after(self.settings.goodbye_timeout));
        out.push(Output::Write(Frame::Text(wire::GOODBYE.to_owned())));
    }

    fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }
}
