//! The texts that clients sign (protocol.md §1): fields joined by single `|`, integers decimal.
//!
//! Key fields are the text the client sent, not a parsed key: what was signed is what was written,
//! in whatever case. The fields are not escaped, so `|` in a mesh or member id makes the division
//! ambiguous; nothing may be concluded from a text but that its whole was signed.

use sha2::{Digest, Sha256};

use crate::time::Wall;

/// What a member key signs in `hello`.
#[derive(Clone, Copy, Debug)]
pub struct HelloText<'a> {
    /// The mesh, as sent.
    pub mesh_id: &'a str,
    /// The member id, as sent; it is signed but names nobody.
    pub member_id: &'a str,
    /// The member's key, as sent.
    pub pubkey: &'a str,
    /// When the client says it is.
    pub timestamp: Wall,
}

/// What a member key signs to vouch for a session key.
#[derive(Clone, Copy, Debug)]
pub struct AttestationText<'a> {
    /// The vouching member's key, as sent.
    pub parent_pubkey: &'a str,
    /// The session's key, as sent.
    pub session_pubkey: &'a str,
    /// Until when it holds.
    pub expires_at: Wall,
}

/// What a session key signs in `session_hello`.
#[derive(Clone, Copy, Debug)]
pub struct SessionHelloText<'a> {
    /// The mesh, as sent.
    pub mesh_id: &'a str,
    /// The vouching member's key, as sent.
    pub parent_pubkey: &'a str,
    /// The session's key, as sent.
    pub session_pubkey: &'a str,
    /// When the client says it is.
    pub timestamp: Wall,
}

/// What a mesh owner's key signs to invite.
#[derive(Clone, Copy, Debug)]
pub struct InviteText<'a> {
    /// The form of the invite.
    pub version: u32,
    /// The mesh, as sent.
    pub mesh_id: &'a str,
    /// Its short name, as sent.
    pub mesh_slug: &'a str,
    /// Where its broker is reached.
    pub broker_url: &'a str,
    /// Until when it holds, in Unix seconds.
    pub expires_at: i64,
    /// The key that all members share, as sent.
    pub mesh_root_key: &'a str,
    /// What the newcomer becomes: `member` or `admin`.
    pub role: &'a str,
    /// The inviting owner's key, as sent.
    pub owner_pubkey: &'a str,
}

/// What a member key signs to ask for something over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct RequestText<'a> {
    /// In upper case.
    pub method: &'a str,
    /// The path as written in the request line.
    pub target: &'a str,
    /// The body, empty if there is none; its SHA-256 is signed, in lower-case hex.
    pub body: &'a [u8],
    /// When the client says it is.
    pub timestamp: Wall,
}

impl RequestText<'_> {
    /// The text to sign.
    #[must_use]
    pub fn text(&self) -> String {
        joined([
            "holdfast-http",
            self.method,
            self.target,
            &hex::encode(digest(self.body)),
            &self.timestamp.0.to_string(),
        ])
    }
}

/// SHA-256. Secrets are compared by it, so that how long that takes tells nothing of them.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl HelloText<'_> {
    /// The text to sign; one allocation of its exact length.
    #[must_use]
    pub fn text(&self) -> String {
        joined([
            self.mesh_id,
            self.member_id,
            self.pubkey,
            &self.timestamp.0.to_string(),
        ])
    }
}

impl AttestationText<'_> {
    /// The text to sign; one allocation of its exact length.
    #[must_use]
    pub fn text(&self) -> String {
        joined([
            "claudemesh-session-attest",
            self.parent_pubkey,
            self.session_pubkey,
            &self.expires_at.0.to_string(),
        ])
    }
}

impl SessionHelloText<'_> {
    /// The text to sign; one allocation of its exact length.
    #[must_use]
    pub fn text(&self) -> String {
        joined([
            "claudemesh-session-hello",
            self.mesh_id,
            self.parent_pubkey,
            self.session_pubkey,
            &self.timestamp.0.to_string(),
        ])
    }
}

impl InviteText<'_> {
    /// The text to sign; one allocation of its exact length.
    #[must_use]
    pub fn text(&self) -> String {
        joined([
            &self.version.to_string(),
            self.mesh_id,
            self.mesh_slug,
            self.broker_url,
            &self.expires_at.to_string(),
            self.mesh_root_key,
            self.role,
            self.owner_pubkey,
        ])
    }
}

fn joined<const N: usize>(fields: [&str; N]) -> String {
    fields.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{KeyPair, Signature, verify};

    // protocol.md §28.
    const HELLO: &str = "64a95120fe38ac3efc75fe1d08ef7b83dc4c0a3ec00825ea59a442576786edf5\
                         73b76ca5ea38aaf86cfe5fe2e440eef7cbe3dd48d5c65fc4775f1c34f74e3604";
    const ATTESTATION: &str = "d6237c82ab2a8bebc9d2e7ba83f8e89e629888b7cc12406a0f3dd10c4bd83699\
                               338b032262f85cb1e4aea3c367726ec89c1e0f2541e37775bedb50fd6a3a8409";
    const SESSION_HELLO: &str = "a4ef62b8858e6cdb1bf42843ba50da3687abaa6140767e7ae93085d1ac8ca06f\
                                 1b16bfd621dc15f59b77e3556a6b57876f73034bef7560f7d716a45f35ed8700";
    const INVITE: &str = "beaae7980159eec9dff3133a40151c57f27b1e0eea69ab5d68ff6a4039b68739\
                          63387dc12491090410c69411bfdecbb70b91d25cce88b94733b6a7988b98c206";
    const SIGNED_AT: Wall = Wall(1_700_000_000_000);

    fn check(signer: &KeyPair, text: &str, vector: &str) {
        let signature = Signature::parse(vector).unwrap();
        assert_eq!(signer.sign(text.as_bytes()), signature, "{text}");
        assert!(verify(&signer.public(), text.as_bytes(), &signature));
    }

    #[test]
    fn the_vectors_of_the_protocol_hold() {
        let (member, session) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]));
        let (pubkey, session_pubkey) = (member.public().to_string(), session.public().to_string());
        let hello = HelloText {
            mesh_id: "mesh1",
            member_id: "mem1",
            pubkey: &pubkey,
            timestamp: SIGNED_AT,
        };
        assert_eq!(hello.text(), format!("mesh1|mem1|{pubkey}|1700000000000"));
        check(&member, &hello.text(), HELLO);

        let attestation = AttestationText {
            parent_pubkey: &pubkey,
            session_pubkey: &session_pubkey,
            expires_at: Wall(1_700_043_200_000),
        };
        check(&member, &attestation.text(), ATTESTATION);

        let session_hello = SessionHelloText {
            mesh_id: "mesh1",
            parent_pubkey: &pubkey,
            session_pubkey: &session_pubkey,
            timestamp: SIGNED_AT,
        };
        check(&session, &session_hello.text(), SESSION_HELLO);
    }

    #[test]
    fn the_invite_vector_holds_too() {
        let owner = KeyPair::from_seed([1; 32]);
        let text = format!(
            "1|mesh1|slug1|ws://127.0.0.1:7900/ws|1700003600|cm9vdA|member|{}",
            owner.public()
        );
        check(&owner, &text, INVITE);
    }

    #[test]
    fn a_request_is_signed_with_its_body() {
        let text = RequestText {
            method: "PATCH",
            target: "/mesh/m/settings",
            body: b"",
            timestamp: SIGNED_AT,
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let expected = format!("holdfast-http|PATCH|/mesh/m/settings|{empty}|1700000000000");
        assert_eq!(text.text(), expected);
    }

    #[test]
    fn texts_are_allocated_once() {
        let text = HelloText {
            mesh_id: "m",
            member_id: "",
            pubkey: "k",
            timestamp: Wall(-1),
        };
        let text = text.text();
        assert_eq!((text.as_str(), text.capacity()), ("m||k|-1", 7));
    }
}
