//! What a mesh's members share by key: the last value of each, in memory, as the store has it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::Position;
use crate::limits::{STATE_BYTES_MAX, STATE_KEYS_MAX};
use crate::rows::StateRow;
use crate::time::Wall;
use crate::wire::frames;

/// The last value of a key.
#[derive(Debug)]
pub(crate) struct Value {
    /// JSON, not `null`.
    pub(crate) json: Box<RawValue>,
    /// Name of the member that set it.
    pub(crate) updated_by: Box<str>,
    pub(crate) updated_at: Wall,
    /// Which session set it: its place among the leases.
    pub(crate) setter: u64,
    /// Where the log tells of it.
    pub(crate) position: Position,
    /// Bytes of its [`StateEntry`].
    bytes: usize,
}

/// The values of a mesh. Bounded in number and in bytes: what would exceed that is refused.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    values: BTreeMap<Box<str>, Value>,
    bytes: usize,
}

/// A key as lists have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateEntry<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a RawValue,
    pub(crate) updated_by: &'a str,
    pub(crate) updated_at: Wall,
}

/// Which bound a value would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Keys,
    Bytes,
}

impl Value {
    /// As its row has it, if that is JSON.
    pub(crate) fn of(row: StateRow) -> Option<(Box<str>, Self)> {
        let value = Self {
            json: RawValue::from_string(row.value).ok()?,
            updated_by: row.updated_by.into(),
            updated_at: row.updated_at,
            setter: row.setter.0,
            position: row.position,
            bytes: 0,
        };
        Some((row.key.into(), value))
    }

    /// As lists have it.
    pub(crate) fn entry<'a>(&'a self, key: &'a str) -> StateEntry<'a> {
        StateEntry {
            key,
            value: &self.json,
            updated_by: &self.updated_by,
            updated_at: self.updated_at,
        }
    }
}

impl SharedState {
    /// Whether there is room for a value of that key.
    pub(crate) fn check(&self, key: &str, value: &Value) -> Result<(), Full> {
        let earlier = self.values.get(key);
        if earlier.is_none() && self.values.len() >= STATE_KEYS_MAX {
            return Err(Full::Keys);
        }
        let rest = self.bytes - earlier.map_or(0, |earlier| earlier.bytes);
        if rest + bytes_of(key, value) > STATE_BYTES_MAX {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    /// Sets a key; gives its earlier value.
    pub(crate) fn set(&mut self, key: Box<str>, mut value: Value) -> Option<Value> {
        value.bytes = bytes_of(&key, &value);
        self.bytes += value.bytes;
        let earlier = self.values.insert(key, value);
        self.bytes -= earlier.as_ref().map_or(0, |earlier| earlier.bytes);
        earlier
    }

    /// The last value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (&**key, value))
    }
}

fn bytes_of(key: &str, value: &Value) -> usize {
    frames::encode(&value.entry(key)).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        let row = StateRow {
            mesh_id: String::new(),
            key: String::new(),
            value: text.to_owned(),
            updated_by: "a".to_owned(),
            updated_at: Wall(0),
            setter: Position(1),
            position: Position(1),
        };
        Value::of(row).unwrap().1
    }

    fn long() -> Value {
        value(&format!("\"{}\"", "x".repeat(60_000)))
    }

    #[test]
    fn it_is_bounded_in_keys_and_bytes() {
        let mut state = SharedState::default();
        for n in 0..8 {
            assert_eq!(state.check(&n.to_string(), &long()), Ok(()));
            state.set(n.to_string().into(), long());
        }
        assert_eq!(state.check("8", &long()), Err(Full::Bytes));
        assert_eq!(state.check("7", &long()), Ok(()), "in place of its own");
        for n in 0..8 {
            state.set(n.to_string().into(), value("1"));
        }
        for n in 0..STATE_KEYS_MAX {
            state.set(n.to_string().into(), value("1"));
        }
        assert_eq!(state.check("more", &value("1")), Err(Full::Keys));
        assert_eq!(state.check("7", &value("2")), Ok(()));
        let listed: Vec<_> = state.iter().map(|(key, value)| value.entry(key)).collect();
        let commas = listed.len() - 1;
        assert_eq!(frames::encode(&listed).len(), state.bytes + commas + 2);
    }
}
