//! What somebody posts who wants to join by an invite: taken as it is, or refused for the first
//! thing that is wrong with it.

use holdfast::shell::decoders::{Unfit, parse_join};
use serde_json::Value;

use crate::{Rng, mutate as change};

/// See the module.
pub(super) fn run(input: &[u8]) {
    let body: Value = serde_json::from_slice(input).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let payload = body.get("invite_payload").unwrap_or(&Value::Null);
    let complete = ["invite_token", "peer_pubkey", "display_name"]
        .iter()
        .all(|name| !text(name).is_empty())
        && !payload.is_null();
    let key = text("peer_pubkey");
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_key = key.len() == 64 && key.bytes().all(lower_hex);
    match parse_join(input) {
        Ok(joining) => {
            assert!(complete && is_key);
            assert_eq!(joining.token, text("invite_token"));
            assert_eq!(joining.name, text("display_name"));
            assert_eq!(joining.pubkey.to_string(), key);
            let read = serde_json::to_value(&joining.payload).expect("it was read from JSON");
            for (name, value) in read.as_object().expect("an object with names") {
                assert_eq!(payload.get(name), Some(value), "{name}");
            }
        }
        Err(Unfit::Incomplete) => assert!(!complete),
        Err(Unfit::Key) => assert!(complete && !is_key),
        Err(Unfit::Payload) => assert!(complete && is_key),
    }
}

const WHOLE: &str = concat!(
    r#"{"invite_token":"t","peer_pubkey":""#,
    "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
    r#"","display_name":"d","invite_payload":{"v":1,"mesh_id":"m","mesh_slug":"s","#,
    r#""broker_url":"ws://h/ws","expires_at":1,"mesh_root_key":"k","role":"member","#,
    r#""owner_pubkey":"o","signature":"x"}}"#
);

/// Pieces of bodies.
pub(super) const WORDS: &[&str] = &[
    WHOLE,
    r#"{"invite_token":"t","invite_payload":{},"peer_pubkey":"ab","display_name":"d"}"#,
    ",\"invite_payload\":null",
    ",\"invite_payload\":[1]",
    ",\"v\":4294967296",
    ",\"expires_at\":-1",
    ",\"expires_at\":1.5",
    ",\"display_name\":\"\"",
    ",\"peer_pubkey\":\"AB\"",
    "\\ud800",
    "[[[[[[[[[[[[[[[[",
];

/// A body.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    WORDS[rng.usize(..2)].as_bytes().to_vec()
}

/// A field more, before a brace or anywhere else.
pub(super) fn mutate(rng: &mut Rng, body: &mut Vec<u8>) {
    change::field(rng, body, WORDS);
}
