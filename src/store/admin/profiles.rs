//! Members and settings as they are read and changed over HTTP (protocol.md §2.6). Unlike the other
//! functions here, these check who asks.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::{Map, Value, json};

use super::AdminError;
use super::meshes::check_name;
use crate::core::rows::{Group, MemberRow, MeshRow};
use crate::core::time::Wall;
use crate::store::encode;

/// Most members in one list; more are left out.
pub(super) const MEMBERS_MAX: u32 = 10_000;

/// A member as others see it.
#[derive(Clone, Debug)]
pub struct MemberCard {
    /// Its row.
    pub row: MemberRow,
    /// Its account elsewhere, if the mesh came from there.
    pub dashboard_user_id: Option<String>,
    /// When it was made.
    pub joined_at: Wall,
}

/// What may be edited of a member; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberEdit {
    /// Display name.
    pub display_name: Option<String>,
    /// Role tag, or none from now on.
    pub role_tag: Option<Option<String>>,
    /// Default groups.
    pub groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`.
    pub message_mode: Option<String>,
    /// Whether it is an admin.
    pub admin: Option<bool>,
}

/// What members may edit of themselves; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsEdit {
    /// Display name.
    pub display_name: Option<bool>,
    /// Role tag.
    pub role_tag: Option<bool>,
    /// Default groups.
    pub groups: Option<bool>,
    /// Message mode.
    pub message_mode: Option<bool>,
}

/// Why nothing was edited. Each prints as the protocol says.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// There is no such mesh.
    #[error("mesh not found")]
    MeshNotFound,
    /// Who asks is no active member of it.
    #[error("caller not a member of this mesh")]
    NotMember,
    /// Whoever is to be edited is none.
    #[error("member not found")]
    MemberNotFound,
    /// A member edits itself, an admin everybody.
    #[error("not authorized \u{2014} only admins or self can edit")]
    NotAuthorized,
    /// What only admins may edit.
    #[error("admin-managed fields: {}", .0.join(", "))]
    AdminManaged(Vec<&'static str>),
    /// Settings are for admins.
    #[error("admin access required")]
    AdminOnly,
    /// Nothing is asked for.
    #[error("no fields to update")]
    NoFields,
    /// Nothing is asked for.
    #[error("no settings to update")]
    NoSettings,
    /// A bad name, or the database.
    #[error(transparent)]
    Refused(#[from] AdminError),
}

impl From<rusqlite::Error> for EditError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl MemberEdit {
    /// What is asked for, by the names on the wire.
    #[must_use]
    pub fn changes(&self) -> Vec<(&'static str, Value)> {
        let permission = |admin: &bool| if *admin { "admin" } else { "member" };
        let fields = [
            (
                "displayName",
                self.display_name.as_ref().map(|it| json!(it)),
            ),
            ("roleTag", self.role_tag.as_ref().map(|it| json!(it))),
            ("groups", self.groups.as_ref().map(|it| json!(it))),
            (
                "messageMode",
                self.message_mode.as_ref().map(|it| json!(it)),
            ),
            (
                "permission",
                self.admin.as_ref().map(|it| json!(permission(it))),
            ),
        ];
        let fields = fields.into_iter();
        fields
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

impl SettingsEdit {
    fn changes(self) -> Vec<(&'static str, bool)> {
        let fields = [
            ("displayName", self.display_name),
            ("roleTag", self.role_tag),
            ("groups", self.groups),
            ("messageMode", self.message_mode),
        ];
        let fields = fields.into_iter();
        fields
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

/// By id only: what is in a path is no slug.
fn mesh(conn: &Connection, mesh_id: &str) -> Result<MeshRow, EditError> {
    let sql = format!(
        "SELECT {} FROM mesh WHERE id = ?1 AND archived_at IS NULL",
        encode::MESH
    );
    let found = conn.query_row(&sql, [mesh_id], encode::mesh).optional()?;
    found.ok_or(EditError::MeshNotFound)
}

/// The active member of a mesh by its id.
fn card(conn: &Connection, mesh_id: &str, id: &str) -> rusqlite::Result<Option<MemberCard>> {
    let sql = format!(
        "SELECT {}, dashboard_user_id, joined_at FROM member
         WHERE id = ?1 AND mesh_id = ?2 AND revoked_at IS NULL",
        encode::MEMBER
    );
    conn.query_row(&sql, [id, mesh_id], read).optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<MemberCard> {
    let fields = &mut encode::Fields::after(row, encode::MEMBER);
    Ok(MemberCard {
        row: encode::member(row)?,
        dashboard_user_id: fields.next()?,
        joined_at: fields.wall()?,
    })
}

/// The active members, in the order in which they were made.
pub(super) fn list(conn: &Connection, mesh_id: &str) -> Result<Vec<MemberCard>, EditError> {
    mesh(conn, mesh_id)?;
    let sql = format!(
        "SELECT {}, dashboard_user_id, joined_at FROM member
         WHERE mesh_id = ?1 AND revoked_at IS NULL ORDER BY rowid LIMIT ?2",
        encode::MEMBER
    );
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map(params![mesh_id, MEMBERS_MAX], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Who asks.
pub(super) fn caller(conn: &Connection, mesh_id: &str, id: &str) -> Result<MemberRow, EditError> {
    mesh(conn, mesh_id)?;
    let found = card(conn, mesh_id, id)?;
    found.map(|card| card.row).ok_or(EditError::NotMember)
}

/// `by` is None for an administrator of the broker.
pub(super) fn edit(
    conn: &mut Connection,
    (mesh_id, id): (&str, &str),
    by: Option<&str>,
    edit: &MemberEdit,
) -> Result<MemberCard, EditError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mesh = mesh(&tx, mesh_id)?;
    let caller = by.map(|by| caller(&tx, mesh_id, by)).transpose()?;
    let changes = edit.changes();
    if let Some(caller) = caller.filter(|caller| !caller.admin) {
        if caller.id != id {
            return Err(EditError::NotAuthorized);
        }
        let names = changes.iter().map(|(name, _)| *name);
        let managed: Vec<_> = names.filter(|name| !editable(&mesh, name)).collect();
        if !managed.is_empty() {
            return Err(EditError::AdminManaged(managed));
        }
    }
    let Some(MemberCard { mut row, .. }) = card(&tx, mesh_id, id)? else {
        return Err(EditError::MemberNotFound);
    };
    if changes.is_empty() {
        return Err(EditError::NoFields);
    }
    apply(&mut row, edit)?;
    tx.execute(
        "UPDATE member SET display_name = ?2, role_tag = ?3, default_groups = ?4,
            message_mode = ?5, role = ?6 WHERE id = ?1",
        params![
            row.id,
            row.display_name,
            row.role_tag,
            encode::json(&row.default_groups)?,
            row.message_mode,
            if row.admin { "admin" } else { "member" },
        ],
    )?;
    let edited = card(&tx, mesh_id, id)?;
    tx.commit()?;
    edited.ok_or(EditError::MemberNotFound)
}

fn apply(row: &mut MemberRow, edit: &MemberEdit) -> Result<(), EditError> {
    let edit = edit.clone();
    if let Some(name) = edit.display_name {
        check_name(&name)?;
        row.display_name = name;
    }
    if let Some(tag) = edit.role_tag {
        row.role_tag = tag;
    }
    if let Some(groups) = edit.groups {
        row.default_groups = groups;
    }
    if let Some(mode) = edit.message_mode {
        row.message_mode = mode;
    }
    row.admin = edit.admin.unwrap_or(row.admin);
    Ok(())
}

fn policy(mesh: &MeshRow) -> Map<String, Value> {
    let text = mesh.self_editable.as_deref().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// Whether a member may edit that of itself. What a mesh says nothing of may be edited, as in the
/// original; what makes an admin never.
fn editable(mesh: &MeshRow, name: &str) -> bool {
    let said = policy(mesh).get(name).and_then(Value::as_bool);
    name != "permission" && said.unwrap_or(true)
}

/// As [`edit`], of what members may edit of themselves.
pub(super) fn settings(
    conn: &mut Connection,
    mesh_id: &str,
    by: Option<&str>,
    edit: SettingsEdit,
) -> Result<MeshRow, EditError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut mesh = mesh(&tx, mesh_id)?;
    let caller = by.map(|by| caller(&tx, mesh_id, by)).transpose()?;
    if caller.is_some_and(|caller| !caller.admin) {
        return Err(EditError::AdminOnly);
    }
    let changes = edit.changes();
    if changes.is_empty() {
        return Err(EditError::NoSettings);
    }
    let mut said: Map<String, Value> = ["displayName", "roleTag", "groups", "messageMode"]
        .map(|name| (name.to_owned(), editable(&mesh, name).into()))
        .into_iter()
        .collect();
    for (name, value) in changes {
        said.insert(name.to_owned(), value.into());
    }
    let text = encode::json(&said)?;
    tx.execute(
        "UPDATE mesh SET self_editable = ?2 WHERE id = ?1",
        params![mesh_id, text],
    )?;
    tx.commit()?;
    mesh.self_editable = Some(text);
    Ok(mesh)
}
