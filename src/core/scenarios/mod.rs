//! The core as a whole, driven by inputs and judged by effects, on a clock of the test's own.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one effect among many"
)]

mod auditing;
mod delivery;
mod edited;
mod lease_table;
mod mcp;
mod missed;
mod proving;
mod records;
mod relaying;
mod restart;
mod resuming;
mod schedule;
mod sharing;
mod streaming;
mod ticking;
mod topics;
mod watches;

use serde_json::{Value, json};

use crate::effect::{Close, Effect};
use crate::event::{Event, LeaseEnd};
use crate::identity::{AttestationText, HelloText, KeyPair, SessionHelloText};
use crate::ids::{ConnId, Position, Seq, Token};
use crate::input::{Closing, Input};
use crate::limits::Config;
use crate::rows::{
    BootRow, LogRow, MemberRow, MeshRow, MessageRow, PresenceRow, StoreAnswer, StoreOp, StoreQuery,
    SubscriptionRow,
};
use crate::shard::{Place, Shard};
use crate::time::{Millis, Mono, Now, Wall};

const MESH: &str = "mesh1";

/// A shard with one mesh of three members, and everything it asked for.
struct World {
    shard: Shard,
    now: Now,
    fx: Vec<Effect>,
    /// Effects looked at by [`Self::store_rows`].
    stored: usize,
    disk_held: bool,
    /// Effects looked at by [`Self::answer_mailboxes`].
    answered: usize,
    conns: u32,
    first_seq: Seq,
    /// What brokers before this one wrote.
    past: Vec<StoreOp>,
}

impl World {
    fn new() -> Self {
        let now = Now {
            mono: Mono(1000),
            wall: Wall(1_700_000_000_000),
        };
        Self::started(now, Seq(1))
    }

    fn started(now: Now, first_seq: Seq) -> Self {
        let config = Config {
            send_rate: 0,
            ..Config::default()
        };
        let place = Place { index: 0, count: 1 };
        let shard = Shard::new(config, place, [9; 32], now, first_seq);
        let mut world = Self {
            shard,
            now,
            fx: Vec::new(),
            stored: 0,
            disk_held: false,
            answered: 0,
            conns: 0,
            first_seq,
            past: Vec::new(),
        };
        world.input(Input::Boot(BootRow::Mesh(MeshRow {
            id: MESH.into(),
            slug: "team".into(),
            name: "Team".into(),
            self_editable: None,
        })));
        for (seed, name) in [(1, "alice"), (2, "bob"), (3, "carol")] {
            world.input(Input::Boot(BootRow::Member(member_row(seed, name))));
        }
        world
    }

    fn input(&mut self, input: Input<'_>) {
        self.shard.handle(self.now, input, &mut self.fx);
        self.store_rows();
    }

    /// Answers every question for mail from the rows inserted and not delivered, until none is
    /// asked.
    fn answer_mailboxes(&mut self) {
        while let Some((index, query, token)) = self.next_query() {
            self.answered = index + 1;
            let StoreQuery::Mailbox {
                target,
                after,
                limit,
                ..
            } = query
            else {
                panic!("{query:?}");
            };
            let delivered: Vec<Seq> = self
                .persisted()
                .filter_map(|(op, _)| match op {
                    StoreOp::MessageDelivered { seq, .. } => Some(*seq),
                    _ => None,
                })
                .collect();
            let mut rows: Vec<MessageRow> = self
                .persisted()
                .filter_map(|(op, _)| match op {
                    StoreOp::MessageInsert(row) => Some((**row).clone()),
                    StoreOp::ScheduleFired { sent, .. } => sent.as_deref().cloned(),
                    _ => None,
                })
                .filter(|row| {
                    row.target_spec == target.to_string()
                        && row.seq > after
                        && !delivered.contains(&row.seq)
                })
                .collect();
            let more = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            let result = Ok(StoreAnswer::Mailbox { rows, more });
            self.input(Input::Answered { token, result });
        }
    }

    fn next_query(&self) -> Option<(usize, StoreQuery, Token)> {
        let asked = self.fx.iter().enumerate().skip(self.answered);
        asked
            .filter_map(|(index, effect)| match effect {
                Effect::Query { query, token } => Some((index, query.clone(), *token)),
                _ => None,
            })
            .next()
    }

    /// Rows are durable at once, unless a test holds the disk; messages when it says so.
    fn store_rows(&mut self) {
        while let Some(effect) = self.fx.get(self.stored).filter(|_| !self.disk_held) {
            self.stored += 1;
            if let Effect::Persist {
                ref op,
                token: Some(token),
            } = *effect
                && !matches!(op, StoreOp::MessageInsert(_))
            {
                let result = Ok(());
                let stored = Input::Stored { token, result };
                self.shard.handle(self.now, stored, &mut self.fx);
            }
        }
    }

    fn pass(&mut self, span: Millis) {
        self.now = Now {
            mono: self.now.mono.after(span),
            wall: self.now.wall.after(span),
        };
        self.shard.advance(self.now, &mut self.fx);
        self.store_rows();
    }

    /// Time passes while these sockets show that they live.
    fn pass_with(&mut self, alive: &[ConnId], span: Millis) {
        let end = self.now.mono.after(span);
        while self.now.mono < end {
            for conn in alive {
                self.input(Input::Pinged { conn: *conn });
            }
            self.pass(end.since(self.now.mono).min(Millis(20_000)));
        }
    }

    fn open(&mut self) -> ConnId {
        self.conns += 1;
        let conn = ConnId {
            slot: self.conns,
            generation: 1,
        };
        self.input(Input::Opened { conn });
        conn
    }

    fn write(&mut self, conn: ConnId, frame: &Value) {
        let text = frame.to_string();
        self.input(Input::Frame { conn, text: &text });
    }

    /// Opens a socket and says hello on it.
    fn join(&mut self, hello: impl Fn(Wall) -> Value) -> ConnId {
        // A client's clock never says the same twice.
        self.pass(Millis(5));
        let conn = self.open();
        let hello = hello(self.now.wall);
        self.write(conn, &hello);
        conn
    }

    fn close(&mut self, conn: ConnId, how: Closing) {
        self.input(Input::Closed { conn, how });
    }

    /// Tokens of the messages to be stored.
    fn inserts(&self) -> Vec<Token> {
        let inserts = self
            .persisted()
            .filter(|(op, _)| matches!(op, StoreOp::MessageInsert(_)));
        inserts.filter_map(|(_, token)| token).collect()
    }

    /// What the last ping to a socket carried.
    fn watermark(&self, conn: ConnId) -> Option<u64> {
        self.fx.iter().rev().find_map(|effect| match effect {
            Effect::Ping {
                conn: to,
                watermark,
            } if *to == conn => Some(*watermark),
            _ => None,
        })
    }

    fn pong(&mut self, conn: ConnId, watermark: u64) {
        let payload = &watermark.to_be_bytes();
        self.input(Input::Ponged { conn, payload });
    }

    /// The socket takes and confirms everything written to it so far.
    fn confirm_all(&mut self, conn: ConnId) {
        self.pass(Millis(1_000));
        if let Some(watermark) = self.watermark(conn) {
            self.pong(conn, watermark);
        }
    }

    fn frames(&self, conn: ConnId) -> Vec<Value> {
        let to_conn = self.fx.iter().filter_map(|effect| match effect {
            Effect::Send { conn: to, frame } if *to == conn => Some(frame),
            _ => None,
        });
        to_conn
            .map(|frame| serde_json::from_slice(frame).unwrap())
            .collect()
    }

    fn events(&self, conn: ConnId) -> Vec<String> {
        let frames = self.frames(conn);
        frames
            .iter()
            .filter_map(|f| f["event"].as_str().map(str::to_owned))
            .collect()
    }

    fn texts(&self, conn: ConnId) -> Vec<String> {
        let frames = self.frames(conn);
        let pushes = frames
            .iter()
            .filter(|f| f["type"] == "push" && f["event"].is_null());
        pushes
            .map(|f| f["ciphertext"].as_str().unwrap().to_owned())
            .collect()
    }

    fn ack(&self, conn: ConnId) -> Value {
        self.frames(conn)
            .into_iter()
            .find(|f| f["type"] == "hello_ack")
            .unwrap_or(Value::Null)
    }

    fn closed(&self, conn: ConnId) -> Option<Close> {
        self.fx.iter().find_map(|effect| match effect {
            Effect::Close { conn: to, close } if *to == conn => Some(*close),
            _ => None,
        })
    }

    fn ends(&self) -> Vec<LeaseEnd> {
        let ends = self.fx.iter().filter_map(|effect| match effect {
            Effect::Observe(Event::LeaseEnded { why, .. }) => Some(*why),
            _ => None,
        });
        ends.collect()
    }

    fn stale(&self) -> usize {
        let is_stale = |effect: &&Effect| matches!(effect, Effect::Observe(Event::Stale { .. }));
        self.fx.iter().filter(is_stale).count()
    }

    /// Presence rows as they were put.
    fn rows(&self) -> Vec<PresenceRow> {
        let puts = self.persisted().filter_map(|(op, _)| match op {
            StoreOp::PresencePut(row) => Some((**row).clone()),
            _ => None,
        });
        puts.collect()
    }

    fn persisted(&self) -> impl Iterator<Item = (&StoreOp, Option<Token>)> {
        self.fx.iter().filter_map(|effect| match effect {
            Effect::Persist { op, token } => Some((op, *token)),
            _ => None,
        })
    }

    /// Every counter equals a recount of what is there (I9).
    fn recount(&self) -> (u64, u64) {
        let gauges = self.shard.gauges();
        let mesh = &self.shard.meshes[0];
        assert_eq!(gauges.online + gauges.grace, mesh.roster.len() as u64);
        let online: usize = self
            .shard
            .members
            .iter()
            .flat_map(|m| &m.online)
            .map(crate::chain::Chain::len)
            .sum();
        assert_eq!(gauges.online, online as u64);
        let sessions: usize = self.shard.members.iter().map(|m| m.sessions.len()).sum();
        assert_eq!(sessions, mesh.roster.len());
        (gauges.online, gauges.grace)
    }
}

fn keys(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32])
}

fn member_row(seed: u8, name: &str) -> MemberRow {
    MemberRow {
        id: format!("member-{seed}"),
        mesh_id: MESH.into(),
        pubkey: keys(seed).public(),
        display_name: name.into(),
        admin: seed == 1,
        role_tag: None,
        default_groups: Vec::new(),
        message_mode: "push".into(),
        revoked_at: None,
        grants: Vec::new(),
    }
}

/// A `session_hello` of member `seed` with session key `session`.
fn launched(seed: u8, session: u8, session_id: &'static str) -> impl Fn(Wall) -> Value {
    move |now| {
        let (member, own) = (keys(seed), keys(session));
        let (parent, key) = (member.public().to_string(), own.public().to_string());
        let expires_at = now.after(Millis::secs(3600));
        let attestation = AttestationText {
            parent_pubkey: &parent,
            session_pubkey: &key,
            expires_at,
        };
        let text = SessionHelloText {
            mesh_id: MESH,
            parent_pubkey: &parent,
            session_pubkey: &key,
            timestamp: now,
        };
        json!({
            "type": "session_hello", "meshId": MESH, "parentMemberPubkey": parent,
            "sessionPubkey": key, "sessionId": session_id, "pid": 1, "cwd": "/srv",
            "timestamp": now.0, "signature": own.sign(text.text().as_bytes()).to_string(),
            "parentAttestation": {
                "sessionPubkey": key, "parentMemberPubkey": parent, "expiresAt": expires_at.0,
                "signature": member.sign(attestation.text().as_bytes()).to_string(),
            },
        })
    }
}

/// A `hello` of member `seed`, with a claimed session key or without.
fn member(seed: u8, session: Option<u8>, session_id: &'static str) -> impl Fn(Wall) -> Value {
    move |now| {
        let own = keys(seed);
        let pubkey = own.public().to_string();
        let text = HelloText {
            mesh_id: MESH,
            member_id: "m",
            pubkey: &pubkey,
            timestamp: now,
        };
        json!({
            "type": "hello", "meshId": MESH, "memberId": "m", "pubkey": pubkey,
            "sessionPubkey": session.map(|seed| keys(seed).public().to_string()),
            "sessionId": session_id, "pid": 1, "cwd": "/srv", "timestamp": now.0,
            "signature": own.sign(text.text().as_bytes()).to_string(),
        })
    }
}
