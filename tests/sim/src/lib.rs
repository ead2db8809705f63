//! The simulator: the real core of Holdfast in a made-up world.
//!
//! One seed decides everything: who is there, what they do, what the network, the disk, the clock
//! and the process do to them. Time is virtual, so an hour of graces takes milliseconds. After
//! every call of the core an oracle compares what it did with a small model of who is there and
//! what was promised (design.md §2); at the end all faults stop, and what was promised must come.
//!
//! `cargo run --profile sim -p holdfast-sim -- --help`

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an oracle looks for one thing among many"
)]
#![expect(clippy::too_many_lines, reason = "plans are lists of what can happen")]

mod broker;
pub mod cli;
mod client;
pub mod disk;
mod events;
mod greeting;
mod intrude;
mod keys;
mod link;
mod operate;
mod operate_broker;
pub mod oracle;
mod own;
mod plan;
mod pool;
mod queue;
mod report;
mod rng;
mod run;
mod said;
mod seeds;
mod share;
mod shrink;
mod swarm;
mod town;
mod trace;
mod world;
