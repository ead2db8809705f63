//! A client's message, split into its top-level fields without copying them.
//!
//! Each verb reads the fields it needs by name; the error names the field, so that every bad
//! request gets the same clear answer.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::ids::PubKey;

/// The top-level fields of one message, in the order sent. A field that is `null` counts as
/// absent; of a field sent twice the last one counts, as in JavaScript.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(Text<'a>, &'a RawValue)>);

/// Why a message could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not JSON at all.
    NotJson,
    /// JSON, but not an object.
    NotObject,
}

/// A field that is missing or not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct FieldError {
    /// Which.
    pub field: &'static str,
    /// What it has to be.
    pub expected: Cow<'static, str>,
}

impl FieldError {
    /// `field` must be `expected`.
    pub fn new(field: &'static str, expected: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            expected: expected.into(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a string says, if it is one without escapes: then it lies within its quotes as it is.
fn plain(value: &RawValue) -> Option<&str> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

impl<'a> Fields<'a> {
    /// Splits a message.
    ///
    /// # Errors
    /// If it is not JSON, or not an object.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        if let Ok(fields) = serde_json::from_str(text) {
            return Ok(fields);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(ParseError::NotObject),
            Err(_) => Err(ParseError::NotJson),
        }
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// The field's value as it was sent, `null` too.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rev().find(|(key, _)| key.0 == name);
        found.map(|(_, value)| *value)
    }

    /// Whether the field is there and not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The field as any type; `expected` says which in the error.
    ///
    /// # Errors
    /// If it is there and does not parse.
    pub fn json<T: Deserialize<'a>>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        serde_json::from_str(value.get())
            .map(Some)
            .map_err(|_| FieldError::new(field, expected))
    }

    /// The field's JSON as it was written, if whoever it is passed on to can be expected to read it: no
    /// deeper and no more broken than our own reader takes.
    ///
    /// # Errors
    /// If it is there and is not.
    pub fn readable(&self, field: &'static str) -> Result<Option<&'a RawValue>, FieldError> {
        let Some(raw) = self.get(field) else {
            return Ok(None);
        };
        match serde_json::from_str::<serde_json::Value>(raw.get()) {
            Ok(_) => Ok(Some(raw)),
            Err(_) => Err(FieldError::new(field, "readable JSON")),
        }
    }

    /// The field's JSON text if it is an object of at most `max` bytes.
    ///
    /// # Errors
    /// If it is there and something else.
    pub fn object(&self, field: &'static str, max: usize) -> Result<Option<&'a str>, FieldError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let text = value.get();
        if !text.starts_with('{') || text.len() > max {
            return Err(FieldError::new(
                field,
                format!("an object of at most {max} bytes"),
            ));
        }
        self.readable(field)?;
        Ok(Some(text))
    }

    /// An optional list of strings, of at most `max` bytes of JSON.
    ///
    /// # Errors
    /// If it is there and something else, or longer.
    pub fn list(&self, field: &'static str, max: usize) -> Result<Option<Vec<String>>, FieldError> {
        match self.get(field) {
            Some(list) if list.get().len() > max => {
                Err(FieldError::new(field, format!("at most {max} bytes long")))
            }
            Some(_) | None => self.json(field, "a list of strings"),
        }
    }

    /// An optional string of at most `max` bytes.
    ///
    /// # Errors
    /// If it is there and not a string, or longer.
    pub fn opt_str(
        &self,
        field: &'static str,
        max: usize,
    ) -> Result<Option<Cow<'a, str>>, FieldError> {
        let text = match self.get(field).and_then(plain) {
            Some(text) => Some(Cow::Borrowed(text)),
            None => self.json::<Text<'a>>(field, "a string")?.map(|text| text.0),
        };
        match text {
            Some(text) if text.len() > max => {
                Err(FieldError::new(field, format!("at most {max} bytes long")))
            }
            text => Ok(text),
        }
    }

    /// A required string of at most `max` bytes.
    ///
    /// # Errors
    /// If it is missing, not a string, or longer.
    pub fn str(&self, field: &'static str, max: usize) -> Result<Cow<'a, str>, FieldError> {
        self.opt_str(field, max)?
            .ok_or_else(|| FieldError::new(field, "a string"))
    }

    /// A string whatever its length, if the field is one; no error otherwise.
    #[must_use]
    pub fn lenient_str(&self, field: &'static str) -> Option<Cow<'a, str>> {
        self.opt_str(field, usize::MAX).ok().flatten()
    }

    /// An optional finite number.
    ///
    /// # Errors
    /// If it is there and not a finite number.
    pub fn opt_number(&self, field: &'static str) -> Result<Option<f64>, FieldError> {
        match self.json::<f64>(field, "a number")? {
            Some(number) if !number.is_finite() => Err(FieldError::new(field, "a finite number")),
            number => Ok(number),
        }
    }

    /// A required boolean.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn bool(&self, field: &'static str) -> Result<bool, FieldError> {
        self.json(field, "true or false")?
            .ok_or_else(|| FieldError::new(field, "true or false"))
    }

    /// The request id to echo: a string that is not empty (protocol.md §3).
    #[must_use]
    pub fn req_id(&self) -> Option<Cow<'a, str>> {
        self.lenient_str("_reqId").filter(|id| !id.is_empty())
    }

    /// A public key in lower-case hex, if the field is one.
    #[must_use]
    pub fn pubkey(&self, field: &'static str) -> Option<PubKey> {
        PubKey::parse(&self.lenient_str(field)?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Split;

        impl<'de> Visitor<'de> for Split {
            type Value = Vec<(Text<'de>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(12);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Split).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_borrows_and_unescapes() {
        let text = r#"{"type":"send","n\u0061me":"a\"b","x":{"deep":[1,2]},"x2":null}"#;
        let fields = Fields::parse(text).unwrap();
        assert_eq!(fields.str("type", 10).unwrap(), "send");
        assert!(matches!(fields.str("type", 10).unwrap(), Cow::Borrowed(_)));
        assert_eq!(fields.str("name", 10).unwrap(), "a\"b");
        assert_eq!(fields.object("x", 100).unwrap(), Some(r#"{"deep":[1,2]}"#));
        assert!(!fields.has("x2"));
        assert_eq!(fields.opt_str("x2", 1).unwrap(), None);
    }

    #[test]
    fn the_last_of_two_equal_fields_counts() {
        let fields = Fields::parse(r#"{"a":"1","a":"2"}"#).unwrap();
        assert_eq!(fields.str("a", 9).unwrap(), "2");
    }

    #[test]
    fn errors_name_the_field() {
        let fields = Fields::parse(r#"{"a":7,"b":"long","c":1e999,"d":{"x":1}}"#).unwrap();
        assert_eq!(
            fields.str("a", 9).unwrap_err().to_string(),
            "a must be a string"
        );
        assert_eq!(
            fields.str("z", 9).unwrap_err().to_string(),
            "z must be a string"
        );
        assert_eq!(
            fields.str("b", 3).unwrap_err().to_string(),
            "b must be at most 3 bytes long"
        );
        assert!(fields.opt_number("c").is_err());
        assert!(fields.object("d", 2).is_err());
        assert!(fields.bool("a").is_err());
    }

    #[test]
    fn tells_garbage_from_other_json() {
        assert_eq!(Fields::parse("{oops").unwrap_err(), ParseError::NotJson);
        assert_eq!(Fields::parse("42").unwrap_err(), ParseError::NotObject);
        assert_eq!(Fields::parse("[]").unwrap_err(), ParseError::NotObject);
        assert_eq!(Fields::parse("null").unwrap_err(), ParseError::NotObject);
        assert_eq!(Fields::parse("").unwrap_err(), ParseError::NotJson);
        for bare in ["{\"a\":\"\u{1}\"}", "{\"a\":\"x\ny\"}", "{\"a\":\"}"] {
            assert_eq!(Fields::parse(bare).unwrap_err(), ParseError::NotJson);
        }
    }

    #[test]
    fn a_deep_value_is_skipped_without_recursion() {
        let deep = format!(
            r#"{{"type":"x","v":{}{}}}"#,
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        assert!(Fields::parse(&deep).is_ok());
    }
}
