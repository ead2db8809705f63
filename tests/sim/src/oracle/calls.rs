//! Calls of MCP servers: to the session that hosts the server, whenever it is there, and answered
//! once within half a minute, by it or by the broker.

use holdfast_core::limits::CALL_PATIENCE;
use holdfast_core::marks::Inspect;
use serde_json::Value;

use super::model::Lease;
use super::{ConnKey, Oracle, Step, Verdict, Violation, ensure};
use crate::said::Expect;
use crate::town::SERVERS;

/// What has become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits for its host.
    Open,
    /// Its host said that this is its result.
    Answered(usize),
    /// There is no result: nobody hosts the server, or nobody did for long enough, or no more.
    Failed(&'static str),
}

/// One call.
#[derive(Clone, Debug)]
struct Call {
    /// Names its tool.
    number: usize,
    mesh: usize,
    caller: String,
    req: String,
    host: String,
    /// Once a host has seen it.
    id: Option<String>,
    made: u64,
    state: State,
    /// The socket that its host was written it on, and the first ping behind it.
    written: Option<(ConnKey, Option<u64>)>,
    /// A pong may have said that the host has it.
    confirmed: bool,
    /// The socket on which its caller gets the answer; none while it has none.
    answers: Option<ConnKey>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    all: Vec<Call>,
    /// Hosts of this step that are said to have gone.
    lost: Vec<String>,
}

impl Calls {
    /// The id of a call, open or not.
    pub(crate) fn some(&self, chance: u64) -> Option<String> {
        let count = u64::try_from(self.all.len()).unwrap_or(0).max(1);
        let index = usize::try_from(chance % count).unwrap_or(0);
        self.all.get(index)?.id.clone()
    }

    /// A ping stands behind what was written.
    pub(crate) fn pinged(&mut self, at: ConnKey, watermark: u64) {
        for (conn, ping) in self.all.iter_mut().filter_map(|call| call.written.as_mut()) {
            if *conn == at {
                ping.get_or_insert(watermark);
            }
        }
    }

    /// The process is gone.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }
}

impl Oracle {
    /// A session calls a server.
    pub(crate) fn called(
        &mut self,
        at: ConnKey,
        (id, mesh): (&str, usize),
        (server, number, req): (usize, usize, &str),
    ) {
        let (host, state) = match self.servers.host(mesh, server) {
            Some(Some(host)) => (host.clone(), State::Open),
            Some(None) => (String::new(), State::Failed("is offline")),
            None => (String::new(), State::Failed("not found in mesh")),
        };
        self.calls.all.push(Call {
            number,
            mesh,
            caller: id.to_owned(),
            req: req.to_owned(),
            host,
            id: None,
            made: self.mono(),
            state,
            written: None,
            confirmed: false,
            answers: Some(at).filter(|_| state != State::Open),
        });
    }

    /// The answer to `mcp_call_response`, and what it does.
    pub(crate) fn respond_expected(
        &self,
        (id, lease): (&String, &Lease),
        call: &str,
        req: String,
    ) -> Expect {
        match self.open_call(lease.mesh, call) {
            None => Expect::Refused("not_found", req),
            Some(call) if call.host != *id => Expect::Refused("forbidden", req),
            Some(_) => Expect::Nothing,
        }
    }

    fn open_call(&self, mesh: usize, id: &str) -> Option<&Call> {
        let mut all = self.calls.all.iter();
        all.find(|call| {
            let named = call.id.as_deref() == Some(id);
            named && call.mesh == mesh && call.state == State::Open
        })
    }

    /// A session answers a call.
    pub(crate) fn responded(&mut self, id: &str, mesh: usize, (named, result): (&str, usize)) {
        let Some(call) = self.open_call(mesh, named) else {
            return;
        };
        if call.host != id {
            return;
        }
        let (number, caller) = (call.number, call.caller.clone());
        let conn = self.leases.get(&caller).and_then(Lease::conn);
        let call = self.calls.all.iter_mut().find(|call| call.number == number);
        if let Some(call) = call {
            call.state = State::Answered(result);
            call.answers = conn;
        }
    }

    /// Time has passed: who waits is told that it was too long, and who is away is not.
    pub(crate) fn calls_overdue(&mut self, step: &Step<'_>) {
        let now = self.mono();
        let (leases, meshes) = (&self.leases, &self.plan.town.meshes);
        self.calls.all.retain_mut(|call| {
            let due = meshes[call.mesh].home == step.shard && now >= call.made + CALL_PATIENCE.0;
            if !due || call.answers.is_some() {
                return true;
            }
            call.answers = leases.get(&call.caller).and_then(Lease::conn);
            let told = call.state == State::Open && call.answers.is_some();
            call.state = State::Failed("timed out");
            told
        });
    }

    /// A lease ended: its calls are forgotten, and those to it come to nothing.
    pub(crate) fn calls_ended(&mut self, id: &str) {
        self.calls.all.retain(|call| call.caller != id);
        let leases = &self.leases;
        for call in &mut self.calls.all {
            if call.host == id && call.state == State::Open {
                call.state = State::Failed("host disconnected");
                call.answers = leases.get(&call.caller).and_then(Lease::conn);
            }
        }
    }

    /// A call is written to a session: its host, and once on each socket.
    pub(crate) fn forwarded(&mut self, at: ConnKey, frame: &Value) -> Verdict {
        let Some((id, _)) = self.attached(at) else {
            return Err(Violation::new("I1", format!("a call for {at:?}")));
        };
        let id = id.clone();
        let number = frame["toolName"].as_str().unwrap_or_default();
        let number = number.trim_start_matches('t').parse().unwrap_or(0_usize);
        let call = self.calls.all.iter_mut().find(|call| call.number == number);
        let Some(call) = call.filter(|call| call.host == id && call.state == State::Open) else {
            let text = format!("{id} is called, and does not host that: {frame}");
            return Err(Violation::new("I7", text));
        };
        let again = call.written.is_some_and(|(conn, _)| conn == at);
        ensure!(!again, "I6", "{id} is called twice on one socket: {frame}");
        let named = frame["callId"].as_str().map(str::to_owned);
        ensure!(
            call.id.is_none() || call.id == named,
            "I6",
            "the call {:?} comes again as {named:?}",
            call.id
        );
        call.id = named;
        call.written = Some((at, None));
        call.confirmed = false;
        Ok(())
    }

    /// A call was answered.
    pub(crate) fn call_answered(&mut self, at: ConnKey, frame: &Value) -> Verdict {
        let Some((id, _)) = self.attached(at) else {
            return Err(Violation::new("I1", format!("a result for {at:?}")));
        };
        let id = id.clone();
        let req = frame["_reqId"].as_str().unwrap_or_default();
        let result = frame["result"]["n"].as_u64();
        let error = frame["error"].as_str().unwrap_or_default();
        let fits = |call: &&Call| {
            let state = match call.state {
                State::Answered(of) => result == u64::try_from(of).ok(),
                State::Failed(why) => error.contains(why),
                State::Open => error.contains("host disconnected"),
            };
            call.caller == id && call.req == req && state
        };
        let Some(call) = self.calls.all.iter().find(fits) else {
            let text = format!("{id} is given a result that is none: {frame}");
            return Err(Violation::new("I5", text));
        };
        let (number, host) = (call.number, call.host.clone());
        if call.state == State::Open {
            // The end of its lease comes behind.
            self.calls.lost.push(host);
        }
        self.calls.all.retain(|call| call.number != number);
        Ok(())
    }

    /// After the effects: hosts that are there have been called, callers have their answers.
    pub(crate) fn calls_settled(&mut self) -> Verdict {
        let lost = std::mem::take(&mut self.calls.lost);
        if self.stopping {
            return Ok(());
        }
        let there = lost.iter().find(|id| self.leases.contains_key(*id));
        ensure!(
            there.is_none(),
            "I3",
            "{there:?} is there and said to have gone"
        );
        if let Some((id, watermark)) = &self.scratch.answered {
            for call in self.calls.all.iter_mut().filter(|call| call.host == *id) {
                let ping = call.written.and_then(|(_, ping)| ping);
                call.confirmed |= ping.is_some_and(|ping| ping <= *watermark);
            }
        }
        let conns = &self.conns;
        let lines = |at: &ConnKey| conns.get(at).is_none_or(|conn| !conn.owed.is_empty());
        let leases = &self.leases;
        // What waited in line with other answers is gone with its socket.
        self.calls.all.retain(|call| {
            let now = leases.get(&call.caller).and_then(Lease::conn);
            call.answers.is_none() || call.answers == now
        });
        for call in &self.calls.all {
            let Some(caller) = self.leases.get(&call.caller) else {
                let text = format!("a call of {}, whose lease has ended", call.caller);
                return Err(Violation::new("I3", text));
            };
            let answered = call.state != State::Open;
            let waits = caller.conn().is_none_or(|at| lines(&at));
            ensure!(
                !answered || waits,
                "I4",
                "{} was not given the result of its call {}: {call:?}",
                call.caller,
                call.number
            );
            let host = self.leases.get(&call.host).and_then(Lease::conn);
            let conn = call.written.map(|(conn, _)| conn);
            ensure!(
                answered || host.is_none() || conn == host || call.confirmed,
                "I4",
                "{} is there and was not called by {}: {call:?}",
                call.host,
                call.caller
            );
        }
        Ok(())
    }

    /// Sizes are what is there (I9).
    pub(crate) fn calls_inspected(&self, shard: u16, inspect: &Inspect) -> Verdict {
        let meshes = &self.plan.town.meshes;
        let kept = |call: &&Call| {
            let away = call.answers.is_none();
            meshes[call.mesh].home == shard && (call.state == State::Open || away)
        };
        let calls = self.calls.all.iter().filter(kept).count();
        ensure!(inspect.calls == calls, "I9", "{inspect:?}, {calls} calls");
        Ok(())
    }
}

/// The name of a server and the number of a call, as its host reads them.
pub(crate) fn of_forward(frame: &Value) -> Option<(String, usize)> {
    let number = frame["toolName"].as_str()?.strip_prefix('t')?;
    let known = SERVERS.contains(&frame["serverName"].as_str()?);
    let id = frame["callId"].as_str().filter(|_| known)?;
    Some((id.to_owned(), number.parse().ok()?))
}
