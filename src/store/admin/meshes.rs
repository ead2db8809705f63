//! Making, finding and listing meshes.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::members::{self, Newcomer};
use super::{AdminError, MeshSummary, NewMesh};
use crate::core::identity::KeyPair;
use crate::core::ids::PubKey;
use crate::core::limits::NAME_BYTES_MAX;
use crate::core::mint::Mint;
use crate::core::rows::MeshRow;
use crate::store::{apply, encode};

/// Display name of the member made with a mesh.
const OWNER: &str = "owner";

/// Members may change everything of themselves that can be changed (protocol.md, section 4).
const SELF_EDITABLE: &str =
    r#"{"displayName":true,"roleTag":true,"groups":true,"messageMode":true}"#;

pub(super) fn create(
    conn: &mut Connection,
    slug: &str,
    name: Option<&str>,
) -> Result<NewMesh, AdminError> {
    check_slug(slug)?;
    let name = name.unwrap_or(slug);
    check_name(name)?;
    let owner_pair = KeyPair::from_seed(random()?);
    let owner_secret_key = owner_pair.to_libsodium_hex();
    let root_key = BASE64_URL_SAFE_NO_PAD.encode(random()?);
    let mesh = MeshRow {
        id: new_id()?,
        slug: slug.to_owned(),
        name: name.to_owned(),
        self_editable: Some(SELF_EDITABLE.to_owned()),
    };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A slug equal to some mesh's id would make commands ambiguous.
    if find(&tx, slug)?.is_some() {
        return Err(AdminError::SlugTaken(slug.to_owned()));
    }
    tx.execute(
        "INSERT INTO mesh (id, slug, name, owner_pubkey, owner_secret_key, root_key, self_editable,
            created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            mesh.id,
            mesh.slug,
            mesh.name,
            owner_pair.public().to_string(),
            owner_secret_key,
            root_key,
            mesh.self_editable,
            apply::wall(&tx)?.0,
        ],
    )?;
    let newcomer = Newcomer {
        mesh_id: &mesh.id,
        name: OWNER,
        pubkey: owner_pair.public(),
        admin: true,
    };
    let owner = members::insert(&tx, &newcomer)?;
    tx.commit()?;
    Ok(NewMesh {
        mesh,
        owner,
        owner_secret_key,
    })
}

pub(super) fn list(conn: &Connection) -> Result<Vec<MeshSummary>, AdminError> {
    let mut statement = conn.prepare(&format!(
        "SELECT {}, owner_pubkey, created_at,
            (SELECT count(*) FROM member WHERE mesh_id = mesh.id AND revoked_at IS NULL)
         FROM mesh WHERE archived_at IS NULL ORDER BY slug",
        encode::MESH
    ))?;
    let rows = statement.query_map([], |row| {
        let mesh = encode::mesh(row)?;
        let mut rest = encode::Fields::after(row, encode::MESH);
        Ok(MeshSummary {
            mesh,
            owner_pubkey: rest.parsed(PubKey::parse)?,
            created_at: rest.wall()?,
            members: rest.count()?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// By id, else by slug.
fn find(conn: &Connection, mesh: &str) -> rusqlite::Result<Option<MeshRow>> {
    conn.query_row(
        &format!(
            "SELECT {} FROM mesh WHERE (id = ?1 OR slug = ?1) AND archived_at IS NULL
             ORDER BY id = ?1 DESC LIMIT 1",
            encode::MESH
        ),
        [mesh],
        encode::mesh,
    )
    .optional()
}

/// By id, else by slug.
pub(super) fn get(conn: &Connection, mesh: &str) -> Result<MeshRow, AdminError> {
    find(conn, mesh)?.ok_or_else(|| AdminError::NoMesh(mesh.to_owned()))
}

fn check_slug(slug: &str) -> Result<(), AdminError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if slug.is_empty() || slug.len() > NAME_BYTES_MAX || !slug.chars().all(allowed) {
        return Err(AdminError::BadSlug(slug.to_owned()));
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), AdminError> {
    let length = name.trim().len();
    if length == 0 || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(AdminError::BadName {
            max: NAME_BYTES_MAX,
        });
    }
    Ok(())
}

/// Entropy from the system.
pub(super) fn random() -> Result<[u8; 32], AdminError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// 32 base62 characters, as presence ids are made.
pub(super) fn new_id() -> Result<String, AdminError> {
    Ok(Mint::new(random()?).presence_id())
}
