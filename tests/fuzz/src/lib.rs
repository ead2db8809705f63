//! Fuzzing of everything that decodes what strangers send.
//!
//! A [`Target`] takes bytes, does with them what the broker would, and panics when a property does
//! not hold. The same targets are driven in three ways: `cargo test` replays the corpus and then
//! tries a fixed number of inputs from a fixed seed; `scripts/fuzz` searches on, led by coverage;
//! `scripts/fuzz --plain` searches on without. What any of them finds is kept in the corpus.

pub mod corpus;
pub mod engine;
pub mod mutate;
pub mod targets;

pub use targets::{TARGETS, Target};

/// The random numbers of one input.
pub type Rng = fastrand::Rng;
