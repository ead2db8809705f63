//! Who may enter: from a verified hello to a new session, a reattach, or a refusal.

use crate::attachment::Attachment;
use crate::effect::{Close, Effect};
use crate::event::{Event, LeaseEnd};
use crate::hello::{Hello, Refusal};
use crate::ids::{ConnId, PubKey, home_of};
use crate::outbox::Outbox;
use crate::peer::{About, Kind, Lease, MemberIx, MeshIx, PeerConn};
use crate::replies::Replies;
use crate::rows::{Group, PeerRole, Status, StatusSource};
use crate::shard::{Shard, Turn};
use crate::wire::{Fields, frames};

/// A hello's mesh and member, found and allowed in.
type Found = (MeshIx, MemberIx);

impl Hello {
    /// How the session it asks for is recognised.
    pub(crate) fn kind(&self) -> Kind {
        match (self.role, self.session_key) {
            (PeerRole::Session, _) => Kind::Launched,
            (PeerRole::ControlPlane, Some(_)) => Kind::ThrowAway,
            (PeerRole::ControlPlane, None) => Kind::Member,
        }
    }
}

impl Shard {
    /// The first frame of a socket, if it is a hello.
    pub(crate) fn greet(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        kind: &str,
        fields: &Fields<'_>,
    ) {
        let hello = match kind {
            "hello" => Hello::member(fields, t.now.wall),
            "session_hello" => Hello::session(fields, t.now.wall),
            _ => {
                t.send(
                    conn,
                    frames::error("no_hello", "must send hello first", None),
                );
                return;
            }
        };
        let hello = match hello {
            Ok(hello) => Box::new(hello),
            Err(refusal) => return self.refuse(t, conn, refusal),
        };
        if let Some(Attachment::Greeting(timer)) = self.attachments.remove(conn) {
            self.wheel.cancel(timer);
        }
        let home = home_of(&hello.mesh_id, self.place.count);
        if home == self.place.index {
            self.admit(t, conn, hello);
        } else {
            t.fx.push(Effect::Handoff {
                conn,
                shard: home,
                hello,
            });
        }
    }

    /// A hello on a socket that is attached already: to itself, or `already_joined`
    /// (design.md §8.11).
    pub(crate) fn greet_again(
        &mut self,
        t: &mut Turn<'_>,
        conn: ConnId,
        slot: u32,
        hello: Result<Hello, Refusal>,
    ) {
        let hello = match hello {
            Ok(hello) => hello,
            Err(refusal) => {
                t.send(conn, frames::error(refusal.code, refusal.message, None));
                return;
            }
        };
        let own = self.find(&hello).is_ok_and(|(mesh, member)| {
            self.present(
                mesh,
                member,
                hello.kind(),
                hello.session_key,
                &hello.session_id,
            ) == Some(slot)
        });
        if !own {
            t.send(
                conn,
                frames::error("already_joined", "this connection has joined already", None),
            );
            return;
        }
        let replaced = self.refresh(slot, &hello);
        self.acknowledge_hello(t, slot, conn, hello.role, &Welcome::Reattached);
        self.persist_presence(t, slot);
        self.replace(t, replaced);
    }

    /// A verified hello at its mesh's home.
    pub(crate) fn admit(&mut self, t: &mut Turn<'_>, conn: ConnId, hello: Box<Hello>) {
        let (mesh, member) = match self.find(&hello) {
            Ok(found) => found,
            Err(refusal) => return self.refuse(t, conn, refusal),
        };
        if !self.replay.accept(t.now.mono, &hello.signature) {
            return self.refuse(
                t,
                conn,
                Refusal::new("replayed", "hello rejected: replayed"),
            );
        }
        let kind = hello.kind();
        match self.present(mesh, member, kind, hello.session_key, &hello.session_id) {
            Some(slot) => self.reattach_or_contend(t, slot, conn, hello),
            None => self.admit_newcomer(t, conn, &hello, (mesh, member)),
        }
    }

    fn admit_newcomer(&mut self, t: &mut Turn<'_>, conn: ConnId, hello: &Hello, found: Found) {
        let (mesh, member) = found;
        if let Some(refusal) = self.key_taken(hello, found) {
            return self.refuse(t, conn, refusal);
        }
        let rivals = self.rivals(hello, found);
        let present = self.mesh(mesh).map_or(0, |m| m.roster.len());
        if present.saturating_sub(rivals.len()) >= self.config.max_sessions_per_mesh as usize {
            return self.refuse(
                t,
                conn,
                Refusal::new("capacity", "mesh at connection capacity"),
            );
        }
        for slot in rivals {
            self.evict(t, slot, LeaseEnd::Replaced, Some(Close::SESSION_REPLACED));
        }
        self.begin(t, conn, hello, (mesh, member));
    }

    /// The mesh and the active member a hello names (protocol.md §4 check 6, §5 checks 7 and 8).
    fn find(&self, hello: &Hello) -> Result<Found, Refusal> {
        let unauthorized = || match hello.role {
            PeerRole::ControlPlane => Refusal::new("unauthorized", "pubkey not found in mesh"),
            PeerRole::Session => Refusal::new("unauthorized", "parent pubkey not found in mesh"),
        };
        let mesh_ix = *self
            .mesh_ids
            .get(hello.mesh_id.as_str())
            .ok_or_else(unauthorized)?;
        let mesh = self.mesh(mesh_ix).ok_or_else(unauthorized)?;
        let member_ix = mesh
            .by_key
            .get(&hello.member_key)
            .filter(|_| hello.member_key_exact);
        let member_ix = *member_ix.ok_or_else(unauthorized)?;
        let member = self.member(member_ix).ok_or_else(unauthorized)?;
        if member.revoked_at.is_some() {
            let message = format!(
                "You've been removed from \"{}\". Contact the mesh owner to rejoin.",
                mesh.title()
            );
            return Err(Refusal {
                close: Close::BANNED,
                ..Refusal::new("revoked", message)
            });
        }
        if hello
            .parent_member_id
            .as_deref()
            .is_some_and(|id| *id != *member.id)
        {
            return Err(Refusal::new(
                "parent_member_id_mismatch",
                "parentMemberId does not match parentMemberPubkey",
            ));
        }
        Ok((mesh_ix, member_ix))
    }

    /// The session of that identity, if it is present.
    pub(crate) fn present(
        &self,
        mesh: MeshIx,
        member: MemberIx,
        kind: Kind,
        key: Option<PubKey>,
        session_id: &str,
    ) -> Option<u32> {
        let is_it = |slot: &u32| {
            self.peers.get_slot(*slot).is_some_and(|peer| {
                peer.member == member
                    && peer.kind == kind
                    && peer.session_key == key
                    && (key.is_some() || *peer.session_id == *session_id)
            })
        };
        let found = self.mesh(mesh)?;
        let Some(key) = key else {
            let hash = self.identity_hash(member, kind, session_id);
            return found.by_session_id.get(&hash).copied().filter(is_it);
        };
        let holder = found.by_session_key.get(&key).copied()?;
        if is_it(&holder) {
            return Some(holder);
        }
        // The member claims by `hello` a key it has also proven by `session_hello`, or the other
        // way round: two leases of one key.
        if self.peers.get_slot(holder)?.member != member {
            return None;
        }
        self.member(member)?.sessions.values().copied().find(is_it)
    }

    /// A claimed key that another member holds is refused (B3); a proven one wins later.
    fn key_taken(&self, hello: &Hello, (mesh, member): Found) -> Option<Refusal> {
        let holder = self.mesh(mesh)?.by_session_key.get(&hello.session_key?)?;
        let holder = self.peers.get_slot(*holder)?;
        let yields = match (hello.kind(), holder.kind) {
            (Kind::Launched, Kind::ThrowAway) => true,
            (Kind::Launched | Kind::ThrowAway | Kind::Member, _) => holder.member == member,
        };
        (!yields).then(|| {
            Refusal::new(
                "bad_session_pubkey",
                "sessionPubkey belongs to another member's session",
            )
        })
    }

    /// What a newcomer replaces: the same session id of the same member and kind under another
    /// key, and a foreign claim to the key it has proven.
    fn rivals(&self, hello: &Hello, (mesh, member): Found) -> Vec<u32> {
        let proven = hello.session_key.filter(|_| hello.kind() == Kind::Launched);
        let claimant = proven.and_then(|key| self.mesh(mesh)?.by_session_key.get(&key).copied());
        let claimant = claimant.filter(|slot| {
            self.peers
                .get_slot(*slot)
                .is_some_and(|peer| peer.member != member)
        });
        let same_id = self.holder_of_id(hello, (mesh, member));
        same_id.into_iter().chain(claimant).collect()
    }

    /// The session of that member and kind that goes by the session id of the hello.
    fn holder_of_id(&self, hello: &Hello, (mesh, member): Found) -> Option<u32> {
        let kind = hello.kind();
        let hash = self.identity_hash(member, kind, &hello.session_id);
        let holder = self.mesh(mesh)?.by_session_id.get(&hash).copied()?;
        let peer = self.peers.get_slot(holder)?;
        (peer.member == member && peer.kind == kind && *peer.session_id == *hello.session_id)
            .then_some(holder)
    }

    /// A new lease: row, answer, announcement, mail.
    fn begin(&mut self, t: &mut Turn<'_>, conn: ConnId, hello: &Hello, (mesh, member): Found) {
        let Some(owner) = self.member(member) else {
            return;
        };
        let saved = match hello.role {
            PeerRole::ControlPlane => owner.saved.clone(),
            PeerRole::Session => None,
        };
        let (groups, restored_groups) = choose_groups(hello, saved.as_deref(), owner);
        let name = hello
            .display_name
            .as_deref()
            .map_or_else(|| owner.name.clone(), Into::into);
        let order = self.next_order();
        let attached = self.next_order();
        let profile = saved
            .as_ref()
            .and_then(|row| serde_json::from_str(&row.profile).ok());
        let peer = PeerConn {
            presence_id: self.mint.presence_id().into(),
            mesh,
            member,
            kind: hello.kind(),
            session_id: hello.session_id.as_str().into(),
            session_key: hello.session_key,
            lease: Lease::Online(conn),
            lease_timer: None,
            order,
            attached,
            attaches: 1,
            name,
            cwd: hello.cwd.as_str().into(),
            about: Box::new(About {
                profile: profile.unwrap_or_default(),
                ..about(hello)
            }),
            status: Status::Idle,
            status_source: StatusSource::Jsonl,
            status_at: t.now.wall,
            working_timer: None,
            summary: None,
            groups,
            visible: saved.as_ref().is_none_or(|row| row.visible),
            connected_at: t.now.wall,
            last_seen: t.now.mono,
            last_ping: None,
            attested_until: hello.attested_until,
            boot_epochs: 0,
            watermark_timer: None,
            outbox: Outbox::default(),
            replies: Replies::default(),
            rivalry: None,
        };
        let kind = peer.kind;
        let handle = self.enter(t, peer);
        if let Some(member) = self.member_mut(member) {
            member.online_mut(kind).insert(attached, handle.slot);
        }
        self.attachments.set(conn, Attachment::Attached(handle));
        self.start_liveness(t.now.mono, handle);
        self.persist_presence(t, handle.slot);
        let welcome = Welcome::New {
            saved: saved.as_deref(),
            restored_groups,
        };
        self.acknowledge_hello(t, handle.slot, conn, hello.role, &welcome);
        self.announce_joined(t, handle.slot, saved.as_deref());
        // After the hello's answer, which comes first: becoming idle writes mail.
        self.take_pending_status(t, handle.slot);
        self.drain(t, handle.slot);
    }

    /// A reattach in grace, or a takeover: the same presence, told to nobody.
    pub(crate) fn reattach(&mut self, t: &mut Turn<'_>, slot: u32, conn: ConnId, hello: &Hello) {
        self.attach(t, slot, conn);
        let replaced = self.refresh(slot, hello);
        self.persist_presence(t, slot);
        self.acknowledge_hello(t, slot, conn, hello.role, &Welcome::Reattached);
        self.rewrite_unconfirmed(t, slot);
        self.drain(t, slot);
        self.replace(t, replaced);
    }

    /// Another session came back under this one's session id.
    fn replace(&mut self, t: &mut Turn<'_>, replaced: Option<u32>) {
        if let Some(slot) = replaced {
            self.evict(t, slot, LeaseEnd::Replaced, Some(Close::SESSION_REPLACED));
        }
    }

    /// What a reattach brings up to date (design.md §8.4). Gives the session whose session id it
    /// now bears, which it replaces.
    fn refresh(&mut self, slot: u32, hello: &Hello) -> Option<u32> {
        let peer = self.peers.get_slot(slot)?;
        let found = (peer.mesh, peer.member);
        let replaced = self.holder_of_id(hello, found).filter(|s| *s != slot);
        let peer = self.peers.get_slot_mut(slot)?;
        if let Some(name) = &hello.display_name {
            peer.name = name.as_str().into();
        }
        if let Some(groups) = hello.groups.as_ref().filter(|groups| !groups.is_empty()) {
            peer.groups.clone_from(groups);
        }
        let fresh = about(hello);
        peer.about.pid = fresh.pid;
        peer.about.hostname = fresh.hostname.or_else(|| peer.about.hostname.take());
        peer.about.peer_type = fresh.peer_type.or_else(|| peer.about.peer_type.take());
        peer.about.channel = fresh.channel.or_else(|| peer.about.channel.take());
        peer.about.model = fresh.model.or_else(|| peer.about.model.take());
        peer.attested_until = hello.attested_until.or(peer.attested_until);
        let (member, kind, order, mesh) = (peer.member, peer.kind, peer.order, peer.mesh);
        let old_cwd = std::rc::Rc::clone(&peer.cwd);
        let old_id = std::mem::replace(&mut peer.session_id, hello.session_id.as_str().into());
        if *old_cwd != *hello.cwd {
            self.cwds.leave(&old_cwd, order);
            let cwd = self.cwds.enter(&hello.cwd, order, slot);
            if let Some(peer) = self.peers.get_slot_mut(slot) {
                peer.cwd = cwd;
            }
        }
        if *old_id != *hello.session_id {
            let old = self.identity_hash(member, kind, &old_id);
            let new = self.identity_hash(member, kind, &hello.session_id);
            if let Some(mesh) = self.mesh_mut(mesh) {
                if mesh.by_session_id.get(&old) == Some(&slot) {
                    mesh.by_session_id.remove(&old);
                }
                mesh.by_session_id.insert(new, slot);
            }
        }
        replaced
    }

    /// Sends the error and closes.
    pub(crate) fn refuse(&mut self, t: &mut Turn<'_>, conn: ConnId, refusal: Refusal) {
        let Refusal {
            code,
            message,
            close,
            label,
        } = refusal;
        t.observe(Event::HelloRefused {
            conn,
            reason: label,
        });
        t.send(conn, frames::error(code, message, None));
        if let Some(Attachment::Greeting(timer)) = self.attachments.remove(conn) {
            self.wheel.cancel(timer);
        }
        self.close(t, conn, close);
    }

    /// `hello_ack`, the first frame of a session on its socket.
    fn acknowledge_hello(
        &self,
        t: &mut Turn<'_>,
        slot: u32,
        conn: ConnId,
        role: PeerRole,
        welcome: &Welcome<'_>,
    ) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (Some(mesh), Some(member)) = (self.mesh(peer.mesh), self.member(peer.member)) else {
            return;
        };
        let reattached = matches!(welcome, Welcome::Reattached);
        let is_hello = role == PeerRole::ControlPlane;
        let ack = frames::HelloAck {
            presence_id: &peer.presence_id,
            member_display_name: &peer.name,
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
            lease_ttl_ms: self.config.grace.0,
        };
        t.send(conn, frames::encode(&ack));
    }
}

/// What a hello found.
enum Welcome<'a> {
    /// Its own lease.
    Reattached,
    /// A new lease; perhaps with the member's saved state.
    New {
        saved: Option<&'a crate::rows::PeerStateRow>,
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
            Welcome::Reattached | Welcome::New { saved: None, .. } => None,
        }
    }
}

fn about(hello: &Hello) -> About {
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    About {
        pid: hello.pid,
        hostname: text(&hello.hostname),
        peer_type: text(&hello.peer_type),
        channel: text(&hello.channel),
        model: text(&hello.model),
        ..About::default()
    }
}

/// The groups of a new session (protocol.md §4, §5), and whether they are saved ones.
fn choose_groups(
    hello: &Hello,
    saved: Option<&crate::rows::PeerStateRow>,
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
