//! The heart, with a clock that the tests turn.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Session;
use crate::client::{
    Attestation, Command, End, Event, Frame, Identity, Input, Loss, Outgoing, Output, Profile,
    Settings, Voucher,
};
use crate::core::hello::Hello;
use crate::core::identity::KeyPair;
use crate::core::rows::Status;
use crate::core::time::{Millis, Mono, Now, Wall};
use crate::core::wire::Fields;

mod endings;
mod hellos;
mod sends;

const WALL: i64 = 1_700_000_000_000;

/// A session, the time, and what came of the last call.
struct Bench {
    session: Session,
    now: u64,
    out: Vec<Output>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self::of(settings, member())
    }

    fn of(settings: Settings, identity: Identity) -> Self {
        Self {
            session: Session::new(Arc::new(settings), identity, 42),
            now: 1000,
            out: Vec::new(),
        }
    }

    /// One that is welcome.
    fn attached(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.attach(&json!({}));
        bench
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono(self.now),
            wall: Wall(WALL + i64::try_from(self.now).unwrap()),
        }
    }

    fn give(&mut self, input: Input<'_>) -> &mut Self {
        self.out.clear();
        self.session.handle(self.now(), input, &mut self.out);
        self
    }

    fn command(&mut self, command: Command) -> &mut Self {
        self.give(Input::Command(command))
    }

    fn frame(&mut self, frame: &Value) -> &mut Self {
        self.give(Input::Text(&frame.to_string()))
    }

    /// Lets time pass, with a tick at its end.
    fn pass(&mut self, millis: u64) -> &mut Self {
        self.now += millis;
        self.give(Input::Tick)
    }

    /// Connects and is welcomed with these fields besides; gives the hello.
    fn attach(&mut self, more: &Value) -> Value {
        self.command(Command::Connect);
        assert_eq!(self.out, [Output::Connect]);
        self.give(Input::Opened);
        let hello = self.written().remove(0);
        let mut ack = json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "a"});
        let more = more.as_object().unwrap().clone();
        ack.as_object_mut().unwrap().extend(more);
        self.frame(&ack);
        assert!(self.session.is_attached());
        hello
    }

    fn cut(&mut self) -> &mut Self {
        self.give(Input::Broken("cut"))
    }

    /// The text frames of the last call.
    fn written(&self) -> Vec<Value> {
        let text = |output: &Output| {
            let Output::Write(Frame::Text(text)) = output else {
                return None;
            };
            Some(serde_json::from_str(text).unwrap())
        };
        self.out.iter().filter_map(text).collect()
    }

    /// The events of the last call.
    fn events(&self) -> Vec<Event> {
        let event = |output: &Output| {
            let Output::Event(event) = output else {
                return None;
            };
            Some((**event).clone())
        };
        self.out.iter().filter_map(event).collect()
    }

    /// How the last call lost the connection, and the wait until the next attempt.
    fn lost(&self) -> (Loss, Option<u64>) {
        let Some(Event::Lost { why, retry_in }) = self.events().pop() else {
            panic!("{:?}", self.out);
        };
        (why, retry_in.map(|wait| wait.0))
    }

    /// Which send the last call refused first.
    fn refused(&self) -> String {
        let Event::Refused {
            client_message_id, ..
        } = self.events().remove(0)
        else {
            panic!("{:?}", self.out);
        };
        client_message_id
    }

    /// From now to the next deadline.
    fn due_in(&self) -> Option<u64> {
        let deadline = self.session.next_deadline()?;
        Some(deadline.0.checked_sub(self.now).unwrap())
    }
}

fn member() -> Identity {
    Identity::member("mesh", "mem", Arc::new(KeyPair::from_seed([1; 32])))
}

fn launched(voucher: Voucher) -> Identity {
    Identity::launched("mesh", "mem", voucher, KeyPair::from_seed([2; 32]))
}

fn message(id: &str) -> Outgoing {
    Outgoing {
        client_message_id: id.to_owned(),
        ..Outgoing::new("target", "aGk=")
    }
}

fn refused(code: &str) -> Value {
    json!({"type": "error", "code": code, "message": "because"})
}

fn ack(id: &str) -> Value {
    json!({"type": "ack", "id": id, "messageId": format!("m-{id}"), "queued": true})
}

fn pushed(id: &str) -> Value {
    json!({"type": "push", "messageId": id, "meshId": "mesh", "senderPubkey": "k",
        "priority": "now", "nonce": "n", "ciphertext": "aGk=", "createdAt": "now"})
}

#[test]
fn a_session_is_small() {
    // Thousands of them live in one thread of a load generator.
    assert!(size_of::<Session>() <= 256, "{}", size_of::<Session>());
}
