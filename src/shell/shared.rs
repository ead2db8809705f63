//! What all loops of a process see: the lanes, the counters, the store's health, the descriptors.
//!
//! A loop waits here for others only as long as they take to add a number or to push a message: no
//! lock is held over work. (The store's is taken out for writing once, when the loops have ended.)

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::boot::Notice;
use super::clerk::Order;
use super::clock::Clock;
use super::http::access::Access;
use super::lane::Lane;
use super::limiter::{Limiter, Pace};
use super::limits::{ACCEPT_WARNING, HOOK_BURST, HOOK_PER_MINUTE, HTTP_TIMEOUT, LANE_MESSAGES_MAX};
use super::message::Message;
use super::observe::Counters;
use super::runtime::Driver;
use crate::config::ServeConfig;
use crate::core::ids::Token;
use crate::core::time::{Millis, Mono};
use crate::core::watch::{FetchFailure, FetchRequest};
use crate::store::{Completion, CompletionSink, Health, Store};
use crate::watch::{FetchSink, Fetcher};

/// See the module.
pub(super) struct Shared {
    pub(super) lanes: Arc<[Lane<Message>]>,
    counters: Vec<Counters>,
    pub(super) clock: Clock,
    pub(super) driver: Driver,
    /// Cap on request bodies.
    pub(super) max_body_bytes: usize,
    /// Time for each step of a request; see [`HTTP_TIMEOUT`].
    pub(super) http_timeout: Millis,
    /// Connections of one source address: at once, and per minute.
    pub(super) source_limit: (u32, u32),
    /// Taken out, and closed, when the loops have ended.
    pub(super) store: RwLock<Option<Store>>,
    /// The way to the clerk, while there is one.
    clerk: RwLock<Option<SyncSender<Order>>>,
    /// Who may change what over HTTP.
    pub(super) access: Access,
    /// The way to those who fetch documents, while there are any.
    fetcher: RwLock<Option<Fetcher>>,
    /// By the hash of a key, which strangers make as long as they like.
    hooks: Mutex<Limiter<u64>>,
    hasher: RandomState,
    pauses: Mutex<Pace>,
    sockets: AtomicU64,
    sockets_max: u64,
}

impl Shared {
    /// For `lanes.len()` loops and at most `sockets_max` sockets.
    pub(super) fn new(
        lanes: Arc<[Lane<Message>]>,
        driver: Driver,
        store: Store,
        config: &ServeConfig,
        sockets_max: u64,
    ) -> Self {
        let clock = Clock::start();
        Self {
            access: Access::new(config, clock.now().wall),
            counters: lanes.iter().map(|_| Counters::default()).collect(),
            lanes,
            clock,
            driver,
            max_body_bytes: config.core.max_message_bytes,
            http_timeout: HTTP_TIMEOUT.min(config.core.hello_timeout),
            source_limit: (config.source_burst, config.source_rate),
            store: RwLock::new(Some(store)),
            clerk: RwLock::new(None),
            fetcher: RwLock::new(None),
            hooks: Mutex::new(Limiter::new(HOOK_BURST, HOOK_PER_MINUTE)),
            hasher: RandomState::new(),
            pauses: Mutex::new(Pace::new(ACCEPT_WARNING)),
            sockets: AtomicU64::new(0),
            sockets_max,
        }
    }

    /// The counters of one loop.
    pub(super) fn counters(&self, index: u16) -> &Counters {
        // `index` is always below the number of loops, of which there is at least one.
        self.counters
            .get(usize::from(index))
            .unwrap_or(&self.counters[0])
    }

    /// The counters of all loops.
    pub(super) fn all_counters(&self) -> &[Counters] {
        &self.counters
    }

    /// Counts a socket in, if there is a descriptor for it beside those kept back.
    pub(super) fn socket_opened(&self) -> bool {
        let before = self.sockets.fetch_add(1, Ordering::Relaxed);
        if before < self.sockets_max {
            return true;
        }
        self.socket_closed();
        false
    }

    /// Counts a socket out.
    pub(super) fn socket_closed(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sockets of all loops.
    pub(super) fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Whether a pause for want of descriptors is to be logged: not if one just was.
    pub(super) fn pause_to_be_told(&self, now: Mono) -> bool {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.due(now)
    }

    /// How the store is; None once it is closed.
    pub(super) fn health(&self) -> Option<Health> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().map(Store::health)
    }

    /// From now on there is a clerk.
    pub(super) fn employ_clerk(&self, orders: SyncSender<Order>) {
        let mut clerk = self.clerk.write().unwrap_or_else(PoisonError::into_inner);
        *clerk = Some(orders);
    }

    /// The clerk ends when it has done what it was given; the loops have ended.
    pub(super) fn dismiss_clerk(&self) {
        let mut clerk = self.clerk.write().unwrap_or_else(PoisonError::into_inner);
        clerk.take();
    }

    /// Gives the clerk an order; false if too many wait.
    pub(super) fn order(&self, order: Order) -> bool {
        let clerk = self.clerk.read().unwrap_or_else(PoisonError::into_inner);
        let sent = clerk.as_ref().map(|clerk| clerk.try_send(order));
        sent.is_some_and(|sent| sent.is_ok())
    }

    /// From now on documents can be fetched.
    pub(super) fn employ_fetcher(&self, new: Fetcher) {
        let mut fetcher = self.fetcher.write().unwrap_or_else(PoisonError::into_inner);
        *fetcher = Some(new);
    }

    /// Nothing is fetched any more; the loops have ended. Threads that wait for a server are not
    /// waited for: they end with their request.
    pub(super) fn dismiss_fetcher(&self) {
        let mut fetcher = self.fetcher.write().unwrap_or_else(PoisonError::into_inner);
        fetcher.take();
    }

    /// Has a document fetched for that loop.
    pub(super) fn fetch(&self, index: u16, token: Token, request: Box<FetchRequest>) {
        let fetcher = self.fetcher.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetcher) = &*fetcher {
            fetcher.fetch(index, token, request);
        }
    }

    /// Takes a token of a status hook's bucket.
    pub(super) fn hook_allowed(&self, key: &str, now: Mono) -> bool {
        let key = self.hasher.hash_one(key);
        self.hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(key, now)
    }
}

/// One lane per loop.
///
/// # Errors
/// If no descriptor is left for its bell.
pub(super) fn lanes(count: u16) -> std::io::Result<Arc<[Lane<Message>]>> {
    (0..count.max(1))
        .map(|_| Lane::new(LANE_MESSAGES_MAX))
        .collect()
}

/// Brings fetched documents to the loops.
pub(super) struct Fetched(pub(super) Arc<[Lane<Message>]>);

impl FetchSink for Fetched {
    fn fetched(&self, shard: u16, token: Token, result: Result<String, FetchFailure>) {
        if let Some(lane) = self.0.get(usize::from(shard)) {
            // Refused only by a loop that has ended: nobody waits there any more.
            lane.deliver(Message::Fetched { token, result }).ok();
        }
    }
}

/// Brings the store's results to the loops, and its end to whoever waits for notices.
pub(super) struct Sink {
    pub(super) lanes: Arc<[Lane<Message>]>,
    pub(super) notify: Sender<Notice>,
}

impl CompletionSink for Sink {
    fn complete(&self, shard: u16, batch: Vec<Completion>) {
        if let Some(lane) = self.lanes.get(usize::from(shard)) {
            // Refused only by a loop that has ended: nobody waits there any more.
            lane.deliver(Message::Stored(batch)).ok();
        }
    }

    fn died(&self) {
        // Nobody listens any more only if the process is about to end.
        self.notify.send(Notice::Died).ok();
    }
}
