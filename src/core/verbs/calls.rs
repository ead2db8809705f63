//! `mcp_call` and `mcp_call_response` (protocol.md §14): a call goes to the session that hosts the
//! server, and is answered within half a minute, by it or by the broker.
//!
//! Calls are of leases, not of sockets: one to a host in grace is written when it returns, and one
//! that its dead socket may have swallowed is written again, under the same id. The answer to a
//! caller in grace waits for it, too.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::Position;
use crate::limits::{
    CALL_BYTES_MAX, CALL_PATIENCE, CALL_RESULT_BYTES_MAX, CALLS_PER_MESH_MAX,
    CALLS_PER_SESSION_MAX, CALLS_TO_HOST_BYTES_MAX, NAME_BYTES_MAX, RESULTS_KEPT_BYTES_MAX,
};
use crate::marks::{Mark, mark};
use crate::peer::{MeshIx, PeerConn};
use crate::servers::{Call, Holder, Host, Servers};
use crate::shard::{Shard, Timer, Turn};
use crate::time::{Millis, Wall};
use crate::verbs::Request;
use crate::verbs::mcp::server_name;
use crate::wire::{FieldError, frames};

#[derive(Serialize)]
#[serde(tag = "type", rename = "mcp_call_forward", rename_all = "camelCase")]
struct Forward<'a> {
    call_id: &'a str,
    server_name: &'a str,
    tool_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a RawValue>,
    caller_name: &'a str,
}

#[derive(Serialize)]
struct CallResult<R: Serialize, E: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<E>,
}

/// The answer that there is no result.
fn failed(error: &str, req_id: Option<&str>) -> Bytes {
    let body = CallResult::<(), _> {
        result: None,
        error: Some(error),
    };
    let kind = "mcp_call_result";
    frames::encode(&frames::Reply { kind, body, req_id })
}

impl Shard {
    pub(crate) fn mcp_call(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = server_name(request)?;
        let tool = request.fields.str("toolName", NAME_BYTES_MAX)?;
        let args = request.fields.readable("args")?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let mesh = peer.mesh;
        let caller = Holder {
            slot: request.slot,
            order: peer.order,
        };
        let host = match self.host_of(t.now.wall, mesh, &name) {
            Ok(host) => host,
            Err(error) => {
                let frame = failed(&error, request.req_id.as_deref());
                self.reply(t, request.slot, frame);
                return Ok(());
            }
        };
        let id = self.mint.uuid_v4();
        let forward = self.forward(request.slot, (&id, &name, &tool), args);
        if let Err(message) = self.may_call(mesh, (caller, host), args, &forward) {
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let due = t.now.mono.after(CALL_PATIENCE);
        let Some(servers) = self.servers_mut(mesh) else {
            return Ok(());
        };
        let number = servers.next_call();
        let timer = self.wheel.insert(due, Timer::Call(mesh, number));
        let call = Call {
            id: id.into(),
            caller,
            req_id: request.req_id.as_deref().map(Into::into),
            host,
            server: (&*name).into(),
            forward,
            written: None,
            answer: None,
            timer,
        };
        if let Some(servers) = self.servers_mut(mesh) {
            servers.begin_call(number, call);
        }
        self.write_call(t, mesh, number);
        Ok(())
    }

    /// Who answers for a server; if nobody does, what the caller is told.
    fn host_of(&self, now: Wall, mesh: MeshIx, name: &str) -> Result<Holder, String> {
        let server = self.servers(mesh).and_then(|servers| servers.get(name));
        let server = server.ok_or_else(|| format!("MCP server \"{name}\" not found in mesh"))?;
        match server.host {
            Host::Present(holder) => Ok(holder),
            Host::Away(since) => Err(format!(
                "Server '{name}' is offline \u{2014} hosted by {} who disconnected {} ago. It will \
                 restore when they reconnect.",
                server.hosted_by,
                ago(now.since(since))
            )),
        }
    }

    fn forward(
        &self,
        caller: u32,
        (call_id, server_name, tool_name): (&str, &str, &str),
        args: Option<&RawValue>,
    ) -> Bytes {
        frames::encode(&Forward {
            call_id,
            server_name,
            tool_name,
            args,
            caller_name: self.peers.get_slot(caller).map_or("", PeerConn::name),
        })
    }

    /// Whether there is room for one more call; if not, why.
    fn may_call(
        &self,
        mesh: MeshIx,
        (caller, host): (Holder, Holder),
        args: Option<&RawValue>,
        forward: &Bytes,
    ) -> Result<(), String> {
        if args.is_some_and(|args| args.get().len() > CALL_BYTES_MAX) {
            return Err(format!("args too large: at most {CALL_BYTES_MAX} bytes"));
        }
        let calls = || self.servers(mesh).into_iter().flat_map(Servers::calls);
        if calls().count() >= CALLS_PER_MESH_MAX {
            let most = CALLS_PER_MESH_MAX;
            return Err(format!(
                "too many calls without an answer: at most {most} per mesh"
            ));
        }
        let own = calls().filter(|(_, call)| call.caller == caller);
        if own.count() >= CALLS_PER_SESSION_MAX {
            let most = CALLS_PER_SESSION_MAX;
            return Err(format!(
                "too many calls without an answer: at most {most} per session"
            ));
        }
        let same_host = calls().filter(|(_, call)| call.host == host);
        let bytes: usize = same_host.map(|(_, call)| call.forward.len()).sum();
        if bytes + forward.len() > CALLS_TO_HOST_BYTES_MAX {
            let most = CALLS_TO_HOST_BYTES_MAX;
            return Err(format!(
                "calls without an answer by their host: at most {most} bytes"
            ));
        }
        Ok(())
    }

    /// Writes a call to its host, if that is online.
    fn write_call(&mut self, t: &mut Turn<'_>, mesh: MeshIx, number: u32) {
        let call = self.servers(mesh).and_then(|servers| servers.call(number));
        let Some(call) = call.filter(|call| call.answer.is_none()) else {
            return;
        };
        let host = self.lease(call.host);
        let Some((host, conn)) = host.and_then(|host| Some((host, host.conn()?))) else {
            mark(Mark::CallWaits);
            return;
        };
        t.send(conn, call.forward.clone());
        // A walk that has nothing to write ends without a proof that its socket is read.
        let walks = host.walk().is_some();
        let written = Some(self.stamp()).filter(|_| !walks);
        let call = self.servers_mut(mesh).and_then(|s| s.call_mut(number));
        if let Some(call) = call {
            call.written = written;
        }
    }

    /// The session of a lease that has not ended.
    fn lease(&self, holder: Holder) -> Option<&PeerConn> {
        let peer = self.peers.get_slot(holder.slot);
        peer.filter(|peer| peer.order == holder.order)
    }

    pub(crate) fn mcp_call_response(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let id = request.fields.str("callId", NAME_BYTES_MAX)?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let (mesh, order) = (peer.mesh, peer.order);
        let found = self
            .servers(mesh)
            .and_then(|servers| servers.find_call(&id));
        let Some((number, call)) = found else {
            let message = "no call of that id waits for an answer";
            self.error(t, request, "not_found", message);
            return Ok(());
        };
        if call.host.order != order {
            let message = "only the host that was called may answer";
            self.error(t, request, "forbidden", message);
            return Ok(());
        }
        let size = |text: Option<&RawValue>| text.map_or(0, |text| text.get().len());
        let req_id = call.req_id.as_deref();
        let given = |field| request.fields.readable(field);
        let (result, error) = match (given("result"), given("error")) {
            (Ok(result), Ok(error)) => (result, error),
            (Err(unfit), _) | (_, Err(unfit)) => {
                let frame = failed(&format!("the host's answer is no good: {unfit}"), req_id);
                self.answer_call(t, mesh, number, frame);
                return Err(unfit);
            }
        };
        // A tool that gives null has given something.
        let result = result.or_else(|| request.fields.raw("result").filter(|_| error.is_none()));
        if size(result).max(size(error)) > CALL_RESULT_BYTES_MAX {
            let message = format!("result too large: at most {CALL_RESULT_BYTES_MAX} bytes");
            let frame = failed(&message, req_id);
            self.answer_call(t, mesh, number, frame);
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let body = CallResult { result, error };
        let kind = "mcp_call_result";
        let frame = frames::encode(&frames::Reply { kind, body, req_id });
        self.answer_call(t, mesh, number, frame);
        Ok(())
    }

    /// The answer to a call came: to the caller, or kept until it comes back or the time is up.
    fn answer_call(&mut self, t: &mut Turn<'_>, mesh: MeshIx, number: u32, frame: Bytes) {
        let call = self.servers(mesh).and_then(|servers| servers.call(number));
        let Some(caller) = call.map(|call| call.caller) else {
            return;
        };
        let away = self.lease(caller).is_some_and(|peer| peer.conn().is_none());
        if away {
            return self.keep_answer(mesh, (number, caller), frame);
        }
        self.forget_call(mesh, number);
        if self.lease(caller).is_some() {
            self.reply(t, caller.slot, frame);
        }
    }

    /// The caller is away: the answer waits for it, if there is room.
    fn keep_answer(&mut self, mesh: MeshIx, (number, caller): (u32, Holder), frame: Bytes) {
        let calls = self.servers(mesh).into_iter().flat_map(Servers::calls);
        let own = calls.filter(|(_, call)| call.caller == caller);
        let kept = own.filter_map(|(_, call)| call.answer.as_ref());
        let fits = kept.map(Bytes::len).sum::<usize>() + frame.len() <= RESULTS_KEPT_BYTES_MAX;
        let call = self.servers_mut(mesh).and_then(|s| s.call_mut(number));
        let Some(call) = call else { return };
        mark(Mark::ResultKept);
        call.answer = Some(if fits {
            frame
        } else {
            let error = "the result came while you were away, and was too large to be kept";
            failed(error, call.req_id.as_deref())
        });
    }

    fn forget_call(&mut self, mesh: MeshIx, number: u32) {
        let call = self.servers_mut(mesh).and_then(|s| s.end_call(number));
        if let Some(call) = call {
            self.wheel.cancel(call.timer);
        }
        self.forget_servers(mesh);
    }

    /// Nobody answered in time, or the caller did not come back for the answer.
    pub(crate) fn call_overdue(&mut self, t: &mut Turn<'_>, mesh: MeshIx, number: u32) {
        let call = self.servers(mesh).and_then(|servers| servers.call(number));
        let Some(call) = call else { return };
        mark(Mark::CallOverdue);
        let frame = failed("MCP call timed out (30s)", call.req_id.as_deref());
        let (caller, answered) = (call.caller, call.answer.is_some());
        self.forget_call(mesh, number);
        if !answered && self.lease(caller).is_some() {
            self.reply(t, caller.slot, frame);
        }
    }

    /// A session came back that had confirmed so much: what its last socket had not, or may not have
    /// had.
    pub(crate) fn resume_calls(&mut self, t: &mut Turn<'_>, slot: u32, confirmed: Position) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, order) = (peer.mesh, peer.order);
        let calls = || self.servers(mesh).into_iter().flat_map(Servers::calls);
        let kept = calls().filter(|(_, call)| call.caller.order == order);
        let kept: Vec<(u32, Bytes)> = kept
            .filter_map(|(number, call)| Some((number, call.answer.clone()?)))
            .collect();
        let unheard = calls().filter(|(_, call)| {
            let swallowed = call.written.is_none_or(|written| written > confirmed);
            call.host.order == order && swallowed
        });
        let unheard: Vec<u32> = unheard.map(|(number, _)| number).collect();
        for (number, frame) in kept {
            self.answer_call(t, mesh, number, frame);
        }
        for number in unheard {
            mark(Mark::CallAgain);
            self.write_call(t, mesh, number);
        }
    }

    /// A lease ended: calls to it are answered, and its own are forgotten.
    pub(crate) fn end_calls(&mut self, t: &mut Turn<'_>, gone: &PeerConn) {
        let calls = self.servers(gone.mesh).into_iter().flat_map(Servers::calls);
        let concerned: Vec<(u32, bool)> = calls
            .filter(|(_, call)| [call.caller.order, call.host.order].contains(&gone.order))
            .map(|(number, call)| (number, call.caller.order == gone.order))
            .collect();
        for (number, own) in concerned {
            if own {
                self.forget_call(gone.mesh, number);
                continue;
            }
            let call = self.servers(gone.mesh).and_then(|s| s.call(number));
            let Some(call) = call.filter(|call| call.answer.is_none()) else {
                continue;
            };
            mark(Mark::CallLost);
            let error = format!("MCP server \"{}\" host disconnected", call.server);
            let frame = failed(&error, call.req_id.as_deref());
            self.answer_call(t, gone.mesh, number, frame);
        }
    }
}

/// A span as people say it.
fn ago(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}
