//! One session: who it is, what it shows, its lease and its outbox.

use std::rc::Rc;

use bytes::Bytes;

use crate::attachment::Challenger;
use crate::ids::{ConnId, Position, PubKey};
use crate::log::Walk;
use crate::outbox::Outbox;
use crate::passed::Passed;
use crate::replies::Replies;
use crate::rows::{Group, PeerRole, Stats, Status, StatusSource};
use crate::time::{Millis, Mono, Wall};
use crate::wheel::TimerKey;
use crate::wire::frames::Profile;

/// Index of a mesh in its shard; meshes are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MeshIx(pub(crate) u32);

/// Index of a member in its shard; members are never removed, only revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberIx(pub(crate) u32);

/// Whether a session has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Attached to this socket.
    Online(ConnId),
    /// No socket; the lease ends then.
    Grace(Mono),
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

/// What a session shows of its client, each only for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) pid: i64,
    pub(crate) hostname: Option<Box<str>>,
    pub(crate) peer_type: Option<Box<str>>,
    pub(crate) channel: Option<Box<str>>,
    pub(crate) model: Option<Box<str>>,
    pub(crate) profile: Profile,
    /// As reported last, JSON object text.
    pub(crate) stats: Option<Box<str>>,
    /// What of the reported stats has been added to the member's saved state.
    pub(crate) stats_saved: Stats,
    /// Where the log tells of its join.
    pub(crate) joined: Option<Position>,
    /// Where the log last tells of its visibility.
    pub(crate) shown: Option<Position>,
    /// Up to where it is taken to have heard who came and went: beyond its cursor only after a
    /// restart of the broker.
    pub(crate) heard: Position,
    /// Up to where its sockets were written the log, whether it confirmed it or not.
    pub(crate) known: Position,
    /// What its walks passed over, until it has confirmed that they did.
    pub(crate) passed: Option<Box<Passed>>,
    /// The cursor as its row has it, and since when.
    pub(crate) noted: (Position, Mono),
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
#[derive(Debug)]
pub(crate) struct OwedJoin {
    /// What they are told: the session as it joined. None if a broker crashed that should have
    /// told them, and perhaps had.
    pub(crate) frame: Option<Bytes>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct PeerConn {
    pub(crate) presence_id: Box<str>,
    pub(crate) mesh: MeshIx,
    pub(crate) member: MemberIx,
    pub(crate) kind: Kind,
    pub(crate) session_id: Box<str>,
    pub(crate) session_key: Option<PubKey>,
    pub(crate) lease: Lease,
    /// How long it stays present without a socket.
    pub(crate) grace: Millis,
    /// Online: the next liveness check; in grace: the end.
    pub(crate) lease_timer: Option<TimerKey>,
    /// Place in the mesh's roster: the order in which leases began.
    pub(crate) order: u64,
    /// Rises with every attach in the shard: who attached last.
    pub(crate) attached: u64,
    /// Attachments of this lease so far, restarts of the broker included.
    pub(crate) attaches: u32,
    pub(crate) name: Box<str>,
    pub(crate) cwd: Rc<str>,
    pub(crate) about: Box<About>,
    pub(crate) status: Status,
    pub(crate) status_source: StatusSource,
    pub(crate) status_at: Wall,
    pub(crate) working_timer: Option<TimerKey>,
    pub(crate) summary: Option<Box<str>>,
    pub(crate) groups: Vec<Group>,
    pub(crate) visible: bool,
    pub(crate) connected_at: Wall,
    pub(crate) last_seen: Mono,
    /// None until the first ping of this attachment.
    pub(crate) last_ping: Option<Mono>,
    pub(crate) attested_until: Option<Wall>,
    pub(crate) boot_epochs: u8,
    /// Until others have been told of the join, which waits for its row.
    pub(crate) owed: Option<Box<OwedJoin>>,
    pub(crate) watermark_timer: Option<TimerKey>,
    pub(crate) outbox: Outbox,
    /// Up to where it has confirmed the mesh's log.
    pub(crate) cursor: Position,
    /// While it does not keep up with the log.
    pub(crate) walk: Option<Box<Walk>>,
    pub(crate) replies: Replies,
    pub(crate) rivalry: Option<Box<Rivalry>>,
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

impl PeerConn {
    /// The socket, while online.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.lease {
            Lease::Online(conn) => Some(conn),
            Lease::Grace(_) => None,
        }
    }

    /// When the next ping is due: an interval after the last proof of life or ping.
    pub(crate) fn ping_due(&self, interval: Millis) -> Mono {
        self.last_seen
            .max(self.last_ping.unwrap_or_default())
            .after(interval)
    }

    /// It has confirmed the log up to there.
    pub(crate) fn confirm_log(&mut self, read: Position) {
        self.cursor = self.cursor.max(read);
        let cursor = self.cursor;
        self.about.passed.take_if(|passed| !passed.confirm(cursor));
    }

    /// A walk is over, or its socket gone: notes what it passed over.
    pub(crate) fn walked(&mut self, walk: &Walk) {
        if let Some((places, horizon)) = walk.passed_over() {
            let passed = self.about.passed.get_or_insert_default();
            passed.note(places, horizon);
        }
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
        self.groups.iter().any(|own| {
            own.name
                .strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
