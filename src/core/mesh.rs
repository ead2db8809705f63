//! A mesh's members, who is present in it, and who has mail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use serde_json::value::RawValue;

use crate::Hasher;
use crate::bucket::Bucket;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::ids::{PubKey, Token, WatchId};
use crate::index::Index;
use crate::known::Known;
use crate::log::Log;
use crate::mailbox::Mailbox;
use crate::peer::{Kind, MemberIx, MeshIx};
use crate::presence::Farewell;
use crate::relay::Relays;
use crate::rows::{Group, MemberRow, MeshRow, PeerStateRow};
use crate::servers::Servers;
use crate::state::SharedState;
use crate::streams::Streams;
use crate::time::{Mono, Wall};
use crate::topics::Topics;
use crate::wheel::TimerKey;

/// One mesh and everything that is looked up by its key.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) id: Rc<str>,
    pub(crate) slug: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) policy: Option<Box<RawValue>>,
    /// The member of each key: the active one, else the one revoked last.
    pub(crate) by_key: HashMap<PubKey, MemberIx, Hasher>,
    /// All members, in the order they came.
    pub(crate) members: Vec<MemberIx>,
    /// Present sessions by the order their leases began: what fan-out and lists walk.
    pub(crate) roster: Chain,
    /// Session keys that were present once.
    pub(crate) known: Known,
    /// Which session is reached by a session key.
    pub(crate) by_session_key: Index,
    /// Which session of a member and kind goes by a session id.
    pub(crate) by_session_id: Index,
    /// Ends that others have not been told of, by the operation that each waits for.
    pub(crate) farewells: VecDeque<(Token, Farewell)>,
    /// Undelivered direct messages by the key they are for; no entry means none.
    pub(crate) mailboxes: HashMap<PubKey, Mailbox, Hasher>,
    /// What was said to many.
    pub(crate) log: Log,
    /// When it is looked after: who has confirmed it, and what may be forgotten.
    pub(crate) burst: Option<(Mono, TimerKey)>,
    /// Keys whose mail the disk did not give, to be asked for again.
    pub(crate) unread: Vec<PubKey>,
    /// What its members share, by key; most meshes have none.
    pub(crate) state: Option<Box<SharedState>>,
    /// Streams that were created or have subscribers; most meshes have none.
    pub(crate) streams: Option<Box<Streams>>,
    /// Its simulation clock, once somebody has set one.
    pub(crate) clock: Option<Box<Clock>>,
    /// Requests for peers' files that wait for their answers, if there are any.
    pub(crate) relays: Option<Box<Relays>>,
    /// Its topics, once there are any.
    pub(crate) topics: Option<Box<Topics>>,
    /// Whether its audit log is being verified.
    pub(crate) verifying: bool,
    /// MCP servers and calls to them, once there are any.
    pub(crate) servers: Option<Box<Servers>>,
    /// Whose each watch is.
    pub(crate) watches: BTreeMap<WatchId, u32>,
    /// How many mailboxes there may be before the outdated are looked for.
    mailboxes_swept: usize,
}

/// Mailboxes of one mesh below which nothing is swept.
const MAILBOXES_FEW: usize = 1024;

impl Mesh {
    /// A mesh as its row says, without members.
    pub(crate) fn new(row: MeshRow, hasher: &Hasher) -> Self {
        let mut mesh = Self {
            id: row.id.as_str().into(),
            slug: Box::default(),
            name: Box::default(),
            policy: None,
            by_key: HashMap::with_hasher(hasher.clone()),
            members: Vec::new(),
            roster: Chain::default(),
            known: Known::new(hasher),
            by_session_key: Index::default(),
            by_session_id: Index::default(),
            farewells: VecDeque::new(),
            mailboxes: HashMap::with_hasher(hasher.clone()),
            log: Log::default(),
            burst: None,
            unread: Vec::new(),
            state: None,
            streams: None,
            clock: None,
            relays: None,
            topics: None,
            verifying: false,
            servers: None,
            watches: BTreeMap::new(),
            mailboxes_swept: MAILBOXES_FEW,
        };
        mesh.update(row);
        mesh
    }

    /// Takes over what an administrator may change.
    pub(crate) fn update(&mut self, row: MeshRow) {
        self.slug = row.slug.into();
        self.name = row.name.into();
        self.policy = row
            .self_editable
            .and_then(|text| RawValue::from_string(text).ok());
    }

    /// The mailbox of a key, made by `new` if there is none. Each time their number has doubled,
    /// those go whose rows retention has deleted by now.
    pub(crate) fn mailbox_or(
        &mut self,
        now: Mono,
        key: PubKey,
        new: impl FnOnce() -> Mailbox,
    ) -> &mut Mailbox {
        if self.mailboxes.len() >= self.mailboxes_swept {
            self.mailboxes.retain(|_, mailbox| !mailbox.outdated(now));
            self.mailboxes_swept = MAILBOXES_FEW.max(2 * self.mailboxes.len());
        }
        self.mailboxes.entry(key).or_insert_with(new)
    }

    /// The name for people: name, else slug, else id (protocol.md §4 check 6).
    pub(crate) fn title(&self) -> &str {
        [&*self.name, &*self.slug]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(&self.id)
    }
}

/// One thing a peer may do towards a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cap {
    Dm,
    Broadcast,
}

impl Cap {
    /// Its name on the wire and in labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dm => "dm",
            Self::Broadcast => "broadcast",
        }
    }
}

/// What a peer may do towards a member; only these two are enforced (protocol.md §8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    pub(crate) dm: bool,
    pub(crate) broadcast: bool,
}

impl Caps {
    /// For peers without an entry.
    pub(crate) const DEFAULT: Self = Self {
        dm: true,
        broadcast: true,
    };

    /// Whether that is among them.
    pub(crate) fn has(self, cap: Cap) -> bool {
        match cap {
            Cap::Dm => self.dm,
            Cap::Broadcast => self.broadcast,
        }
    }

    fn of(names: &[String]) -> Self {
        let has = |cap: &str| names.iter().any(|name| name == cap);
        Self {
            dm: has("dm"),
            broadcast: has("broadcast"),
        }
    }
}

/// One membership.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Box<str>,
    pub(crate) mesh: MeshIx,
    pub(crate) key: PubKey,
    pub(crate) name: Box<str>,
    pub(crate) admin: bool,
    pub(crate) role_tag: Option<Box<str>>,
    pub(crate) default_groups: Vec<Group>,
    pub(crate) message_mode: Box<str>,
    pub(crate) revoked_at: Option<Wall>,
    grants: Vec<(PubKey, Caps)>,
    pub(crate) bucket: Bucket,
    /// Its present sessions by the order their leases began.
    pub(crate) sessions: Chain,
    /// Those online, for each [`Kind`], by the order they attached.
    pub(crate) online: [Chain; 3],
    pub(crate) saved: Option<Box<PeerStateRow>>,
}

impl Member {
    /// A member as its row says, without sessions.
    pub(crate) fn new(row: MemberRow, mesh: MeshIx, bucket: Bucket) -> Self {
        let mut member = Self {
            id: row.id.as_str().into(),
            mesh,
            key: row.pubkey,
            name: Box::default(),
            admin: false,
            role_tag: None,
            default_groups: Vec::new(),
            message_mode: Box::default(),
            revoked_at: None,
            grants: Vec::new(),
            bucket,
            sessions: Chain::default(),
            online: Default::default(),
            saved: None,
        };
        member.update(row);
        member
    }

    /// Takes over what an administrator may change. Administrators revoke and never readmit, so
    /// a row without a revocation was read before there was one.
    pub(crate) fn update(&mut self, row: MemberRow) {
        self.name = row.display_name.into();
        self.admin = row.admin;
        self.role_tag = row.role_tag.map(String::into_boxed_str);
        self.default_groups = row.default_groups;
        self.message_mode = row.message_mode.into();
        self.revoked_at = row.revoked_at.or(self.revoked_at);
        self.grants = row
            .grants
            .iter()
            .map(|(key, caps)| (*key, Caps::of(caps)))
            .collect();
        self.grants.sort_unstable_by_key(|(key, _)| *key);
    }

    /// What the sender may do: by its member key, else by its session key, else the default.
    pub(crate) fn allows(&self, sender: &PubKey, session: Option<&PubKey>) -> Caps {
        let entry = |key: &PubKey| {
            let index = self
                .grants
                .binary_search_by_key(key, |(key, _)| *key)
                .ok()?;
            self.grants.get(index).map(|(_, caps)| *caps)
        };
        entry(sender)
            .or_else(|| entry(session?))
            .unwrap_or(Caps::DEFAULT)
    }

    /// Its online sessions of one kind.
    pub(crate) fn online(&self, kind: Kind) -> Chain {
        let [launched, throw_away, member] = self.online;
        match kind {
            Kind::Launched => launched,
            Kind::ThrowAway => throw_away,
            Kind::Member => member,
        }
    }

    /// See [`Self::online`].
    pub(crate) fn online_mut(&mut self, kind: Kind) -> &mut Chain {
        let [launched, throw_away, member] = &mut self.online;
        match kind {
            Kind::Launched => launched,
            Kind::ThrowAway => throw_away,
            Kind::Member => member,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revoked_at: Option<Wall>) -> MemberRow {
        MemberRow {
            id: "id".to_owned(),
            mesh_id: "mesh".to_owned(),
            pubkey: PubKey([1; 32]),
            display_name: "alice".to_owned(),
            admin: false,
            role_tag: None,
            default_groups: Vec::new(),
            message_mode: "push".to_owned(),
            revoked_at,
            grants: Vec::new(),
        }
    }

    #[test]
    fn a_row_read_before_a_revocation_does_not_lift_it() {
        let bucket = Bucket::full(1, Mono(0));
        let mut member = Member::new(row(None), MeshIx(0), bucket);
        member.update(row(Some(Wall(5))));
        let earlier = MemberRow {
            display_name: "bob".to_owned(),
            ..row(None)
        };
        member.update(earlier);
        assert_eq!((member.revoked_at, &*member.name), (Some(Wall(5)), "bob"));
    }
}
