//! Effects become bytes, rows, messages and log lines. The first impure line of the broker.
//!
//! Must not: decide, or call the core; ends of sockets noticed here are reported to it after
//! the present effects (see `Reactor::drive`).

use bytes::Bytes;
use tungstenite::protocol::frame::coding::Control;

use super::connection::Phase;
use super::handoff::Departure;
use super::observe;
use super::reactor::Reactor;
use super::websocket::Header;
use crate::core::effect::{Close, Effect};
use crate::core::input::Closing;

/// How the core's answer to a hello it accepts begins, and no other frame: before that one a
/// socket is sent nothing but errors, after which it may stay open. It is the one sign of the core
/// that a socket has joined which is the same whether the hello came here or on another loop, and
/// whether it was accepted at once or after the incumbent of its session had been asked.
const WELCOME: &[u8] = br#"{"type":"hello_ack","#;

impl Reactor {
    /// Carries out one effect.
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => {
                if frame.starts_with(WELCOME) {
                    self.joined(conn);
                }
                self.queue(conn, Header::text(frame.len()), frame);
            }
            Effect::Ping { conn, watermark } => {
                let payload = Bytes::copy_from_slice(&watermark.to_be_bytes());
                self.queue(conn, Header::control(Control::Ping, payload.len()), payload);
            }
            Effect::Close { conn, close } => self.close_by_core(conn, close),
            Effect::Abort { conn } => self.abort(conn),
            Effect::Handoff { conn, shard, hello } => {
                if let Some(found) = self.conns.get_mut(conn)
                    && let Phase::Open(_) = found.phase
                {
                    found.phase = Phase::Departing(Departure { shard, hello });
                }
            }
            Effect::Persist { op, token } => {
                self.in_flight += u64::from(token.is_some());
                self.store.persist(op, token);
            }
            Effect::Query { query, token } => {
                self.in_flight += 1;
                self.store.query(query, token);
            }
            Effect::Fetch { request, token } => self.shared.fetch(self.index, token, request),
            Effect::Answer { ticket, answer } => self.answer(ticket, answer),
            Effect::Observe(event) => observe::observe(self.counters(), &event),
        }
    }

    fn close_by_core(&mut self, conn: crate::core::ids::ConnId, close: Close) {
        if close == Close::SHUTTING_DOWN && self.spread(conn) {
            return;
        }
        // The client has not said goodbye, whatever it answers now.
        self.close(conn, Some(close.code), close.reason, Closing::Abrupt);
    }
}
