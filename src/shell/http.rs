//! HTTP on the shared port: one task per connection until it upgrades, is done, or is given up.
//!
//! Heads are capped and timed, bodies are capped, a connection serves a bounded number of
//! requests. Must not: know presence; what routes answer comes from `routes.rs`.

pub(super) mod body;
pub(super) mod head;
mod reply;
mod routes;

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use monoio::net::TcpStream;
use tungstenite::handshake::server::{create_response, write_response};

use body::{CHUNK_HEAD_BYTES_MAX, Framing};
use head::{Refusal, Request};
use reply::Reply;
use routes::Route;

use super::limits::{HTTP_OUTBOUND_BYTES_MAX, REQUESTS_MAX};
use super::reactor::{Loop, Reactor};
use super::reading::{self, Next, Read};
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
    Some,
    Expired,
    Gone,
}

/// One connection's requests.
struct Exchange {
    lp: Rc<Loop>,
    conn: ConnId,
    socket: Rc<TcpStream>,
    buffer: BytesMut,
    served: u32,
    /// The request being answered wants no body, however it is answered.
    bare: bool,
}

/// The task of an accepted socket.
pub(super) async fn serve(lp: Rc<Loop>, conn: ConnId, socket: Rc<TcpStream>) {
    lp.turn(|reactor| reactor.await_request(conn));
    let mut exchange = Exchange {
        lp,
        conn,
        socket,
        buffer: BytesMut::new(),
        served: 0,
        bare: false,
    };
    let next = exchange.run().await;
    let Exchange {
        lp, conn, socket, ..
    } = exchange;
    // A task of its own, so that what HTTP needed is freed for as long as the socket lives.
    reading::start(lp, conn, socket, next);
}

impl Exchange {
    async fn run(&mut self) -> Next {
        loop {
            let stop = match self.head().await {
                Ok(request) => match self.answer(&request).await {
                    Ok(None) => continue,
                    Ok(Some(next)) => return next,
                    Err(stop) => stop,
                },
                Err(stop) => stop,
            };
            return match stop {
                Stop::Gone => Next::Gone,
                Stop::Silently => self.end(None),
                Stop::With(reply) => self.end(Some(&reply)),
            };
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
                Arrival::Some => {}
                Arrival::Expired if quiet => return Err(Stop::Silently),
                Arrival::Expired => return Err(Stop::With(Reply::text(408, "request timeout"))),
                Arrival::Gone => return Err(Stop::Gone),
            }
        }
    }

    /// Answers one request; Some when the connection is no longer HTTP.
    async fn answer(&mut self, request: &Request) -> Result<Option<Next>, Stop> {
        self.served += 1;
        self.bare = request.is_head();
        if request.wants_websocket() {
            return self.upgrade(request).map(Some);
        }
        let malformed = |_| Stop::With(Reply::text(400, "bad request"));
        let framing = request.framing().map_err(malformed)?;
        let keep = request.keep_alive() && self.served < REQUESTS_MAX;
        let route = routes::find(request);
        let hook = route == Route::Hook;
        let reply = if hook {
            let body = self.body(request, framing).await?;
            routes::hook(&self.lp, &body).await
        } else {
            routes::answer(&self.lp, route).await
        };
        // A body nobody wants is not read: the connection ends after the answer.
        if !keep || (!hook && framing != Framing::None) {
            return Err(Stop::With(reply));
        }
        let bytes = reply.encode(true, self.bare);
        let fits = self.lp.turn(|reactor| {
            reactor.queue(self.conn, Header::default(), bytes);
            reactor.await_request(self.conn);
            reactor.waiting(self.conn) <= HTTP_OUTBOUND_BYTES_MAX
        });
        if fits { Ok(None) } else { Err(Stop::Silently) }
    }

    fn upgrade(&mut self, request: &Request) -> Result<Next, Stop> {
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
        Ok(self.lp.turn(|reactor| {
            reactor.queue(self.conn, Header::default(), answer.into());
            reactor.upgraded(self.conn, leftover)
        }))
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
                Arrival::Some => {}
                Arrival::Expired => return Err(Stop::With(Reply::text(408, "request timeout"))),
                Arrival::Gone => return Err(Stop::Gone),
            }
        }
    }

    async fn read(&mut self) -> Arrival {
        loop {
            if self.socket.readable(false).await.is_err() {
                return Arrival::Gone;
            }
            let buffer = &mut self.buffer;
            let arrival = self.lp.turn(|reactor| reactor.read_http(self.conn, buffer));
            if let Some(arrival) = arrival {
                return arrival;
            }
        }
    }

    /// The last answer, if any, and the end of the connection.
    fn end(&mut self, reply: Option<&Reply>) -> Next {
        self.buffer = BytesMut::new();
        self.lp.turn(|reactor| {
            if let Some(reply) = reply {
                let bytes = reply.encode(false, self.bare);
                reactor.queue(self.conn, Header::default(), bytes);
            }
            reactor.finish(self.conn);
        });
        Next::Again
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
        self.buffer = buffer;
        match read {
            Read::Bytes(_) => Some(Arrival::Some),
            Read::Nothing => None,
            Read::End => Some(Arrival::Gone),
        }
    }
}
