//! Who is there, as the model has it.

use holdfast_core::ids::PubKey;
use holdfast_core::rows::Status;

use crate::oracle::{ConnKey, Oracle};
use crate::town::{Identity, Kind, Member};

/// A session's lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) who: Identity,
    pub(crate) mesh: usize,
    pub(crate) shard: u16,
    pub(crate) key: Option<PubKey>,
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) visible: bool,
    pub(crate) cwd: String,
    pub(crate) pid: i64,
    pub(crate) status: Status,
    /// When a `working` runs out.
    pub(crate) working_until: Option<u64>,
    pub(crate) seat: Seat,
    /// In which order leases began and attached.
    pub(crate) order: u64,
    pub(crate) attached: u64,
    pub(crate) last_proof: u64,
    pub(crate) last_ping: u64,
    /// Whether others are to be told that it joined.
    pub(crate) owed: super::told::Owed,
    /// When an online session was taken over.
    pub(crate) takeovers: Vec<u64>,
    /// Those of them for which the incumbent was not asked.
    pub(crate) sudden: Vec<u64>,
    /// Written and not confirmed, in order.
    pub(crate) unconfirmed: Vec<usize>,
    /// Those of them that the present socket has not been written.
    pub(crate) rewrite: std::collections::VecDeque<usize>,
    /// It has confirmed messages itself.
    pub(crate) acks: bool,
    /// How long it stays without a socket.
    pub(crate) grace: u64,
}

/// Whether a session has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Said to have one; its `hello_ack` must follow in the same step.
    Entering,
    Online(ConnKey),
    /// Until then, by the monotonic clock.
    Grace(u64),
}

impl Lease {
    pub(crate) fn conn(&self) -> Option<ConnKey> {
        match self.seat {
            Seat::Online(conn) => Some(conn),
            Seat::Entering | Seat::Grace(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.who.kind
    }

    /// Whether it is in a group, or in one below it (design.md §8.3).
    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups
            .iter()
            .any(|own| own == group || own.starts_with(&format!("{group}/")))
    }
}

/// A member as it is now.
#[derive(Clone, Debug)]
pub(crate) struct MemberModel {
    pub(crate) name: String,
    pub(crate) admin: bool,
    pub(crate) revoked: bool,
    /// Peer key, may send to it, may broadcast to it.
    pub(crate) grants: Vec<(PubKey, bool, bool)>,
    pub(crate) default_groups: Vec<String>,
    /// What its next key-less hello finds again.
    pub(crate) saved: Option<Saved>,
}

/// Saved state of a member.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) groups: Vec<String>,
    pub(crate) visible: bool,
}

impl MemberModel {
    pub(crate) fn new(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            admin: member.admin,
            revoked: false,
            grants: Vec::new(),
            default_groups: member.default_groups.clone(),
            saved: None,
        }
    }
}

impl Oracle {
    /// The key a session is known by.
    pub(crate) fn public_key(&self, lease: &Lease) -> PubKey {
        lease
            .key
            .unwrap_or_else(|| self.plan.town.member_key(lease.who.member))
    }

    /// The lease of an identity.
    pub(crate) fn lease_of(&self, who: &Identity) -> Option<&String> {
        let key = who.session_key();
        let same = |lease: &Lease| {
            lease.who.member == who.member
                && lease.who.kind == who.kind
                && lease.key == key
                && (key.is_some() || lease.who.session_id == who.session_id)
        };
        self.leases
            .iter()
            .find(|(_, lease)| same(lease))
            .map(|(id, _)| id)
    }

    /// Leases of one mesh, in the order they began.
    pub(crate) fn in_mesh(&self, mesh: usize) -> Vec<(&String, &Lease)> {
        let mut found: Vec<_> = self.leases.iter().filter(|(_, l)| l.mesh == mesh).collect();
        found.sort_by_key(|(_, lease)| lease.order);
        found
    }

    /// Whether `listener` hears of the join and leave of `of` (design.md §8.2).
    pub(crate) fn hears(listener: &Lease, of: &Lease) -> bool {
        match of.kind() {
            Kind::Launched => true,
            Kind::ThrowAway | Kind::Member => listener.who.member != of.who.member,
        }
    }

    /// The lease attached to a socket.
    pub(crate) fn attached(&self, at: ConnKey) -> Option<(&String, &Lease)> {
        self.leases
            .iter()
            .find(|(_, lease)| lease.conn() == Some(at))
    }

    /// What a member lets another do.
    pub(crate) fn allows(&self, member: usize, sender: &Lease, broadcast: bool) -> bool {
        self.lets(member, (sender.who.member, sender.key), broadcast)
    }

    /// What a member lets a sender of that member and session key do.
    pub(crate) fn lets(
        &self,
        member: usize,
        (sender, session_key): (usize, Option<PubKey>),
        broadcast: bool,
    ) -> bool {
        let member_key = self.plan.town.member_key(sender);
        let grants = &self.members[member].grants;
        let entry = |key: PubKey| grants.iter().find(|(peer, ..)| *peer == key);
        let found = entry(member_key).or_else(|| {
            // Only multicast also looks at the session key.
            session_key.filter(|_| broadcast).and_then(entry)
        });
        found.is_none_or(|(_, dm, all)| if broadcast { *all } else { *dm })
    }

    /// The session of a session key: a proven one outranks a claimed one.
    pub(crate) fn holder(&self, mesh: usize, key: PubKey) -> Option<&String> {
        let holders = || {
            self.in_mesh(mesh)
                .into_iter()
                .filter(|(_, l)| l.key == Some(key))
        };
        let proven = holders().find(|(_, lease)| lease.kind() == Kind::Launched);
        proven.or_else(|| holders().next()).map(|(id, _)| id)
    }

    /// The session that gets a direct message now (design.md §8.10).
    pub(crate) fn designated(
        &self,
        mesh: usize,
        target: PubKey,
        sender: &str,
        sender_member: usize,
    ) -> Option<&String> {
        if let Some(id) = self.holder(mesh, target) {
            // Who inherited the key it had sent to does not get what it sent.
            return Some(id).filter(|id| *id != sender);
        }
        let leases = self.in_mesh(mesh);
        let of_member = |lease: &Lease| self.plan.town.member_key(lease.who.member) == target;
        let own = self.plan.town.member_key(sender_member) == target;
        let rank = |kind| match (kind, own) {
            (Kind::Member, false) | (Kind::Launched, true) => 0,
            (Kind::Launched, false) | (Kind::ThrowAway, true) => 1,
            (Kind::ThrowAway, false) | (Kind::Member, true) => 2,
        };
        leases
            .iter()
            .filter(|(id, lease)| of_member(lease) && lease.conn().is_some() && *id != sender)
            .min_by_key(|(_, lease)| (rank(lease.kind()), std::cmp::Reverse(lease.attached)))
            .map(|(id, _)| *id)
    }
}
