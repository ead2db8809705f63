//! What a URL watch asks for and what it makes of the answer (protocol.md §13). Pure: documents are
//! fetched elsewhere, and read there by [`Reading::value`], so that no loop is held up by a large
//! one.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::canon::canonical_json;
use crate::limits::{WATCH_EXCERPT_CHARS, WATCH_VALUE_BYTES_MAX};
use crate::rows::WatchMode;

/// One document to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// An http or https URL of printable ASCII, as the client wrote it.
    pub url: String,
    /// Request headers, none of those that frame a request.
    pub headers: Vec<(String, String)>,
    /// What is wanted of the answer.
    pub reading: Reading,
}

/// What is wanted of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What is looked at.
    pub mode: WatchMode,
    /// With [`WatchMode::Json`]: the path of the value, names and indices separated by dots.
    pub extract: Option<String>,
}

/// Why there is no value. The text is shown to the owner of the watch, and says nothing of
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The queue was full, or the turn did not come in time.
    #[error("too many checks are waiting")]
    Busy,
    /// The URL, or one it redirects to, cannot be fetched.
    #[error("not a URL that can be fetched")]
    BadUrl,
    /// The host has an address that is not public.
    #[error("the host is not a public address (the broker runs without --watch-allow-private)")]
    NotPublic,
    /// The host has no address.
    #[error("the host was not found")]
    HostNotFound,
    /// No connection, or it broke; also if TLS does.
    #[error("the connection failed")]
    Connection,
    /// Not everything came in time.
    #[error("no answer in time")]
    Timeout,
    /// It redirects too often.
    #[error("too many redirects")]
    Redirects,
    /// The document is too large.
    #[error("the document is too large")]
    TooLarge,
    /// The answer is not HTTP.
    #[error("the answer is not valid HTTP")]
    Protocol,
}

impl FetchFailure {
    /// For metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BadUrl => "bad_url",
            Self::NotPublic => "not_public",
            Self::HostNotFound => "host_not_found",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Redirects => "redirects",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
        }
    }
}

impl Reading {
    /// Whether [`Self::value`] looks at the body.
    #[must_use]
    pub fn wants_body(&self) -> bool {
        self.mode != WatchMode::Status
    }

    /// The value of a document; at most [`WATCH_VALUE_BYTES_MAX`] long, and then still different
    /// from others that begin alike.
    #[must_use]
    pub fn value(&self, status: u16, body: &[u8]) -> String {
        match (self.mode, &self.extract) {
            (WatchMode::Status, _) => status.to_string(),
            (WatchMode::Json, Some(path)) => bounded(extract(body, path)),
            (WatchMode::Json, None) | (WatchMode::Hash, _) => short_hash(body),
        }
    }
}

/// The first 16 digits of the SHA-256.
fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn bounded(mut value: String) -> String {
    if value.len() > WATCH_VALUE_BYTES_MAX {
        let rest = format!("... {}", short_hash(value.as_bytes()));
        value.truncate(value.floor_char_boundary(WATCH_VALUE_BYTES_MAX - rest.len()));
        value.push_str(&rest);
    }
    value
}

fn extract(body: &[u8], path: &str) -> String {
    let Ok(document) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return text.chars().take(WATCH_EXCERPT_CHARS).collect();
    };
    let path = path.strip_prefix('$').unwrap_or(path);
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut found = Some(&document);
    for name in path.split('.').filter(|_| !path.is_empty()) {
        found = found.and_then(|value| member(value, name));
    }
    found.map_or_else(|| "null".to_owned(), |value| text(value).into_owned())
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(name),
        // A name with a leading zero or a sign is no index.
        Value::Array(items) => {
            let index: usize = name.parse().ok()?;
            items.get(index).filter(|_| index.to_string() == name)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// As JavaScript's `String()` says it, but for objects: they are written out, so that a change
/// within one is seen.
fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            canonical_json(value).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(mode: WatchMode, extract: Option<&str>, body: &str) -> String {
        let extract = extract.map(str::to_owned);
        Reading { mode, extract }.value(200, body.as_bytes())
    }

    #[test]
    fn a_document_is_known_by_the_beginning_of_its_hash() {
        // The well-known digest of "abc".
        assert_eq!(value(WatchMode::Hash, None, "abc"), "ba7816bf8f01cfea");
        assert_eq!(value(WatchMode::Hash, Some("a"), "abc"), "ba7816bf8f01cfea");
        assert_eq!(value(WatchMode::Json, None, "abc"), "ba7816bf8f01cfea");
        assert_eq!(value(WatchMode::Status, None, "abc"), "200");
    }

    #[test]
    fn paths_lead_through_objects_and_lists() {
        let body = r#"{"a":{"b":[10,{"c":"deep"}],"":1},"n":1.50,"t":true,"z":null}"#;
        for (path, expected) in [
            ("a.b.0", "10"),
            ("$.a.b.1.c", "deep"),
            ("$a.b.1.c", "deep"),
            (".a.b.1.c", "deep"),
            ("n", "1.5"),
            ("t", "true"),
            ("z", "null"),
            ("missing", "null"),
            ("a.b.2", "null"),
            ("a.b.00", "null"),
            ("a.b.+1", "null"),
            ("a.b.length", "null"),
            ("n.x", "null"),
            ("a.", "1"),
            ("a.b", r#"[10,{"c":"deep"}]"#),
        ] {
            assert_eq!(value(WatchMode::Json, Some(path), body), expected, "{path}");
        }
        assert_eq!(value(WatchMode::Json, Some("$"), "[1,2]"), "[1,2]");
        assert_eq!(value(WatchMode::Json, Some("x"), "\"text\""), "null");
    }

    #[test]
    fn what_is_not_json_shows_how_it_begins() {
        let body = "ä".repeat(300);
        assert_eq!(value(WatchMode::Json, Some("a"), &body), "ä".repeat(200));
        let deep = "[".repeat(100_000);
        assert_eq!(value(WatchMode::Json, Some("a"), &deep).len(), 200);
        let reading = Reading {
            mode: WatchMode::Json,
            extract: Some("a".to_owned()),
        };
        assert_eq!(reading.value(200, b"\xff"), "\u{fffd}");
    }

    #[test]
    fn a_long_value_is_cut_and_still_tells_changes() {
        let long = |end: &str| format!("{{\"a\":\"{}{end}\"}}", "ä".repeat(5000));
        let one = value(WatchMode::Json, Some("a"), &long("1"));
        let two = value(WatchMode::Json, Some("a"), &long("2"));
        assert!(one.len() <= WATCH_VALUE_BYTES_MAX && one.len() > WATCH_VALUE_BYTES_MAX - 4);
        assert_ne!(one, two);
    }
}
