//! What happened when, and what each peer saw of it.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::super::output;
use super::super::stopwatch::{self, Stopwatch};
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
        /// Whether it is kept for the recipient.
        queued: bool,
        /// Why not.
        error: Option<String>,
    },
    /// A message for it.
    Message {
        /// The broker's id.
        id: String,
        /// What it carries.
        body: String,
        /// From whom.
        from: String,
    },
    /// The list it asked for: name and lease of each.
    List(Vec<(String, String)>),
    /// Anything else.
    Other(String),
}

impl Sight {
    /// What a frame tells.
    pub(super) fn of(frame: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (
            text(&frame["type"]).as_str(),
            text(&frame["subtype"]).as_str(),
        ) {
            ("hello_ack", _) => Self::Welcome {
                presence: text(&frame["presenceId"]),
                reattached: frame["reattached"] == true,
            },
            ("push", "system") => Self::Peer {
                event: text(&frame["event"]),
                name: text(&frame["eventData"]["name"]),
            },
            ("push", _) => Self::Message {
                id: text(&frame["messageId"]),
                body: text(&frame["ciphertext"]),
                from: text(&frame["senderName"]),
            },
            ("ack", _) => Self::Ack {
                queued: frame["queued"] == true,
                error: frame["error"].as_str().map(str::to_owned),
            },
            ("peers_list", _) => {
                let peers = frame["peers"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let entry = |peer: &Value| (text(&peer["displayName"]), text(&peer["lease"]));
                Self::List(peers.iter().map(entry).collect())
            }
            (kind, _) => Self::Other(format!("{kind} {} {}", frame["code"], frame["message"])),
        }
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
            Self::Ack {
                queued: true,
                error: None,
            } => f.write_str("gets its ack: the message is on disk"),
            Self::Ack { error, .. } => {
                write!(
                    f,
                    "gets a refusal: {}",
                    error.as_deref().unwrap_or("no reason given")
                )
            }
            Self::Message { body, from, .. } => {
                let text = super::story::spoken(body);
                write!(f, "receives {text:?} from {from}")
            }
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
    fn frames_are_understood_as_clients_do() {
        let left = json!({"type":"push","subtype":"system","event":"peer_left",
            "eventData":{"name":"bob"}});
        let bob = Sight::Peer {
            event: "peer_left".into(),
            name: "bob".into(),
        };
        assert_eq!(Sight::of(&left), bob);
        let ack = json!({"type":"ack","id":"1","messageId":"m","queued":true});
        assert_eq!(
            Sight::of(&ack),
            Sight::Ack {
                queued: true,
                error: None
            }
        );
        let list = json!({"type":"peers_list","peers":[{"displayName":"bob","lease":"grace"}]});
        assert_eq!(
            Sight::of(&list),
            Sight::List(vec![("bob".into(), "grace".into())])
        );
        assert!(matches!(
            Sight::of(&json!({"type":"error","code":"x"})),
            Sight::Other(_)
        ));
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
