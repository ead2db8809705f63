//! MCP servers on disk.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each test looks at one kind of row"
)]

use super::*;
use crate::core::rows::ServerRow;

fn server(world: &World, name: &str, host: Option<u64>) -> ServerRow {
    ServerRow {
        mesh_id: world.made.mesh.id.clone(),
        name: name.to_owned(),
        member_id: world.made.owner.id.clone(),
        role: PeerRole::Session,
        session_pubkey: Some(key(9)),
        host: host.map(Position),
        offline_since: host.is_none().then_some(Wall(7)),
        hosted_by: "it's me".to_owned(),
        description: "d".to_owned(),
        tools: r#"[{"name":"q","description":""}]"#.to_owned(),
        persistent: true,
        told: (Position(5), Wall(6)),
    }
}

#[test]
fn they_are_put_by_name_and_read_back_as_they_were() {
    let world = World::new();
    for row in [
        server(&world, "db", Some(3)),
        server(&world, "gone", Some(3)),
        server(&world, "db", None),
    ] {
        world.persist(StoreOp::ServerPut(Box::new(row)));
    }
    world.persist(StoreOp::ServerRemoved {
        mesh_id: world.made.mesh.id.clone(),
        name: "gone".to_owned(),
    });
    let expected = server(&world, "db", None);
    world.store.close();
    let store = Store::open(&world.path, Durability::Full).unwrap();
    let rows = boot(&store).rows.into_iter();
    let servers = rows.filter_map(|row| match row {
        BootRow::Server(row) => Some(*row),
        _ => None,
    });
    assert_eq!(servers.collect::<Vec<_>>(), [expected]);
}
