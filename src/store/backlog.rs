//! What becomes of queued items while the disk fails: who waits is told, what peers know is kept.

use std::collections::HashSet;

use super::Completion;
use super::gauges::LESSER_CHORES_MAX;
use super::queue::{Item, Lane};
use crate::core::ids::{Position, WatchId};
use crate::core::rows::{StoreFailure, StoreOp, Told, TopicChange};

/// Kept items of one lane beyond which superseded ones are looked for.
pub(super) const COMPACT_AT: usize = 32_768;

/// When to look again, with `kept` items left: when there is as much more, but before rows are
/// dropped for want of room.
pub(super) fn compact_again_at(kept: usize) -> usize {
    (2 * kept)
        .min(LESSER_CHORES_MAX)
        .max(kept + COMPACT_AT / 4)
        .max(COMPACT_AT)
}

/// Empties `lane` of what need not be kept, in order.
///
/// - An awaited message is refused, and one to be scheduled: whoever asked is told, so nothing of it
///   remains.
/// - An awaited operation on a presence, a watch, a member, saved state, a topic, a confirmation or the audit
///   chain
///   is answered with the failure, since it is not durable now, and kept all the same: it is in
///   effect already.
/// - What nobody waits for is kept.
/// - A question is refused: the last commit would answer it with messages whose confirmation is
///   among what is kept. Its asker asks again.
///
/// What is not kept is given to `release`.
pub(super) fn settle(
    lane: &mut Lane,
    failure: StoreFailure,
    mut release: impl FnMut(&Item),
) -> Vec<Completion> {
    let mut replies = Vec::new();
    for item in std::mem::take(lane) {
        if !item.awaited() {
            lane.push_back(item);
            continue;
        }
        replies.extend(item.refusal(failure));
        match item {
            Item::Op { op, .. } if in_effect(&op) => lane.push_back(Item::Op { op, token: None }),
            refused @ (Item::Op { .. } | Item::Query { .. }) => release(&refused),
        }
    }
    replies
}

/// Whether what the operation says is in effect, or will be, whatever its asker is told: a join or
/// a leave is announced when its row is durable, and also when it cannot be.
pub(super) fn in_effect(op: &StoreOp) -> bool {
    match op {
        StoreOp::PresencePut(_)
        | StoreOp::PresenceGrace { .. }
        | StoreOp::PresenceEnd { .. }
        | StoreOp::PresenceCursor { .. }
        | StoreOp::PresenceTold { .. }
        | StoreOp::Restarted(_)
        | StoreOp::PeerStatePut(_)
        | StoreOp::StateSet { .. }
        | StoreOp::StreamCreate(_)
        | StoreOp::Subscribed { .. }
        | StoreOp::MessageDelivered { .. }
        | StoreOp::MessageAcked { .. }
        | StoreOp::MemberRevoked { .. }
        | StoreOp::ScheduleCancelled { .. }
        | StoreOp::ScheduleFired { .. }
        | StoreOp::ServerPut(_)
        | StoreOp::ServerRemoved { .. }
        | StoreOp::Topic(_)
        | StoreOp::WatchPut(_)
        | StoreOp::WatchRemoved { .. }
        | StoreOp::Audit(_)
        | StoreOp::Fence => true,
        StoreOp::MessageInsert(_) | StoreOp::SchedulePut(_) => false,
    }
}

/// Removes operations that a later one in the lane makes void, so that the backlog of a long
/// failure is bounded by what there is rather than by what happens.
pub(super) fn compact(lane: &mut Lane, mut release: impl FnMut(&Item)) {
    let mut later = Later::default();
    let mut kept = Lane::with_capacity(lane.len());
    while let Some(item) = lane.pop_back() {
        let void = match &item {
            Item::Op { op, token: None } => later.makes_void(op),
            Item::Op { token: Some(_), .. } | Item::Query { .. } => false,
        };
        if void {
            release(&item);
        } else {
            kept.push_front(item);
        }
    }
    *lane = kept;
}

/// What the operations behind the current one say.
#[derive(Default)]
struct Later {
    /// Presences that are written whole.
    put: HashSet<String>,
    /// Presences whose grace begins, or which end.
    left: HashSet<String>,
    /// Presences of which others are told that they left, or joined.
    told: HashSet<(String, bool)>,
    /// Presences whose cursors move.
    moved: HashSet<String>,
    /// MCP servers that are written whole, or removed.
    servers: HashSet<(String, String)>,
    /// Leases that end.
    ended: HashSet<Position>,
    /// Watches that are written whole, or given up.
    watched: HashSet<(Position, WatchId)>,
    /// Members whose state is saved.
    saved: HashSet<(String, String)>,
    /// Keys of shared state that are set, by mesh. What is void takes its audit entry along.
    set: HashSet<(String, String)>,
    /// Subscriptions that begin or end, by presence.
    subscribed: HashSet<(String, String)>,
    /// Who joins or leaves which topic.
    topics: HashSet<(String, String)>,
}

impl Later {
    fn makes_topic_void(&mut self, change: &TopicChange) -> bool {
        let (topic, member) = match change {
            TopicChange::Created(..) => return false,
            TopicChange::MemberPut(row) => (&row.topic_id, &row.member_id),
            TopicChange::MemberGone {
                topic_id,
                member_id,
                ..
            } => (topic_id, member_id),
        };
        !self.topics.insert((topic.clone(), member.clone()))
    }

    /// Whether what is behind makes `op` void; notes what `op` says.
    fn makes_void(&mut self, op: &StoreOp) -> bool {
        match op {
            StoreOp::PresencePut(row) => !self.put.insert(row.id.clone()),
            StoreOp::PresenceGrace { id, .. } => {
                self.put.contains(id) || !self.left.insert(id.clone())
            }
            StoreOp::PresenceEnd { began, id, .. } => {
                self.ended.insert(*began);
                self.left.insert(id.clone());
                self.put.contains(id)
            }
            StoreOp::PresenceTold { id, told, .. } => {
                let left = matches!(told, Told::Leave(_));
                self.put.contains(id) || !self.told.insert((id.clone(), left))
            }
            StoreOp::PresenceCursor { id, .. } => {
                self.put.contains(id) || self.left.contains(id) || !self.moved.insert(id.clone())
            }
            StoreOp::WatchPut(row) => {
                self.ended.contains(&row.began) || !self.watched.insert((row.began, row.id))
            }
            // The row may be on disk already.
            StoreOp::WatchRemoved { began, id } => {
                self.watched.insert((*began, *id));
                false
            }
            StoreOp::PeerStatePut(row) => !self
                .saved
                .insert((row.mesh_id.clone(), row.member_id.clone())),
            StoreOp::StateSet { row, .. } => {
                !self.set.insert((row.mesh_id.clone(), row.key.clone()))
            }
            StoreOp::Subscribed { id, stream, .. } => {
                !self.subscribed.insert((id.clone(), stream.clone()))
            }
            StoreOp::ServerPut(row) => {
                !self.servers.insert((row.mesh_id.clone(), row.name.clone()))
            }
            StoreOp::ServerRemoved { mesh_id, name } => {
                !self.servers.insert((mesh_id.clone(), name.clone()))
            }
            StoreOp::Topic(change) => self.makes_topic_void(change),
            StoreOp::Fence => true,
            StoreOp::Restarted(_)
            | StoreOp::StreamCreate(_)
            | StoreOp::MessageInsert(_)
            | StoreOp::MessageDelivered { .. }
            | StoreOp::MessageAcked { .. }
            | StoreOp::Audit(_)
            | StoreOp::MemberRevoked { .. }
            | StoreOp::SchedulePut(_)
            | StoreOp::ScheduleCancelled { .. }
            | StoreOp::ScheduleFired { .. } => false,
        }
    }
}
