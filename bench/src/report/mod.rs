//! What a run found: for people as a table, for machines as one line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod axis;
pub mod compare;
mod family;
mod grid;
pub mod human;
mod judge;
pub mod latency;
pub mod line;
pub mod plot;
pub mod progress;
#[cfg(test)]
mod samples;
pub mod summary;
mod svg;
pub mod table;

pub use judge::Verdict;

/// Everything one run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was run, and where.
    pub header: Header,
    /// What was measured, in the order of the scenario.
    pub figures: Vec<Figure>,
    /// Curves, for plots.
    pub series: Vec<Series>,
    /// What must be zero, or the run has failed.
    pub checks: Vec<Check>,
}

/// Two reports can be compared if these are the same, but for the `broker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The name of the scenario.
    pub scenario: String,
    /// Its options, as they were after defaults.
    pub options: BTreeMap<String, String>,
    /// Kernel, processor, cores, memory, limit of open files.
    pub machine: BTreeMap<String, String>,
    /// What was measured: the broker's version, or the address it was found at.
    pub broker: String,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, such as `user memory per session online`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// The least that was measured in this run for the barest thing that does the same.
    pub floor: Option<f64>,
    /// What `value`, or its ratio to the floor, is to be.
    pub target: Option<Target>,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Nanoseconds, of time or of CPU.
    Nanos,
    /// Per second.
    PerSecond,
    /// A plain number.
    Count,
    /// A ratio of two figures.
    Ratio,
}

/// A bound from the table of targets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The value itself, at most.
    AtMost(f64),
    /// The value itself, at least.
    AtLeast(f64),
    /// The ratio of the value to the floor, at most.
    OfFloorAtMost(f64),
    /// The ratio of the value to the floor, at least.
    OfFloorAtLeast(f64),
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What, such as `lost messages`.
    pub name: String,
    /// How often it did.
    pub count: u64,
    /// The first of them, for people.
    pub example: Option<String>,
}

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it shows, such as `attached sessions`.
    pub name: String,
    /// What the numbers along it are.
    pub x: String,
    /// What its height is.
    pub y: String,
    /// Its points, in order of `x`.
    pub points: Vec<(f64, f64)>,
}
