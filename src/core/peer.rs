//! One session: who it is, what it shows, its lease and its outbox.

use bytes::Bytes;

use crate::attachment::Challenger;
use crate::card::Card;
use crate::chain::{Link, Linked, List};
use crate::ids::{ConnId, InLog, Position, PubKey};
use crate::log::Walk;
use crate::outbox::{Outbox, Watermarks};
use crate::packing::Id;
use crate::passed::Passed;
use crate::replies::Replies;
use crate::rows::{PeerRole, Stats, Status, StatusSource};
use crate::streams::Subscriptions;
use crate::time::{Millis, Mono, ShortSpan, Until, Wall};
use crate::watching::Watches;
use crate::wheel::TimerKey;
use crate::wire::frames::Profile;

/// Index of a mesh in its shard; meshes are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MeshIx(pub(crate) u32);

/// Index of a member in its shard; members are never removed, only revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberIx(pub(crate) u32);

/// Whether a session has a socket.
#[derive(Debug)]
pub(crate) enum Lease {
    /// Attached to a socket.
    Online(Box<Online>),
    /// No socket; the lease ends then.
    Grace(Mono),
}

/// What a session has as long as it is attached to one socket, and no longer: in grace nothing of
/// it takes room.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) conn: ConnId,
    /// Rises with every attach in the shard: who attached last.
    pub(crate) attached: u64,
    /// Its place among those of its member and kind that are online.
    pub(crate) link: Link,
    /// The last ping; at the beginning of time before the first.
    pub(crate) last_ping: Mono,
    pub(crate) watermarks: Watermarks,
    /// The cursor as its row has it, and since when.
    pub(crate) noted: (Position, Mono),
    /// While it does not keep up with the log.
    pub(crate) walk: Option<Box<Walk>>,
    pub(crate) replies: Replies,
}

impl Online {
    /// A new attachment; the row is written with that cursor now.
    pub(crate) fn new(conn: ConnId, attached: u64, noted: (Position, Mono)) -> Self {
        Self {
            conn,
            attached,
            link: Link::default(),
            last_ping: Mono::default(),
            watermarks: Watermarks::default(),
            noted,
            walk: None,
            replies: Replies::default(),
        }
    }
}

/// How a session is recognised when it comes back (design.md §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `session_hello`: by its session key and parent member.
    Launched,
    /// `hello` with a session key: by that key, within its member. Throw-away.
    ThrowAway,
    /// `hello` without: by its session id, within its member.
    Member,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) profile: Profile,
    /// As reported last, JSON object text.
    pub(crate) stats: Option<Box<str>>,
    /// What of the reported stats has been added to the member's saved state.
    pub(crate) stats_saved: Stats,
    /// What its walks passed over, until it has confirmed that they did.
    pub(crate) passed: Passed,
    pub(crate) rivalry: Rivalry,
    /// What others are to be told of its join, if that is no longer what it shows: its member had
    /// left and returned, or it has changed since.
    pub(crate) join: Option<Bytes>,
    /// Where the log last tells of its visibility.
    pub(crate) shown: InLog,
    pub(crate) subscriptions: Subscriptions,
    /// Its URL watches, once it has made one.
    pub(crate) watches: Option<Box<Watches>>,
}

/// A session's places in the lists of those present.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) mesh: Link,
    pub(crate) member: Link,
    pub(crate) cwd: Link,
}

/// A session's takeovers of late, to damp two hosts that fight over one key (design.md §8.1).
#[derive(Debug, Default)]
pub(crate) struct Rivalry {
    pub(crate) takeovers: u8,
    /// Hellos repeated on a socket that had joined.
    pub(crate) repeats: u8,
    pub(crate) since: Mono,
    pub(crate) challenger: Option<Challenger>,
}

/// A join that those who were there before have not been told of; who comes later learns of it
/// from lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwedJoin {
    /// They have been told.
    Nothing,
    /// They are told of the session as it is then, or what is kept for it.
    Due,
    /// A broker crashed that should have told them, and perhaps had.
    Perhaps,
}

/// One session.
#[derive(Debug)]
pub(crate) struct PeerConn {
    pub(crate) mesh: MeshIx,
    pub(crate) member: MemberIx,
    pub(crate) kind: Kind,
    pub(crate) session_key: Option<PubKey>,
    pub(crate) lease: Lease,
    /// How long it stays present without a socket.
    pub(crate) grace: ShortSpan,
    /// Online: the next look at what is to be pinged, or is silent; in grace: the end.
    pub(crate) lease_timer: Option<TimerKey>,
    /// Place in the mesh's roster: the order in which leases began.
    pub(crate) order: u64,
    /// Attachments of this lease so far, restarts of the broker included.
    pub(crate) attaches: u32,
    pub(crate) card: Card,
    pub(crate) links: Links,
    pub(crate) status: Status,
    pub(crate) status_source: StatusSource,
    pub(crate) status_at: Wall,
    pub(crate) working_timer: Option<TimerKey>,
    pub(crate) visible: bool,
    pub(crate) connected_at: Wall,
    pub(crate) last_seen: Mono,
    /// The end of its attestation, if it has one.
    pub(crate) attested_until: Until,
    pub(crate) boot_epochs: u8,
    /// Until others have been told of the join, which waits for its row.
    pub(crate) owed: OwedJoin,
    pub(crate) outbox: Outbox,
    /// Its client acknowledges what it gets, and is believed.
    pub(crate) acknowledges: bool,
    /// Where the log tells of its join.
    pub(crate) joined: InLog,
    /// Up to where it has confirmed the mesh's log.
    pub(crate) cursor: Position,
    /// Up to where it is taken to have heard who came and went: beyond its cursor only after a
    /// restart of the broker.
    pub(crate) heard: Position,
    /// Up to where its sockets were written the log, whether it confirmed it or not.
    pub(crate) known: Position,
    pub(crate) rare: Option<Box<Rare>>,
}

// Most sessions are idle, and there may be a million of them.
const _: () = assert!(size_of::<PeerConn>() <= 344);
const _: () = assert!(size_of::<Online>() <= 88);

impl Rare {
    /// Whether a session with this is as good as one without.
    fn says_nothing(&self, now: Mono) -> bool {
        let Self {
            profile,
            stats,
            stats_saved,
            passed,
            rivalry,
            join,
            shown,
            subscriptions,
            watches,
        } = self;
        *profile == Profile::default()
            && stats.is_none()
            && *stats_saved == Stats::default()
            && passed.is_empty()
            && rivalry.is_over(now)
            && join.is_none()
            && shown.at().is_none()
            && subscriptions.is_empty()
            && watches.is_none()
    }

    /// What the reported stats have added since this was last asked.
    pub(crate) fn stats_to_save(&mut self) -> Stats {
        let reported: Stats = self
            .stats
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        reported.minus(&std::mem::replace(&mut self.stats_saved, reported))
    }
}

impl Kind {
    /// Of a session that came by such a hello, with a session key or without.
    pub(crate) fn of(role: PeerRole, keyed: bool) -> Self {
        match (role, keyed) {
            (PeerRole::Session, _) => Self::Launched,
            (PeerRole::ControlPlane, true) => Self::ThrowAway,
            (PeerRole::ControlPlane, false) => Self::Member,
        }
    }
}

impl Linked for PeerConn {
    fn link(&self, list: List) -> Option<Link> {
        match list {
            List::Mesh => Some(self.links.mesh),
            List::Member => Some(self.links.member),
            List::Cwd => Some(self.links.cwd),
            List::Online => self.online().map(|online| online.link),
        }
    }

    fn link_mut(&mut self, list: List) -> Option<&mut Link> {
        match list {
            List::Mesh => Some(&mut self.links.mesh),
            List::Member => Some(&mut self.links.member),
            List::Cwd => Some(&mut self.links.cwd),
            List::Online => self.online_mut().map(|online| &mut online.link),
        }
    }

    fn rank(&self, list: List) -> u64 {
        match list {
            List::Mesh | List::Member | List::Cwd => self.order,
            List::Online => self.online().map_or(0, |online| online.attached),
        }
    }
}

impl PeerConn {
    /// The socket, while online.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.online().map(|online| online.conn)
    }

    /// When the next ping is due: an interval after the last proof of life or ping.
    pub(crate) fn ping_due(&self, interval: Millis) -> Mono {
        let last_ping = self.online().map(|online| online.last_ping);
        let last_ping = last_ping.unwrap_or_default();
        self.last_seen.max(last_ping).after(interval)
    }

    /// Its attachment, while online.
    pub(crate) fn online(&self) -> Option<&Online> {
        match &self.lease {
            Lease::Online(online) => Some(online),
            Lease::Grace(_) => None,
        }
    }

    /// See [`Self::online`].
    pub(crate) fn online_mut(&mut self) -> Option<&mut Online> {
        match &mut self.lease {
            Lease::Online(online) => Some(online),
            Lease::Grace(_) => None,
        }
    }

    /// Its walk, while it is online and does not keep up with the log.
    pub(crate) fn walk(&self) -> Option<&Walk> {
        self.online()?.walk.as_deref()
    }

    /// See [`Self::walk`].
    pub(crate) fn walk_mut(&mut self) -> Option<&mut Walk> {
        self.online_mut()?.walk.as_deref_mut()
    }

    /// It has confirmed the log up to there.
    pub(crate) fn confirm_log(&mut self, read: Position) {
        self.cursor = self.cursor.max(read);
        let cursor = self.cursor;
        if let Some(rare) = &mut self.rare {
            rare.passed.confirm(cursor);
        }
    }

    /// A walk is over, or its socket gone: notes what it passed over.
    pub(crate) fn walked(&mut self, walk: &Walk) {
        if let Some((places, horizon)) = walk.passed_over() {
            self.rare_mut().passed.note(places, horizon);
        }
    }

    /// Its public name.
    pub(crate) fn presence_id(&self) -> Id<'_> {
        self.card.presence_id()
    }

    /// Where the log last tells of its visibility.
    pub(crate) fn shown(&self) -> InLog {
        let rare = self.rare.as_ref();
        rare.map_or_else(InLog::default, |rare| rare.shown)
    }

    /// What it is subscribed to, if it ever was.
    pub(crate) fn subscriptions(&self) -> Option<&Subscriptions> {
        self.rare.as_ref().map(|rare| &rare.subscriptions)
    }

    /// Its URL watches.
    pub(crate) fn watches(&self) -> Option<&Watches> {
        self.rare.as_ref()?.watches.as_deref()
    }

    /// See [`Self::watches`].
    pub(crate) fn watches_mut(&mut self) -> Option<&mut Watches> {
        self.rare.as_mut()?.watches.as_deref_mut()
    }

    /// The name it goes by.
    pub(crate) fn name(&self) -> &str {
        self.card.name()
    }

    /// Nothing happens for a while: gives up the memory that only a busy session needs.
    pub(crate) fn rest(&mut self, now: Mono) {
        self.outbox.rest();
        if let Some(online) = self.online_mut() {
            online.replies.rest();
        }
        self.rare.take_if(|rare| rare.says_nothing(now));
    }

    /// Its profile as JSON.
    pub(crate) fn profile_text(&self) -> String {
        let none = Profile::default();
        let profile = self.rare.as_ref().map_or(&none, |rare| &rare.profile);
        serde_json::to_string(profile).unwrap_or_default()
    }

    /// What few sessions have, and this one has from now on.
    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// `peerRole` on the wire.
    pub(crate) fn role(&self) -> PeerRole {
        match self.kind {
            Kind::Launched => PeerRole::Session,
            Kind::ThrowAway | Kind::Member => PeerRole::ControlPlane,
        }
    }

    /// Whether a message of that priority may be written now (protocol.md §8.5).
    pub(crate) fn takes(&self, priority: crate::rows::Priority) -> bool {
        match self.status {
            Status::Idle => true,
            Status::Working | Status::Dnd => priority == crate::rows::Priority::Now,
        }
    }

    /// Whether it receives `@group`: it is in the group, or in one below it (design.md §8.3).
    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.card.groups().iter().any(|(own, _)| {
            own.strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
