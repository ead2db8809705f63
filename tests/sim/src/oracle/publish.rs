//! What is said to a mesh, one after another, as the rows of a step tell it.

use std::collections::VecDeque;

use holdfast_core::effect::Effect;
use holdfast_core::ids::{Position, news_id};
use holdfast_core::rows::{StoreOp, Told};

use super::ledger::{News, What};
use super::model::Lease;
use super::servers::Served;
use super::told::{Due, Owed};
use super::{Cause, Oracle, Step, Verdict, Violation, ensure};
use crate::said::Said;
use crate::town::KEYS;

/// What a step says to a mesh, by its rows.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    Joined(String),
    Left(String),
    Shown(String),
    Message(usize),
    Set(String, usize, usize),
    Data(String, usize, usize),
    /// A server, by mesh and name; its host, which is not told; and where it is told, if its row
    /// says so.
    Served(Served, (usize, usize), String, Option<Position>),
}

impl Oracle {
    /// What is said in this step, in order. The rows that tell follow the frames.
    pub(crate) fn claims(&self, step: &Step<'_>) -> VecDeque<Claim> {
        let mut claims: VecDeque<Claim> = step
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Persist { op, .. } => self.claim(step, op),
                _ => None,
            })
            .collect();
        if let (Cause::Frame(frame), Some(conn), false) = (step.cause, step.conn, self.stopping)
            && let Said::Visible(_) = frame.said
            && let Some((id, _)) = self.attached((step.shard, conn))
        {
            claims.push_back(Claim::Shown(id.clone()));
        }
        if let (Cause::Frame(frame), Some(conn), false) = (step.cause, step.conn, self.stopping)
            && let Some((id, stream, number)) = self.publishes((step.shard, conn), &frame.said)
        {
            claims.push_back(Claim::Data(id, stream, number));
        }
        claims
    }

    fn claim(&self, step: &Step<'_>, op: &StoreOp) -> Option<Claim> {
        match op {
            StoreOp::PresenceTold { id, told, .. } => Some(match told {
                Told::Join(_) => Claim::Joined(id.clone()),
                Told::Leave(_) => Claim::Left(id.clone()),
            }),
            StoreOp::MessageInsert(row) => {
                let index = self.by_text(&row.ciphertext)?;
                let direct = matches!(
                    self.messages[index].target,
                    super::mail::Target::Key(_) | super::mail::Target::Nobody
                );
                (!direct).then_some(Claim::Message(index))
            }
            StoreOp::ServerPut(row) => self.server_claim(&row.mesh_id, &row.name),
            StoreOp::ServerRemoved { mesh_id, name } => self.server_claim(mesh_id, name),
            StoreOp::ScheduleFired { sent, .. } => {
                let row = sent.as_ref()?;
                let index = self.by_id.get(row.id.as_str()).copied()?;
                row.position.map(|_| Claim::Message(index))
            }
            StoreOp::StateSet { row, .. } => {
                let (id, _) = self.attached((step.shard, step.conn?))?;
                let key = KEYS.iter().position(|key| *key == row.key)?;
                Some(Claim::Set(id.clone(), key, row.value.parse().ok()?))
            }
            _ => None,
        }
    }

    /// Publishes what is said next in this step; false if that is all.
    pub(crate) fn publish_next(&mut self) -> Result<bool, Violation> {
        let Some(claim) = self.scratch.claims.pop_front() else {
            return Ok(false);
        };
        match claim {
            Claim::Message(index) => {
                let message = &self.messages[index];
                let seq = message.seq;
                let (mesh, of) = (message.mesh, message.sender.clone());
                self.say_to(mesh, What::Message(index), (of, None), (u64::MAX, seq));
            }
            Claim::Shown(id) => {
                let Some(lease) = self.leases.get(&id) else {
                    return Ok(true);
                };
                let (mesh, what) = (lease.mesh, What::Shown(lease.visible));
                let of = (id, Some(Box::new(lease.clone())));
                self.say_to(mesh, what, of, (u64::MAX, None));
            }
            Claim::Set(id, key, number) => {
                let Some(mesh) = self.leases.get(&id).map(|lease| lease.mesh) else {
                    return Ok(true);
                };
                self.say_to(mesh, What::Set(key, number), (id, None), (u64::MAX, None));
            }
            Claim::Data(id, stream, number) => {
                let Some(mesh) = self.leases.get(&id).map(|lease| lease.mesh) else {
                    return Ok(true);
                };
                let place = self.news.len() as u64;
                self.say_to(mesh, What::Data(stream, number), (id, None), (place, None));
            }
            Claim::Served(served, (mesh, name), of, told) => {
                let what = What::Served(served, name);
                self.servers.told(told, self.news.len());
                // Who comes in this step may come before it or after it.
                let before = match served {
                    Served::Unregistered => self.scratch.order,
                    Served::Registered | Served::Restored => u64::MAX,
                };
                self.say_to(mesh, what, (of, None), (before, None));
            }
            Claim::Joined(id) => self.publish_join(id)?,
            Claim::Left(id) => self.publish_leave(&id)?,
        }
        Ok(true)
    }

    fn say_to(
        &mut self,
        mesh: usize,
        what: What,
        (of, lease): (String, Option<Box<Lease>>),
        (before, seq): (u64, Option<u64>),
    ) {
        let joined = match what {
            What::Left => self.joins.get(&of).copied(),
            _ => None,
        };
        let news = News {
            mesh,
            what,
            of,
            lease,
            before,
            seq,
            over: false,
            joined,
            life: self.survivors.life,
            id: None,
        };
        // What a crashed process may have told bears the same id.
        let id = match news.what {
            What::Joined => Some(news_id(&news.of, "joined", None)),
            What::Left => Some(news_id(&news.of, "left", None)),
            What::Message(_)
            | What::Shown(_)
            | What::Set(..)
            | What::Data(..)
            | What::Served(..) => None,
        };
        let place = self.publish(news);
        if let Some(id) = id {
            self.news_ids.insert(id.clone(), place);
            self.news[place].id = Some(id);
        }
        self.scratch.published.push(place);
    }

    fn publish_join(&mut self, id: String) -> Verdict {
        let gone = self.waiting.values_mut().find_map(|due| match due {
            Due::Left {
                id: other, lease, ..
            } if *other == id => Some(&mut **lease),
            Due::Left { .. } | Due::Joined(_) => None,
        });
        let Some(lease) = self.leases.get_mut(&id).or(gone) else {
            return Err(Violation::new(
                "I3",
                format!("{id} is said to have joined and is not there"),
            ));
        };
        let before = match lease.owed {
            Owed::Nothing => {
                return Err(Violation::new(
                    "I3",
                    format!("the join of {id} is told twice"),
                ));
            }
            Owed::Join | Owed::Perhaps => lease.order,
        };
        lease.owed = Owed::Nothing;
        let lease = lease.clone();
        let mesh = lease.mesh;
        self.say_to(
            mesh,
            What::Joined,
            (id, Some(Box::new(lease))),
            (before, None),
        );
        Ok(())
    }

    fn publish_leave(&mut self, id: &str) -> Verdict {
        let waits = |due: &Due| matches!(due, Due::Left { id: other, .. } if other == id);
        let token = self
            .waiting
            .iter()
            .find(|(_, due)| waits(due))
            .map(|(at, _)| *at);
        if let Some((before, lease)) = self.survivors.untold.remove(id) {
            // The process before had not told it.
            let (mesh, of) = (lease.mesh, (id.to_owned(), Some(lease)));
            self.scratch.again.push(id.to_owned());
            self.say_to(mesh, What::Left, of, (before + 1, None));
            return Ok(());
        }
        let Some((_, Due::Left { before, lease, .. })) =
            token.and_then(|at| Some((at, self.waiting.remove(&at)?)))
        else {
            return Err(Violation::new(
                "I3",
                format!("the leave of {id} is told twice, or it has not left"),
            ));
        };
        ensure!(
            lease.owed != Owed::Join,
            "I3",
            "the leave of {id} is told before its join"
        );
        let mesh = lease.mesh;
        let of = (id.to_owned(), Some(lease));
        self.say_to(mesh, What::Left, of, (before + 1, None));
        Ok(())
    }

    /// Notes what a piece of news takes back.
    pub(crate) fn remember_news(&mut self, place: usize, news: &News) {
        match news.what {
            What::Joined => {
                self.joins.insert(news.of.clone(), place);
            }
            What::Left => {
                let (join, shown) = (self.joins.get(&news.of), self.shown.remove(&news.of));
                for earlier in join.copied().into_iter().chain(shown) {
                    self.news[earlier].over = true;
                }
            }
            What::Shown(_) => {
                if let Some(earlier) = self.shown.insert(news.of.clone(), place) {
                    self.news[earlier].over = true;
                }
            }
            What::Set(key, _) => {
                let last = self.sharing.last.insert((news.mesh, key), place);
                if let Some(earlier) = last {
                    self.news[earlier].over = true;
                }
            }
            What::Served(served, name) => self.server_news(place, served, (news.mesh, name)),
            What::Message(_) | What::Data(..) => {}
        }
    }
}
