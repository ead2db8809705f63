//! A disk that gives no answer, and threads that die.

use super::*;
use crate::store::threads;

const HANGS: HealthState = HealthState::Failing(StoreFailure::Overloaded);

#[test]
fn who_waits_for_a_disk_that_hangs_is_refused_and_presence_is_kept() {
    let world = World::new();
    let put = |id: &str, token| {
        let row = world.presence(id);
        world
            .client
            .persist(StoreOp::PresencePut(Box::new(row)), Some(Token(token)));
    };
    let insert = |seq| {
        world
            .client
            .persist(world.insert(seq, key(1)), Some(Token(seq)));
    };
    let release = world.hold_writer();
    insert(1);
    put("p1", 2);
    world
        .client
        .query(world.mailbox_query(key(1), 0, 1), Token(3));
    let slow = Err(StoreFailure::Overloaded);
    // Given before anybody could know.
    assert_eq!([world.stored(), world.stored()], [(1, slow), (2, slow)]);
    assert_eq!(world.answer().unwrap_err(), StoreFailure::Overloaded);
    assert_eq!(world.health().state, HANGS);
    // And afterwards.
    insert(4);
    put("p2", 5);
    assert_eq!([world.stored(), world.stored()], [(4, slow), (5, slow)]);
    assert_eq!(world.health().queued, 2);

    release.wait();
    world.wait_until(HealthState::Up);
    world.settle();
    assert_eq!(world.count("presence"), 2);
    assert_eq!(world.count("message_queue"), 0);
    world.persist(world.insert(6, key(1)));
}

#[test]
fn closing_does_not_wait_for_ever() {
    let mut world = World::new();
    let release = world.hold_writer();
    assert!(!world.store.stop(Duration::from_millis(200)));
    release.wait();
}

#[test]
fn the_death_of_a_thread_is_told() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("x.db"), Durability::Normal).unwrap();
    let (sender, _results) = channel();
    let recorder = Recorder(sender, Arc::default());
    store.start(Arc::new(recorder.clone()));
    let dies = |how: fn()| {
        let thread = threads::spawn("store-test", &store.shared, how).unwrap();
        thread.join().is_err()
    };
    assert!(!dies(|| ()));
    assert!(!recorder.1.load(Ordering::SeqCst));
    assert!(dies(|| panic!("told to panic")));
    assert!(recorder.1.load(Ordering::SeqCst));
    assert_eq!(store.health().panics, 1);
}
