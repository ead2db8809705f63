//! WebSocket frames as a client reads and writes them (RFC 6455 §5).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Largest frame that is taken from a broker, in bytes.
const FRAME_MAX: u64 = 16 << 20;

/// A frame of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A ping to be answered.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// The close frame: code (1005 if it had none) and reason.
    Close(u16, &'a str),
}

/// Why a connection cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(&'static str);

/// The first frame of `bytes` and its whole length; `None` if it is not all there.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Heard<'_>, usize)>, Unreadable> {
    let mut cursor = Cursor::new(bytes);
    let header = FrameHeader::parse(&mut cursor).map_err(|_| Unreadable("not a frame"))?;
    let Some((header, length)) = header else {
        return Ok(None);
    };
    if length > FRAME_MAX {
        return Err(Unreadable("a frame that is too long"));
    }
    if header.mask.is_some() {
        return Err(Unreadable("a masked frame"));
    }
    let place = |at: u64| usize::try_from(at).map_err(|_| Unreadable("a frame that is too long"));
    let start = place(cursor.position())?;
    let end = place(cursor.position().saturating_add(length))?;
    let Some(payload) = bytes.get(start..end) else {
        return Ok(None);
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Unreadable("text that is not UTF-8"));
    let heard = match header.opcode {
        OpCode::Data(Data::Text) if header.is_final => Heard::Text(text(payload)?),
        OpCode::Control(Control::Ping) => Heard::Ping(payload),
        OpCode::Control(Control::Pong) => Heard::Pong(payload),
        OpCode::Control(Control::Close) => match payload.split_first_chunk::<2>() {
            Some((code, reason)) => Heard::Close(u16::from_be_bytes(*code), text(reason)?),
            None => Heard::Close(1005, ""),
        },
        OpCode::Data(_) | OpCode::Control(Control::Reserved(_)) => {
            return Err(Unreadable("a frame that no broker sends"));
        }
    };
    Ok(Some((heard, end)))
}

/// Appends a frame, masked as clients must; the mask is not meant to surprise anybody.
pub(super) fn write(opcode: OpCode, payload: &[u8], mask: u32, out: &mut Vec<u8>) {
    let mask = mask.to_be_bytes();
    let header = FrameHeader {
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    // Writing into memory does not fail, and no frame of ours is longer than what a length can say.
    let _written = header.format(payload.len() as u64, out);
    let from = out.len();
    out.extend_from_slice(payload);
    let masked = out.get_mut(from..).unwrap_or_default();
    for (byte, key) in masked.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let two = b"\x81\x02hi\x89\x01p\x88\x05\x03\xe8bye";
        let (heard, first) = parse(two).unwrap().unwrap();
        assert_eq!((heard, first), (Heard::Text("hi"), 4));
        let (heard, second) = parse(&two[4..]).unwrap().unwrap();
        assert_eq!((heard, second), (Heard::Ping(b"p"), 3));
        let (heard, _) = parse(&two[7..]).unwrap().unwrap();
        assert_eq!(heard, Heard::Close(1000, "bye"));
        assert_eq!(parse(&two[..3]).unwrap(), None);
        assert_eq!(parse(b"").unwrap(), None);
    }

    #[test]
    fn what_no_broker_sends_is_an_error() {
        for bytes in [
            &b"\x81\x82\0\0\0\0hi"[..],
            b"\x82\x00",
            b"\x81\x01\xff",
            b"\x81\x7f\0\0\0\0\x7f\0\0\0",
            b"\x8b\x00",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_is_masked() {
        let mut out = Vec::new();
        write(OpCode::Data(Data::Text), b"abcde", 0x0102_0304, &mut out);
        assert_eq!(out[..6], [0x81, 0x85, 1, 2, 3, 4]);
        assert_eq!(out[6..], [b'a' ^ 1, b'b' ^ 2, b'c' ^ 3, b'd' ^ 4, b'e' ^ 1]);
    }
}
