//! What is on disk: the store's tables as plain maps, with the meaning of its SQL.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::identity::ResumeKey;
use holdfast_core::ids::{Position, PubKey, Seq, WatchId};
use holdfast_core::limits::LogLimits;
use holdfast_core::rows::{
    BootRow, EndedRow, LogRow, MailboxRow, MemberRow, MeshRow, MessageRow, PeerStateRow,
    PresenceRow, RecordAnswer, RecordAsk, RecordQuery, Restart, ScheduleRow, SentRow, ServerRow,
    StateRow, StoreAnswer, StoreFailure, StoreOp, StoreQuery, StreamRow, SubscriptionRow, Task,
    TaskStatus, Told, TopicChange, TopicMemberRow, TopicRow, WatchRow,
};
use holdfast_core::time::Wall;

/// Each boot's sequences begin at the next multiple of this.
const SEQ_STRIDE: u64 = 1 << 28;

/// The key of resume tokens: the real store makes its own.
const RESUME_KEY: ResumeKey = ResumeKey([7; 32]);

/// One presence.
#[derive(Clone, Debug)]
pub struct Presence {
    /// As put last.
    pub row: PresenceRow,
    /// The boot in which it was put.
    boot: u64,
    /// When and where it ended.
    pub ended: Option<(Wall, Position)>,
    /// Where others were told that it left.
    pub left: Option<Position>,
    rowid: u64,
}

impl Presence {
    /// Boots since somebody last attached, at that boot.
    fn epochs(&self, boots: u64) -> u8 {
        let since = u8::try_from(boots - self.boot).unwrap_or(u8::MAX);
        self.row.boot_epochs.saturating_add(since)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// In the order made.
    pub meshes: Vec<MeshRow>,
    /// In the order made.
    pub members: Vec<MemberRow>,
    /// By id.
    pub presences: BTreeMap<String, Presence>,
    /// In the order first saved.
    pub states: Vec<PeerStateRow>,
    /// In the order made.
    pub topics: Vec<TopicRow>,
    /// By topic and member.
    pub topic_members: BTreeMap<(String, String), TopicMemberRow>,
    /// By sequence.
    pub messages: BTreeMap<u64, MessageRow>,
    /// By mesh and name.
    pub servers: BTreeMap<(String, String), ServerRow>,
    /// In the order made.
    pub schedules: Vec<ScheduleRow>,
    /// Tasks with their meshes, in the order made.
    pub tasks: Vec<(String, Task)>,
    /// By their lease and name.
    pub watches: BTreeMap<(Position, WatchId), WatchRow>,
    /// Audit entries.
    pub audits: u64,
    /// By mesh and key.
    pub state: BTreeMap<(String, String), StateRow>,
    /// In the order made.
    pub streams: Vec<StreamRow>,
    /// Presences and the streams they are subscribed to.
    pub subscriptions: BTreeSet<(Position, String)>,
    boots: u64,
    first_seq: u64,
    rows: u64,
}

impl Tables {
    /// Tables of a store in which only administrators have worked.
    #[must_use]
    pub fn new(meshes: Vec<MeshRow>, members: Vec<MemberRow>) -> Self {
        Self {
            meshes,
            members,
            ..Self::default()
        }
    }

    /// Carries out an operation.
    ///
    /// # Errors
    /// If a constraint forbids it.
    pub fn apply(&mut self, op: &StoreOp) -> Result<(), StoreFailure> {
        match op {
            StoreOp::PresencePut(row) => self.put(row),
            StoreOp::PresenceGrace {
                id,
                until,
                last_ping_at,
                cursor,
                heard,
                known,
                ..
            } => {
                if let Some(found) = self.presences.get_mut(id) {
                    found.row.lease_until = Some(*until);
                    found.row.last_ping_at = *last_ping_at;
                    found.row.cursor = *cursor;
                    found.row.heard = *heard;
                    found.row.known = *known;
                }
            }
            StoreOp::PresenceCursor { id, cursor, .. } => {
                if let Some(found) = self.presences.get_mut(id) {
                    found.row.cursor = *cursor;
                }
            }
            StoreOp::PresenceEnd {
                began,
                id,
                at,
                ended,
            } => {
                self.subscriptions.retain(|(of, _)| of != began);
                self.watches.retain(|(owner, _), _| owner != began);
                if let Some(found) = self.presences.get_mut(id) {
                    found.ended.get_or_insert((*at, *ended));
                }
            }
            StoreOp::PresenceTold { id, told, .. } => {
                if let Some(found) = self.presences.get_mut(id) {
                    match told {
                        Told::Join(at) => found.row.joined = Some(*at),
                        Told::Leave(at) => found.left = Some(*at),
                    }
                }
            }
            StoreOp::Restarted(start) => self.restarted(start),
            StoreOp::PeerStatePut(row) => {
                let same = |old: &&mut PeerStateRow| {
                    (&old.mesh_id, &old.member_id) == (&row.mesh_id, &row.member_id)
                };
                match self.states.iter_mut().find(same) {
                    Some(old) => old.clone_from(row),
                    None => self.states.push((**row).clone()),
                }
            }
            StoreOp::MessageInsert(row) => {
                self.insert(row)?;
            }
            StoreOp::MessageDelivered { seq, at } => {
                if let Some(found) = self.messages.get_mut(&seq.0) {
                    found.delivered_at.get_or_insert(*at);
                }
            }
            StoreOp::MessageAcked {
                mesh_id,
                seq,
                client_message_id,
                keys,
                at,
            } => {
                let own = |row: &MessageRow| {
                    row.mesh_id == *mesh_id
                        && row.delivered_at.is_none()
                        && keys.iter().any(|key| key.to_string() == row.target_spec)
                };
                // The broker's id decides, if it names a row.
                let by_seq = seq.and_then(|seq| self.messages.get_mut(&seq.0));
                if let Some(row) = by_seq.filter(|row| own(row)) {
                    row.delivered_at = Some(*at);
                } else if client_message_id.is_some() {
                    let named = |row: &&mut MessageRow| row.client_message_id == *client_message_id;
                    for row in self
                        .messages
                        .values_mut()
                        .filter(named)
                        .filter(|row| own(row))
                    {
                        row.delivered_at = Some(*at);
                    }
                }
            }
            StoreOp::StateSet { row, .. } => {
                self.audits += 1;
                let key = (row.mesh_id.clone(), row.key.clone());
                self.state.insert(key, (**row).clone());
            }
            StoreOp::StreamCreate(row) => {
                let name = |row: &StreamRow| (row.mesh_id.clone(), row.name.clone());
                if self.streams.iter().all(|old| name(old) != name(row)) {
                    self.streams.push((**row).clone());
                }
            }
            StoreOp::Subscribed {
                began,
                stream,
                subscribed,
                ..
            } => {
                let subscription = (*began, stream.clone());
                if *subscribed {
                    self.subscriptions.insert(subscription);
                } else {
                    self.subscriptions.remove(&subscription);
                }
            }
            StoreOp::WatchPut(row) => {
                let watch = self.watches.entry((row.began, row.id));
                let watch = watch.or_insert_with(|| (**row).clone());
                watch.value.clone_from(&row.value);
            }
            StoreOp::WatchRemoved { began, id } => {
                self.watches.remove(&(*began, *id));
            }
            StoreOp::Audit(_) => self.audits += 1,
            StoreOp::Fence => {}
            StoreOp::MemberRevoked { id, at } => {
                if let Some(member) = self.members.iter_mut().find(|member| member.id == *id) {
                    member.revoked_at = *at;
                }
            }
            StoreOp::SchedulePut(row) => {
                if self.schedules.iter().any(|other| other.id == row.id) {
                    return Err(StoreFailure::Io);
                }
                self.schedules.push((**row).clone());
            }
            StoreOp::ScheduleCancelled { id } => self.schedules.retain(|row| row.id != *id),
            StoreOp::ScheduleFired { id, sent, next } => {
                if let Some(sent) = sent {
                    self.insert(sent)?;
                    self.audits += 1;
                }
                self.fired(id, *next);
            }
            StoreOp::ServerPut(row) => {
                let key = (row.mesh_id.clone(), row.name.clone());
                self.servers.insert(key, (**row).clone());
            }
            StoreOp::ServerRemoved { mesh_id, name } => {
                self.servers.remove(&(mesh_id.clone(), name.clone()));
            }
            StoreOp::Topic(change) => self.change_topic(change)?,
        }
        Ok(())
    }

    fn insert(&mut self, row: &MessageRow) -> Result<(), StoreFailure> {
        if self.messages.contains_key(&row.seq.0) {
            return Err(StoreFailure::Io);
        }
        self.messages.insert(row.seq.0, row.clone());
        Ok(())
    }

    fn fired(&mut self, id: &str, next: Option<Wall>) {
        match next {
            Some(next) => {
                for row in self.schedules.iter_mut().filter(|row| row.id == *id) {
                    row.deliver_at = next;
                    row.fired_count += 1;
                }
            }
            None => self.schedules.retain(|row| row.id != *id),
        }
    }

    fn change_topic(&mut self, change: &TopicChange) -> Result<(), StoreFailure> {
        match change {
            TopicChange::Created(made) => {
                let (row, lead) = (&made.topic, &made.lead);
                let taken = self.topics.iter().any(|other| {
                    other.id == row.id || (&other.mesh_id, &other.name) == (&row.mesh_id, &row.name)
                });
                if taken {
                    return Err(StoreFailure::Io);
                }
                self.topics.push(row.clone());
                self.put_topic_member(lead);
            }
            TopicChange::MemberPut(row) => self.put_topic_member(row),
            TopicChange::MemberGone {
                topic_id,
                member_id,
                ..
            } => {
                self.topic_members
                    .remove(&(topic_id.clone(), member_id.clone()));
            }
        }
        Ok(())
    }

    fn put_topic_member(&mut self, row: &TopicMemberRow) {
        let key = (row.topic_id.clone(), row.member_id.clone());
        self.topic_members.insert(key, row.clone());
    }

    /// Whoever has not come back since this boot is extended.
    fn restarted(&mut self, start: &Restart) {
        let boots = self.boots;
        let present = self.presences.values_mut();
        for found in present.filter(|found| found.ended.is_none() && found.boot < boots) {
            let put = found.row.boot_epochs;
            found.row.boot_epochs = found.epochs(boots);
            start.note(&mut found.row);
            found.row.boot_epochs = put;
        }
    }

    fn put(&mut self, row: &PresenceRow) {
        let rowid = self.presences.get(&row.id).map_or_else(
            || {
                self.rows += 1;
                self.rows
            },
            |old| old.rowid,
        );
        let presence = Presence {
            row: row.clone(),
            boot: self.boots,
            ended: None,
            left: None,
            rowid,
        };
        self.presences.insert(row.id.clone(), presence);
    }

    /// Carries out what is asked of tasks; there is nothing else of what is on disk only.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "nothing else is asked in the simulator"
    )]
    pub fn records(&mut self, query: &RecordQuery) -> RecordAnswer {
        match &query.ask {
            RecordAsk::CreateTask(task) => {
                self.tasks.push((query.mesh_id.clone(), task.clone()));
                RecordAnswer::Written
            }
            RecordAsk::ClaimTask { id, by, .. } => {
                let open = |(mesh_id, task): &&mut (String, Task)| {
                    *mesh_id == query.mesh_id && task.id == *id && task.status == TaskStatus::Open
                };
                let Some((_, task)) = self.tasks.iter_mut().find(open) else {
                    return RecordAnswer::Missing;
                };
                task.status = TaskStatus::Claimed;
                task.claimed_by = Some(by.clone());
                self.all_tasks(&query.mesh_id)
            }
            RecordAsk::ListTasks { .. } => self.all_tasks(&query.mesh_id),
            _ => RecordAnswer::Missing,
        }
    }

    fn all_tasks(&self, mesh_id: &str) -> RecordAnswer {
        let own = self.tasks.iter().filter(|(of, _)| of == mesh_id);
        RecordAnswer::Tasks(own.rev().take(100).map(|(_, task)| task.clone()).collect())
    }

    /// Answers a question.
    #[must_use]
    pub fn answer(&self, query: &StoreQuery) -> StoreAnswer {
        match query {
            StoreQuery::Mailbox {
                mesh_id,
                target,
                after,
                limit,
            } => {
                let spec = target.to_string();
                let mut rows: Vec<MessageRow> = self
                    .messages
                    .range(after.0 + 1..)
                    .map(|(_, row)| row)
                    .filter(|row| {
                        row.mesh_id == *mesh_id
                            && row.target_spec == spec
                            && row.delivered_at.is_none()
                    })
                    .take(*limit as usize + 1)
                    .cloned()
                    .collect();
                let more = rows.len() > *limit as usize;
                rows.truncate(*limit as usize);
                StoreAnswer::Mailbox { rows, more }
            }
            StoreQuery::Message { seq } => {
                StoreAnswer::Message(self.messages.get(&seq.0).cloned().map(Box::new))
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
            // See `records`, which may write.
            StoreQuery::Records(_) => StoreAnswer::Records(RecordAnswer::Missing),
        }
    }

    /// Counts a boot; gives what the shards must know, of the meshes' logs as much as `log` allows,
    /// and the first sequence.
    pub fn boot(&mut self, log: &LogLimits, now: Wall) -> (Vec<BootRow>, Seq) {
        let last = self.messages.keys().next_back().copied().unwrap_or(0);
        let used = last.max(self.first_seq);
        self.first_seq = (used / SEQ_STRIDE + 1) * SEQ_STRIDE;
        self.boots += 1;
        let mut rows = vec![BootRow::Resume(RESUME_KEY)];
        rows.extend(self.meshes.iter().cloned().map(BootRow::Mesh));
        rows.extend(self.members.iter().cloned().map(BootRow::Member));
        rows.extend(self.states.iter().cloned().map(BootRow::PeerState));
        let state = self.state.values().cloned();
        rows.extend(state.map(|row| BootRow::State(Box::new(row))));
        let streams = self.streams.iter().cloned();
        rows.extend(streams.map(|row| BootRow::Stream(Box::new(row))));
        let topics = self.topics.iter().cloned().map(Box::new);
        rows.extend(topics.map(BootRow::Topic));
        let members = self.topic_members.values().cloned().map(Box::new);
        rows.extend(members.map(BootRow::TopicMember));
        let mut present: Vec<&Presence> = self
            .presences
            .values()
            .filter(|presence| presence.ended.is_none())
            .collect();
        present.sort_by_key(|presence| presence.rowid);
        let began: BTreeSet<Position> = present.iter().map(|presence| presence.row.began).collect();
        let watches = self
            .watches
            .values()
            .filter(|row| began.contains(&row.began));
        rows.extend(watches.cloned().map(|row| BootRow::Watch(Box::new(row))));
        for presence in present {
            let mut row = presence.row.clone();
            row.boot_epochs = presence.epochs(self.boots);
            let (mesh_id, began) = (row.mesh_id.clone(), row.began);
            rows.push(BootRow::Presence(Box::new(row)));
            for (_, stream) in self.subscriptions.iter().filter(|(of, _)| *of == began) {
                rows.push(BootRow::Subscription(SubscriptionRow {
                    mesh_id: mesh_id.clone(),
                    began,
                    stream: stream.clone(),
                }));
            }
        }
        rows.extend(self.ended());
        let servers = self.servers.values().cloned();
        rows.extend(servers.map(|row| BootRow::Server(Box::new(row))));
        self.logs(log, now, &mut rows);
        rows.extend(self.sent());
        let mut mailboxes: Vec<(String, String)> = self
            .messages
            .values()
            .filter(|row| row.delivered_at.is_none())
            .map(|row| (row.mesh_id.clone(), row.target_spec.clone()))
            .collect();
        mailboxes.sort();
        mailboxes.dedup();
        for (mesh_id, spec) in mailboxes {
            if let Some(target) = PubKey::parse(&spec) {
                rows.push(BootRow::Mailbox(MailboxRow { mesh_id, target }));
            }
        }
        let schedules = self.schedules.iter().cloned();
        rows.extend(schedules.map(|row| BootRow::Schedule(Box::new(row))));
        (rows, Seq(self.first_seq))
    }

    /// Presences that ended, oldest first.
    fn ended(&self) -> Vec<BootRow> {
        let ended = self.presences.values().filter_map(|presence| {
            let (at, ended) = presence.ended?;
            Some((at, presence.rowid, presence, ended))
        });
        let mut ended: Vec<_> = ended.collect();
        ended.sort_by_key(|(at, rowid, ..)| (*at, *rowid));
        let row = |(at, _, presence, ended): (Wall, u64, &Presence, Position)| {
            BootRow::Ended(Box::new(EndedRow {
                left: presence.left,
                ..EndedRow::of(&presence.row, at, ended)
            }))
        };
        ended.into_iter().map(row).collect()
    }

    /// What was said to many, in each mesh with somebody present.
    fn logs(&self, log: &LogLimits, now: Wall, rows: &mut Vec<BootRow>) {
        let present = self
            .presences
            .values()
            .filter(|presence| presence.ended.is_none());
        let meshes: BTreeSet<&String> = present.map(|presence| &presence.row.mesh_id).collect();
        let oldest = now.0 - i64::try_from(log.age.0).unwrap_or(i64::MAX / 2);
        for mesh_id in meshes {
            let to_many = self.messages.values().filter(|row| row.mesh_id == *mesh_id);
            let mut said: Vec<_> = to_many.filter(|row| row.position.is_some()).collect();
            said.sort_by_key(|row| row.position);
            let mut bytes = 0;
            let mut kept = said.len();
            while let Some(row) = kept.checked_sub(1).and_then(|at| said.get(at)) {
                bytes += row.ciphertext.len();
                let count = said.len() - kept;
                if count >= log.entries || bytes > log.bytes || row.created_at.0 < oldest {
                    break;
                }
                kept -= 1;
            }
            let since = said[..kept].last().and_then(|row| row.position);
            let kept = said[kept..]
                .iter()
                .map(|row| BootRow::Said(Box::new((*row).clone())));
            rows.extend(kept);
            rows.push(BootRow::Log(LogRow {
                mesh_id: mesh_id.clone(),
                since: since.unwrap_or_default(),
            }));
        }
    }

    /// Sends that their senders named, oldest first.
    fn sent(&self) -> impl Iterator<Item = BootRow> {
        self.messages.values().filter_map(|row| {
            Some(BootRow::Sent(SentRow {
                mesh_id: row.mesh_id.clone(),
                sender_member_id: row.sender_member_id.clone(),
                client_message_id: row.client_message_id.clone()?,
            }))
        })
    }
}
