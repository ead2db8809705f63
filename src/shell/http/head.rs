//! Request heads from bytes, without I/O: monoio-http's decoder behind the limits that it lacks.

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Version};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{DecodeError, RequestHeadDecoder};

use super::body::Framing;
use crate::shell::limits::HEAD_BYTES_MAX;

/// Longest method; what has no space within it is not HTTP.
const METHOD_MAX: usize = 20;

/// A request without its body.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// As written, query string and all: routes match it whole.
    pub target: String,
    version: Version,
    headers: HeaderMap,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400.
    Malformed,
    /// 431.
    TooLarge,
}

/// Takes a head off `buffer`; None if it has not come whole.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Request>, Refusal> {
    let blank = buffer
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    buffer.advance(blank);
    if !plausible(buffer) {
        return Err(Refusal::Malformed);
    }
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if buffer.len() > HEAD_BYTES_MAX {
            Err(Refusal::TooLarge)
        } else {
            Ok(None)
        };
    };
    if end + 4 > HEAD_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let target = target_of(buffer);
    match RequestHeadDecoder.decode(buffer) {
        Ok(Decoded::Some(head)) => {
            let target = target.ok_or(Refusal::Malformed)?;
            let http::request::Parts {
                method,
                version,
                headers,
                ..
            } = head;
            Ok(Some(Request {
                method,
                target,
                version,
                headers,
            }))
        }
        Ok(Decoded::Insufficient | Decoded::InsufficientAtLeast(_)) => Err(Refusal::Malformed),
        Err(DecodeError::Parse(httparse::Error::TooManyHeaders)) => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::Malformed),
    }
}

/// Whether this can still become a request: garbage is refused at once, not when it times out.
fn plausible(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|&&byte| byte != b' ').count();
    method <= METHOD_MAX
        && (method > 0 || bytes.is_empty())
        && bytes[..method].iter().all(u8::is_ascii_uppercase)
}

fn target_of(bytes: &[u8]) -> Option<String> {
    let target = bytes.split(|&byte| byte == b' ' || byte == b'\r').nth(1)?;
    Some(std::str::from_utf8(target).ok()?.to_owned())
}

impl Request {
    /// Whether it asks for a WebSocket, rightly or not.
    pub fn wants_websocket(&self) -> bool {
        self.has_token(&UPGRADE, "websocket")
    }

    /// Whether it names the one version there is.
    pub fn is_websocket_13(&self) -> bool {
        self.headers
            .get("sec-websocket-version")
            .is_some_and(|version| version == "13")
    }

    /// For tungstenite, which looks at the method, the version and the headers.
    pub fn as_http(&self) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The value of a header, if it is there once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// Whether its answer has no body.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether another request may follow.
    pub fn keep_alive(&self) -> bool {
        if self.version == Version::HTTP_11 {
            !self.has_token(&CONNECTION, "close")
        } else {
            self.has_token(&CONNECTION, "keep-alive")
        }
    }

    /// Whether the client waits for leave to send its body.
    pub fn expects_continue(&self) -> bool {
        self.has_token(&EXPECT, "100-continue")
    }

    /// How its body ends; one that could be read in two ways is refused (request smuggling).
    pub fn framing(&self) -> Result<Framing, Refusal> {
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err(Refusal::Malformed);
        }
        let mut codings = self.headers.get_all(TRANSFER_ENCODING).iter();
        match (length, codings.next(), codings.next()) {
            (None, None, None) => Ok(Framing::None),
            (Some(length), None, None) => {
                let text = length.to_str().map_err(|_| Refusal::Malformed)?;
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let length = text
                    .parse()
                    .ok()
                    .filter(|_| digits)
                    .ok_or(Refusal::Malformed)?;
                Ok(if length == 0 {
                    Framing::None
                } else {
                    Framing::Length(length)
                })
            }
            (None, Some(coding), None)
                if self.version == Version::HTTP_11
                    && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Framing::Chunked)
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => Err(Refusal::Malformed),
        }
    }

    fn has_token(&self, name: &HeaderName, token: &str) -> bool {
        let values = self.headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(text: &[u8]) -> Result<Option<Request>, Refusal> {
        decode(&mut BytesMut::from(text))
    }

    fn request(text: &str) -> Request {
        decode_all(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_comes_in_any_number_of_pieces_and_leaves_the_rest() {
        let text = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\n\r\n\x81\x80rest";
        let mut buffer = BytesMut::new();
        for (at, byte) in text.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            if at < 48 {
                assert!(decode(&mut buffer).unwrap().is_none(), "at {at}");
            }
        }
        let request = decode(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("GET", "/ws")
        );
        assert!(request.wants_websocket());
        assert_eq!(&buffer[..], b"\x81\x80rest");
    }

    #[test]
    fn targets_are_kept_as_written() {
        for target in ["/health?x", "/ws#f", "http://h/ws", "/%77s", "//ws", "*"] {
            let head = format!("OPTIONS {target} HTTP/1.1\r\n\r\n");
            match decode_all(head.as_bytes()) {
                Ok(Some(request)) => assert_eq!(request.target, target),
                Ok(None) => panic!("{target} is whole"),
                Err(refusal) => assert_eq!(refusal, Refusal::Malformed),
            }
        }
    }

    #[test]
    fn garbage_is_refused_without_waiting_for_its_end() {
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"get / HTTP/1.1\r\n\r\n",
            b"\x00",
            b" GET / HTTP/1.1\r\n\r\n",
            b"AAAAAAAAAAAAAAAAAAAAAAAAA",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\n: empty name\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        ] {
            assert_eq!(
                decode_all(garbage).err(),
                Some(Refusal::Malformed),
                "{garbage:?}"
            );
        }
    }

    #[test]
    fn no_byte_anywhere_in_a_head_panics() {
        let text = b"GET /x HTTP/1.1\r\nHost: x\r\nA-b: c\r\n\r\n";
        for at in 0..text.len() {
            for byte in 0..=255 {
                let mut broken = text.to_vec();
                broken[at] = byte;
                decode_all(&broken).ok();
            }
        }
    }

    #[test]
    fn heads_are_bounded_in_bytes_and_in_headers() {
        let long = format!(
            "GET / HTTP/1.1\r\nA: {}\r\n\r\n",
            "x".repeat(HEAD_BYTES_MAX)
        );
        assert_eq!(decode_all(long.as_bytes()).err(), Some(Refusal::TooLarge));
        let endless = &long.as_bytes()[..=HEAD_BYTES_MAX];
        assert_eq!(decode_all(endless).err(), Some(Refusal::TooLarge));
        let name = format!("GET / HTTP/1.1\r\n{}: x\r\n\r\n", "n".repeat(70_000));
        assert_eq!(decode_all(name.as_bytes()).err(), Some(Refusal::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(97));
        assert_eq!(decode_all(many.as_bytes()).err(), Some(Refusal::TooLarge));
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(96));
        assert!(decode_all(most.as_bytes()).unwrap().is_some());
    }

    #[test]
    fn keep_alive_follows_the_version_and_the_header() {
        assert!(request("GET / HTTP/1.1\r\n\r\n").keep_alive());
        assert!(!request("GET / HTTP/1.1\r\nConnection: Foo, Close\r\n\r\n").keep_alive());
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive());
        assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive());
    }

    #[test]
    fn a_body_has_one_length_or_is_refused() {
        let framing =
            |headers: &str| request(&format!("POST / HTTP/1.1\r\n{headers}\r\n")).framing();
        assert_eq!(framing(""), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 12\r\n"), Ok(Framing::Length(12)));
        assert_eq!(
            framing("Transfer-Encoding: Chunked\r\n"),
            Ok(Framing::Chunked)
        );
        for headers in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1x\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: \r\n",
        ] {
            assert_eq!(framing(headers), Err(Refusal::Malformed), "{headers}");
        }
    }
}
