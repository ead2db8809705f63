//! Holdfast: a continuous-presence broker. Presence is a lease, not a socket.

#![forbid(unsafe_code)]

pub use holdfast_core as core;
pub mod admin;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod shell;
pub mod store;
pub mod watch;
