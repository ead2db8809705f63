//! Request bodies from bytes, without I/O (RFC 9112 §6 and §7.1). Chunks are read strictly: what two
//! readers could take for two things is refused (request smuggling).

use bytes::{Buf, BytesMut};

use super::head::Refusal;

/// Longest line before a chunk's data. Its extensions mean nothing here and are thrown away (RFC
/// 9112 §7.1.1), and so are the trailers of the last chunk, which count as part of its line.
pub(super) const CHUNK_HEAD_BYTES_MAX: usize = 256;

/// Most digits of a chunk's size, leading zeros included.
const SIZE_DIGITS_MAX: usize = 16;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(usize),
    /// With the chunk of length 0.
    Chunked,
}

/// Moves body bytes from `buffer` to `body`; true when the body is whole.
pub fn decode_body(
    framing: Framing,
    buffer: &mut BytesMut,
    body: &mut BytesMut,
) -> Result<bool, Refusal> {
    match framing {
        Framing::None => Ok(true),
        Framing::Length(length) => {
            if buffer.len() < length {
                return Ok(false);
            }
            *body = buffer.split_to(length);
            Ok(true)
        }
        Framing::Chunked => loop {
            match chunk(buffer)? {
                None => return Ok(false),
                Some(data) if data.is_empty() => return Ok(true),
                Some(data) => body.extend_from_slice(&data),
            }
        },
    }
}

/// Takes one whole chunk off `buffer`; the last one is empty.
fn chunk(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Refusal> {
    let Some(line) = upto(buffer, b"\r\n")? else {
        return Ok(None);
    };
    let size = size(line)?;
    let head = line.len() + 2;
    if size == 0 {
        return Ok(end(buffer, line.len())?.map(|end| {
            buffer.advance(end);
            BytesMut::new()
        }));
    }
    let Some(after) = buffer.get(head + size..head + size + 2) else {
        return Ok(None);
    };
    if after != b"\r\n" {
        return Err(Refusal::Malformed);
    }
    buffer.advance(head);
    let data = buffer.split_to(size);
    buffer.advance(2);
    Ok(Some(data))
}

/// Where the last chunk ends, whose line is `line` bytes long: behind the empty line that follows
/// it or its trailers.
fn end(buffer: &[u8], line: usize) -> Result<Option<usize>, Refusal> {
    let Some(head) = upto(buffer, b"\r\n\r\n")? else {
        return Ok(None);
    };
    let mut trailers = head.get(line..).unwrap_or_default();
    while let Some(at) = find(trailers, b"\r\n") {
        let (trailer, rest) = trailers.split_at(at);
        if has_control(trailer) {
            return Err(Refusal::Malformed);
        }
        trailers = &rest[2..];
    }
    if has_control(trailers) {
        return Err(Refusal::Malformed);
    }
    Ok(Some(head.len() + 4))
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

/// What comes before `mark`, if that has come.
fn upto<'b>(buffer: &'b [u8], mark: &[u8]) -> Result<Option<&'b [u8]>, Refusal> {
    let found = find(buffer, mark);
    let length = found.unwrap_or_else(|| (buffer.len() + 1).saturating_sub(mark.len()));
    if length > CHUNK_HEAD_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    Ok(found.and_then(|at| buffer.get(..at)))
}

/// The size that a chunk's line announces.
fn size(line: &[u8]) -> Result<usize, Refusal> {
    let mut parts = line.splitn(2, |&byte| byte == b';');
    let digits = parts.next().unwrap_or_default();
    let digits = match parts.next() {
        // Blanks before an extension are allowed for the sake of old senders.
        Some(extension) if !has_control(extension) => digits.trim_ascii_end(),
        Some(_) => return Err(Refusal::Malformed),
        None => digits,
    };
    let hex = digits.iter().all(u8::is_ascii_hexdigit) && digits.len() <= SIZE_DIGITS_MAX;
    let size = std::str::from_utf8(digits)
        .ok()
        .filter(|_| hex)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    Ok(size.ok_or(Refusal::Malformed)? as usize)
}

/// Whether there is a byte that has no place in a line; a line feed alone is one.
fn has_control(line: &[u8]) -> bool {
    line.iter()
        .any(|&byte| byte.is_ascii_control() && byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body, and what follows it.
    type Split = (Vec<u8>, Vec<u8>);

    /// Given all at once.
    fn whole(text: &[u8]) -> Result<Option<Split>, Refusal> {
        let (mut body, mut buffer) = (BytesMut::new(), BytesMut::from(text));
        let done = decode_body(Framing::Chunked, &mut buffer, &mut body)?;
        Ok(done.then(|| (body.to_vec(), buffer.to_vec())))
    }

    /// The same, byte by byte.
    fn trickled(text: &[u8]) -> Result<Option<Split>, Refusal> {
        let (mut body, mut buffer) = (BytesMut::new(), BytesMut::new());
        let mut done = false;
        for byte in text {
            buffer.extend_from_slice(&[*byte]);
            done = done || decode_body(Framing::Chunked, &mut buffer, &mut body)?;
        }
        Ok(done.then(|| (body.to_vec(), buffer.to_vec())))
    }

    #[test]
    fn chunks_come_in_any_number_of_pieces() {
        let text = b"5\r\nhello\r\n000A\r\n, chunked!\r\n0\r\n\r\nNEXT";
        let expected = Ok(Some((b"hello, chunked!".to_vec(), b"NEXT".to_vec())));
        assert_eq!(whole(text), expected);
        assert_eq!(trickled(text), expected);
    }

    #[test]
    fn extensions_and_trailers_are_ignored() {
        for text in [
            &b"5;a=b\r\nhello\r\n0\r\n\r\nNEXT"[..],
            b"5 \t; a ;b=\"c;d\"\r\nhello\r\n0;last\r\n\r\nNEXT",
            b"5\r\nhello\r\n0\r\nA: b\r\n\r\nNEXT",
            b"5\r\nhello\r\n00;x\r\nA: b\r\nSum: \tx\r\n\r\nNEXT",
        ] {
            let expected = Ok(Some((b"hello".to_vec(), b"NEXT".to_vec())));
            let shown = text.escape_ascii();
            assert_eq!(whole(text), expected, "{shown}");
            assert_eq!(trickled(text), expected, "{shown}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = [b"1;", &[b'x'; CHUNK_HEAD_BYTES_MAX][..]].concat();
        let trailers = [b"0\r\nA: ", &[b'x'; CHUNK_HEAD_BYTES_MAX][..]].concat();
        for text in [
            &b"x\r\n"[..],
            b"\r\n",
            b";a\r\n",
            b"+5\r\nhello\r\n",
            b"-5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5_\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5;\0\r\nhello\r\n",
            b"2\r\nabc\r\n",
            b"2\r\nab\n\n",
            b"ffffffffffffffffff\r\n",
            b"1ffffffff\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"0\r\nA: b\nC: d\r\n\r\n",
            b"0\r\nA: b\rC: d\r\n\r\n",
            b"0\r\nA: b\0\r\n\r\n",
            &long,
            &trailers,
        ] {
            let shown = text.escape_ascii();
            assert_eq!(whole(text), Err(Refusal::Malformed), "{shown}");
            assert_eq!(trickled(text), Err(Refusal::Malformed), "{shown}");
        }
    }
}
