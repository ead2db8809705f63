//! HTTP requests up to the upgrade: whatever way the bytes are cut, the same requests, bodies and
//! refusals come out, nothing beyond the limits is let in, and what follows an upgrade is kept.
//!
//! An input is one byte that chooses the cuts, and the stream.

use bytes::BytesMut;
use holdfast::shell::decoders::{Framing, HEAD_BYTES_MAX, Refusal, decode, decode_body};
use tungstenite::handshake::server::create_response;

use super::cut;
use crate::{Rng, mutate as change};

/// Largest body here.
const BODY_BYTES_MAX: usize = 300;

/// Longest input that is also given byte by byte.
const SINGLE_BYTES_MAX: usize = 300;

/// What a connection's bytes came to, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Method, target, flags in the order of the methods that tell them.
    Request(String, String, [bool; 5]),
    Body(Vec<u8>),
    Refused(Refusal),
    BodyTooLarge,
    /// What comes after the head belongs to WebSocket, if the handshake is answered.
    Upgrade(bool),
    Leftover(Vec<u8>),
}

/// Where a connection is between two reads.
enum Stage {
    Head,
    Body(Framing, BytesMut),
    Done,
}

struct Connection {
    stage: Stage,
    buffer: BytesMut,
    seen: Vec<Seen>,
}

/// See the module.
pub(super) fn run(input: &[u8]) {
    let [seed, stream @ ..] = input else { return };
    let whole = read(&[stream]);
    if stream.len() <= SINGLE_BYTES_MAX {
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), whole, "byte by byte");
    }
    for round in 0..3 {
        let pieces = cut(stream, u64::from(*seed) * 3 + round);
        let sizes = || pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(read(&pieces), whole, "cut into {:?}", sizes());
    }
}

fn read(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut connection = Connection {
        stage: Stage::Head,
        buffer: BytesMut::new(),
        seen: Vec::new(),
    };
    for piece in pieces {
        connection.buffer.extend_from_slice(piece);
        while connection.step() {}
    }
    let leftover = connection.buffer.to_vec();
    if let Some(Seen::Upgrade(_)) = connection.seen.last() {
        connection.seen.push(Seen::Leftover(leftover));
    }
    connection.seen
}

impl Connection {
    /// Goes on; false when it needs more or has ended.
    fn step(&mut self) -> bool {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Done => false,
            Stage::Head => self.head(),
            Stage::Body(framing, body) => self.body(framing, body),
        }
    }

    fn head(&mut self) -> bool {
        let before = self.buffer.to_vec();
        let request = match decode(&mut self.buffer) {
            Ok(Some(request)) => request,
            Ok(None) => {
                let waits = self.buffer.len() <= HEAD_BYTES_MAX;
                assert!(waits, "it waits for more than a head may have");
                self.stage = Stage::Head;
                return false;
            }
            Err(refusal) => return self.end(Seen::Refused(refusal)),
        };
        let blank = before.iter().take_while(|byte| b"\r\n".contains(byte));
        let taken = before.len() - self.buffer.len() - blank.count();
        assert!(taken <= HEAD_BYTES_MAX, "a head of {taken} bytes");
        let taken = &before[..before.len() - self.buffer.len()];
        assert!(taken.ends_with(b"\r\n\r\n"), "a head without its end");
        assert!(!request.target.is_empty() && !request.target.contains([' ', '\r', '\n']));
        let flags = [
            request.wants_websocket(),
            request.is_websocket_13(),
            request.is_head(),
            request.keep_alive(),
            request.expects_continue(),
        ];
        let method = request.method.to_string();
        self.seen
            .push(Seen::Request(method, request.target.clone(), flags));
        if request.wants_websocket() {
            let answered = create_response(&request.as_http()).is_ok();
            return self.end(Seen::Upgrade(answered));
        }
        match request.framing() {
            Err(refusal) => self.end(Seen::Refused(refusal)),
            Ok(Framing::Length(length)) if length > BODY_BYTES_MAX => self.end(Seen::BodyTooLarge),
            Ok(framing) => {
                self.stage = Stage::Body(framing, BytesMut::new());
                true
            }
        }
    }

    fn body(&mut self, framing: Framing, mut body: BytesMut) -> bool {
        match decode_body(framing, &mut self.buffer, &mut body) {
            _ if body.len() > BODY_BYTES_MAX => self.end(Seen::BodyTooLarge),
            Err(refusal) => self.end(Seen::Refused(refusal)),
            Ok(true) => {
                self.seen.push(Seen::Body(body.to_vec()));
                self.stage = Stage::Head;
                true
            }
            Ok(false) if body.len() + self.buffer.len() > 2 * BODY_BYTES_MAX => {
                self.end(Seen::BodyTooLarge)
            }
            Ok(false) => {
                self.stage = Stage::Body(framing, body);
                false
            }
        }
    }

    fn end(&mut self, seen: Seen) -> bool {
        self.seen.push(seen);
        false
    }
}

/// Pieces of requests.
pub(super) const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /ws HTTP/1.1\r\n",
    "POST /hook/set-status HTTP/1.1\r\n",
    "HEAD /health HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "Host: x\r\n",
    "Connection: Upgrade\r\n",
    "Connection: keep-alive, close\r\n",
    "Upgrade: websocket\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Version: 8\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 301\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: +5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Expect: 100-continue\r\n",
    "X: \u{e9}\r\n",
    " folded\r\n",
    "A: b\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "hello",
    "5\r\nhello\r\n",
    "12c\r\n",
    "ffffffff\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "HTTP/2.0",
    "\u{0}",
    "\t",
    ":",
];

/// A few requests, one after the other.
pub(super) fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut input = vec![rng.u8(..)];
    for _ in 0..rng.u8(1..4) {
        input.extend(WORDS[rng.usize(..5)].bytes());
        for _ in 0..rng.u8(..6) {
            input.extend(WORDS[rng.usize(5..23)].bytes());
        }
        if rng.u8(..40) == 0 {
            input.extend(format!("L: {}\r\n", "x".repeat(8100 + rng.usize(..100))).bytes());
        }
        if rng.u8(..40) == 0 {
            input.extend("A: b\r\n".repeat(94 + rng.usize(..5)).bytes());
        }
        input.extend(b"\r\n");
        for _ in 0..rng.u8(..4) {
            input.extend(WORDS[rng.usize(23..WORDS.len())].bytes());
        }
    }
    input
}

/// A piece of a request more, or a line gone or moved.
pub(super) fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    if rng.bool() {
        return change::lines(rng, input);
    }
    let ends: Vec<usize> = (0..input.len()).filter(|at| input[*at] == b'\n').collect();
    let at = rng.choice(&ends).map_or(input.len(), |end| end + 1);
    let word = rng.choice(WORDS).map_or("", |word| word);
    change::insert(input, at, word.as_bytes());
}
