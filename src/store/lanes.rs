//! What the writer has taken in and not yet done, and what of it goes into the next transaction.
//!
//! Within a lane the order never changes: a transaction takes a prefix of each. What somebody
//! waits for comes sooner by leaving out what is behind the last such item of each lane, and the
//! lanes that have none.

use super::queue::{Item, Lane};

/// Items in one transaction that somebody waits for: beyond it, throughput hardly grows.
pub(super) const BATCH_MAX: usize = 1024;

/// Items in one transaction that nobody waits for: somebody may come meanwhile.
const CHORE_BATCH_MAX: usize = 256;

/// Bytes of message bodies in one transaction.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Transactions in a row that may pass over a lane.
const PASSED_OVER_MAX: u32 = 8;

/// One item of a transaction.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shard: usize,
    pub(super) item: Item,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// The lane that comes first in the next transaction, so that none is always last.
    first: usize,
    /// Transactions since all lanes had a share.
    passed_over: u32,
    /// Transactions of one item still to be made, after one of many could not be blamed.
    singles: usize,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(Lane::len).sum()
    }

    /// Takes in what is new, leaving `fresh` empty lanes.
    pub(super) fn append(&mut self, fresh: &mut [Lane]) {
        if self.lanes.len() < fresh.len() {
            self.lanes.resize_with(fresh.len(), Lane::new);
        }
        for (lane, fresh) in self.lanes.iter_mut().zip(fresh) {
            lane.append(fresh);
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// Takes the next transaction off the lanes.
    pub(super) fn next_batch(&mut self) -> Vec<Entry> {
        let awaited: Vec<usize> = self.lanes.iter().map(awaited_prefix).collect();
        let any_awaited = awaited.iter().any(|&prefix| prefix > 0);
        let passes_over = self
            .lanes
            .iter()
            .zip(&awaited)
            .any(|(lane, &prefix)| prefix == 0 && !lane.is_empty());
        let everything = !any_awaited || self.passed_over >= PASSED_OVER_MAX;
        self.passed_over = if passes_over && !everything {
            self.passed_over + 1
        } else {
            0
        };

        let most = match (self.singles, any_awaited) {
            (0, true) => BATCH_MAX,
            (0, false) => CHORE_BATCH_MAX,
            (_, _) => 1,
        };
        self.singles = self.singles.saturating_sub(1);
        let mut batch = Batch {
            entries: Vec::new(),
            most,
            bytes: 0,
        };
        let count = self.lanes.len();
        for shard in (0..count).map(|offset| (self.first + offset) % count) {
            let Some(lane) = self.lanes.get_mut(shard) else {
                continue;
            };
            let wanted = if everything {
                lane.len()
            } else {
                awaited.get(shard).map_or(0, |&n| n)
            };
            batch.fill(shard, lane, wanted);
        }
        self.first = (self.first + 1) % count.max(1);
        batch.entries
    }

    /// Puts a transaction that failed back to where it came from.
    pub(super) fn put_back(&mut self, batch: Vec<Entry>) {
        for entry in batch.into_iter().rev() {
            if let Some(lane) = self.lanes.get_mut(entry.shard) {
                lane.push_front(entry.item);
            }
        }
    }

    /// The next `count` transactions have one item each.
    pub(super) fn one_by_one(&mut self, count: usize) {
        self.singles = count;
    }
}

/// Items up to the last one that somebody waits for, of those that fit into a transaction.
fn awaited_prefix(lane: &Lane) -> usize {
    let fitting = lane.len().min(BATCH_MAX);
    lane.range(..fitting)
        .rposition(Item::awaited)
        .map_or(0, |last| last + 1)
}

struct Batch {
    entries: Vec<Entry>,
    most: usize,
    bytes: usize,
}

impl Batch {
    fn fill(&mut self, shard: usize, lane: &mut Lane, wanted: usize) {
        for _ in 0..wanted {
            if self.entries.len() >= self.most || self.bytes >= BATCH_BYTES_MAX {
                return;
            }
            let Some(item) = lane.pop_front() else { return };
            self.bytes += item.body_bytes();
            self.entries.push(Entry { shard, item });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{Seq, Token};
    use crate::core::rows::StoreOp;
    use crate::core::time::Wall;

    fn item(seq: u64, awaited: bool) -> Item {
        Item::Op {
            op: StoreOp::MessageDelivered {
                seq: Seq(seq),
                at: Wall(0),
            },
            token: awaited.then_some(Token(seq)),
        }
    }

    fn lanes(awaited: &[&[bool]]) -> Lanes {
        let mut seq = 0..;
        let mut fresh: Vec<Lane> = awaited
            .iter()
            .map(|lane| {
                lane.iter()
                    .map(|&it| item(seq.next().unwrap(), it))
                    .collect()
            })
            .collect();
        let mut lanes = Lanes::default();
        lanes.append(&mut fresh);
        lanes
    }

    fn shape(batch: &[Entry]) -> Vec<(usize, bool)> {
        batch
            .iter()
            .map(|entry| (entry.shard, entry.item.awaited()))
            .collect()
    }

    #[test]
    fn what_is_awaited_takes_along_only_what_is_before_it() {
        let mut lanes = lanes(&[&[false, true, false], &[false, false], &[true]]);
        assert_eq!(
            shape(&lanes.next_batch()),
            [(0, false), (0, true), (2, true)]
        );
        assert_eq!(
            shape(&lanes.next_batch()),
            [(1, false), (1, false), (0, false)]
        );
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_lane_of_chores_is_not_passed_over_for_ever() {
        let mut lanes = lanes(&[&[true; 20], &[false]]);
        lanes.one_by_one(0);
        for _ in 0..PASSED_OVER_MAX {
            let batch = lanes.next_batch();
            assert!(batch.iter().all(|entry| entry.shard == 0));
            lanes.put_back(batch);
        }
        assert!(lanes.next_batch().iter().any(|entry| entry.shard == 1));
    }

    #[test]
    fn a_transaction_has_bounds_and_put_back_keeps_the_order() {
        let mut lanes = lanes(&[&[true; BATCH_MAX + 5], &[true; 3]]);
        let batch = lanes.next_batch();
        assert_eq!(batch.len(), BATCH_MAX);
        lanes.put_back(batch);
        assert_eq!(lanes.len(), BATCH_MAX + 8);
        lanes.one_by_one(2);
        assert_eq!(lanes.next_batch().len(), 1);
        assert_eq!(lanes.next_batch().len(), 1);
        assert_eq!(lanes.next_batch().len(), BATCH_MAX);
    }
}
