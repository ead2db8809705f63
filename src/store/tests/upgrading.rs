//! Files that an earlier version of the broker has left.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each test looks at one kind of row"
)]

use super::*;
use crate::store::schema::MIGRATIONS;

/// Who was there when the earlier broker ended, and mail for one of them.
const LEFT: &str = "
INSERT INTO mesh (id, slug, name, owner_pubkey, owner_secret_key, root_key, created_at)
    VALUES ('m', 'm', 'm', 'KEY', 'KEY', 'KEY', 1);
INSERT INTO member (id, mesh_id, peer_pubkey, display_name, role, joined_at)
    VALUES ('a', 'm', 'KEY', 'a', 'admin', 1);
WITH of (id, ended) AS (VALUES ('online', NULL), ('away', NULL), ('gone', 5), ('silent', 5))
INSERT INTO presence (id, mesh_id, member_id, session_id, role, display_name, pid, cwd,
        status, status_source, status_updated_at, groups, visible, profile, connected_at,
        last_ping_at, generation, boot_epochs, boot, disconnected_at)
    SELECT id, 'm', 'a', id, 'session', 'a', 1, '/', 'idle', 'jsonl', 1, '[]', 1, '{}', 1, 1, 1,
        0, 1, ended FROM of;
UPDATE presence SET lease_until = 77 WHERE id = 'away';
INSERT INTO message_queue (seq, id, mesh_id, sender_member_id, sender_member_pubkey, sender_name,
        target_spec, priority, nonce, ciphertext, created_at, client_message_id)
    VALUES (9, 'ID', 'm', 'a', 'KEY', 'a', 'KEY', 'next', 'n', 'c', 1, 'mine');
";

/// A file of that version, in which `change` has been made.
fn left_by(version: u8, change: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    let tables = MIGRATIONS
        .iter()
        .take(usize::from(version))
        .copied()
        .collect::<String>();
    conn.execute_batch(&tables).unwrap();
    let id = Mint::new([3; 32]).message_id(Seq(9)).to_string();
    let left = LEFT.replace("KEY", &key(1).to_string()).replace("ID", &id);
    conn.execute_batch(&left).unwrap();
    conn.execute_batch(change).unwrap();
    conn.pragma_update(None, "application_id", 0x4846_7374)
        .unwrap();
    conn.pragma_update(None, "user_version", version).unwrap();
    (folder, path)
}

fn boot_of(path: &Path) -> Vec<BootRow> {
    let store = Store::open(path, Durability::Full).unwrap();
    let image = boot(&store);
    store.close();
    assert_eq!(image.skipped, 0);
    image.rows
}

#[test]
fn what_the_first_version_left_is_taken_as_told() {
    let (_folder, path) = left_by(1, "");
    let rows = boot_of(&path);
    let joined = |row: &BootRow| match row {
        BootRow::Presence(row) => Some((row.id.clone(), row.joined, row.lease_until)),
        _ => None,
    };
    let told = Some(Position(0));
    assert_eq!(
        rows.iter().filter_map(joined).collect::<Vec<_>>(),
        [
            ("online".to_owned(), told, None),
            ("away".to_owned(), told, Some(Wall(77)))
        ]
    );
    let ended = |row: &BootRow| match row {
        BootRow::Ended(row) => Some(row.left),
        _ => None,
    };
    assert_eq!(
        rows.iter().filter_map(ended).collect::<Vec<_>>(),
        [told, told]
    );
}

#[test]
fn what_the_third_version_left_is_there() {
    let (_folder, path) = left_by(
        3,
        "UPDATE presence SET told = CASE id WHEN 'away' THEN 0 WHEN 'gone' THEN 2 ELSE 1 END",
    );
    let rows = boot_of(&path);
    let told = Some(Position(0));
    let presence = |id: &str| {
        rows.iter().find_map(|row| match row {
            BootRow::Presence(row) if row.id == id => Some((row.joined, row.cursor, row.grace)),
            _ => None,
        })
    };
    assert_eq!(presence("online"), Some((told, Position(0), None)));
    assert_eq!(
        presence("away"),
        Some((None, Position(0), None)),
        "told nobody"
    );
    let ended = |id: &str| {
        rows.iter().find_map(|row| match row {
            BootRow::Ended(row) if row.id == id => Some((row.joined, row.left)),
            _ => None,
        })
    };
    assert_eq!(ended("gone"), Some((told, told)));
    assert_eq!(ended("silent"), Some((told, None)), "still to be told");
    let mailboxes = rows.iter().filter(|row| matches!(row, BootRow::Mailbox(_)));
    assert_eq!(mailboxes.count(), 1);
    let sent = rows.iter().find_map(|row| match row {
        BootRow::Sent(row) => Some(row.client_message_id.as_str()),
        _ => None,
    });
    assert_eq!(sent, Some("mine"), "sent again, it is the same");
}

#[test]
fn what_the_fourth_version_left_is_found_by_where_it_began() {
    let (_folder, path) = left_by(
        4,
        "UPDATE presence SET began_pos = CASE id WHEN 'online' THEN 9 WHEN 'away' THEN 8
            WHEN 'gone' THEN 7 ELSE 6 END, joined_pos = 10, ended_pos = disconnected_at",
    );
    let present = |rows: &[BootRow]| -> Vec<(String, u64, Option<Wall>)> {
        let presence = |row: &BootRow| match row {
            BootRow::Presence(row) => Some((row.id.clone(), row.began.0, row.lease_until)),
            _ => None,
        };
        rows.iter().filter_map(presence).collect()
    };
    let both = [
        ("away".to_owned(), 8, Some(Wall(77))),
        ("online".to_owned(), 9, None),
    ];
    assert_eq!(present(&boot_of(&path)), both);
    let store = Store::open(&path, Durability::Full).unwrap();
    boot(&store);
    let (client, _results) = start(&store);
    client.persist(
        StoreOp::PresenceEnd {
            began: Position(8),
            id: "away".to_owned(),
            at: Wall(1),
            ended: Position(50),
        },
        None,
    );
    store.close();
    assert_eq!(present(&boot_of(&path)), both[1..]);
}
