//! MCP servers as SQL.

use rusqlite::{Connection, params};

use super::encode;
use crate::core::rows::ServerRow;

pub(super) fn put(conn: &Connection, row: &ServerRow) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO mcp_server (mesh_id, name, member_id, role, session_pubkey, host_pos,
            offline_since, hosted_by, description, tools, persistent, told_pos, told_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (mesh_id, name) DO UPDATE SET member_id = excluded.member_id,
            role = excluded.role, session_pubkey = excluded.session_pubkey,
            host_pos = excluded.host_pos, offline_since = excluded.offline_since,
            hosted_by = excluded.hosted_by, description = excluded.description,
            tools = excluded.tools, persistent = excluded.persistent,
            told_pos = excluded.told_pos, told_at = excluded.told_at",
    )?
    .execute(params![
        row.mesh_id,
        row.name,
        row.member_id,
        row.role.name(),
        row.session_pubkey.map(|key| key.to_string()),
        row.host.map(encode::position).transpose()?,
        row.offline_since.map(|since| since.0),
        row.hosted_by,
        row.description,
        row.tools,
        row.persistent,
        encode::position(row.told.0)?,
        row.told.1.0,
    ])
    .map(drop)
}

pub(super) fn delete(conn: &Connection, mesh_id: &str, name: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM mcp_server WHERE mesh_id = ?1 AND name = ?2")?
        .execute([mesh_id, name])
        .map(drop)
}
