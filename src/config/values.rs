//! Values as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::core::time::Millis;

/// A length of time, written `1500ms`, `2s`, `90s`, `5m` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Millis);

impl Span {
    /// In the unit of the core.
    #[must_use]
    pub fn millis(self) -> Millis {
        self.0
    }
}

impl From<Millis> for Span {
    fn from(millis: Millis) -> Self {
        Self(millis)
    }
}

/// A text that is no duration.
#[derive(Debug, thiserror::Error)]
#[error("write a duration with its unit, such as 1500ms, 2s, 90s or 5m")]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let span = humantime::parse_duration(text).map_err(|_| NotASpan)?;
        Ok(Self(Millis::from(span)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}",
            humantime::format_duration(Duration::from_millis(self.0.0))
        )
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SpanVisitor)
    }
}

/// Takes text only, so that `grace = 90` is refused with the form to write instead.
struct SpanVisitor;

impl serde::de::Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in quotes with its unit, such as \"1500ms\", \"2s\" or \"5m\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
        text.parse()
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What it is.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The address under which the world reaches the broker: an http or https URL, without a slash at its
/// end.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

impl PublicUrl {
    /// What paths are put behind.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no such address.
#[derive(Debug, thiserror::Error)]
#[error(
    "write an address as https://broker.example or https://example.org/broker, without credentials, ? and #"
)]
pub struct NotAPublicUrl;

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<Self, NotAPublicUrl> {
        // The parser takes no notice of what stands behind a #.
        let url = http::Uri::from_str(text).map_err(|_| NotAPublicUrl)?;
        let scheme = matches!(url.scheme_str(), Some("http" | "https"));
        let authority = url.authority().is_some_and(|it| !it.as_str().contains('@'));
        let host = url.host().is_some_and(|host| !host.is_empty());
        if !(scheme && authority && host) || text.contains(['?', '#']) {
            return Err(NotAPublicUrl);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = NotAPublicUrl;

    fn try_from(text: String) -> Result<Self, NotAPublicUrl> {
        text.parse()
    }
}
