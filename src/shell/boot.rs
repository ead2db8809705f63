//! Starting and stopping: the store, the loops, the listeners, in that order and back.
//!
//! 1. Bind, so that a port in use changes nothing on disk.
//! 2. Open the store, bind the admin socket, and only then count the boot.
//! 3. Start the loops, and read what the last process left; each loop gives its rows to its shard
//!    while the next ones are read.
//! 4. Only then listen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::clerk;
use super::control::Control;
use super::limits::{BACKLOG, BOOT_BATCHES, RESERVED_DESCRIPTORS, RESERVED_PER_LOOP, UNACKED_MIN};
use super::listen;
use super::loop_thread::{LoopStart, Rows, run_loop};
use super::message::Message;
use super::runtime::Driver;
use super::shared::{Fetched, Shared, Sink, lanes};
use crate::admin::{self, AdminServer, AdminSocket};
use crate::config::ServeConfig;
use crate::core::ids::{Position, Seq, home_of};
use crate::core::rows::{BootRow, Restart, StoreOp};
use crate::store::{BootError, Image, OpenError, Store};
use crate::watch::{Fetcher, SystemLookup};

/// Forces the epoll driver when set to `epoll`.
const DRIVER: &str = "HOLDFAST_DRIVER";

/// Why the broker does not run. Each prints as one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What the last process left cannot be read.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The machine gives no thread, no descriptor or no entropy.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The admin socket cannot be made.
    #[error("cannot listen for administrators on {}: {source}", .path.display())]
    Admin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A loop has lost its driver; what it served is gone until the next start.
    #[error("a loop has ended: {0}")]
    LoopFailed(std::io::Error),
    /// A loop, or a thread of the store, has ended by a bug; what it served is gone until the next
    /// start.
    #[error("a thread died; this is a bug")]
    LoopDied,
}

fn hint(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        " (is another broker running? choose another --listen)"
    } else {
        ""
    }
}

/// What a running broker has to tell the thread that waits for it.
pub(super) enum Notice {
    /// A loop has its rows.
    Ready,
    /// A loop could not start, or not go on.
    Failed(std::io::Error),
    /// A loop, or a thread of the store, panicked.
    Died,
    /// Somebody wants the process to end.
    Signal,
}

impl Notice {
    /// How it ends a broker that runs; None if that goes on.
    pub(super) fn end(self) -> Option<Result<(), StartError>> {
        match self {
            Self::Ready => None,
            Self::Signal => Some(Ok(())),
            Self::Failed(error) => Some(Err(StartError::LoopFailed(error))),
            Self::Died => Some(Err(StartError::LoopDied)),
        }
    }
}

/// A running broker. Dropping it stops it, gracefully.
pub struct Server {
    shared: Arc<Shared>,
    control: Control,
    threads: Vec<JoinHandle<()>>,
    clerk: Option<JoinHandle<()>>,
    admin: Option<AdminServer>,
    notices: Receiver<Notice>,
    notify: Sender<Notice>,
}

impl Server {
    /// Starts a broker; when this returns, clients can connect.
    ///
    /// # Errors
    /// See [`StartError`]: each variant is one clear line.
    pub fn start(config: ServeConfig) -> Result<Self, StartError> {
        let wish = std::env::var(DRIVER).ok();
        Self::start_on(config, wish.as_deref())
    }

    /// The same on a driver of one's choice.
    pub(super) fn start_on(config: ServeConfig, wish: Option<&str>) -> Result<Self, StartError> {
        let address = config.listen;
        let unheard = |source| StartError::Listen { address, source };
        let sockets_max = sockets_max(raise_descriptor_limit(), config.threads);
        // A limit on the size of files is an error of the write, as a full disk is, and no reason
        // to die: any handler makes it so.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        let count = config.threads.max(1);
        let patience = config.core.pong_timeout.max(UNACKED_MIN);
        let listeners = listen::bind_patiently(address, count, patience).map_err(unheard)?;
        let address = listeners[0].local_addr()?;
        let store = Store::open(&config.db, config.durability)?;
        // Before the boot is counted: a start that fails here must not use up a lease's epochs.
        let path = admin::socket_path(&config.db);
        let admin_socket =
            AdminSocket::bind(path.clone()).map_err(|source| StartError::Admin { path, source })?;
        let first_seq = store.next_seq()?;
        let driver = Driver::choose(wish);
        if driver == Driver::Epoll && wish.is_none() {
            tracing::warn!("io_uring is not available here; epoll is used instead");
        }
        let lanes = lanes(count)?;
        let (notify, notices) = mpsc::channel();
        let admin_store = store.admin();
        let shared = Arc::new(Shared::new(lanes, driver, store, &config, sockets_max));
        let control = Control::new(Arc::clone(&shared), admin_store, address);
        let mut server = Self {
            shared,
            control,
            threads: Vec::new(),
            clerk: None,
            admin: None,
            notices,
            notify,
        };
        server.clerk = Some(clerk::start(server.control(), server.notify.clone())?);
        let (lookup, clock) = (Arc::<SystemLookup>::default(), server.shared.clock);
        let fetched = Arc::new(Fetched(Arc::clone(&server.shared.lanes)));
        let private = config.watch_allow_private;
        let fetcher = Fetcher::start(lookup, private, move || clock.mono(), fetched)?;
        server.shared.employ_fetcher(fetcher);
        let clones = listeners.iter().map(std::net::TcpListener::try_clone);
        let clones = clones.collect::<Result<Vec<_>, _>>()?;
        let rows = server.start_loops(&config, first_seq, listeners)?;
        let image = server.restore(&config, first_seq, rows)?;
        for listener in &clones {
            rustix::net::listen(listener, BACKLOG).map_err(|e| unheard(e.into()))?;
        }
        for lane in server.shared.lanes.iter() {
            lane.deliver(Message::Listen).ok();
        }
        server.admin = Some(admin::serve(server.control(), admin_socket)?);
        tracing::info!(%address, loops = count, driver = driver.name(), rows = image.rows, "listening");
        Ok(server)
    }

    /// Starts the loops, and gives for each where its rows go.
    fn start_loops(
        &mut self,
        config: &ServeConfig,
        first_seq: Seq,
        listeners: Vec<std::net::TcpListener>,
    ) -> Result<Vec<SyncSender<Rows>>, StartError> {
        let mut homes = Vec::new();
        for (index, listener) in (0..).zip(listeners) {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
            let store = self.with_store(|store| store.client(index))?;
            let (home, rows) = mpsc::sync_channel(BOOT_BATCHES);
            homes.push(home);
            let start = LoopStart {
                index,
                shared: Arc::clone(&self.shared),
                store,
                core: config.core.clone(),
                max_frame_bytes: config.max_frame_bytes,
                seed,
                first_seq,
                rows,
                listener,
                notify: self.notify.clone(),
            };
            let thread = thread::Builder::new().name(format!("holdfast-{index}"));
            self.threads.push(thread.spawn(|| run_loop(start))?);
        }
        Ok(homes)
    }

    /// Reads what the last process left and waits until the loops have it.
    fn restore(
        &self,
        config: &ServeConfig,
        first_seq: Seq,
        homes: Vec<SyncSender<Rows>>,
    ) -> Result<Image, StartError> {
        let ways = homes.clone();
        let deliver = move |rows| {
            for (way, rows) in ways.iter().zip(partition(rows, ways.len())) {
                // Waits for a loop that is behind; one that has ended has said why.
                way.send(Rows::Some(rows)).ok();
            }
        };
        let sink = Arc::new(Sink {
            lanes: Arc::clone(&self.shared.lanes),
            notify: self.notify.clone(),
        });
        let image = self.with_store(|store| {
            let image = store.boot(config.core.log, deliver)?;
            store.start(sink);
            Ok::<_, StartError>(image)
        })??;
        for home in homes {
            home.send(Rows::End).ok();
        }
        for _ in 0..self.threads.len() {
            match self.notices.recv() {
                Ok(Notice::Ready | Notice::Signal) => {}
                Ok(Notice::Failed(error)) => return Err(error.into()),
                Ok(Notice::Died) | Err(_) => return Err(StartError::LoopDied),
            }
        }
        let now = self.shared.clock.now();
        let restart = Restart::new(&config.core, now.wall, Position::first(first_seq));
        self.with_store(|store| store.client(0).persist(StoreOp::Restarted(restart), None))?;
        Ok(image)
    }

    fn with_store<T>(&self, work: impl FnOnce(&Store) -> T) -> Result<T, StartError> {
        let store = self.shared.store.read();
        let store = store.unwrap_or_else(PoisonError::into_inner);
        store.as_ref().map(work).ok_or(StartError::LoopDied)
    }

    /// Where it listens; tells the port when 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.control.addr()
    }

    /// A handle for other threads.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Begins to stop: no new connections, answers of the store go out, sockets close 1001 in a
    /// spread of about a second. Leases stay.
    pub fn shutdown(&self) {
        for lane in self.shared.lanes.iter() {
            // Refused only by a loop that has ended already.
            lane.deliver(Message::Shutdown).ok();
        }
    }

    /// Waits until every loop has ended and the store has written what was queued.
    pub fn join(mut self) {
        self.stop();
    }

    /// Serves until a signal to stop, then stops gracefully. A second one ends the process at once.
    ///
    /// # Errors
    /// If a thread cannot be had, or a loop died.
    pub fn run_until_signal(self, signals: StopSignals) -> Result<(), StartError> {
        let StopSignals(mut signals) = signals;
        let handle = signals.handle();
        let notify = self.notify.clone();
        let waiter = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for (nth, signal) in signals.forever().enumerate() {
                    if nth > 0 {
                        // What a shell reports for a process ended by that signal.
                        std::process::exit(128 + signal);
                    }
                    tracing::info!(signal, "stopping");
                    notify.send(Notice::Signal).ok();
                }
            })?;
        let result = loop {
            let notice = self.notices.recv().unwrap_or(Notice::Died);
            if let Some(end) = notice.end() {
                break end;
            }
        };
        self.join();
        handle.close();
        waiter.join().ok();
        result
    }

    fn stop(&mut self) {
        self.shutdown();
        for thread in self.threads.drain(..) {
            // A panic has been told of by its notice.
            thread.join().ok();
        }
        // A start that failed says why, and nothing else.
        let served = self.admin.take().is_some();
        self.shared.dismiss_fetcher();
        self.shared.dismiss_clerk();
        if let Some(clerk) = self.clerk.take() {
            clerk.join().ok();
        }
        let store = self
            .shared
            .store
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(store) = store {
            store.close();
            if served {
                tracing::info!("stopped");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

/// SIGTERM and SIGINT, heard from the moment this is made: one that comes while the broker starts
/// stops it as soon as it runs.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    /// Listens.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> Result<Self, StartError> {
        Ok(Self(Signals::new([SIGTERM, SIGINT])?))
    }
}

/// By the home of their mesh, in order.
fn partition(rows: Vec<BootRow>, shards: usize) -> Vec<Vec<BootRow>> {
    if shards == 1 {
        return vec![rows];
    }
    let count = u16::try_from(shards).unwrap_or(u16::MAX);
    let mut homes: Vec<Vec<BootRow>> = (0..shards).map(|_| Vec::new()).collect();
    for row in rows {
        let mesh = match &row {
            BootRow::Resume(key) => {
                for home in &mut homes {
                    home.push(BootRow::Resume(*key));
                }
                continue;
            }
            BootRow::Mesh(row) => &row.id,
            BootRow::Member(row) => &row.mesh_id,
            BootRow::PeerState(row) => &row.mesh_id,
            BootRow::State(row) => &row.mesh_id,
            BootRow::Stream(row) => &row.mesh_id,
            BootRow::Topic(row) => &row.mesh_id,
            BootRow::TopicMember(row) => &row.mesh_id,
            BootRow::Watch(row) => &row.mesh_id,
            BootRow::Presence(row) => &row.mesh_id,
            BootRow::Subscription(row) => &row.mesh_id,
            BootRow::Ended(row) => &row.mesh_id,
            BootRow::Server(row) => &row.mesh_id,
            BootRow::Said(row) => &row.mesh_id,
            BootRow::Log(row) => &row.mesh_id,
            BootRow::Sent(row) => &row.mesh_id,
            BootRow::Mailbox(row) => &row.mesh_id,
            BootRow::Schedule(row) => &row.mesh_id,
        };
        let home = usize::from(home_of(mesh, count));
        if let Some(home) = homes.get_mut(home) {
            home.push(row);
        }
    }
    homes
}

/// Takes as many descriptors as the system gives, and says how many.
fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Refused where it is forbidden: then the present limit stands.
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// How many of `limit` descriptors may be sockets.
pub(super) fn sockets_max(limit: u64, loops: u16) -> u64 {
    let reserved = RESERVED_DESCRIPTORS + RESERVED_PER_LOOP * u64::from(loops);
    // At a tiny limit a few are better than none.
    limit.saturating_sub(reserved).max(limit / 8)
}
