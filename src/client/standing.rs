//! What a session wants to be in the mesh: its status and its groups.
//!
//! The broker does not answer these requests, so a ping is written behind them; its pong proves
//! that they were read. What a lost connection may have swallowed is said again on the next, and
//! all of it to a lease that is new.

use super::wire::{join_group, leave_group, set_status};
use crate::core::rows::Status;

/// How many groups may be named. More than a session can be in at once.
const GROUPS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Standing {
    status: Option<Status>,
    groups: Vec<(Box<str>, Belongs)>,
    /// The number of the ping whose pong proves that the broker knows.
    wanted: u64,
    proven: u64,
}

/// Whether a session is to be in a group.
#[derive(Debug)]
enum Belongs {
    Yes { role: Option<Box<str>> },
    No,
}

impl Standing {
    /// The frame that says it.
    pub(super) fn set_status(&mut self, status: Status) -> String {
        self.wanted += 1;
        self.status = Some(status);
        set_status(status)
    }

    /// The frame that says it; `None` if there are too many groups.
    pub(super) fn join(&mut self, name: &str, role: Option<&str>) -> Option<String> {
        let role_kept = role.map(Into::into);
        self.set_group(name, Belongs::Yes { role: role_kept })?;
        Some(join_group(name, role))
    }

    /// The frame that says it; `None` if there are too many groups.
    pub(super) fn leave(&mut self, name: &str) -> Option<String> {
        self.set_group(name, Belongs::No)?;
        Some(leave_group(name))
    }

    fn set_group(&mut self, name: &str, belongs: Belongs) -> Option<()> {
        let position = self.groups.iter().position(|(known, _)| **known == *name);
        match position {
            Some(at) => self.groups[at].1 = belongs,
            None if self.groups.len() >= GROUPS_MAX => return None,
            None => self.groups.push((name.into(), belongs)),
        }
        self.wanted += 1;
        Some(())
    }

    /// What to say on a new connection.
    pub(super) fn again(&self, reattached: bool) -> Vec<String> {
        if reattached && self.proven == self.wanted {
            return Vec::new();
        }
        let status = self.status.map(set_status);
        let groups = self.groups.iter().map(|(name, belongs)| match belongs {
            Belongs::Yes { role } => join_group(name, role.as_deref()),
            Belongs::No => leave_group(name),
        });
        status.into_iter().chain(groups).collect()
    }

    /// The payload of the ping behind what was said last.
    pub(super) fn proof(&self) -> Vec<u8> {
        self.wanted.to_be_bytes().to_vec()
    }

    /// A pong came.
    pub(super) fn prove(&mut self, payload: &[u8]) {
        if payload == self.wanted.to_be_bytes() {
            self.proven = self.wanted;
        }
    }
}
