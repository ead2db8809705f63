//! URL watches: there exactly as long as the lease that made them, looked at in time, and their
//! owner is told of each change until its socket is known to have it.

use std::collections::BTreeMap;

use holdfast_core::ids::{Position, Token, WatchId};
use holdfast_core::limits::{self, WATERMARK_DELAY};
use holdfast_core::marks::Inspect;
use holdfast_core::rows::{StoreOp, WatchRow};
use holdfast_core::watch::FetchFailure;
use serde_json::Value;

use super::conns::TICK;
use super::model::Lease;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::disk::Tables;
use crate::said::{self, Expect, Said};

/// How often a watch is looked at: as the clients here ask, and no less than is allowed.
const INTERVAL: u64 = 5_000;

/// How many of a session are looked at together.
const FETCHES: usize = limits::WATCH_FETCHES_MAX as usize;

/// What an owner is to be told.
#[derive(Clone, Debug)]
struct Change {
    /// The value before.
    old: String,
    written: Option<Written>,
}

/// That a socket was written something.
#[derive(Clone, Copy, Debug)]
struct Written {
    conn: ConnKey,
    at: u64,
    /// The first ping behind it.
    ping: Option<u64>,
}

/// One watch.
#[derive(Clone, Debug)]
struct Watch {
    owner: String,
    began: Position,
    id: WatchId,
    /// Its maker was told of it.
    answered: bool,
    /// As fetched last.
    value: String,
    /// What its row may say that its owner knows, the latest last.
    known: Vec<String>,
    /// When it was looked at last, or was there to be; and when that was over.
    since: u64,
    over: u64,
    /// It was looked at by this process.
    looked: bool,
    fetching: bool,
    change: Option<Change>,
}

impl Watch {
    /// As its row says, not looked at yet.
    fn of_row(row: &WatchRow, owner: String, now: u64) -> Self {
        Self {
            owner,
            began: row.began,
            id: row.id,
            answered: false,
            value: row.value.clone(),
            known: vec![row.value.clone()],
            since: now,
            over: now,
            looked: false,
            fetching: false,
            change: None,
        }
    }

    /// Whether a pong of a session to that ping says that it was told of the change.
    fn confirmed_by(&self, (id, watermark): &(String, u64)) -> bool {
        let written = self.change.as_ref().and_then(|change| change.written);
        let ping = written.and_then(|written| written.ping);
        *id == self.owner && ping.is_some_and(|ping| ping <= *watermark)
    }
}

/// See the module. Watches go by the number in their URLs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    all: BTreeMap<usize, Watch>,
    /// What is being fetched and for whom, also for watches that are gone.
    fetching: BTreeMap<(u16, Token), (usize, String)>,
}

impl Watched {
    /// The id of a watch that somebody was told.
    pub(crate) fn some(&self, chance: u64) -> Option<String> {
        let told = || self.all.values().filter(|watch| watch.answered);
        let count = u64::try_from(told().count()).unwrap_or(0).max(1);
        let index = usize::try_from(chance % count).unwrap_or(0);
        told().nth(index).map(|watch| watch.id.to_string())
    }

    /// Those of a session, in the order made.
    pub(crate) fn of(&self, id: &str) -> Vec<usize> {
        let own = self.all.iter().filter(|(_, watch)| watch.owner == id);
        own.map(|(number, _)| *number).collect()
    }

    fn find(&mut self, id: WatchId, owner: &str) -> Option<(usize, &mut Watch)> {
        let mut all = self.all.iter_mut();
        all.find(|(_, watch)| watch.id == id && watch.owner == owner)
            .map(|(number, watch)| (*number, watch))
    }

    /// A lease ended, and its watches with it.
    pub(crate) fn end(&mut self, id: &str) {
        self.all.retain(|_, watch| watch.owner != id);
    }

    /// A ping stands behind what was written.
    pub(crate) fn pinged(&mut self, at: ConnKey, watermark: u64) {
        let changes = self.all.values_mut().filter_map(|w| w.change.as_mut());
        for written in changes.filter_map(|change| change.written.as_mut()) {
            if written.conn == at {
                written.ping.get_or_insert(watermark);
            }
        }
    }
}

/// The listed watches are those of the session.
pub(crate) fn watches_listed(numbers: &[usize], frame: &Value) -> Verdict {
    let listed = frame["watches"].as_array().into_iter().flatten();
    let listed = listed.map(|watch| said::watch_number(watch["url"].as_str().unwrap_or_default()));
    let mut listed: Vec<usize> = listed.flatten().collect();
    listed.sort_unstable();
    ensure!(
        listed == numbers,
        "I9",
        "the watches {numbers:?} are listed as {listed:?}"
    );
    Ok(())
}

impl Oracle {
    /// Watches whose rows are first given to the store in this step.
    pub(crate) fn watches_made(&mut self, step: &Step<'_>) -> Verdict {
        for effect in step.effects {
            let holdfast_core::effect::Effect::Persist { op, .. } = effect else {
                continue;
            };
            let StoreOp::WatchPut(row) = op else { continue };
            let number = said::watch_number(&row.url).unwrap_or_default();
            if self.watches.all.contains_key(&number) {
                continue;
            }
            let asked = matches!(step.cause, Cause::Frame(frame)
                if matches!(frame.said, Said::Watch(asked) if asked == number));
            let speaker = self.scratch.speaker.clone().filter(|_| asked);
            let Some(owner) = speaker else {
                let text = format!("watch {number} is stored and nobody asked for it");
                return Err(Violation::new("I10", text));
            };
            let watch = Watch::of_row(row, owner, self.mono());
            self.watches.all.insert(number, watch);
        }
        Ok(())
    }

    /// A watch is looked at: one that is there, once at a time, and not too often.
    pub(crate) fn fetches(&mut self, at: (u16, Token), url: &str) -> Verdict {
        let now = self.mono();
        let number = said::watch_number(url).unwrap_or_default();
        let Some(watch) = self.watches.all.get_mut(&number) else {
            let text = format!("fetches for watch {number}, which is not there");
            return Err(Violation::new("I3", text));
        };
        ensure!(!watch.fetching, "I8", "fetches twice for watch {number}");
        ensure!(
            !watch.looked || now >= watch.since + INTERVAL,
            "I2",
            "watch {number} is looked at {} ms after it was",
            now - watch.since
        );
        (watch.fetching, watch.looked, watch.since) = (true, true, now);
        let owner = watch.owner.clone();
        self.watches.fetching.insert(at, (number, owner));
        Ok(())
    }

    /// A page came, or did not.
    pub(crate) fn fetched(&mut self, at: (u16, Token), result: &Result<String, FetchFailure>) {
        let now = self.mono();
        let Some((number, _)) = self.watches.fetching.remove(&at) else {
            return;
        };
        if self.stopping {
            return;
        }
        let Some(watch) = self.watches.all.get_mut(&number) else {
            return;
        };
        watch.fetching = false;
        watch.over = now;
        let value = result.as_ref().ok().filter(|value| **value != watch.value);
        let Some(value) = value else { return };
        let old = std::mem::replace(&mut watch.value, value.clone());
        if old.is_empty() {
            self.scratch.first_seen = Some(number);
            return;
        }
        // Changes that nobody was there for are one, or none.
        let before = watch.change.take();
        let unheard = before.is_some_and(|change| change.written.is_none());
        let known = watch.known.last().filter(|_| unheard);
        let old = known.cloned().unwrap_or(old);
        let written = None;
        watch.change = (old != watch.value).then_some(Change { old, written });
    }

    /// An owner is told of a change.
    pub(crate) fn watch_told(&mut self, at: ConnKey, frame: &Value) -> Verdict {
        let now = self.mono();
        let Some(id) = self.attached(at).map(|(id, _)| id.clone()) else {
            return Ok(());
        };
        let data = &frame["eventData"];
        let watch = data["watchId"].as_str().and_then(WatchId::parse);
        let found = watch.and_then(|watch| self.watches.find(watch, &id));
        let Some((number, watch)) = found else {
            let text = format!("{id} is told of a watch that it does not have: {frame}");
            return Err(Violation::new("I7", text));
        };
        let Some(change) = &mut watch.change else {
            let text = format!("{id} is told of watch {number}, which has not changed");
            return Err(Violation::new("I6", text));
        };
        let again = change.written.is_some_and(|written| written.conn == at);
        ensure!(
            !again,
            "I6",
            "{id} is told twice of watch {number} on one socket"
        );
        let fits = data["oldValue"] == *change.old && data["newValue"] == *watch.value;
        ensure!(
            fits,
            "I4",
            "watch {number} was {} and is {}: {frame}",
            change.old,
            watch.value
        );
        let (conn, at, ping) = (at, now, None);
        change.written = Some(Written { conn, at, ping });
        Ok(())
    }

    /// What the owner of a watch knows is written down.
    pub(crate) fn watch_noted(&mut self, step: &Step<'_>, row: &WatchRow) -> Verdict {
        let number = said::watch_number(&row.url).unwrap_or_default();
        let answered = self.scratch.answered.clone();
        let note = self.scratch.first_seen == Some(number);
        let Some(watch) = self.watches.all.get_mut(&number) else {
            let text = format!("writes watch {number}, which is not there");
            return Err(Violation::new("I10", text));
        };
        if row.value.is_empty() {
            return Ok(());
        }
        let confirmed = answered.is_some_and(|pong| watch.confirmed_by(&pong));
        ensure!(
            row.value == watch.value && (note || confirmed),
            "I4",
            "by {} the owner of watch {number} knows {}, says its row; it is {:?}",
            step.cause.tag(),
            row.value,
            watch.change
        );
        watch.change = None;
        watch.known.push(row.value.clone());
        if note {
            self.scratch.first_seen = None;
        }
        Ok(())
    }

    /// A session gives a watch up, if it is its own.
    pub(crate) fn unwatched(&mut self, session: &str, id: &str) {
        let found = WatchId::parse(id).and_then(|id| self.watches.find(id, session));
        if let Some((number, _)) = found {
            self.watches.all.remove(&number);
        }
    }

    /// A row is removed: only of a watch that was given up.
    pub(crate) fn watch_gone(&self, of: (Position, WatchId), tables: &Tables) -> Verdict {
        let there = self
            .watches
            .all
            .iter()
            .find(|(_, watch)| (watch.began, watch.id) == of);
        ensure!(
            there.is_none(),
            "I10",
            "the row of watch {there:?} is removed, {} are on disk",
            tables.watches.len()
        );
        Ok(())
    }

    /// The answer to `unwatch`.
    pub(crate) fn unwatch_expected(&self, session: &str, id: &str, req: &str) -> Expect {
        let mesh = |id: &str| self.leases.get(id).map(|lease| lease.mesh);
        let here = mesh(session);
        let watches = self.watches.all.values();
        let mut same = watches.filter(|w| w.id.to_string() == id && mesh(&w.owner) == here);
        match same.next() {
            None => Expect::Refused("not_found", req.to_owned()),
            Some(watch) if watch.owner == session => {
                Expect::Unwatched(id.to_owned(), req.to_owned())
            }
            Some(_) => Expect::Refused("forbidden", req.to_owned()),
        }
    }

    /// `watch` was answered.
    pub(crate) fn watch_answered(
        &mut self,
        step: &Step<'_>,
        number: usize,
        frame: &Value,
    ) -> Verdict {
        if frame["type"] == "error" {
            let code = frame["code"].as_str().unwrap_or_default();
            let there = self.watches.all.contains_key(&number);
            let fits = code == "limit" && !there || code == "storage" && self.store_refused;
            ensure!(
                fits,
                "I4",
                "watch {number} was refused for no reason: {frame}"
            );
            return Ok(());
        }
        let mut rows = step.tables.watches.values();
        let row = rows.find(|row| said::watch_number(&row.url) == Some(number));
        let id = row.map(|row| row.id.to_string()).unwrap_or_default();
        ensure!(
            frame["watchId"] == *id && frame["id"] == *id,
            "I4",
            "watch {number} was answered and is on disk as {id:?}: {frame}"
        );
        if let Some(watch) = self.watches.all.get_mut(&number) {
            watch.answered = true;
        }
        Ok(())
    }

    /// `unwatch` was answered.
    pub(crate) fn unwatch_answered(&self, step: &Step<'_>, id: &str, frame: &Value) -> Verdict {
        if frame["type"] == "error" {
            ensure!(
                self.store_refused,
                "I4",
                "a watch was kept for no reason: {frame}"
            );
            return Ok(());
        }
        let row = step
            .tables
            .watches
            .values()
            .find(|row| row.id.to_string() == *id);
        ensure!(row.is_none(), "I4", "watch {id} is gone, and on disk");
        Ok(())
    }

    /// After the effects: who is there has been told, what a pong confirms is written down, and
    /// every watch is looked at in time.
    pub(crate) fn watches_settled(&self, step: &Step<'_>) -> Verdict {
        if self.stopping || self.booting {
            return Ok(());
        }
        let noted = self.scratch.first_seen;
        ensure!(
            noted.is_none(),
            "I4",
            "the first value of watch {noted:?} was not written down"
        );
        let now = self.mono();
        for (number, watch) in &self.watches.all {
            let Some(lease) = self.leases.get(&watch.owner) else {
                let text = format!("watch {number} is there, {} is not", watch.owner);
                return Err(Violation::new("I3", text));
            };
            let due = matches!(step.cause, Cause::Time) && lease.shard == step.shard;
            if let Some(change) = &watch.change {
                self.change_told((*number, lease), (watch, change), due)?;
            }
            let fetching = self.watches.fetching.values();
            let own = fetching.filter(|(_, owner)| *owner == watch.owner);
            let busy = own.count() >= FETCHES;
            ensure!(
                !due || busy || watch.fetching || now < watch.over + INTERVAL + TICK,
                "I8",
                "watch {number} was not looked at for {} ms",
                now - watch.over
            );
        }
        Ok(())
    }

    /// What is to be told is written to whoever is there, and a ping asks whether it came.
    fn change_told(
        &self,
        (number, lease): (usize, &Lease),
        (watch, change): (&Watch, &Change),
        due: bool,
    ) -> Verdict {
        let owner = &watch.owner;
        let Some(conn) = lease.conn() else {
            return Ok(());
        };
        let Some(written) = change.written.filter(|written| written.conn == conn) else {
            let text = format!("{owner} was not told of watch {number}");
            return Err(Violation::new("I4", text));
        };
        let answered = self.scratch.answered.as_ref();
        ensure!(
            answered.is_none_or(|pong| !watch.confirmed_by(pong)),
            "I6",
            "{owner} has confirmed watch {number}, and is to be told again"
        );
        let Some(ledger) = self.ledgers.get(owner) else {
            return Ok(());
        };
        let waits = ledger.asked || !ledger.due.is_empty() || !lease.rewrite.is_empty();
        let waited = self.mono().saturating_sub(written.at.max(ledger.answered));
        ensure!(
            !due || waits || written.ping.is_some() || waited < WATERMARK_DELAY.0 + TICK,
            "I8",
            "{owner} was not asked whether it was told of watch {number} for {waited} ms"
        );
        Ok(())
    }

    /// A process begins with what is on disk; what was answered is.
    pub(crate) fn watches_restored(&mut self, tables: &Tables) -> Verdict {
        let before = std::mem::take(&mut self.watches).all;
        let owner = |began: Position| {
            let mut open = tables.presences.iter().filter(|(_, of)| of.ended.is_none());
            open.find(|(_, of)| of.row.began == began)
        };
        for row in tables.watches.values() {
            let number = said::watch_number(&row.url).unwrap_or_default();
            let Some((id, _)) = owner(row.began) else {
                let text = format!("watch {number} is on disk, and its session is not");
                return Err(Violation::new("I10", text));
            };
            let known = before.get(&number).map(|watch| &watch.known);
            ensure!(
                known.is_none_or(|known| known.contains(&row.value)),
                "I4",
                "watch {number} is on disk as {}, its owner knew {known:?}",
                row.value
            );
            let watch = Watch {
                answered: true,
                ..Watch::of_row(row, id.clone(), self.mono())
            };
            self.watches.all.insert(number, watch);
        }
        for (number, watch) in before {
            let lost = watch.answered && owner(watch.began).is_some();
            ensure!(
                !lost || self.watches.all.contains_key(&number),
                "I4",
                "watch {number} was answered and is not on disk"
            );
        }
        Ok(())
    }

    /// The boot is over: who was not restored watches nothing.
    pub(crate) fn watches_kept(&mut self) {
        let leases = &self.leases;
        let watches = &mut self.watches.all;
        watches.retain(|_, watch| leases.contains_key(&watch.owner));
    }

    /// How many watches a shard has.
    pub(crate) fn watches_on(&self, shard: u16) -> usize {
        let here = |id: &String| self.leases.get(id).is_some_and(|l| l.shard == shard);
        let all = self.watches.all.values();
        all.filter(|watch| here(&watch.owner)).count()
    }

    /// Sizes are what is there (I9).
    pub(crate) fn watches_inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        let watches = self.watches_on(shard);
        let fetching = self.watches.fetching.keys().filter(|at| at.0 == shard);
        let fetching = fetching.count();
        ensure!(
            (inspect.watches, inspect.watch_ids, inspect.fetching) == (watches, watches, fetching),
            "I9",
            "{inspect:?}, {watches} watches, {fetching} fetches"
        );
        Ok(())
    }

    /// At rest the rows are the model.
    pub(crate) fn watch_rows_agree(&self, tables: &Tables) -> Verdict {
        let rows = tables.watches.values();
        let mut rows: Vec<_> = rows.map(|row| said::watch_number(&row.url)).collect();
        rows.sort_unstable();
        let all: Vec<_> = self.watches.all.keys().copied().map(Some).collect();
        ensure!(
            rows == all,
            "I10",
            "the watches are {all:?}, their rows {rows:?}"
        );
        Ok(())
    }
}
