//! The heart: one session as a state machine. See [`Session`].

use std::sync::Arc;

use super::event::{End, Event, Loss};
use super::identity::{Attestation, Identity};
use super::io::{Frame, Input, Output};
use super::outbox::Outbox;
use super::seen::Seen;
use super::settings::{Entropy, Settings};
use super::standing::Standing;
use crate::core::time::{Millis, Mono, Now, Wall};

mod commands;
mod frames;
#[cfg(test)]
mod tests;
mod verdict;

/// One session with a broker: it connects, says who it is, stays connected, and tells its user
/// what happens.
///
/// **One call takes one input and appends its outputs.** It knows no socket, clock, thread or
/// random source: time is an argument, and what it draws comes from the seed it was made with.
///
/// 1. Give time (`now.mono` never goes back) and one [`Input`] to [`Session::handle`].
/// 2. Carry out the appended [`Output`]s in order, before the next call. After [`Output::Close`]
///    or [`Output::Abort`] nothing more of that socket may be given.
/// 3. Give [`Input::Tick`] at [`Session::next_deadline`], after whatever has arrived until then.
///
/// It begins idle, and connects at [`Command::Connect`](super::Command::Connect). Input that does not fit its state is
/// ignored.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    identity: Box<Identity>,
    phase: Phase,
    /// Attempts in a row that came to nothing.
    failures: u32,
    entropy: Entropy,
    /// When the goodbye has to be said at the latest, once it is wanted.
    goodbye_by: Option<Mono>,
    last_inbound: Mono,
    pinged: bool,
    last_hello: Wall,
    attestation: Option<Box<Attestation>>,
    resume_token: Option<Box<str>>,
    refusal: Option<Box<Refusal>>,
    outbox: Outbox,
    seen: Option<Box<Seen>>,
    standing: Option<Box<Standing>>,
}

/// Moments are those at which patience ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Waiting(Mono),
    Connecting(Mono),
    Greeting(Mono),
    Attached,
    Leaving(Mono),
    Gone,
}

/// The error that answered a hello; the close follows.
#[derive(Debug)]
struct Refusal {
    code: String,
    message: String,
}

impl Session {
    /// A session that is not connected yet. `seed` decides the jitter of its reconnects: sessions
    /// that are to spread need different ones.
    #[must_use]
    pub fn new(settings: Arc<Settings>, identity: Identity, seed: u64) -> Self {
        Self {
            settings,
            identity: Box::new(identity),
            phase: Phase::Idle,
            failures: 0,
            entropy: Entropy::new(seed),
            goodbye_by: None,
            last_inbound: Mono::default(),
            pinged: false,
            last_hello: Wall(i64::MIN),
            attestation: None,
            resume_token: None,
            refusal: None,
            outbox: Outbox::default(),
            seen: None,
            standing: None,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether its last hello was accepted and the connection is not known to be lost.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached | Phase::Leaving(_))
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Takes one input and appends what must be done.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Opened => self.opened(now, out),
            Input::Text(text) => {
                if self.heard(now) {
                    self.text(now, text, out);
                }
            }
            Input::Binary(bytes) => {
                if self.heard(now) {
                    let text = format!("a binary message of {} bytes", bytes.len());
                    out.push(Output::told(Event::Unreadable { text }));
                }
            }
            Input::Ping(payload) => {
                if self.heard(now) {
                    out.push(Output::Write(Frame::Pong(payload.to_vec())));
                }
            }
            Input::Pong(payload) => {
                if self.heard(now)
                    && let Some(standing) = &mut self.standing
                {
                    standing.prove(payload);
                }
            }
            Input::Closed { code, reason } => {
                let reason = reason.to_owned();
                self.lost(now, Loss::Closed { code, reason }, out);
            }
            Input::Broken(why) => self.lost(now, Loss::Broken(why.to_owned()), out),
            Input::Tick => self.tick(now, out),
            Input::Command(command) => self.command(now, command, out),
        }
    }

    /// When to give [`Input::Tick`] next; `None` if nothing is waited for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let phase = match self.phase {
            Phase::Idle | Phase::Gone => None,
            Phase::Waiting(at)
            | Phase::Connecting(at)
            | Phase::Greeting(at)
            | Phase::Leaving(at) => Some(at),
            Phase::Attached => Some(self.last_inbound.after(self.patience())),
        };
        match self.phase {
            Phase::Gone | Phase::Leaving(_) => phase,
            Phase::Idle
            | Phase::Waiting(_)
            | Phase::Connecting(_)
            | Phase::Greeting(_)
            | Phase::Attached => phase.into_iter().chain(self.goodbye_by).min(),
        }
    }

    /// How much silence there may be before something is done about it.
    fn patience(&self) -> Millis {
        if self.pinged {
            self.settings.watchdog
        } else {
            self.settings.ping_after.min(self.settings.watchdog)
        }
    }

    /// Something came on the socket; whether there is one.
    fn heard(&mut self, now: Now) -> bool {
        let open = matches!(
            self.phase,
            Phase::Greeting(_) | Phase::Attached | Phase::Leaving(_)
        );
        if open {
            self.last_inbound = now.mono;
            self.pinged = false;
        }
        open
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.goodbye_by.is_some_and(|by| by <= now.mono) {
            self.goodbye_overdue(now, out);
        }
        match self.phase {
            Phase::Waiting(at) if at <= now.mono => self.connect(now, out),
            Phase::Connecting(at) if at <= now.mono => {
                out.push(Output::Abort);
                self.lost(now, Loss::ConnectTimeout, out);
            }
            Phase::Greeting(at) if at <= now.mono => {
                out.push(Output::Abort);
                self.lost(now, Loss::HelloTimeout, out);
            }
            Phase::Attached if self.last_inbound.after(self.settings.watchdog) <= now.mono => {
                out.push(Output::Abort);
                self.lost(now, Loss::Silent, out);
            }
            Phase::Attached if self.last_inbound.after(self.patience()) <= now.mono => {
                self.pinged = true;
                out.push(Output::Write(Frame::Ping(Vec::new())));
            }
            Phase::Leaving(at) if at <= now.mono => {
                out.push(Output::Close);
                self.end(End::Unsaid, out);
            }
            Phase::Idle
            | Phase::Waiting(_)
            | Phase::Connecting(_)
            | Phase::Greeting(_)
            | Phase::Attached
            | Phase::Leaving(_)
            | Phase::Gone => {}
        }
    }

    fn connect(&mut self, now: Now, out: &mut Vec<Output>) {
        self.phase = Phase::Connecting(now.mono.after(self.settings.connect_timeout));
        out.push(Output::Connect);
    }

    fn opened(&mut self, now: Now, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Connecting(_)) {
            return;
        }
        self.phase = Phase::Greeting(now.mono.after(self.settings.hello_timeout));
        if let Some(attestation) = self.identity.renewal(now.wall, self.attestation.as_deref()) {
            self.attestation = Some(Box::new(attestation));
        }
        let timestamp = self.timestamp(now.wall);
        // A token is good for one hello, whatever becomes of it.
        let token = self.resume_token.take();
        let attestation = self.attestation.as_deref();
        let hello = self
            .identity
            .hello(timestamp, attestation, token.as_deref());
        out.push(Output::Write(Frame::Text(hello)));
    }

    /// The moment to sign. Signatures are deterministic and accepted once, so two hellos within
    /// one millisecond must not claim the same.
    fn timestamp(&mut self, now: Wall) -> Wall {
        let next = Wall(self.last_hello.0.saturating_add(1));
        let set_back = next.since(now) > Millis::secs(1);
        self.last_hello = if set_back { now } else { now.max(next) };
        self.last_hello
    }

    /// The connection is no more: for good, or until the next attempt.
    fn lost(&mut self, now: Now, why: Loss, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Idle | Phase::Waiting(_) | Phase::Gone => return,
            Phase::Leaving(_) => {
                let left = why
                    == Loss::Closed {
                        code: 1000,
                        reason: "goodbye".to_owned(),
                    };
                return self.end(if left { End::Left } else { End::Unsaid }, out);
            }
            Phase::Connecting(_) | Phase::Greeting(_) | Phase::Attached => {}
        }
        let greeting = matches!(self.phase, Phase::Greeting(_));
        let refusal = self.refusal.take();
        let why = match self.judge(greeting, refusal.map(|refusal| *refusal), why) {
            Ok(why) => why,
            Err(end) => return self.end(end, out),
        };
        if matches!(why, Loss::Closed { code: 1009, .. }) {
            self.give_up_largest(out);
        }
        let wait = self
            .settings
            .reconnect
            .map(|backoff| backoff.wait(self.failures, self.entropy.draw()));
        self.failures = self.failures.saturating_add(1);
        self.phase = wait.map_or(Phase::Idle, |wait| Phase::Waiting(now.mono.after(wait)));
        out.push(Output::told(Event::Lost {
            why,
            retry_in: wait,
        }));
        if wait.is_none() && self.goodbye_by.is_some() {
            self.end(End::Unsaid, out);
        }
    }

    /// A message was too big for the broker. It does not say which, and would close for it again.
    fn give_up_largest(&mut self, out: &mut Vec<Output>) {
        if let Some(client_message_id) = self.outbox.take_largest() {
            out.push(Output::told(Event::Refused {
                client_message_id,
                error: "too big: the broker closed the connection (1009)".to_owned(),
            }));
        }
    }

    fn end(&mut self, end: End, out: &mut Vec<Output>) {
        self.phase = Phase::Gone;
        self.goodbye_by = None;
        self.resume_token = None;
        self.standing = None;
        self.seen = None;
        for client_message_id in self.outbox.drain() {
            out.push(Output::told(Event::Refused {
                client_message_id,
                error: "the session ended before the broker answered".to_owned(),
            }));
        }
        out.push(Output::told(Event::Gone(end)));
    }
}
