//! What a broker that starts again finds, and what nobody may notice of it (design.md §6).

use std::collections::BTreeMap;

use super::delivery::send;
use super::missed::{heard, three};
use super::*;
use crate::rows::{EndedRow, LogRow, SentRow, Told};

/// A presence on disk.
struct Stored {
    row: PresenceRow,
    end: Option<(Wall, Position)>,
    left: Option<Position>,
}

impl World {
    /// The broker is killed and started again over the same disk.
    pub(super) fn restart_from(&self, mut change: impl FnMut(&mut PresenceRow)) -> Self {
        let mut after = Self::started(self.now, Seq(self.first_seq.0 + (1 << 28)));
        after.find_topics(self.written());
        let mut gone = Vec::new();
        for row in self.watch_rows() {
            after.input(Input::Boot(BootRow::Watch(Box::new(row))));
        }
        for mut stored in self.presences().into_values() {
            change(&mut stored.row);
            match stored.end {
                None => after.input(Input::Boot(BootRow::Presence(Box::new(stored.row)))),
                Some((at, ended)) => gone.push(EndedRow {
                    left: stored.left,
                    ..EndedRow::of(&stored.row, at, ended)
                }),
            }
        }
        for row in gone {
            after.input(Input::Boot(BootRow::Ended(Box::new(row))));
        }
        for row in self.servers() {
            after.input(Input::Boot(BootRow::Server(Box::new(row))));
        }
        let messages = || {
            self.written().filter_map(|op| match op {
                StoreOp::MessageInsert(row) => Some(row),
                _ => None,
            })
        };
        for row in messages().filter(|row| row.position.is_some()) {
            after.input(Input::Boot(BootRow::Said(row.clone())));
        }
        after.input(Input::Boot(BootRow::Log(LogRow {
            mesh_id: MESH.into(),
            since: Position(0),
        })));
        for row in messages() {
            if let Some(client_message_id) = row.client_message_id.clone() {
                after.input(Input::Boot(BootRow::Sent(SentRow {
                    mesh_id: MESH.into(),
                    sender_member_id: row.sender_member_id.clone(),
                    client_message_id,
                })));
            }
        }
        for row in self.schedules() {
            after.input(Input::Boot(BootRow::Schedule(Box::new(row))));
        }
        after.past = self.written().cloned().collect();
        after
    }

    /// MCP servers on disk.
    pub(super) fn servers(&self) -> Vec<crate::rows::ServerRow> {
        let mut rows = BTreeMap::new();
        for op in self.written() {
            match op {
                StoreOp::ServerPut(row) => drop(rows.insert(row.name.clone(), (**row).clone())),
                StoreOp::ServerRemoved { name, .. } => drop(rows.remove(name)),
                _ => {}
            }
        }
        rows.into_values().collect()
    }

    /// Scheduled messages on disk.
    pub(super) fn schedules(&self) -> Vec<crate::rows::ScheduleRow> {
        let mut rows: Vec<crate::rows::ScheduleRow> = Vec::new();
        for op in self.written() {
            match op {
                StoreOp::SchedulePut(row) => rows.push((**row).clone()),
                StoreOp::ScheduleCancelled { id }
                | StoreOp::ScheduleFired { id, next: None, .. } => {
                    rows.retain(|row| row.id != *id);
                }
                StoreOp::ScheduleFired {
                    id,
                    next: Some(next),
                    ..
                } => {
                    for row in rows.iter_mut().filter(|row| row.id == *id) {
                        row.deliver_at = *next;
                        row.fired_count += 1;
                    }
                }
                _ => {}
            }
        }
        rows
    }

    /// Everything on disk.
    pub(super) fn written(&self) -> impl Iterator<Item = &StoreOp> {
        self.past.iter().chain(self.persisted().map(|(op, _)| op))
    }

    pub(super) fn restart(&self) -> Self {
        self.restart_from(|_| {})
    }

    /// The table of presences, by began.
    fn presences(&self) -> BTreeMap<Position, Stored> {
        let mut table = BTreeMap::new();
        for op in self.written() {
            if let StoreOp::PresencePut(row) = op {
                let left = None;
                let row = (**row).clone();
                let end = None;
                table.insert(row.began, Stored { row, end, left });
                continue;
            }
            for stored in table.values_mut() {
                stored.apply(op);
            }
        }
        table
    }
}

impl Stored {
    fn apply(&mut self, op: &StoreOp) {
        match op {
            StoreOp::PresenceGrace {
                id,
                until,
                cursor,
                heard,
                known,
                ..
            } if *id == self.row.id => {
                self.row.lease_until = Some(*until);
                (self.row.cursor, self.row.heard) = (*cursor, *heard);
                self.row.known = *known;
            }
            StoreOp::PresenceCursor { id, cursor, .. } if *id == self.row.id => {
                self.row.cursor = *cursor;
            }
            StoreOp::PresenceEnd { id, at, ended, .. } if *id == self.row.id => {
                self.end = Some((*at, *ended));
            }
            StoreOp::PresenceTold { id, told, .. } if *id == self.row.id => match told {
                Told::Join(at) => self.row.joined = Some(*at),
                Told::Leave(at) => self.left = Some(*at),
            },
            _ => {}
        }
    }
}

/// `messageId`s of the pushes to a socket.
fn ids(world: &World, conn: ConnId) -> Vec<Value> {
    let frames = world.frames(conn).into_iter();
    frames
        .filter(|frame| frame["type"] == "push")
        .map(|frame| frame["messageId"].clone())
        .collect()
}

#[test]
fn who_was_away_at_the_crash_has_missed_nothing() {
    let (mut world, alice, bob, carol) = three();
    world.close(bob, Closing::Abrupt);
    world.write(alice, &send("*", "one"));
    world.write(carol, &json!({"type": "set_visible", "visible": false}));
    world.close(carol, Closing::Abrupt);
    let dave = world.join(launched(3, 32, "d"));
    world.write(dave, &json!({"type": "goodbye"}));
    world.join(launched(3, 33, "e"));
    world.write(alice, &send("*", "two"));
    let told = ids(&world, alice);
    let mut after = world.restart();
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(
        heard(&after, back),
        ["one", "peer_hidden", "peer_joined", "two"]
    );
    let news: Vec<_> = ids(&after, back);
    assert_eq!(news[1], told[told.len() - 4], "hidden, as alice heard it");
    assert_eq!(news[2], told[told.len() - 1], "joined, as alice heard it");
    after.confirm_all(back);
    after.close(back, Closing::Abrupt);
    let mut third = after.restart();
    let back = third.join(launched(2, 21, "b"));
    assert!(heard(&third, back).is_empty(), "its row knows");
}

#[test]
fn who_was_online_hears_no_news_twice_and_messages_rather_than_none() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &send("*", "one"));
    world.join(launched(3, 33, "e"));
    let first = ids(&world, bob);
    let mut after = world.restart();
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(heard(&after, back), ["one"]);
    assert_eq!(ids(&after, back)[0], first[first.len() - 2]);
    // Killed again before it came back.
    let mut third = world.restart().restart();
    let back = third.join(launched(2, 21, "b"));
    assert_eq!(heard(&third, back), ["one"]);
}

#[test]
fn a_cursor_reaches_its_row_now_and_then_and_at_shutdown() {
    let (mut world, alice, bob, _) = three();
    world.write(alice, &send("*", "one"));
    world.confirm_all(bob);
    world.pass_with(&[alice, bob], Millis::secs(31));
    world.write(alice, &send("*", "two"));
    world.confirm_all(bob);
    let mut after = world.restart();
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(heard(&after, back), ["two"]);
    world.input(Input::Shutdown);
    let mut after = world.restart();
    let back = after.join(launched(2, 21, "b"));
    assert!(heard(&after, back).is_empty());
}

#[test]
fn an_attachment_begins_with_its_cursor_in_its_row() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    world.pass_with(&[alice], Millis::secs(40));
    world.write(alice, &send("*", "one"));
    let bob = world.join(launched(2, 21, "b"));
    assert_eq!(heard(&world, bob), ["one"]);
    world.confirm_all(bob);
    let presence_id = world.ack(bob)["presenceId"].clone();
    let noted =
        |op: &StoreOp| matches!(op, StoreOp::PresenceCursor { id, .. } if presence_id == **id);
    assert!(!world.persisted().any(|(op, _)| noted(op)));
}

#[test]
fn an_end_that_nobody_was_told_of_is_told_by_the_next_broker() {
    let (mut world, _, bob, _) = three();
    world.disk_held = true;
    world.write(bob, &json!({"type": "goodbye"}));
    let mut after = world.restart();
    let alice = after.join(launched(1, 11, "a"));
    let carol = after.join(launched(3, 31, "c"));
    assert_eq!(heard(&after, alice), ["peer_left"]);
    assert_eq!(heard(&after, carol), ["peer_left"]);
    after.confirm_all(alice);
    after.close(alice, Closing::Abrupt);
    let mut third = after.restart();
    let back = third.join(launched(1, 11, "a"));
    assert!(heard(&third, back).is_empty(), "once");
}

#[test]
fn what_is_older_than_the_log_is_said_to_be_missed() {
    let (mut world, alice, bob, _) = three();
    world.close(bob, Closing::Abrupt);
    world.write(alice, &send("*", "old"));
    let age = Config::default().log.age;
    world.now.wall = world.now.wall.after(Millis(age.0 + 1));
    let mut after = world.restart();
    let back = after.join(launched(2, 21, "b"));
    assert_eq!(after.ack(back)["missed"], "truncated");
    assert!(heard(&after, back).is_empty());
}

#[test]
fn mail_for_a_key_that_was_known_before_the_crash_is_kept() {
    let (mut world, _, bob, _) = three();
    world.write(bob, &json!({"type": "goodbye"}));
    let mut after = world.restart();
    let alice = after.join(launched(1, 11, "a"));
    after.write(alice, &send(&keys(21).public().to_string(), "later"));
    assert_eq!(after.inserts().len(), 1);
}

#[test]
fn a_send_repeated_after_a_restart_gets_the_first_answer() {
    let (mut world, alice, _, _) = three();
    let mut message = send(&keys(21).public().to_string(), "once");
    message["client_message_id"] = json!("c1");
    world.write(alice, &message);
    let row = world.persisted().find_map(|(op, _)| match op {
        StoreOp::MessageInsert(row) => Some(row.clone()),
        _ => None,
    });
    let mut after = world.restart();
    let alice = after.join(launched(1, 11, "a"));
    after.write(alice, &message);
    assert!(after.inserts().is_empty(), "no second message");
    let (_, query, token) = after.next_query().expect("the disk is asked");
    assert!(
        matches!(query, StoreQuery::Sent { client_message_id, .. } if client_message_id == "c1")
    );
    let id = row.as_ref().map(|row| row.id.to_string());
    let result = Ok(StoreAnswer::Message(row));
    after.input(Input::Answered { token, result });
    let ack = after.frames(alice).pop().unwrap();
    assert_eq!(
        (ack["queued"].clone(), ack["messageId"].clone()),
        (json!(true), json!(id))
    );
}

#[test]
fn the_end_of_who_was_revoked_meanwhile_is_told() {
    let (world, ..) = three();
    let mut after = World::started(world.now, Seq(1 << 29));
    let revoked_at = Some(world.now.wall);
    let row = MemberRow {
        revoked_at,
        ..member_row(2, "bob")
    };
    after.input(Input::Boot(BootRow::Member(row)));
    for stored in world.presences().into_values() {
        after.input(Input::Boot(BootRow::Presence(Box::new(stored.row))));
    }
    assert_eq!(after.recount(), (0, 2));
    for (member, session, id) in [(1, 11, "a"), (3, 31, "c")] {
        let back = after.join(launched(member, session, id));
        assert_eq!(heard(&after, back), ["peer_left"]);
    }
}

#[test]
fn what_everybody_has_confirmed_is_forgotten() {
    let (mut world, alice, bob, carol) = three();
    let all = [alice, bob, carol];
    world.write(alice, &send("*", "one"));
    world.confirm_all(bob);
    world.confirm_all(carol);
    world.pass_with(&all, Millis::secs(2));
    assert!(!world.shard.meshes[0].log.is_empty(), "alice has not");
    world.confirm_all(alice);
    world.pass_with(&all, Millis::secs(31));
    assert!(world.shard.meshes[0].log.is_empty());
}

#[test]
fn a_clock_set_back_across_a_restart_makes_no_ghost() {
    let world = three().0;
    let until = world.now.wall.after(Millis::secs(24 * 3600));
    let mut after = world.restart_from(|row| row.lease_until = Some(until));
    assert_eq!(after.recount(), (0, 3));
    after.pass(Millis(90_000));
    assert_eq!(after.recount(), (0, 0));
}

#[test]
fn only_starts_that_wrote_it_down_have_extended_a_lease() {
    let world = three().0;
    let until = world.now.wall.after(Millis(500));
    let lasts = |lease_until| {
        let mut after = world.restart_from(|row| {
            row.boot_epochs = crate::limits::BOOT_EPOCHS_MAX + 1;
            row.lease_until = lease_until;
        });
        after.pass(Millis(2000));
        after.recount()
    };
    assert_eq!(
        lasts(None),
        (0, 3),
        "killed before they had stored anything"
    );
    assert_eq!(lasts(Some(until)), (0, 0), "nobody claimed it three times");
}
