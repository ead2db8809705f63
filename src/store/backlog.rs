//! What becomes of queued items while the disk fails: who waits is told, what peers know is kept.

use std::collections::HashSet;

use super::Completion;
use super::queue::{Item, Lane};
use crate::core::rows::{StoreAnswer, StoreFailure, StoreOp, StoreQuery};

/// Kept items of one lane beyond which superseded ones are looked for.
pub(super) const COMPACT_AT: usize = 32_768;

/// Empties `lane` of what need not be kept, in order.
///
/// - An awaited message is refused: whoever asked is told, so nothing of it remains.
/// - An awaited operation on a presence, a member, saved state, a confirmation or the audit chain
///   is answered with the failure, since it is not durable now, and kept all the same: it is in
///   effect already.
/// - What nobody waits for is kept.
/// - A question is answered from the last commit: mail that is on disk can still be read.
///
/// What is not kept is given to `release`.
pub(super) fn settle(
    lane: &mut Lane,
    failure: StoreFailure,
    mut answer: impl FnMut(&StoreQuery) -> Result<StoreAnswer, StoreFailure>,
    mut release: impl FnMut(&Item),
) -> Vec<Completion> {
    let mut replies = Vec::new();
    for item in std::mem::take(lane) {
        match item {
            Item::Query { query, token } => {
                replies.push(Completion::Answered {
                    token,
                    result: answer(&query),
                });
                release(&Item::Query { query, token });
            }
            Item::Op {
                op,
                token: Some(token),
            } => {
                replies.push(Completion::Stored {
                    token,
                    result: Err(failure),
                });
                if in_effect(&op) {
                    lane.push_back(Item::Op { op, token: None });
                } else {
                    release(&Item::Op {
                        op,
                        token: Some(token),
                    });
                }
            }
            Item::Op { op, token: None } => lane.push_back(Item::Op { op, token: None }),
        }
    }
    replies
}

/// Whether what the operation says is in effect, whatever its asker is told.
fn in_effect(op: &StoreOp) -> bool {
    match op {
        StoreOp::PresencePut(_)
        | StoreOp::PresenceGrace { .. }
        | StoreOp::PresenceEnd { .. }
        | StoreOp::PresenceTold { .. }
        | StoreOp::PeerStatePut(_)
        | StoreOp::MessageDelivered { .. }
        | StoreOp::MessageAcked { .. }
        | StoreOp::MemberRevoked { .. }
        | StoreOp::Audit(_) => true,
        StoreOp::MessageInsert(_) => false,
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
    /// Members whose state is saved.
    saved: HashSet<(String, String)>,
}

impl Later {
    /// Whether what is behind makes `op` void; notes what `op` says.
    fn makes_void(&mut self, op: &StoreOp) -> bool {
        match op {
            StoreOp::PresencePut(row) => !self.put.insert(row.id.clone()),
            StoreOp::PresenceGrace { id, .. } => {
                self.put.contains(id) || !self.left.insert(id.clone())
            }
            StoreOp::PresenceEnd { id, .. } => {
                self.left.insert(id.clone());
                self.put.contains(id)
            }
            StoreOp::PresenceTold { id, .. } => self.put.contains(id),
            StoreOp::PeerStatePut(row) => !self
                .saved
                .insert((row.mesh_id.clone(), row.member_id.clone())),
            StoreOp::MessageInsert(_)
            | StoreOp::MessageDelivered { .. }
            | StoreOp::MessageAcked { .. }
            | StoreOp::Audit(_)
            | StoreOp::MemberRevoked { .. } => false,
        }
    }
}
