//! Two shards with a mesh each, a store in memory, and the sockets of a story.

use std::collections::{BTreeMap, VecDeque};

use holdfast_core::effect::Effect;
use holdfast_core::ids::{ConnId, PubKey, Seq, Token};
use holdfast_core::input::Input;
use holdfast_core::limits::Config;
use holdfast_core::rows::{
    BootRow, Group, MemberRow, MeshRow, MessageRow, RecordAnswer, StoreAnswer, StoreFailure,
    StoreOp, StoreQuery,
};
use holdfast_core::shard::{Place, Shard};
use holdfast_core::time::{Millis, Mono, Now, Wall};

use super::script::{MEMBERS, member_keys, mesh_of};

/// How many shards there are.
pub(super) const SHARDS: usize = 2;

/// Something the store has been given and has not answered.
#[derive(Debug)]
enum Job {
    Write(StoreOp, Option<Token>),
    Read(StoreQuery, Token),
}

/// The store: rows of messages, in memory.
#[derive(Debug, Default)]
pub(super) struct Store {
    messages: BTreeMap<Seq, MessageRow>,
    jobs: VecDeque<(usize, Job)>,
    /// Whether it answers nothing.
    pub(super) held: bool,
    /// Whether it refuses everything.
    pub(super) failing: bool,
}

/// An answer of the store, for one of the shards.
pub(super) type Reply = (usize, Input<'static>);

impl Store {
    /// Takes what a shard asks of the store.
    pub(super) fn take(&mut self, shard: usize, effect: &Effect) {
        let job = match effect {
            Effect::Persist { op, token } => Job::Write(op.clone(), *token),
            Effect::Query { query, token } => Job::Read(query.clone(), *token),
            Effect::Send { .. }
            | Effect::Ping { .. }
            | Effect::Close { .. }
            | Effect::Abort { .. }
            | Effect::Handoff { .. }
            | Effect::Fetch { .. }
            | Effect::Answer { .. }
            | Effect::Observe(_) => return,
        };
        self.jobs.push_back((shard, job));
    }

    /// The next answer, unless it is held or has none to give.
    pub(super) fn next(&mut self) -> Option<Reply> {
        while !self.held {
            let (shard, job) = self.jobs.pop_front()?;
            match job {
                Job::Write(_, None) if self.failing => {}
                Job::Write(op, None) => self.apply(op),
                Job::Write(op, Some(token)) => {
                    let result = self.refuse();
                    if result.is_ok() {
                        self.apply(op);
                    }
                    return Some((shard, Input::Stored { token, result }));
                }
                Job::Read(query, token) => {
                    let result = self.refuse().map(|()| self.answer(&query));
                    return Some((shard, Input::Answered { token, result }));
                }
            }
        }
        None
    }

    fn refuse(&self) -> Result<(), StoreFailure> {
        if self.failing {
            Err(StoreFailure::Full)
        } else {
            Ok(())
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only messages are read back"
    )]
    fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::MessageInsert(row) => drop(self.messages.insert(row.seq, *row)),
            StoreOp::MessageDelivered { seq, at } => {
                if let Some(row) = self.messages.get_mut(&seq) {
                    row.delivered_at.get_or_insert(at);
                }
            }
            StoreOp::MessageAcked {
                mesh_id,
                seq,
                client_message_id,
                keys,
                at,
            } => {
                let meant = |row: &&mut MessageRow| {
                    let target = PubKey::parse(&row.target_spec);
                    let by_id =
                        client_message_id.is_some() && row.client_message_id == client_message_id;
                    row.mesh_id == mesh_id
                        && (Some(row.seq) == seq || by_id)
                        && target.is_some_and(|key| keys.contains(&key))
                };
                for row in self.messages.values_mut().filter(meant) {
                    row.delivered_at.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    fn answer(&self, query: &StoreQuery) -> StoreAnswer {
        match query {
            StoreQuery::Message { seq } => {
                StoreAnswer::Message(self.messages.get(seq).cloned().map(Box::new))
            }
            StoreQuery::Sent {
                mesh_id,
                sender_member_id,
                client_message_id,
            } => {
                let named = self.messages.values().find(|row| {
                    row.mesh_id == *mesh_id
                        && row.sender_member_id == *sender_member_id
                        && row.client_message_id.as_ref() == Some(client_message_id)
                });
                StoreAnswer::Message(named.cloned().map(Box::new))
            }
            // No model of these tables: as if nothing were in them.
            StoreQuery::Records(_) => StoreAnswer::Records(RecordAnswer::Missing),
            StoreQuery::Mailbox {
                mesh_id,
                target,
                after,
                limit,
            } => {
                let target = target.to_string();
                let mut rows: Vec<MessageRow> = self
                    .messages
                    .values()
                    .filter(|row| {
                        row.seq > *after
                            && row.mesh_id == *mesh_id
                            && row.target_spec == target
                            && row.delivered_at.is_none()
                    })
                    .take(*limit as usize + 1)
                    .cloned()
                    .collect();
                let more = rows.len() > *limit as usize;
                rows.truncate(*limit as usize);
                StoreAnswer::Mailbox { rows, more }
            }
        }
    }
}

/// Shards in which the meshes and members of a story exist and nobody is present.
#[must_use]
pub(super) fn shards(now: Now, small: bool) -> Vec<Shard> {
    let mut config = Config {
        send_rate: 0,
        max_message_bytes: 4096,
        ..Config::default()
    };
    if small {
        config.max_sessions_per_mesh = 2;
        config.max_message_bytes = 100;
        config.send_rate = 60;
        config.send_burst = 3;
        config.grace = Millis::secs(2);
    }
    [0, 1]
        .map(|index: u8| {
            let place = Place {
                index: index.into(),
                count: 2,
            };
            let mut shard = Shard::new(config.clone(), place, [index; 32], now, Seq(1));
            for row in boot_rows(index.into()) {
                shard.handle(now, Input::Boot(row), &mut Vec::new());
            }
            shard
        })
        .into()
}

fn boot_rows(shard: usize) -> Vec<BootRow> {
    let mesh = ["mesh-b", "mesh-a"][shard];
    let mesh_row = BootRow::Mesh(MeshRow {
        id: mesh.into(),
        slug: mesh.into(),
        name: "A \"mesh\"".into(),
        self_editable: Some(r#"{"groups":true}"#.into()),
    });
    let members = (1..=MEMBERS).filter(|member| mesh_of(*member) == mesh);
    let member_rows = members.map(|member| {
        BootRow::Member(MemberRow {
            id: format!("member-{member}"),
            mesh_id: mesh.into(),
            pubkey: member_keys(member).public(),
            display_name: format!("name {member}"),
            admin: is_admin(member),
            role_tag: None,
            default_groups: vec![Group {
                name: "all/team".into(),
                role: None,
            }],
            message_mode: "push".into(),
            // One member lets another not in.
            revoked_at: None,
            grants: if member == 3 {
                vec![(member_keys(2).public(), Vec::new())]
            } else {
                Vec::new()
            },
        })
    });
    [mesh_row].into_iter().chain(member_rows).collect()
}

/// Whether a member may moderate.
#[must_use]
pub(super) fn is_admin(member: u8) -> bool {
    member == 1 || member == 5
}

/// The moment stories begin.
#[must_use]
pub(super) fn beginning() -> Now {
    Now {
        mono: Mono(1000),
        wall: Wall(1_700_000_000_000),
    }
}

/// A socket's name, unique within a story.
#[must_use]
pub(super) fn conn(socket: usize, opened: u32) -> ConnId {
    ConnId {
        slot: u32::try_from(socket).unwrap_or(0),
        generation: opened,
    }
}
