//! What happened when, and what each peer saw of it.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::super::output;
use super::super::stopwatch::{self, Stopwatch};
use crate::client::Event;
use crate::core::time::Wall;

/// Something a peer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Its hello was accepted.
    Welcome {
        /// The public name of its lease.
        presence: String,
        /// Whether it is the lease it had before.
        reattached: bool,
    },
    /// `peer_joined`, `peer_returned` or `peer_left`.
    Peer {
        /// Which of them.
        event: String,
        /// Who.
        name: String,
    },
    /// Its message was taken or refused.
    Ack {
        /// Why it was refused, if it was.
        error: Option<String>,
    },
    /// A message for it.
    Message {
        /// What it carries.
        body: String,
        /// From whom.
        from: String,
    },
    /// A message that it was told before.
    Repeated {
        /// The broker's id of it.
        id: String,
    },
    /// The list it asked for: name and lease of each.
    List(Vec<(String, String)>),
    /// Anything else.
    Other(String),
}

impl Sight {
    /// What an event tells.
    pub(super) fn of(event: Event) -> Self {
        match event {
            Event::Welcome(welcome) => Self::Welcome {
                presence: welcome.presence_id,
                reattached: welcome.reattached,
            },
            Event::Peer(peer) => Self::Peer {
                event: peer.change.name().to_owned(),
                name: peer.name,
            },
            Event::Message(message) => Self::Message {
                body: message.ciphertext,
                from: message.sender_name.unwrap_or_default(),
            },
            Event::Repeated { message_id, .. } => Self::Repeated { id: message_id },
            Event::Acknowledged { .. } => Self::Ack { error: None },
            Event::Refused { error, .. } => Self::Ack { error: Some(error) },
            Event::Frame(frame) if frame["type"] == "peers_list" => Self::list(&frame),
            Event::Frame(frame) => Self::Other(frame.to_string()),
            Event::Error { code, message, .. } => Self::Other(format!("error {code} {message}")),
            Event::Unreadable { text } => Self::Other(text),
            Event::Unsent { why, .. } => Self::Other(format!("nothing: {why}")),
            Event::Lost { why, .. } => Self::Other(why.to_string()),
            Event::Gone(end) => Self::Other(end.to_string()),
        }
    }

    fn list(frame: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let peers = frame["peers"].as_array();
        let entry = |peer: &Value| (text(&peer["displayName"]), text(&peer["lease"]));
        Self::List(peers.into_iter().flatten().map(entry).collect())
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome {
                presence,
                reattached,
            } => {
                let short: String = presence.chars().take(8).collect();
                let how = if *reattached {
                    "the lease it had"
                } else {
                    "a new lease"
                };
                write!(f, "is welcome: {how}, presence {short}")
            }
            Self::Peer { event, name } => write!(f, "sees {event} {name}"),
            Self::Ack { error: None } => f.write_str("gets its ack: the message is on disk"),
            Self::Ack { error: Some(why) } => write!(f, "gets a refusal: {why}"),
            Self::Message { body, from } => {
                let text = super::story::spoken(body);
                write!(f, "receives {text:?} from {from}")
            }
            Self::Repeated { id } => write!(f, "receives {id} again"),
            Self::List(peers) => {
                f.write_str("asks who is present:")?;
                for (name, lease) in peers {
                    write!(f, " {name} ({lease})")?;
                }
                Ok(())
            }
            Self::Other(what) => write!(f, "receives {what}"),
        }
    }
}

/// One line of the timeline.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    at_ms: u128,
    who: &'static str,
    what: String,
}

/// One thing that must have come out as promised.
#[derive(Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    ok: bool,
    started_at: Wall,
    timeline: &'a [Line],
    checks: &'a [Check],
}

/// The record of one run, shown as it grows unless it is to be JSON.
pub(super) struct Timeline<'a> {
    out: &'a mut dyn Write,
    json: bool,
    watch: Stopwatch,
    started_at: Wall,
    lines: Vec<Line>,
    sights: Vec<(Duration, &'static str, Sight)>,
    checks: Vec<Check>,
}

impl<'a> Timeline<'a> {
    /// Begins now.
    pub(super) fn start(out: &'a mut dyn Write, json: bool) -> io::Result<Self> {
        let started_at = stopwatch::wall_now();
        if !json {
            writeln!(out, "{started_at}")?;
        }
        let watch = Stopwatch::start();
        let (lines, sights, checks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            out,
            json,
            watch,
            started_at,
            lines,
            sights,
            checks,
        })
    }

    /// Since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Somebody did something.
    pub(super) fn tell(&mut self, who: &'static str, what: impl Into<String>) -> io::Result<()> {
        let (at, what) = (self.now(), what.into());
        if !self.json {
            writeln!(self.out, "{:>8.3}s  {who:<7} {what}", at.as_secs_f64())?;
            self.out.flush()?;
        }
        self.lines.push(Line {
            at_ms: at.as_millis(),
            who,
            what,
        });
        Ok(())
    }

    /// A peer was told something.
    pub(super) fn saw(&mut self, who: &'static str, sight: Sight) -> io::Result<()> {
        let at = self.now();
        self.tell(who, sight.to_string())?;
        self.sights.push((at, who, sight));
        Ok(())
    }

    /// What `who` was told from `since` on.
    pub(super) fn sights(
        &self,
        who: &'static str,
        since: Duration,
    ) -> impl Iterator<Item = (Duration, &Sight)> {
        self.sights
            .iter()
            .filter(move |(at, peer, _)| *at >= since && *peer == who)
            .map(|(at, _, sight)| (*at, sight))
    }

    /// When `who` was told `event` of `name`, from `since` on.
    pub(super) fn events(
        &self,
        who: &'static str,
        (event, name): (&str, &str),
        since: Duration,
    ) -> Vec<Duration> {
        let wanted = Sight::Peer {
            event: event.to_owned(),
            name: name.to_owned(),
        };
        self.sights(who, since)
            .filter(|(_, sight)| **sight == wanted)
            .map(|(at, _)| at)
            .collect()
    }

    /// Notes whether something came out as promised.
    pub(super) fn check(&mut self, check: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check {
            check,
            ok,
            detail: detail.into(),
        });
    }

    /// Prints the checks and the verdict; whether all is well.
    pub(super) fn verdict(self) -> io::Result<bool> {
        let ok = !self.checks.is_empty() && self.checks.iter().all(|check| check.ok);
        if self.json {
            let Self {
                out,
                started_at,
                lines,
                checks,
                ..
            } = self;
            let report = Report {
                ok,
                started_at,
                timeline: &lines,
                checks: &checks,
            };
            output::json(out, &report)?;
            return Ok(ok);
        }
        writeln!(self.out)?;
        for Check { check, ok, detail } in &self.checks {
            let mark = if *ok { "ok  " } else { "FAIL" };
            writeln!(self.out, "{mark}  {check} ({detail})")?;
        }
        let passed = self.checks.iter().filter(|check| check.ok).count();
        let word = if ok { "held fast" } else { "FAILED" };
        writeln!(
            self.out,
            "\n{word}: {passed} of {} checks passed",
            self.checks.len()
        )?;
        Ok(ok)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_what_a_peer_sees() {
        let refused = Event::Refused {
            client_message_id: "1".into(),
            error: "no".into(),
        };
        let error = Some("no".to_owned());
        assert_eq!(Sight::of(refused), Sight::Ack { error });
        let list = json!({"type":"peers_list","peers":[{"displayName":"bob","lease":"grace"}]});
        assert_eq!(
            Sight::of(Event::Frame(list)),
            Sight::List(vec![("bob".into(), "grace".into())])
        );
        let other = Event::Frame(json!({"type":"state_list"}));
        assert!(matches!(Sight::of(other), Sight::Other(_)));
    }

    #[test]
    fn one_failed_check_fails_the_verdict() {
        for (json, verdicts, want) in [
            (false, vec![true, true], true),
            (true, vec![true, false], false),
            (false, vec![], false),
        ] {
            let mut out = Vec::new();
            let mut timeline = Timeline::start(&mut out, json).unwrap();
            timeline.tell("alice", "waits").unwrap();
            for ok in verdicts {
                timeline.check("something", ok, "");
            }
            assert_eq!(timeline.verdict().unwrap(), want);
            assert_eq!(serde_json::from_slice::<Value>(&out).is_ok(), json);
        }
    }
}
