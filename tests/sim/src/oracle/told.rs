//! What peers are told of each other, compared with who was really there (I2, I3, design.md §8.2).

use std::collections::BTreeMap;

use holdfast_core::effect::Effect;
use holdfast_core::input::Ask;
use serde_json::Value;

use super::conns::Is;
use super::model::Lease;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{Expect, Said};

/// Whether others are still to be told that a session joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// They know.
    Nothing,
    /// Those who were there before it.
    Join,
    /// A process that crashed should have told them, and perhaps did.
    Perhaps,
}

/// What is told when an operation has ended.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Joined(String),
    Left {
        id: String,
        /// Leases up to this order were there.
        before: u64,
        lease: Box<Lease>,
    },
}

impl Oracle {
    /// Whether a message written in this step came from the session that spoke.
    fn reached_others(&self, step: &Step<'_>) -> bool {
        let Cause::Frame(frame) = step.cause else {
            return false;
        };
        let Said::Send(said) = &frame.said else {
            return false;
        };
        self.messages.last().is_some_and(|message| {
            message.said.number == said.number
                && (message.holder.is_some() || !self.scratch.multicast.is_empty())
        })
    }

    /// A broker-made push.
    pub(crate) fn told(&mut self, at: ConnKey, frame: &Value) -> Verdict {
        let is = self.conns.get(&at).map(|conn| conn.is);
        ensure!(
            is == Some(Is::Attached),
            "I5",
            "{at:?} is told something before its hello_ack"
        );
        self.same_mesh(at, frame)?;
        let event = frame["event"].as_str().unwrap_or_default();
        let known = [
            "peer_joined",
            "peer_returned",
            "peer_left",
            "peer_hidden",
            "peer_visible",
        ];
        ensure!(known.contains(&event), "I7", "an unknown event: {event}");
        let key = frame["eventData"]["pubkey"].as_str().unwrap_or_default();
        self.scratch
            .told
            .push((event.to_owned(), key.to_owned(), at));
        Ok(())
    }

    /// Nothing crosses from mesh to mesh (I7).
    pub(crate) fn same_mesh(&self, at: ConnKey, frame: &Value) -> Verdict {
        let Some((id, lease)) = self.attached(at) else {
            return Err(Violation::new(
                "I1",
                format!("a push to {at:?}, which is not attached"),
            ));
        };
        let mesh = &self.plan.town.meshes[lease.mesh].id;
        ensure!(
            frame["meshId"] == **mesh,
            "I7",
            "{id} of {mesh} got a push of {}",
            frame["meshId"]
        );
        Ok(())
    }

    /// Everybody online who was there before and hears of `of`, but itself.
    fn audience(&self, id: &str, of: &Lease, before: u64) -> Vec<ConnKey> {
        let mut found: Vec<ConnKey> = self
            .leases
            .iter()
            .filter(|(other, lease)| {
                *other != id
                    && lease.mesh == of.mesh
                    && lease.order < before
                    && Self::hears(lease, of)
            })
            .filter_map(|(_, lease)| lease.conn())
            .collect();
        found.sort();
        found
    }

    /// Takes what was told under one of these names about a key.
    fn take_told(&mut self, events: &[&str], key: &str) -> Vec<ConnKey> {
        let mut found = Vec::new();
        self.scratch.told.retain(|(event, about, at)| {
            let is_it = events.contains(&event.as_str()) && about == key;
            if is_it {
                found.push(*at);
            }
            !is_it
        });
        found.sort();
        found
    }

    /// A lease has ended; others are told when that is durable.
    pub(crate) fn left(&mut self, step: &Step<'_>, id: &str, lease: Lease) -> Verdict {
        let Some(token) = self.scratch.closed_rows.iter().find(|(row, _)| row == id) else {
            return Err(Violation::new(
                "I10",
                format!("{id} ended and its row was not ended"),
            ));
        };
        let Some(token) = token.1 else {
            return Err(Violation::new(
                "I3",
                format!("nobody waits for the end of {id}, to tell it"),
            ));
        };
        let farewell = News::Left {
            id: id.to_owned(),
            before: self.order,
            lease: Box::new(lease),
        };
        self.waiting.insert((step.shard, token), farewell);
        Ok(())
    }

    /// What is told now that an operation has ended.
    fn due_news(&mut self, step: &Step<'_>) -> Verdict {
        let Cause::Stored(token, _) = step.cause else {
            return Ok(());
        };
        match self.waiting.remove(&(step.shard, *token)) {
            Some(News::Joined(id)) => self.joined(&id, true),
            Some(News::Left { id, before, lease }) => {
                let key = self.public_key(&lease).to_string();
                if lease.owed == Owed::Join {
                    let expected = self.audience(&id, &lease, lease.order);
                    let told = self.take_told(&["peer_joined", "peer_returned"], &key);
                    ensure!(
                        told == expected,
                        "I3",
                        "{id} joined and left: told {told:?}, there are {expected:?}"
                    );
                }
                let expected = self.audience(&id, &lease, before + 1);
                let told = self.take_told(&["peer_left"], &key);
                ensure!(
                    told == expected,
                    "I3",
                    "{id} left: told {told:?}, there are {expected:?}"
                );
                self.marked(&id)
            }
            None => Ok(()),
        }
    }

    /// The mesh whose list somebody looks at in this step.
    fn looked_at(&self, step: &Step<'_>) -> Option<usize> {
        match step.cause {
            Cause::Ask(Ask::Peers { mesh }) => self
                .plan
                .town
                .meshes
                .iter()
                .position(|found| found.id == *mesh),
            Cause::Frame(frame) => {
                let list = matches!(&frame.expect, Expect::Reply("peers_list", _));
                let looks = self.attached((step.shard, step.conn?)).filter(|_| list);
                looks
                    .map(|(_, lease)| lease.mesh)
                    .or_else(|| self.listed(step))
            }
            // A list that was ready waited behind other answers.
            Cause::Stored(..) | Cause::Answered(..) => None,
            _ => self.listed(step),
        }
    }

    /// The mesh whose list is written in this step: one that was asked for while its newcomer
    /// waited for the incumbent.
    fn listed(&self, step: &Step<'_>) -> Option<usize> {
        step.effects.iter().find_map(|effect| match effect {
            Effect::Send { conn, frame } if frame.starts_with(b"{\"type\":\"peers_list\"") => self
                .attached((step.shard, *conn))
                .map(|(_, lease)| lease.mesh),
            _ => None,
        })
    }

    /// Who looks at a list sees nobody come or go before the news of it: all that is still to be
    /// told of the mesh is told first.
    fn news_before_list(&mut self, mesh: usize) -> Verdict {
        let mut expected: BTreeMap<(bool, String), Vec<ConnKey>> = BTreeMap::new();
        let mut due = Vec::new();
        for news in self.waiting.values() {
            if let News::Left { id, before, lease } = news
                && lease.mesh == mesh
            {
                due.push((id.clone(), true, before + 1, (**lease).clone()));
                if lease.owed == Owed::Join {
                    due.push((id.clone(), false, lease.order, (**lease).clone()));
                }
            }
        }
        self.waiting
            .retain(|_, news| !matches!(news, News::Left { lease, .. } if lease.mesh == mesh));
        for (id, lease) in self.leases.iter_mut().filter(|(_, l)| l.mesh == mesh) {
            if lease.owed == Owed::Join {
                lease.owed = Owed::Nothing;
                due.push((id.clone(), false, lease.order, lease.clone()));
            }
        }
        for (id, leave, before, lease) in due {
            let key = self.public_key(&lease).to_string();
            let audience = self.audience(&id, &lease, before);
            expected.entry((leave, key)).or_default().extend(audience);
            self.marked(&id)?;
        }
        for ((leave, key), mut audience) in expected {
            audience.sort();
            let events: &[&str] = if leave {
                &["peer_left"]
            } else {
                &["peer_joined", "peer_returned"]
            };
            let told = self.take_told(events, &key);
            ensure!(
                told == audience,
                "I3",
                "before a list {events:?} of {key}: told {told:?}, there are {audience:?}"
            );
        }
        Ok(())
    }

    /// The row says what others were told (I10).
    fn marked(&self, id: &str) -> Verdict {
        ensure!(
            self.scratch.told_rows.iter().any(|row| row == id),
            "I10",
            "others were told of {id} and its row does not say so"
        );
        Ok(())
    }

    /// A session is announced: exactly those who were there before it are told, once.
    fn joined(&mut self, id: &str, must: bool) -> Verdict {
        let Some(lease) = self.leases.get(id).cloned() else {
            return Ok(());
        };
        let key = self.public_key(&lease).to_string();
        if lease.owed == Owed::Nothing {
            return Ok(());
        }
        let before = if lease.owed == Owed::Join {
            lease.order
        } else {
            u64::MAX
        };
        let expected = self.audience(id, &lease, before);
        let told = self.take_told(&["peer_joined", "peer_returned"], &key);
        if told.is_empty() && !must {
            return Ok(());
        }
        ensure!(
            told == expected,
            "I3",
            "{id} joined: told {told:?}, there are {expected:?}"
        );
        if let Some(lease) = self.leases.get_mut(id) {
            lease.owed = Owed::Nothing;
        }
        self.marked(id)
    }

    /// After the effects: exactly what had to be told was told.
    pub(crate) fn announced(&mut self, step: &Step<'_>) -> Verdict {
        // A broker that stops leaves the news to the next one.
        if self.stopping {
            self.waiting.clear();
        }
        self.due_news(step)?;
        if let Some(mesh) = self.looked_at(step).filter(|_| !self.stopping) {
            self.news_before_list(mesh)?;
        }
        // Who speaks before its row is durable is announced first.
        if let (Cause::Frame(frame), Some(conn)) = (step.cause, step.conn)
            && matches!(frame.said, Said::Send(_) | Said::Visible(_))
            && let Some((id, _)) = self.attached((step.shard, conn))
        {
            let id = id.clone();
            let spoke = matches!(frame.said, Said::Visible(_)) || self.reached_others(step);
            if self.scratch.told_rows.contains(&id) {
                self.joined(&id, true)?;
            }
            let owed = self
                .leases
                .get(&id)
                .is_some_and(|lease| lease.owed != Owed::Nothing);
            ensure!(
                !spoke || !owed,
                "I3",
                "{id} spoke to others, who were not told of it"
            );
        }
        if let (Cause::Frame(frame), Some(conn), false) = (step.cause, step.conn, self.stopping)
            && let Said::Visible(_) = frame.said
            && let Some((id, lease)) = self.attached((step.shard, conn))
        {
            let (id, lease) = (id.clone(), lease.clone());
            let key = self.public_key(&lease).to_string();
            let event = if lease.visible {
                "peer_visible"
            } else {
                "peer_hidden"
            };
            let mut expected: Vec<ConnKey> = self
                .in_mesh(lease.mesh)
                .into_iter()
                .filter(|(other, _)| **other != id)
                .filter_map(|(_, lease)| lease.conn())
                .collect();
            expected.sort();
            let told = self.take_told(&[event], &key);
            ensure!(
                told == expected,
                "I7",
                "{id} is {event}: told {told:?}, there are {expected:?}"
            );
        }
        if let Some((event, key, at)) = self.scratch.told.first() {
            return Err(Violation::new(
                "I2",
                format!("{at:?} was told {event} of {key} for no reason"),
            ));
        }
        Ok(())
    }
}
