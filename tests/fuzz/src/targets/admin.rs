//! The line an administrator's command sends: whatever way it is cut it is the same request or the
//! same refusal; a request survives being written and read again; a refusal is one line.

use std::io::{self, Read};

use holdfast::admin::{Reply, Request, read_request};

use super::cut;
use crate::{Rng, mutate as change};

/// Longest input that is also given in pieces: more of them than the server takes is a refusal.
const CUT_BYTES_MAX: usize = 4000;

/// A client that writes in pieces, and perhaps dies.
struct Pieces<'a> {
    pieces: Vec<&'a [u8]>,
    dies: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.pieces.is_empty() {
            return if self.dies {
                Err(io::ErrorKind::ConnectionReset.into())
            } else {
                Ok(0)
            };
        }
        let piece = self.pieces.remove(0);
        into[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

/// See the module.
pub(super) fn run(input: &[u8]) {
    let whole = read_request(&mut &input[..]);
    if input.len() <= CUT_BYTES_MAX {
        let pieces = cut(input, crate::corpus::fingerprint(input));
        if pieces.len() < 15 {
            let dies = false;
            let cut = read_request(&mut Pieces { pieces, dies });
            assert_eq!(cut, whole, "in pieces");
        }
        let (pieces, dies) = (vec![input], true);
        let cut_off = read_request(&mut Pieces { pieces, dies });
        let ended = input.contains(&b'\n');
        assert!(if ended {
            cut_off == whole
        } else {
            cut_off.is_err()
        });
    }
    match whole {
        Ok(request) => check_request(&request),
        Err(refusal) => check_refusal(&refusal, input.len()),
    }
}

fn check_request(request: &Request) {
    let mut line = serde_json::to_vec(request).expect("a request can be written");
    assert!(!line.contains(&b'\n'));
    line.push(b'\n');
    assert_eq!(read_request(&mut &line[..]).as_ref(), Ok(request));
}

fn check_refusal(refusal: &Reply, asked: usize) {
    let Reply::Refused(why) = refusal else {
        panic!("{refusal:?} to a line that was not understood");
    };
    assert!(!why.is_empty(), "refused for no reason");
    let len = why.len();
    assert!(
        len < 1000 + 2 * asked,
        "a refusal of {len} bytes to {asked}"
    );
    assert!(
        !why.contains(char::is_control),
        "{why:?} is not one line of text"
    );
}

/// Pieces of requests.
pub(super) const WORDS: &[&str] = &[
    r#"{"op":"status"}"#,
    r#"{"op":"mesh-create","slug":"s","name":null}"#,
    r#"{"op":"mesh-list"}"#,
    r#"{"op":"member-add","mesh":"m","name":"n","pubkey":null,"admin":false}"#,
    r#"{"op":"member-list","mesh":"m"}"#,
    r#"{"op":"member-revoke","member":"x"}"#,
    r#"{"op":"member-grants","member":"x","peer":"y","caps":["dm"]}"#,
    r#"{"op":"client-config","mesh":"m","member":"x"}"#,
    r#"{"op":"peers","mesh":"m"}"#,
    "\n",
    ",\"op\":\"peers\"",
    ",\"extra\":1",
    "\"caps\":[]",
    "\\u0000",
    "\\ud800",
    "null",
    "1e999",
    "[[[[[[[[[[[[[[[[",
    "\u{feff}",
];

/// A request, more or less.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut line = WORDS[rng.usize(..9)].as_bytes().to_vec();
    match rng.u8(..20) {
        0 => line.resize(line.len() + rng.usize(..70_000), b' '),
        1 => line
            .splice(0..0, vec![b' '; rng.usize(65_000..66_000)])
            .for_each(drop),
        _ => line.push(b'\n'),
    }
    line
}

/// A piece of a request more, before a brace.
pub(super) fn mutate(rng: &mut Rng, line: &mut Vec<u8>) {
    let word = rng.choice(WORDS).map_or("", |word| word);
    let ends: Vec<usize> = (0..line.len())
        .filter(|at| b"}\",:".contains(&line[*at]))
        .collect();
    let at = rng.choice(&ends).copied().unwrap_or(line.len());
    change::insert(line, at, word.as_bytes());
}
