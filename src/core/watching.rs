//! URL watches: when they are checked, what their owners are told, and when they end.
//!
//! A watch belongs to the lease of the session that made it: it is checked on in grace, and ends
//! with the lease. News of it is kept, the last of each watch, until the owner's socket is known
//! to have taken it; only then its row says that the owner knows. So a restart finds the change
//! again.

use bytes::Bytes;

use crate::bucket::Bucket;
use crate::effect::Effect;
use crate::event::Event;
use crate::ids::{Position, Token, WatchId};
use crate::limits::{
    WATCH_BURST, WATCH_FETCHES_MAX, WATCH_INTERVAL_MAX, WATCH_INTERVAL_MIN, WATCH_RATE, WATCHES_MAX,
};
use crate::marks::{Mark, mark};
use crate::peer::PeerConn;
use crate::rows::{StoreOp, WatchRow};
use crate::shard::{Shard, Timer, Turn};
use crate::time::{Millis, Mono, Wall};
use crate::watch::{FetchFailure, FetchRequest, Reading};
use crate::wheel::TimerKey;
use crate::wire::frames;

/// For whom something is being fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetching {
    slot: u32,
    /// Which lease in that slot.
    order: u64,
    id: WatchId,
}

/// The watches of one session, in the order made; at most [`WATCHES_MAX`].
#[derive(Debug)]
pub(crate) struct Watches {
    list: Vec<Watch>,
    /// Fetches for it, also for watches given up since.
    under_way: u8,
    made: Bucket,
}

/// One watch.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What is on disk, or is to be. Its value is the one the owner knows of.
    pub(crate) row: WatchRow,
    /// As of the last check.
    pub(crate) value: String,
    pub(crate) checked: Option<Wall>,
    /// Why the last check came to nothing, if it did.
    pub(crate) failure: Option<FetchFailure>,
    /// When it is checked next; None while it waits for others of its session to be fetched.
    timer: Option<TimerKey>,
    /// Since when it waits so.
    overdue: Option<Mono>,
    fetching: Option<Token>,
    news: Option<News>,
}

/// What the owner is not known to have been told.
#[derive(Debug)]
struct News {
    frame: Bytes,
    /// Where its socket was written it; in grace that says nothing.
    written: Option<Position>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Triggered<'a> {
    watch_id: WatchId,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    mode: &'a str,
    old_value: &'a str,
    new_value: &'a str,
}

impl Watches {
    fn new(now: Mono) -> Self {
        Self {
            list: Vec::new(),
            under_way: 0,
            made: Bucket::full(WATCH_BURST, now),
        }
    }

    /// All of them.
    pub(crate) fn list(&self) -> &[Watch] {
        &self.list
    }

    /// Whether there is news that has not been confirmed.
    pub(crate) fn tell(&self) -> bool {
        self.list.iter().any(|watch| watch.news.is_some())
    }

    fn find(&mut self, id: WatchId) -> Option<&mut Watch> {
        self.list.iter_mut().find(|watch| watch.row.id == id)
    }

    /// The one that has waited longest for others.
    fn overdue(&self) -> Option<WatchId> {
        let waiting = self
            .list
            .iter()
            .filter_map(|w| Some((w.overdue?, w.row.id)));
        waiting.min_by_key(|(since, _)| *since).map(|(_, id)| id)
    }

    fn remove(&mut self, id: WatchId) -> Option<Watch> {
        let index = self.list.iter().position(|watch| watch.row.id == id)?;
        Some(self.list.remove(index))
    }
}

impl Watch {
    fn new(row: WatchRow) -> Self {
        Self {
            value: row.value.clone(),
            row,
            checked: None,
            failure: None,
            timer: None,
            overdue: None,
            fetching: None,
            news: None,
        }
    }

    fn request(&self) -> FetchRequest {
        FetchRequest {
            url: self.row.url.clone(),
            headers: self.row.headers.clone(),
            reading: Reading {
                mode: self.row.mode,
                extract: self.row.extract.clone(),
            },
        }
    }

    /// The owner knows the present value: gives the row that says so.
    fn known(&mut self) -> Box<WatchRow> {
        self.row.value.clone_from(&self.value);
        Box::new(self.row.clone())
    }
}

/// What a check means for the owner.
enum Outcome {
    /// Nothing.
    Same,
    /// A value that it need not be told of.
    Note(Box<WatchRow>),
    /// It is told that the value was this before.
    Tell(String),
}

impl Watch {
    fn take(&mut self, value: String) -> (&'static str, Outcome) {
        if value == self.value {
            return ("same", Outcome::Same);
        }
        let old = std::mem::replace(&mut self.value, value);
        if old.is_empty() {
            return ("first", Outcome::Note(self.known()));
        }
        if self.row.notify_on.tells(&old, &self.value) {
            return self.tell(old);
        }
        if self.news.is_some() {
            // Noted when the news before it has been confirmed.
            return ("changed", Outcome::Same);
        }
        ("changed", Outcome::Note(self.known()))
    }
}

impl Watch {
    /// A change is to be told. With one that nobody was there for it is one change, or none.
    fn tell(&mut self, old: String) -> (&'static str, Outcome) {
        let news = self.news.take();
        let unheard = news.as_ref().is_some_and(|news| news.written.is_none());
        let old = if unheard { self.row.value.clone() } else { old };
        if old == self.value {
            return ("changed", Outcome::Same);
        }
        ("told", Outcome::Tell(old))
    }
}

impl Shard {
    /// Whether a session may make another watch now.
    pub(crate) fn may_watch(&mut self, now: Mono, slot: u32) -> bool {
        self.peers.get_slot_mut(slot).is_some_and(|peer| {
            let watches = &mut peer.rare_mut().watches;
            let watches = watches.get_or_insert_with(|| Watches::new(now).into());
            watches.made.take(now, WATCH_RATE, WATCH_BURST)
        })
    }

    /// A name that no watch of the mesh has.
    pub(crate) fn new_watch_id(&mut self, slot: u32) -> WatchId {
        let mesh = self.peers.get_slot(slot).map(|peer| peer.mesh);
        loop {
            let id = self.mint.watch_id();
            // At most a thousand of four thousand million are taken.
            let taken = mesh.and_then(|mesh| self.mesh(mesh)?.watches.get(&id));
            if taken.is_none() {
                return id;
            }
        }
    }

    /// A session has a watch from now on, and it is checked at once.
    pub(crate) fn add_watch(&mut self, t: &mut Turn<'_>, slot: u32, row: WatchRow) {
        let id = row.id;
        if self.enter_watch(t.now.mono, slot, row) {
            self.watch_due(t, slot, id);
        }
    }

    /// A watch found at boot is the session's again. Checks are spread over the interval, so that
    /// a start does not make them all at once.
    pub(crate) fn restore_watch(&mut self, t: &Turn<'_>, slot: u32, mut row: WatchRow) {
        let (id, least, most) = (row.id, WATCH_INTERVAL_MIN.0, WATCH_INTERVAL_MAX.0);
        row.interval = Millis(row.interval.0.clamp(least, most));
        let wait = Millis(u64::from(id.0) % row.interval.0);
        if self.enter_watch(t.now.mono, slot, row) {
            mark(Mark::WatchRestored);
            self.check_later(t, slot, id, wait);
        }
    }

    fn enter_watch(&mut self, now: Mono, slot: u32, row: WatchRow) -> bool {
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return false;
        };
        let (mesh, id) = (peer.mesh, row.id);
        let watches = &mut peer.rare_mut().watches;
        let watches = watches.get_or_insert_with(|| Watches::new(now).into());
        if watches.list.len() >= WATCHES_MAX || watches.find(id).is_some() {
            return false;
        }
        watches.list.push(Watch::new(row));
        if let Some(found) = self.mesh_mut(mesh) {
            found.watches.insert(id, slot);
        }
        true
    }

    /// A session gives up a watch; gives what it was.
    pub(crate) fn remove_watch(&mut self, slot: u32, id: WatchId) -> Option<WatchRow> {
        let peer = self.peers.get_slot_mut(slot)?;
        let mesh = peer.mesh;
        let watch = peer.watches_mut()?.remove(id)?;
        if let Some(timer) = watch.timer {
            self.wheel.cancel(timer);
        }
        if let Some(found) = self.mesh_mut(mesh) {
            found.watches.remove(&id);
        }
        Some(watch.row)
    }

    /// A lease ended. The rows go with its own.
    pub(crate) fn drop_watches(&mut self, gone: &mut PeerConn) {
        let rare = gone.rare.as_mut();
        let Some(watches) = rare.and_then(|rare| rare.watches.take()) else {
            return;
        };
        mark(Mark::WatchesEnded);
        for watch in watches.list {
            if let Some(timer) = watch.timer {
                self.wheel.cancel(timer);
            }
            if let Some(found) = self.mesh_mut(gone.mesh) {
                found.watches.remove(&watch.row.id);
            }
        }
    }

    fn check_later(&mut self, t: &Turn<'_>, slot: u32, id: WatchId, wait: Millis) {
        let timer = self
            .wheel
            .insert(t.now.mono.after(wait), Timer::Watch(slot, id));
        let peer = self.peers.get_slot_mut(slot);
        let watch = peer.and_then(|peer| peer.watches_mut()?.find(id));
        if let Some(watch) = watch {
            watch.timer = Some(timer);
        }
    }

    /// A watch is to be checked. One fetch for each is under way at a time, and few for a session:
    /// the others wait their turn.
    pub(crate) fn watch_due(&mut self, t: &mut Turn<'_>, slot: u32, id: WatchId) {
        let token = self.next_token();
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let order = peer.order;
        let Some(watches) = peer.watches_mut() else {
            return;
        };
        let busy = watches.under_way >= WATCH_FETCHES_MAX;
        let Some(watch) = watches.find(id) else {
            return;
        };
        let interval = watch.row.interval;
        watch.timer = None;
        if watch.fetching.is_none() {
            if busy {
                mark(Mark::WatchWaited);
                watch.overdue = Some(t.now.mono);
                return;
            }
            (watch.fetching, watch.overdue) = (Some(token), None);
            let request = Box::new(watch.request());
            watches.under_way += 1;
            self.fetching.insert(token, Fetching { slot, order, id });
            t.fx.push(Effect::Fetch { request, token });
        }
        self.check_later(t, slot, id, interval);
    }

    /// A check is over.
    pub(crate) fn fetched(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        result: Result<String, FetchFailure>,
    ) {
        let Some(Fetching { slot, order, id }) = self.fetching.remove(&token) else {
            return;
        };
        if self.shutting_down {
            // Nobody could be told.
            return;
        }
        let peer = self.peers.get_slot_mut(slot);
        let watches = peer
            .filter(|peer| peer.order == order)
            .and_then(PeerConn::watches_mut);
        let Some(watches) = watches else {
            mark(Mark::FetchedForNobody);
            return t.observe(Event::Watched { result: "gone" });
        };
        watches.under_way = watches.under_way.saturating_sub(1);
        let next = watches.overdue();
        self.checked(t, (slot, id), result);
        if let Some(next) = next {
            self.watch_due(t, slot, next);
        }
    }

    /// What a check of a session's watch has come to.
    fn checked(
        &mut self,
        t: &mut Turn<'_>,
        (slot, id): (u32, WatchId),
        result: Result<String, FetchFailure>,
    ) {
        let peer = self.peers.get_slot_mut(slot);
        let watch = peer.and_then(|peer| peer.watches_mut()?.find(id));
        let Some(watch) = watch else {
            return t.observe(Event::Watched { result: "gone" });
        };
        watch.fetching = None;
        watch.checked = Some(t.now.wall);
        watch.failure = result.as_ref().err().copied();
        let (result, outcome) = match result {
            Ok(value) => watch.take(value),
            Err(failure) => (failure.label(), Outcome::Same),
        };
        t.observe(Event::Watched { result });
        match outcome {
            Outcome::Same => {}
            Outcome::Note(row) => t.persist(StoreOp::WatchPut(row)),
            Outcome::Tell(old) => self.trigger(t, slot, id, &old),
        }
    }

    /// The owner is told of a change, now or when it is back.
    fn trigger(&mut self, t: &mut Turn<'_>, slot: u32, id: WatchId, old: &str) {
        let message_id = self.mint.uuid_v4();
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let mesh_id = self.mesh(peer.mesh).map(|mesh| &*mesh.id);
        let watch = peer.watches().and_then(|watches| {
            let mut list = watches.list.iter();
            list.find(|watch| watch.row.id == id)
        });
        let Some(watch) = watch else { return };
        let frame = frames::encode(&frames::SystemPush {
            subtype: "system",
            event: "watch_triggered",
            event_data: Triggered {
                watch_id: id,
                url: &watch.row.url,
                label: watch.row.label.as_deref(),
                mode: watch.row.mode.name(),
                old_value: old,
                new_value: &watch.value,
            },
            message_id: &message_id,
            mesh_id: mesh_id.unwrap_or_default(),
            sender_pubkey: "system",
            priority: "now",
            nonce: "",
            ciphertext: "",
            created_at: t.now.wall,
        });
        let peer = self.peers.get_slot_mut(slot);
        let watch = peer.and_then(|peer| peer.watches_mut()?.find(id));
        if let Some(watch) = watch {
            let written = None;
            watch.news = Some(News { frame, written });
        }
        self.tell_watch(t, slot, id);
    }

    /// Writes the news of a watch, if its owner has a socket.
    fn tell_watch(&mut self, t: &mut Turn<'_>, slot: u32, id: WatchId) {
        let written = self.stamp();
        let Some(peer) = self.peers.get_slot_mut(slot) else {
            return;
        };
        let Some(conn) = peer.conn() else { return };
        let watch = peer.watches_mut().and_then(|watches| watches.find(id));
        let Some(news) = watch.and_then(|watch| watch.news.as_mut()) else {
            return;
        };
        mark(Mark::WatchTold);
        news.written = Some(written);
        t.send(conn, news.frame.clone());
        if let Some(online) = peer.online_mut() {
            online.watermarks.wrote();
        }
        self.watermark_after_push(t, slot);
    }

    /// The owner has a new socket: what the last one may have swallowed is written again.
    pub(crate) fn tell_watches_again(&mut self, t: &mut Turn<'_>, slot: u32) {
        let watches = self.peers.get_slot(slot).and_then(PeerConn::watches);
        let list = watches.map(Watches::list).unwrap_or_default();
        let told = list.iter().filter(|watch| watch.news.is_some());
        let ids: Vec<WatchId> = told.map(|watch| watch.row.id).collect();
        for id in ids {
            mark(Mark::WatchToldAgain);
            self.tell_watch(t, slot, id);
        }
    }

    /// The owner's socket has taken everything up to there.
    pub(crate) fn watches_confirmed(&mut self, t: &mut Turn<'_>, slot: u32, upto: Position) {
        let peer = self.peers.get_slot_mut(slot);
        let Some(watches) = peer.and_then(PeerConn::watches_mut) else {
            return;
        };
        for watch in &mut watches.list {
            let written = watch.news.as_ref().and_then(|news| news.written);
            if written.is_some_and(|written| written <= upto) {
                mark(Mark::WatchConfirmed);
                watch.news = None;
                t.persist(StoreOp::WatchPut(watch.known()));
            }
        }
    }
}
