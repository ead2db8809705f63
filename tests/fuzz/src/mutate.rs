//! Changes to inputs that know nothing of their meaning.

use crate::Rng;

/// Longest piece moved, doubled or removed at once.
const PIECE_MAX: usize = 64;

/// A place in `bytes`, its end included.
fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    rng.usize(..=bytes.len())
}

/// A piece of `bytes`, perhaps empty.
fn piece(rng: &mut Rng, bytes: &[u8]) -> std::ops::Range<usize> {
    let start = place(rng, bytes);
    let len = rng.usize(..=PIECE_MAX.min(bytes.len() - start));
    start..start + len
}

/// Puts `what` in at `at`.
pub fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

/// A word before a closing brace of JSON, so that it may be one field more, or at the end.
pub fn field(rng: &mut Rng, body: &mut Vec<u8>, words: &[&str]) {
    let word = rng.choice(words).map_or("", |word| word);
    let ends: Vec<usize> = (0..body.len()).filter(|at| body[*at] == b'}').collect();
    let at = rng.choice(&ends).copied().unwrap_or(body.len());
    insert(body, at, word.as_bytes());
}

/// One change: a bit, a byte, a piece gone, doubled or moved, a word, or a piece of `other`.
pub fn bytes(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = place(rng, bytes);
    match rng.u8(..8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        2 => insert(bytes, at, &[rng.u8(..)]),
        3 => {
            let range = piece(rng, bytes);
            bytes.drain(range);
        }
        4 => {
            let range = piece(rng, bytes);
            let copy = bytes[range].to_vec();
            insert(bytes, at, &copy);
        }
        5 => {
            let word = rng.choice(words).map_or("", |word| word);
            insert(bytes, at, word.as_bytes());
        }
        6 => {
            let range = piece(rng, other);
            insert(bytes, at, &other[range]);
        }
        _ => {
            let tail = place(rng, other);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[tail..]);
        }
    }
}

/// One change of a text made of lines: gone, doubled, or in another place.
pub fn lines(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    if lines.is_empty() {
        return;
    }
    let (from, to) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    let line = lines[from];
    match rng.u8(..3) {
        0 => drop(lines.remove(from)),
        1 => lines.insert(to, line),
        _ => lines.swap(from, to),
    }
    *bytes = lines.concat();
}
