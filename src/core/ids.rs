//! Names of things, each its own type, so that one cannot be passed for another.

use std::fmt;

/// A socket, as the shell names it within one loop. The shell mints both halves; the core only
/// compares them. `generation` differs each time the shell reuses a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index in the loop's table of sockets.
    pub slot: u32,
    /// Which user of that slot.
    pub generation: u32,
}

/// The fencing token: a session's slot and the generation of its current attachment. The
/// generation rises on every attach and when the slot is freed, so an old handle finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerHandle {
    /// Index in the shard's slab of sessions.
    pub slot: u32,
    /// Which attachment of that session.
    pub generation: u32,
}

/// Names one operation given to the store; its result comes back under the same token. Minted by
/// the shard, unique within it for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names one question put to a shard from outside (HTTP, admin socket). Minted by the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a URL watch within its mesh; on the wire `w_` and 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u32);

impl WatchId {
    /// Reads what [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("w_")?;
        let id = Self(u32::from_str_radix(digits, 16).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w_{:08x}", self.0)
    }
}

impl serde::Serialize for WatchId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A message's place in the order of the broker: unique over all shards, ascending within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A place in everything a shard wrote and did: rises with every session that begins, every entry
/// of every log, every push and every ping, so that one number, carried by a ping, confirms all
/// that was written before it. Rises across restarts too, so that rows may keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Where a process begins to count whose first message gets `seq`: sequences of two boots
    /// are at least 2^28 apart, so that each boot has 2^40 places of its own.
    #[must_use]
    pub fn first(seq: Seq) -> Self {
        Self(seq.0.saturating_mul(4096))
    }
}

/// A place that something has if the log tells of it; no larger than a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InLog(Position);

impl InLog {
    /// The place, if it has one.
    pub(crate) fn at(self) -> Option<Position> {
        // No process begins at the zeroth place.
        (self.0 > Position(0)).then_some(self.0)
    }
}

impl From<Option<Position>> for InLog {
    fn from(at: Option<Position>) -> Self {
        Self(at.unwrap_or_default())
    }
}

impl From<Position> for InLog {
    fn from(at: Position) -> Self {
        Self(at)
    }
}

/// What others are told of a presence has an id that can be made again: who hears it once more
/// after a crash can tell that it is the same. Written in the form of a random UUID (RFC 9562 §5.4),
/// as clients know it.
#[must_use]
pub fn news_id(presence_id: &str, event: &str, at: Option<Position>) -> String {
    let at = at.map_or(0, |at| at.0);
    let text = format!("{presence_id} {event} {at}");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
    let [high, low]: [u64; 2] = std::array::from_fn(|half| {
        let bytes = digest.iter().skip(8 * half).take(8);
        bytes.fold(0, |number, byte| (number << 8) | u64::from(*byte))
    });
    let (high, low) = (high & !0xf000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
    let (time, version) = (high >> 32, high & 0xffff_ffff);
    format!(
        "{time:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        version >> 16,
        version & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// An ed25519 public key: a member's or a session's. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PubKey(pub [u8; 32]);

impl PubKey {
    /// Parses 64 lower-case hex digits, the only form in which keys are compared (protocol.md §1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        Self::parse_any_case(text)
    }

    /// Parses 64 hex digits of either case: such a key passes signature checks but names nobody.
    #[must_use]
    pub fn parse_any_case(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }
}

impl fmt::Display for PubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        // Infallible: 32 bytes are exactly 64 digits.
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PubKey({self})")
    }
}

impl serde::Serialize for PubKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The shard (loop) on which a mesh lives: FNV-1a of its id with a finishing mix, so that it is
/// the same in every process and short ids spread too.
#[must_use]
pub fn home_of(mesh_id: &str, shards: u16) -> u16 {
    let mut hash = mesh_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 32;
    // The remainder is below `shards`, so it fits.
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lower_case_hex_and_nothing_else() {
        let text = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
        assert_eq!(PubKey::parse(text).unwrap().to_string(), text);
        assert_eq!(PubKey::parse(&text.to_uppercase()), None);
        assert!(PubKey::parse_any_case(&text.to_uppercase()).is_some());
        assert_eq!(PubKey::parse(&text[1..]), None);
        assert_eq!(PubKey::parse(&format!("{}zz", &text[2..])), None);
    }

    #[test]
    fn a_watch_has_one_name() {
        let id = WatchId(0xf6e5_2486);
        assert_eq!(id.to_string(), "w_f6e52486");
        assert_eq!(WatchId::parse("w_f6e52486"), Some(id));
        for other in [
            "w_F6E52486",
            "w_6e52486",
            "w_+6e52486",
            "f6e52486",
            "w_none",
            "",
        ] {
            assert_eq!(WatchId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_same_news_has_the_same_id() {
        let id = news_id("presence", "peer_left", None);
        assert_eq!(id, news_id("presence", "peer_left", None));
        assert_ne!(id, news_id("presence", "peer_joined", None));
        assert_ne!(id, news_id("presence", "peer_left", Some(Position(1))));
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn meshes_spread_over_the_shards() {
        let homes: Vec<u16> = (0..1000)
            .map(|n| home_of(&format!("mesh-{n}"), 4))
            .collect();
        for shard in 0..4 {
            let share = homes.iter().filter(|&&home| home == shard).count();
            assert!(
                (150..350).contains(&share),
                "shard {shard} has {share} of 1000"
            );
        }
        assert!(homes.iter().all(|&home| home < 4));
        assert_eq!(home_of("any", 1), 0);
    }
}
