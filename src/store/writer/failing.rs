//! The writer while the disk fails, and after a panic.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::core::rows::StoreFailure;
use crate::store::checkpoint::{self, Restart};
use crate::store::lanes::Entry;
use crate::store::queue::Lane;
use crate::store::{backlog, fatal};

/// Bytes written to find out whether the disk is back: as much as the largest message.
const PROBE_BYTES: u32 = 65_536;

impl Writer {
    pub(super) fn roll_back(&mut self) {
        self.chains.forget();
        // SQLite may have done so itself.
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
        }
    }

    /// The disk fails: whoever waits is told, in whichever lane.
    pub(super) fn fail(&mut self, failure: StoreFailure) {
        if self.failing != Some(failure) {
            self.tell(failure);
            self.failing = Some(failure);
            self.shared.set_failing(Some(failure));
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        for (shard, lane) in lanes.iter_mut().enumerate() {
            self.settle(shard, lane, failure);
        }
        self.lanes = lanes;
    }

    fn tell(&self, failure: StoreFailure) {
        if failure == StoreFailure::Moved {
            let path = self.shared.place.path().display();
            tracing::error!(
                %path,
                "the database, or its -wal, was deleted, moved or replaced while in use, and \
                 nothing is stored: put the same file back, or restart holdfast on the one there"
            );
        } else {
            tracing::error!(reason = %failure, "the store fails; retrying until it works again");
        }
    }

    pub(super) fn settle(&self, shard: usize, lane: &mut Lane, failure: StoreFailure) {
        if lane.is_empty() {
            return;
        }
        let replies = backlog::settle(lane, failure, |item| self.shared.counters.release(item));
        self.deliver(replies.into_iter().map(|reply| (shard, reply)).collect());
    }

    pub(super) fn compact(&mut self) {
        if self.lanes.len() < self.compact_at {
            return;
        }
        for lane in self.lanes.iter_mut() {
            backlog::compact(lane, |item| self.shared.counters.release(item));
        }
        // What is left may be needed; looking again pays only when there is as much more.
        self.compact_at = backlog::compact_again_at(self.lanes.len());
    }

    pub(super) fn retry(&mut self) {
        if !self.shared.place.holds() {
            return self.fail(StoreFailure::Moved);
        }
        if self.failing == Some(StoreFailure::Full) {
            // Whatever the WAL holds may be room enough. If it fails too, the probe tells.
            checkpoint::restart(&self.conn, Restart::FreeDisk).ok();
        }
        match self.probe() {
            Ok(()) if self.lanes.is_empty() => {
                self.failing = None;
                self.recovered();
            }
            Ok(()) => self.turn(),
            Err(error) => {
                self.roll_back();
                self.fail(fatal::failure(&error));
            }
        }
    }

    /// Writes as much as a message takes, and deletes it again.
    fn probe(&self) -> rusqlite::Result<()> {
        self.conn.execute(
            "INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(?1))",
            [PROBE_BYTES],
        )?;
        self.conn.execute("DELETE FROM probe", [])?;
        Ok(())
    }

    pub(super) fn recovered(&mut self) {
        tracing::info!(backlog = self.lanes.len(), "the store works again");
        self.compact_at = backlog::COMPACT_AT;
        self.shared.set_failing(None);
    }

    /// A bug. It must cost one operation, not the broker: try the batch one by one, and give up
    /// only the one that panics alone.
    pub(super) fn panicked(&mut self, mut batch: Vec<Entry>) {
        self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(operations = batch.len(), "the store's writer panicked");
        self.roll_back();
        if batch.len() > 1 {
            self.lanes.one_by_one(batch.len());
            return self.lanes.put_back(batch);
        }
        if let Some(Entry { shard, item }) = batch.pop() {
            self.shared.counters.release(&item);
            if let Ok(shard) = u16::try_from(shard) {
                self.shared.refuse(shard, &item, StoreFailure::Io);
            }
        }
    }
}
