//! The audit chain's pure part (protocol.md §17): canonical JSON and the hash of a row.
//!
//! Must stay bit for bit what the original computes in JavaScript, or old chains stop verifying.

use std::fmt::Write;
use std::vec;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use crate::time::Wall;

/// What the first row of a mesh's chain names as its predecessor's hash.
pub const GENESIS: &str = "genesis";

/// The hash of one audit row: 64 lower-case hex digits. `prev_hash` is the hash of the mesh's
/// previous row or [`GENESIS`]; `canonical_payload` comes from [`canonical_json`].
#[must_use]
pub fn audit_hash(
    prev_hash: &str,
    mesh_id: &str,
    event_type: &str,
    actor_member_id: Option<&str>,
    canonical_payload: &str,
    created_at: Wall,
) -> String {
    let actor = actor_member_id.unwrap_or("null");
    let mut hasher = Sha256::new();
    for field in [prev_hash, mesh_id, event_type, actor, canonical_payload] {
        hasher.update(field);
        hasher.update("|");
    }
    hasher.update(created_at.to_string());
    hex::encode(hasher.finalize())
}

/// `value` as JSON without white space, the keys of objects by UTF-16 code units, strings and
/// numbers as JavaScript's `JSON.stringify` writes them.
///
/// Iterative, so that no depth of nesting can exhaust the stack.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    let mut open = Vec::new();
    write_value(&mut out, value, &mut open);
    while let Some(level) = open.last_mut() {
        match level.next() {
            Some((first, key, value)) => {
                if !first {
                    out.push(',');
                }
                if let Some(key) = key {
                    write_string(&mut out, key);
                    out.push(':');
                }
                write_value(&mut out, value, &mut open);
            }
            None => {
                out.push(level.closing);
                open.pop();
            }
        }
    }
    out
}

/// An object of texts alone, as [`canonical_json`] writes it; the names ascend.
#[must_use]
pub fn canonical_texts(members: &[(&str, &str)]) -> String {
    debug_assert!(members.is_sorted_by_key(|(name, _)| *name));
    let mut out = String::from("{");
    for (index, (name, text)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        write_string(&mut out, text);
    }
    out.push('}');
    out
}

/// An array or object being written.
struct Level<'a> {
    first: bool,
    closing: char,
    rest: vec::IntoIter<(Option<&'a str>, &'a Value)>,
}

impl<'a> Level<'a> {
    fn array(items: &'a [Value]) -> Self {
        let rest: Vec<_> = items.iter().map(|item| (None, item)).collect();
        Self {
            first: true,
            closing: ']',
            rest: rest.into_iter(),
        }
    }

    fn object(members: &'a Map<String, Value>) -> Self {
        let mut rest: Vec<_> = members
            .iter()
            .map(|(key, value)| (Some(key.as_str()), value))
            .collect();
        // Differs from the order of UTF-8: U+1F600 (surrogates from 0xD83D) precedes U+FFFD.
        rest.sort_by(|(a, _), (b, _)| {
            a.unwrap_or("")
                .encode_utf16()
                .cmp(b.unwrap_or("").encode_utf16())
        });
        Self {
            first: true,
            closing: '}',
            rest: rest.into_iter(),
        }
    }

    /// The next item; whether it is the first, and its key in an object.
    fn next(&mut self) -> Option<(bool, Option<&'a str>, &'a Value)> {
        let (key, value) = self.rest.next()?;
        Some((std::mem::take(&mut self.first), key, value))
    }
}

/// Writes a scalar, or the opening of what is then pushed onto `open`.
fn write_value<'a>(out: &mut String, value: &'a Value, open: &mut Vec<Level<'a>>) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            open.push(Level::array(items));
        }
        Value::Object(members) => {
            out.push('{');
            open.push(Level::object(members));
        }
    }
}

/// `JSON.stringify` of a string: `"`, `\` and controls below U+0020 are escaped, nothing else.
/// (It escapes lone surrogates too, which a `str` cannot hold.)
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => push_fmt(out, format_args!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// ECMAScript's Number::toString. Every number is a double there, so integers beyond 2^53 are
/// rounded to one.
fn write_number(out: &mut String, number: &Number) {
    let double = number.as_f64().unwrap_or(f64::NAN);
    if double == 0.0 {
        // Negative zero loses its sign.
        out.push('0');
        return;
    }
    // The shortest digits that read back as the same double, the nearest of them, the even of two
    // as near. (The standard library's formatting does not see to the last.)
    let Some(shortest) = Number::from_f64(double.abs()) else {
        out.push_str("null");
        return;
    };
    if double < 0.0 {
        out.push('-');
    }
    let (digits, point) = significant_digits(&shortest.to_string());
    match usize::try_from(point) {
        Ok(point @ 1..=21) if digits.len() <= point => {
            push_fmt(out, format_args!("{digits:0<point$}"));
        }
        Ok(point @ 1..=21) => {
            let (whole, fraction) = digits.split_at(point);
            push_fmt(out, format_args!("{whole}.{fraction}"));
        }
        _ if (-5..=0).contains(&point) => {
            let zeros = usize::try_from(-point).unwrap_or(0);
            push_fmt(out, format_args!("0.{:0<zeros$}{digits}", ""));
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            push_fmt(out, format_args!("{first}{dot}{rest}e{:+}", point - 1));
        }
    }
}

/// The digits of a positive decimal number without zeros at either end, and how many of them are
/// before the decimal point (negative: how many zeros follow it).
fn significant_digits(decimal: &str) -> (String, i32) {
    let (mantissa, exponent) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    // Both lengths are below 400, so they fit.
    let before = i32::try_from(whole.len()).unwrap_or(0);
    let leading = i32::try_from(all.len() - digits.len()).unwrap_or(0);
    let point = exponent.parse().unwrap_or(0) + before - leading;
    (digits.trim_end_matches('0').to_owned(), point)
}

/// Appends formatted text.
fn push_fmt(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes whatever it is given; there is no error to report.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests;
