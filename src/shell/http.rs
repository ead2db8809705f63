//! HTTP on the shared port: one task per connection until it upgrades, is done, or is given up.
//!
//! Heads are capped and timed, bodies are capped, a connection serves a bounded number of
//! requests. Must not: know presence; what routes answer comes from `routes.rs`.

mod absent;
pub(super) mod access;
pub(super) mod body;
pub(super) mod head;
pub(super) mod join;
mod members;
pub(super) mod reply;
mod routes;
mod trial;
mod webhook;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tungstenite::handshake::server::{create_response, write_response};

use body::{CHUNK_HEAD_BYTES_MAX, Framing};
use head::{Refusal, Request};
use reply::Reply;

use super::connection::Phase;
use super::limits::{HTTP_OUTBOUND_BYTES_MAX, REQUESTS_MAX};
use super::notify::Notify;
use super::reactor::{Loop, Reactor};
use super::reading::Read;
use super::websocket::Header;
use crate::core::ids::ConnId;

/// Why no further request is read.
enum Stop {
    /// The peer is gone, or the connection is to be dropped without a word.
    Silently,
    /// Nobody is there any more: the slot may go.
    Gone,
    /// After this answer.
    With(Reply),
}

/// What came of waiting for bytes.
enum Arrival {
    /// `more` if they filled the buffer.
    Some {
        more: bool,
    },
    Expired,
    Gone,
}

/// How it goes on after the last request.
enum End {
    /// The socket is read as what it has become.
    ReadOn,
    /// The slot may go.
    Gone,
}

/// One connection's requests.
struct Exchange {
    lp: Rc<Loop>,
    conn: ConnId,
    /// Rung when there is something to read, or when time is up.
    bell: Rc<Notify>,
    buffer: BytesMut,
    served: u32,
    /// The bell has been rung.
    rung: bool,
    /// There may be more to be read than has been.
    more: bool,
    /// The request being answered wants no body, however it is answered.
    bare: bool,
}

/// Takes in an accepted socket, which rings for [`serve`] when there is something to read; None if
/// it cannot be watched.
pub(super) fn begin(reactor: &mut Reactor, socket: OwnedFd) -> Option<(ConnId, Rc<Notify>)> {
    let bell = Rc::new(Notify::default());
    let conn = reactor.take_in(socket, Phase::Http)?;
    if let Some(found) = reactor.conns.get_mut(conn) {
        found.reader = Some(Rc::clone(&bell));
    }
    reactor.await_request(conn);
    Some((conn, bell))
}

/// The task of an accepted socket.
pub(super) async fn serve(lp: Rc<Loop>, conn: ConnId, bell: Rc<Notify>) {
    let mut exchange = Exchange {
        lp,
        conn,
        bell,
        buffer: BytesMut::new(),
        served: 0,
        rung: false,
        more: true,
        bare: false,
    };
    let end = exchange.run().await;
    let more = exchange.more || exchange.bell.is_set();
    exchange.lp.turn(|reactor| match end {
        End::ReadOn => reactor.read_from_here(conn, more),
        End::Gone => reactor.end(conn),
    });
}

impl Exchange {
    async fn run(&mut self) -> End {
        loop {
            let answered = match self.head().await {
                Ok(request) => self.answer(&request).await,
                Err(stop) => Err(stop),
            };
            match answered {
                Ok(true) => {}
                Ok(false) => return End::ReadOn,
                Err(Stop::Gone) => return End::Gone,
                Err(Stop::Silently) => return self.end(None),
                Err(Stop::With(reply)) => return self.end(Some(&reply)),
            }
        }
    }

    /// The next request's head.
    async fn head(&mut self) -> Result<Request, Stop> {
        self.bare = false;
        loop {
            match head::decode(&mut self.buffer) {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                Err(Refusal::Malformed) => return Err(Stop::With(Reply::text(400, "bad request"))),
                Err(Refusal::TooLarge) => {
                    let reply = Reply::text(431, "request header fields too large");
                    return Err(Stop::With(reply));
                }
            }
            let quiet = self.buffer.is_empty() && self.served > 0;
            match self.read().await {
                Arrival::Some { .. } => {}
                Arrival::Expired if quiet => return Err(Stop::Silently),
                Arrival::Expired => return Err(Stop::With(Reply::text(408, "request timeout"))),
                Arrival::Gone => return Err(Stop::Gone),
            }
        }
    }

    /// Answers one request; false when the connection is no longer HTTP.
    async fn answer(&mut self, request: &Request) -> Result<bool, Stop> {
        self.served += 1;
        self.bare = request.is_head();
        if request.wants_websocket() {
            return self.upgrade(request).map(|()| false);
        }
        let malformed = |_| Stop::With(Reply::text(400, "bad request"));
        let framing = request.framing().map_err(malformed)?;
        let keep = request.keep_alive() && self.served < REQUESTS_MAX;
        let route = routes::find(request);
        let wants_body = route.has_body();
        let body = if wants_body {
            self.body(request, framing).await?
        } else {
            Bytes::new()
        };
        let reply = routes::answer(&self.lp, route, &body).await;
        // A body nobody wants is not read: the connection ends after the answer.
        if !keep || (!wants_body && framing != Framing::None) {
            return Err(Stop::With(reply));
        }
        let bytes = reply.encode(true, self.bare);
        let fits = self.lp.turn(|reactor| {
            reactor.queue(self.conn, Header::default(), bytes);
            reactor.await_request(self.conn);
            reactor.waiting(self.conn) <= HTTP_OUTBOUND_BYTES_MAX
        });
        if fits { Ok(true) } else { Err(Stop::Silently) }
    }

    fn upgrade(&mut self, request: &Request) -> Result<(), Stop> {
        if request.target != "/ws" {
            return Err(Stop::Silently);
        }
        let mut answer = Vec::with_capacity(160);
        let written = create_response(&request.as_http())
            .and_then(|response| write_response(&mut answer, &response));
        if written.is_err() {
            let reply = if request.is_websocket_13() {
                Reply::text(400, "bad request")
            } else {
                Reply::text(426, "upgrade required").with("Sec-WebSocket-Version", "13")
            };
            return Err(Stop::With(reply));
        }
        let leftover = self.buffer.split().to_vec();
        self.buffer = BytesMut::new();
        self.lp.turn(|reactor| {
            reactor.queue(self.conn, Header::default(), answer.into());
            reactor.upgraded(self.conn, leftover);
        });
        Ok(())
    }

    /// A request's whole body.
    async fn body(&mut self, request: &Request, framing: Framing) -> Result<Bytes, Stop> {
        let max = self.lp.shared.max_body_bytes;
        let too_large = || Stop::With(Reply::failure(413, "payload too large"));
        if let Framing::Length(length) = framing
            && length > max
        {
            return Err(too_large());
        }
        self.lp.turn(|reactor| {
            reactor.await_request(self.conn);
            if request.expects_continue() {
                let line = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                reactor.queue(self.conn, Header::default(), line);
            }
        });
        let mut body = BytesMut::new();
        loop {
            let whole = body::decode_body(framing, &mut self.buffer, &mut body);
            if body.len() > max {
                return Err(too_large());
            }
            match whole {
                Ok(true) => return Ok(body.freeze()),
                // A chunk is taken when it is whole; one that is larger than a body is not awaited.
                Ok(false) if self.buffer.len() > max + CHUNK_HEAD_BYTES_MAX + 4 => {
                    return Err(too_large());
                }
                Ok(false) => {}
                Err(_) => return Err(Stop::With(Reply::text(400, "bad request"))),
            }
            match self.read().await {
                Arrival::Some { .. } => {}
                Arrival::Expired => return Err(Stop::With(Reply::text(408, "request timeout"))),
                Arrival::Gone => return Err(Stop::Gone),
            }
        }
    }

    async fn read(&mut self) -> Arrival {
        loop {
            // A client that has just come has mostly not sent anything yet.
            if self.rung {
                let buffer = &mut self.buffer;
                let arrival = self.lp.turn(|reactor| reactor.read_http(self.conn, buffer));
                self.more = !matches!(arrival, None | Some(Arrival::Some { more: false }));
                if let Some(arrival) = arrival {
                    return arrival;
                }
            }
            self.bell.wait().await;
            self.rung = true;
            self.more = true;
        }
    }

    /// The last answer, if any, and the end of the connection.
    fn end(&mut self, reply: Option<&Reply>) -> End {
        self.buffer = BytesMut::new();
        self.lp.turn(|reactor| {
            if let Some(reply) = reply {
                let bytes = reply.encode(false, self.bare);
                reactor.queue(self.conn, Header::default(), bytes);
            }
            reactor.finish(self.conn);
        });
        End::ReadOn
    }
}

impl Reactor {
    /// Begins the time for the next step of a request.
    fn await_request(&mut self, conn: ConnId) {
        self.set_timer(conn, self.shared.http_timeout);
    }

    /// One read into the connection's own buffer; None if nothing was there after all.
    fn read_http(&mut self, conn: ConnId, into: &mut BytesMut) -> Option<Arrival> {
        if self.conns.get_mut(conn).is_some_and(|found| found.expired) {
            return Some(Arrival::Expired);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read(conn, &mut buffer);
        if let Read::Bytes(count) = read {
            into.extend_from_slice(&buffer[..count]);
        }
        let room = buffer.len();
        self.buffer = buffer;
        match read {
            Read::Bytes(count) => Some(Arrival::Some {
                more: count == room,
            }),
            Read::Nothing => None,
            Read::End => Some(Arrival::Gone),
        }
    }
}
