//! A database that is taken away while it is open.

use super::*;
use crate::store::AdminError;

const MOVED: HealthState = HealthState::Failing(StoreFailure::Moved);

#[test]
fn what_is_moved_away_refuses_and_what_comes_back_heals() {
    let world = World::new();
    let away = world.path.with_extension("away");
    std::fs::rename(&world.path, &away).unwrap();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    assert_eq!(world.stored(), (1, Err(StoreFailure::Moved)));
    assert_eq!(world.health().state, MOVED);
    world.client.persist(
        StoreOp::PresencePut(Box::new(world.presence("p1"))),
        Some(Token(2)),
    );
    assert_eq!(world.stored(), (2, Err(StoreFailure::Moved)));
    let refused = world.store.admin().mesh_create("beta", None).unwrap_err();
    assert!(matches!(refused, AdminError::Failing(StoreFailure::Moved)));

    // Another file in its place is not it, however often it is tried again.
    std::fs::copy(&away, &world.path).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(world.health().state, MOVED);

    std::fs::rename(&away, &world.path).unwrap();
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.count("presence"), 1, "kept");
    assert_eq!(world.count("message_queue"), 0);
    assert_eq!(world.count("mesh"), 1);
    world.persist(world.insert(2, key(1)));
}

#[test]
fn a_deleted_database_is_noticed_while_nobody_writes() {
    let world = World::new();
    std::fs::remove_file(&world.path).unwrap();
    world.wait_until(MOVED);
    // What is left can still be written to, which proves nothing.
    for _ in 0..100 {
        assert_eq!(world.health().state, MOVED);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_deleted_wal_is_noticed() {
    let world = World::new();
    std::fs::remove_file(wal(&world.path)).unwrap();
    world
        .client
        .persist(world.insert(1, key(1)), Some(Token(1)));
    assert_eq!(world.stored(), (1, Err(StoreFailure::Moved)));
}
