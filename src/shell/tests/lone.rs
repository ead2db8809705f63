//! One loop without its thread: what its sockets cost, and how they end.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::*;
use crate::core::ids::{ConnId, Seq};
use crate::core::limits::OUTBOUND_BYTES_MAX;
use crate::shell::connection::Phase;
use crate::shell::loop_thread::{LoopStart, Rows, build};
use crate::shell::poller::Poller;
use crate::shell::reactor::{Loop, Reactor};
use crate::shell::runtime::{Driver, block_on};
use crate::shell::shared::{Shared, lanes};
use crate::shell::websocket::{Header, Reader};
use crate::store::Store;

/// Runs `test` on a loop that nobody else knows.
fn alone(test: impl AsyncFnOnce(Rc<Loop>)) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 1);
    let store = Store::open(&config.db, config.durability).unwrap();
    let (home, rows) = mpsc::sync_channel(100);
    let way = home.clone();
    let deliver = move |rows| way.send(Rows::Some(rows)).unwrap();
    store.boot(config.core.log, deliver).unwrap();
    home.send(Rows::End).unwrap();
    let (notify, _notices) = mpsc::channel();
    let (client, lanes) = (store.client(0), lanes(1).unwrap());
    let shared = Arc::new(Shared::new(lanes, Driver::Epoll, store, &config, 10));
    let start = LoopStart {
        index: 0,
        shared,
        store: client,
        core: config.core.clone(),
        max_frame_bytes: config.max_frame_bytes,
        seed: [7; 32],
        first_seq: Seq(1),
        rows,
        listener: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
        notify,
    };
    block_on(Driver::Epoll, async move {
        test(build(start, Poller::new().unwrap()).unwrap()).await;
    })
    .unwrap();
}

fn open(reactor: &mut Reactor, fd: impl Into<OwnedFd>) -> ConnId {
    let reader = Phase::Open(Reader::default());
    reactor.take_in(fd.into(), reader).unwrap()
}

fn phase(reactor: &mut Reactor, conn: ConnId) -> &Phase {
    &reactor.conns.get_mut(conn).unwrap().phase
}

#[test]
fn a_socket_that_cannot_be_written_for_a_reason_of_the_system_is_ended() {
    alone(async |lp| {
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let conn = lp.turn(|reactor| {
            let conn = open(reactor, udp);
            reactor.queue(conn, Header::default(), Bytes::from_static(b"x"));
            conn
        });
        lp.turn(|reactor| {
            assert!(reactor.conns.get_mut(conn).is_none());
            assert!(
                reactor.unreported_ends.is_empty(),
                "the core has not been told"
            );
        });
    });
}

/// A socket whose peer reads nothing, full.
fn blocked(reactor: &mut Reactor) -> (ConnId, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let conn = open(reactor, listener.accept().unwrap().0);
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..64 {
        if reactor.conns.get_mut(conn).unwrap().blocked {
            return (conn, theirs);
        }
        reactor.queue(conn, Header::text(megabyte.len()), megabyte.clone());
        reactor.flush(conn);
    }
    panic!("it takes everything");
}

#[test]
fn pings_of_a_client_that_reads_nothing_cost_next_to_nothing() {
    alone(async |lp| {
        lp.turn(|reactor| {
            let (conn, _theirs) = blocked(reactor);
            let before = reactor.waiting(conn);
            for _ in 0..100_000 {
                reactor.queue_pong(conn, b"x");
            }
            assert!(matches!(phase(reactor, conn), Phase::Open(_)));
            assert_eq!(reactor.waiting(conn), before + 3);
        });
    });
}

#[test]
fn small_frames_of_a_client_that_reads_nothing_are_bounded_by_what_they_cost() {
    alone(async |lp| {
        lp.turn(|reactor| {
            let (conn, _theirs) = blocked(reactor);
            let mut frames = 0;
            while matches!(phase(reactor, conn), Phase::Open(_)) {
                reactor.queue(conn, Header::text(1), Bytes::from_static(b"x"));
                frames += 1;
            }
            // 40 bytes is the least that a payload and its place in a queue take.
            assert!(frames < OUTBOUND_BYTES_MAX / 40, "{frames}");
        });
    });
}
