//! The MCP servers of one mesh, by name, and the calls that wait for an answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Position, PubKey};
use crate::peer::{Kind, MemberIx};
use crate::time::Wall;
use crate::wheel::TimerKey;

/// One lease: its slot, and which of those that were ever in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) slot: u32,
    pub(crate) order: u64,
}

/// Who answers for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A session that is present, online or in grace.
    Present(Holder),
    /// The lease of its host has ended, then.
    Away(Wall),
}

/// What a server can do. What its arguments look like nobody asks the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tool {
    pub(crate) name: Box<str>,
    #[serde(default, deserialize_with = "text_or_null")]
    pub(crate) description: Box<str>,
}

/// Null counts as absent, as everywhere.
fn text_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let text = Option::<Box<str>>::deserialize(deserializer)?;
    Ok(text.unwrap_or_default())
}

/// One MCP server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) member: MemberIx,
    /// How its host is recognised if it comes back.
    pub(crate) kind: Kind,
    pub(crate) session_key: Option<PubKey>,
    pub(crate) host: Host,
    /// What its host was called last.
    pub(crate) hosted_by: Box<str>,
    pub(crate) description: Box<str>,
    pub(crate) tools: Vec<Tool>,
    /// Whether it stays when the lease of its host ends.
    pub(crate) persistent: bool,
    /// Where and when others were told of it last.
    pub(crate) told: (Position, Wall),
}

impl Server {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self, name: &str) -> usize {
        let tools = self.tools.iter();
        let tools = tools.map(|tool| tool.name.len() + tool.description.len());
        name.len() + self.description.len() + tools.sum::<usize>()
    }

    /// The session that hosts it, while it is present.
    pub(crate) fn holder(&self) -> Option<Holder> {
        match self.host {
            Host::Present(holder) => Some(holder),
            Host::Away(_) => None,
        }
    }
}

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: Box<str>,
    pub(crate) caller: Holder,
    pub(crate) req_id: Option<Box<str>>,
    pub(crate) host: Holder,
    pub(crate) server: Box<str>,
    /// What the host is written.
    pub(crate) forward: Bytes,
    /// Where it was written last; None if the host is written it again when it comes back.
    pub(crate) written: Option<Position>,
    /// The answer, while the caller has no socket.
    pub(crate) answer: Option<Bytes>,
    pub(crate) timer: TimerKey,
}

/// See the module. Bounded by [`crate::limits::SERVERS_PER_MESH_MAX`] and
/// [`crate::limits::CALLS_PER_MESH_MAX`], so that looking through all is cheap enough for what
/// happens seldom.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    all: BTreeMap<Box<str>, Server>,
    /// Bytes of their texts.
    bytes: usize,
    /// What each lease hosts.
    hosted: BTreeMap<u64, Vec<Box<str>>>,
    calls: BTreeMap<u32, Call>,
    last_call: u32,
}

impl Servers {
    pub(crate) fn get(&self, name: &str) -> Option<&Server> {
        self.all.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Server> {
        self.all.get_mut(name)
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.all.iter().map(|(name, server)| (&**name, server))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a lease hosts.
    pub(crate) fn hosted(&self, order: u64) -> &[Box<str>] {
        self.hosted.get(&order).map_or(&[], Vec::as_slice)
    }

    /// How many are named as hosted.
    #[cfg(feature = "marks")]
    pub(crate) fn hosted_count(&self) -> usize {
        self.hosted.values().map(Vec::len).sum()
    }

    /// Enters a server, in the place of another of that name.
    pub(crate) fn put(&mut self, name: &str, server: Server) {
        self.remove(name);
        self.bytes += server.bytes(name);
        if let Some(holder) = server.holder() {
            self.hosted
                .entry(holder.order)
                .or_default()
                .push(name.into());
        }
        self.all.insert(name.into(), server);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Server> {
        let server = self.all.remove(name)?;
        self.bytes -= server.bytes(name);
        self.unhost(name, &server);
        Some(server)
    }

    /// Somebody else, or nobody, hosts a server from here on.
    pub(crate) fn move_to(&mut self, name: &str, host: Host, hosted_by: &str) {
        if let Some(mut server) = self.remove(name) {
            server.host = host;
            server.hosted_by = hosted_by.into();
            self.put(name, server);
        }
    }

    fn unhost(&mut self, name: &str, server: &Server) {
        let Some(holder) = server.holder() else {
            return;
        };
        if let Some(names) = self.hosted.get_mut(&holder.order) {
            names.retain(|other| **other != *name);
            if names.is_empty() {
                self.hosted.remove(&holder.order);
            }
        }
    }

    /// The number of the next call.
    pub(crate) fn next_call(&mut self) -> u32 {
        loop {
            self.last_call = self.last_call.wrapping_add(1);
            if !self.calls.contains_key(&self.last_call) {
                return self.last_call;
            }
        }
    }

    /// Enters a call under its number.
    pub(crate) fn begin_call(&mut self, number: u32, call: Call) {
        self.calls.insert(number, call);
    }

    pub(crate) fn call(&self, number: u32) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// The call of that id, if it waits for an answer.
    pub(crate) fn find_call(&self, id: &str) -> Option<(u32, &Call)> {
        self.calls()
            .find(|(_, call)| *call.id == *id && call.answer.is_none())
    }

    pub(crate) fn call_mut(&mut self, number: u32) -> Option<&mut Call> {
        self.calls.get_mut(&number)
    }

    pub(crate) fn end_call(&mut self, number: u32) -> Option<Call> {
        self.calls.remove(&number)
    }

    /// All calls, by number, which is the order they were made in.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (u32, &Call)> {
        self.calls.iter().map(|(number, call)| (*number, call))
    }

    /// Whether there is nothing left.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.calls.is_empty()
    }
}
