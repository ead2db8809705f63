//! Single and batch verdicts on good, damaged and crafted signatures.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::identity::KeyPair;

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

/// Every way of checking one item gives the same verdict, also amid a batch of good ones.
fn verdict(item: Check<'_>) -> bool {
    let alone = verify(&item.key, item.message, &item.signature);
    let mut batch = vec![good(9, b"filler"); BATCH_MIN + 2];
    batch[3] = item;
    let mut expected = vec![true; batch.len()];
    expected[3] = alone;
    assert_eq!(verify_all(&batch), expected);
    assert_eq!(verify_all(&[item]), [alone]);
    alone
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
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    let [mut below, mut above] = [prime; 2];
    below[0] = 0xe0;
    (above[0], above[31]) = (0xf1, 0xff);
    assert!(!is_sound_r(&prime) && !is_sound_r(&above));
    assert!(is_sound_r(&below) && is_sound_r(&[2; 32]) && is_sound_r(&[0xed; 32]));
}

#[test]
fn the_table_of_small_orders_is_complete() {
    for point in SMALL_ORDER {
        let point = PubKey::parse(point).unwrap().0;
        assert!(VerifyingKey::from_bytes(&point).unwrap().is_weak());
        assert!(!is_sound_r(&point));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_batch_says_what_single_checks_say(
        plan in vec((1_u8..6, prop_oneof![40 => Just(0_u8), 1 => 1_u8..4]), 0..150),
    ) {
        let messages: Vec<Vec<u8>> = (0..plan.len()).map(|n| vec![7; n]).collect();
        let mut items = Vec::new();
        let mut expected = Vec::new();
        for (&(n, fault), message) in plan.iter().zip(&messages) {
            let mut item = good(n, message);
            match fault {
                1 => item.signature.0[40] ^= 1,
                2 => item.key = pair(n + 1).public(),
                3 => item.key = PubKey([0; 32]),
                _ => {}
            }
            items.push(item);
            expected.push(fault == 0);
        }
        prop_assert_eq!(verify_all(&items), expected);
    }
}
