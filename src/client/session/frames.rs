//! What the broker says.

use super::{Phase, Refusal, Session};
use crate::client::event::{Event, Message, Push, Welcome};
use crate::client::io::{Frame, Output};
use crate::client::wire::{Ack, ErrorFrame, Inbound, client_ack};
use crate::core::time::Now;

impl Session {
    pub(super) fn text(&mut self, now: Now, text: &str, out: &mut Vec<Output>) {
        match Inbound::parse(text) {
            Ok(Inbound::Welcome(welcome)) => self.welcome(now, welcome, out),
            Ok(Inbound::Message(message)) => self.message(message, out),
            Ok(Inbound::Peer(peer, message_id)) => {
                out.push(Output::told(if self.is_new(&message_id) {
                    Event::Peer(peer)
                } else {
                    let push = Push::Peer;
                    Event::Repeated { message_id, push }
                }));
            }
            Ok(Inbound::Ack(ack)) => self.ack(now, ack, text, out),
            Ok(Inbound::Error(error)) => self.error(error, out),
            Ok(Inbound::Other(frame)) => out.push(Output::told(Event::Frame(frame))),
            Err(_) => out.push(unreadable(text)),
        }
    }

    fn welcome(&mut self, now: Now, mut welcome: Welcome, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Greeting(_)) {
            // It answers no hello of ours.
            return out.push(Output::told(Event::Welcome(welcome)));
        }
        self.phase = Phase::Attached;
        self.failures = 0;
        self.refusal = None;
        let token = welcome.resume_token.take();
        self.resume_token = token.filter(|_| self.settings.resume);
        let reattached = welcome.reattached;
        out.push(Output::told(Event::Welcome(welcome)));
        if let Some(standing) = &self.standing {
            let again = standing.again(reattached);
            if !again.is_empty() {
                out.extend(
                    again
                        .into_iter()
                        .map(|frame| Output::Write(Frame::Text(frame))),
                );
                out.push(Output::Write(Frame::Ping(standing.proof())));
            }
        }
        let unanswered = self.outbox.frames();
        out.extend(unanswered.map(|frame| Output::Write(Frame::Text(frame))));
        self.leave_if_done(now, out);
    }

    fn message(&mut self, message: Message, out: &mut Vec<Output>) {
        // Only the broker knows which of them are direct; it takes no notice of the others.
        let confirmed = self.settings.confirm
            && matches!(message.subtype.as_deref(), None | Some("reminder"))
            && !message.message_id.is_empty();
        let confirmation = confirmed.then(|| client_ack(&message));
        out.push(Output::told(if self.is_new(&message.message_id) {
            Event::Message(message)
        } else {
            Event::Repeated {
                message_id: message.message_id,
                push: Push::Message,
            }
        }));
        if let Some(confirmation) = confirmation {
            out.push(Output::Write(Frame::Text(confirmation)));
        }
    }

    /// Whether a push was not told before. One without an id always is.
    fn is_new(&mut self, message_id: &str) -> bool {
        let remembered = self.settings.remembered;
        message_id.is_empty()
            || self
                .seen
                .get_or_insert_default()
                .insert(message_id, remembered)
    }

    fn ack(&mut self, now: Now, ack: Ack, text: &str, out: &mut Vec<Output>) {
        if !self.outbox.settle(&ack.id) {
            // The answer to a request of another kind.
            out.push(match serde_json::from_str(text) {
                Ok(frame) => Output::told(Event::Frame(frame)),
                Err(_) => unreadable(text),
            });
            return;
        }
        let client_message_id = ack.id;
        out.push(Output::told(match ack.error {
            Some(error) if !error.is_empty() => Event::Refused {
                client_message_id,
                error,
            },
            Some(_) | None => Event::Acknowledged {
                client_message_id,
                message_id: ack.message_id,
                deferred: ack.deferred,
            },
        }));
        self.leave_if_done(now, out);
    }

    fn error(&mut self, error: ErrorFrame, out: &mut Vec<Output>) {
        let ErrorFrame {
            code,
            message,
            req_id,
        } = error;
        if matches!(self.phase, Phase::Greeting(_)) {
            // The close that follows says so to the user.
            self.refusal = Some(Box::new(Refusal { code, message }));
            return;
        }
        out.push(Output::told(Event::Error {
            code,
            message,
            req_id,
        }));
    }
}

fn unreadable(text: &str) -> Output {
    Output::told(Event::Unreadable {
        text: text.to_owned(),
    })
}
