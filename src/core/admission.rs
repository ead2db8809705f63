//! Who may enter: from a hello to a new session, a reattach, or a refusal.

use crate::attachment::Attachment;
use crate::chain::List;
use crate::effect::{Close, Effect};
use crate::event::{Event, LeaseEnd};
use crate::hello::{Hello, Refusal};
use crate::ids::{ConnId, PubKey, home_of};
use crate::marks::{Mark, mark};
use crate::peer::{Kind, MemberIx, MeshIx};
use crate::rows::PeerRole;
use crate::shard::{Shard, Turn};
use crate::welcome::{Found, Welcome};
use crate::wire::{Fields, frames};

impl Hello {
    /// How the session it asks for is recognised.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.role, self.session_key.is_some())
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
            "hello" => Hello::member(fields, t.now.wall, self.resume_key.as_ref()),
            "session_hello" => Hello::session(fields, t.now.wall, self.resume_key.as_ref()),
            _ => {
                t.send(
                    conn,
                    frames::error("no_hello", "must send hello first", None),
                );
                return;
            }
        };
        let mut hello = match hello {
            Ok(hello) => Box::new(hello),
            Err(refusal) => return self.refuse(t, conn, refusal),
        };
        if let Some(Attachment::Greeting(timer)) = self.attachments.remove(conn) {
            self.wheel.cancel(timer);
        }
        let home = home_of(&hello.mesh_id, self.place.count);
        if home == self.place.index {
            return self.admit(t, conn, hello);
        }
        if let Err(refusal) = hello.check_on_the_way() {
            return self.refuse(t, conn, refusal);
        }
        mark(Mark::HandedOff);
        t.fx.push(Effect::Handoff {
            conn,
            shard: home,
            hello,
        });
    }

    /// A hello on a socket that is attached already: to itself, or `already_joined`
    /// (design.md §8.11).
    pub(crate) fn greet_again(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        hello: Result<Hello, Refusal>,
    ) {
        let checked = hello.and_then(|hello| hello.verify().map(|()| hello));
        let hello = match checked {
            Ok(hello) => hello,
            Err(refusal) => {
                let frame = frames::error(refusal.code, refusal.message, None);
                return self.reply(t, slot, frame);
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
            mark(Mark::AlreadyJoined);
            let message = "this connection has joined already";
            let frame = frames::error("already_joined", message, None);
            return self.reply(t, slot, frame);
        }
        mark(Mark::HelloAgain);
        let replaced = self.refresh(slot, &hello);
        let welcome = Welcome::Reattached { missed: false };
        if let Some(ack) = self.hello_ack(t.now.wall, slot, hello.role, &welcome) {
            self.reply(t, slot, ack);
        }
        self.persist_presence(t, slot);
        self.replace(t, replaced);
    }

    /// A hello at its mesh's home.
    pub(crate) fn admit(&mut self, t: &mut Turn<'_>, conn: ConnId, mut hello: Box<Hello>) {
        let (mesh, member) = match self.find(&hello) {
            Ok(found) => found,
            Err(refusal) => return self.refuse(t, conn, hello.refused_for(refusal)),
        };
        let (kind, key) = (hello.kind(), hello.session_key);
        let present = self.present(mesh, member, kind, key, &hello.session_id);
        if let Err(refusal) = self.prove(t, &mut hello, present) {
            return self.refuse(t, conn, refusal);
        }
        if !self.replay.accept(t.now.mono, &hello.signature) {
            mark(Mark::Replayed);
            return self.refuse(
                t,
                conn,
                Refusal::new("replayed", "hello rejected: replayed"),
            );
        }
        match present {
            Some(slot) => self.reattach_or_contend(t, slot, conn, hello),
            None => self.admit_newcomer(t, conn, &hello, (mesh, member)),
        }
    }

    fn admit_newcomer(&mut self, t: &mut Turn<'_>, conn: ConnId, hello: &Hello, found: Found) {
        let (mesh, member) = found;
        if let Some(refusal) = self.key_taken(hello, found) {
            mark(Mark::KeyTaken);
            return self.refuse(t, conn, refusal);
        }
        let rivals = self.rivals(hello, found);
        let present = self.mesh(mesh).map_or(0, |m| m.roster.len());
        if present.saturating_sub(rivals.len()) >= self.config.max_sessions_per_mesh as usize {
            mark(Mark::Capacity);
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
            mark(Mark::Revoked);
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
                    && (key.is_some() || *peer.card.session_id() == *session_id)
            })
        };
        let Some(key) = key else {
            let holder = self.id_holder(mesh, (member, kind, session_id));
            return holder.filter(is_it);
        };
        let holder = self.key_holder(mesh, &key)?;
        if is_it(&holder) {
            return Some(holder);
        }
        // The member claims by `hello` a key it has also proven by `session_hello`, or the other
        // way round: two leases of one key.
        if self.peers.get_slot(holder)?.member != member {
            return None;
        }
        let sessions = self.member(member)?.sessions;
        sessions.iter(&self.peers, List::Member).find(is_it)
    }

    /// A claimed key that another member holds is refused (B3); a proven one wins later.
    fn key_taken(&self, hello: &Hello, (mesh, member): Found) -> Option<Refusal> {
        let holder = self.key_holder(mesh, &hello.session_key?)?;
        let holder = self.peers.get_slot(holder)?;
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
        let claimant = proven.and_then(|key| self.key_holder(mesh, &key));
        let claimant = claimant.filter(|slot| {
            self.peers
                .get_slot(*slot)
                .is_some_and(|peer| peer.member != member)
        });
        let same_id = self.holder_of_id(hello, (mesh, member));
        if claimant.is_some() {
            mark(Mark::ClaimEvicted);
        }
        if same_id.is_some() {
            mark(Mark::DedupEvicted);
        }
        same_id.into_iter().chain(claimant).collect()
    }

    /// The session of that member and kind that goes by the session id of the hello.
    pub(crate) fn holder_of_id(&self, hello: &Hello, (mesh, member): Found) -> Option<u32> {
        self.id_holder(mesh, (member, hello.kind(), &hello.session_id))
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
}
