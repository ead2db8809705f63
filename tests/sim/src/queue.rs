//! What is going to happen, by time and, at one time, in the order it was decided.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A queue of events in virtual time.
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, E>,
    tie: u64,
}

impl<E> Queue<E> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            tie: 0,
        }
    }

    /// Something will happen.
    pub(crate) fn push(&mut self, at: u64, event: E) {
        self.tie += 1;
        self.heap.push(Reverse((at, self.tie)));
        self.events.insert(self.tie, event);
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next thing.
    pub(crate) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, tie)) = self.heap.pop()?;
        self.events.remove(&tie).map(|event| (at, event))
    }
}
