//! What a session gets once it is let in: a new lease or its own one back, brought up to date,
//! and the answer to its hello.

use bytes::Bytes;

use crate::attachment::Attachment;
use crate::card::{Card, Details};
use crate::effect::Close;
use crate::event::{Event, LeaseEnd};
use crate::hello::Hello;
use crate::ids::{ConnId, InLog, PeerHandle, Position};
use crate::marks::{Mark, mark};
use crate::outbox::Outbox;
use crate::peer::{Lease, Links, MemberIx, MeshIx, Online, OwedJoin, PeerConn, Rare};
use crate::rows::{Group, PeerRole, PeerStateRow, Status, StatusSource};
use crate::shard::{Shard, Turn};
use crate::time::{Millis, Wall};
use crate::wire::frames;

/// A hello's mesh and member, found and allowed in.
pub(crate) type Found = (MeshIx, MemberIx);

impl Shard {
    /// A new lease: row, answer, mail; others are told when the row is durable.
    pub(crate) fn begin(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        hello: &Hello,
        (mesh, member): Found,
    ) {
        let Some(owner) = self.member(member) else {
            return;
        };
        let saved = match hello.role {
            PeerRole::ControlPlane => owner.saved.clone(),
            PeerRole::Session => None,
        };
        let (groups, restored_groups) = choose_groups(hello, saved.as_deref(), owner);
        let card = self.card_of(hello, (member, groups));
        let peer = self.newcomer(t, (conn, hello), (mesh, member), (saved.as_deref(), &card));
        let handle = self.enter(t, peer);
        self.enter_online(handle.slot);
        self.attachments.set(conn, Attachment::Attached(handle));
        self.start_liveness(t.now.mono, handle);
        self.record_join(t, handle, saved.as_deref());
        let welcome = Welcome::New {
            saved: saved.as_deref(),
            restored_groups,
        };
        if let Some(ack) = self.hello_ack(t.now.wall, handle.slot, hello.role, &welcome) {
            t.send(conn, ack);
        }
        // After the hello's answer, which comes first: becoming idle writes mail.
        self.take_pending_status(t, handle.slot);
        self.rewind_mail(t, handle.slot);
        self.drain(t, handle.slot);
        self.restore_servers(t, handle.slot);
    }

    fn record_join(&mut self, t: &mut Turn<'_>, handle: PeerHandle, saved: Option<&PeerStateRow>) {
        self.owe_join(handle.slot, saved);
        self.persist_presence(t, handle.slot);
        if let Some(peer) = self.peers.get(handle) {
            self.audit_joined(t, peer, saved.is_some());
        }
    }

    /// What a new session shows, by its hello.
    fn card_of(&mut self, hello: &Hello, (member, groups): (MemberIx, Vec<Group>)) -> Details {
        let name = match (&hello.display_name, self.member(member)) {
            (Some(name), _) => name.as_str().into(),
            (None, owner) => owner.map(|owner| owner.name.clone()).unwrap_or_default(),
        };
        let mut card = Details {
            presence_id: self.mint.presence_id().into(),
            name,
            groups,
            ..Details::default()
        };
        show(&mut card, hello);
        card
    }

    /// A session that was not present before, as its hello says and its member saved.
    fn newcomer(
        &mut self,
        t: &Turn<'_>,
        (conn, hello): (ConnId, &Hello),
        (mesh, member): Found,
        (saved, card): (Option<&PeerStateRow>, &Details),
    ) -> PeerConn {
        let profile: Option<frames::Profile> =
            saved.and_then(|row| serde_json::from_str(&row.profile).ok());
        let profile = profile.filter(|profile| *profile != frames::Profile::default());
        let order = self.stamp().0;
        let attached = self.stamp();
        let online = Online::new(conn, attached.0, (attached, t.now.mono));
        PeerConn {
            mesh,
            member,
            kind: hello.kind(),
            session_key: hello.session_key,
            lease: Lease::Online(online.into()),
            grace: self.config.grace_of(hello.lease).into(),
            lease_timer: None,
            order,
            attaches: 1,
            card: Card::of(card),
            links: Links::default(),
            status: Status::Idle,
            status_source: StatusSource::Jsonl,
            status_at: t.now.wall,
            working_timer: None,
            visible: saved.is_none_or(|row| row.visible),
            connected_at: t.now.wall,
            last_seen: t.now.mono,
            attested_until: hello.attested_until.into(),
            boot_epochs: 0,
            owed: OwedJoin::Nothing,
            outbox: Outbox::default(),
            acknowledges: false,
            joined: InLog::default(),
            cursor: attached,
            heard: Position::default(),
            known: Position::default(),
            rare: profile.map(|profile| {
                Box::new(Rare {
                    profile,
                    ..Rare::default()
                })
            }),
        }
    }

    /// A reattach in grace, or a takeover: the same presence, told to nobody.
    pub(crate) fn reattach(&mut self, t: &mut Turn<'_>, slot: u32, conn: ConnId, hello: &Hello) {
        let confirmed = self.peers.get_slot(slot).map(|peer| peer.cursor);
        self.attach(t, slot, conn);
        let missed = !self.log_reaches(slot);
        if let Some(peer) = self.peers.handle_of(slot).filter(|_| missed) {
            mark(Mark::ReplayTruncated);
            t.observe(Event::ReplayTruncated { peer });
        }
        self.walk_from_cursor(slot);
        let replaced = self.refresh(slot, hello);
        self.persist_presence(t, slot);
        let welcome = Welcome::Reattached { missed };
        if let Some(ack) = self.hello_ack(t.now.wall, slot, hello.role, &welcome) {
            t.send(conn, ack);
        }
        self.tell_watches_again(t, slot);
        self.rewind_mail(t, slot);
        self.drain(t, slot);
        self.resume_calls(t, slot, confirmed.unwrap_or_default());
        self.replace(t, replaced);
    }

    /// Another session came back under this one's session id.
    pub(crate) fn replace(&mut self, t: &mut Turn<'_>, replaced: Option<u32>) {
        if let Some(slot) = replaced {
            self.evict(t, slot, LeaseEnd::Replaced, Some(Close::SESSION_REPLACED));
        }
    }

    /// What a reattach brings up to date (design.md §8.4). Gives the session whose session id it
    /// now bears, which it replaces.
    pub(crate) fn refresh(&mut self, slot: u32, hello: &Hello) -> Option<u32> {
        let peer = self.peers.get_slot(slot)?;
        let found = (peer.mesh, peer.member);
        let grace = self.config.grace_of(hello.lease);
        let replaced = self.holder_of_id(hello, found).filter(|s| *s != slot);
        let moved = *self.peers.get_slot(slot)?.card.cwd() != *hello.cwd;
        if moved {
            self.leave_cwd(slot);
        }
        let peer = self.peers.get_slot_mut(slot)?;
        let old_id: Box<str> = (&*peer.card.session_id()).into();
        peer.card.change(|card| {
            if let Some(name) = &hello.display_name {
                card.name = name.as_str().into();
            }
            if let Some(groups) = hello.groups.as_ref().filter(|groups| !groups.is_empty()) {
                card.groups.clone_from(groups);
            }
            show(card, hello);
        });
        peer.grace = grace.into();
        if hello.attested_until.is_some() {
            peer.attested_until = hello.attested_until.into();
        }
        let (member, kind, mesh) = (peer.member, peer.kind, peer.mesh);
        if moved {
            self.enter_cwd(slot);
        }
        if *old_id != *hello.session_id {
            self.drop_id(mesh, slot, (member, kind, &old_id));
            self.hold_id(slot);
        }
        replaced
    }

    /// `hello_ack`, the first frame of a session on its socket.
    pub(crate) fn hello_ack(
        &self,
        now: Wall,
        slot: u32,
        role: PeerRole,
        welcome: &Welcome<'_>,
    ) -> Option<Bytes> {
        let peer = self.peers.get_slot(slot)?;
        let (mesh, member) = (self.mesh(peer.mesh)?, self.member(peer.member)?);
        let reattached = matches!(welcome, Welcome::Reattached { .. });
        let is_hello = role == PeerRole::ControlPlane;
        let presence_id = peer.presence_id();
        let ack = frames::HelloAck {
            presence_id: &presence_id,
            member_display_name: peer.name(),
            member_profile: (is_hello || !reattached).then_some(frames::MemberProfile {
                role_tag: member.role_tag.as_deref(),
                groups: &member.default_groups,
                message_mode: &member.message_mode,
            }),
            mesh_policy: mesh
                .policy
                .as_deref()
                .map(|p| frames::MeshPolicy { self_editable: p }),
            restored: welcome.restored(),
            services: is_hello.then_some([]),
            reattached,
            missed: matches!(welcome, Welcome::Reattached { missed: true }).then_some("truncated"),
            lease_ttl_ms: Millis::from(peer.grace).0,
            resume_token: self.resume_token(now, peer),
        };
        Some(frames::encode(&ack))
    }
}

/// What a hello found.
pub(crate) enum Welcome<'a> {
    /// Its own lease; `missed` if the mesh's log no longer holds all it has not heard.
    Reattached { missed: bool },
    /// A new lease; perhaps with the member's saved state.
    New {
        saved: Option<&'a PeerStateRow>,
        restored_groups: bool,
    },
}

impl<'a> Welcome<'a> {
    fn restored(&self) -> Option<frames::Restored<'a>> {
        match self {
            Welcome::New {
                saved: Some(saved),
                restored_groups,
            } => Some(frames::Restored {
                restored: true,
                last_summary: saved.last_summary.as_deref(),
                last_seen_at: saved.last_seen_at,
                restored_groups: restored_groups.then_some(&saved.groups),
                restored_stats: saved.stats.into(),
            }),
            Welcome::Reattached { .. } | Welcome::New { saved: None, .. } => None,
        }
    }
}

/// What a hello says of its client is shown; what it does not say stays.
fn show(card: &mut Details, hello: &Hello) {
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    card.session_id = hello.session_id.as_str().into();
    card.pid = hello.pid;
    card.cwd = hello.cwd.as_str().into();
    card.hostname = text(&hello.hostname).or_else(|| card.hostname.take());
    card.peer_type = text(&hello.peer_type).or_else(|| card.peer_type.take());
    card.channel = text(&hello.channel).or_else(|| card.channel.take());
    card.model = text(&hello.model).or_else(|| card.model.take());
}

/// The groups of a new session (protocol.md §4, §5), and whether they are saved ones.
fn choose_groups(
    hello: &Hello,
    saved: Option<&PeerStateRow>,
    member: &crate::mesh::Member,
) -> (Vec<Group>, bool) {
    let given = hello.groups.clone();
    match hello.role {
        // An empty list counts for a session …
        PeerRole::Session => (
            given.unwrap_or_else(|| member.default_groups.clone()),
            false,
        ),
        // … and means "none given" for a member.
        PeerRole::ControlPlane => match (given.filter(|g| !g.is_empty()), saved) {
            (Some(groups), _) => (groups, false),
            (None, Some(row)) if !row.groups.is_empty() => (row.groups.clone(), true),
            (None, _) => (member.default_groups.clone(), false),
        },
    }
}
