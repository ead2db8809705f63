//! A whole broker on a free port, seen by clients that know nothing of it: what HTTP and RFC 6455
//! promise, on both drivers, before any hello.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket, client::client};

use super::boot::{Notice, sockets_max};
use super::limits::READ_BYTES;
use super::{Server, StartError};
use crate::config::{Durability, ServeConfig};
use crate::core::time::Millis;

mod joined;
mod lone;
mod requests;
mod stall;

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];
const MAX_FRAME: usize = 100_000;
const UPGRADE: &str = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

type Socket = WebSocket<TcpStream>;

/// A broker that takes its database with it.
struct Broker {
    server: Server,
    address: SocketAddr,
    folder: TempDir,
}

fn config(folder: &TempDir, threads: u16) -> ServeConfig {
    ServeConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        db: folder.path().join("holdfast.db"),
        threads,
        durability: Durability::Normal,
        max_frame_bytes: MAX_FRAME,
        ..ServeConfig::default()
    }
}

impl Broker {
    fn start(driver: &str, threads: u16) -> Self {
        Self::start_with(driver, threads, |_| {})
    }

    fn start_with(driver: &str, threads: u16, change: impl FnOnce(&mut ServeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder, threads);
        change(&mut config);
        let server = Server::start_on(config, Some(driver)).unwrap();
        let address = server.local_addr();
        Self {
            server,
            address,
            folder,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Everything that comes back for `request`, to the end of the connection.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, target: &str) -> String {
        self.exchange(format!("GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes())
    }

    fn upgrade(&self) -> Socket {
        client(format!("ws://{}/ws", self.address), self.connect())
            .unwrap()
            .0
    }
}

/// On one loop and on two, on both drivers.
fn everywhere(test: impl Fn(&Broker)) {
    for driver in DRIVERS {
        for threads in [1, 2] {
            let broker = Broker::start(driver, threads);
            test(&broker);
            broker.server.join();
            drop(broker.folder);
        }
    }
}

/// Everything that comes, up to `end`.
fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    while !answer.ends_with(end) {
        let mut part = [0; 512];
        let count = stream.read(&mut part).unwrap();
        assert!(count > 0, "closed after {answer:?}");
        answer.extend_from_slice(&part[..count]);
    }
    answer
}

fn status(answer: &str) -> &str {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap_or(answer)
}

/// A frame with an all-zero mask, so that its payload reads as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

/// The close code that comes after what else comes.
fn close_code(socket: &mut Socket) -> Option<u16> {
    loop {
        if let Message::Close(frame) = socket.read().unwrap() {
            return frame.map(|frame| frame.code.into());
        }
    }
}

#[test]
fn fixed_routes_answer_as_written() {
    everywhere(|broker| {
        let health = broker.get("/health");
        assert_eq!(status(&health), "200");
        assert!(
            health.contains("\r\nAccess-Control-Allow-Origin: *\r\n"),
            "{health}"
        );
        assert!(
            health.contains(r#"{"status":"ok","db":"up","version":"#),
            "{health}"
        );
        assert!(
            broker
                .get("/health/ready")
                .contains(r#"{"status":"ready","version":"#)
        );
        assert!(broker.get("/health?x").ends_with("\r\n\r\nnot found"));
        assert_eq!(status(&broker.get("/ws")), "404");
        let preflight = broker.exchange(b"OPTIONS /any/thing HTTP/1.0\r\n\r\n");
        assert_eq!(status(&preflight), "204");
        let metrics = broker.get("/metrics");
        assert!(metrics.contains("Content-Type: text/plain; version=0.0.4\r\n"));
        assert!(metrics.contains("\nbroker_connections_active 0\n"));
    });
}

#[test]
fn what_is_not_http_is_refused_and_closed() {
    everywhere(|broker| {
        assert_eq!(status(&broker.exchange(b"\x16\x03\x01\x00\xa5\x01")), "400");
        assert_eq!(
            status(&broker.exchange(b"GET / HTTP/1.1\r\nno colon\r\n\r\n")),
            "400"
        );
        let twice = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(status(&broker.exchange(twice)), "400");
        let large = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000));
        assert_eq!(status(&broker.exchange(large.as_bytes())), "431");
        let body = b"POST /hook/set-status HTTP/1.1\r\nContent-Length: 65537\r\n\r\n";
        let refused = broker.exchange(body);
        assert_eq!(status(&refused), "413");
        assert!(refused.ends_with(r#"{"ok":false,"error":"payload too large"}"#));
        // Nobody else is the worse for it.
        assert_eq!(status(&broker.get("/health")), "200");
    });
}

#[test]
fn one_connection_serves_many_requests_also_pipelined() {
    everywhere(|broker| {
        let mut requests = "GET /health HTTP/1.1\r\n\r\n".repeat(5);
        requests.push_str("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
        let answers = broker.exchange(requests.as_bytes());
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 6);
    });
}

#[test]
fn status_hooks_have_a_bucket_over_all_loops() {
    everywhere(|broker| {
        let hook = |body: &str| {
            let head = "POST /hook/set-status HTTP/1.1\r\nConnection: close\r\nContent-Length: ";
            broker.exchange(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())
        };
        assert_eq!(status(&hook("{")), "500");
        let incomplete = hook(r#"{"cwd":"/elsewhere"}"#);
        assert_eq!(status(&incomplete), "200");
        assert!(incomplete.ends_with(r#"{"ok":false,"error":"cwd and status required"}"#));
        let taken = (0..40)
            .filter(|_| status(&hook(r#"{"cwd":"/x"}"#)) == "200")
            .count();
        assert!((30..=31).contains(&taken), "{taken} of 40");
        assert!(hook(r#"{"cwd":"/x"}"#).ends_with(r#"{"ok":false,"error":"rate limited"}"#));
    });
}

#[test]
fn only_the_exact_target_upgrades() {
    everywhere(|broker| {
        for target in ["/", "/ws/", "/ws?x", "/health"] {
            let answer = broker.exchange(format!("GET {target} HTTP/1.1\r\n{UPGRADE}").as_bytes());
            assert_eq!(answer, "", "{target}");
        }
        let old = UPGRADE.replace("13", "8");
        let answer = broker.exchange(format!("GET /ws HTTP/1.1\r\n{old}").as_bytes());
        assert_eq!(status(&answer), "426");
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        let keyless = UPGRADE.replace("-Key", "-Kez");
        let answer = broker.exchange(format!("GET /ws HTTP/1.1\r\n{keyless}").as_bytes());
        assert_eq!(status(&answer), "400");
    });
}

#[test]
fn frames_that_come_with_the_upgrade_are_heard() {
    everywhere(|broker| {
        let mut stream = broker.connect();
        let mut bytes = format!("GET /ws HTTP/1.1\r\n{UPGRADE}").into_bytes();
        bytes.extend(frame(0x89, b"early"));
        stream.write_all(&bytes).unwrap();
        let answer = until(&mut stream, b"\x8a\x05early");
        assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    });
}

#[test]
fn frames_that_come_just_behind_the_upgrade_are_heard() {
    everywhere(|broker| {
        for pause in (0..20).map(|step| Duration::from_micros(step * 20)) {
            let mut stream = broker.connect();
            write!(stream, "GET /ws HTTP/1.1\r\n{UPGRADE}").unwrap();
            thread::sleep(pause);
            stream.write_all(&frame(0x89, b"soon")).unwrap();
            until(&mut stream, b"\x8a\x04soon");
        }
        // More than is read at once.
        let mut stream = broker.connect();
        let mut bytes = format!("GET /ws HTTP/1.1\r\n{UPGRADE}").into_bytes();
        while bytes.len() < 2 * READ_BYTES {
            bytes.extend(frame(0x8a, &[0; 125]));
        }
        bytes.extend(frame(0x89, b"late"));
        stream.write_all(&bytes).unwrap();
        until(&mut stream, b"\x8a\x04late");
    });
}

#[test]
fn violations_end_with_their_close_code() {
    everywhere(|broker| {
        for (bytes, code) in [
            (&[0x81, 0x01, b'x'][..], 1002_u16),
            (&frame(0xc1, b"x"), 1002),
            (&frame(0x83, b"x"), 1002),
            (&frame(0x80, b"x"), 1002),
            (&frame(0x09, b"x"), 1002),
            (&[0x89, 0xfe, 0x00, 0x7e, 0, 0, 0, 0], 1002),
            (&frame(0x88, b"\x00"), 1002),
            (&frame(0x88, b"\x03\xee"), 1002),
            (&frame(0x81, b"\xff"), 1007),
            (
                &[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa1, 0, 0, 0, 0],
                1009,
            ),
        ] {
            let mut socket = broker.upgrade();
            socket.get_mut().write_all(bytes).unwrap();
            assert_eq!(close_code(&mut socket), Some(code), "{bytes:?}");
        }
        assert_eq!(status(&broker.get("/health")), "200");
    });
}

#[test]
fn a_client_that_closes_gets_its_code_back() {
    everywhere(|broker| {
        let mut socket = broker.upgrade();
        socket.send(Message::Ping("x".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("x".into()));
        socket
            .close(Some(CloseFrame {
                code: 4321.into(),
                reason: "bye".into(),
            }))
            .unwrap();
        assert_eq!(close_code(&mut socket), Some(4321));
        let mut socket = broker.upgrade();
        socket.close(None).unwrap();
        assert_eq!(close_code(&mut socket), None);
    });
}

#[test]
fn a_flood_of_one_client_leaves_time_for_another() {
    let broker = Broker::start(DRIVERS[0], 1);
    let mut flooding = broker.connect();
    flooding
        .write_all(format!("GET /ws HTTP/1.1\r\n{UPGRADE}").as_bytes())
        .unwrap();
    let pings = frame(0x8a, b"x").repeat(10_000);
    let flood = thread::spawn(move || while flooding.write_all(&pings).is_ok() {});
    let mut calm = broker.upgrade();
    for _ in 0..50 {
        calm.send(Message::Ping("x".into())).unwrap();
        assert_eq!(calm.read().unwrap(), Message::Pong("x".into()));
    }
    broker.server.join();
    flood.join().unwrap();
}

#[test]
fn stopping_closes_every_socket_1001_and_the_port() {
    everywhere(|broker| {
        let sockets: Vec<_> = (0..100).map(|_| broker.upgrade()).collect();
        let idle = broker.connect();
        broker.server.shutdown();
        for mut socket in sockets {
            assert_eq!(close_code(&mut socket), Some(1001));
            assert!(socket.read().is_err(), "the end");
        }
        drop(idle);
        let refused = TcpStream::connect(broker.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let broker = Broker::start(DRIVERS[1], 2);
    for threads in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let listen = broker.address;
        let error = Server::start(ServeConfig {
            listen,
            ..config(&folder, threads)
        })
        .unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }));
        let line = error.to_string();
        assert!(
            line.starts_with(&format!("cannot listen on {listen}: ")),
            "{line}"
        );
        assert!(!line.contains('\n'), "{line}");
        // Nothing was made.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// Each boot that is counted brings the leases of those who have not come back nearer their end.
#[test]
fn a_start_that_cannot_listen_for_administrators_counts_no_boot() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, 1);
    let occupied = crate::admin::socket_path(&config.db);
    std::fs::write(&occupied, "precious").unwrap();
    let error = Server::start(config.clone()).unwrap_err();
    assert!(matches!(error, StartError::Admin { .. }), "{error}");
    let boots = || {
        let conn = rusqlite::Connection::open(&config.db).unwrap();
        let boots = conn.query_row("SELECT count(*) FROM boot", [], |row| row.get::<_, i64>(0));
        boots.unwrap()
    };
    assert_eq!(boots(), 0);
    std::fs::remove_file(occupied).unwrap();
    Server::start(config.clone()).unwrap().join();
    assert_eq!(boots(), 1);
}

#[test]
fn what_ends_a_broker_that_runs_is_not_called_a_failed_start() {
    assert!(Notice::Ready.end().is_none());
    assert!(matches!(Notice::Signal.end(), Some(Ok(()))));
    let failed = Notice::Failed(std::io::Error::from(ErrorKind::OutOfMemory));
    let line = failed.end().unwrap().unwrap_err().to_string();
    assert_eq!(line, "a loop has ended: out of memory");
    assert!(matches!(
        Notice::Died.end(),
        Some(Err(StartError::LoopDied))
    ));
}

#[test]
fn every_loop_keeps_its_own_descriptors_back() {
    assert_eq!(sockets_max(1024, 1) - sockets_max(1024, 9), 8 * 8);
    // What 4 loops and 16 administrators need of 64 was counted: 56.
    assert_eq!(sockets_max(64, 4), 8);
    assert!(sockets_max(16, 1) > 0);
}
