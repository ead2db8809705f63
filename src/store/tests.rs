//! The store against real files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::{Completion, CompletionSink, Health, HealthState, NewMesh, Store, StoreClient};
use crate::config::Durability;
use crate::core::identity::KeyPair;
use crate::core::ids::{Position, PubKey, Seq, Token};
use crate::core::limits::LogLimits;
use crate::core::mint::Mint;
use crate::core::rows::{
    AuditRow, BootRow, Group, MessageRow, Origin, PeerRole, PresenceRow, Priority, Status,
    StatusSource, StoreAnswer, StoreFailure, StoreOp, StoreQuery,
};
use crate::core::time::{Millis, Wall};

mod administration;
mod auditing;
mod booting;
mod commits;
mod disk;
mod files;
mod hanging;
mod invites;
mod merging;
mod moving;
mod operations;
mod records;
mod schedules;
mod servers;
mod sharing;
mod sweeping;
mod topics;
mod upgrading;
mod watches;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of the log of a mesh.
const LOG: LogLimits = LogLimits {
    entries: 3,
    bytes: 10_000,
    age: Millis::secs(600),
};

/// A nonce that makes the writer panic.
const PANIC: &str = "panic";

/// Called by the writer for each operation.
pub(super) fn panic_if_told(op: &StoreOp) {
    assert!(
        !matches!(op, StoreOp::MessageInsert(row) if row.nonce == PANIC),
        "told to panic"
    );
}

/// Whose mailbox cannot be read.
fn unreadable() -> PubKey {
    key(255)
}

/// Called for each question: as SQLite does after an error of the disk, ends the transaction.
pub(super) fn fail_if_told(conn: &Connection, query: &StoreQuery) -> rusqlite::Result<()> {
    match query {
        StoreQuery::Mailbox { target, .. } if *target == unreadable() => {
            conn.execute_batch("ROLLBACK")?;
            Err(sqlite_error(rusqlite::ffi::SQLITE_IOERR_READ))
        }
        StoreQuery::Mailbox { .. }
        | StoreQuery::Message { .. }
        | StoreQuery::Sent { .. }
        | StoreQuery::Records(_) => Ok(()),
    }
}

fn sqlite_error(extended_code: std::ffi::c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(extended_code), None)
}

/// Its flag says that the store died.
#[derive(Clone)]
struct Recorder(Sender<(u16, Completion)>, Arc<AtomicBool>);

impl CompletionSink for Recorder {
    fn complete(&self, shard: u16, batch: Vec<Completion>) {
        for completion in batch {
            self.0.send((shard, completion)).ok();
        }
    }

    fn died(&self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

/// What the last process left.
struct Left {
    rows: Vec<BootRow>,
    next_seq: Seq,
    skipped: usize,
}

fn boot(store: &Store) -> Left {
    let next_seq = store.next_seq().unwrap();
    let (give, taken) = channel();
    let deliver = move |rows: Vec<BootRow>| give.send(rows).unwrap();
    let image = store.boot(LOG, deliver).unwrap();
    let rows: Vec<BootRow> = taken.iter().flatten().collect();
    assert_eq!(rows.len(), image.rows);
    Left {
        rows,
        next_seq,
        skipped: image.skipped,
    }
}

/// A store on a file of its own, with one mesh and its owner.
struct World {
    store: Store,
    client: StoreClient,
    results: Receiver<(u16, Completion)>,
    made: NewMesh,
    path: PathBuf,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("holdfast.db");
        let store = Store::open(&path, Durability::Full).unwrap();
        let made = store.admin().mesh_create("alpha", None).unwrap();
        let (client, results) = start(&store);
        // Times in tests are long past: nothing must be swept while they run.
        wait_for(|| store.health().sweeps == 1);
        Self {
            store,
            client,
            results,
            made,
            path,
            _folder: folder,
        }
    }

    /// What is on disk, by another connection.
    fn disk(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn count(&self, condition: &str) -> i64 {
        count(&self.disk(), condition)
    }

    /// The next result of shard 0, which must be of an operation.
    fn stored(&self) -> (u64, Result<(), StoreFailure>) {
        match self.results.recv_timeout(PATIENCE).unwrap() {
            (0, Completion::Stored { token, result }) => (token.0, result),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self) -> Result<StoreAnswer, StoreFailure> {
        match self.results.recv_timeout(PATIENCE).unwrap() {
            (0, Completion::Answered { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until everything given so far is durable.
    fn settle(&self) {
        self.store.admin().call(|_| Ok(())).unwrap();
    }

    /// Carries out one operation and waits for it.
    fn persist(&self, op: StoreOp) {
        self.client.persist(op, Some(Token(0)));
        assert_eq!(self.stored(), (0, Ok(())));
    }

    fn mailbox_query(&self, target: PubKey, after: u64, limit: u32) -> StoreQuery {
        StoreQuery::Mailbox {
            mesh_id: self.made.mesh.id.clone(),
            target,
            after: Seq(after),
            limit,
        }
    }

    fn mailbox(&self, target: PubKey, after: u64, limit: u32) -> (Vec<u64>, bool) {
        let query = self.mailbox_query(target, after, limit);
        self.client.query(query, Token(0));
        match self.answer() {
            Ok(StoreAnswer::Mailbox { rows, more }) => {
                (rows.iter().map(|row| row.seq.0).collect(), more)
            }
            other => panic!("{other:?}"),
        }
    }

    fn presence(&self, id: &str) -> PresenceRow {
        presence(&self.made, id)
    }

    fn message(&self, seq: u64, target: PubKey) -> MessageRow {
        message(&self.made, seq, &target.to_string())
    }

    fn insert(&self, seq: u64, target: PubKey) -> StoreOp {
        sent(self.message(seq, target))
    }

    fn audit(&self, event_type: &'static str) -> StoreOp {
        StoreOp::Audit(Box::new(AuditRow {
            mesh_id: self.made.mesh.id.clone(),
            event_type,
            actor_member_id: None,
            actor_display_name: None,
            payload: json!({}),
            created_at: Wall(1),
        }))
    }

    /// Holds the writer until the returned barrier is waited for; it has begun to wait.
    fn hold_writer(&self) -> Arc<Barrier> {
        let (begun, release) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (its_begun, its_release) = (Arc::clone(&begun), Arc::clone(&release));
        let admin = self.store.admin();
        std::thread::spawn(move || {
            admin
                .call(move |_| {
                    its_begun.wait();
                    its_release.wait();
                    Ok(())
                })
                .ok();
        });
        begun.wait();
        release
    }

    /// Changes the write connection.
    fn pragma(&self, name: &'static str, value: i64) {
        self.store
            .admin()
            .call(move |conn| Ok(conn.pragma_update(None, name, value)?))
            .unwrap();
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn wait_until(&self, state: HealthState) {
        wait_for(|| self.health().state == state);
    }
}

fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain");
}

fn start(store: &Store) -> (StoreClient, Receiver<(u16, Completion)>) {
    let (sender, results) = channel();
    let client = store.client(0);
    store.start(Arc::new(Recorder(sender, Arc::default())));
    (client, results)
}

/// Rows of `condition`, which begins with a table.
fn count(conn: &Connection, condition: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {condition}"), [], |row| {
        row.get(0)
    })
    .unwrap()
}

fn key(seed: u8) -> PubKey {
    KeyPair::from_seed([seed; 32]).public()
}

/// A place for each short id.
fn began(id: &str) -> Position {
    let bytes = id.bytes().take(6);
    Position(bytes.fold(0, |place, byte| place << 8 | u64::from(byte)))
}

fn presence(made: &NewMesh, id: &str) -> PresenceRow {
    PresenceRow {
        id: id.to_owned(),
        mesh_id: made.mesh.id.clone(),
        member_id: made.owner.id.clone(),
        session_id: "s1".to_owned(),
        session_pubkey: Some(key(2)),
        role: PeerRole::Session,
        display_name: "na'me".to_owned(),
        pid: 7,
        cwd: "/tmp".to_owned(),
        hostname: Some("host".to_owned()),
        peer_type: Some("ai".to_owned()),
        channel: None,
        model: None,
        status: Status::Dnd,
        status_source: StatusSource::Manual,
        status_at: Wall(5),
        summary: Some("busy".to_owned()),
        groups: vec![Group {
            name: "a/b".into(),
            role: Some("lead".into()),
        }],
        visible: false,
        profile: r#"{"title":"x"}"#.to_owned(),
        connected_at: Wall(1),
        last_ping_at: Wall(2),
        lease_until: None,
        generation: u32::MAX,
        attested_until: Some(Wall(9)),
        boot_epochs: 0,
        grace: Some(Millis(1)),
        began: began(id),
        joined: Some(Position(4)),
        shown: None,
        cursor: Position(5),
        heard: Position(6),
        known: Position(6),
    }
}

fn message(made: &NewMesh, seq: u64, target_spec: &str) -> MessageRow {
    MessageRow {
        seq: Seq(seq),
        id: Mint::new([3; 32]).message_id(Seq(seq)),
        mesh_id: made.mesh.id.clone(),
        sender_member_id: made.owner.id.clone(),
        sender_member_pubkey: made.owner.pubkey,
        sender_session_pubkey: Some(key(9)),
        sender_name: "owner".to_owned(),
        target_spec: target_spec.to_owned(),
        priority: Priority::Next,
        nonce: "n".to_owned(),
        ciphertext: "c".repeat(200),
        created_at: Wall(100),
        delivered_at: None,
        client_message_id: Some(format!("client-{seq}")),
        request_fingerprint: Some("f".to_owned()),
        reply_to_id: None,
        position: None,
        deferred: true,
        origin: Origin::Sent,
        post: None,
    }
}

/// The message, to be inserted.
fn sent(row: MessageRow) -> StoreOp {
    StoreOp::MessageInsert(Box::new(row))
}

/// The file as a crash at this moment would leave it.
fn crash_image(path: &Path) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("holdfast.db");
    // The WAL second: what a checkpoint moves meanwhile is then in both.
    for (from, to) in [(path.to_owned(), copy.clone()), (wal(path), wal(&copy))] {
        std::fs::copy(from, to).unwrap();
    }
    (folder, copy)
}

fn wal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
