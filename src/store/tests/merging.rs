//! Messages confirmed in the transaction that stores them.

use super::*;
use crate::store::lanes::Entry;
use crate::store::merge::Merged;
use crate::store::queue::Item;

fn delivered(seq: u64, at: i64) -> StoreOp {
    StoreOp::MessageDelivered {
        seq: Seq(seq),
        at: Wall(at),
    }
}

fn merged(ops: Vec<Item>) -> Vec<(u64, i64)> {
    let entry = |item| Entry { shard: 0, item };
    let batch: Vec<Entry> = ops.into_iter().map(entry).collect();
    let merged = Merged::of(&batch).0.into_iter();
    let mut merged: Vec<_> = merged.map(|(seq, at)| (seq.0, at.0)).collect();
    merged.sort_unstable();
    merged
}

#[test]
fn what_comes_after_its_insert_is_merged_unless_somebody_could_tell() {
    let world = World::new();
    let op = |op| Item::Op { op, token: None };
    let insert = |seq| op(world.insert(seq, key(1)));
    let items = vec![
        op(delivered(1, 10)),
        insert(1),
        insert(2),
        insert(3),
        op(delivered(2, 20)),
        op(delivered(2, 21)),
    ];
    assert_eq!(merged(items), [(2, 20)], "the first counts");
    let query = Item::Query {
        query: StoreQuery::Message { seq: Seq(1) },
        token: Token(9),
    };
    let (first, second) = (op(delivered(1, 1)), op(delivered(2, 2)));
    let items = vec![insert(1), query, insert(2), first, second];
    assert_eq!(merged(items), [(2, 2)], "not across a question");
    let acked = StoreOp::MessageAcked {
        mesh_id: String::new(),
        seq: Some(Seq(1)),
        client_message_id: None,
        keys: Vec::new(),
        at: Wall(1),
    };
    let items = vec![insert(1), op(acked), op(delivered(1, 1))];
    assert_eq!(merged(items), [], "not across an acknowledgement");
}

#[test]
fn merged_or_not_the_rows_say_the_same() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    let release = world.hold_writer();
    let ops = [
        // Refused: it is there already.
        world.insert(1, key(1)),
        world.insert(2, key(1)),
        world.insert(3, key(1)),
        delivered(1, 11),
        delivered(2, 12),
    ];
    for (op, token) in ops.into_iter().zip(1..) {
        world.client.persist(op, Some(Token(token)));
    }
    let before = world.health().commits;
    release.wait();
    let results: Vec<_> = (0..5).map(|_| world.stored().1).collect();
    assert_eq!(world.health().commits - before, 1);
    assert_eq!(
        results,
        [Err(StoreFailure::Io), Ok(()), Ok(()), Ok(()), Ok(())]
    );
    assert_eq!(
        world.count("message_queue WHERE delivered_at = seq + 10"),
        2
    );
    assert_eq!(world.count("message_queue WHERE delivered_at IS NULL"), 1);
    assert_eq!(world.health().undelivered, 1);
}
