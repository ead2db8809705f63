//! One connection between a client and the broker: two queues in order, and what became of it.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_core::ids::ConnId;
use holdfast_core::input::Closing;

use crate::rng::Rng;
use crate::said::{Frame, HelloSaid};
use crate::swarm::NetSwarm;

/// From the client.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// The upgrade.
    Open,
    Frame(Frame),
    /// Binary that is no text.
    Binary,
    Ping,
    Pong(Vec<u8>),
    /// A close frame, or the end without one.
    End(Closing),
}

/// From the broker.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// The upgrade's answer.
    Accepted,
    Frame(Bytes),
    Ping(u64),
    Pong,
    Close,
    /// Refused or reset.
    Reset,
}

impl Down {
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len() + 4,
            Self::Accepted | Self::Ping(_) | Self::Pong | Self::Close | Self::Reset => 12,
        }
    }
}

/// Where the broker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Not arrived yet.
    Nowhere,
    /// The core knows it.
    Open(u16, ConnId),
    /// Told to close; the core is told of its end later.
    Closing(u16, ConnId),
    /// Between two shards; what arrives waits.
    Moving,
    /// Forgotten.
    Gone,
}

/// See the module.
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) up: VecDeque<Up>,
    pub(crate) down: VecDeque<Down>,
    pub(crate) seat: Seat,
    /// The client still uses it.
    pub(crate) used: bool,
    /// Nothing arrives any more.
    pub(crate) up_cut: bool,
    pub(crate) down_cut: bool,
    /// Nothing arrives before.
    pub(crate) up_stall: u64,
    pub(crate) down_stall: u64,
    /// Bytes on their way to the client.
    pub(crate) unread: usize,
    /// Arrivals that wait for the end of a move.
    pub(crate) waiting: usize,
    /// Of the pings that arrived.
    pub(crate) watermarks: Vec<u64>,
    /// The hello under way.
    pub(crate) hello: Option<std::rc::Rc<HelloSaid>>,
    /// Text of the hello, to be said again by a thief.
    pub(crate) hello_frame: Option<Frame>,
    up_at: u64,
    down_at: u64,
    pub(crate) rng: Rng,
}

impl Link {
    pub(crate) fn new(client: usize, rng: Rng) -> Self {
        Self {
            client,
            up: VecDeque::new(),
            down: VecDeque::new(),
            seat: Seat::Nowhere,
            used: true,
            up_cut: false,
            down_cut: false,
            up_stall: 0,
            down_stall: 0,
            unread: 0,
            waiting: 0,
            watermarks: Vec::new(),
            hello: None,
            hello_frame: None,
            up_at: 0,
            down_at: 0,
            rng,
        }
    }

    fn delay(&mut self, net: &NetSwarm) -> u64 {
        let spike = if self.rng.chance(net.spike) {
            self.rng.below(net.spike_max)
        } else {
            0
        };
        self.rng.between(net.delay.0, net.delay.1) + spike
    }

    /// Queues something for the broker; gives when it arrives, unless it never does.
    pub(crate) fn send_up(&mut self, now: u64, net: &NetSwarm, item: Up) -> Option<u64> {
        if self.up_cut {
            return None;
        }
        if let Up::Frame(frame) = &item
            && matches!(frame.said, crate::said::Said::Hello(_))
        {
            self.hello_frame = Some(frame.clone());
        }
        self.up_at = self.up_at.max(now + self.delay(net));
        self.up.push_back(item);
        Some(self.up_at)
    }

    /// Queues something for the client.
    pub(crate) fn send_down(&mut self, now: u64, net: &NetSwarm, item: Down) -> Option<u64> {
        if self.down_cut {
            return None;
        }
        self.down_at = self.down_at.max(now + self.delay(net));
        self.unread += item.len();
        self.down.push_back(item);
        Some(self.down_at)
    }

    /// The next thing for the client.
    pub(crate) fn take_down(&mut self) -> Option<Down> {
        let item = self.down.pop_front()?;
        self.unread -= item.len();
        Some(item)
    }

    /// From here on nothing the client sends arrives; of what is under way only some.
    pub(crate) fn cut_up(&mut self, net: &NetSwarm) {
        self.up_cut = true;
        if self.rng.chance(net.loss) {
            let kept = self.rng.index(self.up.len() + 1);
            self.up.truncate(kept);
        }
    }

    /// From here on the client gets nothing; of what is under way only some.
    pub(crate) fn cut_down(&mut self, net: &NetSwarm) {
        self.down_cut = true;
        if self.rng.chance(net.loss) {
            let kept = self.rng.index(self.down.len() + 1);
            self.down.truncate(kept);
            self.unread = self.down.iter().map(Down::len).sum();
        }
    }

    /// What has not begun to be written is dropped, as the shell does for a slow consumer.
    pub(crate) fn drop_unread(&mut self) {
        self.down.truncate(1);
        self.unread = self.down.iter().map(Down::len).sum();
    }
}
