//! What a mesh shares: the last value of each key, subscriptions that last as long as their lease,
//! and clocks that do not drift. Who is told of what is in the accounts, as of all news.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::marks::Inspect;
use holdfast_core::rows::StateRow;
use holdfast_core::time::{Millis, Wall};
use serde_json::Value;

use super::ledger::{News, What};
use super::{ConnKey, Oracle, Verdict, ensure};
use crate::disk::Tables;
use crate::said::{Clocked, Expect, Said};
use crate::town::{KEYS, STREAMS};

/// What is known of a mesh's clock.
#[derive(Clone, Debug)]
pub(crate) struct ClockModel {
    speed: u64,
    started: Wall,
    /// Since when it runs, if it does, and from which tick on, once that was seen.
    running: Option<(u64, Option<u64>)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharing {
    /// The last value of each key, by mesh.
    state: BTreeMap<(usize, usize), usize>,
    /// Where it was said.
    pub(crate) last: BTreeMap<(usize, usize), usize>,
    /// From which place in the news a session is told of a stream.
    subscriptions: BTreeMap<(String, usize), u64>,
    created: BTreeSet<(usize, usize)>,
    /// Subscribers of the process before, of which what was published is lost: those that have not
    /// come back, and all.
    pub(crate) torn: BTreeSet<String>,
    pub(crate) restored: BTreeSet<String>,
    clocks: BTreeMap<usize, ClockModel>,
}

/// The row of a key.
pub(crate) fn state_row<'a>(
    oracle: &Oracle,
    tables: &'a Tables,
    mesh: usize,
    key: usize,
) -> Option<&'a StateRow> {
    let mesh = oracle.plan.town.meshes[mesh].id.clone();
    tables.state.get(&(mesh, KEYS[key].to_owned()))
}

impl Oracle {
    /// From which place in the news a session is told of a stream, if it is.
    pub(crate) fn subscribed(&self, id: &str, stream: usize) -> Option<u64> {
        self.sharing
            .subscriptions
            .get(&(id.to_owned(), stream))
            .copied()
    }

    fn stream_known(&self, mesh: usize, stream: usize) -> bool {
        let mut subscribers = self
            .sharing
            .subscriptions
            .keys()
            .filter(|(_, of)| *of == stream);
        self.sharing.created.contains(&(mesh, stream))
            || subscribers.any(|(id, _)| self.leases.get(id).is_some_and(|l| l.mesh == mesh))
    }

    /// The answer that a request of a session gets now.
    pub(crate) fn expected(&self, at: ConnKey, said: &Said, expect: &Expect) -> Expect {
        let Some((id, lease)) = self.attached(at) else {
            return expect.clone();
        };
        let unless = |known: bool, req: &String| {
            if known {
                Expect::Nothing
            } else {
                Expect::Reply("error", req.clone())
            }
        };
        match said {
            Said::Publish(stream, _, req) => unless(self.stream_known(lease.mesh, *stream), req),
            Said::Subscribe(stream, false, req) => {
                unless(self.subscribed(id, *stream).is_some(), req)
            }
            Said::GetState(key, req) => Expect::State(
                self.sharing.state.get(&(lease.mesh, *key)).copied(),
                req.clone(),
            ),
            Said::Mcp(asked, req) => self.mcp_expected((id, lease), asked, req),
            Said::Schedule(asked, req) => self.schedule_expected(lease.who.member, asked, req),
            Said::Unwatch(watch, req) => self.unwatch_expected(id, watch, req),
            Said::Watches(req) => Expect::Watches(self.watches.of(id), req.clone()),
            _ => expect.clone(),
        }
    }

    /// The session whose socket that is publishes something, and there is such a stream.
    pub(crate) fn publishes(&self, at: ConnKey, said: &Said) -> Option<(String, usize, usize)> {
        let Said::Publish(stream, number, _) = said else {
            return None;
        };
        let (id, lease) = self.attached(at)?;
        self.stream_known(lease.mesh, *stream)
            .then(|| (id.clone(), *stream, *number))
    }

    /// A request, as it changes the model.
    pub(crate) fn share(&mut self, id: &str, mesh: usize, said: &Said) {
        let now = self.mono();
        let place = self.news.len() as u64;
        let sharing = &mut self.sharing;
        match said {
            Said::Set(key, number) => drop(sharing.state.insert((mesh, *key), *number)),
            Said::Subscribe(stream, true, _) => {
                let subscription = (id.to_owned(), *stream);
                sharing.subscriptions.entry(subscription).or_insert(place);
            }
            Said::Subscribe(stream, false, _) => {
                sharing.subscriptions.remove(&(id.to_owned(), *stream));
            }
            Said::CreateStream(stream) => drop(sharing.created.insert((mesh, *stream))),
            Said::Clock(what) => {
                let clock = sharing.clocks.get_mut(&mesh);
                match (what, clock) {
                    (Clocked::Set(speed), None) => {
                        let clock = ClockModel {
                            speed: *speed,
                            started: self.now.wall,
                            running: Some((now, Some(0))),
                        };
                        sharing.clocks.insert(mesh, clock);
                    }
                    (Clocked::Set(speed), Some(clock)) => {
                        clock.speed = *speed;
                        clock.running = clock.running.map(|_| (now, None));
                    }
                    (Clocked::Pause, Some(clock)) => clock.running = None,
                    (Clocked::Resume, Some(clock)) => {
                        clock.running.get_or_insert((now, None));
                    }
                    (Clocked::Pause | Clocked::Resume, None) => {}
                }
            }
            _ => {}
        }
    }

    /// A lease ended, and with it its subscriptions; a mesh without any stops its clock.
    pub(crate) fn shares_no_more(&mut self, id: &str, mesh: usize) {
        self.sharing.subscriptions.retain(|(of, _), _| of != id);
        if !self.leases.values().any(|lease| lease.mesh == mesh)
            && let Some(clock) = self.sharing.clocks.get_mut(&mesh)
        {
            clock.running = None;
        }
    }

    /// A key was set, or something was published.
    pub(crate) fn shared_told(&mut self, at: ConnKey, frame: &Value, bytes: usize) -> Verdict {
        let set = frame["type"] == "state_change";
        let (name, number) = if set {
            ("key", "value")
        } else {
            ("stream", "data")
        };
        let number = frame[number].as_u64().unwrap_or_default();
        let name = frame[name].as_str().unwrap_or_default().to_owned();
        let fits = |_: &Self, news: &News| match news.what {
            What::Set(key, of) => set && of as u64 == number && KEYS[key] == name,
            What::Data(stream, of) => !set && of as u64 == number && STREAMS[stream] == name,
            _ => false,
        };
        let id = format!("{} {number}", if set { "set" } else { "data" });
        self.news_written(at, (&id, bytes), &fits, &format!("{id} of {name}"))
    }

    /// A clock ticked: a minute each, by where it began to run.
    pub(crate) fn ticked(&mut self, at: ConnKey, frame: &Value) -> Verdict {
        let now = self.mono();
        let Some(mesh) = self.attached(at).map(|(_, lease)| lease.mesh) else {
            return Ok(());
        };
        let Some(clock) = self.sharing.clocks.get_mut(&mesh) else {
            return Err(super::Violation::new("I2", "a tick without a clock"));
        };
        let tick = frame["eventData"]["tick"].as_u64().unwrap_or_default();
        let shown = clock.started.after(Millis(60_000 * tick)).to_string();
        ensure!(
            frame["eventData"]["simTime"] == *shown,
            "I2",
            "tick {tick} is at {}, and not at {shown}",
            frame["eventData"]["simTime"]
        );
        let Some((since, from)) = &mut clock.running else {
            return Err(super::Violation::new(
                "I2",
                format!("tick {tick} of a clock that stands"),
            ));
        };
        let passed = (now - *since) * clock.speed / 60_000;
        let from = *from.get_or_insert(tick.saturating_sub(passed));
        ensure!(
            passed > 0 && tick == from + passed,
            "I2",
            "tick {tick} when {passed} are due since {from}"
        );
        Ok(())
    }

    /// A process begins with what is on disk.
    pub(crate) fn shared_again(&mut self, tables: &Tables) {
        let town = &self.plan.town;
        let (mesh_of, key_of) = (
            |id: &String| town.meshes.iter().position(|mesh| mesh.id == *id),
            |names: &[&str], name: &str| names.iter().position(|known| *known == name),
        );
        let mut sharing = Sharing::default();
        for row in tables.state.values() {
            if let (Some(mesh), Some(key)) = (mesh_of(&row.mesh_id), key_of(&KEYS, &row.key)) {
                let number = row.value.parse().unwrap_or_default();
                sharing.state.insert((mesh, key), number);
            }
        }
        for row in &tables.streams {
            if let (Some(mesh), Some(stream)) = (mesh_of(&row.mesh_id), key_of(&STREAMS, &row.name))
            {
                sharing.created.insert((mesh, stream));
            }
        }
        for (began, name) in &tables.subscriptions {
            let of = tables
                .presences
                .iter()
                .find(|(_, of)| of.row.began == *began);
            if let (Some((id, _)), Some(stream)) = (of, key_of(&STREAMS, name)) {
                sharing.subscriptions.insert((id.clone(), stream), 0);
                sharing.torn.insert(id.clone());
                sharing.restored.insert(id.clone());
            }
        }
        for (place, news) in self.news.iter_mut().enumerate() {
            if let What::Set(key, number) = news.what {
                news.over = sharing.state.get(&(news.mesh, key)) != Some(&number);
                if !news.over {
                    sharing.last.insert((news.mesh, key), place);
                }
            }
        }
        self.sharing = sharing;
    }

    /// The boot is over: who was not restored has no subscription.
    pub(crate) fn subscriptions_kept(&mut self) {
        let leases = &self.leases;
        self.sharing
            .subscriptions
            .retain(|(id, _), _| leases.contains_key(id));
    }

    /// Subscriptions are those of the leases, and every clock that runs has its timer.
    pub(crate) fn sharing_inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        let here = |id: &String| self.leases.get(id).is_some_and(|l| l.shard == shard);
        let subscriptions = self
            .sharing
            .subscriptions
            .keys()
            .filter(|(id, _)| here(id))
            .count();
        ensure!(
            (inspect.subscriptions, inspect.subscribers) == (subscriptions, subscriptions),
            "I9",
            "{inspect:?}, {subscriptions} subscriptions"
        );
        let meshes = &self.plan.town.meshes;
        let runs = |(mesh, clock): &(&usize, &ClockModel)| {
            meshes[**mesh].home == shard && clock.running.is_some()
        };
        let clocks = self.sharing.clocks.iter().filter(runs).count();
        ensure!(
            inspect.clocks == clocks,
            "I9",
            "{inspect:?}, {clocks} clocks run"
        );
        Ok(())
    }
}
