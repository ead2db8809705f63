//! What is on disk: the store's tables as plain maps, with the meaning of its SQL.

use std::collections::BTreeMap;

use holdfast_core::ids::{PubKey, Seq};
use holdfast_core::rows::{
    BootRow, MailboxRow, MemberRow, MeshRow, MessageRow, PeerStateRow, PresenceRow, StoreAnswer,
    StoreFailure, StoreOp, StoreQuery, Told,
};
use holdfast_core::time::Wall;

/// Each boot's sequences begin at the next multiple of this.
const SEQ_STRIDE: u64 = 1 << 28;

/// One presence.
#[derive(Clone, Debug)]
pub struct Presence {
    /// As put last.
    pub row: PresenceRow,
    /// The boot in which it was put.
    boot: u64,
    /// When it ended.
    pub ended: Option<Wall>,
    /// What others were told of it.
    pub told: Option<Told>,
    rowid: u64,
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
    /// By sequence.
    pub messages: BTreeMap<u64, MessageRow>,
    /// Audit entries.
    pub audits: u64,
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
            } => {
                if let Some(found) = self.presences.get_mut(id) {
                    found.row.lease_until = Some(*until);
                    found.row.last_ping_at = *last_ping_at;
                }
            }
            StoreOp::PresenceEnd { id, at } => {
                if let Some(found) = self.presences.get_mut(id) {
                    found.ended.get_or_insert(*at);
                }
            }
            StoreOp::PresenceTold { id, told } => {
                if let Some(found) = self.presences.get_mut(id) {
                    found.row.announced = *told >= Told::Join;
                    found.told = Some(*told);
                }
            }
            StoreOp::PeerStatePut(row) => {
                let same = |old: &&mut PeerStateRow| {
                    (&old.mesh_id, &old.member_id) == (&row.mesh_id, &row.member_id)
                };
                match self.states.iter_mut().find(same) {
                    Some(old) => old.clone_from(row),
                    None => self.states.push((**row).clone()),
                }
            }
            StoreOp::MessageInsert { row, .. } => {
                if self.messages.contains_key(&row.seq.0) {
                    return Err(StoreFailure::Io);
                }
                self.messages.insert(row.seq.0, (**row).clone());
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
            StoreOp::Audit(_) => self.audits += 1,
            StoreOp::MemberRevoked { id, at } => {
                if let Some(member) = self.members.iter_mut().find(|member| member.id == *id) {
                    member.revoked_at = *at;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, row: &PresenceRow) {
        let rowid = self.presences.get(&row.id).map_or_else(
            || {
                self.rows += 1;
                self.rows
            },
            |old| old.rowid,
        );
        let told = row.announced.then_some(Told::Join);
        let presence = Presence {
            row: row.clone(),
            boot: self.boots,
            ended: None,
            told,
            rowid,
        };
        self.presences.insert(row.id.clone(), presence);
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
        }
    }

    /// Counts a boot; gives what the shards must know, and the first sequence.
    pub fn boot(&mut self) -> (Vec<BootRow>, Seq) {
        let last = self.messages.keys().next_back().copied().unwrap_or(0);
        let used = last.max(self.first_seq);
        self.first_seq = (used / SEQ_STRIDE + 1) * SEQ_STRIDE;
        self.boots += 1;
        let mut rows: Vec<BootRow> = self.meshes.iter().cloned().map(BootRow::Mesh).collect();
        rows.extend(self.members.iter().cloned().map(BootRow::Member));
        rows.extend(self.states.iter().cloned().map(BootRow::PeerState));
        let mut present: Vec<&Presence> = self
            .presences
            .values()
            .filter(|presence| presence.ended.is_none())
            .collect();
        present.sort_by_key(|presence| presence.rowid);
        for presence in present {
            let mut row = presence.row.clone();
            let since = u8::try_from(self.boots - presence.boot).unwrap_or(u8::MAX);
            row.boot_epochs = row.boot_epochs.saturating_add(since);
            rows.push(BootRow::Presence(Box::new(row)));
        }
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
        (rows, Seq(self.first_seq))
    }
}
