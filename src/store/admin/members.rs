//! Adding, finding and changing members.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::meshes::{self, check_name, new_id, random};
use super::{AdminError, ClientConfig, NewMember};
use crate::core::identity::KeyPair;
use crate::core::ids::PubKey;
use crate::core::rows::MemberRow;
use crate::core::time::Wall;
use crate::store::{apply, encode};

/// What may be granted (protocol.md, section 8.3).
pub(super) const CAPS: [&str; 6] = [
    "read",
    "dm",
    "broadcast",
    "state-read",
    "state-write",
    "file-read",
];

/// What a new member row is made of.
pub(super) struct Newcomer<'a> {
    pub(super) mesh_id: &'a str,
    pub(super) name: &'a str,
    pub(super) pubkey: PubKey,
    pub(super) admin: bool,
}

/// Inserts inside the caller's transaction.
pub(super) fn insert(conn: &Connection, new: &Newcomer<'_>) -> Result<MemberRow, AdminError> {
    let id = new_id()?;
    conn.execute(
        "INSERT INTO member (id, mesh_id, peer_pubkey, display_name, role, joined_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            id,
            new.mesh_id,
            new.pubkey.to_string(),
            new.name,
            if new.admin { "admin" } else { "member" },
            apply::wall(conn)?.0,
        ],
    )?;
    by_id(conn, &id)
}

pub(super) fn add(
    conn: &mut Connection,
    mesh: &str,
    name: &str,
    pubkey: Option<PubKey>,
    admin: bool,
) -> Result<NewMember, AdminError> {
    check_name(name)?;
    let (pubkey, secret_key) = match pubkey {
        Some(pubkey) => (pubkey, None),
        None => {
            let pair = KeyPair::from_seed(random()?);
            (pair.public(), Some(pair.to_libsodium_hex()))
        }
    };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mesh = meshes::get(&tx, mesh)?;
    if let Some(holder) = holder(&tx, &mesh.id, pubkey)? {
        return Err(AdminError::KeyTaken {
            key: pubkey,
            member_id: holder.id,
        });
    }
    let member = insert(
        &tx,
        &Newcomer {
            mesh_id: &mesh.id,
            name,
            pubkey,
            admin,
        },
    )?;
    tx.commit()?;
    Ok(NewMember { member, secret_key })
}

/// The active member of a mesh that has that key.
pub(super) fn holder(
    conn: &Connection,
    mesh_id: &str,
    key: PubKey,
) -> rusqlite::Result<Option<MemberRow>> {
    let sql = format!(
        "SELECT {} FROM member WHERE mesh_id = ?1 AND peer_pubkey = ?2 AND revoked_at IS NULL",
        encode::MEMBER
    );
    conn.query_row(&sql, params![mesh_id, key.to_string()], encode::member)
        .optional()
}

/// Whether somebody with that key was a member of the mesh and has been revoked since.
pub(super) fn was_revoked(
    conn: &Connection,
    (mesh_id, key): (&str, PubKey),
    since: Wall,
) -> rusqlite::Result<bool> {
    conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM member
         WHERE mesh_id = ?1 AND peer_pubkey = ?2 AND revoked_at > ?3)",
        params![mesh_id, key.to_string(), since.0],
        |row| row.get(0),
    )
}

pub(super) fn list(conn: &Connection, mesh: &str) -> Result<Vec<MemberRow>, AdminError> {
    let mesh = meshes::get(conn, mesh)?;
    let sql = format!(
        "SELECT {} FROM member WHERE mesh_id = ?1 ORDER BY rowid",
        encode::MEMBER
    );
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map([mesh.id], encode::member)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn revoke(conn: &mut Connection, member: &str) -> Result<MemberRow, AdminError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = get(&tx, None, member)?;
    tx.execute(
        "UPDATE member SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
        params![found.id, apply::wall(&tx)?.0],
    )?;
    let revoked = by_id(&tx, &found.id)?;
    tx.commit()?;
    Ok(revoked)
}

pub(super) fn grants(
    conn: &mut Connection,
    member: &str,
    peer: PubKey,
    caps: Option<Vec<String>>,
) -> Result<MemberRow, AdminError> {
    if let Some(unknown) = caps
        .iter()
        .flatten()
        .find(|cap| !CAPS.contains(&cap.as_str()))
    {
        return Err(AdminError::UnknownCap(unknown.clone()));
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut found = get(&tx, None, member)?;
    found.grants.retain(|(key, _)| *key != peer);
    // In the order of the closed set, each once.
    found.grants.extend(caps.map(|caps| {
        let known = CAPS
            .iter()
            .filter(|&&cap| caps.iter().any(|asked| asked == cap));
        (peer, known.map(|&cap| cap.to_owned()).collect())
    }));
    tx.execute(
        "UPDATE member SET peer_grants = ?2 WHERE id = ?1",
        params![found.id, encode::grants_json(&found.grants)?],
    )?;
    let changed = by_id(&tx, &found.id)?;
    tx.commit()?;
    Ok(changed)
}

pub(super) fn client_config(
    conn: &mut Connection,
    mesh: &str,
    member: &str,
) -> Result<ClientConfig, AdminError> {
    // One transaction, so that the three reads agree.
    let tx = conn.transaction()?;
    let mesh = meshes::get(&tx, mesh)?;
    let member = get(&tx, Some(&mesh.id), member)?;
    let joined_at = tx.query_row(
        "SELECT joined_at FROM member WHERE id = ?1",
        [&member.id],
        |row| encode::Fields::of(row).wall(),
    )?;
    let secret_key = tx
        .query_row(
            "SELECT owner_secret_key FROM mesh WHERE id = ?1 AND owner_pubkey = ?2",
            params![mesh.id, member.pubkey.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(ClientConfig {
        mesh,
        member,
        joined_at,
        secret_key,
    })
}

fn by_id(conn: &Connection, id: &str) -> Result<MemberRow, AdminError> {
    let sql = format!("SELECT {} FROM member WHERE id = ?1", encode::MEMBER);
    Ok(conn.query_row(&sql, [id], encode::member)?)
}

/// By id, else by key or display name. Active members come before revoked ones, so that a name
/// may be given anew.
fn get(conn: &Connection, mesh_id: Option<&str>, member: &str) -> Result<MemberRow, AdminError> {
    let sql = format!(
        "SELECT {} FROM member
         WHERE (?1 IS NULL OR mesh_id = ?1) AND (id = ?2 OR peer_pubkey = ?2 OR display_name = ?2)",
        encode::MEMBER
    );
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map(params![mesh_id, member], encode::member)?;
    let mut found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    if let Some(index) = found.iter().position(|row| row.id == member) {
        return Ok(found.swap_remove(index));
    }
    if found.iter().any(|row| row.revoked_at.is_none()) {
        found.retain(|row| row.revoked_at.is_none());
    }
    match (found.len(), found.pop()) {
        (1, Some(row)) => Ok(row),
        (_, None) => Err(AdminError::NoMember(member.to_owned())),
        (count, Some(_)) => Err(AdminError::AmbiguousMember {
            name: member.to_owned(),
            count,
        }),
    }
}
