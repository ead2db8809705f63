//! WebSocket frames where they lie: parsed, unmasked, and answered without a copy.
//!
//! A frame from a client has a mask, so its header is 4 bytes longer than that of the answer: the
//! answer's header fits in front of the same payload. Only what a floor meets is understood; the
//! rest ends the connection.

use std::ops::Range;

/// Longest header of a frame to a client.
const ANSWER_HEADER_MAX: usize = 10;

/// Operation codes (RFC 6455 §5.2).
pub(super) mod opcode {
    pub(in super::super) const TEXT: u8 = 1;
    pub(in super::super) const CLOSE: u8 = 8;
    pub(in super::super) const PING: u8 = 9;
    pub(in super::super) const PONG: u8 = 10;
}

/// The bit of the first byte that says that a message ends here.
pub(super) const FINAL: u8 = 0x80;

/// A client that broke the protocol, or sent what no floor expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Final bit and operation code.
    pub(super) first: u8,
    /// Where its payload lies.
    pub(super) payload: Range<usize>,
}

impl Frame {
    /// What it is.
    pub(super) fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Whether it is text, binary, or a further part of either.
    pub(super) fn is_data(&self) -> bool {
        self.opcode() < 8
    }
}

/// The frames in a buffer, and the answers written over them.
pub(super) struct Frames<'a> {
    bytes: &'a mut [u8],
    read: usize,
    answers: Range<usize>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            read: 0,
            answers: 0..0,
        }
    }

    /// The next whole frame, unmasked; None if there is none.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(input) = self.bytes.get_mut(self.read..) else {
            return Ok(None);
        };
        let Some(header) = Header::parse(input)? else {
            return Ok(None);
        };
        let end = header.len.checked_add(header.payload).ok_or(Malformed)?;
        let Some(payload) = input.get_mut(header.len..end) else {
            return Ok(None);
        };
        unmask(payload, header.mask);
        let start = self.read + header.len;
        self.read += end;
        Ok(Some(Frame {
            first: header.first,
            payload: start..self.read,
        }))
    }

    /// Answers `frame`, the last that was returned, by one of the same payload behind `first`.
    pub(super) fn answer(&mut self, frame: &Frame, first: u8) {
        let (header, len) = header(first, frame.payload.len());
        if self.answers.is_empty() {
            let start = frame.payload.start - len;
            self.answers = start..start;
        }
        // Answers are shorter than what they answer, so they never reach what is unread.
        let at = self.answers.end;
        self.bytes[at..at + len].copy_from_slice(&header[..len]);
        if at + len != frame.payload.start {
            self.bytes.copy_within(frame.payload.clone(), at + len);
        }
        self.answers.end = at + len + frame.payload.len();
    }

    /// The payload of a frame that has not been answered.
    pub(super) fn payload(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.payload.clone()]
    }

    /// All answers, as they are to be sent.
    pub(super) fn answers(&self) -> &[u8] {
        &self.bytes[self.answers.clone()]
    }

    /// What is left: the beginning of a frame, or nothing.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// How many bytes have been read as frames.
    pub(super) fn consumed(&self) -> usize {
        self.read
    }
}

struct Header {
    first: u8,
    mask: [u8; 4],
    /// Of the header itself.
    len: usize,
    /// Of the payload.
    payload: usize,
}

impl Header {
    fn parse(input: &[u8]) -> Result<Option<Self>, Malformed> {
        let &[first, second, ref rest @ ..] = input else {
            return Ok(None);
        };
        let (masked, reserved) = (second & 0x80 != 0, first & 0x70 != 0);
        if !masked || reserved {
            return Err(Malformed);
        }
        let (extended, payload) = match second & 0x7f {
            126 => (2, big_endian(rest.get(..2))),
            127 => (8, big_endian(rest.get(..8))),
            len => (0, Some(u64::from(len))),
        };
        let Some(payload) = payload else {
            return Ok(None);
        };
        let Some(&mask) = rest.get(extended..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            first,
            mask,
            len: 2 + extended + mask.len(),
            payload: usize::try_from(payload).map_err(|_| Malformed)?,
        }))
    }
}

fn big_endian(bytes: Option<&[u8]>) -> Option<u64> {
    let join = |sum: u64, &byte: &u8| (sum << 8) | u64::from(byte);
    Some(bytes?.iter().fold(0, join))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let key = u32::from_ne_bytes(mask);
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// The header of a frame to a client, and its length.
fn header(first: u8, payload: usize) -> ([u8; ANSWER_HEADER_MAX], usize) {
    let mut bytes = [0; ANSWER_HEADER_MAX];
    bytes[0] = first;
    let wide = (payload as u64).to_be_bytes();
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(len @ ..126), _) => {
            bytes[1] = len;
            (bytes, 2)
        }
        (_, Ok(len)) => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            (bytes, 4)
        }
        (_, Err(_)) => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&wide);
            (bytes, 10)
        }
    }
}

/// A whole frame to a client.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let (header, len) = header(first, payload.len());
    [&header[..len], payload].concat()
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::Frame as Theirs;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    fn from_client(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Theirs::message(payload.to_vec(), opcode, true);
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn answers_hold_the_payloads_one_behind_the_other() {
        let lens = [0, 1, 125, 126, 200, 65_535, 65_536, 3];
        let (mut input, mut expected) = (Vec::new(), Vec::new());
        for (seed, &len) in (7_u8..).zip(&lens) {
            let payload: Vec<u8> = (0..251).map(|at: u8| at ^ seed).cycle().take(len).collect();
            input.extend(from_client(OpCode::Data(Data::Text), &payload));
            let mut answer = Vec::new();
            Theirs::message(payload, OpCode::Data(Data::Text), true)
                .format(&mut answer)
                .unwrap();
            expected.extend(answer);
        }
        let whole = input.len();
        input.extend(&from_client(OpCode::Data(Data::Text), b"cut off")[..4]);
        let mut frames = Frames::new(&mut input);
        while let Some(frame) = frames.next().unwrap() {
            assert!(frame.is_data());
            frames.answer(&frame, frame.first);
        }
        assert_eq!(frames.answers(), expected);
        assert_eq!((frames.consumed(), frames.rest().len()), (whole, 4));
    }

    #[test]
    fn a_frame_is_whole_or_not_there() {
        let bytes = from_client(OpCode::Data(Data::Binary), &[9; 300]);
        for cut in 0..bytes.len() {
            let mut part = bytes[..cut].to_vec();
            let mut frames = Frames::new(&mut part);
            assert_eq!(frames.next(), Ok(None), "{cut}");
            assert_eq!(frames.rest(), &bytes[..cut]);
        }
    }

    #[test]
    fn what_no_client_may_send_is_malformed() {
        for bytes in [[0x81, 0x01, 0x41], [0xc1, 0x81, 0x00]] {
            assert_eq!(Frames::new(&mut bytes.to_vec()).next(), Err(Malformed));
        }
    }

    #[test]
    fn frames_made_whole_are_what_tungstenite_makes() {
        for len in [0, 200, 70_000] {
            let payload = vec![b'x'; len];
            let mut theirs = Vec::new();
            Theirs::message(payload.clone(), OpCode::Data(Data::Text), true)
                .format(&mut theirs)
                .unwrap();
            assert_eq!(frame(FINAL | opcode::TEXT, &payload), theirs);
        }
    }
}
