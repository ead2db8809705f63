//! Sessions under observation: who is attached, what they were told of each other, and what became
//! of every message.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use holdfast::client::{Command, Event, Identity, PeerChange, PeerEvent, Push, Settings, Welcome};

use crate::report::latency::Latency;
use crate::swarm::{Happened, Swarm, SwarmError};

mod book;
mod tally;

pub use self::book::Target;
use self::book::{Sent, prefix};
pub use self::tally::{Counts, DISORDER, ERRORS, FLAPS, LOST, NEW_LEASES, Tally};

/// Hellos on their way at a time, unless a scenario wants otherwise.
pub const WINDOW: usize = 128;

/// How long clients wait for `hello_ack` (clients.md).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long sessions wait for what must come before the run is given up.
const WAIT: Duration = Duration::from_secs(60);

/// A run that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The client itself.
    #[error("the client cannot go on: {0}")]
    System(#[from] io::Error),
    /// There is none.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// Nothing comes of it.
    #[error("waited {seconds} s for {what}: {missing} are missing; {last}")]
    Waited {
        /// For how long.
        seconds: u64,
        /// For what.
        what: &'static str,
        /// How many.
        missing: usize,
        /// The last that went wrong.
        last: String,
    },
}

/// One session as it is observed.
#[derive(Clone, Debug, Default)]
struct Standing {
    attached: bool,
    /// Whether it has been welcomed before; then it must not be anew.
    known: bool,
}

/// Sessions with one broker, and the book of what they said.
pub struct Fleet {
    /// The sessions themselves.
    pub swarm: Swarm,
    /// What must not happen.
    pub tally: Tally,
    standing: Vec<Standing>,
    /// Whether news of who comes and goes are a fault.
    pub settled: bool,
    /// Whether some who joined while these were away have yet to be told of.
    pub joins_expected: bool,
    /// Those who come and go as they like.
    visitors: HashSet<usize>,
    /// Their keys.
    visiting: HashSet<String>,
    /// Whether a new lease for a known session is a fault.
    pub leased: bool,
    /// How long it waits for what must come before it gives up.
    pub patience: Duration,
    book: Vec<Sent>,
    /// What ids of messages begin with: the broker takes a second message of one id for the first,
    /// also of another run.
    prefix: String,
    /// The newest of each sender that each recipient has, those that wait apart.
    last: HashMap<(u32, u32, bool), u64>,
    /// What was received of another fleet's messages.
    guests: Option<BTreeSet<u64>>,
    /// From the beginning of a connection to its `hello_ack`.
    pub hello: Latency,
    /// From send to ack.
    pub ack: Latency,
    /// From send to push.
    pub push: Latency,
    /// Welcomes, reattachments among them, news of peers, messages received.
    pub counts: Counts,
    trouble: String,
}

impl Fleet {
    /// Nobody yet.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(url: &str, settings: Settings) -> Result<Self, FleetError> {
        let mut tally = Tally::default();
        for name in [LOST, FLAPS, ERRORS, DISORDER, NEW_LEASES] {
            tally.add_many(name, 0, String::new);
        }
        Ok(Self {
            swarm: Swarm::new(url, settings)?,
            tally,
            standing: Vec::new(),
            settled: false,
            joins_expected: false,
            visitors: HashSet::new(),
            visiting: HashSet::new(),
            leased: true,
            patience: WAIT,
            book: Vec::new(),
            prefix: prefix(),
            last: HashMap::new(),
            guests: None,
            hello: Latency::new(),
            ack: Latency::new(),
            push: Latency::new(),
            counts: Counts::default(),
            trouble: "nothing went wrong".to_owned(),
        })
    }

    /// Enters a session.
    pub fn add(&mut self, identity: Identity) -> usize {
        self.standing.push(Standing::default());
        self.swarm.add(identity)
    }

    /// From now on that session comes and goes as it likes, and others are told.
    pub fn is_visitor(&mut self, peer: usize) {
        if let Some(session) = self.swarm.session(peer) {
            self.visiting.insert(session.identity().key().to_string());
            self.visitors.insert(peer);
        }
    }

    /// Tells a session to leave for good.
    pub fn leave(&mut self, peer: usize) {
        self.swarm.command(peer, Command::Goodbye);
    }

    /// How many are attached.
    pub fn attached(&self) -> usize {
        self.standing.iter().filter(|one| one.attached).count()
    }

    /// Whether this one is.
    pub fn is_attached(&self, peer: usize) -> bool {
        self.standing.get(peer).is_some_and(|one| one.attached)
    }

    /// Tells a session to connect.
    pub fn connect(&mut self, peer: usize) {
        self.swarm.command(peer, Command::Connect);
    }

    /// Breaks the connection of a session.
    pub fn cut(&mut self, peer: usize) {
        if let Some(one) = self.standing.get_mut(peer) {
            one.attached = false;
        }
        self.swarm.cut(peer);
    }

    /// Connects these, `window` at a time, and waits until all are attached; `progress` is told
    /// how many are.
    ///
    /// # Errors
    /// Some are not, long after the last one was.
    pub fn attach(
        &mut self,
        peers: impl IntoIterator<Item = usize>,
        window: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<(), FleetError> {
        let mut waiting = peers.into_iter();
        let mut flying: Vec<usize> = Vec::with_capacity(window);
        let mut done = 0;
        let mut moved = Instant::now();
        loop {
            let before = flying.len();
            flying.retain(|peer| !self.is_attached(*peer));
            if flying.len() < before {
                done += before - flying.len();
                moved = Instant::now();
                progress(done);
            }
            while flying.len() < window {
                let Some(peer) = waiting.next() else { break };
                self.connect(peer);
                flying.push(peer);
            }
            if flying.is_empty() {
                return Ok(());
            }
            self.patient(moved, "sessions to be attached", flying.len())?;
            self.turn(Instant::now() + Duration::from_millis(100))?;
            for peer in &flying {
                // A connection that failed is tried again by hand if sessions do not do so.
                let idle = self
                    .swarm
                    .session(*peer)
                    .is_some_and(|s| s.next_deadline().is_none());
                if idle && !self.standing.get(*peer).is_some_and(|one| one.attached) {
                    self.swarm.command(*peer, Command::Connect);
                }
            }
        }
    }

    /// Waits until `holds`.
    ///
    /// # Errors
    /// It does not, long after it last came nearer.
    pub fn until(
        &mut self,
        what: &'static str,
        holds: impl Fn(&Self) -> usize,
    ) -> Result<(), FleetError> {
        let mut began = Instant::now();
        let mut missing = holds(self);
        while missing > 0 {
            self.patient(began, what, missing)?;
            self.turn(Instant::now() + Duration::from_millis(20))?;
            let now = holds(self);
            if now < missing {
                began = Instant::now();
            }
            missing = now;
        }
        Ok(())
    }

    fn patient(
        &self,
        since: Instant,
        what: &'static str,
        missing: usize,
    ) -> Result<(), FleetError> {
        let waited = since.elapsed();
        if waited < self.patience {
            return Ok(());
        }
        Err(FleetError::Waited {
            seconds: waited.as_secs(),
            what,
            missing,
            last: self.trouble.clone(),
        })
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn run(&mut self, span: Duration) -> Result<(), FleetError> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Lets time pass until something happens, or until that moment, and books it. Gives how much
    /// happened.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn turn(&mut self, until: Instant) -> Result<usize, FleetError> {
        self.swarm.turn(until)?;
        let happened = self.swarm.happened();
        let count = happened.len();
        for one in &happened {
            self.book(one);
        }
        self.swarm.recycle(happened);
        Ok(count)
    }

    /// Forgets the latencies taken so far.
    pub fn forget_latencies(&mut self) {
        self.hello = Latency::new();
        self.ack = Latency::new();
        self.push = Latency::new();
    }

    fn book(&mut self, happened: &Happened) {
        let peer = happened.peer;
        match &happened.event {
            Event::Welcome(welcome) => self.welcomed(peer, happened.at, welcome),
            Event::Message(message) => self.arrived(peer, happened.at, &message.ciphertext),
            Event::Repeated { push, .. } => match push {
                Push::Message => self.counts.repeated += 1,
                Push::Peer => {}
            },
            Event::Peer(event) => self.heard_of(peer, event),
            Event::Acknowledged {
                client_message_id, ..
            } => self.acknowledged(client_message_id, happened.at),
            Event::Refused {
                client_message_id,
                error,
            } => {
                let number = client_message_id;
                self.tally
                    .add(ERRORS, || format!("message {number} was refused: {error}"));
                self.acknowledged(number, happened.at);
            }
            Event::Lost { why, .. } => {
                self.counts.lost += 1;
                self.trouble = format!("session {peer}: {why}");
                if let Some(one) = self.standing.get_mut(peer) {
                    one.attached = false;
                }
            }
            Event::Gone(end) => {
                if let Some(one) = self.standing.get_mut(peer) {
                    one.attached = false;
                    one.known = false;
                }
                self.trouble = format!("session {peer}: {end}");
            }
            Event::Error { code, message, .. } => {
                self.tally
                    .add(ERRORS, || format!("session {peer}: {code}: {message}"));
            }
            Event::Unreadable { text } => {
                self.tally
                    .add(ERRORS, || format!("session {peer} cannot read: {text}"));
            }
            Event::Frame(_) | Event::Unsent { .. } => {}
        }
    }

    fn welcomed(&mut self, peer: usize, at: Instant, welcome: &Welcome) {
        self.counts.welcomed += 1;
        self.counts.reattached += u64::from(welcome.reattached);
        self.counts.truncated += u64::from(welcome.missed.is_some());
        let Some(one) = self.standing.get_mut(peer) else {
            return;
        };
        let known = std::mem::replace(&mut one.known, true);
        one.attached = true;
        if let Some(asked) = self.swarm.connecting_since(peer) {
            let took = at.saturating_duration_since(asked);
            self.hello.record(took);
            self.counts.late += u64::from(took > PATIENCE);
        }
        if known && self.leased && !welcome.reattached {
            self.tally.add(NEW_LEASES, || {
                format!("session {peer} came back and was new")
            });
        }
    }

    fn heard_of(&mut self, peer: usize, event: &PeerEvent) {
        self.counts.peer_events += 1;
        let visitor = self.visiting.contains(&event.pubkey);
        let expected = visitor || self.joins_expected && event.change == PeerChange::Joined;
        if self.settled && !expected {
            self.tally.add(FLAPS, || {
                format!(
                    "session {peer} was told {} of {}",
                    event.change.name(),
                    event.name
                )
            });
        }
    }
}

fn ix(peer: usize) -> u32 {
    u32::try_from(peer).unwrap_or(u32::MAX)
}
