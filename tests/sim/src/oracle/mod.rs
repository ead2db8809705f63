//! The oracle: a small model of who is there and what was promised, written from the invariants
//! (design.md §2) and the audience rules (§8), and compared with everything the core does.
//!
//! It is naive on purpose: maps and full scans. A bug in it is a false alarm, not silence.

mod calls;
mod cause;
mod conns;
mod contests;
mod counts;
mod end;
mod ends;
mod hellos;
mod journal;
mod leases;
mod ledger;
mod logs;
mod mail;
mod model;
mod publish;
mod pushes;
mod restart;
mod rows;
mod schedules;
mod servers;
mod sharing;
mod tasks;
mod tokens;
mod told;
mod watched;
mod watermarks;

use std::collections::BTreeMap;
use std::fmt;

use holdfast_core::effect::{Close, Effect};
use holdfast_core::event::Event;
use holdfast_core::ids::{ConnId, Position, Token};
use holdfast_core::time::Now;

use crate::disk::Tables;
use crate::plan::Plan;

pub(crate) use calls::of_forward;
pub(crate) use cause::Cause;
use conns::Conn;
use mail::Message;
use model::{Lease, MemberModel};
pub(crate) use rows::mesh_of_row;

/// One call of the core, as it is judged.
pub(crate) struct Step<'a> {
    pub(crate) now: Now,
    pub(crate) shard: u16,
    pub(crate) conn: Option<ConnId>,
    pub(crate) cause: &'a Cause,
    pub(crate) effects: &'a [Effect],
    /// What is on disk now.
    pub(crate) tables: &'a Tables,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, as design.md §2 numbers them.
    pub invariant: &'static str,
    /// What happened.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self {
            invariant,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// Fails with a violation unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $invariant:literal, $($text:tt)+) => {
        if !$condition {
            return Err($crate::oracle::Violation::new($invariant, format!($($text)+)));
        }
    };
}
pub(crate) use ensure;

/// The result of every check.
pub(crate) type Verdict = Result<(), Violation>;

/// A socket of one shard of the present process.
pub(crate) type ConnKey = (u16, ConnId);

/// What happened within the step that is being judged.
#[derive(Default)]
struct Scratch {
    /// What is said to a mesh in this step and is not published yet; and what is, as places.
    claims: std::collections::VecDeque<publish::Claim>,
    published: Vec<usize>,
    /// Ends told for a process that crashed.
    again: Vec<String>,
    /// What the operation that has ended was for.
    due: Option<told::Due>,
    /// What the pong confirms, if it is one.
    ponged: Option<Vec<usize>>,
    /// Messages whose rows are marked as delivered.
    delivered: Vec<usize>,
    /// What who reattached missed: for sure, perhaps.
    missed: BTreeMap<String, (bool, bool)>,
    closes: BTreeMap<ConnKey, Close>,
    aborts: Vec<ConnKey>,
    began: Vec<String>,
    reattached: Vec<(String, bool)>,
    graced: Vec<String>,
    ended: Vec<String>,
    /// Rows of presences put, marked, ended.
    put: Vec<String>,
    marked: Vec<String>,
    closed_rows: Vec<(String, Option<Token>)>,
    /// Multicast pushes of the message sent now.
    multicast: Vec<ConnKey>,
    refused: Vec<(ConnKey, String)>,
    handed_off: bool,
    pings: Vec<ConnKey>,
    /// Whose socket answered a ping, and which.
    answered: Option<(String, u64)>,
    /// Online sessions that were to be written what a log has dropped in this step, with their
    /// sockets.
    overtaken: Vec<(String, ConnKey)>,
    /// The resume token by which somebody came in.
    token: Option<String>,
    /// How many leases had begun.
    order: u64,
    /// Makers of what falls due.
    authors: Vec<String>,
    /// The watch whose first value came.
    first_seen: Option<usize>,
    /// What the socket was before the input.
    was_closing: bool,
    /// Whose it was: its own news may overtake it, and it is cut.
    speaker: Option<String>,
}

/// See the module.
pub(crate) struct Oracle {
    plan: std::rc::Rc<Plan>,
    leases: BTreeMap<String, Lease>,
    conns: BTreeMap<ConnKey, Conn>,
    members: Vec<MemberModel>,
    messages: Vec<Message>,
    by_id: BTreeMap<String, usize>,
    by_seq: BTreeMap<u64, usize>,
    /// Signed texts of hellos accepted, with the time.
    heard: Vec<(String, u64)>,
    pending_status: Vec<rows::Pending>,
    candidate: Option<(u32, String)>,
    /// Messages whose rows are on their way to the disk.
    tokens: BTreeMap<(u16, Token), usize>,
    tokens_given: tokens::Tokens,
    /// What is told when an operation has ended, by shard and token.
    waiting: BTreeMap<(u16, Token), told::Due>,
    /// All that was said to many, in order, with the ids of the frames.
    news: Vec<ledger::News>,
    news_ids: BTreeMap<String, usize>,
    /// Where the join, and the last visibility, of a session was told.
    joins: BTreeMap<String, usize>,
    shown: BTreeMap<String, usize>,
    /// What each session is owed.
    ledgers: BTreeMap<String, ledger::Ledger>,
    /// What is kept of the process before, and the order in which sessions began.
    survivors: restart::Survivors,
    orders: BTreeMap<String, u64>,
    /// What each mesh's log keeps.
    logs: Vec<logs::LogModel>,
    /// Mailboxes that are being read.
    reading: BTreeMap<(u16, Token), mail::Reading>,
    /// Session keys that were present once, with whose they were; whether for sure.
    known: BTreeMap<(usize, holdfast_core::ids::PubKey), (usize, bool)>,
    /// What clients were told of tasks.
    pub(crate) tasks: tasks::Tasks,
    sharing: sharing::Sharing,
    pub(crate) watches: watched::Watched,
    pub(crate) schedules: schedules::Schedules,
    servers: servers::Servers,
    pub(crate) calls: calls::Calls,
    numbers: usize,
    order: u64,
    booting: bool,
    /// Where the process began to count.
    begun: Position,
    /// The store refused something in the life of the process.
    store_refused: bool,
    stopping: bool,
    now: Now,
    scratch: Scratch,
    /// Reattaches and the like, for the summary.
    pub(crate) counts: Counts,
}

/// What was seen over a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) begun: u64,
    pub(crate) reattached: u64,
    pub(crate) takeovers: u64,
    pub(crate) expired: u64,
    pub(crate) stale: u64,
    pub(crate) acked: u64,
    pub(crate) redelivered: u64,
    pub(crate) restored: u64,
    /// Sends that wait for somebody's return, times a log dropped something, reattaches that
    /// were told so, news written late.
    pub(crate) deferred: u64,
    pub(crate) dropped: u64,
    pub(crate) truncated: u64,
    pub(crate) late: u64,
    /// News that fell out of a log before an online session that reads late.
    pub(crate) overtaken: u64,
}

impl Oracle {
    pub(crate) fn new(plan: &std::rc::Rc<Plan>) -> Self {
        let members = plan.town.members.iter().map(MemberModel::new).collect();
        Self {
            plan: std::rc::Rc::clone(plan),
            leases: BTreeMap::new(),
            conns: BTreeMap::new(),
            members,
            messages: Vec::new(),
            by_id: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            heard: Vec::new(),
            pending_status: Vec::new(),
            candidate: None,
            tokens: BTreeMap::new(),
            tokens_given: tokens::Tokens::default(),
            waiting: BTreeMap::new(),
            news: Vec::new(),
            news_ids: BTreeMap::new(),
            joins: BTreeMap::new(),
            shown: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            survivors: restart::Survivors::default(),
            orders: BTreeMap::new(),
            logs: vec![logs::LogModel::default(); plan.town.meshes.len()],
            reading: BTreeMap::new(),
            known: BTreeMap::new(),
            tasks: tasks::Tasks::default(),
            sharing: sharing::Sharing::default(),
            watches: watched::Watched::default(),
            schedules: schedules::Schedules::default(),
            servers: servers::Servers::default(),
            calls: calls::Calls::default(),
            numbers: 0,
            order: 0,
            booting: false,
            begun: Position::default(),
            store_refused: false,
            stopping: false,
            now: Now::default(),
            scratch: Scratch::default(),
            counts: Counts::default(),
        }
    }

    /// Judges one call of the core.
    pub(crate) fn judge(&mut self, step: &Step<'_>) -> Verdict {
        self.now = step.now;
        self.scratch = Scratch {
            order: self.order,
            ..Scratch::default()
        };
        self.age_logs();
        self.prepare(step)?;
        self.inserted(step)?;
        self.watches_made(step)?;
        self.scheduled(step)?;
        self.served(step)?;
        self.scratch.claims = self.claims(step);
        for effect in step.effects {
            self.effect(step, effect)?;
        }
        self.fenced(step)?;
        self.required(step)?;
        self.announced(step)?;
        self.pings_completed();
        self.hello_settled(step)?;
        self.reconsider(step);
        self.overtaken_cut()?;
        self.accounts_settled()?;
        self.watches_settled(step)?;
        self.schedules_kept(step)?;
        self.servers_settled()?;
        self.calls_settled()?;
        self.cursors_noted(step)?;
        self.pong_counted(step)?;
        self.answer_counted()?;
        self.read_ended(step);
        Ok(())
    }

    fn effect(&mut self, step: &Step<'_>, effect: &Effect) -> Verdict {
        let at = |conn: &ConnId| (step.shard, *conn);
        match effect {
            Effect::Send { conn, frame } => self.sent(step, at(conn), frame),
            Effect::Ping { conn, watermark } => self.pinged(at(conn), *watermark),
            Effect::Close { conn, close } => self.told_to_close(step, at(conn), *close),
            Effect::Abort { conn } => self.aborted(at(conn)),
            Effect::Handoff { conn, shard, .. } => self.handed_off(step, at(conn), *shard),
            Effect::Persist { op, token } => self.persisted(step, op, *token),
            Effect::Query { query, token } => {
                self.asked_store(step, query, *token);
                Ok(())
            }
            Effect::Fetch { request, token } => self.fetches((step.shard, *token), &request.url),
            Effect::Answer { answer, .. } => self.answered(step, answer),
            Effect::Observe(event) => self.observed(step, event),
        }
    }

    fn observed(&mut self, step: &Step<'_>, event: &Event) -> Verdict {
        match event {
            Event::LeaseBegan { presence_id, .. } => self.began(step, presence_id),
            Event::Reattached {
                presence_id,
                takeover,
                ..
            } => self.reattached(step, presence_id, *takeover),
            Event::GraceBegan { presence_id, .. } => self.grace_began(step, presence_id),
            Event::LeaseEnded {
                presence_id, why, ..
            } => self.ended(step, presence_id, *why),
            Event::Stale { .. } => {
                self.counts.stale += 1;
                Ok(())
            }
            Event::HelloRefused { .. }
            | Event::Routed { .. }
            | Event::SendRefused { .. }
            | Event::SendRepeated
            | Event::ReplayTruncated { .. }
            | Event::Resumed { .. }
            | Event::GrantDenied { .. }
            | Event::StatusExpired
            | Event::Silent { .. }
            | Event::Conflict { .. }
            | Event::StoreRefused
            | Event::Watched { .. }
            | Event::Hook => Ok(()),
        }
    }

    /// The number of a message about to be made.
    pub(crate) fn next_message(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    /// Ids of some message, for who asks or lies about it.
    pub(crate) fn some_message(&self, chance: u64) -> (Option<String>, Option<String>) {
        if self.messages.is_empty() {
            return (None, None);
        }
        let index = usize::try_from(chance % self.messages.len() as u64).unwrap_or(0);
        let message = &self.messages[index];
        (message.id.clone(), message.said.client_id.clone())
    }

    /// The session a hook means, found last.
    pub(crate) fn take_candidate(&mut self) -> Option<(u32, String)> {
        self.candidate.take()
    }

    fn mono(&self) -> u64 {
        self.now.mono.0
    }
}
