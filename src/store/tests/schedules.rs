//! Scheduled messages: what is on disk of them, and that sending and marking are one.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each test looks at one kind of row"
)]

use super::*;
use crate::core::rows::ScheduleRow;

impl World {
    fn schedule(&self, id: &str, cron: Option<&str>) -> ScheduleRow {
        ScheduleRow {
            id: id.to_owned(),
            mesh_id: self.made.mesh.id.clone(),
            member_id: self.made.owner.id.clone(),
            presence_id: "p".to_owned(),
            session_pubkey: Some(key(9)),
            sender_name: "owner".to_owned(),
            to: key(9).to_string(),
            target_spec: key(1).to_string(),
            message: "it's \"time\"".to_owned(),
            deliver_at: Wall(1000),
            cron: cron.map(str::to_owned),
            reminder: true,
            fired_count: 0,
            created_at: Wall(5),
        }
    }

    fn fired(&self, id: &str, seq: u64, next: Option<Wall>) -> StoreOp {
        let mut row = self.message(seq, key(1));
        row.origin = Origin::Reminder;
        let sent = match sent(row) {
            StoreOp::MessageInsert(row) => Some(row),
            _ => None,
        };
        let id = id.to_owned();
        StoreOp::ScheduleFired { id, sent, next }
    }

    /// What the next process finds.
    fn schedules(self) -> Vec<ScheduleRow> {
        self.store.close();
        let store = Store::open(&self.path, Durability::Full).unwrap();
        let rows = boot(&store).rows.into_iter();
        store.close();
        rows.filter_map(|row| match row {
            BootRow::Schedule(row) => Some(*row),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn they_are_read_back_in_the_order_they_were_made() {
    let world = World::new();
    let rows = [
        world.schedule("b", None),
        world.schedule("a", Some("* * * * *")),
        world.schedule("c", None),
    ];
    for row in &rows {
        world.persist(StoreOp::SchedulePut(Box::new(row.clone())));
    }
    world.persist(StoreOp::ScheduleCancelled { id: "c".to_owned() });
    assert_eq!(world.schedules(), rows[..2]);
}

#[test]
fn what_has_fired_is_gone_or_waits_for_its_next_time() {
    let world = World::new();
    for row in [
        world.schedule("once", None),
        world.schedule("often", Some("* * * * *")),
    ] {
        world.persist(StoreOp::SchedulePut(Box::new(row)));
    }
    world.persist(world.fired("once", 5, None));
    world.persist(world.fired("often", 6, Some(Wall(61_000))));
    assert_eq!(world.health().undelivered, 2);
    assert_eq!(world.mailbox(key(1), 0, 9), (vec![5, 6], false));
    assert_eq!(world.count("message_queue WHERE origin = 'reminder'"), 2);
    assert_eq!(
        world.count("audit_log WHERE event_type = 'message_sent'"),
        2
    );
    let expected = ScheduleRow {
        deliver_at: Wall(61_000),
        fired_count: 1,
        ..world.schedule("often", Some("* * * * *"))
    };
    assert_eq!(world.schedules(), [expected]);
}

/// Neither is on disk without the other.
#[test]
fn a_message_that_is_refused_leaves_its_schedule() {
    let world = World::new();
    let row = world.schedule("once", None);
    world.persist(StoreOp::SchedulePut(Box::new(row)));
    world.persist(world.insert(5, key(1)));
    let fired = world.fired("once", 5, None);
    world.client.persist(fired, Some(Token(7)));
    assert_eq!(world.stored(), (7, Err(StoreFailure::Io)));
    assert_eq!(world.count("scheduled_message"), 1);
    assert_eq!(
        world.count("audit_log WHERE event_type = 'message_sent'"),
        1
    );
}
