//! Deleting what nobody needs any more, a little at a time and without VACUUM: pages that become
//! free are used again.

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::limits::UNDELIVERED_KEPT;
use crate::core::time::{Millis, Wall};

/// Delivered messages are kept for `message_status`.
pub(super) const DELIVERED_KEPT: Millis = Millis::secs(24 * 3600);

/// Ended presences are kept for people who look.
pub(super) const ENDED_KEPT: Millis = Millis::secs(7 * 24 * 3600);

/// Rows looked at in one transaction: a few milliseconds, which is what an ack may have to wait.
const STEP_ROWS: i64 = 500;

/// When a sweep is to be made, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// By which age is counted.
    pub(super) now: Wall,
    /// Also messages that nobody has confirmed; not while the wall clock is in doubt.
    pub(super) expire: bool,
}

/// One walk over the tables, from the oldest rows until those too young to delete.
#[derive(Debug)]
pub(super) struct Sweep {
    order: Order,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Messages above this sequence are still to be looked at. Walked by primary key, since their
    /// age rises with it; so no index is needed.
    Messages {
        above: i64,
    },
    Presences,
}

/// What a step has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Call again, when there is nothing better to do.
    More {
        /// By how much the number of undelivered rows changed.
        undelivered: i64,
    },
    /// The sweep is over.
    Done {
        /// As above.
        undelivered: i64,
    },
}

impl Sweep {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            stage: Stage::Messages { above: -1 },
        }
    }

    /// Does one step in a transaction of its own.
    pub(super) fn step(&mut self, conn: &mut Connection) -> rusqlite::Result<Step> {
        let tx = conn.transaction()?;
        let step = match self.stage {
            Stage::Messages { above } => {
                let (next, undelivered) = self.messages(&tx, above)?;
                self.stage = next.map_or(Stage::Presences, |above| Stage::Messages { above });
                Step::More { undelivered }
            }
            Stage::Presences if self.presences(&tx)? => Step::More { undelivered: 0 },
            Stage::Presences => Step::Done { undelivered: 0 },
        };
        tx.commit()?;
        Ok(step)
    }

    fn before(&self, kept: Millis) -> i64 {
        self.order
            .now
            .0
            .saturating_sub(i64::try_from(kept.0).unwrap_or(i64::MAX))
    }

    /// Looks at the next rows; returns where to go on, if anywhere, and by how much the number of
    /// undelivered rows changed.
    fn messages(&self, conn: &Connection, above: i64) -> rusqlite::Result<(Option<i64>, i64)> {
        let last: Option<(i64, i64)> = conn
            .prepare_cached(
                "SELECT seq, created_at FROM (
                    SELECT seq, created_at FROM message_queue WHERE seq > ?1
                    ORDER BY seq LIMIT ?2)
                 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row(params![above, STEP_ROWS], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((last, created_at)) = last else {
            return Ok((None, 0));
        };
        // The highest row stays, whatever its age: the next boot counts sequences from it.
        conn.prepare_cached(
            "DELETE FROM message_queue WHERE seq > ?1 AND seq <= ?2 AND delivered_at < ?3
             AND seq < (SELECT max(seq) FROM message_queue)",
        )?
        .execute(params![above, last, self.before(DELIVERED_KEPT)])?;
        let expired = if self.order.expire {
            conn.prepare_cached(
                "DELETE FROM message_queue WHERE seq > ?1 AND seq <= ?2 AND delivered_at IS NULL
                 AND created_at < ?3 AND seq < (SELECT max(seq) FROM message_queue)",
            )?
            .execute(params![above, last, self.before(UNDELIVERED_KEPT)])?
        } else {
            0
        };
        // A row of the future was written when the clock was wrong, and says nothing of the rows
        // behind it.
        let young = created_at >= self.before(DELIVERED_KEPT) && created_at <= self.order.now.0;
        Ok((
            (!young).then_some(last),
            i64::try_from(expired).map_or(0, |rows| -rows),
        ))
    }

    /// True if there may be more.
    fn presences(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let deleted = conn
            .prepare_cached(
                "DELETE FROM presence WHERE rowid IN (
                    SELECT rowid FROM presence WHERE disconnected_at < ?1 LIMIT ?2)",
            )?
            .execute(params![self.before(ENDED_KEPT), STEP_ROWS])?;
        Ok(i64::try_from(deleted).unwrap_or(0) == STEP_ROWS)
    }
}
