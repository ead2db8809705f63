//! Named points of the core that the simulator must reach, and sizes that it checks.
//!
//! Without the feature `marks` all of this is nothing: a mark costs no instruction.

macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident,)+) => {
        /// A point of the core worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark { $($(#[$doc])* $mark),+ }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mark),+];
        }
    };
}

marks! {
    /// A socket took over an online session.
    Takeover,
    /// A session in grace got a socket.
    ReattachInGrace,
    /// A newcomer waits for the incumbent's answer.
    Contend,
    /// The incumbent answered; the newcomer was refused.
    ConflictRefused,
    /// The incumbent was silent or gone; the newcomer came in.
    ChallengerAdmitted,
    /// A later challenger took the place of an earlier one.
    ChallengerReplaced,
    /// The challenged session ended first.
    ChallengerDismissed,
    /// The challenger left.
    ChallengerLeft,
    /// A frame waited with a challenger.
    FrameHeld,
    /// A frame, ping or pong on a socket that was told to close.
    StaleInput,
    /// The end of a socket that was told to close.
    StaleClose,
    /// The attestation of a hello had been checked before.
    Attested,
    /// A socket ended before its hello.
    ClosedWhileGreeting,
    /// A socket said no hello in time.
    HelloOverdue,
    /// A throw-away session said goodbye.
    Goodbye,
    /// A lease ran out.
    GraceOver,
    /// A silent socket was aborted.
    Silent,
    /// A watermark ping after a burst.
    WatermarkPing,
    /// A pong confirmed messages.
    WatermarkConfirmed,
    /// A client confirmed a message in memory.
    AckInMemory,
    /// A client confirmed a message that was said to many.
    AckOfMany,
    /// A client confirmed a message that is only on disk, or none.
    AckOnDisk,
    /// Messages were written again after a reattach.
    Rewritten,
    /// An outbox had no room.
    OutboxFull,
    /// A mailbox went on on disk.
    MailboxSpill,
    /// A mailbox was asked for.
    MailboxLoad,
    /// A mailbox was read back.
    MailboxLoaded,
    /// Reading a mailbox failed.
    MailboxLoadFailed,
    /// Messages of an ended lease went back to their mailboxes.
    GivenBack,
    /// A message's row was refused by the store.
    SendNotStored,
    /// The news of a join followed its row.
    JoinTold,
    /// Somebody spoke before its row was durable.
    JoinToldEarly,
    /// The news of a join was written anew for somebody who had not been there.
    JoinWrittenAnew,
    /// A lease ended before its join was told.
    LeftUntold,
    /// A session's row was restored.
    Restored,
    /// A row was not restored.
    RestoreRefused,
    /// A lease was not extended at boot any more.
    BootEpochsSpent,
    /// The same session id under another key.
    DedupEvicted,
    /// A foreign claim yielded to a proven key.
    ClaimEvicted,
    /// A claimed key belongs to another member.
    KeyTaken,
    /// A hello was heard before.
    Replayed,
    /// The mesh was full.
    Capacity,
    /// A revoked member came.
    Revoked,
    /// A second hello of the same session.
    HelloAgain,
    /// A second hello of another.
    AlreadyJoined,
    /// Somebody was kicked in grace.
    EvictedInGrace,
    /// A member was revoked while present.
    MemberEnded,
    /// A status ran out.
    WorkingOver,
    /// A hook's status waited for its session.
    HookPendingTaken,
    /// A hook met `dnd`.
    HookMetDnd,
    /// A socket went to its mesh's home.
    HandedOff,
    /// A verified hello arrived from another shard.
    Adopted,
    /// The process was told to stop.
    Shutdown,
    /// A session key passed to the sibling that claims it.
    KeyInherited,
    /// The end of a presence was told by the broker after the one that ended it.
    LeaveRecalled,
    /// A message to many was put back into the log at boot.
    SaidRecalled,
    /// A cursor was written to its row.
    CursorNoted,
    /// A send was made again.
    SendRepeated,
    /// The log dropped what an online session waited for.
    Overtaken,
    /// A resume token stood for signatures.
    Resumed,
    /// A resume token was used before, or its session is gone.
    TokenUsed,
    /// A resume token was none.
    TokenUnfit,
    /// Somebody came back to less than it missed.
    ReplayTruncated,
    /// A key of shared state was set anew.
    StateReplaced,
    /// A key set before a restart was put back into the log.
    StateRecalled,
    /// A subscription ended with its lease.
    SubscriptionEnded,
    /// A subscription was restored with its lease.
    SubscriptionRestored,
    /// A simulation clock ticked.
    Ticked,
    /// The last lease of a mesh with a clock ended.
    ClockPausedAlone,
    /// A question to the store waits for others of its connection.
    LookupHeld,
    /// An MCP server took the place of another of its name.
    ServerReplaced,
    /// An MCP server ended with the lease of its host.
    ServerEnded,
    /// A persistent one waits for its host.
    ServerAway,
    /// Its host is back.
    ServerRestored,
    /// A server was found at boot, with its host in grace.
    ServerFound,
    /// A host was called that has no socket.
    CallWaits,
    /// A host was called again on its next socket.
    CallAgain,
    /// The result of a call waits for its caller.
    ResultKept,
    /// Nobody answered a call in time.
    CallOverdue,
    /// The host of a call is gone.
    CallLost,
    /// A scheduled message was sent for the last time.
    ScheduleSent,
    /// One that repeats was sent.
    CronSent,
    /// What was due had no recipient.
    ScheduleRefused,
    /// What was due waited, as its member sends too much.
    SchedulePaced,
    /// A scheduled message was found at boot.
    ScheduleFound,
    /// A watch waited until others of its session were fetched.
    WatchWaited,
    /// A document came for a watch that was gone.
    FetchedForNobody,
    /// The owner of a watch was told of a change.
    WatchTold,
    /// It was told again, on its next socket.
    WatchToldAgain,
    /// It has confirmed the change.
    WatchConfirmed,
    /// Watches ended with their lease.
    WatchesEnded,
    /// A watch was restored with its lease.
    WatchRestored,
}

/// Notes that a point was reached.
#[inline(always)]
#[expect(clippy::inline_always, reason = "without the feature it is nothing")]
pub(crate) fn mark(mark: Mark) {
    #[cfg(feature = "marks")]
    seen::note(mark);
    #[cfg(not(feature = "marks"))]
    let _ = mark;
}

#[cfg(feature = "marks")]
pub use seen::{Inspect, take};

#[cfg(feature = "marks")]
mod seen {
    use std::cell::Cell;

    use super::Mark;
    use crate::servers::Servers;
    use crate::shard::Shard;

    thread_local! {
        static SEEN: Cell<u128> = const { Cell::new(0) };
    }

    pub(super) fn note(mark: Mark) {
        SEEN.set(SEEN.get() | 1 << mark as u32);
    }

    /// The points this thread has reached since it asked last, one bit each, in the order of
    /// [`Mark::ALL`].
    #[must_use]
    pub fn take() -> u128 {
        SEEN.replace(0)
    }

    /// How much a shard holds.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Inspect {
        /// Leases.
        pub sessions: usize,
        /// Timers armed.
        pub timers: usize,
        /// Operations and questions whose result is awaited.
        pub waiting: usize,
        /// Mailboxes with something in them, in memory or on disk.
        pub mailboxes: usize,
        /// Entries of the index by working directory.
        pub cwd_entries: usize,
        /// Entries of all indexes by session key, session id and roster.
        pub by_key: usize,
        /// See above.
        pub by_id: usize,
        /// See above.
        pub roster: usize,
        /// Sessions that members' lists of online ones name.
        pub online: usize,
        /// Subscriptions, as sessions have them.
        pub subscriptions: usize,
        /// Subscriptions, as streams count them.
        pub subscribers: usize,
        /// Clocks that run.
        pub clocks: usize,
        /// Scheduled messages, and their index by id.
        pub schedules: (usize, usize),
        /// Those of them that fall due.
        pub schedules_due: usize,
        /// MCP servers.
        pub servers: usize,
        /// Those of them that leases are said to host.
        pub hosted: usize,
        /// Calls that are not over.
        pub calls: usize,
        /// Watches, as sessions have them.
        pub watches: usize,
        /// Watches, as meshes index them.
        pub watch_ids: usize,
        /// Documents being fetched.
        pub fetching: usize,
    }

    impl Shard {
        /// Counts what there is.
        #[must_use]
        pub fn inspect(&self) -> Inspect {
            let meshes = || self.meshes.iter();
            let servers = || meshes().filter_map(|mesh| mesh.servers.as_deref());
            Inspect {
                sessions: self.peers.len(),
                timers: self.wheel.len(),
                waiting: self.waiting.len(),
                mailboxes: meshes().map(|mesh| mesh.mailboxes.len()).sum(),
                cwd_entries: self.cwds.len(),
                by_key: meshes().map(|mesh| mesh.by_session_key.len()).sum(),
                by_id: meshes().map(|mesh| mesh.by_session_id.len()).sum(),
                roster: meshes().map(|mesh| mesh.roster.len()).sum(),
                online: self
                    .members
                    .iter()
                    .flat_map(|member| &member.online)
                    .map(crate::chain::Chain::len)
                    .sum(),
                subscriptions: self
                    .peers
                    .iter()
                    .filter_map(|(_, peer)| peer.subscriptions())
                    .map(crate::streams::Subscriptions::len)
                    .sum(),
                subscribers: meshes()
                    .filter_map(|mesh| mesh.streams.as_ref())
                    .map(|streams| streams.subscribers())
                    .sum(),
                clocks: meshes()
                    .filter_map(|mesh| mesh.clock.as_ref())
                    .filter(|clock| clock.running.is_some())
                    .count(),
                schedules: self.schedules.counts(),
                schedules_due: self.schedules.due_count(),
                servers: servers().map(Servers::len).sum(),
                hosted: servers().map(Servers::hosted_count).sum(),
                calls: servers().map(|all| all.calls().count()).sum(),
                watches: self
                    .peers
                    .iter()
                    .filter_map(|(_, peer)| peer.watches())
                    .map(|watches| watches.list().len())
                    .sum(),
                watch_ids: meshes().map(|mesh| mesh.watches.len()).sum(),
                fetching: self.fetching.len(),
            }
        }
    }
}
