//! What a status hook posts: read as a plain reader would, and applied to no session but one in
//! the directory it names.

use super::core;
use crate::{Rng, mutate as change};

/// See the module.
pub(super) fn run(input: &[u8]) {
    core::run_hook(input);
}

/// Pieces of bodies.
pub(super) const WORDS: &[&str] = &[
    r#"{"cwd":"/w","status":"idle","pid":7}"#,
    r#"{"cwd":"/w","status":"working"}"#,
    r#"{"cwd":"/w/2","status":"dnd","pid":8,"session_id":"x"}"#,
    r#"{"cwd":"","status":"idle"}"#,
    r#"{"cwd":"/nowhere","status":"working","pid":1}"#,
    ",\"cwd\":\"/w\"",
    ",\"cwd\":7",
    ",\"status\":\"IDLE\"",
    ",\"status\":null",
    ",\"pid\":7.0",
    ",\"pid\":-1",
    ",\"pid\":18446744073709551615",
    ",\"pid\":\"7\"",
    "\\u0000",
    "\\ud800",
    "[[[[[[[[[[[[[[[[",
];

/// A body.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    WORDS[rng.usize(..5)].as_bytes().to_vec()
}

/// A field more, before a brace or anywhere else.
pub(super) fn mutate(rng: &mut Rng, body: &mut Vec<u8>) {
    change::field(rng, body, WORDS);
}
