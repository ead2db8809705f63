//! Which effects may follow from what, and for whom.

use holdfast_core::effect::{Close, Effect};
use holdfast_core::ids::ConnId;
use holdfast_core::rows::{MessageRow, PresenceRow, StoreOp};
use serde_json::Value;

use super::expect::{Decoded, Reach};
use super::script::{member_keys, mesh_of};
use super::story::{Cause, Socket, State, Story};
use super::world::is_admin;

impl Story {
    pub(super) fn judge(&mut self, shard: usize, effect: &Effect, cause: Cause<'_>) {
        if self.stopped && matches!(effect, Effect::Send { .. }) {
            // What the store still answers goes to sockets that have been told to close.
            return;
        }
        match effect {
            Effect::Send { conn, frame } => {
                let name = self.live(shard, *conn);
                let frame = serde_json::from_slice::<Value>(frame);
                let frame = frame.expect("every frame is JSON that every client can read");
                match frame["type"].as_str() {
                    Some("push") => self.judge_push(name, &frame, cause),
                    Some("state_change" | "stream_data") => self.check_reach(name, cause, "push"),
                    // It follows another answer.
                    Some("state_value") => self.check_reach(name, cause, "answer"),
                    _ if self.comes_by_itself(name, &frame, cause) => {
                        self.check_reach(name, cause, "push");
                    }
                    _ => self.judge_answer(name, &frame, cause),
                }
            }
            Effect::Ping { conn, .. } => {
                let name = self.live(shard, *conn);
                assert_eq!(self.socket(name).state, State::Attached, "pinged too early");
                self.check_reach(name, cause, "ping");
            }
            Effect::Close { conn, close } => {
                let name = self.live(shard, *conn);
                self.judge_close(name, *close, cause);
            }
            Effect::Abort { conn } => {
                let name = self.live(shard, *conn);
                assert!(matches!(cause, Cause::Event), "a message cut a socket");
                self.tell(name);
            }
            Effect::Handoff {
                conn, shard: home, ..
            } => {
                let name = self.live(shard, *conn);
                let home = usize::from(*home);
                assert!(matches!(cause, Cause::Message(actor, _) if actor == name));
                assert_ne!(home, shard, "handed to where it was");
                if let Some(socket) = self.sockets[name].as_mut() {
                    assert_eq!(socket.state, State::Greeting, "moved after its hello");
                    socket.shard = home;
                }
            }
            Effect::Persist { op, .. } => self.judge_row(op, cause),
            Effect::Query { .. }
            | Effect::Fetch { .. }
            | Effect::Answer { .. }
            | Effect::Observe(_) => {}
        }
    }

    /// The socket an effect names, which must be there and not told to close.
    fn live(&self, shard: usize, conn: ConnId) -> usize {
        let found = self
            .sockets
            .iter()
            .position(|socket| socket.as_ref().is_some_and(|socket| socket.id == conn));
        let name = found.unwrap_or_else(|| panic!("an effect on {conn:?}, which is gone"));
        let socket = self.socket(name);
        assert_eq!(socket.shard, shard, "an effect on another shard's socket");
        assert_ne!(socket.state, State::Told, "an effect after the close");
        name
    }

    fn socket(&self, name: usize) -> &Socket {
        self.sockets[name].as_ref().expect("a live socket")
    }

    fn mesh(&self, name: usize) -> Option<&'static str> {
        self.socket(name).member.map(mesh_of)
    }

    fn tell(&mut self, name: usize) {
        if let Some(socket) = self.sockets[name].as_mut() {
            socket.state = State::Told;
            socket.owed.clear();
        }
    }

    /// Whether what one socket said may do this to another.
    fn check_reach(&self, name: usize, cause: Cause<'_>, what: &str) {
        let Cause::Message(actor, decoded) = cause else {
            return;
        };
        if actor == name {
            return;
        }
        let kind = decoded.text("type");
        assert_eq!(
            self.mesh(actor),
            self.mesh(name),
            "{what} into another mesh"
        );
        // Who shows that it lives keeps its place against a challenger.
        if self.socket(name).state == State::Contending {
            return;
        }
        let allowed = match decoded.reach {
            Reach::Own => false,
            Reach::Push => what != "close" && what != "answer",
            Reach::Hello => what != "answer",
            Reach::Moderate => what != "answer" && self.actor_is_admin(actor),
        };
        assert!(
            allowed,
            "{kind:?} of socket {actor} made a {what} for socket {name}"
        );
    }

    fn actor_is_admin(&self, actor: usize) -> bool {
        self.socket(actor).member.is_some_and(is_admin)
    }

    fn judge_push(&self, name: usize, frame: &Value, cause: Cause<'_>) {
        let socket = self.socket(name);
        assert_eq!(
            socket.state,
            State::Attached,
            "a push before the hello's answer"
        );
        assert_eq!(
            frame["meshId"].as_str(),
            self.mesh(name),
            "a push of another mesh"
        );
        self.check_reach(name, cause, "push");
    }

    /// Whether it is of a call, or the acknowledgement of a message that was scheduled.
    fn comes_by_itself(&self, name: usize, frame: &Value, cause: Cause<'_>) -> bool {
        let owed = || {
            self.socket(name)
                .owed
                .iter()
                .any(|expect| expect.fits(frame))
        };
        match frame["type"].as_str() {
            Some("mcp_call_forward" | "mcp_call_result") => true,
            Some("ack") => matches!(cause, Cause::Event) && !owed(),
            _ => false,
        }
    }

    fn judge_answer(&mut self, name: usize, frame: &Value, cause: Cause<'_>) {
        self.check_reach(name, cause, "answer");
        let Some(socket) = self.sockets[name].as_mut() else {
            return;
        };
        loop {
            let expect = socket.owed.pop_front();
            let expect = expect.unwrap_or_else(|| panic!("nothing asked for {frame}"));
            if expect.fits(frame) {
                break;
            }
            assert!(
                !expect.must,
                "socket {name} is owed {expect:?} and got {frame}"
            );
        }
        if frame["type"] == "hello_ack" {
            socket.state = State::Attached;
        }
    }

    fn judge_close(&mut self, name: usize, close: Close, cause: Cause<'_>) {
        let known = matches!(close.code, 1000 | 1001 | 1008 | 1012 | 1013 | 4001 | 4002);
        assert!(known && close.reason.len() <= 123, "{close:?}");
        self.check_reach(name, cause, "close");
        if let Cause::Message(actor, decoded) = cause
            && actor == name
            && self.socket(name).state == State::Attached
        {
            let itself = decoded.reach == Reach::Moderate && self.actor_is_admin(actor);
            let flooded = close == Close::SLOW_CONSUMER && self.store.held;
            assert!(itself || flooded, "{close:?} for what it said");
        }
        self.tell(name);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other rows say nothing new")]
    fn judge_row(&mut self, op: &StoreOp, cause: Cause<'_>) {
        match op {
            StoreOp::MessageInsert(row) => {
                self.last = row.id.to_string();
                if let Cause::Message(actor, decoded) = cause {
                    self.judge_message(actor, decoded, row);
                }
            }
            StoreOp::PresencePut(row) => judge_presence(row),
            StoreOp::SchedulePut(_) => self.scheduled = true,
            StoreOp::MemberRevoked { .. } => {
                // What a challenger said before its hello was answered is carried out later.
                let Cause::Message(actor, decoded) = cause else {
                    let admin = |socket: &Socket| socket.member.is_some_and(is_admin);
                    assert!(self.sockets.iter().flatten().any(admin), "{op:?} by nobody");
                    return;
                };
                let kind = decoded.text("type");
                assert!(matches!(kind.as_deref(), Some("ban" | "unban")));
                assert!(self.actor_is_admin(actor), "banned by who may not");
            }
            _ => {}
        }
    }

    /// The row says what the message said, and who said it.
    fn judge_message(&self, actor: usize, decoded: &Decoded, row: &MessageRow) {
        let member = self.socket(actor).member.expect("a sender has said hello");
        assert_eq!(row.sender_member_pubkey, member_keys(member).public());
        assert_eq!(row.mesh_id, mesh_of(member));
        assert_eq!(decoded.text("type").as_deref(), Some("send"));
        let said = |field: &str| decoded.text(field);
        assert_eq!(said("targetSpec").as_ref(), Some(&row.target_spec));
        assert_eq!(said("ciphertext").as_ref(), Some(&row.ciphertext));
        assert_eq!(said("nonce").as_ref(), Some(&row.nonce));
        assert_eq!(said("priority").as_deref(), Some(row.priority.name()));
        assert_eq!(said("client_message_id"), row.client_message_id);
        assert_eq!(said("request_fingerprint"), row.request_fingerprint);
        assert_eq!(said("replyToId"), row.reply_to_id);
    }

    /// After each step: every answer has come, unless the store or an incumbent is waited for.
    pub(super) fn settle(&mut self) {
        for name in 0..self.sockets.len() {
            let Some(socket) = self.sockets[name].as_mut() else {
                continue;
            };
            if socket.state == State::Greeting && !socket.owed.is_empty() {
                socket.state = State::Contending;
            }
            let member = socket.member;
            if socket.state == State::Contending {
                let others = self.sockets.iter().flatten();
                let mut rivals = others.filter(|o| o.state == State::Attached);
                let rival = rivals.any(|other| other.member == member);
                assert!(rival, "the hello of socket {name} got no answer");
            } else if !self.store.held {
                let missing = socket.owed.drain(..).find(|expect| expect.must);
                assert!(missing.is_none(), "socket {name} is owed {missing:?}");
            }
        }
    }
}

/// What is kept of a session is bounded.
fn judge_presence(row: &PresenceRow) {
    let names = [&row.session_id, &row.display_name];
    assert!(names.iter().all(|name| name.len() <= 512), "{row:?}");
    assert!(row.cwd.len() <= 4096 && row.groups.len() <= 64, "{row:?}");
    let profile = serde_json::from_str::<Value>(&row.profile);
    assert!(profile.is_ok_and(|profile| profile.is_object()), "{row:?}");
    assert!(row.summary.as_ref().is_none_or(|text| text.len() <= 4096));
}
