//! An object of texts, as JSON: how the frame is encoded that is written most.
//!
//! A derived serialiser looks at every byte of every text by itself. Hardly any text needs an
//! escape, and that none is needed is seen for many bytes at once.

use bytes::Bytes;

/// Bytes that are looked at together.
const BLOCK: usize = 32;

/// The fields that are there, in this order. The names must need no escape. As long as no value
/// needs one either, the bytes are as many as were asked for: a frame may be kept for hours.
pub(super) fn object(fields: &[(&'static str, Option<&str>)]) -> Bytes {
    let present = || {
        fields
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)))
    };
    let room = present().fold(1, |sum, (name, value)| sum + name.len() + value.len() + 6);
    let mut bytes = Vec::with_capacity(room);
    for (name, value) in present() {
        let start: &[u8] = if bytes.is_empty() { b"{\"" } else { b",\"" };
        bytes.extend_from_slice(start);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\":");
        text(&mut bytes, value);
    }
    bytes.push(b'}');
    Bytes::from(bytes.into_boxed_slice())
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    if is_plain(value) {
        bytes.push(b'"');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'"');
    } else if serde_json::to_writer(&mut *bytes, value).is_err() {
        // Not reached: writing a text to memory cannot fail.
        bytes.extend_from_slice(b"null");
    }
}

/// Whether a text is the same within quotes (RFC 8259 §7).
fn is_plain(value: &str) -> bool {
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let (blocks, rest) = value.as_bytes().as_chunks::<BLOCK>();
    // Without a way out of the block, the compiler takes it in a few steps.
    let clean = |block: &[u8]| !block.iter().fold(false, |any, byte| any | special(byte));
    blocks.iter().all(|block| clean(block)) && clean(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_absent_is_left_out_and_nothing_is_kept_in_reserve() {
        let fields = [("type", Some("push")), ("none", None), ("text", Some("é"))];
        assert_eq!(object(&fields), r#"{"type":"push","text":"é"}"#.as_bytes());
    }

    proptest! {
        #[test]
        fn every_text_is_what_serde_makes_of_it(
            first in "\\PC{0,80}",
            second in ".{0,80}",
            at in 0..80_usize,
            special in prop::sample::select(vec!["\"", "\\", "\u{0}", "\u{1f}", "\u{7f}", "\n"]),
        ) {
            let mut third = "x".repeat(80);
            third.insert_str(at, special);
            for value in [&first, &second, &third] {
                let expected = serde_json::json!({ "text": value }).to_string();
                prop_assert_eq!(&object(&[("text", Some(value))])[..], expected.as_bytes());
            }
        }
    }
}
