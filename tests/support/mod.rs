//! What the process tests share: a broker process with a database of its own, the meshes and
//! members they are given, and the clients that are run against it.
//!
//! Must not know what any scenario checks; scenarios are the files under `tests/clients`.

pub(crate) mod broker;
mod clients;
mod scenario;

pub(crate) use scenario::Scenario;
