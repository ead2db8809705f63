//! What happens in the demo, step by step, and what must come of it.

use std::time::Duration;

use serde_json::json;

use super::peer::Peer;
use super::timeline::{Sight, Timeline};
use super::{Failure, GRACE};

/// How long bob is away: half of grace.
const AWAY: Duration = Duration::from_millis(GRACE.0 / 2);

/// Longest wait for something that should come at once.
const SOON: Duration = Duration::from_secs(2);

/// How late a leave may be: the wheel's tick, and a busy machine's scheduler.
const LATE: Duration = Duration::from_millis(500);

/// Watched after everything has happened, for what should not.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// What alice says to bob while he is away, with its base64, which is how bodies travel.
const SAID: [(&str, &str); 3] = [
    ("are you there?", "YXJlIHlvdSB0aGVyZT8="),
    ("the build is green", "dGhlIGJ1aWxkIGlzIGdyZWVu"),
    ("your turn", "eW91ciB0dXJu"),
];

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// What a body says.
pub(super) fn spoken(body: &str) -> &str {
    SAID.iter()
        .find(|(_, encoded)| *encoded == body)
        .map_or(body, |(text, _)| text)
}

/// The three peers and the record of what they do and see.
pub(super) struct Story<'a> {
    peers: [Peer; 3],
    pub(super) timeline: Timeline<'a>,
}

impl<'a> Story<'a> {
    pub(super) fn new(peers: [Peer; 3], timeline: Timeline<'a>) -> Self {
        Self { peers, timeline }
    }

    /// Plays it all; gives back the record.
    pub(super) fn play(mut self) -> Result<Timeline<'a>, Failure> {
        self.everybody_joins()?;
        self.bob_comes_back()?;
        self.carol_does_not()?;
        Ok(self.timeline)
    }

    fn everybody_joins(&mut self) -> Result<(), Failure> {
        for index in [ALICE, BOB, CAROL] {
            let name = self.peers[index].name;
            self.timeline.tell(name, "connects")?;
            self.peers[index].connect()?;
            let welcome = |sight: &Sight| matches!(sight, Sight::Welcome { .. });
            if self
                .wait_until(name, Duration::ZERO, 1, welcome)?
                .is_empty()
            {
                return Err(Failure::Failed(format!("demo: {name} was not welcomed")));
            }
        }
        self.wait_for("alice", |sight| is_event(sight, "peer_joined", "carol"))?;
        self.wait_for("bob", |sight| is_event(sight, "peer_joined", "carol"))?;
        let joined = |who, name| {
            self.timeline
                .events(who, ("peer_joined", name), Duration::ZERO)
        };
        let counts = [
            joined("alice", "bob"),
            joined("alice", "carol"),
            joined("bob", "carol"),
        ]
        .map(|times| times.len());
        self.timeline.check(
            "everybody present sees each newcomer join once",
            counts == [1, 1, 1],
            format!("{counts:?} joins seen"),
        );
        Ok(())
    }

    fn bob_comes_back(&mut self) -> Result<(), Failure> {
        let before = self.presence("bob", Duration::ZERO);
        let cut = self.timeline.now();
        self.peers[BOB].cut()?;
        self.timeline
            .tell("bob", "loses the network: his socket is reset")?;
        self.watch(AWAY / 4)?;
        let listed = self.list_peers()?;
        self.timeline.check(
            "bob is still on the list while he is away",
            listed.contains(&("bob".to_owned(), "grace".to_owned())),
            format!("{} peers listed", listed.len()),
        );
        for (text, body) in SAID {
            self.timeline
                .tell("alice", format!("sends {text:?} to bob"))?;
            self.peers[ALICE].send(self.peers[BOB].session_key(), body)?;
        }
        let acked = |sight: &Sight| matches!(sight, Sight::Ack { .. });
        let acks = self.wait_until("alice", cut, SAID.len(), acked)?;
        let taken = acks.iter().filter(|sight| is_taken(sight)).count();
        self.timeline.check(
            "what is sent to him meanwhile is taken",
            taken == SAID.len(),
            format!("{taken} of {} acknowledged", SAID.len()),
        );
        self.watch(AWAY.saturating_sub(self.timeline.now() - cut))?;
        let back = self.timeline.now();
        self.timeline
            .tell("bob", "reconnects with the same session key")?;
        self.peers[BOB].connect()?;
        self.wait_until("bob", back, 1, |sight| {
            matches!(sight, Sight::Welcome { .. })
        })?;
        let is_message = |sight: &Sight| matches!(sight, Sight::Message { .. });
        self.wait_until("bob", back, SAID.len(), is_message)?;
        self.watch(AFTERWARDS)?;
        self.judge_return(before, cut, back);
        Ok(())
    }

    fn judge_return(&mut self, before: Option<(String, bool)>, cut: Duration, back: Duration) {
        let after = self.presence("bob", back);
        let same = matches!(
            (&before, &after),
            (Some((old, false)), Some((new, true))) if old == new
        );
        self.timeline.check(
            "he returns to the lease he had",
            same,
            "same presence, reattached",
        );
        let mut welcome = back;
        let mut last = back;
        let mut bodies = Vec::new();
        for (at, sight) in self.timeline.sights("bob", back) {
            match sight {
                Sight::Welcome { .. } => welcome = at,
                Sight::Message { body, .. } => {
                    last = at;
                    bodies.push(body.as_str());
                }
                // Not once: the library tells of a repetition, and does not hide it.
                Sight::Repeated { .. } => bodies.push("again"),
                Sight::Peer { .. } | Sight::Ack { .. } | Sight::List(_) | Sight::Other(_) => {}
            }
        }
        let complete = bodies == SAID.map(|(_, body)| body);
        let detail = format!(
            "{} messages, {} ms after his welcome",
            bodies.len(),
            (last.saturating_sub(welcome)).as_millis()
        );
        self.timeline
            .check("he gets all of it, once, in order", complete, detail);
        let noticed = self.noticed(cut);
        self.timeline.check(
            "nobody noticed that he was away",
            noticed == 0,
            format!("{noticed} events of bob at alice and carol"),
        );
    }

    fn carol_does_not(&mut self) -> Result<(), Failure> {
        let cut = self.timeline.now();
        self.peers[CAROL].cut()?;
        self.timeline.tell("carol", "loses the network, for good")?;
        let grace = Duration::from_millis(GRACE.0);
        self.watch(grace + LATE)?;
        self.watch(AFTERWARDS)?;
        let since = |times: &[Duration]| -> Vec<u128> {
            times
                .iter()
                .map(|at| at.saturating_sub(cut).as_millis())
                .collect()
        };
        for (who, check) in [
            (
                "alice",
                "carol leaves once, when her grace is over, says alice",
            ),
            ("bob", "carol leaves once, when her grace is over, says bob"),
        ] {
            let times = self.timeline.events(who, ("peer_left", "carol"), cut);
            let right = match times[..] {
                // What lies between cutting and noticing the time is on the early side.
                [at] => at + Duration::from_millis(20) >= cut + grace && at <= cut + grace + LATE,
                _ => false,
            };
            self.timeline
                .check(check, right, format!("left after {:?} ms", since(&times)));
        }
        let listed = self.list_peers()?;
        self.timeline.check(
            "only who is present is on the list",
            listed.iter().all(|(name, _)| name != "carol") && listed.len() == 2,
            format!("{} peers listed", listed.len()),
        );
        let noticed = self.noticed(Duration::ZERO);
        self.timeline.check(
            "bob's absence stayed unnoticed to the end",
            // Each saw him join at most once: alice did, carol came later.
            noticed == 1,
            format!("{noticed} event of bob in all, his join"),
        );
        Ok(())
    }

    /// How many events alice and carol were told of bob from `since` on.
    fn noticed(&self, since: Duration) -> usize {
        let of_bob = |sight: &Sight| matches!(sight, Sight::Peer { name, .. } if name == "bob");
        ["alice", "carol"]
            .iter()
            .map(|who| {
                self.timeline
                    .sights(who, since)
                    .filter(|(_, sight)| of_bob(sight))
                    .count()
            })
            .sum()
    }

    /// The presence `who` was welcomed to last, and whether it had it before.
    fn presence(&self, who: &'static str, since: Duration) -> Option<(String, bool)> {
        self.timeline
            .sights(who, since)
            .filter_map(|(_, sight)| match sight {
                Sight::Welcome {
                    presence,
                    reattached,
                } => Some((presence.clone(), *reattached)),
                Sight::Peer { .. }
                | Sight::Ack { .. }
                | Sight::Message { .. }
                | Sight::Repeated { .. }
                | Sight::List(_)
                | Sight::Other(_) => None,
            })
            .last()
    }

    /// alice asks who is present.
    fn list_peers(&mut self) -> Result<Vec<(String, String)>, Failure> {
        let asked = self.timeline.now();
        self.peers[ALICE].request(json!({"type": "list_peers", "_reqId": "demo"}))?;
        let lists = self.wait_until("alice", asked, 1, |sight| matches!(sight, Sight::List(_)))?;
        // A list that does not come is an empty one; the checks say so.
        let Some(Sight::List(peers)) = lists.into_iter().next() else {
            return Ok(Vec::new());
        };
        Ok(peers)
    }

    /// Hears everybody once.
    fn glance(&mut self) -> Result<(), Failure> {
        for peer in &self.peers {
            while let Some(event) = peer.glance()? {
                self.timeline.saw(peer.name, Sight::of(event))?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, span: Duration) -> Result<(), Failure> {
        let until = self.timeline.now() + span;
        while self.timeline.now() < until {
            self.glance()?;
        }
        Ok(())
    }

    fn wait_for(&mut self, who: &'static str, wanted: fn(&Sight) -> bool) -> Result<(), Failure> {
        self.wait_until(who, Duration::ZERO, 1, wanted).map(drop)
    }

    /// Watches until `who` has been told `count` such things since `since`. What does not come
    /// is for the checks to miss; only a socket that dies by itself ends the demo.
    fn wait_until(
        &mut self,
        who: &'static str,
        since: Duration,
        count: usize,
        wanted: impl Fn(&Sight) -> bool,
    ) -> Result<Vec<Sight>, Failure> {
        let until = self.timeline.now() + SOON;
        loop {
            let told = self.timeline.sights(who, since).map(|(_, sight)| sight);
            let told: Vec<Sight> = told.filter(|sight| wanted(sight)).cloned().collect();
            if told.len() >= count || self.timeline.now() >= until {
                return Ok(told);
            }
            self.glance()?;
        }
    }
}

fn is_event(sight: &Sight, wanted: &str, whose: &str) -> bool {
    matches!(sight, Sight::Peer { event, name } if event == wanted && name == whose)
}

fn is_taken(sight: &Sight) -> bool {
    matches!(sight, Sight::Ack { error: None })
}
