//! Verdicts on good, damaged and crafted signatures, beside those of `verify_strict`.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::*;
use crate::identity::KeyPair;

/// One signature to check.
#[derive(Clone, Copy, Debug)]
struct Check<'a> {
    key: PubKey,
    message: &'a [u8],
    signature: Signature,
}

/// The order of the group, little-endian: adding it to `s` gives the same scalar again.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// The eight points of small order.
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed([n; 32])
}

fn good(n: u8, message: &[u8]) -> Check<'_> {
    Check {
        key: pair(n).public(),
        message,
        signature: pair(n).sign(message),
    }
}

/// The verdict, which is always that of `verify_strict`.
fn verdict(item: Check<'_>) -> bool {
    let verdict = verify(&item.key, item.message, &item.signature);
    let signature = DalekSignature::from_bytes(&item.signature.0);
    let strict = VerifyingKey::from_bytes(&item.key.0)
        .is_ok_and(|key| key.verify_strict(item.message, &signature).is_ok());
    assert_eq!(verdict, strict, "{item:?}");
    verdict
}

#[test]
fn any_flipped_bit_is_refused() {
    let item = good(1, b"message");
    assert!(verdict(item));
    for bit in 0..512 {
        let mut signature = item.signature;
        signature.0[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !verdict(Check { signature, ..item }),
            "bit {bit} of the signature"
        );
    }
    for bit in 0..256 {
        let mut key = item.key;
        key.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!verdict(Check { key, ..item }), "bit {bit} of the key");
    }
    for message in [&b"nessage"[..], b"messag", b"message\0", b""] {
        assert!(!verdict(Check { message, ..item }));
    }
}

#[test]
fn another_key_is_refused() {
    assert!(!verdict(Check {
        key: pair(2).public(),
        ..good(1, b"message")
    }));
}

#[test]
fn keys_and_rs_of_small_order_are_refused() {
    for key in SMALL_ORDER {
        let key = PubKey::parse(key).unwrap();
        for r in SMALL_ORDER {
            // With s = 0 the plain equation R + kA = 0 holds for one R in eight.
            let mut signature = Signature([0; 64]);
            hex::decode_to_slice(r, &mut signature.0[..32]).unwrap();
            for message in [&b"a"[..], b"b", b"c"] {
                assert!(!verdict(Check {
                    key,
                    message,
                    signature
                }));
            }
        }
    }
    for r in SMALL_ORDER {
        let mut item = good(1, b"message");
        hex::decode_to_slice(r, &mut item.signature.0[..32]).unwrap();
        assert!(!verdict(item));
    }
}

#[test]
fn a_key_of_small_order_signs_nothing_however_sound_the_rest() {
    // R = rB and s = r satisfy R + kA = sB whenever kA = 0: for anybody, one message in eight.
    let signer = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let mut signature = Signature([0; 64]);
    signature.0[..32].copy_from_slice(signer.verifying_key().as_bytes());
    signature.0[32..].copy_from_slice(&signer.to_scalar().to_bytes());
    for key in SMALL_ORDER {
        let key = PubKey::parse(key).unwrap();
        for message in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            assert!(!verdict(Check {
                key,
                message: message.as_bytes(),
                signature
            }));
        }
    }
}

#[test]
fn s_has_one_form_only() {
    let mut item = good(1, b"message");
    let mut order = [0; 32];
    hex::decode_to_slice(ORDER, &mut order).unwrap();
    let mut carry = 0;
    for (byte, add) in item.signature.0[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    assert!(!verdict(item));
}

#[test]
fn r_has_one_form_only() {
    // y = 2^255 - 18 is 1 in another form, and y = p is 0; with s = 0 and a key of small order
    // the equation would hold for the points.
    for first in 0xed..=0xff {
        for last in [0x7f, 0xff] {
            let mut item = good(1, b"message");
            item.signature.0[..32].fill(0xff);
            (item.signature.0[0], item.signature.0[31]) = (first, last);
            assert!(!verdict(item));
        }
    }
}

/// Signs with a point of small order added to the key and another to `R`.
fn sign_mixed<'a>(key: &EdwardsPoint, r: &EdwardsPoint, message: &'a [u8]) -> Check<'a> {
    let (secret, nonce) = (Scalar::from(0xa11ce_u64), Scalar::from(0xb0b_u64));
    let key = (ED25519_BASEPOINT_POINT * secret + key).compress().0;
    let r = (ED25519_BASEPOINT_POINT * nonce + r).compress().0;
    let hash = Sha512::new().chain_update(r).chain_update(key);
    let hash = hash.chain_update(message).finalize();
    let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.into()) * secret;
    let mut signature = Signature([0; 64]);
    signature.0[..32].copy_from_slice(&r);
    signature.0[32..].copy_from_slice(s.as_bytes());
    let key = PubKey(key);
    Check {
        key,
        message,
        signature,
    }
}

#[test]
fn what_holds_only_with_the_cofactor_is_refused() {
    let zero = EIGHT_TORSION[0];
    for (n, small) in EIGHT_TORSION.iter().enumerate() {
        for message in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let message = message.as_bytes();
            assert_eq!(verdict(sign_mixed(&zero, small, message)), n == 0);
            // Here the strict check accepts some, and so does this.
            verdict(sign_mixed(small, &zero, message));
            verdict(sign_mixed(small, small, message));
        }
    }
}

#[test]
fn the_table_of_small_orders_is_complete() {
    for point in SMALL_ORDER {
        let point = PubKey::parse(point).unwrap().0;
        assert!(VerifyingKey::from_bytes(&point).unwrap().is_weak());
        assert!(is_small_order(&point));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_verdict_is_the_strict_one(n: u8, fault in 0_u8..4, byte in 0_usize..64, bits: u8) {
        let message = [n; 40];
        let mut item = good(n, &message);
        match fault {
            1 => item.signature.0[byte] ^= bits,
            2 => item.key.0[byte / 2] ^= bits,
            3 => item.key = pair(n.wrapping_add(1)).public(),
            _ => {}
        }
        let same = fault == 0 || fault < 3 && bits == 0;
        prop_assert_eq!(verdict(item), same);
    }
}
