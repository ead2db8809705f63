//! What becomes of MCP servers with the leases of their hosts (design.md §8.7), and what others
//! are told of them.

use serde::Serialize;

use crate::chain::List;
use crate::ids::{Position, news_id};
use crate::log::{Kept, What};
use crate::marks::{Mark, mark};
use crate::peer::{Kind, MemberIx, MeshIx, PeerConn};
use crate::rows::{PeerRole, ServerRow, StoreOp};
use crate::servers::{Holder, Host, Server, Servers};
use crate::shard::{Shard, Turn};
use crate::time::Wall;

/// `eventData` of `mcp_registered`, `mcp_unregistered`, `mcp_restored`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerEvent<'a> {
    pub(crate) server_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tools: Option<Vec<&'a str>>,
    pub(crate) hosted_by: &'a str,
}

impl<'a> ServerEvent<'a> {
    /// Of a server that is there anew.
    fn registered(server_name: &'a str, server: &'a Server) -> Self {
        Self {
            server_name,
            description: Some(&server.description),
            tools: Some(server.tools.iter().map(|tool| &*tool.name).collect()),
            hosted_by: &server.hosted_by,
        }
    }

    /// Of one that was there before.
    fn of(server_name: &'a str, hosted_by: &'a str) -> Self {
        Self {
            server_name,
            description: None,
            tools: None,
            hosted_by,
        }
    }
}

impl Shard {
    /// The servers of a mesh, if it ever had any.
    pub(crate) fn servers(&self, mesh: MeshIx) -> Option<&Servers> {
        self.mesh(mesh)?.servers.as_deref()
    }

    /// See [`Self::servers`].
    pub(crate) fn servers_mut(&mut self, mesh: MeshIx) -> Option<&mut Servers> {
        self.mesh_mut(mesh)?.servers.as_deref_mut()
    }

    /// Enters a server, in the place of another of that name; gives its row, and where the mesh was
    /// told of the other. Others are to be told when the store has the row.
    pub(crate) fn enter_server(
        &mut self,
        t: &Turn<'_>,
        (mesh, name): (MeshIx, &str),
        mut server: Server,
    ) -> Option<(StoreOp, Option<Position>)> {
        server.told = (self.stamp(), t.now.wall);
        let servers = self.mesh_mut(mesh)?.servers.get_or_insert_default();
        let earlier = servers.get(name).map(|earlier| earlier.told.0);
        if earlier.is_some() {
            mark(Mark::ServerReplaced);
        }
        servers.put(name, server);
        Some((self.server_put(mesh, name)?, earlier))
    }

    /// Tells others of a server that was just entered.
    pub(crate) fn announce_server(
        &mut self,
        t: &mut Turn<'_>,
        (mesh, name): (MeshIx, &str),
        earlier: Option<Position>,
    ) {
        let Some(server) = self.servers(mesh).and_then(|servers| servers.get(name)) else {
            return;
        };
        let host = server.holder().map_or(0, |holder| holder.order);
        let (at, event) = (server.told.0, "mcp_registered");
        let data = ServerEvent::registered(name, server);
        let frame = self.server_push(t.now.wall, (mesh, event), &data, at);
        self.tell_server(t, (mesh, host), (at, frame), earlier);
    }

    /// Removes a server; others are told.
    pub(crate) fn remove_server(&mut self, t: &mut Turn<'_>, mesh: MeshIx, name: &str) {
        let removed = self.servers_mut(mesh).and_then(|s| s.remove(name));
        let (Some(server), Some(found)) = (removed, self.mesh(mesh)) else {
            return;
        };
        t.persist(StoreOp::ServerRemoved {
            mesh_id: found.id.to_string(),
            name: name.to_owned(),
        });
        let host = server.holder().map_or(0, |holder| holder.order);
        let (at, event) = (self.stamp(), "mcp_unregistered");
        let data = ServerEvent::of(name, &server.hosted_by);
        let frame = self.server_push(t.now.wall, (mesh, event), &data, at);
        self.tell_server(t, (mesh, host), (at, frame), Some(server.told.0));
        self.forget_servers(mesh);
    }

    /// A mesh without servers and calls needs no memory for them.
    pub(crate) fn forget_servers(&mut self, mesh: MeshIx) {
        if let Some(found) = self.mesh_mut(mesh) {
            found.servers.take_if(|servers| servers.is_empty());
        }
    }

    /// Tells all but the host of a server, at a place just stamped.
    fn tell_server(
        &mut self,
        t: &mut Turn<'_>,
        (mesh, host): (MeshIx, u64),
        (at, frame): (Position, bytes::Bytes),
        earlier: Option<Position>,
    ) {
        let what = What::Server {
            host,
            superseded: None,
        };
        self.publish(t, mesh, at, (what, frame));
        if let (Some(earlier), Some(found)) = (earlier, self.mesh_mut(mesh)) {
            found.log.supersede(earlier, at);
        }
    }

    fn server_push(
        &self,
        when: Wall,
        (mesh, event): (MeshIx, &str),
        data: &ServerEvent<'_>,
        at: Position,
    ) -> bytes::Bytes {
        let mesh_id = self.mesh(mesh).map(|found| &*found.id).unwrap_or_default();
        let of = format!("{mesh_id} {}", data.server_name);
        let message_id = news_id(&of, event, Some(at));
        self.system_push(when, &message_id, (mesh, event), data)
    }

    /// Writes the row of a server as it is now.
    fn server_put(&self, mesh: MeshIx, name: &str) -> Option<StoreOp> {
        let server = self.servers(mesh)?.get(name)?;
        let (holder, offline_since) = match server.host {
            Host::Present(holder) => (Some(holder), None),
            Host::Away(since) => (None, Some(since)),
        };
        let role = match server.kind {
            Kind::Launched => PeerRole::Session,
            Kind::ThrowAway | Kind::Member => PeerRole::ControlPlane,
        };
        Some(StoreOp::ServerPut(Box::new(ServerRow {
            mesh_id: self.mesh(mesh)?.id.to_string(),
            name: name.to_owned(),
            member_id: self.member(server.member)?.id.to_string(),
            role,
            session_pubkey: server.session_key,
            host: holder.map(|holder| Position(holder.order)),
            offline_since,
            hosted_by: server.hosted_by.to_string(),
            description: server.description.to_string(),
            tools: serde_json::to_string(&server.tools).unwrap_or_default(),
            persistent: server.persistent,
            told: server.told,
        })))
    }

    /// A lease ended: what it hosted waits for its return, or goes, and calls to it are answered.
    pub(crate) fn end_hosting(&mut self, t: &mut Turn<'_>, gone: &PeerConn) {
        let Some(servers) = self.servers(gone.mesh) else {
            return;
        };
        let names = servers.hosted(gone.order).to_vec();
        for name in &names {
            let persistent = self
                .servers(gone.mesh)
                .and_then(|servers| servers.get(name))
                .is_some_and(|server| server.persistent);
            if let Some(servers) = self.servers_mut(gone.mesh) {
                servers.move_to(name, Host::Away(t.now.wall), gone.name());
            }
            mark(if persistent {
                Mark::ServerAway
            } else {
                Mark::ServerEnded
            });
            if !persistent {
                self.remove_server(t, gone.mesh, name);
            } else if let Some(put) = self.server_put(gone.mesh, name) {
                t.persist(put);
            }
        }
        self.end_calls(t, gone);
    }

    /// A new lease: the servers that waited for it are there again. They wait for the same identity,
    /// or for a `hello` of their member that brings no key.
    pub(crate) fn restore_servers(&mut self, t: &mut Turn<'_>, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, order) = (peer.mesh, peer.order);
        let waits = |server: &Server| {
            let same = peer.kind == server.kind && peer.session_key == server.session_key;
            server.holder().is_none()
                && server.member == peer.member
                && (peer.kind == Kind::Member || same)
        };
        let servers = self.servers(mesh).into_iter().flat_map(Servers::iter);
        let names: Vec<Box<str>> = servers
            .filter(|(_, server)| waits(server))
            .map(|(name, _)| name.into())
            .take(crate::limits::SERVERS_PER_SESSION_MAX)
            .collect();
        if names.is_empty() {
            return;
        }
        // Whoever hears of it must have heard of its host first.
        self.announce_joined(t, slot);
        for name in &names {
            mark(Mark::ServerRestored);
            self.restore_server(t, (mesh, name), Holder { slot, order });
        }
    }

    fn restore_server(&mut self, t: &mut Turn<'_>, (mesh, name): (MeshIx, &str), holder: Holder) {
        let Some(peer) = self.peers.get_slot(holder.slot) else {
            return;
        };
        let hosted_by: Box<str> = peer.name().into();
        let (kind, session_key) = (peer.kind, peer.session_key);
        let at = self.stamp();
        let Some(servers) = self.servers_mut(mesh) else {
            return;
        };
        servers.move_to(name, Host::Present(holder), &hosted_by);
        let Some(server) = servers.get_mut(name) else {
            return;
        };
        (server.kind, server.session_key) = (kind, session_key);
        let (earlier, _) = std::mem::replace(&mut server.told, (at, t.now.wall));
        if let Some(put) = self.server_put(mesh, name) {
            t.persist(put);
        }
        let data = ServerEvent::of(name, &hosted_by);
        let frame = self.server_push(t.now.wall, (mesh, "mcp_restored"), &data, at);
        // Its host is told, too: it has not asked for it.
        self.tell_server(t, (mesh, 0), (at, frame), Some(earlier));
    }

    /// A server found at boot: its host is in grace, or its lease has ended.
    pub(crate) fn server_found(&mut self, t: &mut Turn<'_>, row: ServerRow) {
        let mesh = self.mesh_ids.get(row.mesh_id.as_str()).copied();
        let member = self.member_ids.get(row.member_id.as_str()).copied();
        let (Some(mesh), Some(member)) = (mesh, member) else {
            return;
        };
        let (name, told) = (row.name.clone(), row.told);
        let Some((server, ended)) = self.server_of_row(t, member, row) else {
            if let Some(found) = self.mesh(mesh) {
                let mesh_id = found.id.to_string();
                t.persist(StoreOp::ServerRemoved { mesh_id, name });
            }
            return;
        };
        let holder = server.holder();
        if let Some(found) = self.mesh_mut(mesh) {
            found.servers.get_or_insert_default().put(&name, server);
        }
        if ended && let Some(put) = self.server_put(mesh, &name) {
            t.persist(put);
        }
        if let Some(holder) = holder {
            mark(Mark::ServerFound);
            self.recall_server(t, (mesh, &name), holder, told);
        }
    }

    /// What a row says; None if it ended with the lease of its host. Also whether that lease has
    /// ended and the row does not know.
    fn server_of_row(
        &self,
        t: &Turn<'_>,
        member: MemberIx,
        row: ServerRow,
    ) -> Option<(Server, bool)> {
        let sessions = self.member(member)?.sessions;
        let order = row.host.map(|began| began.0);
        let slot = sessions.iter(&self.peers, List::Member).find(|slot| {
            let peer = self.peers.get_slot(*slot);
            peer.is_some_and(|peer| Some(peer.order) == order)
        });
        let host = match (slot, order) {
            (Some(slot), Some(order)) => Host::Present(Holder { slot, order }),
            (None, _) | (_, None) if row.persistent => {
                Host::Away(row.offline_since.unwrap_or(t.now.wall))
            }
            (None, _) | (_, None) => return None,
        };
        let ended = matches!(host, Host::Away(_)) && order.is_some();
        let server = Server {
            member,
            kind: Kind::of(row.role, row.session_pubkey.is_some()),
            session_key: row.session_pubkey,
            host,
            hosted_by: row.hosted_by.into(),
            description: row.description.into(),
            tools: serde_json::from_str(&row.tools).unwrap_or_default(),
            persistent: row.persistent,
            told: row.told,
        };
        Some((server, ended))
    }

    /// Puts what others were told of a server back into the log.
    fn recall_server(
        &mut self,
        t: &Turn<'_>,
        (mesh, name): (MeshIx, &str),
        holder: Holder,
        (at, then): (Position, Wall),
    ) {
        let Some(server) = self.servers(mesh).and_then(|servers| servers.get(name)) else {
            return;
        };
        let data = ServerEvent::registered(name, server);
        let frame = self.server_push(then, (mesh, "mcp_registered"), &data, at);
        let what = What::Server {
            host: holder.order,
            superseded: None,
        };
        self.recall(t.now, mesh, (then, at), Kept::said(what, frame));
    }
}
