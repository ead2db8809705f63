//! The rates of one run. Each run draws its own, some of them zero, so that runs differ in kind:
//! a fault that hides another is missing in some.

use std::fmt;

use holdfast_core::limits::Config;
use holdfast_core::time::Millis;

use crate::rng::Rng;

/// How the disk behaves, in milliseconds and times in a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskSwarm {
    /// Shortest and longest commit.
    pub(crate) commit: (u64, u64),
    /// Longest way of a result to its shard.
    pub(crate) reply: u64,
    /// How often a commit takes only a part of what waits.
    pub(crate) split: u64,
}

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetSwarm {
    /// Shortest and longest delay of a frame.
    pub(crate) delay: (u64, u64),
    /// How often one is delayed by up to `spike_max`.
    pub(crate) spike: u64,
    pub(crate) spike_max: u64,
    /// How often a socket that dies takes its last bytes with it.
    pub(crate) loss: u64,
    /// Bytes the kernel takes for a client that does not read.
    pub(crate) kernel: usize,
    /// Bytes the shell holds beyond that.
    pub(crate) cap: usize,
    /// How often a socket on its way between shards is lost.
    pub(crate) handoff_loss: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) shards: u16,
    /// Whether graces and timeouts are seconds rather than minutes.
    pub(crate) tiny: bool,
    pub(crate) config: Config,
    pub(crate) disk: DiskSwarm,
    pub(crate) net: NetSwarm,
    /// How late timers are fired at most.
    pub(crate) lateness: u64,
    /// Whether the core is told of the end of a socket it closed late, and of what came on it
    /// meanwhile, as the contract of inputs allows; the present shell tells at once.
    pub(crate) late_close: bool,
    /// Sessions that want to be there.
    pub(crate) clients: usize,
    /// Operations, and the time they are spread over.
    pub(crate) operations: usize,
    pub(crate) span: u64,
    /// How often each kind of operation is chosen; see [`crate::plan::KINDS`].
    pub(crate) weights: Vec<u64>,
}

impl Swarm {
    /// Draws a run's rates.
    pub(crate) fn draw(rng: &mut Rng, kinds: &[u64]) -> Self {
        let tiny = rng.chance(700);
        let config = config(rng, tiny);
        let operations = usize::try_from(rng.between(20, 90)).unwrap_or(20);
        let per_operation = if tiny {
            rng.between(100, 2_500)
        } else {
            rng.between(500, 20_000)
        };
        let slow_disk = rng.chance(250);
        let delay = rng.between(0, 5);
        let weights = kinds
            .iter()
            .map(|weight| if rng.chance(250) { 0 } else { *weight });
        let weights: Vec<u64> = weights.collect();
        Self {
            shards: if rng.chance(350) { 2 } else { 1 },
            tiny,
            disk: DiskSwarm {
                commit: (
                    0,
                    if slow_disk {
                        rng.between(20, 3_000)
                    } else {
                        rng.between(0, 20)
                    },
                ),
                reply: rng.between(0, 10),
                split: *rng.pick(&[0, 200, 700]),
            },
            net: NetSwarm {
                delay: (delay, delay + *rng.pick(&[0, 3, 20, 150])),
                spike: *rng.pick(&[0, 0, 20, 150]),
                spike_max: rng.between(50, if tiny { 2_000 } else { 6_000 }),
                loss: *rng.pick(&[0, 300, 800]),
                kernel: *rng.pick(&[2_000, 20_000, 262_144]),
                cap: holdfast_core::limits::OUTBOUND_BYTES_MAX,
                handoff_loss: *rng.pick(&[0, 0, 50]),
            },
            lateness: *rng.pick(&[0, 0, 7, 30]),
            late_close: rng.chance(500),
            clients: usize::try_from(rng.between(3, 9)).unwrap_or(3),
            operations,
            span: per_operation * operations as u64,
            config,
            weights,
        }
    }
}

fn config(rng: &mut Rng, tiny: bool) -> Config {
    let mut config = Config {
        send_rate: *rng.pick(&[0, 0, 0, 60]),
        max_message_bytes: 200_000,
        max_sessions_per_mesh: if rng.chance(150) {
            u32::try_from(rng.between(3, 6)).unwrap_or(3)
        } else {
            1000
        },
        ..Config::default()
    };
    if tiny {
        config.grace = Millis(rng.between(300, 9_000));
        config.restart_grace = Millis(config.grace.0.max(rng.between(500, 6_000)));
        config.ping_interval = Millis(rng.between(400, 3_000));
        config.pong_timeout = Millis(config.ping_interval.0 * 5 / 2);
        config.hello_timeout = Millis(rng.between(500, 3_000));
        config.max_grace = Millis(config.grace.0 * *rng.pick(&[1, 1, 2]));
    } else {
        config.max_grace = Millis(config.grace.0 * 2);
    }
    let log = &mut config.log;
    if rng.chance(250) {
        log.entries = usize::try_from(rng.between(1, 40)).unwrap_or(1);
    }
    if rng.chance(100) {
        log.bytes = 300_000;
    }
    if rng.chance(150) {
        log.age = Millis(rng.between(100, config.grace.0 * 2));
    }
    config
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            grace,
            restart_grace,
            ping_interval,
            pong_timeout,
            ..
        } = &self.config;
        writeln!(
            f,
            "  shards {} clients {} operations {} over {} ms, grace {} restart {} ping {} pong {}",
            self.shards,
            self.clients,
            self.operations,
            self.span,
            grace.0,
            restart_grace.0,
            ping_interval.0,
            pong_timeout.0,
        )?;
        writeln!(
            f,
            "  {:?} capacity {} send rate {} late closes {} lateness {}",
            self.config.log,
            self.config.max_sessions_per_mesh,
            self.config.send_rate,
            self.late_close,
            self.lateness,
        )?;
        write!(f, "  {:?}\n  {:?}", self.net, self.disk)
    }
}
