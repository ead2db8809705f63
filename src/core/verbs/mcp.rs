//! The MCP registry: `mcp_register`, `mcp_unregister`, `mcp_list`, `mcp_catalog` (protocol.md §14).
//! A name belongs to the member whose session has registered it, for as long as it is registered.

use serde::Serialize;

use crate::limits::{
    NAME_BYTES_MAX, SERVER_BYTES_MAX, SERVERS_BYTES_MAX, SERVERS_PER_MESH_MAX,
    SERVERS_PER_SESSION_MAX, TOOLS_MAX,
};
use crate::peer::PeerConn;
use crate::servers::{Holder, Host, Server, Tool};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::verbs::records::Listed;
use crate::wire::FieldError;

/// Why a server is not registered: an error's code, and what it says.
struct Refused(&'static str, String);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    hosted_by: &'a str,
    tools: &'a [Tool],
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline_since: Option<Wall>,
}

impl Shard {
    /// One of the requests of protocol.md §14, or for the catalogue.
    pub(crate) fn mcp_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Result<(), FieldError> {
        match kind {
            "mcp_register" => self.mcp_register(t, request)?,
            "mcp_unregister" => self.mcp_unregister(t, request)?,
            "mcp_call" => self.mcp_call(t, request)?,
            "mcp_call_response" => self.mcp_call_response(t, request)?,
            "mcp_list" => self.mcp_list(t, request),
            _ => self.mcp_catalog(t, request),
        }
        Ok(())
    }

    fn mcp_register(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Ack<'a> {
            server_name: &'a str,
            tool_count: usize,
        }

        let name = server_name(request)?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let mesh = peer.mesh;
        let server = asked(request, peer)?;
        if let Err(Refused(code, message)) = self.may_register(peer, &name, &server) {
            self.error(t, request, code, &message);
            return Ok(());
        }
        let body = Ack {
            server_name: &name,
            tool_count: server.tools.len(),
        };
        // Whoever hears of it must have heard of its host first.
        self.announce_joined(t, request.slot);
        if let Some((put, earlier)) = self.enter_server(t, (mesh, &name), server) {
            self.answer_when_stored(t, request, put, "mcp_register_ack", body);
            self.announce_server(t, (mesh, &name), earlier);
        }
        Ok(())
    }

    fn may_register(&self, peer: &PeerConn, name: &str, server: &Server) -> Result<(), Refused> {
        let limit = |message: String| Err(Refused("limit", message));
        if server.tools.len() > TOOLS_MAX {
            return limit(format!("too many tools: at most {TOOLS_MAX}"));
        }
        let bytes = server.bytes(name);
        if bytes > SERVER_BYTES_MAX {
            return limit(format!(
                "names and descriptions too long: at most {SERVER_BYTES_MAX} bytes"
            ));
        }
        let Some(servers) = self.servers(peer.mesh) else {
            return Ok(());
        };
        let earlier = servers.get(name);
        if let Some(held) = earlier.filter(|held| held.member != peer.member) {
            let owner = self.member(held.member);
            if owner.is_some_and(|owner| owner.revoked_at.is_none()) {
                let message = format!("MCP server \"{name}\" belongs to {}", held.hosted_by);
                return Err(Refused("forbidden", message));
            }
        }
        let own = servers.hosted(peer.order);
        if own.len() >= SERVERS_PER_SESSION_MAX && !own.iter().any(|other| **other == *name) {
            let most = SERVERS_PER_SESSION_MAX;
            return limit(format!("too many MCP servers: at most {most} per session"));
        }
        if servers.len() >= SERVERS_PER_MESH_MAX && earlier.is_none() {
            let most = SERVERS_PER_MESH_MAX;
            return limit(format!("too many MCP servers: at most {most} per mesh"));
        }
        let freed = earlier.map_or(0, |earlier| earlier.bytes(name));
        if servers.bytes() - freed + bytes > SERVERS_BYTES_MAX {
            let most = SERVERS_BYTES_MAX;
            return limit(format!(
                "MCP servers say too much: at most {most} bytes per mesh"
            ));
        }
        Ok(())
    }

    /// No answer if it is done. Of one that waits for its host, its member may dispose.
    fn mcp_unregister(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = server_name(request)?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let mesh = peer.mesh;
        let server = self.servers(mesh).and_then(|servers| servers.get(&name));
        let own = server.map(|server| match server.host {
            Host::Present(holder) => holder.order == peer.order,
            Host::Away(_) => server.member == peer.member,
        });
        match own {
            Some(true) => self.remove_server(t, mesh, &name),
            Some(false) => {
                let message = "only the host of an MCP server may unregister it";
                self.error(t, request, "forbidden", message);
            }
            None => {
                let message = format!("MCP server \"{name}\" not found in mesh");
                self.error(t, request, "not_found", &message);
            }
        }
        Ok(())
    }

    /// The servers of the mesh, by name.
    fn mcp_list(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(mesh) = self.peers.get_slot(request.slot).map(|peer| peer.mesh) else {
            return;
        };
        let servers = self.servers(mesh).into_iter().flat_map(|all| all.iter());
        let servers = servers.map(|(name, server)| self.entry(name, server));
        let listed = Listed::new("servers", servers);
        self.answer(t, request, "mcp_list_result", listed);
    }

    fn entry<'a>(&'a self, name: &'a str, server: &'a Server) -> Entry<'a> {
        let host = server.holder();
        let peer = host.and_then(|holder| self.peers.get_slot(holder.slot));
        let offline_since = match server.host {
            Host::Present(_) => None,
            Host::Away(since) => Some(since),
        };
        Entry {
            name,
            description: &server.description,
            hosted_by: peer.map_or(&*server.hosted_by, PeerConn::name),
            tools: &server.tools,
            online: host.is_some(),
            offline_since,
        }
    }

    /// Managed services: there are none.
    fn mcp_catalog(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        #[derive(Serialize)]
        struct Catalog {
            services: [(); 0],
        }

        self.answer(t, request, "mcp_catalog_result", Catalog { services: [] });
    }
}

/// The name of a server, which is not empty.
pub(super) fn server_name<'a>(
    request: &Request<'a>,
) -> Result<std::borrow::Cow<'a, str>, FieldError> {
    let name = request.fields.str("serverName", NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(FieldError::new("serverName", "not empty"));
    }
    Ok(name)
}

/// Reads what a session wants to host.
fn asked(request: &Request<'_>, peer: &PeerConn) -> Result<Server, FieldError> {
    let fields = request.fields;
    let expected = "a list of tools, each an object with a name";
    let tools: Option<Vec<Tool>> = fields.json("tools", expected)?;
    Ok(Server {
        member: peer.member,
        kind: peer.kind,
        session_key: peer.session_key,
        host: Host::Present(Holder {
            slot: request.slot,
            order: peer.order,
        }),
        hosted_by: peer.name().into(),
        description: fields.str("description", usize::MAX)?.into(),
        tools: tools.ok_or_else(|| FieldError::new("tools", expected))?,
        persistent: fields
            .json("persistent", "true or false")?
            .unwrap_or_default(),
        told: Default::default(),
    })
}
