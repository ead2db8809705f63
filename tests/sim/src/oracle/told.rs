//! When something is said to a mesh: each piece of news has its reason, and each reason its news
//! (I2, I3, design.md §8.2). Who is told of it is in the accounts.

use holdfast_core::effect::Effect;
use holdfast_core::input::Ask;
use serde_json::Value;

use super::conns::Is;
use super::ledger::{News, What};
use super::model::Lease;
use super::servers::Served;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::{Expect, McpAsked, Said};

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
pub(crate) enum Due {
    Joined(String),
    Left {
        id: String,
        /// Leases up to this order were there.
        before: u64,
        lease: Box<Lease>,
    },
}

impl Oracle {
    /// A broker-made push.
    pub(crate) fn told(&mut self, at: ConnKey, frame: &Value, bytes: usize) -> Verdict {
        let is = self.conns.get(&at).map(|conn| conn.is);
        ensure!(
            is == Some(Is::Attached),
            "I5",
            "{at:?} is told something before its hello_ack"
        );
        self.same_mesh(at, frame)?;
        let event = frame["event"].as_str().unwrap_or_default();
        let what = match event {
            "peer_joined" | "peer_returned" => What::Joined,
            "peer_left" => What::Left,
            "peer_hidden" => What::Shown(false),
            "peer_visible" => What::Shown(true),
            "mcp_registered" => return self.server_told(at, Served::Registered, (frame, bytes)),
            "mcp_unregistered" => {
                return self.server_told(at, Served::Unregistered, (frame, bytes));
            }
            "mcp_restored" => return self.server_told(at, Served::Restored, (frame, bytes)),
            "tick" => return self.ticked(at, frame),
            "watch_triggered" => return self.watch_told(at, frame),
            _ => return Err(Violation::new("I7", format!("an unknown event: {event}"))),
        };
        let key = frame["eventData"]["pubkey"].as_str().unwrap_or_default();
        let message_id = frame["messageId"].as_str().unwrap_or_default();
        let fits = |oracle: &Self, news: &News| {
            let of = news.lease.as_ref();
            news.what == what && of.is_some_and(|of| oracle.public_key(of).to_string() == key)
        };
        let name = format!("{event} of {key}");
        self.news_written(at, (message_id, bytes), &fits, &name)
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
        let farewell = Due::Left {
            id: id.to_owned(),
            before: self.order,
            lease: Box::new(lease),
        };
        self.waiting.insert((step.shard, token), farewell);
        Ok(())
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

    /// Who looks at a list sees nobody come or go before the news of it.
    fn news_before_list(&self, mesh: usize) -> Verdict {
        for due in self.waiting.values() {
            if let Due::Left { id, lease, .. } = due {
                ensure!(lease.mesh != mesh, "I3", "a list before the leave of {id}");
            }
        }
        for (id, lease) in &self.leases {
            let owed = lease.mesh == mesh && lease.owed == Owed::Join;
            ensure!(!owed, "I3", "a list before the join of {id}");
        }
        Ok(())
    }

    /// After the effects: what was said had to be said now, and what had to be said was.
    pub(crate) fn announced(&mut self, step: &Step<'_>) -> Verdict {
        while self.publish_next()? {}
        // A broker that stops leaves the news to the next one.
        if self.stopping {
            self.leave_news();
        }
        let list = self.looked_at(step).filter(|_| !self.stopping);
        if let Some(mesh) = list {
            self.news_before_list(mesh)?;
        }
        let due = match (step.cause, self.scratch.due.clone()) {
            (_, Some(Due::Joined(id))) => {
                let owed = self.leases.get(&id).map(|lease| lease.owed);
                ensure!(
                    owed.is_none_or(|owed| owed == Owed::Nothing),
                    "I3",
                    "the row of {id} is durable and its join was not told"
                );
                Some(id)
            }
            (Cause::Stored(token, _), Some(Due::Left { id, .. })) => {
                ensure!(
                    !self.waiting.contains_key(&(step.shard, *token)),
                    "I3",
                    "the end of {id} is durable and was not told"
                );
                Some(id)
            }
            _ => None,
        };
        let speaker = self.speaker(step);
        for place in &self.scratch.published {
            let news = &self.news[*place];
            let (of, about) = (
                Some(&news.of),
                matches!(news.what, What::Joined | What::Left),
            );
            let speaks = of == speaker.as_ref() && news.what == What::Joined;
            let again = self.scratch.again.contains(&news.of);
            let due = of == due.as_ref() || again || self.scratch.authors.contains(&news.of);
            let reason = !about || due || speaks || list == Some(news.mesh);
            ensure!(
                reason,
                "I10",
                "{:?} of {} was told before its row was durable",
                news.what,
                news.of
            );
        }
        // Who speaks before its row is durable is announced first.
        let spoke = speaker.filter(|_| self.reached_others(step));
        let owed = spoke
            .as_ref()
            .and_then(|id| self.leases.get(id))
            .is_some_and(|lease| lease.owed != Owed::Nothing);
        ensure!(
            !owed,
            "I3",
            "{spoke:?} spoke to others, who were not told of it"
        );
        Ok(())
    }

    /// The session that speaks to others in this step.
    fn speaker(&self, step: &Step<'_>) -> Option<String> {
        let Cause::Frame(frame) = step.cause else {
            return None;
        };
        let speaks = matches!(
            frame.said,
            Said::Send(_)
                | Said::Visible(_)
                | Said::Set(..)
                | Said::Publish(..)
                | Said::Mcp(McpAsked::Register(..), _)
        );
        self.scratch.speaker.clone().filter(|_| speaks)
    }

    /// Whether something written in this step came from the session that spoke.
    fn reached_others(&self, step: &Step<'_>) -> bool {
        let Cause::Frame(frame) = step.cause else {
            return false;
        };
        let served = |place: &usize| matches!(self.news[*place].what, What::Served(..));
        if self.scratch.published.iter().any(served) {
            return true;
        }
        let Said::Send(said) = &frame.said else {
            return matches!(frame.said, Said::Visible(_) | Said::Set(..)) && !self.stopping;
        };
        self.messages.last().is_some_and(|message| {
            message.said.number == said.number
                && (message.holder.is_some() || !self.scratch.multicast.is_empty())
        })
    }
}
