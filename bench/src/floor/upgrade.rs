//! The HTTP request that begins a WebSocket, and its answer; nothing else of HTTP.

use tungstenite::handshake::derive_accept_key;

/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What has come of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Its head, not whole yet.
    Partial,
    /// Whole: the answer to it, and how many bytes it was.
    Upgrade {
        /// To be sent.
        answer: String,
        /// Frames begin behind these.
        consumed: usize,
    },
    /// No upgrade, or too long.
    Refused,
}

/// Reads a request at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Request {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > HEAD_BYTES_MAX {
            return Request::Refused;
        }
        return Request::Partial;
    };
    let consumed = end + 4;
    let Some(key) = key(&bytes[..end]).filter(|_| consumed <= HEAD_BYTES_MAX) else {
        return Request::Refused;
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key)
    );
    Request::Upgrade { answer, consumed }
}

fn key(head: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"sec-websocket-key";
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        let value = value.strip_prefix(b":")?;
        name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    const HEAD: &[u8] = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\n\
        Upgrade: websocket\r\nConnection: Upgrade\r\n\
        SEC-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn the_example_of_the_standard_is_answered() {
        let bytes = [HEAD, b"frames"].concat();
        let Request::Upgrade { answer, consumed } = read(&bytes) else {
            panic!("refused");
        };
        assert_eq!(consumed, HEAD.len());
        assert!(
            answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{answer}"
        );
        for cut in 0..HEAD.len() {
            assert_eq!(read(&HEAD[..cut]), Request::Partial);
        }
    }

    #[test]
    fn what_is_no_upgrade_or_too_long_is_refused() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), Request::Refused);
        assert_eq!(read(&[b'a'; HEAD_BYTES_MAX + 1]), Request::Refused);
        let long = [&HEAD[..20], &[b'a'; HEAD_BYTES_MAX], &HEAD[20..]].concat();
        assert_eq!(read(&long), Request::Refused);
    }
}
