//! Sockets: what may be said to them, which answers they are owed, and what a stale one may do.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use holdfast_core::effect::{Close, Effect};
use holdfast_core::event::Event;
use holdfast_core::rows::StoreOp;
use serde_json::Value;

use super::contests::Contest;
use super::schedules::schedules_listed;
use super::servers::servers_listed;
use super::watched::watches_listed;
use super::{Cause, ConnKey, Oracle, Step, Verdict, ensure};
use crate::oracle::model::Seat;
use crate::said::{Expect, HelloSaid, Said, TaskAsked};

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    /// No hello accepted yet.
    Greeting,
    /// Attached; `hello_ack` was sent.
    Attached,
    /// Told to close, or replaced.
    Closing,
}

/// One socket.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) is: Is,
    pub(crate) opened: u64,
    /// The hello it said.
    pub(crate) hello: Option<Rc<HelloSaid>>,
    /// Its hello waits for the incumbent's answer.
    pub(crate) contends: Option<Contest>,
    /// Answers owed, in order.
    pub(crate) owed: VecDeque<Expect>,
    /// Messages written to it.
    pub(crate) written: BTreeSet<usize>,
}

impl Oracle {
    /// Before the effects: what the input alone means.
    pub(crate) fn prepare(&mut self, step: &Step<'_>) -> Verdict {
        let Some(conn) = step.conn else {
            return self.prepare_other(step);
        };
        let at = (step.shard, conn);
        let now = self.mono();
        if let Cause::Opened | Cause::Adopted(..) = step.cause {
            let hello = match step.cause {
                Cause::Adopted(_, said) => Some(Rc::clone(said)),
                _ => None,
            };
            let conn = Conn {
                is: Is::Greeting,
                opened: now,
                hello,
                contends: None,
                owed: VecDeque::new(),
                written: BTreeSet::new(),
            };
            self.conns.insert(at, conn);
            return Ok(());
        }
        let Some(found) = self.conns.get_mut(&at) else {
            return Ok(());
        };
        self.scratch.was_closing = found.is == Is::Closing;
        if let Some((id, _)) = self.attached(at) {
            let id = id.clone();
            self.scratch.speaker = Some(id.clone());
            let alive = !matches!(step.cause, Cause::Closed(_));
            if let Some(lease) = self.leases.get_mut(&id).filter(|_| alive) {
                lease.last_proof = now;
            }
        }
        match step.cause {
            Cause::Frame(frame) => self.prepare_frame(step, at, frame),
            Cause::Binary => self.owe(at, Expect::Error),
            Cause::Pong(payload) => self.ponged(at, payload),
            _ => {}
        }
        Ok(())
    }

    fn owe(&mut self, at: ConnKey, expect: Expect) {
        if let Some(found) = self.conns.get_mut(&at)
            && found.is != Is::Closing
            && expect != Expect::Nothing
        {
            found.owed.push_back(expect);
        }
    }

    fn prepare_frame(&mut self, step: &Step<'_>, at: ConnKey, frame: &crate::said::Frame) {
        let expected = self.expected(at, &frame.said, &frame.expect);
        let Some(found) = self.conns.get_mut(&at) else {
            return;
        };
        let greeting = found.is == Is::Greeting && found.contends.is_none();
        match &frame.said {
            Said::Hello(said) if greeting => {
                found.hello = Some(Rc::clone(said));
                return self.token_heard(&Rc::clone(said));
            }
            Said::Hello(said) if found.is == Is::Attached => {
                let own = self.said_again(at, &Rc::clone(said));
                return self.owe(at, Expect::Hello(own));
            }
            Said::Hello(_) => return,
            _ => {}
        }
        let expect = match (&expected, greeting, self.stopping) {
            (_, _, true) => Expect::Nothing,
            // Before a hello nothing else is heard.
            (_, true, _) => Expect::Error,
            (Expect::Nothing, false, _) => Expect::Nothing,
            (expect, false, _) => expect.clone(),
        };
        if found.is == Is::Attached || greeting || found.contends.is_some() {
            self.owe(at, expect);
        }
        if self
            .conns
            .get(&at)
            .is_some_and(|conn| conn.is == Is::Attached)
        {
            self.apply_request(step, at, &frame.said);
        }
    }

    /// A frame was written.
    pub(crate) fn sent(&mut self, step: &Step<'_>, at: ConnKey, frame: &[u8]) -> Verdict {
        let Some(found) = self.conns.get(&at) else {
            return Err(super::Violation::new(
                "I1",
                format!("a frame for {at:?}, which is not there"),
            ));
        };
        ensure!(
            found.is != Is::Closing,
            "I1",
            "a frame on {at:?} after it was told to close"
        );
        let bytes = frame.len();
        let Ok(frame) = serde_json::from_slice::<Value>(frame) else {
            return Err(super::Violation::new(
                "I7",
                "the broker wrote something that is not JSON",
            ));
        };
        match (frame["type"].as_str(), frame["subtype"].as_str()) {
            (Some("hello_ack"), _) => self.welcomed(step, at, &frame),
            (Some("push"), Some("system")) => self.told(at, &frame, bytes),
            (Some("push"), None) => self.pushed(at, &frame, bytes),
            (Some("state_change" | "stream_data"), _) => self.shared_told(at, &frame, bytes),
            // It follows the answer that is judged.
            (Some("state_value"), _) => Ok(()),
            (Some("mcp_call_forward"), _) => self.forwarded(at, &frame),
            (Some("mcp_call_result"), _) => self.call_answered(at, &frame),
            (Some("ack"), _) if unasked(&frame) => self.told_fired(step, at, &frame),
            (Some(_), _) => self.replied(step, at, &frame),
            (None, _) => Err(super::Violation::new(
                "I7",
                format!("a frame without a type: {frame}"),
            )),
        }
    }

    /// An answer was written: it must be the next one owed.
    pub(crate) fn replied(&mut self, step: &Step<'_>, at: ConnKey, frame: &Value) -> Verdict {
        let kind = frame["type"].as_str().unwrap_or_default();
        let code = frame["code"].as_str().unwrap_or_default();
        let closes = step.effects.iter().any(|effect| {
            matches!(effect, Effect::Close { conn, close } if *conn == at.1 && close.reason == code)
        });
        if kind == "error" && (closes || code == "revoked") {
            return self.hello_refused(step, at, code);
        }
        let Some(found) = self.conns.get_mut(&at) else {
            return Ok(());
        };
        let Some(expect) = found.owed.pop_front() else {
            return Err(super::Violation::new(
                "I5",
                format!("an answer nobody asked for: {frame}"),
            ));
        };
        let req = frame["_reqId"].as_str();
        let fits = match &expect {
            Expect::Nothing => false,
            Expect::SendAck(id) => kind == "ack" && frame["id"].as_str() == Some(id),
            Expect::Reply(reply, id) => (kind == *reply || kind == "error") && req == Some(id),
            Expect::Task(asked, id) => {
                let reply = match asked {
                    TaskAsked::Create => "task_created",
                    TaskAsked::Claim(_) | TaskAsked::List => "task_list",
                };
                (kind == reply || kind == "error") && req == Some(id)
            }
            Expect::State(number, id) => {
                let value = number.map_or(Value::Null, Value::from);
                kind == "state_result" && req == Some(id) && frame["value"] == value
            }
            Expect::Refused(wanted, id) => kind == "error" && code == *wanted && req == Some(id),
            Expect::Watch(_, id) => (kind == "watch_ack" || kind == "error") && req == Some(id),
            Expect::Unwatched(_, id) => {
                (kind == "watch_ack" || code == "storage") && req == Some(id)
            }
            Expect::Watches(_, id) => kind == "watch_list_result" && req == Some(id),
            Expect::Schedule(id) => (kind == "scheduled_ack" || kind == "error") && req == Some(id),
            Expect::Registered(_, id) => {
                (kind == "mcp_register_ack" || kind == "error") && req == Some(id)
            }
            Expect::Servers(_, id) => kind == "mcp_list_result" && req == Some(id),
            Expect::Schedules(_, id) => kind == "scheduled_list" && req == Some(id),
            Expect::Cancelled(of, ok, id) => {
                let ack = kind == "cancel_scheduled_ack";
                let fits = frame["ok"] == *ok && frame["scheduledId"] == **of;
                (ack && fits || code == "storage") && req == Some(id)
            }
            Expect::Error => kind == "error" && req.is_none(),
            Expect::Hello(own) if kind == "hello_ack" => *own,
            Expect::Hello(own) => kind == "error" && second_refusal(code, *own),
        };
        ensure!(fits, "I5", "expected the answer {expect:?}, got {frame}");
        match expect {
            Expect::SendAck(id) => self.send_answered(step, at, &id, frame),
            Expect::Task(asked, _) => self.task_answered(step, at, &asked, frame),
            Expect::Watch(number, _) => self.watch_answered(step, number, frame),
            Expect::Unwatched(id, _) => self.unwatch_answered(step, &id, frame),
            Expect::Schedule(_) => self.schedule_answered(step, frame),
            Expect::Registered(name, _) => self.registered(step, at, (name, frame)),
            Expect::Servers(all, _) => servers_listed(&all, frame),
            Expect::Schedules(ids, _) => schedules_listed(&ids, frame),
            Expect::Watches(numbers, _) => watches_listed(&numbers, frame),
            Expect::Nothing
            | Expect::Reply(..)
            | Expect::Refused(..)
            | Expect::Cancelled(..)
            | Expect::State(..)
            | Expect::Error
            | Expect::Hello(_) => Ok(()),
        }
    }

    pub(crate) fn told_to_close(&mut self, step: &Step<'_>, at: ConnKey, close: Close) -> Verdict {
        let now = self.mono();
        let hello_timeout = self.plan.swarm.config.hello_timeout.0;
        let Some(found) = self.conns.get_mut(&at) else {
            return Err(super::Violation::new(
                "I1",
                format!("closes {at:?}, which is not there"),
            ));
        };
        ensure!(found.is != Is::Closing, "I1", "closes {at:?} twice");
        if close.reason == "hello_timeout" {
            ensure!(
                found.is == Is::Greeting,
                "I1",
                "a hello timeout of a session"
            );
            ensure!(
                now >= found.opened + hello_timeout,
                "I1",
                "a hello timeout too early"
            );
        }
        if close == Close::SHUTTING_DOWN {
            ensure!(
                self.stopping || matches!(step.cause, Cause::Shutdown),
                "I3",
                "closes 1001 while it runs"
            );
        }
        found.is = Is::Closing;
        found.owed.clear();
        self.scratch.closes.insert(at, close);
        Ok(())
    }

    pub(crate) fn aborted(&mut self, at: ConnKey) -> Verdict {
        let patience = self.plan.swarm.config.pong_timeout.0;
        let now = self.mono();
        let Some((id, lease)) = self.attached(at) else {
            return Err(super::Violation::new(
                "I1",
                format!("aborts {at:?}, which is not attached"),
            ));
        };
        let silent = now.saturating_sub(lease.last_proof);
        ensure!(
            silent >= patience,
            "I2",
            "aborts {id} after {silent} ms of silence"
        );
        if let Some(found) = self.conns.get_mut(&at) {
            found.is = Is::Closing;
            found.owed.clear();
        }
        self.scratch.aborts.push(at);
        Ok(())
    }

    pub(crate) fn handed_off(&mut self, step: &Step<'_>, at: ConnKey, home: u16) -> Verdict {
        let Some(found) = self.conns.remove(&at) else {
            return Err(super::Violation::new(
                "I1",
                "hands over a socket it does not have",
            ));
        };
        let meant = found
            .hello
            .as_ref()
            .map(|said| self.plan.town.mesh_of(said.who.member).home);
        ensure!(
            meant == Some(home),
            "I7",
            "hands a socket to shard {home}, its mesh is on {meant:?}"
        );
        ensure!(step.conn == Some(at.1), "I1", "hands over another socket");
        self.scratch.handed_off = true;
        Ok(())
    }

    /// I1: what a socket does that is attached to nothing, changes nothing.
    pub(crate) fn fenced(&mut self, step: &Step<'_>) -> Verdict {
        if self.scratch.was_closing {
            for effect in step.effects {
                let harmless = matches!(effect, Effect::Observe(Event::Stale { .. }));
                ensure!(
                    harmless,
                    "I1",
                    "a stale {} had an effect: {effect:?}",
                    step.cause.tag()
                );
            }
        }
        if let (Cause::Closed(_), Some(conn)) = (step.cause, step.conn) {
            self.conns.remove(&(step.shard, conn));
        }
        Ok(())
    }

    /// After the effects: deadlines of sockets that must have been kept.
    pub(crate) fn deadlines_kept(&self, step: &Step<'_>) -> Verdict {
        if !matches!(step.cause, Cause::Time) || self.stopping {
            return Ok(());
        }
        let (now, config) = (self.mono(), &self.plan.swarm.config);
        let here = |at: &ConnKey| at.0 == step.shard;
        for (at, conn) in self.conns.iter().filter(|(at, _)| here(at)) {
            let overdue = conn.is == Is::Greeting
                && conn.contends.is_none()
                && now >= conn.opened + config.hello_timeout.0 + TICK;
            ensure!(!overdue, "I8", "{at:?} said no hello and is still open");
            let waited = conn
                .contends
                .is_some_and(|contest| now >= contest.since + 2_000 + TICK);
            ensure!(
                !waited || conn.is != Is::Greeting,
                "I8",
                "{at:?} waits for its incumbent for ever"
            );
        }
        for (id, lease) in self.leases.iter().filter(|(_, l)| l.shard == step.shard) {
            match lease.seat {
                Seat::Grace(until) => {
                    ensure!(
                        now < until + TICK,
                        "I3",
                        "{id} is still in grace {} ms after its end",
                        now - until
                    );
                }
                Seat::Online(_) => {
                    let silent = now.saturating_sub(lease.last_proof);
                    ensure!(
                        silent < config.pong_timeout.0 + TICK,
                        "I2",
                        "{id} was silent for {silent} ms and is online"
                    );
                    let unasked = now.saturating_sub(lease.last_proof.max(lease.last_ping));
                    ensure!(
                        unasked < config.ping_interval.0 + TICK,
                        "I2",
                        "{id} was not pinged for {unasked} ms"
                    );
                    self.asked_in_time(id, lease)?;
                }
                Seat::Entering => {}
            }
        }
        Ok(())
    }

    /// Confirmations are for messages of one's own keys only (B19).
    pub(crate) fn keys_are_own(&self, step: &Step<'_>, op: &StoreOp) -> Verdict {
        let StoreOp::MessageAcked { keys, .. } = op else {
            return Ok(());
        };
        let Some(conn) = step.conn else {
            return Err(super::Violation::new("I1", "confirms without a client"));
        };
        let Some((_, lease)) = self.attached((step.shard, conn)) else {
            return Err(super::Violation::new("I1", "confirms for a stale socket"));
        };
        let member_key = self.plan.town.member_key(lease.who.member);
        let own = |key| Some(key) == lease.key || key == member_key;
        ensure!(
            keys.iter().all(|key| own(*key)),
            "I7",
            "confirms mail of keys that are not its own"
        );
        Ok(())
    }
}

/// Whether an `ack` is for a message that its member had scheduled: clients number what they send.
fn unasked(ack: &Value) -> bool {
    let id = ack["id"].as_str().unwrap_or_default();
    ack["_reqId"].is_null() && id.len() == 36
}

/// Whether a second hello may be refused so; its own session's only if it says too many.
fn second_refusal(code: &str, own: bool) -> bool {
    let others = [
        "already_joined",
        "bad_signature",
        "malformed",
        "timestamp_skew",
        "expired",
        "ttl_too_long",
    ];
    code == "rate_limited" || (!own && others.contains(&code))
}

/// One tick of the wheel, by which a timer may be late.
pub(crate) const TICK: u64 = 11;
