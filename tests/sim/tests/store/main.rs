//! The store model against the real store: the same random operations through both, every answer
//! and every boot image compared.

#![expect(clippy::unwrap_used, reason = "whatever fails here fails the test")]

mod maker;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use holdfast::config::Durability;
use holdfast::store::{Completion, CompletionSink, Store, StoreClient};
use holdfast_core::ids::Token;
use holdfast_core::limits::LogLimits;
use holdfast_core::rows::{BootRow, StoreOp};
use holdfast_core::time::{Millis, Wall};
use holdfast_sim::disk::tables::Tables;
use maker::Maker;

/// Of the log of a mesh; nothing here is as old.
const LOG: LogLimits = LogLimits {
    entries: 7,
    bytes: 10_000,
    age: Millis::secs(3600),
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Results(Sender<Completion>);

impl CompletionSink for Results {
    fn complete(&self, _shard: u16, batch: Vec<Completion>) {
        for completion in batch {
            // Whoever waited has failed if nobody takes it.
            self.0.send(completion).ok();
        }
    }

    fn died(&self) {}
}

#[expect(
    clippy::disallowed_methods,
    reason = "rows that are long past would be swept away"
)]
fn present() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// The real store and its model, side by side.
struct Pair {
    client: StoreClient,
    results: Receiver<Completion>,
    tables: Tables,
    tokens: u64,
}

impl Pair {
    /// One operation, or question, through both.
    fn step(&mut self, maker: &mut Maker) {
        self.tokens += 1;
        let token = Token(self.tokens);
        if maker.chance.below(3) == 0 {
            let query = maker.query();
            self.client.query(query.clone(), token);
            let Ok(Completion::Answered { result, .. }) = self.results.recv_timeout(PATIENCE)
            else {
                panic!("no answer to {query:?}");
            };
            let answer = format!("{:?}", result.unwrap());
            assert_eq!(
                answer,
                format!("{:?}", self.tables.answer(&query)),
                "{query:?}"
            );
            return;
        }
        self.perform(maker.op());
    }

    fn perform(&mut self, op: StoreOp) {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.client.persist(op.clone(), Some(token));
        let Ok(Completion::Stored { result, .. }) = self.results.recv_timeout(PATIENCE) else {
            panic!("no result of {op:?}");
        };
        assert_eq!(result, self.tables.apply(&op), "{op:?}");
    }
}

/// Rows of a boot in an order of their own: that of the store is nobody's business.
fn lines(rows: &[BootRow]) -> Vec<String> {
    // The key of resume tokens is made by chance.
    let rows = rows.iter().filter(|row| !matches!(row, BootRow::Resume(_)));
    let mut lines: Vec<String> = rows.map(|row| format!("{row:?}")).collect();
    lines.sort();
    lines
}

fn open(path: &Path) -> Store {
    Store::open(path, Durability::Normal).unwrap()
}

fn run(seed: u64) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("holdfast.db");
    let store = open(&path);
    let admin = store.admin();
    let (mut meshes, mut members) = (Vec::new(), Vec::new());
    for slug in ["alpha", "beta"] {
        let made = admin.mesh_create(slug, None).unwrap();
        members.push(made.owner);
        let second = admin.member_add(slug, "second", None, false).unwrap();
        members.push(second.member);
        meshes.push(made.mesh);
    }
    store.close();
    let mut tables = Tables::new(meshes, members.clone());
    let mut maker = Maker::new(seed, members, present());
    for _boot in 0..6 {
        let store = open(&path);
        let first = store.next_seq().unwrap();
        let (give, taken) = channel();
        let image = store.boot(LOG, move |rows| give.send(rows).unwrap());
        let stored: Vec<BootRow> = taken.iter().flatten().collect();
        let (rows, next) = tables.boot(&LOG, Wall(present()));
        assert_eq!(image.unwrap().skipped, 0);
        assert_eq!(lines(&stored), lines(&rows), "seed {seed}");
        assert_eq!(first, next);
        maker.first = next.0;
        let (send, results) = channel();
        store.start(Arc::new(Results(send)));
        let client = store.client(0);
        let mut pair = Pair {
            client,
            results,
            tables,
            tokens: 0,
        };
        // Some starts end before they have granted anything.
        if maker.chance.below(4) > 0 {
            pair.perform(maker.restart());
        }
        for _ in 0..150 {
            pair.step(&mut maker);
        }
        tables = pair.tables;
        drop(pair.client);
        store.close();
    }
}

#[test]
fn the_model_answers_and_boots_as_the_store_does() {
    for seed in 0..20 {
        run(seed);
    }
}
