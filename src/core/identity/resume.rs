//! Resume tokens: what lets a session that comes back skip its signatures (design.md §7).
//!
//! A token is stateless: lease, generation, expiry, and a keyed hash (BLAKE3) over these and the
//! identity they are for. It says that the signatures of that identity held when that generation
//! of that lease was attached; everything else about the session is looked up as always. It serves
//! once, since each attach raises the generation below which tokens count as used.

use crate::ids::{Position, PubKey};
use crate::time::Wall;

/// The key all tokens of one database are made with. Kept in it, so that tokens outlive the
/// process.
#[derive(Clone, Copy)]
pub struct ResumeKey(pub [u8; 32]);

impl std::fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeKey(..)")
    }
}

/// The identity a token is for.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The mesh.
    pub mesh_id: &'a str,
    /// The member's key.
    pub member_key: &'a PubKey,
    /// Which kind of session.
    pub kind: u8,
    /// The session key …
    pub session_key: Option<&'a PubKey>,
    /// … or, if it has none, the session id.
    pub session_id: &'a str,
}

/// Why a token does not serve. What the client is told does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no token.
    Malformed,
    /// Not made with this key for this identity.
    Forged,
    /// It was once good.
    Expired,
}

/// An attachment: of which lease, by where it began, and the how manyeth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where the lease began.
    pub began: Position,
    /// Which attachment of it.
    pub generation: u32,
}

/// Lease (8 bytes), generation (4), expiry (8), hash (32), big endian, as lower-case hex.
const TOKEN_BYTES: usize = 8 + 4 + 8 + 32;

impl ResumeKey {
    /// A token for that attachment.
    #[must_use]
    pub fn issue(&self, identity: &Identity<'_>, attached: Attached, expires: Wall) -> String {
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.extend(attached.began.0.to_be_bytes());
        token.extend(attached.generation.to_be_bytes());
        token.extend(expires.0.to_be_bytes());
        let hash = self.hash(identity, &token);
        token.extend(hash.as_bytes());
        hex::encode(token)
    }

    /// The attachment a token was issued for, if it is one for that identity.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn check(
        &self,
        identity: &Identity<'_>,
        token: &str,
        now: Wall,
    ) -> Result<Attached, Unfit> {
        let mut bytes = [0; TOKEN_BYTES];
        hex::decode_to_slice(token, &mut bytes).map_err(|_| Unfit::Malformed)?;
        let (said, hash) = bytes.split_at(TOKEN_BYTES - 32);
        let hash: [u8; 32] = hash.try_into().map_err(|_| Unfit::Malformed)?;
        // The comparison of BLAKE3 hashes takes the same time wherever they differ.
        if self.hash(identity, said) != blake3::Hash::from_bytes(hash) {
            return Err(Unfit::Forged);
        }
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (began, rest) = said.split_at(8);
        let (generation, expires) = rest.split_at(4);
        if Wall(number(expires).cast_signed()) <= now {
            return Err(Unfit::Expired);
        }
        Ok(Attached {
            began: Position(number(began)),
            generation: u32::try_from(number(generation)).map_err(|_| Unfit::Malformed)?,
        })
    }

    fn hash(&self, identity: &Identity<'_>, said: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let name: &[u8] = identity
            .session_key
            .map_or(identity.session_id.as_bytes(), |key| &key.0);
        // What has no fixed length comes last or says its length.
        hasher.update(said);
        hasher.update(&identity.member_key.0);
        hasher.update(&[identity.kind]);
        hasher.update(&(identity.mesh_id.len() as u64).to_be_bytes());
        hasher.update(identity.mesh_id.as_bytes());
        hasher.update(name);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ResumeKey = ResumeKey([7; 32]);
    const MEMBER: PubKey = PubKey([1; 32]);
    const SESSION: PubKey = PubKey([2; 32]);

    fn identity(mesh_id: &'static str) -> Identity<'static> {
        Identity {
            mesh_id,
            member_key: &MEMBER,
            kind: 0,
            session_key: Some(&SESSION),
            session_id: "s",
        }
    }

    const ATTACHED: Attached = Attached {
        began: Position(1 << 40),
        generation: 5,
    };

    #[test]
    fn a_token_says_its_generation_to_its_own_identity_only() {
        let token = KEY.issue(&identity("m"), ATTACHED, Wall(100));
        let check = |identity: &Identity<'_>, now| KEY.check(identity, &token, Wall(now));
        assert_eq!(check(&identity("m"), 99), Ok(ATTACHED));
        assert_eq!(check(&identity("m"), 100), Err(Unfit::Expired));
        let others = [
            identity("n"),
            Identity {
                kind: 1,
                ..identity("m")
            },
            Identity {
                member_key: &SESSION,
                ..identity("m")
            },
            Identity {
                session_key: Some(&MEMBER),
                ..identity("m")
            },
            Identity {
                session_key: None,
                ..identity("m")
            },
        ];
        for other in others {
            assert_eq!(check(&other, 99), Err(Unfit::Forged), "{other:?}");
        }
        let key = ResumeKey([8; 32]);
        assert_eq!(
            key.check(&identity("m"), &token, Wall(1)),
            Err(Unfit::Forged)
        );
        assert_eq!(format!("{key:?}"), "ResumeKey(..)");
    }

    #[test]
    fn no_changed_digit_goes_unnoticed() {
        let token = KEY.issue(&identity("m"), ATTACHED, Wall(100));
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(
                KEY.check(&identity("m"), &other, Wall(1)),
                Err(Unfit::Forged)
            );
        }
        for cut in [0, 1, 40, token.len() - 1] {
            let cut = KEY.check(&identity("m"), &token[..cut], Wall(1));
            assert_eq!(cut, Err(Unfit::Malformed));
        }
        assert_eq!(
            KEY.check(&identity("m"), &"x".repeat(104), Wall(1)),
            Err(Unfit::Malformed)
        );
    }
}
