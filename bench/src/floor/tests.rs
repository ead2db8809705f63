//! Real clients against each kind of floor.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tungstenite::{Bytes, Message, WebSocket};

use super::serve::{listen_on, run};
use super::*;

type Client = WebSocket<TcpStream>;

/// A floor on a thread of this process, which it outlives; where it listens.
fn floor(kind: Kind, ping: Duration) -> SocketAddr {
    let listener = listen_on(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || run(listener, kind, ping).unwrap());
    address
}

fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let (client, _) = tungstenite::client(format!("ws://{address}/ws"), stream).unwrap();
    client
}

/// Whether the pong to a ping is the next thing that comes.
fn is_silent(client: &mut Client) -> bool {
    let payload = Bytes::from_static(b"still there?");
    client.send(Message::Ping(payload.clone())).unwrap();
    client.read().unwrap() == Message::Pong(payload)
}

#[test]
fn upgrade_answers_pings_and_nothing_else() {
    let address = floor(Kind::Upgrade, Duration::ZERO);
    let mut client = connect(address);
    client.send(Message::text("ignored")).unwrap();
    assert!(is_silent(&mut client));
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(None))));
    assert!(client.read().is_err());
}

#[test]
fn a_second_is_enough_to_be_pinged_each_second() {
    for kind in [Kind::Upgrade, Kind::Fanout] {
        let address = floor(kind, Duration::from_secs(1));
        let mut clients: Vec<Client> = (0..20).map(|_| connect(address)).collect();
        for client in &mut clients {
            for _ in 0..2 {
                assert_eq!(client.read().unwrap(), Message::Ping(Bytes::new()));
            }
            client
                .send(Message::Ping(Bytes::from_static(b"?")))
                .unwrap();
            while client.read().unwrap() != Message::Pong(Bytes::from_static(b"?")) {}
        }
    }
}

#[test]
fn echo_gives_back_what_came_in_any_pieces() {
    let address = floor(Kind::Echo, Duration::ZERO);
    let mut clients: Vec<Client> = (0..50).map(|_| connect(address)).collect();
    for len in [0, 1, 125, 126, 200, 5000, 60_000] {
        for (at, client) in (0_u8..).zip(&mut clients) {
            client.send(Message::text(at.to_string())).unwrap();
            client.send(Message::binary(vec![at; len])).unwrap();
        }
        for (at, client) in (0_u8..).zip(&mut clients) {
            assert_eq!(client.read().unwrap(), Message::text(at.to_string()));
            assert_eq!(client.read().unwrap(), Message::binary(vec![at; len]));
        }
    }
    assert!(is_silent(&mut clients[7]));
}

#[test]
fn what_no_client_may_send_ends_its_connection_only() {
    let address = floor(Kind::Echo, Duration::ZERO);
    let mut good = connect(address);
    let mut bad = connect(address);
    io::Write::write_all(bad.get_mut(), &[0x81, 0x01, 0x41]).unwrap();
    assert!(bad.read().is_err());
    let mut long = connect(address);
    long.send(Message::binary(vec![1; 100_000])).unwrap();
    assert!(long.read().is_err());
    assert!(is_silent(&mut good));
}

#[test]
fn verify_answers_the_first_text_only() {
    let address = floor(Kind::Verify, Duration::ZERO);
    for _ in 0..3 {
        let mut client = connect(address);
        client.send(Message::text("hello")).unwrap();
        assert_eq!(client.read().unwrap(), Message::text("v".repeat(200)));
        client.send(Message::text("hello")).unwrap();
        assert!(is_silent(&mut client));
    }
}

#[test]
fn fanout_reaches_all_others_in_order() {
    const MESSAGES: usize = 200;
    let address = floor(Kind::Fanout, Duration::ZERO);
    let mut clients: Vec<Client> = (0..60).map(|_| connect(address)).collect();
    let gone = clients.pop().unwrap();
    drop(gone);
    for number in 0..MESSAGES {
        let text = format!("{number} {}", "x".repeat(number * 10));
        clients[0].send(Message::text(text)).unwrap();
    }
    for client in &mut clients[1..] {
        for number in 0..MESSAGES {
            let text = format!("{number} {}", "x".repeat(number * 10));
            assert_eq!(client.read().unwrap(), Message::text(text));
        }
    }
    assert!(is_silent(&mut clients[0]));
    assert!(is_silent(&mut clients[1]));
}

/// A program that stands in for this one, which is a test here.
fn script(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[test]
fn a_server_is_started_with_its_arguments_and_ended_by_dropping() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("arguments");
    let text = format!("echo \"$@\" > {}\necho 4242\ncat", said.display());
    let ping = Duration::from_secs(7);
    let server = FloorServer::start_program(&script(&dir, &text), Kind::Verify, ping).unwrap();
    assert_eq!(server.port(), 4242);
    assert_eq!(
        fs::read_to_string(said).unwrap(),
        "floor-server verify --ping 7\n"
    );
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    assert!(process.exists());
    drop(server);
    assert!(!process.exists());
}

#[test]
fn a_server_that_does_not_serve_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (text, said) in [("exit 3", ""), ("echo sorry", "sorry\n")] {
        let program = script(&dir, text);
        let error = FloorServer::start_program(&program, Kind::Echo, Duration::ZERO).unwrap_err();
        let FloorError::NoPort { kind, said: found } = error else {
            panic!("{error}");
        };
        assert_eq!((kind, found.as_str()), ("echo", said));
    }
    let nowhere = PathBuf::from("/nonexistent");
    let error = FloorServer::start_program(&nowhere, Kind::Echo, Duration::ZERO).unwrap_err();
    assert!(matches!(error, FloorError::Start(_)), "{error}");
}

#[test]
fn the_command_line_takes_what_a_server_is_started_with() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    use clap::ValueEnum;
    for kind in Kind::value_variants() {
        let line: Line =
            clap::Parser::try_parse_from([SUBCOMMAND, kind.name(), "--ping", "7"]).unwrap();
        assert_eq!((line.args.kind, line.args.ping), (*kind, 7));
        assert_eq!(line.args.listen.to_string(), "127.0.0.1:0");
    }
}
