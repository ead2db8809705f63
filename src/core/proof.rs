//! What a hello rests on: its signatures, or what stands for them. A signature takes longer than all
//! else about a hello, so each is checked last, where it is known whether it must be.

use crate::event::Event;
use crate::hello::{Hello, Refusal};
use crate::identity::{Attached, Identity, ResumeKey, Signature, Unfit, verify};
use crate::ids::{Position, PubKey};
use crate::limits::RESUME_LIFE;
use crate::marks::{Mark, mark};
use crate::peer::PeerConn;
use crate::rows::PeerRole;
use crate::shard::{Shard, Turn};
use crate::time::Wall;

/// A signature that has not been checked.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) key: PubKey,
    pub(crate) text: String,
    pub(crate) signature: Signature,
}

impl Claimed {
    fn holds(&self) -> bool {
        verify(&self.key, self.text.as_bytes(), &self.signature)
    }
}

/// What a hello has yet to prove.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    /// A token that stands for all signatures, if the session is still there and has not used it.
    pub(crate) token: Option<Attached>,
    /// That the member vouches for the session key. It comes before the hello's own.
    pub(crate) attestation: Option<Claimed>,
    /// That who says hello has the key.
    pub(crate) own: Option<Claimed>,
}

impl Proof {
    fn check_attestation(&self) -> Result<(), Refusal> {
        let holds = self.attestation.as_ref().is_none_or(Claimed::holds);
        holds.then_some(()).ok_or_else(Refusal::bad_attestation)
    }

    fn check_own(&self, role: PeerRole) -> Result<(), Refusal> {
        let holds = self.own.as_ref().is_none_or(Claimed::holds);
        holds
            .then_some(())
            .ok_or_else(|| Refusal::bad_signature(role))
    }

    fn check(&self, role: PeerRole) -> Result<(), Refusal> {
        self.check_attestation()?;
        self.check_own(role)
    }

    /// Of a hello that is refused for something else: its signatures come first, unless it brought
    /// a token.
    pub(crate) fn or_first(&self, role: PeerRole, token: bool, refusal: Refusal) -> Refusal {
        let checked = if token { Ok(()) } else { self.check(role) };
        checked.err().unwrap_or(refusal)
    }
}

impl Hello {
    /// Checks the signatures that nothing stands for.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn verify(&self) -> Result<(), Refusal> {
        self.proof.check(self.role)
    }

    /// With what it has to prove; the token may stand for that.
    pub(crate) fn resting_on(
        mut self,
        proof: Proof,
        token: Option<&str>,
        key: Option<&ResumeKey>,
        now: Wall,
    ) -> Self {
        self.proof = proof;
        let checked = token.map(|token| {
            let key = key.ok_or(Unfit::Forged)?;
            key.check(&self.identity(), token, now)
        });
        match checked {
            Some(Ok(attached)) => self.proof.token = Some(attached),
            Some(Err(unfit)) => self.unfit = Some(unfit),
            None => {}
        }
        self
    }

    /// Checks, before it goes to its mesh's home, what that does not know better. Whether the
    /// attestation has been checked before is known there.
    pub(crate) fn check_on_the_way(&mut self) -> Result<(), Refusal> {
        if self.proof.token.is_some() {
            return Ok(());
        }
        if let Err(refusal) = self.proof.check_own(self.role) {
            return Err(self.proof.check_attestation().err().unwrap_or(refusal));
        }
        self.proof.own = None;
        Ok(())
    }

    /// Of a hello that is refused for something that comes after its signatures: what it is told.
    pub(crate) fn refused_for(&self, refusal: Refusal) -> Refusal {
        let token = self.proof.token.is_some();
        self.proof.or_first(self.role, token, refusal)
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            mesh_id: &self.mesh_id,
            member_key: &self.member_key,
            kind: self.kind() as u8,
            session_key: self.session_key.as_ref(),
            session_id: &self.session_id,
        }
    }
}

impl Shard {
    /// Whether a hello is who it says, at its mesh's home, where `slot` is the session it asks
    /// for, if it is present. A token that was used, or whose session is gone, leaves the
    /// signatures to decide.
    pub(crate) fn prove(
        &mut self,
        t: &mut Turn<'_>,
        hello: &mut Hello,
        slot: Option<u32>,
    ) -> Result<(), Refusal> {
        let mut proof = std::mem::take(&mut hello.proof);
        if let Some(attached) = proof.token.take()
            && self.resume(t, hello, attached, slot)
        {
            return Ok(());
        }
        if slot.is_some_and(|slot| self.is_attested(slot, hello)) {
            mark(Mark::Attested);
            proof.attestation = None;
        }
        proof.check(hello.role)?;
        if let Some(unfit) = hello.unfit.take() {
            mark(Mark::TokenUnfit);
            let result = match unfit {
                Unfit::Malformed => "malformed",
                Unfit::Forged => "forged",
                Unfit::Expired => "expired",
            };
            t.observe(Event::Resumed { result });
        }
        Ok(())
    }

    /// Whether the token of a hello serves, which uses it up.
    fn resume(
        &mut self,
        t: &mut Turn<'_>,
        hello: &mut Hello,
        attached: Attached,
        slot: Option<u32>,
    ) -> bool {
        let peer = slot.and_then(|slot| self.peers.get_slot_mut(slot));
        let result = match peer.filter(|peer| peer.order == attached.began.0) {
            Some(peer) if attached.generation >= peer.attaches => {
                // A crash may have lost the row of the attachment it was issued for.
                peer.attaches = attached.generation;
                // Of the attestation that came along nothing was checked.
                hello.attested_until = None;
                mark(Mark::Resumed);
                t.observe(Event::Resumed { result: "accepted" });
                return true;
            }
            Some(_) => "used",
            None => "gone",
        };
        mark(Mark::TokenUsed);
        t.observe(Event::Resumed { result });
        false
    }

    /// Whether an earlier hello of that session has proven what the attestation of this one says:
    /// the same two keys and the same end, so whatever its signature is, the member has signed it.
    fn is_attested(&self, slot: u32, hello: &Hello) -> bool {
        let proven = || {
            let peer = self.peers.get_slot(slot)?;
            let member = self.member(peer.member)?;
            let until = peer.attested_until.end()?;
            Some((member.key, peer.session_key, Some(until)))
        };
        proven() == Some((hello.member_key, hello.session_key, hello.attested_until))
    }

    /// The token with which a session may come back to its lease.
    pub(crate) fn resume_token(&self, now: Wall, peer: &PeerConn) -> Option<String> {
        let (mesh, member) = (self.mesh(peer.mesh)?, self.member(peer.member)?);
        let session_id = peer.card.session_id();
        let identity = Identity {
            mesh_id: &mesh.id,
            member_key: &member.key,
            kind: peer.kind as u8,
            session_key: peer.session_key.as_ref(),
            session_id: &session_id,
        };
        let life = now.after(RESUME_LIFE);
        let expires = peer
            .attested_until
            .end()
            .map_or(life, |until| until.min(life));
        let key = self.resume_key.as_ref()?;
        let attached = Attached {
            began: Position(peer.order),
            generation: peer.attaches,
        };
        Some(key.issue(&identity, attached, expires))
    }
}
