//! The store model: group commit with delay, failures, and a crash that keeps only what was
//! committed.

pub mod tables;

use std::collections::VecDeque;

use holdfast_core::ids::{PubKey, Token};
use holdfast_core::rows::{MemberRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery};
use holdfast_core::time::Wall;

use crate::rng::Rng;
use crate::swarm::DiskSwarm;
pub(crate) use tables::Tables;

/// Something the writer has to do.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Op {
        op: StoreOp,
        token: Option<Token>,
    },
    Query {
        query: StoreQuery,
        token: Token,
    },
    /// An administrator's change of a member, told to its shard afterwards.
    Put(String, Change),
}

/// What an administrator may change of a member.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Revoke(Wall),
    Rename,
    /// What a peer may do; none for the default.
    Grant(PubKey, Option<Vec<String>>),
}

impl Change {
    fn apply(self, row: &mut MemberRow) {
        match self {
            Self::Revoke(at) => {
                row.revoked_at.get_or_insert(at);
            }
            Self::Rename => row.display_name.push('+'),
            Self::Grant(peer, caps) => {
                row.grants.retain(|(key, _)| *key != peer);
                row.grants.extend(caps.map(|caps| (peer, caps)));
            }
        }
    }
}

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Reply {
    Stored(Token, Result<(), StoreFailure>),
    Answered(Token, Result<StoreAnswer, StoreFailure>),
    Put(Box<MemberRow>),
}

/// The disk and its writer.
pub(crate) struct Disk {
    pub(crate) tables: Tables,
    pub(crate) lanes: Vec<VecDeque<Item>>,
    batch: Vec<(usize, Item)>,
    busy: bool,
    /// Until when every commit fails, and how.
    pub(crate) failing: Option<(u64, StoreFailure)>,
    /// Until when every commit takes that much longer.
    pub(crate) slow: (u64, u64),
    /// Until when the queue is called full.
    pub(crate) crowded: u64,
    swarm: DiskSwarm,
    rng: Rng,
}

/// When the writer wants to be called again.
pub(crate) type Wake = Option<u64>;

impl Disk {
    pub(crate) fn new(tables: Tables, swarm: DiskSwarm, rng: Rng) -> Self {
        Self {
            tables,
            lanes: Vec::new(),
            batch: Vec::new(),
            busy: false,
            failing: None,
            slow: (0, 0),
            crowded: 0,
            swarm,
            rng,
        }
    }

    /// Everything is written and nothing fails.
    pub(crate) fn idle(&self) -> bool {
        // Cursors are written down now and then for as long as somebody is there.
        let housekeeping = |item: &Item| {
            let op = match item {
                Item::Op { op, .. } => Some(op),
                Item::Query { .. } | Item::Put(..) => None,
            };
            matches!(op, Some(StoreOp::PresenceCursor { .. }))
        };
        let mut items = self.lanes.iter().flatten();
        items.all(housekeeping) && self.batch.iter().all(|(_, item)| housekeeping(item))
    }

    /// Why commits fail at that time, if they do.
    fn failure(&self, now: u64) -> Option<StoreFailure> {
        self.failing
            .filter(|(until, _)| now < *until)
            .map(|(_, failure)| failure)
    }

    /// Takes something in. Refused at once while crowded, if somebody waits for it.
    pub(crate) fn give(&mut self, now: u64, shard: usize, item: Item) -> Option<Reply> {
        if now < self.crowded {
            let failure = StoreFailure::Overloaded;
            match &item {
                Item::Op {
                    op: StoreOp::MessageInsert(_) | StoreOp::SchedulePut(_),
                    token: Some(token),
                } => {
                    return Some(Reply::Stored(*token, Err(failure)));
                }
                Item::Query { token, .. } => return Some(Reply::Answered(*token, Err(failure))),
                Item::Op { .. } | Item::Put(..) => {}
            }
        }
        if self.lanes.len() <= shard {
            self.lanes.resize_with(shard + 1, VecDeque::new);
        }
        self.lanes[shard].push_back(item);
        None
    }

    /// Begins a commit if there is something to do and nothing under way; gives when it ends.
    pub(crate) fn begin(&mut self, now: u64, replies: &mut Vec<(usize, Reply)>) -> Wake {
        if self.busy {
            return None;
        }
        if let Some(failure) = self.failure(now) {
            self.settle(failure, replies);
            let waits = self.lanes.iter().any(|lane| !lane.is_empty());
            return waits.then(|| self.failing.map_or(now, |(until, _)| until));
        }
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            let cut = lane.len() > 1 && self.rng.chance(self.swarm.split);
            let count = if cut {
                self.rng.index(lane.len())
            } else {
                lane.len()
            };
            self.batch
                .extend(lane.drain(..count).map(|item| (shard, item)));
        }
        if self.batch.is_empty() {
            return self
                .lanes
                .iter()
                .any(|lane| !lane.is_empty())
                .then_some(now + 1);
        }
        self.busy = true;
        let extra = if now < self.slow.0 {
            self.rng.below(self.slow.1 + 1)
        } else {
            0
        };
        Some(now + self.rng.between(self.swarm.commit.0, self.swarm.commit.1) + extra)
    }

    /// The commit under way ends.
    pub(crate) fn end(&mut self, now: u64, replies: &mut Vec<(usize, Reply)>) {
        if !self.busy {
            return;
        }
        self.busy = false;
        let batch = std::mem::take(&mut self.batch);
        if let Some(failure) = self.failure(now) {
            for (shard, item) in batch.into_iter().rev() {
                self.lanes[shard].push_front(item);
            }
            return self.settle(failure, replies);
        }
        for (shard, item) in batch {
            replies.extend(self.perform(item).map(|reply| (shard, reply)));
        }
    }

    fn perform(&mut self, item: Item) -> Option<Reply> {
        match item {
            Item::Op { op, token } => {
                let result = self.tables.apply(&op);
                token.map(|token| Reply::Stored(token, result))
            }
            Item::Query {
                query: StoreQuery::Records(query),
                token,
            } => {
                let answer = StoreAnswer::Records(self.tables.records(&query));
                Some(Reply::Answered(token, Ok(answer)))
            }
            Item::Query { query, token } => {
                Some(Reply::Answered(token, Ok(self.tables.answer(&query))))
            }
            Item::Put(id, change) => {
                let row = self
                    .tables
                    .members
                    .iter_mut()
                    .find(|member| member.id == id)?;
                change.apply(row);
                Some(Reply::Put(Box::new(row.clone())))
            }
        }
    }

    /// While commits fail: who waits is told, what peers know already is kept.
    fn settle(&mut self, failure: StoreFailure, replies: &mut Vec<(usize, Reply)>) {
        for shard in 0..self.lanes.len() {
            for item in std::mem::take(&mut self.lanes[shard]) {
                match item {
                    // Confirmations may wait among what is kept: mail is not read meanwhile.
                    Item::Query {
                        query:
                            StoreQuery::Mailbox { .. }
                            | StoreQuery::Sent { .. }
                            | StoreQuery::Records(_),
                        token,
                    } => replies.push((shard, Reply::Answered(token, Err(failure)))),
                    Item::Query {
                        query: query @ StoreQuery::Message { .. },
                        token,
                    } => {
                        let answer = self.tables.answer(&query);
                        replies.push((shard, Reply::Answered(token, Ok(answer))));
                    }
                    Item::Op {
                        op,
                        token: Some(token),
                    } => {
                        replies.push((shard, Reply::Stored(token, Err(failure))));
                        let refused =
                            matches!(op, StoreOp::MessageInsert(_) | StoreOp::SchedulePut(_));
                        if !refused {
                            self.lanes[shard].push_back(Item::Op { op, token: None });
                        }
                    }
                    kept @ (Item::Op { token: None, .. } | Item::Put(..)) => {
                        self.lanes[shard].push_back(kept);
                    }
                }
            }
        }
    }

    /// The process dies: what was not committed is gone; a commit under way may have made it.
    pub(crate) fn crash(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if std::mem::take(&mut self.busy) && self.rng.chance(500) {
            for (_, item) in batch {
                self.perform(item);
            }
        }
        self.lanes.clear();
    }

    /// The process ends in order: everything given is written, unless commits fail.
    pub(crate) fn close(&mut self, now: u64) {
        if self.failure(now).is_some() {
            return self.crash();
        }
        self.busy = false;
        for (_, item) in std::mem::take(&mut self.batch) {
            self.perform(item);
        }
        for lane in std::mem::take(&mut self.lanes) {
            for item in lane {
                self.perform(item);
            }
        }
    }

    /// The disk works as it should.
    pub(crate) fn heal(&mut self, swarm: DiskSwarm) {
        self.swarm = swarm;
    }

    /// How long a reply takes to its shard.
    pub(crate) fn reply_delay(&mut self) -> u64 {
        self.rng.below(self.swarm.reply + 1)
    }
}
