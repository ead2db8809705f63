//! Ids in as many bytes as there is to know of them: a card has two, and of what most sessions show
//! they are the longest.

use std::ops::Deref;

use serde::{Serialize, Serializer};

use crate::ids::PubKey;
use crate::mint::{digit, value_of};

/// Characters of a presence id, and of a part that is packed by itself.
const BASE62_LEN: usize = 32;
const PART: usize = 8;
/// Bytes of such a part: 62^8 is below 2^48.
const PART_BYTES: usize = 6;

const KEY_LEN: usize = 64;

const UUID_LEN: usize = 36;
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// 32 characters of `[0-9A-Za-z]`; None if it is something else.
pub(crate) fn base62(text: &str) -> Option<[u8; BASE62_LEN / PART * PART_BYTES]> {
    let mut packed = [0; BASE62_LEN / PART * PART_BYTES];
    if text.len() != BASE62_LEN {
        return None;
    }
    let parts = text.as_bytes().chunks(PART);
    for (place, part) in packed.chunks_mut(PART_BYTES).zip(parts) {
        let number = part
            .iter()
            .try_fold(0, |number, byte| Some(number * 62 + value_of(*byte)?))?;
        for (place, byte) in place.iter_mut().zip(number.to_le_bytes()) {
            *place = byte;
        }
    }
    Some(packed)
}

/// A UUID as most programs write it, in lower case; None if it is something else.
pub(crate) fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = [0; 32];
    if text.len() != UUID_LEN {
        return None;
    }
    let mut places = digits.iter_mut();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'-' if HYPHENS.contains(&at) => {}
            b'0'..=b'9' | b'a'..=b'f' if !HYPHENS.contains(&at) => *places.next()? = byte,
            _ => return None,
        }
    }
    let mut packed = [0; 16];
    hex::decode_to_slice(digits, &mut packed).ok()?;
    Some(packed)
}

/// A key as it is written, in 64 hex digits of lower case; None if it is something else.
pub(crate) fn key(text: &str) -> Option<[u8; 32]> {
    PubKey::parse(text).map(|key| key.0)
}

/// The text of an id, as it is kept or written anew.
#[derive(Debug)]
pub enum Id<'a> {
    /// As it is kept.
    AsIs(&'a str),
    /// Written anew.
    Base62([u8; BASE62_LEN]),
    /// Written anew.
    Uuid([u8; UUID_LEN]),
    /// Written anew.
    Key([u8; KEY_LEN]),
}

impl<'a> Id<'a> {
    pub(crate) fn as_is(text: Option<&'a str>) -> Self {
        Self::AsIs(text.unwrap_or_default())
    }

    /// What [`base62`] has packed.
    pub(crate) fn of_base62(packed: &[u8]) -> Self {
        let mut text = [b'0'; BASE62_LEN];
        for (places, part) in text.chunks_mut(PART).zip(packed.chunks(PART_BYTES)) {
            let bytes = part.iter().rev();
            let mut number = bytes.fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
            for place in places.iter_mut().rev() {
                *place = digit(number % 62);
                number /= 62;
            }
        }
        Self::Base62(text)
    }

    /// What [`uuid`] has packed.
    pub(crate) fn of_uuid(packed: &[u8]) -> Self {
        let mut text = [b'-'; UUID_LEN];
        let digits = packed.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let places = text.iter_mut().enumerate();
        let places = places.filter(|(at, _)| !HYPHENS.contains(at));
        for ((_, place), digit) in places.zip(digits) {
            *place = match digit {
                0..=9 => b'0' + digit,
                _ => b'a' + digit - 10,
            };
        }
        Self::Uuid(text)
    }

    /// What [`key`] has packed.
    pub(crate) fn of_key(packed: &[u8]) -> Self {
        let mut text = [b'0'; KEY_LEN];
        // Of 32 bytes, as they were packed.
        hex::encode_to_slice(packed, &mut text).ok();
        Self::Key(text)
    }
}

impl Deref for Id<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        let text: &[u8] = match self {
            Self::AsIs(text) => return text,
            Self::Base62(text) => text,
            Self::Uuid(text) => text,
            Self::Key(text) => text,
        };
        // Only ASCII was written.
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_packed_is_unpacked(
            presence in "[0-9A-Za-z]{32}",
            session in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            own_key in "[0-9a-f]{64}",
        ) {
            prop_assert_eq!(&*Id::of_base62(&base62(&presence).unwrap()), &*presence);
            prop_assert_eq!(&*Id::of_uuid(&uuid(&session).unwrap()), &*session);
            prop_assert_eq!(&*Id::of_key(&key(&own_key).unwrap()), &*own_key);
        }
    }

    #[test]
    fn only_what_comes_back_the_same_is_packed() {
        let presence = "z".repeat(32);
        assert_eq!(&*Id::of_base62(&base62(&presence).unwrap()), presence);
        for other in [
            "z".repeat(31),
            "z".repeat(33),
            "-".repeat(32),
            "é".repeat(16),
        ] {
            assert_eq!(base62(&other), None);
        }
        let session = "01234567-89ab-cdef-0123-456789abcdef";
        assert!(uuid(session).is_some());
        let others = [
            session.to_uppercase(),
            session.replace('-', "0"),
            session.replace('3', "-"),
        ];
        for other in others.iter().map(String::as_str).chain([&session[1..], ""]) {
            assert_eq!(uuid(other), None);
        }
        for other in ["A".repeat(64), "a".repeat(62), "g".repeat(64)] {
            assert_eq!(key(&other), None);
        }
    }
}
