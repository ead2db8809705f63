//! Whether signatures hold, one at a time or many together.
//!
//! The rule is that of `verify_strict`: a key or an `R` of small order, an `s` or an `R` that is
//! not in its one canonical form, and any signature that misses the equation without cofactor, are
//! all refused.
//!
//! Batches check a random linear combination of the same equations and so differ in one point:
//! where a *mixed-order* key or `R` (a proper one plus a point of order 2, 4 or 8) misses the
//! equation by a point of small order only, the strict check refuses and a batch may accept. Only
//! the holder of the secret key can make such a signature, no one else can turn a good one into
//! it, and keys are compared as bytes: the holder proves nothing but what it could prove with an
//! ordinary signature. What strict refuses for other reasons is refused before the batch is
//! formed, and what a batch refuses is put to the strict check, which decides.
//!
//! The coefficients come from a hash over all keys, messages and signatures of the batch (dalek's
//! transcript, without outside randomness): equal input, equal outcome, and nobody can choose a
//! signature with the coefficient already known.

use ed25519_dalek::{Signature as DalekSignature, VerifyingKey, verify_batch};

use crate::identity::Signature;
use crate::ids::PubKey;

/// The fewest signatures worth a batch: four save a third of the work. Fewer come singly when there
/// is no hurry, and then the strict rule holds to the letter.
pub const BATCH_MIN: usize = 4;

/// The most signatures in one batch: more would gain little, and each bad signature sends its
/// whole batch to single checks.
pub const BATCH_MAX: usize = 64;

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// Who is said to have signed.
    pub key: PubKey,
    /// What is said to have been signed.
    pub message: &'a [u8],
    /// The signature.
    pub signature: Signature,
}

/// Whether `signature` is one of `message` by `key`, by the strict rule.
#[must_use]
pub fn verify(key: &PubKey, message: &[u8], signature: &Signature) -> bool {
    let signature = DalekSignature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// Whether each of `items` holds, in their order. Against [`verify`] on each: a bit over
/// half the time when there are many and all are good, half as long again when every batch has a
/// bad one.
#[must_use]
pub fn verify_all(items: &[Check<'_>]) -> Vec<bool> {
    let mut verdicts = Vec::with_capacity(items.len());
    for chunk in items.chunks(BATCH_MAX) {
        let batch: Vec<Option<Candidate<'_>>> = chunk.iter().map(Candidate::new).collect();
        let together = hold_together(batch.iter().flatten());
        verdicts.extend(batch.iter().map(|candidate| {
            candidate
                .as_ref()
                .is_some_and(|candidate| together || candidate.holds())
        }));
    }
    verdicts
}

/// A check that the strict rule does not refuse at sight.
struct Candidate<'a> {
    key: VerifyingKey,
    message: &'a [u8],
    signature: DalekSignature,
}

impl<'a> Candidate<'a> {
    fn new(check: &Check<'a>) -> Option<Self> {
        let key = VerifyingKey::from_bytes(&check.key.0)
            .ok()
            .filter(|key| !key.is_weak())?;
        let signature = DalekSignature::from_bytes(&check.signature.0);
        is_sound_r(signature.r_bytes()).then_some(Self {
            key,
            message: check.message,
            signature,
        })
    }

    fn holds(&self) -> bool {
        self.key
            .verify_strict(self.message, &self.signature)
            .is_ok()
    }
}

/// Whether there are enough candidates for a batch and it holds as a whole.
fn hold_together<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>> + Clone) -> bool {
    if candidates.clone().count() < BATCH_MIN {
        return false;
    }
    let messages: Vec<&[u8]> = candidates.clone().map(|it| it.message).collect();
    let signatures: Vec<DalekSignature> = candidates.clone().map(|it| it.signature).collect();
    let keys: Vec<VerifyingKey> = candidates.map(|it| it.key).collect();
    verify_batch(&messages, &signatures, &keys).is_ok()
}

/// The y coordinates of the eight points of small order, little-endian: those of order 4, 1, 2,
/// and twice 8. (Looked up because decompressing `R` once more would cost an eighth of a check.)
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

/// Whether `r` is in canonical form and not of small order. It may still be no point at all.
fn is_sound_r(r: &[u8; 32]) -> bool {
    let mut y = *r;
    // The top bit is the sign of x.
    y[31] &= 0x7f;
    is_reduced(&y) && !SMALL_ORDER_Y.contains(&y)
}

/// Whether y is below the field's prime, 2^255 - 19. (The other non-canonical form, a sign bit on
/// x = 0, occurs at two points only, both of small order.)
fn is_reduced(y: &[u8; 32]) -> bool {
    y[0] < 0xed || y[31] != 0x7f || y[1..31].iter().any(|&byte| byte != 0xff)
}

#[cfg(test)]
mod tests;
