//! The client library against the real binary.

#[expect(dead_code, reason = "the process tests use more of it")]
#[path = "support/broker.rs"]
mod broker;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Launch};
use holdfast::client::{
    Backoff, CUT, Client, End, Event, Identity, Loss, Outgoing, PeerChange, Profile, Settings,
    Voucher, Welcome,
};
use holdfast::core::identity::KeyPair;
use holdfast::core::time::Millis;

const PATIENCE: Duration = Duration::from_secs(10);

/// A reconnect soon after the broker is back.
const SWIFT: Backoff = Backoff {
    first: Millis(50),
    max: Millis(200),
};

/// Long enough to see what should not come.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// A member of the broker's mesh, as the command line makes one.
struct Member {
    mesh: String,
    id: String,
    keys: Arc<KeyPair>,
}

fn member(broker: &Broker, name: &str) -> Member {
    let member = broker.admin(&["member", "add", "team", "--name", name]);
    let text = |field: &str| member[field].as_str().expect("member add tells it");
    let keys = KeyPair::from_libsodium_hex(text("secretKey"));
    Member {
        mesh: text("meshId").to_owned(),
        id: text("memberId").to_owned(),
        keys: Arc::new(keys.expect("a secret key was promised")),
    }
}

fn session(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32])
}

fn launched(member: &Member, seed: u8) -> Identity {
    let voucher = Voucher::Keys(Arc::clone(&member.keys));
    Identity::launched(&*member.mesh, &*member.id, voucher, session(seed))
}

fn spawn(broker: &Broker, identity: Identity, reconnect: Option<Backoff>) -> Client {
    let settings = Settings {
        reconnect,
        ..Settings::default()
    };
    let url = broker.address("ws") + "/ws";
    Client::spawn(&url, identity, settings).expect("a client must start")
}

/// The events up to the first that is `wanted`, which is the last of them.
fn until(client: &Client, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        match client.events().recv_timeout(PATIENCE) {
            Ok(event) => seen.push(event),
            Err(error) => panic!("{error} before {what}; seen: {seen:#?}"),
        }
        if seen.last().is_some_and(&mut wanted) {
            return seen;
        }
    }
}

fn welcome(client: &Client) -> Welcome {
    let seen = until(client, "the welcome", |event| {
        matches!(event, Event::Welcome(_))
    });
    match seen.into_iter().last() {
        Some(Event::Welcome(welcome)) => welcome,
        other => panic!("{other:?} is no welcome"),
    }
}

/// What comes within a while.
fn afterwards(client: &Client) -> Vec<Event> {
    std::iter::from_fn(|| client.events().recv_timeout(AFTERWARDS).ok()).collect()
}

#[test]
fn a_cut_session_is_back_unnoticed_and_misses_nothing() {
    let broker = Broker::start(Launch::default());
    broker.admin(&["mesh", "create", "team"]);
    let alice = spawn(&broker, launched(&member(&broker, "alice"), 1), None);
    assert!(!welcome(&alice).reattached);
    let bob = spawn(&broker, launched(&member(&broker, "bob"), 2), None);
    let first = welcome(&bob);
    assert!(!first.reattached);
    let joined =
        |event: &Event| matches!(event, Event::Peer(peer) if peer.change == PeerChange::Joined);
    until(&alice, "bob's join", joined);

    bob.cut().expect("bob is there");
    let cut = until(&bob, "the cut", |event| matches!(event, Event::Lost { .. }));
    let Some(Event::Lost {
        why: Loss::Broken(why),
        ..
    }) = cut.last()
    else {
        panic!("{cut:?}");
    };
    assert_eq!(why, CUT);
    let bob_key = session(2).public().to_string();
    let id = alice
        .send(Outgoing::new(bob_key, "aGk="))
        .expect("alice is there");
    let acked = until(&alice, "the ack", |event| {
        matches!(event, Event::Acknowledged { .. })
    });
    let Some(Event::Acknowledged {
        client_message_id,
        message_id,
        ..
    }) = acked.last()
    else {
        panic!("{acked:?}");
    };
    assert_eq!(*client_message_id, id);

    bob.connect().expect("bob is there");
    let again = welcome(&bob);
    assert!(again.reattached);
    assert_eq!(again.presence_id, first.presence_id);
    let mut seen = until(&bob, "the message", |event| {
        matches!(event, Event::Message(_))
    });
    seen.extend(afterwards(&bob));
    let [Event::Message(message)] = &seen[..] else {
        panic!("one message and nothing else: {seen:#?}");
    };
    assert_eq!(
        (&message.message_id, &*message.ciphertext),
        (message_id, "aGk=")
    );
    assert_eq!(message.sender_name.as_deref(), Some("alice"));
    assert_eq!(afterwards(&alice), [], "nobody noticed");

    bob.goodbye().expect("bob is there");
    let seen = until(&bob, "the end", |event| matches!(event, Event::Gone(_)));
    assert_eq!(seen, [Event::Gone(End::Left)]);
    let seen = until(&alice, "the leave", |event| matches!(event, Event::Peer(_)));
    let [Event::Peer(peer)] = &seen[..] else {
        panic!("one leave and nothing else: {seen:#?}");
    };
    assert_eq!((peer.change, &*peer.name), (PeerChange::Left, "bob"));
}

#[test]
fn a_session_returns_by_itself_until_it_is_told_not_to() {
    let mut broker = Broker::start(Launch::default());
    broker.admin(&["mesh", "create", "team"]);
    let member = member(&broker, "alice");
    let alice = spawn(&broker, launched(&member, 1), Some(SWIFT));
    let first = welcome(&alice);
    // Once this is acknowledged, the lease is on disk as well.
    alice
        .send(Outgoing::new("*", "aGk="))
        .expect("alice is there");
    let acked = |event: &Event| matches!(event, Event::Acknowledged { .. });
    until(&alice, "the ack", acked);
    broker.kill();
    broker.start_again();
    let again = welcome(&alice);
    assert!(again.reattached);
    assert_eq!(again.presence_id, first.presence_id);
    broker.admin(&["member", "revoke", &member.id]);
    let seen = until(&alice, "the end", |event| matches!(event, Event::Gone(_)));
    let end = seen.last();
    assert!(
        matches!(end, Some(Event::Gone(End::Banned { .. }))),
        "{end:?}"
    );
}

#[test]
fn members_and_one_shot_commands_are_served_too() {
    let broker = Broker::start(Launch::default());
    broker.admin(&["mesh", "create", "team"]);
    let alice = member(&broker, "alice");
    let profile = Profile {
        session_id: "daemon".into(),
        lease: Some(Millis::secs(7)),
        ..Profile::default()
    };
    let identity = Identity::member(&*alice.mesh, &*alice.id, Arc::clone(&alice.keys));
    let daemon = spawn(&broker, identity.with(profile), Some(SWIFT));
    assert_eq!(welcome(&daemon).lease_ttl_ms, Some(7000), "as it asked for");
    daemon.cut().expect("it is there");
    assert!(welcome(&daemon).reattached);

    let bob = member(&broker, "bob");
    let identity = Identity::one_shot(&*bob.mesh, &*bob.id, bob.keys, session(3));
    let command = spawn(&broker, identity, None);
    // Sent as soon as it is connected; and it leaves as soon as this is acknowledged.
    let id = command
        .send(Outgoing::new("*", "aGk="))
        .expect("it is there");
    command.goodbye().expect("it is there");
    let seen = until(&command, "the end", |event| matches!(event, Event::Gone(_)));
    let [
        Event::Welcome(_),
        Event::Acknowledged {
            client_message_id, ..
        },
        end,
    ] = &seen[..]
    else {
        panic!("{seen:#?}");
    };
    assert_eq!((client_message_id, end), (&id, &Event::Gone(End::Left)));
    let change = |event: &Event| {
        let Event::Peer(peer) = event else {
            return None;
        };
        Some(peer.change)
    };
    let left = |event: &Event| change(event) == Some(PeerChange::Left);
    let seen = until(&daemon, "the leave", left);
    let changes: Vec<PeerChange> = seen.iter().filter_map(change).collect();
    assert_eq!(changes, [PeerChange::Joined, PeerChange::Left]);
    let heard = |event: &&Event| matches!(event, Event::Message(_));
    assert_eq!(seen.iter().filter(heard).count(), 1, "{seen:#?}");
}

#[test]
fn a_burst_arrives_whole_and_in_order_through_cuts() {
    const BURST: usize = 1000;
    let broker = Broker::start(Launch {
        flags: ["--send-rate", "0"].map(str::to_owned).to_vec(),
        ..Launch::default()
    });
    broker.admin(&["mesh", "create", "team"]);
    let alice = spawn(&broker, launched(&member(&broker, "alice"), 1), None);
    let bob = spawn(&broker, launched(&member(&broker, "bob"), 2), Some(SWIFT));
    welcome(&alice);
    welcome(&bob);
    for n in 0..BURST {
        let message = Outgoing::new(session(2).public().to_string(), n.to_string());
        alice.send(message).expect("alice is there");
    }
    let (mut received, mut cuts) = (Vec::new(), 0);
    while received.len() < BURST {
        let event = bob.events().recv_timeout(PATIENCE);
        let event = event.unwrap_or_else(|error| panic!("{error} after {}", received.len()));
        assert!(!matches!(event, Event::Gone(_)), "{event:?}");
        if matches!(event, Event::Lost { .. }) {
            cuts += 1;
        }
        let Event::Message(message) = event else {
            continue;
        };
        received.push(message.ciphertext);
        if received.len() % 100 == 50 {
            bob.cut().expect("bob is there");
        }
    }
    let sent: Vec<String> = (0..BURST).map(|n| n.to_string()).collect();
    assert_eq!(received, sent);
    assert!(cuts > 0, "nothing was tried");
    let mut acknowledged = 0;
    until(&alice, "the last ack", |event| {
        assert!(!matches!(event, Event::Refused { .. }), "{event:?}");
        acknowledged += usize::from(matches!(event, Event::Acknowledged { .. }));
        acknowledged == BURST
    });
}

/// The value of one line of `/metrics`.
fn metric(broker: &Broker, line: &str) -> u64 {
    let mut socket = TcpStream::connect(broker.address("")[3..].to_owned()).expect("it serves");
    let request = "GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let value = answer.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

#[test]
fn a_sender_that_is_cut_sends_again_and_nothing_comes_twice() {
    const BURST: usize = 500;
    let broker = Broker::start(Launch {
        flags: ["--send-rate", "0"].map(str::to_owned).to_vec(),
        ..Launch::default()
    });
    broker.admin(&["mesh", "create", "team"]);
    let alice = spawn(&broker, launched(&member(&broker, "alice"), 1), Some(SWIFT));
    let bob = spawn(&broker, launched(&member(&broker, "bob"), 2), None);
    welcome(&alice);
    welcome(&bob);
    let mut acknowledged = 0;
    for n in 0..BURST {
        let message = Outgoing::new(session(2).public().to_string(), n.to_string());
        alice.send(message).expect("alice is there");
        if n % 100 == 50 {
            // Some are under way, and their acks will never be read.
            until(&alice, "an ack", |event| {
                acknowledged += usize::from(matches!(event, Event::Acknowledged { .. }));
                matches!(event, Event::Acknowledged { .. })
            });
            alice.cut().expect("alice is there");
        }
    }
    until(&alice, "the last ack", |event| {
        assert!(!matches!(event, Event::Refused { .. }), "{event:?}");
        acknowledged += usize::from(matches!(event, Event::Acknowledged { .. }));
        acknowledged == BURST
    });
    let mut received = Vec::new();
    until(&bob, "the last message", |event| {
        if let Event::Message(message) = event {
            received.push(message.ciphertext.clone());
        }
        received.len() == BURST
    });
    received.extend(afterwards(&bob).iter().map(|event| format!("{event:?}")));
    received.sort_by_key(|text| text.parse::<usize>().ok());
    let sent: Vec<String> = (0..BURST).map(|n| n.to_string()).collect();
    assert_eq!(received, sent, "each once");
    let resumed = metric(&broker, "holdfast_resume_tokens_total{result=\"accepted\"}");
    assert!(resumed > 0, "a return needs no signature");
}

#[test]
fn addresses_with_tls_are_refused_at_once() {
    let keys = Arc::new(KeyPair::from_seed([1; 32]));
    let identity = Identity::member("mesh", "member", keys);
    let error = Client::spawn("wss://127.0.0.1/ws", identity, Settings::default());
    let error = error.expect_err("there is no TLS here").to_string();
    assert!(error.contains("wss://"), "{error}");
}
