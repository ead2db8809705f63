//! Whether a signature holds.
//!
//! The rule is that of `verify_strict`: a key or an `R` of small order, an `s` or an `R` that is
//! not in its one canonical form, and any signature that misses the equation without cofactor, are
//! all refused.
//!
//! Signatures are checked one by one, however many come together. A batch checks a random linear
//! combination of their equations, and that cannot be held to this rule: a signer may add a point
//! of order 2, 4 or 8 to its key or `R`, and what such signatures miss by can cancel out, so that
//! the batch accepts what the strict check refuses, or not, depending on what came with it. To tell
//! them apart every `R` would have to be multiplied by the order of the large subgroup, which takes
//! longer than the batch saves.

use ed25519_dalek::{Signature as DalekSignature, Verifier, VerifyingKey};

use crate::identity::Signature;
use crate::ids::PubKey;

/// Whether a key is one that can sign: a point of the curve that is not of small order.
#[must_use]
pub fn is_usable(key: &PubKey) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| !key.is_weak())
}

/// Whether `signature` is one of `message` by `key`, by the strict rule.
///
/// `R` is not decompressed for that, which saves an eighth: the plain check compares it, as bytes,
/// with the canonical form of what it should be, so that all that is left is to refuse the eight
/// canonical forms of small order.
#[must_use]
pub fn verify(key: &PubKey, message: &[u8], signature: &Signature) -> bool {
    let signature = DalekSignature::from_bytes(&signature.0);
    !is_small_order(signature.r_bytes())
        && VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| !key.is_weak() && key.verify(message, &signature).is_ok())
}

/// The y coordinates of the eight points of small order, little-endian: those of order 4, 1, 2,
/// and twice 8.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00,
    ],
    [
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
];

/// Whether `r` is a point of small order, if it is in canonical form.
fn is_small_order(r: &[u8; 32]) -> bool {
    let mut y = *r;
    // The top bit is the sign of x.
    y[31] &= 0x7f;
    SMALL_ORDER_Y.contains(&y)
}

#[cfg(test)]
mod tests;
