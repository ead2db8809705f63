//! Clients, as the existing ones behave: they come back after every close with their backoff,
//! answer pings without knowing, watch for silence, and confirm messages or not.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_core::input::Closing;
use serde_json::Value;

use crate::link::{Down, Link, Up};
use crate::plan::Persona;
use crate::rng::Rng;
use crate::said::{self, Frame};
use crate::town::Kind;
use crate::world::{Event, World};

/// A client's own time-outs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wake {
    /// Connects, if nothing else happened since.
    Connect(u64),
    /// No answer to the hello on that link.
    NoAnswer(usize),
    /// Pings, or gives up, on that link.
    Watch(usize),
}

/// How a client parts with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// With a close frame.
    Clean,
    /// FIN or reset.
    Cut,
    /// It is gone and nobody is told.
    Vanish,
    /// Packets stop, and neither side knows.
    Blackout,
}

/// What a client does once it has said what it had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Stay,
    Part(Parting),
}

/// One client.
pub(crate) struct Client {
    pub(crate) persona: Persona,
    /// It wants to be there.
    pub(crate) wanted: bool,
    /// Made by an operation; it ends with the faults.
    pub(crate) extra: bool,
    pub(crate) link: Option<usize>,
    pub(crate) joined: bool,
    pub(crate) paused_until: u64,
    pub(crate) after: After,
    /// Said after the hello's answer.
    pub(crate) script: Vec<Frame>,
    /// Says its script right behind its hello.
    pub(crate) hasty: bool,
    /// Sent instead of a hello.
    pub(crate) raw: Option<Vec<Up>>,
    /// Sent instead of a hello of its own.
    pub(crate) stolen: Option<Frame>,
    pub(crate) wrong: Option<&'static str>,
    /// Pongs it sends behind its next hello's answer, though nobody asked.
    pub(crate) stale: Vec<u64>,
    /// Resume tokens it was given, the latest last.
    pub(crate) tokens: Vec<String>,
    seen: BTreeSet<String>,
    attempts: u32,
    generation: u64,
    pub(crate) links: u64,
    last_in: u64,
    pub(crate) requests: u64,
}

impl Client {
    pub(crate) fn new(persona: Persona) -> Self {
        Self {
            persona,
            wanted: true,
            extra: false,
            link: None,
            joined: false,
            paused_until: 0,
            after: After::Stay,
            script: Vec::new(),
            hasty: false,
            raw: None,
            stolen: None,
            wrong: None,
            stale: Vec::new(),
            tokens: Vec::new(),
            seen: BTreeSet::new(),
            attempts: 0,
            generation: 0,
            links: 0,
            last_in: 0,
            requests: 0,
        }
    }

    /// A fresh request id.
    pub(crate) fn request_id(&mut self) -> String {
        self.requests += 1;
        format!("r{}", self.requests)
    }
}

impl World {
    fn unit(&self) -> u64 {
        if self.plan.swarm.tiny { 200 } else { 1_000 }
    }

    /// A new client that connects soon.
    pub(crate) fn add_client(&mut self, client: Client, after: u64) -> usize {
        self.clients.push(client);
        let index = self.clients.len() - 1;
        self.connect_in(index, after);
        index
    }

    /// Connects after a while, unless something else happens first.
    pub(crate) fn connect_in(&mut self, client: usize, after: u64) {
        let found = &mut self.clients[client];
        found.generation += 1;
        let wake = Wake::Connect(found.generation);
        self.queue
            .push(self.time + after, Event::Client(client, wake));
    }

    /// A client's time-out came.
    pub(crate) fn wake(&mut self, client: usize, wake: Wake) {
        let found = &self.clients[client];
        if found.paused_until > self.time {
            let at = found.paused_until;
            return self.queue.push(at, Event::Client(client, wake));
        }
        match wake {
            Wake::Connect(generation) => {
                if generation == found.generation && found.wanted && found.link.is_none() {
                    self.connect(client);
                }
            }
            Wake::NoAnswer(link) => {
                if found.link == Some(link) && !found.joined && found.raw.is_none() {
                    self.part(client, Parting::Cut);
                    self.come_back(client);
                }
            }
            Wake::Watch(link) => self.watch(client, link),
        }
    }

    fn watch(&mut self, client: usize, link: usize) {
        let keep = 30 * self.unit() / if self.plan.swarm.tiny { 4 } else { 1 };
        let found = &self.clients[client];
        if found.link != Some(link) {
            return;
        }
        if self.time - found.last_in > keep * 5 / 2 {
            self.part(client, Parting::Cut);
            return self.come_back(client);
        }
        self.send_up(link, Up::Ping);
        self.queue
            .push(self.time + keep, Event::Client(client, Wake::Watch(link)));
    }

    /// Opens a connection; the one before, if any, is no longer the client's business.
    pub(crate) fn connect(&mut self, client: usize) {
        let found = &mut self.clients[client];
        found.links += 1;
        let rng = Rng::of(self.plan.seed, &[40, client as u64, found.links]);
        let link = self.links.len();
        self.links.push(Link::new(client, rng));
        let found = &mut self.clients[client];
        found.link = Some(link);
        found.joined = false;
        found.last_in = self.time;
        self.send_up(link, Up::Open);
        let patience = 5 * self.unit();
        self.queue.push(
            self.time + patience,
            Event::Client(client, Wake::NoAnswer(link)),
        );
    }

    /// Ends the client's connection.
    pub(crate) fn part(&mut self, client: usize, how: Parting) {
        let Some(link) = self.clients[client].link else {
            return;
        };
        let net = self.plan.swarm.net;
        match how {
            Parting::Clean => {
                self.send_up(link, Up::End(Closing::Clean));
                self.links[link].up_cut = true;
                self.links[link].down_cut = true;
            }
            Parting::Cut => {
                self.links[link].cut_up(&net);
                self.links[link].up_cut = false;
                self.send_up(link, Up::End(Closing::Abrupt));
                self.links[link].up_cut = true;
                self.links[link].cut_down(&net);
            }
            Parting::Vanish | Parting::Blackout => {
                self.links[link].cut_up(&net);
                self.links[link].cut_down(&net);
            }
        }
        if how != Parting::Blackout {
            self.links[link].used = false;
            self.clients[client].link = None;
            self.clients[client].joined = false;
        }
    }

    /// Comes back with the client's backoff.
    pub(crate) fn come_back(&mut self, client: usize) {
        let unit = self.unit();
        let found = &mut self.clients[client];
        // Rivals give up after a while.
        let weary = found.extra && found.links >= 5;
        if !found.wanted || !found.persona.stays || weary {
            found.wanted = false;
            return;
        }
        let base = (unit << found.attempts.min(5)).min(30 * unit);
        found.attempts += 1;
        let jitter = found.persona.who.kind == Kind::ThrowAway;
        let seed = [50, client as u64, found.links];
        let after = if jitter {
            Rng::of(self.plan.seed, &seed).below(base)
        } else {
            base
        };
        self.connect_in(client, after);
    }

    /// Something arrives at a client.
    pub(crate) fn arrive_down(&mut self, link: usize) {
        let found = &self.links[link];
        let client = found.client;
        let until = found.down_stall.max(self.clients[client].paused_until);
        if found.used && until > self.time {
            return self.queue.push(until, Event::Down(link));
        }
        let used = found.used && self.clients[client].link == Some(link);
        let Some(item) = self.links[link].take_down() else {
            return;
        };
        if !used {
            return;
        }
        self.clients[client].last_in = self.time;
        match item {
            Down::Accepted => self.greet(client, link),
            Down::Frame(frame) => self.read(client, link, &frame),
            Down::Ping(watermark) => {
                self.links[link].watermarks.push(watermark);
                self.send_up(link, Up::Pong(watermark.to_be_bytes().to_vec()));
            }
            Down::Pong => {}
            Down::Close => {
                self.send_up(link, Up::End(Closing::Clean));
                self.lose(client, link);
            }
            Down::Reset => self.lose(client, link),
        }
    }

    fn lose(&mut self, client: usize, link: usize) {
        self.links[link].used = false;
        self.links[link].up_cut = true;
        self.clients[client].link = None;
        self.clients[client].joined = false;
        self.come_back(client);
    }

    fn greet(&mut self, client: usize, link: usize) {
        if let Some(raw) = self.clients[client].raw.take() {
            for item in raw {
                self.send_up(link, item);
            }
            return;
        }
        let frame = match self.clients[client].stolen.take() {
            Some(frame) => frame,
            None => self.hello_with_token(client),
        };
        self.send_up(link, Up::Frame(frame));
        if self.clients[client].hasty {
            // Some do not wait for the answer.
            for frame in std::mem::take(&mut self.clients[client].script) {
                self.send_up(link, Up::Frame(frame));
            }
        }
    }

    fn read(&mut self, client: usize, link: usize, frame: &Bytes) {
        if frame.starts_with(b"{\"type\":\"hello_ack\"") {
            let ack: Option<Value> = serde_json::from_slice(frame).ok();
            let token = ack.and_then(|ack| ack["resumeToken"].as_str().map(str::to_owned));
            self.clients[client].tokens.extend(token);
            return self.welcome(client, link);
        }
        if frame.starts_with(b"{\"type\":\"mcp_call_forward\"") {
            let call = serde_json::from_slice(frame).unwrap_or_default();
            return self.serve(client, &call);
        }
        if !frame.starts_with(b"{\"type\":\"push\",\"messageId\"") {
            return;
        }
        let Ok(push) = serde_json::from_slice::<Value>(frame) else {
            return;
        };
        let text = |field: &str| push[field].as_str().map(str::to_owned);
        let Some(id) = text("messageId") else { return };
        let client_id = text("client_message_id");
        self.oracle.received(&id);
        let found = &mut self.clients[client];
        found.seen.insert(id.clone());
        if found.persona.acks {
            let name = client_id.as_deref().unwrap_or(&id);
            self.send_up(link, Up::Frame(said::ack(Some(&id), Some(name))));
        }
    }

    fn welcome(&mut self, client: usize, link: usize) {
        let first = !self.clients[client].joined;
        for watermark in std::mem::take(&mut self.clients[client].stale) {
            self.send_up(link, Up::Pong(watermark.to_be_bytes().to_vec()));
        }
        let found = &mut self.clients[client];
        found.joined = true;
        found.attempts = 0;
        for frame in std::mem::take(&mut found.script) {
            self.send_up(link, Up::Frame(frame));
        }
        if let After::Part(how) = self.clients[client].after {
            self.clients[client].wanted = false;
            return self.part(client, how);
        }
        if self.healed {
            let idle = said::status(holdfast_core::rows::Status::Idle);
            self.send_up(link, Up::Frame(idle));
        }
        if first {
            let keep = 30 * self.unit() / if self.plan.swarm.tiny { 4 } else { 1 };
            self.queue
                .push(self.time + keep, Event::Client(client, Wake::Watch(link)));
        }
    }

    /// Sends a frame, if the client has joined and is awake.
    pub(crate) fn say(&mut self, client: usize, frame: Frame) {
        let found = &self.clients[client];
        if found.joined
            && found.paused_until <= self.time
            && let Some(link) = found.link
        {
            self.send_up(link, Up::Frame(frame));
        }
    }
}
