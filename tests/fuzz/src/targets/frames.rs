//! WebSocket frames: whatever way the bytes are cut, the reader says what a decoder written
//! plainly from RFC 6455 says, and holds nothing between messages.
//!
//! An input is one byte that chooses the size limit, one that chooses the cuts, and the stream.

use holdfast::shell::decoders::{Message, Reader};

use super::cut;
use crate::{Rng, mutate as change};

/// Size limits, chosen by the first byte.
const LIMITS: [usize; 5] = [10, 125, 200, 1000, 70_000];

/// Longest input that is also given byte by byte.
const SINGLE_BYTES_MAX: usize = 4096;

/// What a client said, until it broke the protocol or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Undecodable,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Broke(u16),
}

impl Said {
    fn is_last(&self) -> bool {
        matches!(self, Self::Close(_) | Self::Broke(_))
    }
}

/// See the module.
pub(super) fn run(input: &[u8]) {
    let [limit, seed, stream @ ..] = input else {
        return;
    };
    let max = LIMITS[usize::from(*limit) % LIMITS.len()];
    let expected = reference(stream, max);
    assert_eq!(read(&[stream], max), expected, "in one piece");
    if stream.len() <= SINGLE_BYTES_MAX {
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single, max), expected, "byte by byte");
    }
    for round in 0..3 {
        let pieces = cut(stream, u64::from(*seed) * 3 + round);
        let sizes = || pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(read(&pieces, max), expected, "cut into {:?}", sizes());
    }
}

/// What the reader makes of it, and whether it holds nothing at the end.
fn read(pieces: &[&[u8]], max: usize) -> (Vec<Said>, bool) {
    let mut reader = Reader::default();
    let mut said = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match reader.next(&mut input, max) {
                Ok(None) => break,
                Ok(Some(message)) => said.push(owned(&message)),
                Err(violation) => said.push(Said::Broke(violation.code)),
            }
            if said.last().is_some_and(Said::is_last) {
                return (said, true);
            }
        }
        assert!(input.is_empty(), "it waits with input left");
    }
    (said, reader.is_idle())
}

fn owned(message: &Message<'_>) -> Said {
    match message {
        Message::Text(text) => Said::Text((*text).to_owned()),
        Message::Undecodable => Said::Undecodable,
        Message::Ping(payload) => Said::Ping(payload.to_vec()),
        Message::Pong(payload) => Said::Pong(payload.to_vec()),
        Message::Close(code) => Said::Close(*code),
    }
}

/// A header: first byte, whether it is masked, payload length, mask.
struct Head {
    first: u8,
    mask: Option<[u8; 4]>,
    len: u64,
}

/// RFC 6455 §5.2, on all bytes at once.
fn head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let [first, second, rest @ ..] = bytes else {
        return None;
    };
    let (len, rest) = match second & 0x7f {
        126 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*len), rest)
        }
        len => (u64::from(len), rest),
    };
    let (mask, rest) = if second & 0x80 == 0 {
        (None, rest)
    } else {
        let (mask, rest) = rest.split_first_chunk::<4>()?;
        (Some(*mask), rest)
    };
    let first = *first;
    Some((Head { first, mask, len }, rest))
}

/// The plain decoder, and whether the stream ends between messages.
fn reference(stream: &[u8], max: usize) -> (Vec<Said>, bool) {
    let mut said = Vec::new();
    let mut message: Option<(bool, Vec<u8>)> = None;
    let mut rest = stream;
    while let Some((head, payload)) = head(rest) {
        let last = head.first & 0x80 != 0;
        let opcode = head.first & 0x0f;
        let mask = match check(&head, message.as_ref().map(|(_, so_far)| so_far.len()), max) {
            Ok(mask) => mask,
            Err(code) => {
                said.push(Said::Broke(code));
                return (said, true);
            }
        };
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        let there = &payload[..len.min(payload.len())];
        let whole = there.len() == len;
        let plain = there.iter().zip(mask.iter().cycle());
        let plain: Vec<u8> = plain.map(|(byte, key)| byte ^ key).collect();
        let complete = if opcode >= 8 {
            whole.then(|| control(opcode, plain))
        } else {
            let (text, mut so_far) = message.take().unwrap_or((opcode == 1, Vec::new()));
            so_far.extend(plain);
            let complete = data(text, &so_far, whole && last);
            message = complete.is_none().then_some((text, so_far));
            complete
        };
        said.extend(complete);
        if said.last().is_some_and(Said::is_last) {
            return (said, true);
        }
        if !whole {
            return (said, false);
        }
        rest = &payload[len..];
    }
    (said, rest.is_empty() && message.is_none())
}

/// The rules of §5.4 and §5.5 that a header can break, and the size limit.
fn check(head: &Head, so_far: Option<usize>, max: usize) -> Result<[u8; 4], u16> {
    let opcode = head.first & 0x0f;
    let reserved = head.first & 0x70 != 0 || matches!(opcode, 3..=7 | 11..);
    let long_control = opcode >= 8 && (head.first & 0x80 == 0 || head.len > 125);
    let misplaced = match opcode {
        0 => so_far.is_none(),
        1 | 2 => so_far.is_some(),
        _ => false,
    };
    match head.mask {
        Some(mask) if !reserved && !long_control && !misplaced => {
            let total = (so_far.unwrap_or(0) as u64).checked_add(head.len);
            let fits = total.is_some_and(|total| total <= max as u64);
            if opcode < 8 && !fits {
                Err(1009)
            } else {
                Ok(mask)
            }
        }
        Some(_) | None => Err(1002),
    }
}

/// A message, once it is complete or cannot become one.
fn data(text: bool, payload: &[u8], complete: bool) -> Option<Said> {
    match (std::str::from_utf8(payload), text) {
        (Ok(text), _) => complete.then(|| Said::Text(text.to_owned())),
        (Err(error), true) if complete || error.error_len().is_some() => Some(Said::Broke(1007)),
        (Err(_), true) => None,
        (Err(_), false) => complete.then_some(Said::Undecodable),
    }
}

/// §5.5.1 and §7.4.
fn control(opcode: u8, payload: Vec<u8>) -> Said {
    match (opcode, &payload[..]) {
        (9, _) => Said::Ping(payload),
        (10, _) => Said::Pong(payload),
        (_, []) => Said::Close(None),
        (_, [_]) => Said::Broke(1002),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            let sendable = match code {
                1004..=1006 | 1015 => false,
                1000..=1014 | 3000..=4999 => true,
                _ => false,
            };
            match (sendable, std::str::from_utf8(reason)) {
                (false, _) => Said::Broke(1002),
                (true, Err(_)) => Said::Broke(1007),
                (true, Ok(_)) => Said::Close(Some(code)),
            }
        }
    }
}

/// A stream of frames, most of them sound.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut input = vec![rng.u8(..), rng.u8(..)];
    for _ in 0..rng.u8(1..6) {
        let frame = frame(rng);
        input.extend(frame);
    }
    input
}

/// A frame more, somewhere.
pub(super) fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    let frame = frame(rng);
    let at = if rng.bool() {
        input.len()
    } else {
        rng.usize(..=input.len())
    };
    change::insert(input, at, &frame);
}

fn frame(rng: &mut Rng) -> Vec<u8> {
    let first = match rng.u8(..10) {
        0 => rng.u8(..),
        1 => 0x01,
        2 => 0x00,
        3 => 0x80,
        4 => 0x82,
        5 => 0x88,
        6 => 0x89,
        7 => 0x8a,
        _ => 0x81,
    };
    let len = rng.choice([0, 1, 2, 5, 7, 8, 9, 125, 126, 200, 300]);
    let len: u16 = len.unwrap_or(0);
    let piece = rng.choice(["a", "\u{2603}", "\u{1f600}", "{}", "\u{3}\u{e8}"]);
    let mut payload = piece.unwrap_or("a").repeat(len.into()).into_bytes();
    payload.truncate(len.into());
    if rng.u8(..6) == 0 {
        change::bytes(rng, &mut payload, &[], &[]);
    }
    let mask: [u8; 4] = std::array::from_fn(|_| rng.u8(..));
    let masked = if rng.u8(..20) == 0 { 0 } else { 0x80 };
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut out = vec![first];
    match (len, rng.u8(..8)) {
        // Longer than it need be, which is nobody's harm.
        (_, 0) => out.extend([&[masked | 127][..], &u64::from(len).to_be_bytes()].concat()),
        (126.., _) | (_, 1) => out.extend([&[masked | 126][..], &len.to_be_bytes()].concat()),
        (..126, _) => out.push(masked | len.to_be_bytes()[1]),
    }
    if masked != 0 {
        out.extend(mask);
    }
    let keys = mask.iter().cycle();
    out.extend(payload.iter().zip(keys).map(|(byte, key)| byte ^ key));
    out
}
