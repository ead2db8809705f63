//! URL watches as the store keeps them.

use crate::ids::{Position, WatchId};
use crate::time::{Millis, Wall};

/// What a watch looks at (protocol.md §13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchMode {
    /// The whole document, by its hash.
    #[default]
    Hash,
    /// One value of a JSON document.
    Json,
    /// The status code.
    Status,
}

impl WatchMode {
    /// The name used on the wire and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Json => "json",
            Self::Status => "status",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Hash, Self::Json, Self::Status]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// Which changes the owner of a watch is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NotifyOn {
    /// Any.
    #[default]
    Change,
    /// When the value becomes this.
    Match(Box<str>),
    /// When the value stops being this.
    NotMatch(Box<str>),
}

impl NotifyOn {
    /// Reads what [`Display`](std::fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "change" {
            return Some(Self::Change);
        }
        let (rule, value) = text.split_once(':')?;
        match rule {
            "match" => Some(Self::Match(value.into())),
            "not_match" => Some(Self::NotMatch(value.into())),
            _ => None,
        }
    }

    /// Whether the owner is told that `old` became `new`.
    #[must_use]
    pub fn tells(&self, old: &str, new: &str) -> bool {
        match self {
            Self::Change => old != new,
            Self::Match(value) => **value == *new && **value != *old,
            Self::NotMatch(value) => **value != *new && **value == *old,
        }
    }
}

impl std::fmt::Display for NotifyOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change => f.write_str("change"),
            Self::Match(value) => write!(f, "match:{value}"),
            Self::NotMatch(value) => write!(f, "not_match:{value}"),
        }
    }
}

/// One URL watch. Its row goes with the lease it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRow {
    /// Where the lease of its owner began; see [`PresenceRow::began`](super::PresenceRow::began).
    pub began: Position,
    /// Unique within its mesh.
    pub id: WatchId,
    /// The mesh of its owner.
    pub mesh_id: String,
    /// An http or https URL.
    pub url: String,
    /// What it looks at.
    pub mode: WatchMode,
    /// With [`WatchMode::Json`]: the path of the value.
    pub extract: Option<String>,
    /// Time between two checks.
    pub interval: Millis,
    /// What its owner is told of.
    pub notify_on: NotifyOn,
    /// Request headers, by name.
    pub headers: Vec<(String, String)>,
    /// Free text for people.
    pub label: Option<String>,
    /// The value that its owner knows of; empty before the first check.
    pub value: String,
    /// When it was made.
    pub created_at: Wall,
}
