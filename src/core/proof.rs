//! What a hello rests on: its signatures, or a resume token that stands for them.

use crate::event::Event;
use crate::hello::{Hello, Refusal};
use crate::identity::{Attached, Identity, ResumeKey, Signature, Unfit, verify};
use crate::ids::{Position, PubKey};
use crate::limits::RESUME_LIFE;
use crate::marks::{Mark, mark};
use crate::peer::PeerConn;
use crate::shard::{Shard, Turn};
use crate::time::Wall;

/// A signature that has not been checked, and what is said if it does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) key: PubKey,
    pub(crate) text: String,
    pub(crate) signature: Signature,
    pub(crate) refusal: Refusal,
}

impl Claimed {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if verify(&self.key, self.text.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(self.refusal.clone())
        }
    }
}

/// How far a hello is proven.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// Its signatures hold.
    Signed,
    /// A token stands for them, if the session is still there and has not used it.
    Token {
        attached: Attached,
        claims: Vec<Claimed>,
    },
}

/// The signatures of a hello, in the order in which they are checked.
#[derive(Debug)]
pub(crate) struct Prover {
    token: Option<String>,
    claims: Vec<Claimed>,
}

impl Prover {
    /// With the token of a hello, if it brought one.
    pub(crate) fn new(token: Option<String>) -> Self {
        Self {
            token,
            claims: Vec::new(),
        }
    }

    /// Checks a signature, or puts it off until it is known what the token is worth.
    pub(crate) fn claim(&mut self, claimed: Claimed) -> Result<(), Refusal> {
        if self.token.is_none() {
            return claimed.check();
        }
        self.claims.push(claimed);
        Ok(())
    }

    /// What a hello that is complete rests on; the second says why a token did not serve.
    pub(crate) fn settle(
        self,
        hello: &Hello,
        key: Option<&ResumeKey>,
        now: Wall,
    ) -> Result<(Proof, Option<Unfit>), Refusal> {
        let Some(token) = self.token else {
            return Ok((Proof::Signed, None));
        };
        let checked = key.map_or(Err(Unfit::Forged), |key| {
            key.check(&hello.identity(), &token, now)
        });
        match checked {
            Ok(attached) => {
                let claims = self.claims;
                Ok((Proof::Token { attached, claims }, None))
            }
            Err(unfit) => {
                self.claims.iter().try_for_each(Claimed::check)?;
                Ok((Proof::Signed, Some(unfit)))
            }
        }
    }
}

impl Hello {
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
        if let Some(unfit) = hello.unfit.take() {
            mark(Mark::TokenUnfit);
            let result = match unfit {
                Unfit::Malformed => "malformed",
                Unfit::Forged => "forged",
                Unfit::Expired => "expired",
            };
            t.observe(Event::Resumed { result });
        }
        let proof = std::mem::replace(&mut hello.proof, Proof::Signed);
        let Proof::Token { attached, claims } = proof else {
            return Ok(());
        };
        let peer = slot.and_then(|slot| self.peers.get_slot_mut(slot));
        let result = match peer.filter(|peer| peer.order == attached.began.0) {
            Some(peer) if attached.generation >= peer.attaches => {
                // A crash may have lost the row of the attachment it was issued for.
                peer.attaches = attached.generation;
                // Of the attestation that came along nothing was checked.
                hello.attested_until = None;
                mark(Mark::Resumed);
                t.observe(Event::Resumed { result: "accepted" });
                return Ok(());
            }
            Some(_) => "used",
            None => "gone",
        };
        mark(Mark::TokenUsed);
        t.observe(Event::Resumed { result });
        claims.iter().try_for_each(Claimed::check)
    }

    /// The token with which a session may come back to its lease.
    pub(crate) fn resume_token(&self, now: Wall, peer: &PeerConn) -> Option<String> {
        let (mesh, member) = (self.mesh(peer.mesh)?, self.member(peer.member)?);
        let identity = Identity {
            mesh_id: &mesh.id,
            member_key: &member.key,
            kind: peer.kind as u8,
            session_key: peer.session_key.as_ref(),
            session_id: peer.card.session_id(),
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
