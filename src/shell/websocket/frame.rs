//! Single frames: headers in and out, masks.

use std::io::Cursor;
use std::mem;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{CONTROL_MAX, HEADER_MAX, Violation, protocol};

/// A header, the length of its payload, and its own.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("reserved opcode"))?;
    // A header is at most 14 bytes.
    let len = usize::try_from(cursor.position()).unwrap_or(HEADER_MAX);
    Ok(parsed.map(|(header, payload)| (header, payload, len)))
}

/// Takes `count` bytes off `input`.
pub(super) fn skip(input: &mut &mut [u8], count: usize) {
    let (_, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
}

/// Takes `count` bytes off `input` and unmasks them where they lie.
pub(super) fn unmasked<'i>(input: &mut &'i mut [u8], count: usize, mask: [u8; 4]) -> &'i [u8] {
    let (payload, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    payload
}

/// The header of a frame to a client.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shell) struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// Of a text message of `len` bytes.
    pub(in crate::shell) fn text(len: usize) -> Self {
        Self::new(OpCode::Data(Data::Text), len)
    }

    /// Of a control frame; its payload is at most 125 bytes.
    pub(in crate::shell) fn control(control: Control, len: usize) -> Self {
        Self::new(OpCode::Control(control), len)
    }

    fn new(opcode: OpCode, len: usize) -> Self {
        let header = FrameHeader {
            opcode,
            ..FrameHeader::default()
        };
        let mut bytes = [0; 10];
        let mut room = &mut bytes[..];
        // An unmasked header is at most 10 bytes, so it is always written whole.
        let written = header
            .format(len as u64, &mut room)
            .map_or(0, |()| 10 - room.len());
        Self {
            bytes,
            len: u8::try_from(written).unwrap_or(0),
        }
    }

    /// Whether it is that of a pong.
    pub(in crate::shell) fn is_pong(&self) -> bool {
        self.bytes().first() == Some(&(0x80 | u8::from(OpCode::Control(Control::Pong))))
    }

    /// As written.
    pub(in crate::shell) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The payload of a close frame. Reasons of more than 123 bytes are cut at a character.
pub(in crate::shell) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat()
}
