//! New ids, drawn from a seed the caller brings: the same seed and calls give the same ids.
//!
//! Presence and message ids are 32 characters of `[0-9A-Za-z]`, as clients insist
//! (protocol.md §1).

use std::fmt;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ids::{Seq, WatchId};

/// The characters of an id, each under its value as a digit.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters in an id.
const ID_LEN: usize = 32;

/// Characters at the start of a message id that encode its sequence; the shortest prefix by which
/// clients ask for a message (protocol.md §1).
const PREFIX_LEN: usize = 8;

/// Sequences that a prefix can tell apart: 62^8, about 2.18e14 (a million messages a second for
/// almost seven years).
const DOMAIN: u64 = 62_u64.pow(8);

/// Coprime to [`DOMAIN`] (2^8 * 31^8), so that multiplying by it modulo `DOMAIN` is a bijection;
/// about `DOMAIN` divided by the golden ratio, so that neighbours land far apart.
const FACTOR: u64 = 134_941_606_358_707;

/// The inverse of [`FACTOR`] modulo [`DOMAIN`].
const INVERSE: u64 = 216_302_537_455_227;

/// Added after the multiplication, so that sequence 0 is not all zeros. An arbitrary choice.
const OFFSET: u64 = 90_439_432_943_237;

const _: () = assert!(FACTOR as u128 * INVERSE as u128 % DOMAIN as u128 == 1);
const _: () = assert!(OFFSET < DOMAIN);

/// Makes ids. Two mints must never be given the same seed outside a simulation.
pub struct Mint {
    rng: ChaCha8Rng,
}

impl Mint {
    /// A mint that draws from `seed`, 32 bytes of entropy.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
        }
    }

    /// A new presence id: 32 base62 characters, 190 bits.
    #[must_use]
    pub fn presence_id(&mut self) -> String {
        let mut id = [0; ID_LEN];
        self.fill_base62(&mut id);
        id.iter().map(|&byte| char::from(byte)).collect()
    }

    /// A new id of a record: as [`Self::presence_id`].
    #[must_use]
    pub fn record_id(&mut self) -> String {
        self.presence_id()
    }

    /// 256 bits that nobody can guess.
    #[must_use]
    pub fn secret(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A new name for a watch, unique only by chance.
    #[must_use]
    pub(crate) fn watch_id(&mut self) -> WatchId {
        WatchId(self.rng.next_u32())
    }

    /// A new UUID of version 4, lower case with hyphens.
    #[must_use]
    pub fn uuid_v4(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        let random = u128::from_be_bytes(bytes);
        let version = 0x4_u128 << 76;
        let variant = 0b10_u128 << 62;
        let uuid = random & !(0xf << 76) & !(0b11 << 62) | version | variant;
        let digits = format!("{uuid:032x}");
        [
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..],
        ]
        .join("-")
    }

    /// A new id for the message at `seq`: 8 characters that [`MessageId::seq_of_prefix`] turns
    /// back into `seq`, then 24 random ones (142 bits).
    ///
    /// Sequences from 62^8 on are out of range: their ids are good, but the prefix gives the
    /// sequence modulo 62^8.
    #[must_use]
    pub fn message_id(&mut self, seq: Seq) -> MessageId {
        let mut id = [0; ID_LEN];
        let (prefix, rest) = id.split_at_mut(PREFIX_LEN);
        let mut number = scramble(seq.0 % DOMAIN);
        for place in prefix.iter_mut().rev() {
            *place = digit(number % 62);
            number /= 62;
        }
        self.fill_base62(rest);
        MessageId(id)
    }

    fn fill_base62(&mut self, places: &mut [u8]) {
        let mut places = places.iter_mut();
        loop {
            // Five draws of six bits; a draw of 62 or 63 is dropped, which keeps the rest even.
            let mut bits = self.rng.next_u32();
            for _ in 0..5 {
                let draw = u64::from(bits & 0x3f);
                bits >>= 6;
                if draw < 62 {
                    let Some(place) = places.next() else { return };
                    *place = digit(draw);
                }
            }
        }
    }
}

/// Shows nothing of the state: who knows it knows the ids to come.
impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").finish_non_exhaustive()
    }
}

/// A message's public name: 32 base62 characters, in ASCII.
///
/// The first 8 are the message's sequence, scrambled by a fixed bijection, so that a message is
/// found by its sequence and no index on ids is needed. The scrambling only spreads neighbours
/// apart and hides nothing; that an id cannot be guessed is due to the other 24. So whoever finds
/// a message by [`MessageId::seq_of_prefix`] must compare all the characters it was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; ID_LEN]);

impl MessageId {
    /// Parses exactly 32 base62 characters. Says nothing of whether such a message exists.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.as_bytes().try_into().ok()?;
        is_base62(text).then_some(Self(id))
    }

    /// The sequence that the first 8 characters stand for, below 62^8; `None` unless `text` is 8
    /// to 32 base62 characters. Every such text stands for some sequence.
    #[must_use]
    pub fn seq_of_prefix(text: &str) -> Option<Seq> {
        if !(PREFIX_LEN..=ID_LEN).contains(&text.len()) || !is_base62(text) {
            return None;
        }
        let prefix = text.as_bytes().get(..PREFIX_LEN)?;
        let number = prefix
            .iter()
            .try_fold(0, |number, &c| Some(number * 62 + value_of(c)?))?;
        Some(Seq(unscramble(number)))
    }

    /// The sequence this id was made for (modulo 62^8).
    #[must_use]
    pub fn seq(&self) -> Seq {
        Self::seq_of_prefix(self.as_str()).unwrap_or_default()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Infallible: every constructor puts in ASCII only.
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether `text` holds characters of `[0-9A-Za-z]` only; true of an empty one.
#[must_use]
pub fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `number` must be below [`DOMAIN`].
fn scramble(number: u64) -> u64 {
    (times(number, FACTOR) + OFFSET) % DOMAIN
}

/// `number` must be below [`DOMAIN`].
fn unscramble(number: u64) -> u64 {
    times((number + DOMAIN - OFFSET) % DOMAIN, INVERSE)
}

/// The product modulo [`DOMAIN`].
fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(DOMAIN);
    // Below DOMAIN, so it fits.
    u64::try_from(product).unwrap_or(0)
}

/// The character of a digit below 62.
pub(crate) fn digit(value: u64) -> u8 {
    usize::try_from(value)
        .ok()
        .and_then(|value| ALPHABET.get(value))
        .copied()
        .unwrap_or(b'0')
}

/// The digit of a character.
pub(crate) fn value_of(character: u8) -> Option<u64> {
    let value = match character {
        b'0'..=b'9' => character - b'0',
        b'A'..=b'Z' => character - b'A' + 10,
        b'a'..=b'z' => character - b'a' + 36,
        _ => return None,
    };
    Some(u64::from(value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn mint() -> Mint {
        Mint::new([7; 32])
    }

    #[test]
    fn digits_and_characters_agree() {
        for value in 0..62 {
            assert_eq!(value_of(digit(value)), Some(value));
        }
        assert_eq!(value_of(b'-'), None);
    }

    #[test]
    fn a_message_id_leads_back_to_its_sequence() {
        let mut mint = mint();
        for seq in [0, 1, 2, 61, 62, 1 << 40, DOMAIN - 2, DOMAIN - 1] {
            let id = mint.message_id(Seq(seq));
            let text = id.to_string();
            assert_eq!(MessageId::parse(&text), Some(id));
            assert_eq!(id.seq(), Seq(seq));
            for length in 8..=32 {
                assert_eq!(MessageId::seq_of_prefix(&text[..length]), Some(Seq(seq)));
            }
            assert_eq!(MessageId::seq_of_prefix(&text[..7]), None);
            assert_eq!(MessageId::seq_of_prefix(&format!("{text}0")), None);
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        }
        assert_eq!(
            mint.message_id(Seq(DOMAIN + 5)).seq(),
            Seq(5),
            "documented: modulo"
        );
        assert_eq!(mint.message_id(Seq(u64::MAX)).seq(), Seq(u64::MAX % DOMAIN));
    }

    #[test]
    fn every_prefix_is_of_one_sequence() {
        for text in ["00000000", "zzzzzzzz", "Zz09Aa5x"] {
            let seq = MessageId::seq_of_prefix(text).unwrap();
            assert!(seq.0 < DOMAIN);
            assert_eq!(&mint().message_id(seq).as_str()[..8], text);
        }
    }

    #[test]
    fn neighbours_have_distinct_prefixes_that_look_unlike() {
        let mut mint = mint();
        let mut seen = BTreeSet::new();
        let mut last = String::new();
        for seq in 1_000_000..1_100_000 {
            let prefix = mint.message_id(Seq(seq)).as_str()[..8].to_owned();
            assert_ne!(prefix.get(..1), last.get(..1));
            assert!(seen.insert(prefix.clone()));
            last = prefix;
        }
    }

    #[test]
    fn only_base62_is_an_id() {
        let text = mint().presence_id();
        assert!(is_base62(&text) && text.len() == 32);
        for bad in ["-", "\u{e9}", " ", "\0", "+"] {
            let text = format!("{bad}{}", &text[bad.len()..]);
            assert_eq!(text.len(), 32);
            assert!(!is_base62(&text));
            assert_eq!(MessageId::parse(&text), None);
            assert_eq!(MessageId::seq_of_prefix(&text), None);
        }
        assert_eq!(MessageId::parse(&text[1..]), None);
        assert_eq!(MessageId::parse(""), None);
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let mut mint = mint();
        let mut counts = [0_u32; 62];
        for _ in 0..31_000 {
            for byte in mint.presence_id().bytes() {
                counts[usize::try_from(value_of(byte).unwrap()).unwrap()] += 1;
            }
        }
        // 16 000 expected of each, standard deviation 126; the seed is fixed, so this is no gamble.
        for (value, count) in counts.into_iter().enumerate() {
            assert!(
                (15_400..16_600).contains(&count),
                "{count} of digit {value}"
            );
        }
    }

    #[test]
    fn uuids_are_of_version_4() {
        let mut mint = mint();
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            let uuid = mint.uuid_v4();
            let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
            assert_eq!(&uuid[14..15], "4");
            assert!("89ab".contains(&uuid[19..20]));
            assert!(
                uuid.bytes()
                    .all(|b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f'))
            );
            assert!(seen.insert(uuid));
        }
    }

    #[test]
    fn a_seed_fixes_the_ids() {
        let ids = |mut mint: Mint| (mint.presence_id(), mint.message_id(Seq(1)), mint.uuid_v4());
        assert_eq!(ids(mint()), ids(mint()));
        assert_ne!(ids(mint()), ids(Mint::new([8; 32])));
    }
}
