//! What a mesh said to many: one bounded log, in which each session has one cursor.
//!
//! Everything that is not a direct message goes through here: it is appended once, written at once
//! to whoever keeps up, and read later by those who were away or had to wait (design.md §5). A
//! session in grace costs its cursor, not a copy of the traffic.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::{Position, PubKey, Seq};
use crate::passed::Passed;
use crate::peer::{Kind, MemberIx};
use crate::routing::Audience;
use crate::rows::MessageRow;
use crate::time::{Millis, Mono};

/// Who a session is, as far as the news of it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) member: MemberIx,
    pub(crate) order: u64,
    /// Sessions of this order and later need not be told: they found it so when they came.
    pub(crate) before: u64,
}

/// What an entry tells, with all that decides who sees it.
#[derive(Debug)]
pub(crate) enum What {
    /// A message to all, to a group or to a topic.
    Message {
        seq: Seq,
        audience: Audience,
        sender: MemberIx,
        sender_session: Option<PubKey>,
    },
    /// A session joined; `ended` is where it left again.
    Joined {
        who: Subject,
        ended: Option<Position>,
    },
    /// A session left; `joined` is where it had joined, if this log knows.
    Left {
        who: Subject,
        joined: Option<Position>,
    },
    /// A session hid or showed itself; `superseded` is where it did so next.
    Visibility {
        order: u64,
        superseded: Option<Position>,
    },
    /// Something came through a webhook, for everybody.
    Posted,
    /// A member's profile was changed, for its own sessions.
    Profile { member: MemberIx },
    /// A key of shared state was set.
    State {
        /// By which session: its place among the leases.
        setter: u64,
        /// Where its value before was told.
        earlier: Option<Position>,
        /// Where it was set next.
        superseded: Option<Position>,
    },
    /// Something was published to a stream.
    Stream {
        /// The stream's number.
        stream: u64,
        /// By which session: its place among the leases.
        publisher: u64,
    },
    /// An MCP server is there, or is there no more; `superseded` is where the mesh was next told of
    /// it. The host's session is not told.
    Server {
        host: u64,
        superseded: Option<Position>,
    },
}

impl What {
    /// A message to many, as its row has it.
    pub(crate) fn message(row: &MessageRow, sender: MemberIx, audience: Audience) -> Self {
        Self::Message {
            seq: row.seq,
            audience,
            sender,
            sender_session: row.sender_session_pubkey,
        }
    }

    /// The place of a message in the broker's order.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Message { seq, .. } => Some(*seq),
            Self::Joined { .. }
            | Self::Left { .. }
            | Self::Visibility { .. }
            | Self::Posted
            | Self::State { .. }
            | Self::Profile { .. }
            | Self::Server { .. }
            | Self::Stream { .. } => None,
        }
    }
}

/// What is kept of an entry. A mesh at rest whose sessions are not all online keeps the join of
/// each, so that those cost next to nothing.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A session joined, and is present in that slot: the news is written anew for whoever is still
    /// to be told.
    Present(u32),
    /// A session joined and left again, and nobody is to be told of the join any more.
    Past,
    /// A key of shared state was set and set again, and nobody is to be told of the first.
    Superseded,
    /// Anything else, with its frame.
    Said(Box<(What, Bytes)>),
}

impl Kept {
    /// Something said.
    pub(crate) fn said(what: What, frame: Bytes) -> Self {
        Self::Said(Box::new((what, frame)))
    }

    /// Whether it is of who came and went.
    pub(crate) fn is_of_presence(&self) -> bool {
        match self {
            Self::Present(_) | Self::Past => true,
            Self::Superseded => false,
            Self::Said(said) => matches!(said.0, What::Joined { .. } | What::Left { .. }),
        }
    }

    /// The place of a message in the broker's order.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Present(_) | Self::Past | Self::Superseded => None,
            Self::Said(said) => said.0.seq(),
        }
    }

    /// Bytes of its frame.
    fn bytes(&self) -> usize {
        match self {
            Self::Present(_) | Self::Past | Self::Superseded => 0,
            Self::Said(said) => said.1.len(),
        }
    }
}

/// One thing said.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    at: Mono,
    pub(crate) kept: Kept,
}

// There may be one for each session.
const _: () = assert!(size_of::<Entry>() <= 32);

/// Entries among which [`Log::said`] looks: confirmations follow at once, or are rare.
const SAID_REACH: usize = 256;

/// How much a log keeps.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of the frames it keeps.
    pub bytes: usize,
    /// Age of the oldest entry.
    pub age: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The last entry that was here and is not any more.
    removed: Position,
    /// The last message that had to go …
    said_dropped: Position,
    /// … and the last news of who came, went, or hid, and of servers.
    news_dropped: Position,
    /// The last data of a stream that had to go.
    data_dropped: Position,
}

impl Log {
    /// Appends an entry, whose position is above all others, and drops what is beyond the limits;
    /// `walked` tells whether somebody walks the log.
    pub(crate) fn append(
        &mut self,
        now: Mono,
        limits: &LogLimits,
        position: Position,
        ((what, frame), walked): ((What, Bytes), bool),
    ) {
        self.relate(position, &what, walked);
        self.restore(now, position, Kept::said(what, frame));
        self.trim(now, limits);
    }

    /// Takes an entry of an earlier process, in any order; [`Self::restored`] follows.
    pub(crate) fn restore(&mut self, at: Mono, position: Position, kept: Kept) {
        self.bytes += kept.bytes();
        let entry = Entry { position, at, kept };
        // By an eighth, not to twice its size: most logs hold one entry for each session.
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(4.max(self.entries.len() / 8));
        }
        // Nearly all come in order.
        let later = |last: &Entry| last.position > position;
        if self.entries.back().is_some_and(later) {
            let index = self.entries.partition_point(|other| !later(other));
            self.entries.insert(index, entry);
        } else {
            self.entries.push_back(entry);
        }
    }

    /// All entries of earlier processes are there; what was said up to `since` is not.
    pub(crate) fn restored(&mut self, now: Mono, limits: &LogLimits, since: Position) {
        self.said_dropped = self.said_dropped.max(since);
        self.trim(now, limits);
    }

    /// Drops what is beyond the limits.
    pub(crate) fn trim(&mut self, now: Mono, limits: &LogLimits) {
        while let Some(first) = self.entries.front() {
            let kept = self.entries.len() <= limits.entries
                && self.bytes <= limits.bytes
                && now.since(first.at) <= limits.age;
            if kept {
                break;
            }
            self.drop_first();
        }
    }

    /// Drops what everybody has confirmed.
    pub(crate) fn release(&mut self, confirmed: Position) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.position <= confirmed)
        {
            self.drop_first();
        }
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to_fit();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            if let Some(dropped) = self.dropped_mut(&first.kept) {
                *dropped = first.position.max(*dropped);
            }
            self.removed = first.position.max(self.removed);
            self.bytes -= first.kept.bytes();
        }
    }

    /// By what is remembered that such an entry is gone, if anybody may miss it.
    fn dropped_mut(&mut self, kept: &Kept) -> Option<&mut Position> {
        let what = match kept {
            Kept::Present(_) | Kept::Past => return Some(&mut self.news_dropped),
            Kept::Superseded => return None,
            Kept::Said(said) => &said.0,
        };
        Some(match what {
            What::Message { .. } | What::Posted | What::Profile { .. } | What::State { .. } => {
                &mut self.said_dropped
            }
            What::Joined { .. }
            | What::Left { .. }
            | What::Visibility { .. }
            | What::Server { .. } => &mut self.news_dropped,
            What::Stream { .. } => &mut self.data_dropped,
        })
    }

    /// Whether there is nothing to catch up with.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes in an earlier entry that this one takes it back. Who begins to walk later is told of
    /// neither; without a walk under way, nobody is.
    fn relate(&mut self, position: Position, what: &What, walked: bool) {
        let (earlier, gone) = match what {
            What::Left { joined, .. } => (*joined, Kept::Past),
            What::State { earlier, .. } => (*earlier, Kept::Superseded),
            What::Message { .. }
            | What::Joined { .. }
            | What::Visibility { .. }
            | What::Posted
            | What::Profile { .. }
            | What::Server { .. }
            | What::Stream { .. } => return,
        };
        let Some(entry) = earlier.and_then(|at| self.entry_mut(at)) else {
            return;
        };
        if walked && let Kept::Said(said) = &mut entry.kept {
            match &mut said.0 {
                What::Joined { ended: until, .. }
                | What::State {
                    superseded: until, ..
                } => {
                    *until = Some(position);
                }
                What::Message { .. }
                | What::Left { .. }
                | What::Visibility { .. }
                | What::Server { .. }
                | What::Profile { .. }
                | What::Posted
                | What::Stream { .. } => {}
            }
            return;
        }
        let kept = std::mem::replace(&mut entry.kept, gone);
        self.bytes -= kept.bytes();
    }

    /// The session that joined there is present in that slot.
    pub(crate) fn present(&mut self, position: Position, slot: u32) {
        self.keep(position, Kept::Present(slot));
    }

    /// Whether the log tells of a join there whose session is present.
    pub(crate) fn is_present(&self, position: Position) -> bool {
        self.entry(position)
            .is_some_and(|entry| matches!(entry.kept, Kept::Present(_)))
    }

    /// Keeps something else of an entry, which tells the same.
    pub(crate) fn keep(&mut self, position: Position, kept: Kept) {
        if let Some(entry) = self.entry_mut(position) {
            let now = kept.bytes();
            let was = std::mem::replace(&mut entry.kept, kept);
            self.bytes = self.bytes - was.bytes() + now;
        }
    }

    /// Notes that what was told there of a session's visibility, or a server, changed again at
    /// `position`.
    pub(crate) fn supersede(&mut self, earlier: Position, position: Position) {
        if let Some(entry) = self.entry_mut(earlier)
            && let Kept::Said(said) = &mut entry.kept
            && let What::Visibility { superseded, .. } | What::Server { superseded, .. } =
                &mut said.0
        {
            *superseded = Some(position);
        }
    }

    fn entry_mut(&mut self, position: Position) -> Option<&mut Entry> {
        let index = self
            .entries
            .partition_point(|entry| entry.position < position);
        let entry = self.entries.get_mut(index)?;
        (entry.position == position).then_some(entry)
    }

    /// The first entry after a place.
    pub(crate) fn after(&self, position: Position) -> Option<&Entry> {
        let index = self
            .entries
            .partition_point(|entry| entry.position <= position);
        self.entries.get(index)
    }

    /// The entry there.
    pub(crate) fn entry(&self, position: Position) -> Option<&Entry> {
        let index = self
            .entries
            .partition_point(|entry| entry.position < position);
        let entry = self.entries.get(index)?;
        (entry.position == position).then_some(entry)
    }

    /// Whether a message was said to many, and lately.
    pub(crate) fn said(&self, seq: Seq) -> bool {
        let recent = self.entries.iter().rev().take(SAID_REACH);
        let messages = recent.filter_map(|entry| entry.kept.seq());
        // They are in order, so what is older ends the search.
        messages
            .take_while(|said| *said >= seq)
            .any(|said| said == seq)
    }

    /// Whether no message after that cursor has been dropped, and no news that was not heard.
    pub(crate) fn reaches(&self, cursor: Position, heard: Position) -> bool {
        cursor >= self.said_dropped && cursor.max(heard) >= self.news_dropped
    }

    /// Whether no data of a stream after that place has been dropped.
    pub(crate) fn reaches_data(&self, since: Position) -> bool {
        since >= self.data_dropped
    }

    /// What was published up to there is gone.
    pub(crate) fn data_lost(&mut self, upto: Position) {
        self.data_dropped = self.data_dropped.max(upto);
    }

    /// News that is not known any more.
    pub(crate) fn forget(&mut self, position: Position) {
        self.news_dropped = self.news_dropped.max(position);
    }

    /// Up to where nothing can be read any more.
    pub(crate) fn removed(&self) -> Position {
        self.removed
    }

    /// Where it ends: what it has dropped counts, which after a restart may be later than all it
    /// holds.
    pub(crate) fn end(&self) -> Position {
        let dropped = self.said_dropped.max(self.news_dropped);
        let last = self.entries.back().map(|entry| entry.position);
        last.unwrap_or_default().max(dropped)
    }
}

/// What a session knows of who is there, beside what it has confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Knowledge {
    /// Its place among the leases: those that began before it knows from lists.
    pub(crate) order: u64,
    /// Up to here it is taken to have heard who came and went.
    pub(crate) heard: Position,
    /// Up to here it may know what it has not confirmed: its sockets were written it.
    pub(crate) known: Position,
}

/// A session that does not get what is said at once but reads the log: because it came back, or
/// because direct messages that come before have to wait.
#[derive(Debug)]
pub(crate) struct Walk {
    /// What it had confirmed when the walk began.
    pub(crate) from: Position,
    known: Knowledge,
    /// The end of the log when the walk began. Up to here it is told the net difference, from here
    /// on everything.
    horizon: Position,
    /// Read up to here.
    pub(crate) next: Position,
    /// Bytes written in it since the last watermark came back.
    pub(crate) unconfirmed: usize,
    /// Whether anything was written in it.
    pub(crate) wrote: bool,
    /// Whether it has passed over news that its client had not heard.
    pub(crate) passes: bool,
    /// How far it was when the last ping was written.
    pub(crate) pinged: Position,
}

impl Walk {
    /// From a cursor.
    pub(crate) fn new(from: Position, horizon: Position, known: Knowledge) -> Self {
        let heard = from.max(known.heard);
        Self {
            known: Knowledge {
                heard,
                known: heard.max(known.known),
                ..known
            },
            from,
            horizon,
            next: from,
            unconfirmed: 0,
            wrote: false,
            passes: false,
            pinged: Position::default(),
        }
    }

    /// Whether an entry is still true at the horizon, and news to whoever had heard so much.
    pub(crate) fn tells(&self, entry: &Entry, passed: Option<&Passed>) -> bool {
        if entry.position > self.horizon {
            return !matches!(entry.kept, Kept::Past | Kept::Superseded);
        }
        let news = entry.position > self.known.heard;
        let what = match &entry.kept {
            Kept::Present(_) => return news,
            Kept::Past | Kept::Superseded => return false,
            Kept::Said(said) => &said.0,
        };
        match what {
            What::Message { .. } | What::Posted | What::Profile { .. } | What::Stream { .. } => {
                true
            }
            What::State { superseded, .. } => superseded.is_none_or(|at| at > self.horizon),
            What::Joined { ended, .. } => news && ended.is_none_or(|at| at > self.horizon),
            What::Left { who, joined } => {
                // Whoever may know of the session must hear that it is gone.
                let listed = who.order < self.known.order;
                let told = |at| {
                    at <= self.known.known
                        && !passed.is_some_and(|passed| passed.holds(at, entry.position))
                };
                news && (listed || joined.is_none_or(told))
            }
            What::Visibility { superseded, .. } | What::Server { superseded, .. } => {
                news && superseded.is_none_or(|at| at > self.horizon)
            }
        }
    }

    /// It leaves out everything up to there; that is the last of who came or went.
    pub(crate) fn pass(&mut self, next: Position, news: Option<Position>) {
        self.next = self.next.max(next);
        self.passes |= news.is_some_and(|at| at > self.known.known);
    }

    /// What it came to first, from where to where, and its horizon, if it passed over anything.
    pub(crate) fn passed_over(&self) -> Option<((Position, Position), Position)> {
        let upto = self.next.min(self.horizon);
        self.passes
            .then_some(((self.known.known, upto), self.horizon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits {
        entries: 4,
        bytes: 100,
        age: Millis(1000),
    };

    fn subject() -> Subject {
        Subject {
            kind: Kind::Launched,
            member: MemberIx(0),
            order: 1,
            before: 1,
        }
    }

    fn joined() -> What {
        What::Joined {
            who: subject(),
            ended: None,
        }
    }

    fn left(joined: Option<u64>) -> What {
        What::Left {
            who: subject(),
            joined: joined.map(Position),
        }
    }

    fn log(entries: impl IntoIterator<Item = (u64, What)>) -> Log {
        let mut log = Log::default();
        for (position, what) in entries {
            let entry = (what, Bytes::from_static(b"x"));
            log.append(Mono(0), &LIMITS, Position(position), (entry, true));
        }
        log
    }

    fn told(log: &Log, from: u64, horizon: u64) -> Vec<u64> {
        let walk = Walk::new(Position(from), Position(horizon), Knowledge::default());
        let mut next = walk.next;
        std::iter::from_fn(|| {
            let entry = log.after(next)?;
            next = entry.position;
            Some(entry)
        })
        .filter(|entry| walk.tells(entry, None))
        .map(|entry| entry.position.0)
        .collect()
    }

    #[test]
    fn what_was_said_lately_is_known() {
        let message = |seq| What::Message {
            seq: Seq(seq),
            audience: Audience::Everyone,
            sender: MemberIx(0),
            sender_session: None,
        };
        let log = log([
            (3, message(7)),
            (4, joined()),
            (5, message(9)),
            (6, joined()),
        ]);
        let known = [6, 7, 8, 9, 10].map(|seq| log.said(Seq(seq)));
        assert_eq!(known, [false, true, false, true, false]);
    }

    #[test]
    fn joins_and_leaves_are_told_as_their_net_difference() {
        let log = log([
            (3, joined()),
            (5, left(None)),
            (7, left(Some(3))),
            (9, joined()),
        ]);
        assert_eq!(told(&log, 0, 9), [5, 9], "came and went while away");
        assert_eq!(told(&log, 4, 9), [5, 7, 9], "was told of the join");
        assert_eq!(told(&log, 0, 6), [3, 5, 7, 9], "went after the walk began");
        assert_eq!(told(&log, 9, 9), Vec::<u64>::new());
    }

    #[test]
    fn the_join_of_who_is_there_keeps_no_frame_and_that_of_the_gone_nothing() {
        let frame = || Bytes::from_static(b"frame");
        let mut log = log([(1, joined()), (2, joined()), (3, joined())]);
        (1..=3).for_each(|n| log.present(Position(n), 0));
        assert_eq!((log.bytes, told(&log, 0, 3)), (0, vec![1, 2, 3]));
        log.keep(Position(1), Kept::said(joined(), frame()));
        log.keep(Position(2), Kept::said(joined(), frame()));
        assert_eq!((log.bytes, told(&log, 0, 3)), (10, vec![1, 2, 3]));
        for (at, of, walked) in [(4, 1, true), (5, 2, false)] {
            let leave = (left(Some(of)), Bytes::new());
            let limits = LogLimits {
                entries: 9,
                ..LIMITS
            };
            log.append(Mono(0), &limits, Position(at), (leave, walked));
        }
        assert_eq!(log.bytes, 5, "somebody may be told of the first still");
        assert_eq!(told(&log, 0, 3), [1, 3, 4, 5]);
        log.release(Position(5));
        assert_eq!(log.bytes, 0);
    }

    #[test]
    fn the_last_visibility_counts() {
        let hidden = |superseded| What::Visibility {
            order: 1,
            superseded,
        };
        let mut log = log([(1, hidden(None)), (2, hidden(None))]);
        log.supersede(Position(1), Position(2));
        assert_eq!(told(&log, 0, 2), [2]);
        assert_eq!(told(&log, 0, 1), [1, 2]);
    }

    #[test]
    fn the_last_value_of_a_key_counts_and_keeps_the_only_frame() {
        let set = |earlier: Option<u64>| What::State {
            setter: 1,
            earlier: earlier.map(Position),
            superseded: None,
        };
        let mut log = log([(1, set(None)), (2, set(None))]);
        for (at, of, walked) in [(3, 1, true), (4, 2, false)] {
            let entry = (set(Some(of)), Bytes::from_static(b"x"));
            log.append(Mono(0), &LIMITS, Position(at), (entry, walked));
        }
        assert_eq!(log.bytes, 3, "somebody may be told of the first still");
        assert_eq!(told(&log, 0, 4), [3, 4]);
        assert_eq!(told(&log, 0, 1), [1, 3, 4]);
        for (at, lost) in [(5, Position(1)), (6, Position(1)), (7, Position(3))] {
            let entry = (joined(), Bytes::new());
            log.append(Mono(0), &LIMITS, Position(at), (entry, true));
            assert_eq!(
                log.said_dropped, lost,
                "one that was set anew is not missed"
            );
        }
    }

    #[test]
    fn data_that_had_to_go_is_missed_by_subscribers_only() {
        let data = What::Stream {
            stream: 1,
            publisher: 1,
        };
        let log = log([
            (1, data),
            (2, joined()),
            (3, joined()),
            (4, joined()),
            (5, joined()),
        ]);
        assert!(log.reaches(Position(0), Position(0)));
        assert!(!log.reaches_data(Position(0)));
        assert!(log.reaches_data(Position(1)));
    }

    #[test]
    fn it_is_bounded_by_entries_bytes_and_age_and_knows_it() {
        let short = log((1..=6).map(|n| (n, joined())));
        assert_eq!(short.entries.len(), 4);
        assert!(!short.reaches(Position(1), Position(0)));
        assert!(short.reaches(Position(2), Position(0)));
        assert_eq!(short.after(Position(0)).map(|e| e.position.0), Some(3));

        let mut heavy = Log::default();
        for n in 1..=3 {
            let entry = (joined(), Bytes::from(vec![0; 60]));
            heavy.append(Mono(0), &LIMITS, Position(n), (entry, true));
        }
        assert_eq!(heavy.entries.len(), 1);

        let mut old = log([(1, joined())]);
        let entry = (joined(), Bytes::new());
        old.append(Mono(1001), &LIMITS, Position(2), (entry, true));
        assert_eq!((old.entries.len(), old.end()), (1, Position(2)));
        assert!(Log::default().reaches(Position(0), Position(0)));
    }

    #[test]
    fn it_ends_no_earlier_than_what_it_has_dropped() {
        let mut log = log([(1, joined())]);
        log.restored(Mono(0), &LIMITS, Position(5));
        assert_eq!((log.entries.len(), log.end()), (1, Position(5)));
    }

    #[test]
    fn what_is_said_at_boot_outlives_what_is_older() {
        let mut log = Log::default();
        let entry = |what| ((what, Bytes::new()), true);
        let kept = |what| Kept::said(what, Bytes::new());
        for n in [7, 3, 5] {
            log.restore(Mono(0), Position(n), kept(joined()));
        }
        log.append(Mono(0), &LIMITS, Position(100), entry(left(None)));
        for n in [6, 4, 2] {
            log.restore(Mono(0), Position(n), kept(joined()));
        }
        log.append(Mono(0), &LIMITS, Position(101), entry(left(None)));
        log.restored(Mono(0), &LIMITS, Position(0));
        let there: Vec<u64> = log.entries.iter().map(|e| e.position.0).collect();
        assert_eq!(there, [6, 7, 100, 101]);
        assert!(!log.reaches(Position(0), Position(4)));
        assert!(log.reaches(Position(0), Position(5)));
    }
}
