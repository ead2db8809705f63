//! Every rule of RFC 6455 the reader enforces, whole and split at every byte.

use super::*;

const MAX: usize = 1000;

/// What a client said, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Undecodable,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Broke(u16),
}

fn frame_with(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

fn text(payload: &str) -> Vec<u8> {
    frame_with(0x81, payload.as_bytes())
}

/// Feeds `chunks` one after the other.
fn feed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Said>, bool) {
    let mut reader = Reader::default();
    let mut said = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut input = &mut chunk[..];
        loop {
            match reader.next(&mut input, MAX) {
                Ok(None) => break,
                Ok(Some(message)) => said.push(match message {
                    Message::Text(text) => Said::Text(text.to_owned()),
                    Message::Undecodable => Said::Undecodable,
                    Message::Ping(payload) => Said::Ping(payload.to_vec()),
                    Message::Pong(payload) => Said::Pong(payload.to_vec()),
                    Message::Close(code) => Said::Close(code),
                }),
                Err(violation) => {
                    said.push(Said::Broke(violation.code));
                    return (said, true);
                }
            }
        }
        assert!(input.is_empty(), "starved with input left");
    }
    (said, reader.is_idle())
}

/// The same in one piece, byte by byte, and cut in two at every place.
fn check(bytes: &[u8], expected: &[Said]) {
    let (whole, _) = feed([bytes]);
    assert_eq!(whole, expected);
    let (single, _) = feed(bytes.chunks(1));
    assert_eq!(single, expected, "byte by byte");
    for at in 0..=bytes.len() {
        let (halves, _) = feed([&bytes[..at], &bytes[at..]]);
        assert_eq!(halves, expected, "cut at {at}");
    }
}

#[test]
fn messages_of_every_length_format() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 999, 1000] {
        let payload: String = ('a'..='z').cycle().take(len).collect();
        check(&text(&payload), &[Said::Text(payload)]);
    }
}

#[test]
fn several_messages_in_one_read() {
    let bytes = [
        text("one"),
        frame_with(0x89, b"p"),
        text("two"),
        frame_with(0x8a, b"q"),
    ]
    .concat();
    check(
        &bytes,
        &[
            Said::Text("one".into()),
            Said::Ping(b"p".into()),
            Said::Text("two".into()),
            Said::Pong(b"q".into()),
        ],
    );
}

#[test]
fn binary_is_text_if_it_can_be() {
    check(&frame_with(0x82, b"{}"), &[Said::Text("{}".into())]);
    check(&frame_with(0x82, &[0xff, 0xfe]), &[Said::Undecodable]);
    let halves = [frame_with(0x02, &[0xff]), frame_with(0x80, &[0xfe])].concat();
    check(&halves, &[Said::Undecodable]);
}

#[test]
fn fragments_with_control_frames_between_them() {
    let bytes = [
        frame_with(0x01, b"Hel"),
        frame_with(0x89, b"ping"),
        frame_with(0x00, b""),
        frame_with(0x8a, b""),
        frame_with(0x80, b"lo"),
        text("next"),
    ]
    .concat();
    check(
        &bytes,
        &[
            Said::Ping(b"ping".into()),
            Said::Pong(Vec::new()),
            Said::Text("Hello".into()),
            Said::Text("next".into()),
        ],
    );
}

#[test]
fn characters_split_over_fragments() {
    let snowman = "\u{2603}\u{1f600}".as_bytes();
    for at in 0..=snowman.len() {
        let bytes = [
            frame_with(0x01, &snowman[..at]),
            frame_with(0x80, &snowman[at..]),
        ]
        .concat();
        check(&bytes, &[Said::Text("\u{2603}\u{1f600}".into())]);
    }
}

#[test]
fn invalid_utf8_is_1007_as_soon_as_it_shows() {
    check(&frame_with(0x81, &[0xce, 0xba, 0xff]), &[Said::Broke(1007)]);
    // A character cut off by the end of the message.
    check(&frame_with(0x81, &[0xe2, 0x98]), &[Said::Broke(1007)]);
    let cut = [frame_with(0x01, &[0xe2, 0x98]), frame_with(0x80, b"")].concat();
    check(&cut, &[Said::Broke(1007)]);
    // A surrogate, and an overlong form.
    check(&frame_with(0x81, &[0xed, 0xa0, 0x80]), &[Said::Broke(1007)]);
    check(&frame_with(0x81, &[0xc0, 0x80]), &[Said::Broke(1007)]);
    // The first fragment shows it: the message need not end.
    check(&frame_with(0x01, &[0x61, 0xff]), &[Said::Broke(1007)]);
}

#[test]
fn broken_headers_are_1002() {
    for first in [0xc1, 0xa1, 0x91, 0xf1] {
        check(&frame_with(first, b"x"), &[Said::Broke(1002)]);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&frame_with(0x80 | opcode, b"x"), &[Said::Broke(1002)]);
    }
    // Not masked.
    check(&[0x81, 0x01, b'x'], &[Said::Broke(1002)]);
    check(&[0x81, 0x00], &[Said::Broke(1002)]);
}

#[test]
fn control_frames_are_short_and_whole() {
    check(&frame_with(0x89, &[0; 125]), &[Said::Ping(vec![0; 125])]);
    for opcode in [8, 9, 10] {
        check(&frame_with(0x80 | opcode, &[0; 126]), &[Said::Broke(1002)]);
        check(&frame_with(opcode, b""), &[Said::Broke(1002)]);
    }
}

#[test]
fn continuations_come_when_they_must_and_only_then() {
    check(&frame_with(0x80, b"x"), &[Said::Broke(1002)]);
    check(&frame_with(0x00, b"x"), &[Said::Broke(1002)]);
    for second in [0x81, 0x82, 0x01, 0x02] {
        let bytes = [frame_with(0x01, b"a"), frame_with(second, b"b")].concat();
        check(&bytes, &[Said::Broke(1002)]);
    }
    // After the last fragment there is nothing to continue.
    let bytes = [
        frame_with(0x01, b"a"),
        frame_with(0x80, b"b"),
        frame_with(0x80, b"c"),
    ]
    .concat();
    check(&bytes, &[Said::Text("ab".into()), Said::Broke(1002)]);
}

#[test]
fn close_frames() {
    check(&frame_with(0x88, b""), &[Said::Close(None)]);
    check(&frame_with(0x88, &[3]), &[Said::Broke(1002)]);
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1013, 1014, 3000, 4001, 4999,
    ] {
        check(
            &frame_with(0x88, &close_payload(code, "bye")),
            &[Said::Close(Some(code))],
        );
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        check(
            &frame_with(0x88, &close_payload(code, "bye")),
            &[Said::Broke(1002)],
        );
    }
    check(&frame_with(0x88, &[0x03, 0xe8, 0xff]), &[Said::Broke(1007)]);
}

#[test]
fn too_big_is_1009_before_it_is_read() {
    let whole = frame_with(0x81, &[b'x'; MAX + 1]);
    check(&whole, &[Said::Broke(1009)]);
    // The header alone tells.
    let (said, _) = feed([&whole[..8]]);
    assert_eq!(said, [Said::Broke(1009)]);
    let mut absurd = vec![0x81, 0xff];
    absurd.extend(u64::MAX.to_be_bytes());
    absurd.extend([0; 4]);
    check(&absurd, &[Said::Broke(1009)]);
    // In fragments, by the sum.
    let bytes = [
        frame_with(0x01, &[b'x'; 600]),
        frame_with(0x80, &[b'x'; 401]),
    ]
    .concat();
    let (said, _) = feed([&bytes[..]]);
    assert_eq!(said, [Said::Broke(1009)]);
    let fits = [
        frame_with(0x01, &[b'x'; 600]),
        frame_with(0x80, &[b'x'; 400]),
    ]
    .concat();
    let (said, _) = feed([&fits[..]]);
    assert_eq!(said, [Said::Text("x".repeat(1000))]);
}

#[test]
fn nothing_is_held_between_messages() {
    let bytes = text("something long enough");
    let (_, idle) = feed([&bytes[..]]);
    assert!(idle);
    for at in 1..bytes.len() {
        let (_, idle) = feed([&bytes[..at]]);
        assert!(!idle, "cut at {at}");
        let (_, idle) = feed([&bytes[..at], &bytes[at..]]);
        assert!(idle, "cut at {at}, then the rest");
    }
    assert_eq!(size_of::<Reader>(), size_of::<usize>());
}

#[test]
fn headers_written_are_those_a_client_expects() {
    assert_eq!(Header::text(5).bytes(), [0x81, 5]);
    assert_eq!(Header::text(200).bytes(), [0x81, 126, 0, 200]);
    assert_eq!(
        Header::text(70_000).bytes(),
        [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]
    );
    assert_eq!(Header::control(Control::Ping, 8).bytes(), [0x89, 8]);
    assert_eq!(close_payload(1001, "x"), [0x03, 0xe9, b'x']);
    assert_eq!(close_payload(1001, &"\u{2603}".repeat(60)).len(), 2 + 123);
}
