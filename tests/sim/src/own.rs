//! Operations on what sessions and members own: URL watches, and the pages they look at; scheduled
//! messages; MCP servers, and calls of them.

use holdfast_core::ids::Token;
use holdfast_core::watch::FetchFailure;
use serde_json::Value;

use crate::oracle::{Cause, Violation, of_forward};
use crate::plan::Do;
use crate::rng::Rng;
use crate::said::{self, Frame, McpAsked};
use crate::town::SERVERS;
use crate::world::{Event, World};

/// A page that is being fetched, for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    shard: u16,
    token: Token,
    page: usize,
}

impl World {
    /// One or several requests of one kind, mostly by different clients.
    pub(crate) fn own(&mut self, what: Do, rng: &mut Rng) {
        for _ in 0..=rng.below(4) {
            let client = self.someone(rng);
            let frame = self.owning(what, client, rng);
            self.later.push((client, frame));
            let at = self.time + rng.below(500);
            let index = self.later.len() - 1;
            self.queue.push(at, Event::Later(index));
        }
    }

    fn owning(&mut self, what: Do, client: usize, rng: &mut Rng) -> Frame {
        let req = self.clients[client].request_id();
        if what == Do::Mcp {
            return self.serving(&req, rng);
        }
        if what == Do::Schedule {
            return self.scheduling(client, &req, rng);
        }
        match rng.below(8) {
            0 => {
                let id = self.oracle.watches.some(rng.next());
                said::unwatch(id.as_deref().unwrap_or("00000000"), &req)
            }
            1 => said::watches(&req),
            _ => said::watch(self.oracle.next_message(), &req),
        }
    }

    fn scheduling(&mut self, client: usize, req: &str, rng: &mut Rng) -> Frame {
        match rng.below(10) {
            0 => said::scheduled(req),
            1 | 2 => {
                let id = self.oracle.schedules.some(rng.next());
                said::cancel(id.as_deref().unwrap_or("none"), req)
            }
            3 => said::schedule(self.oracle.next_message(), "*", None, req),
            _ => {
                let to = self.target(rng, client);
                let away = *rng.pick(&[0, 900, 9_000, 100_000, 3_000_000]);
                let at = self.wall().saturating_add_unsigned(rng.below(away + 1));
                said::schedule(self.oracle.next_message(), &to, Some(at), req)
            }
        }
    }

    fn serving(&mut self, req: &str, rng: &mut Rng) -> Frame {
        let server = rng.index(SERVERS.len());
        let asked = match rng.below(20) {
            0..6 => McpAsked::Register(server, rng.chance(400)),
            6 => McpAsked::Unregister(server),
            7 | 8 => McpAsked::List,
            9 => {
                let call = self.oracle.calls.some(rng.next());
                McpAsked::Respond(call.unwrap_or_default(), 0)
            }
            _ => McpAsked::Call(server, self.oracle.next_message()),
        };
        said::mcp(asked, req)
    }

    /// A client is called, and answers: at once, in a while, or never.
    pub(crate) fn serve(&mut self, client: usize, call: &Value) {
        let Some((id, number)) = of_forward(call) else {
            return;
        };
        let seed = [60, client as u64, number as u64];
        let mut rng = Rng::of(self.plan.seed, &seed);
        let req = self.clients[client].request_id();
        let frame = said::mcp(McpAsked::Respond(id, number), &req);
        match rng.below(10) {
            0..6 => self.say(client, frame),
            6 | 7 => {
                self.later.push((client, frame));
                let at = self.time + rng.below(40_000);
                let index = self.later.len() - 1;
                self.queue.push(at, Event::Later(index));
            }
            _ => {}
        }
    }

    /// A page is fetched: it takes its time, or comes to nothing.
    pub(crate) fn fetch(&mut self, shard: u16, url: &str, token: Token) {
        let Some(broker) = &mut self.broker else {
            return;
        };
        let slow = *broker.rng.pick(&[20, 900, 8_000]);
        let at = self.time + broker.rng.below(slow);
        let page = said::watch_number(url).unwrap_or_default();
        let fetch = Fetch { shard, token, page };
        self.queue.push(at, Event::Fetched(self.epoch, fetch));
    }

    /// It is there. Pages change every few seconds, and back, until the faults end.
    pub(crate) fn fetched(&mut self, fetch: Fetch) -> Result<(), Violation> {
        let event = Event::Fetched(self.epoch, fetch);
        if self.postponed(usize::from(fetch.shard), event) {
            return Ok(());
        }
        let Some(broker) = &mut self.broker else {
            return Ok(());
        };
        let result = if broker.rng.chance(100) {
            Err(FetchFailure::Timeout)
        } else {
            let page = u64::try_from(fetch.page).unwrap_or_default();
            let time = if self.healed { 0 } else { self.time };
            let version = (time / (4_000 + page % 5 * 3_000) + page) % 3;
            Ok(format!("version {version}"))
        };
        self.drive(fetch.shard, None, &Cause::Fetched(fetch.token, result))
    }
}
