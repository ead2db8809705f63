//! Messages that are confirmed in the transaction that stores them are stored as delivered: under
//! load most are, since they are pushed beside the commit. Their rows are then written once, and
//! come into no index of what is undelivered.

use std::collections::HashMap;

use super::lanes::Entry;
use super::queue::Item;
use crate::core::ids::Seq;
use crate::core::rows::StoreOp;
use crate::core::time::Wall;

/// The messages of one transaction that it also confirms, and when.
#[derive(Default)]
pub(super) struct Merged(pub(super) HashMap<Seq, Wall>);

impl Merged {
    /// Looks through a transaction. Nothing is merged across what could tell the difference.
    pub(super) fn of(batch: &[Entry]) -> Self {
        let mut unconfirmed = HashMap::new();
        let mut merged = HashMap::new();
        for Entry { item, .. } in batch {
            let Item::Op { op, .. } = item else {
                unconfirmed.clear();
                continue;
            };
            match op {
                StoreOp::MessageInsert(row) => {
                    unconfirmed.insert(row.seq, row.delivered_at);
                }
                StoreOp::MessageDelivered { seq, at } => {
                    if let Some(None) = unconfirmed.remove(seq) {
                        merged.insert(*seq, *at);
                    }
                }
                StoreOp::MessageAcked { .. } => unconfirmed.clear(),
                StoreOp::PresencePut(_)
                | StoreOp::PresenceGrace { .. }
                | StoreOp::PresenceCursor { .. }
                | StoreOp::PresenceEnd { .. }
                | StoreOp::PresenceTold { .. }
                | StoreOp::Restarted(_)
                | StoreOp::PeerStatePut(_)
                | StoreOp::StateSet { .. }
                | StoreOp::StreamCreate(_)
                | StoreOp::Subscribed { .. }
                | StoreOp::Audit(_)
                | StoreOp::WatchPut(_)
                | StoreOp::WatchRemoved { .. }
                | StoreOp::SchedulePut(_)
                | StoreOp::ScheduleCancelled { .. }
                | StoreOp::ScheduleFired { .. }
                | StoreOp::ServerPut(_)
                | StoreOp::ServerRemoved { .. }
                | StoreOp::MemberRevoked { .. }
                | StoreOp::Topic(_)
                | StoreOp::Fence => {}
            }
        }
        Self(merged)
    }

    /// When the message is confirmed, if that is merged with its insert.
    pub(super) fn at(&self, seq: Seq) -> Option<Wall> {
        self.0.get(&seq).copied()
    }

    /// Its insert was refused.
    pub(super) fn refused(&mut self, seq: Seq) {
        self.0.remove(&seq);
    }
}
