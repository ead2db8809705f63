//! What a socket may do before its hello has been accepted, and after.

use super::*;
use crate::admin::client::ask_running;
use crate::admin::protocol::{NewMesh, Reply, Request};
use crate::core::identity::{HelloText, KeyPair};
use crate::shell::clock::Clock;
use crate::shell::limits::HELLO_BYTES_MAX;

impl Broker {
    fn mesh(&self, slug: &str) -> NewMesh {
        let create = Request::MeshCreate {
            slug: slug.to_owned(),
            name: None,
        };
        let made = ask_running(&self.folder.path().join("holdfast.db"), &create).unwrap();
        let Reply::MeshCreated(mesh) = made else {
            panic!("{made:?}")
        };
        mesh
    }
}

/// The owner's hello, as long as `padding` makes it.
fn hello(mesh: &NewMesh, padding: usize) -> Message {
    let keys = KeyPair::from_libsodium_hex(&mesh.owner_secret_key).unwrap();
    let timestamp = Clock::start().now().wall;
    let said = HelloText {
        mesh_id: &mesh.mesh_id,
        member_id: &mesh.owner_member_id,
        pubkey: &mesh.owner_pubkey,
        timestamp,
    };
    let hello = serde_json::json!({
        "type": "hello",
        "meshId": mesh.mesh_id,
        "memberId": mesh.owner_member_id,
        "pubkey": mesh.owner_pubkey,
        "timestamp": timestamp.0,
        "signature": keys.sign(said.text().as_bytes()),
        "sessionId": "s",
        "pid": 1,
        "cwd": "/x",
        "padding": "x".repeat(padding),
    });
    Message::text(hello.to_string())
}

/// More than a stranger may say.
const LARGE: usize = 2 * HELLO_BYTES_MAX;

/// The next text.
fn text(socket: &mut Socket) -> String {
    loop {
        let message = socket.read().unwrap();
        assert!(!message.is_close(), "{message:?}");
        if let Message::Text(text) = message {
            return text.to_string();
        }
    }
}

#[test]
fn strangers_say_little_and_members_as_much_as_was_configured() {
    for driver in DRIVERS {
        for threads in [1, 2] {
            let broker = Broker::start_with(driver, threads, |config| {
                config.max_frame_bytes = LARGE;
            });
            sizes(&broker);
            broker.server.join();
            drop(broker.folder);
        }
    }
}

fn sizes(broker: &Broker) {
    // On two loops, some of these live where they were accepted and some do not.
    for slug in ["a", "b", "c", "d"] {
        let mesh = broker.mesh(slug);
        let mut socket = broker.upgrade();
        // An error is no welcome.
        socket.send(Message::text("{}")).unwrap();
        assert!(text(&mut socket).contains("error"));
        let mut stranger = broker.upgrade();
        stranger.send(Message::text("{}")).unwrap();
        let flood = Message::text("x".repeat(HELLO_BYTES_MAX + 1));
        stranger.send(flood).unwrap();
        assert_eq!(close_code(&mut stranger), Some(1009));
        socket.send(hello(&mesh, HELLO_BYTES_MAX / 2)).unwrap();
        let welcome = text(&mut socket);
        assert!(welcome.starts_with(r#"{"type":"hello_ack","#), "{welcome}");
        let padding = "x".repeat(LARGE - 100);
        let long = format!(r#"{{"type":"list_peers","padding":"{padding}"}}"#);
        socket.send(Message::text(long)).unwrap();
        assert!(text(&mut socket).contains("peers_list"));
        let long = Message::text("x".repeat(LARGE + 1));
        socket.send(long).unwrap();
        assert_eq!(close_code(&mut socket), Some(1009));
    }
}
