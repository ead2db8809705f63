//! Looks at the system and changes nothing, but for this process's own limit of open files.
//!
//! Linux only, through `/proc`: what a process and its sockets cost is read from outside, in the
//! same way for a broker and for a floor.

pub mod kernel;
pub mod limits;
pub mod process;
pub mod stalls;
