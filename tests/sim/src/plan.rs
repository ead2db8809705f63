//! What is going to be done in a run: operations with their times, each with its own chance, so
//! that leaving one out changes nothing of the others.

use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::town::{GROUPS, Identity, Kind, Town};

/// Someone who wants to be present.
#[derive(Clone, Debug)]
pub(crate) struct Persona {
    pub(crate) who: Identity,
    pub(crate) name: Option<String>,
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) cwd: String,
    pub(crate) pid: i64,
    /// Confirms messages itself.
    pub(crate) acks: bool,
    /// Comes back after a close.
    pub(crate) stays: bool,
    /// Milliseconds by which its clock is wrong.
    pub(crate) skew: i64,
    /// The grace it asks for.
    pub(crate) lease: Option<u64>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $weight:literal,)+) => {
        /// What an operation does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Do { $($(#[$doc])* $kind),+ }

        /// Every kind with its weight.
        pub(crate) const KINDS: &[(Do, u64)] = &[$((Do::$kind, $weight)),+];
    };
}

kinds! {
    /// A message to a key, a group, everybody or nobody.
    Send = 40,
    /// Several messages of one sender to one target.
    Volley = 12,
    /// More than a mailbox or an outbox holds.
    Flood = 1,
    /// Large broadcasts.
    Bulk = 2,
    /// idle, working or dnd.
    SetStatus = 8,
    /// Joins or leaves a group, or hides or shows itself.
    Show = 6,
    /// A request that is answered.
    AskSomething = 8,
    /// The client closes and comes back.
    CloseClean = 8,
    /// The connection ends without a close frame.
    CutOff = 14,
    /// Packets vanish; nobody is told.
    HalfOpen = 8,
    /// A second socket of the same identity, while the first lives.
    Relaunch = 10,
    /// The client neither reads nor answers for a while.
    Pause = 8,
    /// The client is gone for good, or for longer than grace.
    Leave = 5,
    /// Several hosts with one identity.
    Rivals = 3,
    /// A one-shot command.
    OneShot = 8,
    /// A stranger claims a session's key.
    ForeignClaim = 3,
    /// Somebody uses another's session id.
    SameSessionId = 4,
    /// A hello seen before is sent again.
    ReplayHello = 3,
    /// A bad hello.
    BadHello = 3,
    /// Frames that are no requests, before or after a hello.
    Hostile = 5,
    /// A second hello on one socket.
    HelloAgain = 4,
    /// Confirms what it was not sent.
    FalseAck = 3,
    /// Says goodbye, on this socket or on an old one, and perhaps comes back.
    Goodbye = 4,
    /// Pongs that nobody asked for: of another socket, of the future, once more.
    FalsePong = 6,
    /// A message to somebody who is gone.
    SendAbsent = 5,
    /// A message is sent once more, as after an answer that was lost.
    Resend = 5,
    /// A client goes while its mesh talks, and comes back.
    Absence = 8,
    /// A key of shared state is set or asked for.
    ShareState = 8,
    /// A stream is created, subscribed to, left, or published to.
    Stream = 14,
    /// The simulation clock is set, paused or resumed.
    Clock = 4,
    /// An MCP server is registered, removed, listed or called, or somebody answers for another.
    Mcp = 12,
    /// A message is scheduled, or no longer, or schedules are listed.
    Schedule = 8,
    /// A URL is watched, or no longer, or watches are listed.
    Watch = 8,
    /// kick or disconnect.
    Kick = 5,
    /// Ban, and later unban.
    Ban = 3,
    /// A status hook.
    Hook = 5,
    /// An administrator changes a member.
    AdminPut = 3,
    /// The disk fails for a while.
    DiskFails = 4,
    /// The disk is slow for a while.
    DiskSlow = 3,
    /// The store's queue is full for a while.
    DiskCrowded = 2,
    /// The process dies and comes back.
    Kill = 6,
    /// It dies several times in a row.
    KillOften = 1,
    /// It is stopped in order and comes back.
    Stop = 3,
    /// A loop does nothing for a while.
    Stall = 4,
    /// The wall clock steps.
    WallStep = 3,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Its place in the plan as drawn.
    pub(crate) number: usize,
    pub(crate) at: u64,
    pub(crate) what: Do,
    /// Its own seed.
    pub(crate) seed: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) swarm: Swarm,
    pub(crate) town: Town,
    pub(crate) personas: Vec<Persona>,
    pub(crate) operations: Vec<Operation>,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let weights: Vec<u64> = KINDS.iter().map(|(_, weight)| *weight).collect();
        let swarm = Swarm::draw(&mut Rng::of(seed, &[1]), &weights);
        let town = Town::draw(&mut Rng::of(seed, &[2]), swarm.shards);
        let mut rng = Rng::of(seed, &[3]);
        let personas = (0..swarm.clients)
            .map(|n| persona(&mut rng, &town, n, swarm.config.grace.0))
            .collect();
        let mut rng = Rng::of(seed, &[4]);
        let mut operations: Vec<Operation> = (0..swarm.operations)
            .map(|n| {
                let (what, _) = KINDS[rng.weighted(&swarm.weights)];
                // Many things happen close together, since races need that.
                let at = if rng.chance(500) {
                    rng.below(swarm.span)
                } else {
                    rng.below(50) * swarm.span / 50
                };
                Operation {
                    number: 0,
                    at,
                    what,
                    seed: Rng::of(seed, &[5, n as u64]).next(),
                }
            })
            .collect();
        operations.sort_by_key(|operation| operation.at);
        for (number, operation) in operations.iter_mut().enumerate() {
            operation.number = number;
        }
        Self {
            seed,
            swarm,
            town,
            personas,
            operations,
        }
    }
}

fn persona(rng: &mut Rng, town: &Town, n: usize, grace: u64) -> Persona {
    let member = rng.index(town.members.len());
    let kind = [Kind::Launched, Kind::Member, Kind::ThrowAway][rng.weighted(&[6, 3, 1])];
    let number = u16::try_from(n).unwrap_or(0);
    let groups = rng.chance(600).then(|| {
        let count = rng.index(3);
        (0..count)
            .map(|_| (*rng.pick(&GROUPS)).to_owned())
            .collect::<Vec<_>>()
    });
    Persona {
        who: Identity {
            member,
            kind,
            key: (kind != Kind::Member).then_some(100 + number),
            session_id: format!("session-{n}"),
        },
        name: (kind != Kind::Member || rng.chance(300)).then(|| format!("client {n}")),
        groups: groups.map(|mut names| {
            names.sort();
            names.dedup();
            names
        }),
        cwd: format!("/srv/{}", rng.below(3)),
        pid: i64::try_from(rng.below(4)).unwrap_or(0),
        acks: rng.chance(600) && kind != Kind::ThrowAway,
        stays: true,
        skew: i64::try_from(rng.below(3)).unwrap_or(0) * 700 - 700,
        lease: rng
            .chance(250)
            .then(|| *rng.pick(&[0, 900, 1_000, grace / 2, grace * 2, u64::MAX >> 12])),
    }
}
