//! A client of the broker, for tests, for `holdfast demo`, for the load generator, and for others.
//!
//! It connects, says who it is, stays connected, and tells what happens: reconnects with jittered
//! backoff, notices a dead connection, resumes with the token it was given, keeps what was sent
//! until it is acknowledged, confirms what it received and tells each message once.
//!
//! The heart is [`Session`], a state machine without socket, clock, thread or random source, so
//! that thousands of them fit into one thread and a test can put any moment and any frame before
//! it. [`Client`] drives one of them over TCP, on a thread of its own:
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use holdfast::client::{Client, Event, Identity, Outgoing, Profile, Settings};
//! use holdfast::core::identity::KeyPair;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // As printed by `holdfast member add team --name alice`.
//! let secret = std::env::var("HOLDFAST_SECRET_KEY")?;
//! let keys = KeyPair::from_libsodium_hex(&secret).ok_or("not a secret key")?;
//! let profile = Profile {
//!     session_id: "alice's desk".into(),
//!     ..Profile::default()
//! };
//! let alice = Identity::member("<mesh id>", "<member id>", Arc::new(keys)).with(profile);
//! let client = Client::spawn("ws://127.0.0.1:7900/ws", alice, Settings::default())?;
//! client.send(Outgoing::new("*", "aGVsbG8="))?;
//! while let Ok(event) = client.events().recv_timeout(Duration::from_secs(10)) {
//!     match event {
//!         Event::Welcome(welcome) if welcome.reattached => println!("nobody noticed"),
//!         Event::Message(message) => println!("{}", message.ciphertext),
//!         Event::Gone(why) => println!("{why}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! client.goodbye()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does with a connection
//!
//! | what happens | what it does |
//! |---|---|
//! | closed, reset, silent for 75 s, no `hello_ack` in 5 s | [`Event::Lost`], then tries again: full jitter, 1 s to 30 s |
//! | refused for what may pass (capacity, clock, replay, conflict) | the same |
//! | kicked (4001), banned (4002), refused for what will not pass | [`Event::Gone`] |
//! | a send while it is away, or one not acknowledged yet | kept, and written again with the same `client_message_id` |
//! | closed for a message too big (1009) | the largest one that is not acknowledged is refused |
//! | a push that was told before | [`Event::Repeated`], and confirmed again |
//! | status or groups that a lost connection may have swallowed | said again; on a new lease, all of them |
//!
//! A broker that does not know of resume tokens, `leaseMs` or `goodbye` is served as well: no
//! token is sent that was not given, and a goodbye that is not answered ends with a clean close. A
//! broker that does not recognise a repeated `client_message_id` delivers twice what was sent twice.
//!
//! Must not: know anything of the broker's inside; it uses `core` for keys, names and times only.

mod clock;
mod driver;
mod event;
mod identity;
mod io;
mod outbox;
mod seen;
mod session;
mod settings;
mod socket;
mod standing;
mod wire;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use serde_json::Value;

use self::clock::Clock;
use self::driver::{Driver, Order};
use self::socket::Url;
use crate::core::rows::Status;

pub use self::event::{End, Event, Loss, Message, PeerChange, PeerEvent, Push, Welcome};
pub use self::identity::{Attestation, Identity, Profile, Voucher};
pub use self::io::{Command, Frame, Input, Output};
pub use self::session::Session;
pub use self::settings::{Backoff, Settings};
pub use self::socket::UrlError;
pub use self::wire::Outgoing;

/// What [`Loss::Broken`] says of a connection that [`Client::cut`] broke.
pub const CUT: &str = "cut";

/// Events that wait for the user. When there are more, nothing more is read, and in the end the
/// broker closes the connection as it does with all who do not read.
const EVENTS: usize = 1024;

/// Enough for JSON and signatures.
const STACK_BYTES: usize = 512 << 10;

/// Why a client could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The address.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The system has no randomness, thread or descriptor to give.
    #[error("cannot start a client: {0}")]
    System(std::io::Error),
}

/// The session is over: see the [`Event::Gone`] before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct Over;

/// A session on a thread of its own, and the way to it. Its methods return at once; what comes of
/// them is told by [`Client::events`].
///
/// Dropped, it breaks the connection as a crash would, and the session enters grace; after
/// [`Client::goodbye`] it first waits for the end of that.
#[derive(Debug)]
pub struct Client {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
    leaving: AtomicBool,
    /// What ids made here begin with.
    prefix: u64,
    sent: AtomicU64,
}

impl Client {
    /// Starts a session, which connects at once.
    ///
    /// # Errors
    /// If the address is none, or the system gives no thread.
    pub fn spawn(url: &str, identity: Identity, settings: Settings) -> Result<Self, SpawnError> {
        let url = Url::parse(url)?;
        let system = |error: std::io::Error| SpawnError::System(error);
        let seed = getrandom::u64().map_err(|error| system(std::io::Error::other(error)))?;
        let prefix = getrandom::u64().map_err(|error| system(std::io::Error::other(error)))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|errno| system(errno.into()))?);
        let (orders, received) = channel();
        let (sender, events) = sync_channel(EVENTS);
        let driver = Driver {
            url,
            patience: Duration::from_millis(settings.connect_timeout.0),
            session: Session::new(Arc::new(settings), identity, seed),
            orders: received,
            wake: Arc::clone(&wake),
            events: sender,
            clock: Clock::start(),
            socket: None,
            more: false,
            unwritable: None,
        };
        let thread = thread::Builder::new()
            .name("holdfast-client".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(|| driver.run())
            .map_err(system)?;
        Ok(Self {
            orders,
            wake,
            events,
            thread: Some(thread),
            leaving: AtomicBool::new(false),
            prefix,
            sent: AtomicU64::new(0),
        })
    }

    /// What happens to the session, in order. Disconnected after [`Event::Gone`].
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Sends a message, now or when connected again; gives its `client_message_id`, which is made
    /// here if it is empty. Ends as [`Event::Acknowledged`] or [`Event::Refused`], exactly once.
    ///
    /// # Errors
    /// If the session is over.
    pub fn send(&self, mut message: Outgoing) -> Result<String, Over> {
        if message.client_message_id.is_empty() {
            let n = self.sent.fetch_add(1, Ordering::Relaxed);
            message.client_message_id = format!("{:016x}-{n}", self.prefix);
        }
        let id = message.client_message_id.clone();
        self.command(Command::Send(message))?;
        Ok(id)
    }

    /// Sends any other request, an object with `type` and, where it has an answer, `_reqId`.
    ///
    /// # Errors
    /// If the session is over.
    pub fn request(&self, request: Value) -> Result<(), Over> {
        self.command(Command::Request(request))
    }

    /// Changes the status, now and on any later lease.
    ///
    /// # Errors
    /// If the session is over.
    pub fn set_status(&self, status: Status) -> Result<(), Over> {
        self.command(Command::SetStatus(status))
    }

    /// Joins a group, now and on any later lease.
    ///
    /// # Errors
    /// If the session is over.
    pub fn join_group(&self, name: impl Into<String>, role: Option<String>) -> Result<(), Over> {
        let name = name.into();
        self.command(Command::JoinGroup { name, role })
    }

    /// Leaves a group, now and on any later lease.
    ///
    /// # Errors
    /// If the session is over.
    pub fn leave_group(&self, name: impl Into<String>) -> Result<(), Over> {
        let name = name.into();
        self.command(Command::LeaveGroup { name })
    }

    /// Connects, if it is not connected, without waiting any longer.
    ///
    /// # Errors
    /// If the session is over.
    pub fn connect(&self) -> Result<(), Over> {
        self.command(Command::Connect)
    }

    /// Breaks the connection as a dead network does: a reset, no close frame. Told as
    /// [`Event::Lost`] with [`CUT`]; then it reconnects as its settings say. Without a connection
    /// there is nothing to break.
    ///
    /// # Errors
    /// If the session is over.
    pub fn cut(&self) -> Result<(), Over> {
        self.order(Order::Cut)
    }

    /// Leaves for good, once what was sent is acknowledged; others see it leave at once. Told as
    /// [`Event::Gone`].
    ///
    /// # Errors
    /// If the session is over.
    pub fn goodbye(&self) -> Result<(), Over> {
        self.command(Command::Goodbye)?;
        self.leaving.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn command(&self, command: Command) -> Result<(), Over> {
        self.order(Order::Command(command))
    }

    fn order(&self, order: Order) -> Result<(), Over> {
        self.orders.send(order).map_err(|_| Over)?;
        // Full means that it is readable already.
        let _readable_already = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Whatever its thread still has to tell, nobody reads; it must not wait for that.
        drop(std::mem::replace(&mut self.events, channel().1));
        if *self.leaving.get_mut() {
            if let Some(thread) = self.thread.take() {
                drop(thread.join());
            }
        } else {
            let _over_already = self.order(Order::Stop);
        }
    }
}
