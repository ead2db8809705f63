//! The sans-IO core of Holdfast.
//!
//! **One call takes one input and appends its effects.** [`Shard::handle`] is a mutation;
//! [`Shard::advance`] fires every timer due; [`Shard::next_deadline`] says when to call it next.
//!
//! 1. Give time (`now` never goes back on its monotonic side) and one [`input::Input`].
//! 2. Carry out the appended [`effect::Effect`]s in order, before the next call.
//! 3. Sleep until `next_deadline`, or the next input, whichever is first.
//!
//! Nothing here knows a socket, a clock, a thread, a file or a random source: entropy comes in as
//! a seed, time as an argument, durability as `Persist` out and `Stored` back.

mod admission;
mod attachment;
pub mod bucket;
pub mod canon;
mod card;
mod catchup;
mod chain;
mod clock;
mod cron;
mod cwds;
mod delivery;
mod directory;
pub mod effect;
pub mod event;
mod firing;
pub mod handle;
pub mod hello;
mod hosting;
pub mod identity;
pub mod ids;
mod index;
pub mod input;
mod journal;
mod known;
mod lease;
pub mod limits;
mod liveness;
mod log;
mod mailbox;
pub mod marks;
mod mesh;
pub mod mint;
mod outbox;
mod packing;
pub mod pages;
mod passed;
mod peer;
mod presence;
mod proof;
mod readback;
mod recall;
mod relay;
mod repeats;
mod replay;
mod replies;
mod rivalry;
mod routing;
pub mod rows;
mod schedules;
mod servers;
pub mod shard;
mod state;
mod streams;
pub mod time;
mod topics;
mod upkeep;
mod verbs;
pub mod watch;
mod watching;
mod welcome;
pub mod wheel;
pub mod wire;

#[cfg(test)]
mod mailbox_model;
#[cfg(test)]
mod outbox_model;
#[cfg(test)]
mod scenarios;

pub use effect::{Effect, Effects};
pub use input::Input;
pub use shard::Shard;

/// Hashing for maps whose keys a client chooses; seeded from injected entropy.
pub(crate) type Hasher = foldhash::quality::FixedState;
