//! Answers, and the headers every one of them carries.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

/// On every answer (protocol.md §2), with what a browser needs for signed changes.
const CORS: &str = "Access-Control-Allow-Origin: *\r\n\
    Access-Control-Allow-Methods: POST, GET, PATCH, OPTIONS\r\n\
    Access-Control-Allow-Headers: Content-Type, X-Mesh-Id, X-Member-Id, X-File-Name, X-Tags, \
    X-Persistent, X-Target-Spec, X-Member-Signature, Authorization\r\n";

/// One answer.
pub(in crate::shell) struct Reply {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    extra: Option<(&'static str, &'static str)>,
}

#[derive(Serialize)]
struct Failure<'a> {
    ok: bool,
    error: &'a str,
}

impl Reply {
    /// Plain text.
    pub(in crate::shell) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: body.into(),
            extra: None,
        }
    }

    /// A Prometheus page.
    pub(in crate::shell) fn page(body: String) -> Self {
        let content_type = "text/plain; version=0.0.4";
        Self {
            status: 200,
            content_type,
            body: body.into(),
            extra: None,
        }
    }

    /// A page for people.
    pub(in crate::shell) fn html(body: String) -> Self {
        Self {
            status: 200,
            content_type: "text/html; charset=utf-8",
            body: body.into(),
            extra: None,
        }
    }

    /// What it says.
    #[cfg(test)]
    pub(in crate::shell) fn body(&self) -> &[u8] {
        &self.body
    }

    /// JSON.
    pub(in crate::shell) fn json(status: u16, body: &impl Serialize) -> Self {
        // Our own values always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self {
            status,
            content_type: "application/json",
            body,
            extra: None,
        }
    }

    /// `{ok:false,error}`.
    pub(in crate::shell) fn failure(status: u16, error: &str) -> Self {
        Self::json(status, &Failure { ok: false, error })
    }

    /// No content.
    pub(in crate::shell) fn empty() -> Self {
        Self {
            status: 204,
            content_type: "",
            body: Vec::new(),
            extra: None,
        }
    }

    /// With one more header.
    pub(in crate::shell) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.extra = Some((name, value));
        self
    }

    /// As written. `bare` leaves the body out, as `HEAD` wants it.
    pub(in crate::shell) fn encode(&self, keep_alive: bool, bare: bool) -> Bytes {
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let reason = status.canonical_reason().unwrap_or_default();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n{CORS}", self.status);
        if self.status != 204 {
            text.push_str(&format!(
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.content_type,
                self.body.len(),
            ));
        }
        if let Some((name, value)) = self.extra {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(if keep_alive {
            "Connection: keep-alive\r\n"
        } else {
            "Connection: close\r\n"
        });
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !bare {
            bytes.extend_from_slice(&self.body);
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_length_and_the_cors_headers() {
        let bytes = Reply::failure(429, "rate limited").encode(true, false);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 429 Too Many Requests\r\n\
             Access-Control-Allow-Origin: *\r\n\
             Access-Control-Allow-Methods: POST, GET, PATCH, OPTIONS\r\n\
             Access-Control-Allow-Headers: Content-Type, X-Mesh-Id, X-Member-Id, X-File-Name, \
             X-Tags, X-Persistent, X-Target-Spec, X-Member-Signature, Authorization\r\n\
             Content-Type: application/json\r\n\
             Content-Length: 35\r\n\
             Connection: keep-alive\r\n\
             \r\n\
             {\"ok\":false,\"error\":\"rate limited\"}"
        );
        let bytes = Reply::empty().encode(false, false);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(text.ends_with("Connection: close\r\n\r\n"));
        assert!(!text.contains("Content-Length"));
    }
}
