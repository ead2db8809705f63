//! MCP servers: there as long as the lease that hosts them, persistent ones until their host is
//! back, and everybody is told who is to know.

use std::collections::BTreeMap;

use holdfast_core::effect::Effect;
use holdfast_core::ids::{Position, PubKey};
use holdfast_core::marks::Inspect;
use holdfast_core::rows::{PeerRole, ServerRow, StoreOp};
use serde_json::Value;

use super::ledger::{News, What};
use super::model::Lease;
use super::publish::Claim;
use super::{Cause, ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::disk::Tables;
use crate::said::{Expect, McpAsked, Said};
use crate::town::{Kind, SERVERS};

/// What a mesh is told of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Registered,
    Unregistered,
    Restored,
}

/// One server.
#[derive(Clone, Debug)]
struct Server {
    member: usize,
    kind: Kind,
    key: Option<PubKey>,
    /// The session that hosts it; none while it waits for one.
    host: Option<String>,
    persistent: bool,
    /// Its host was told that it is registered.
    answered: bool,
}

/// See the module. Servers go by mesh and the place of their name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    all: BTreeMap<(usize, usize), Server>,
    /// Where the mesh was told of each last.
    last: BTreeMap<(usize, usize), usize>,
    /// What was told at which place of the broker's order, as rows have it.
    told: BTreeMap<Position, usize>,
    /// Presences by where they began, as rows name them.
    began: BTreeMap<Position, String>,
    /// Of this step: what is said of servers, whose host must have gone, and whose is back.
    claims: Vec<Claim>,
    deserted: Vec<String>,
    restored: Vec<(usize, usize)>,
}

impl Servers {
    /// A piece of news stands there.
    pub(crate) fn told(&mut self, at: Option<Position>, place: usize) {
        self.told.extend(at.map(|at| (at, place)));
    }

    /// The session that hosts a server.
    pub(crate) fn host(&self, mesh: usize, name: usize) -> Option<Option<&String>> {
        let server = self.all.get(&(mesh, name))?;
        Some(server.host.as_ref())
    }
}

impl Server {
    fn of_row(row: &ServerRow, member: usize, host: Option<String>) -> Self {
        let kind = match (row.role, row.session_pubkey) {
            (PeerRole::Session, _) => Kind::Launched,
            (PeerRole::ControlPlane, Some(_)) => Kind::ThrowAway,
            (PeerRole::ControlPlane, None) => Kind::Member,
        };
        Self {
            member,
            kind,
            key: row.session_pubkey,
            host,
            persistent: row.persistent,
            answered: false,
        }
    }

    /// Whether it waits for a session.
    fn waits_for(&self, lease: &Lease) -> bool {
        let same = (lease.kind(), lease.key) == (self.kind, self.key);
        self.host.is_none()
            && self.member == lease.who.member
            && (same || lease.kind() == Kind::Member)
    }
}

impl Oracle {
    /// The rows of this step that tell of servers, in order, and what is said of them.
    pub(crate) fn served(&mut self, step: &Step<'_>) -> Verdict {
        self.servers.claims.clear();
        self.servers.deserted.clear();
        self.servers.restored.clear();
        for effect in step.effects {
            let Effect::Persist { op, .. } = effect else {
                continue;
            };
            match op {
                StoreOp::PresencePut(row) => {
                    self.servers.began.insert(row.began, row.id.clone());
                }
                StoreOp::ServerPut(row) => self.server_put(step, row)?,
                StoreOp::ServerRemoved { mesh_id, name } => {
                    self.server_removed(step, (mesh_id, name))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is said of the server of that row.
    pub(crate) fn server_claim(&self, mesh_id: &str, name: &str) -> Option<Claim> {
        let at = self.server_at(mesh_id, name)?;
        let mut claims = self.servers.claims.iter();
        let of = |claim: &&Claim| matches!(claim, Claim::Served(_, of, ..) if *of == at);
        claims.find(of).cloned()
    }

    fn server_at(&self, mesh_id: &str, name: &str) -> Option<(usize, usize)> {
        let mut meshes = self.plan.town.meshes.iter();
        let mesh = meshes.position(|mesh| mesh.id == mesh_id)?;
        let name = SERVERS.iter().position(|known| *known == name)?;
        Some((mesh, name))
    }

    fn server_put(&mut self, step: &Step<'_>, row: &ServerRow) -> Verdict {
        let Some(at) = self.server_at(&row.mesh_id, &row.name) else {
            return Err(Violation::new("I10", format!("{row:?} is of no mesh")));
        };
        if let Cause::Boot(_) = step.cause {
            return Ok(());
        }
        let members = &self.plan.town.members;
        let member = members.iter().position(|of| of.id == row.member_id);
        let host = row
            .host
            .map(|began| self.servers.began.get(&began).cloned());
        let asked = matches!(step.cause, Cause::Frame(frame)
            if matches!(frame.said, Said::Mcp(McpAsked::Register(name, _), _) if name == at.1));
        match (host, asked) {
            (Some(host), true) => {
                ensure!(
                    host.is_some() && host == self.scratch.speaker,
                    "I7",
                    "{:?} registers what {host:?} hosts",
                    self.scratch.speaker
                );
                let of = host.clone().unwrap_or_default();
                let server = Server::of_row(row, member.unwrap_or_default(), host);
                self.servers.all.insert(at, server);
                let claim = Claim::Served(Served::Registered, at, of, Some(row.told.0));
                self.servers.claims.push(claim);
            }
            (Some(Some(host)), false) => {
                let before = self.servers.all.get(&at);
                let waited = before.is_some_and(|server| server.host.is_none());
                ensure!(waited, "I2", "{at:?} is back, and had not gone: {before:?}");
                // Whoever hears of it must have heard of its host first.
                self.scratch.authors.push(host.clone());
                let server = Server {
                    answered: before.is_some_and(|server| server.answered),
                    ..Server::of_row(row, member.unwrap_or_default(), Some(host))
                };
                self.servers.all.insert(at, server);
                self.servers.restored.push(at);
                let claim = Claim::Served(Served::Restored, at, String::new(), Some(row.told.0));
                self.servers.claims.push(claim);
            }
            (Some(None), false) => {
                return Err(Violation::new("I10", format!("{row:?} is of nobody")));
            }
            (None, _) => {
                let server = self.servers.all.get_mut(&at);
                let host = server.and_then(|server| server.host.take());
                let (Some(host), true) = (host, row.persistent) else {
                    return Err(Violation::new("I10", format!("{row:?} waits for nobody")));
                };
                self.servers.deserted.push(host);
            }
        }
        Ok(())
    }

    fn server_removed(&mut self, step: &Step<'_>, (mesh_id, name): (&str, &str)) -> Verdict {
        let Some(at) = self.server_at(mesh_id, name) else {
            return Err(Violation::new(
                "I10",
                format!("{name} of {mesh_id} is removed"),
            ));
        };
        if let Cause::Boot(_) = step.cause {
            return Ok(());
        }
        let Some(server) = self.servers.all.remove(&at) else {
            let text = format!("{at:?} is removed and not there");
            return Err(Violation::new("I10", text));
        };
        let asked = matches!(step.cause, Cause::Frame(frame)
            if matches!(frame.said, Said::Mcp(McpAsked::Unregister(name), _) if name == at.1));
        let mut of = server.host.clone().unwrap_or_default();
        if asked {
            let speaker = self.scratch.speaker.as_ref();
            let lease = speaker.and_then(|id| self.leases.get(id));
            let own = match &server.host {
                Some(host) => Some(host) == speaker,
                None => lease.is_some_and(|lease| lease.who.member == server.member),
            };
            ensure!(own, "I7", "{speaker:?} removes {at:?} of {server:?}");
        } else {
            ensure!(
                !server.persistent && server.host.is_some(),
                "I3",
                "{at:?} is persistent, and is removed: {server:?}"
            );
            self.servers.deserted.push(std::mem::take(&mut of));
        }
        let claim = Claim::Served(Served::Unregistered, at, of, None);
        self.servers.claims.push(claim);
        Ok(())
    }

    /// The answer to a request about servers.
    pub(crate) fn mcp_expected(
        &self,
        (id, lease): (&String, &Lease),
        asked: &McpAsked,
        req: &str,
    ) -> Expect {
        let req = req.to_owned();
        let found = |name: usize| self.servers.all.get(&(lease.mesh, name));
        match asked {
            McpAsked::Register(name, _) => {
                let other = found(*name).filter(|server| server.member != lease.who.member);
                match other.filter(|server| !self.members[server.member].revoked) {
                    Some(_) => Expect::Refused("forbidden", req),
                    None => Expect::Registered(*name, req),
                }
            }
            McpAsked::Unregister(name) => match found(*name) {
                None => Expect::Refused("not_found", req),
                Some(server) => match &server.host {
                    Some(host) if host == id => Expect::Nothing,
                    None if server.member == lease.who.member => Expect::Nothing,
                    Some(_) | None => Expect::Refused("forbidden", req),
                },
            },
            McpAsked::List => {
                let mut all: Vec<(&str, bool)> = self
                    .servers
                    .all
                    .iter()
                    .filter(|((mesh, _), _)| *mesh == lease.mesh)
                    .map(|((_, name), server)| (SERVERS[*name], server.host.is_some()))
                    .collect();
                all.sort_unstable();
                Expect::Servers(all, req)
            }
            // Its result comes when it comes.
            McpAsked::Call(..) => Expect::Nothing,
            McpAsked::Respond(call, _) => self.respond_expected((id, lease), call, req),
        }
    }

    /// `mcp_register` was answered.
    pub(crate) fn registered(
        &mut self,
        step: &Step<'_>,
        at: ConnKey,
        (name, frame): (usize, &Value),
    ) -> Verdict {
        if frame["type"] == "error" {
            ensure!(
                frame["code"] == "storage" && self.store_refused,
                "I4",
                "a server was refused for no reason: {frame}"
            );
            return Ok(());
        }
        let Some((id, lease)) = self.attached(at) else {
            return Ok(());
        };
        let (id, mesh) = (id.clone(), lease.mesh);
        let mesh_id = self.plan.town.meshes[mesh].id.clone();
        let row = step
            .tables
            .servers
            .get(&(mesh_id, SERVERS[name].to_owned()));
        let server = self.servers.all.get_mut(&(mesh, name));
        // Unless somebody took it away while the answer waited.
        if let Some(server) = server.filter(|server| server.host == Some(id)) {
            ensure!(
                row.is_some(),
                "I4",
                "{} was registered before it was on disk",
                SERVERS[name]
            );
            server.answered = true;
        }
        Ok(())
    }

    /// Somebody is told of a server.
    pub(crate) fn server_told(
        &mut self,
        at: ConnKey,
        served: Served,
        (frame, bytes): (&Value, usize),
    ) -> Verdict {
        let name = frame["eventData"]["serverName"]
            .as_str()
            .unwrap_or_default();
        let known = SERVERS.iter().position(|known| *known == name);
        let fits = |_: &Self, news: &News| matches!(news.what, What::Served(of, server) if of == served && Some(server) == known);
        let id = frame["messageId"].as_str().unwrap_or_default();
        self.news_written(at, (id, bytes), &fits, &format!("{served:?} of {name}"))
    }

    /// A piece of news of a server takes back the one before. Another of that name is another.
    pub(crate) fn server_news(&mut self, place: usize, served: Served, at: (usize, usize)) {
        if let Some(earlier) = self.servers.last.insert(at, place) {
            self.news[earlier].over = true;
        }
        if served == Served::Unregistered {
            self.servers.last.remove(&at);
        }
    }

    /// After the effects: servers are there with their hosts, or wait for them.
    pub(crate) fn servers_settled(&self) -> Verdict {
        if self.booting || self.stopping {
            return Ok(());
        }
        for id in &self.servers.deserted {
            ensure!(
                !self.leases.contains_key(id),
                "I3",
                "a server of {id} has gone, its lease has not ended"
            );
        }
        for (at, server) in &self.servers.all {
            let lease = server.host.as_ref().and_then(|id| self.leases.get(id));
            ensure!(
                server.host.is_none() || lease.is_some(),
                "I3",
                "{at:?} is hosted by {:?}, whose lease has ended",
                server.host
            );
            if self.servers.restored.contains(at) {
                let own = lease.is_some_and(|lease| {
                    let away = Server {
                        host: None,
                        ..server.clone()
                    };
                    away.waits_for(lease)
                });
                ensure!(own, "I7", "{at:?} waited for {server:?}, not {lease:?}");
            }
        }
        for id in &self.scratch.began {
            let Some(lease) = self.leases.get(id) else {
                continue;
            };
            let mut own = self.servers.all.iter().filter(|(at, _)| at.0 == lease.mesh);
            let left = own.find(|(_, server)| server.waits_for(lease));
            ensure!(
                left.is_none(),
                "I2",
                "{id} is there, and {left:?} waits for it"
            );
        }
        Ok(())
    }

    /// A process begins: rows tell where presences began, and which news may come again.
    pub(crate) fn servers_again(&mut self, tables: &Tables) {
        let open = tables.presences.iter().filter(|(_, of)| of.ended.is_none());
        self.servers.began = open.map(|(id, of)| (of.row.began, id.clone())).collect();
        for news in &mut self.news {
            if let What::Served(..) = news.what {
                news.over = true;
            }
        }
        self.servers.last.clear();
        for row in tables.servers.values().filter(|row| row.host.is_some()) {
            let place = self.servers.told.get(&row.told.0).copied();
            let at = self.server_at(&row.mesh_id, &row.name);
            let (Some(place), Some(at)) = (place, at) else {
                continue;
            };
            // Whatever it was, it is told as a server that is there.
            let again = What::Served(Served::Registered, at.1);
            if self.news[place].what != again {
                self.news[place].what = again;
                if let Some(id) = self.news[place].id.take() {
                    self.news_ids.remove(&id);
                }
            }
            self.news[place].over = false;
            self.servers.last.insert(at, place);
        }
    }

    /// The row of a server.
    pub(crate) fn server_row<'a>(
        &self,
        tables: &'a Tables,
        (mesh, name): (usize, usize),
    ) -> Option<&'a ServerRow> {
        let mesh = self.plan.town.meshes[mesh].id.clone();
        tables.servers.get(&(mesh, SERVERS[name].to_owned()))
    }

    /// The boot is over: servers are those on disk, with hosts that were restored.
    pub(crate) fn servers_restored(&mut self, tables: &Tables) -> Verdict {
        let before = std::mem::take(&mut self.servers.all);
        for row in tables.servers.values() {
            let Some(at) = self.server_at(&row.mesh_id, &row.name) else {
                continue;
            };
            let members = &self.plan.town.members;
            let member = members.iter().position(|of| of.id == row.member_id);
            let host = row.host.and_then(|began| self.servers.began.get(&began));
            let host = host.filter(|id| self.leases.contains_key(*id)).cloned();
            if host.is_some() || row.persistent {
                let server = Server {
                    answered: true,
                    ..Server::of_row(row, member.unwrap_or_default(), host)
                };
                self.servers.all.insert(at, server);
            }
        }
        for (at, server) in before.iter().filter(|(_, server)| server.answered) {
            let host = server.host.as_ref();
            let stays = server.persistent || host.is_some_and(|id| self.leases.contains_key(id));
            ensure!(
                !stays || self.servers.all.contains_key(at),
                "I4",
                "{at:?} was registered, and is not on disk"
            );
        }
        Ok(())
    }

    /// Sizes are what is there (I9).
    pub(crate) fn servers_inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        let meshes = &self.plan.town.meshes;
        let here = |at: &(usize, usize)| meshes[at.0].home == shard;
        let all = self.servers.all.iter().filter(|(at, _)| here(at));
        let hosted = all.clone().filter(|(_, server)| server.host.is_some());
        let (all, hosted) = (all.count(), hosted.count());
        ensure!(
            (inspect.servers, inspect.hosted) == (all, hosted),
            "I9",
            "{inspect:?}, {all} servers, {hosted} of them hosted"
        );
        Ok(())
    }

    /// At rest the rows are the model.
    pub(crate) fn server_rows_agree(&self, tables: &Tables) -> Verdict {
        let row = |row: &ServerRow| {
            let host = row.host.and_then(|began| self.servers.began.get(&began));
            let at = self.server_at(&row.mesh_id, &row.name);
            (at, host.cloned(), row.persistent)
        };
        let mut rows: Vec<_> = tables.servers.values().map(row).collect();
        rows.sort_unstable();
        let all = self.servers.all.iter();
        let all: Vec<_> = all
            .map(|(at, server)| (Some(*at), server.host.clone(), server.persistent))
            .collect();
        ensure!(rows == all, "I10", "servers are {all:?}, on disk {rows:?}");
        Ok(())
    }
}

/// The listed servers are those of the mesh, by name.
pub(crate) fn servers_listed(all: &[(&str, bool)], frame: &Value) -> Verdict {
    let listed = frame["servers"].as_array().into_iter().flatten();
    let listed = listed.map(|of| {
        let name = of["name"].as_str().unwrap_or_default();
        (name, of["online"].as_bool().unwrap_or_default())
    });
    let listed: Vec<(&str, bool)> = listed.collect();
    ensure!(
        listed == all,
        "I9",
        "the servers {all:?} are listed as {listed:?}"
    );
    Ok(())
}
