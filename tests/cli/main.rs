//! The command line as scripts see it: output, errors, exit codes.

mod harness;
mod live;
mod offline;
mod usage;
