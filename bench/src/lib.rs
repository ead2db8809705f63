//! The load generator: what the broker costs and how fast it is, beside what it could be at best.
//!
//! [`scenarios`] play on a [`stage`]: a [`broker`] of their own, a [`town`] of meshes and members,
//! and a [`fleet`] of sessions on one [`swarm`], the light client. What they find goes into a
//! [`report`]; [`machine`] reads memory and CPU from outside, and [`floor`] is the barest server
//! that could do each thing.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator measures time, and says so on its terminal"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures are told with three digits"
)]

pub mod broker;
pub mod cli;
pub mod fleet;
pub mod floor;
pub mod machine;
pub mod report;
pub mod scenarios;
pub mod stage;
pub mod swarm;
pub mod town;
