//! Key pairs and signatures in the forms the wire and libsodium give them.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};

use crate::ids::PubKey;

/// A detached ed25519 signature. Written as 128 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Parses 128 hex digits of either case (protocol.md §1). Says nothing of its validity.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 128];
        // Infallible: 64 bytes are exactly 128 digits.
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl serde::Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An ed25519 key pair. The secret is wiped from memory on drop and never shown by `Debug`.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// The pair that belongs to a seed (RFC 8032 private key). The seed must come from a
    /// cryptographic random source; equal seeds make equal pairs.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Parses what [`KeyPair::to_libsodium_hex`] writes, in either case. `None` if it is not 128
    /// hex digits or the public half does not belong to the seed.
    #[must_use]
    pub fn from_libsodium_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        SigningKey::from_keypair_bytes(&bytes).ok().map(Self)
    }

    /// The secret key as libsodium stores it: seed, then public key, 128 lower-case hex digits.
    #[must_use]
    pub fn to_libsodium_hex(&self) -> String {
        hex::encode(self.0.to_keypair_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PubKey {
        PubKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` (deterministic, RFC 8032).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, secret hidden)", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const SESSION: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

    #[test]
    fn seeds_give_the_public_keys_of_the_vectors() {
        assert_eq!(KeyPair::from_seed([1; 32]).public().to_string(), MEMBER);
        assert_eq!(KeyPair::from_seed([2; 32]).public().to_string(), SESSION);
    }

    #[test]
    fn libsodium_form_is_seed_then_public() {
        let pair = KeyPair::from_seed([1; 32]);
        let text = pair.to_libsodium_hex();
        assert_eq!(text, format!("{}{MEMBER}", "01".repeat(32)));
        for form in [text.clone(), text.to_uppercase()] {
            assert_eq!(
                KeyPair::from_libsodium_hex(&form).unwrap().public(),
                pair.public()
            );
        }
        let mixed = format!("{}{SESSION}", "01".repeat(32));
        assert!(
            KeyPair::from_libsodium_hex(&mixed).is_none(),
            "halves of two pairs"
        );
        assert!(KeyPair::from_libsodium_hex(&text[2..]).is_none());
        assert!(KeyPair::from_libsodium_hex("").is_none());
    }

    #[test]
    fn signatures_are_128_hex_digits_of_either_case() {
        let signature = KeyPair::from_seed([1; 32]).sign(b"text");
        let text = signature.to_string();
        assert_eq!(text.len(), 128);
        assert_eq!(Signature::parse(&text), Some(signature));
        assert_eq!(Signature::parse(&text.to_uppercase()), Some(signature));
        assert_eq!(Signature::parse(&text[1..]), None);
        assert_eq!(Signature::parse(&format!("{text}00")), None);
        assert_eq!(Signature::parse(&format!("{}g", &text[1..])), None);
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", KeyPair::from_seed([7; 32])).contains("0707"));
    }
}
