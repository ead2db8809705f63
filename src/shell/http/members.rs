//! `GET /mesh/:meshId/members`, `PATCH /mesh/:meshId/member/:memberId`, `PATCH
//! /mesh/:meshId/settings` (protocol.md §2.6).

use std::collections::HashMap;
use std::rc::Rc;

use http::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::access::{Credentials, authorize};
use super::head::Request;
use super::reply::Reply;
use super::routes::Route;
use crate::core::input::{Answer, Ask, Edited, PeerView};
use crate::core::limits::{GROUPS_MAX, NAME_BYTES_MAX};
use crate::core::rows::Group;
use crate::core::time::Wall;
use crate::shell::clerk;
use crate::shell::control::Control;
use crate::shell::reactor::Loop;
use crate::store::{AdminError, EditError, MemberCard, MemberEdit, SettingsEdit};

const BUSY: &str = "the broker is busy; try again";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Members,
    Member(String),
    Settings,
}

/// What is asked of which mesh, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    mesh_id: String,
    of: Of,
    credentials: Credentials,
}

/// The route of a target, if it has the form of one of these.
pub(super) fn find(request: &Request) -> Option<Route> {
    let mut parts = request.target.strip_prefix("/mesh/")?.split('/');
    let mesh_id = parts.next().filter(|id| !id.is_empty())?;
    let of = match (&request.method, parts.next()?, parts.next()) {
        (&Method::GET, "members", None) => Of::Members,
        (&Method::PATCH, "settings", None) => Of::Settings,
        (&Method::PATCH, "member", Some(id)) if !id.is_empty() => Of::Member(id.to_owned()),
        _ => return None,
    };
    let whole = parts.next().is_none();
    whole.then(|| {
        Route::Members(Box::new(Asked {
            mesh_id: mesh_id.to_owned(),
            of,
            credentials: Credentials::of(request),
        }))
    })
}

impl Asked {
    /// Whether it changes something, and so has a body.
    pub(super) fn has_body(&self) -> bool {
        match self.of {
            Of::Members => false,
            Of::Member(_) | Of::Settings => true,
        }
    }
}

/// Answers.
pub(super) async fn serve(lp: &Rc<Loop>, asked: Box<Asked>, body: &[u8]) -> Reply {
    let body = body.to_vec();
    let work = move |control: &Control| match &asked.of {
        Of::Members => list(control, &asked),
        Of::Member(id) => edit(control, &asked, id, &body),
        Of::Settings => settings(control, &asked, &body),
    };
    clerk::ask(lp, work).await
}

#[derive(Serialize)]
struct Listed<'a> {
    ok: bool,
    members: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Done<'a> {
    ok: bool,
    member: Entry<'a>,
    changes: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Set<'a> {
    ok: bool,
    self_editable: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    display_name: &'a str,
    role_tag: Option<&'a str>,
    groups: &'a [Group],
    message_mode: &'a str,
    permission: &'a str,
    dashboard_user_id: Option<&'a str>,
    joined_at: Wall,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<Wall>,
    online: bool,
    session_count: u32,
}

/// What is seen of a member's sessions now.
#[derive(Clone, Copy, Default)]
struct Seen {
    online: bool,
    sessions: u32,
    last: Option<Wall>,
}

impl Seen {
    fn and(self, view: &PeerView) -> Self {
        Self {
            online: self.online || view.lease == "online",
            sessions: self.sessions + 1,
            last: self.last.max(Some(view.last_seen_at)),
        }
    }
}

/// Present sessions by member key; None if the mesh's loop is too busy.
fn seen(control: &Control, mesh_id: &str) -> Option<HashMap<String, Seen>> {
    let mesh = mesh_id.to_owned();
    let Some(Answer::Peers(views)) = control.ask_home(mesh_id, Ask::Peers { mesh }) else {
        return None;
    };
    let mut seen: HashMap<String, Seen> = HashMap::new();
    for view in views.unwrap_or_default() {
        let of = seen.entry(view.member_pubkey.clone()).or_default();
        *of = of.and(&view);
    }
    Some(seen)
}

fn entry(card: &MemberCard, seen: Seen) -> Entry<'_> {
    Entry {
        id: &card.row.id,
        display_name: &card.row.display_name,
        role_tag: card.row.role_tag.as_deref(),
        groups: &card.row.default_groups,
        message_mode: &card.row.message_mode,
        permission: if card.row.admin { "admin" } else { "member" },
        dashboard_user_id: card.dashboard_user_id.as_deref(),
        joined_at: card.joined_at,
        last_seen_at: seen.last,
        online: seen.online,
        session_count: seen.sessions,
    }
}

fn list(control: &Control, asked: &Asked) -> Reply {
    let mesh_id = &*asked.mesh_id;
    if !control.access().public_members()
        && let Err(denied) = authorize(control, &asked.credentials, (mesh_id, b""))
    {
        return denied.reply();
    }
    let cards = match control.store_admin().member_cards(mesh_id) {
        Ok(cards) => cards,
        Err(error) => return refused(&error),
    };
    let Some(seen) = seen(control, mesh_id) else {
        return Reply::failure(500, BUSY);
    };
    let of = |card: &MemberCard| seen.get(&card.row.pubkey.to_string()).copied();
    let entries = cards
        .iter()
        .map(|card| entry(card, of(card).unwrap_or_default()));
    let members = entries.collect();
    Reply::json(200, &Listed { ok: true, members })
}

fn edit(control: &Control, asked: &Asked, id: &str, body: &[u8]) -> Reply {
    let mesh_id = &*asked.mesh_id;
    let caller = match authorize(control, &asked.credentials, (mesh_id, body)) {
        Ok(caller) => caller,
        Err(denied) => return denied.reply(),
    };
    let edit = match parse_edit(body) {
        Ok(edit) => edit,
        Err(error) => return Reply::failure(400, &error),
    };
    let changes: Map<String, Value> = named(edit.changes());
    let changes = Value::Object(changes);
    let _turn = control.changing();
    let by = caller.member_id();
    let card = match control.store_admin().member_edit((mesh_id, id), by, edit) {
        Ok(card) => card,
        Err(error) => return refused(&error),
    };
    let told = Edited {
        mesh_id: mesh_id.to_owned(),
        member_id: Some(id.to_owned()),
        by: by.map(str::to_owned),
        changes: changes.clone(),
    };
    if !control.put_member(card.row.clone()) || !control.tell_edited(told) {
        return Reply::failure(500, BUSY);
    }
    let seen = seen(control, mesh_id).unwrap_or_default();
    let seen = seen.get(&card.row.pubkey.to_string()).copied();
    let done = Done {
        ok: true,
        member: entry(&card, seen.unwrap_or_default()),
        changes: &changes,
    };
    Reply::json(200, &done)
}

fn settings(control: &Control, asked: &Asked, body: &[u8]) -> Reply {
    let mesh_id = &*asked.mesh_id;
    let caller = match authorize(control, &asked.credentials, (mesh_id, body)) {
        Ok(caller) => caller,
        Err(denied) => return denied.reply(),
    };
    let edit = match parse_settings(body) {
        Ok(edit) => edit,
        Err(error) => return Reply::failure(400, &error),
    };
    let _turn = control.changing();
    let by = caller.member_id();
    let mesh = match control.store_admin().settings_edit(mesh_id, by, edit) {
        Ok(mesh) => mesh,
        Err(error) => return refused(&error),
    };
    let policy = mesh.self_editable.as_deref().unwrap_or_default();
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let told = Edited {
        mesh_id: mesh_id.to_owned(),
        member_id: None,
        by: by.map(str::to_owned),
        changes: serde_json::json!({ "selfEditable": policy }),
    };
    if !control.put_mesh(mesh) || !control.tell_edited(told) {
        return Reply::failure(500, BUSY);
    }
    let self_editable = &policy;
    Reply::json(
        200,
        &Set {
            ok: true,
            self_editable,
        },
    )
}

fn named(changes: Vec<(&'static str, Value)>) -> Map<String, Value> {
    let changes = changes.into_iter();
    changes
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The answer to what the store refused.
pub(super) fn refused(error: &EditError) -> Reply {
    let status = match error {
        EditError::MeshNotFound
        | EditError::NotMember
        | EditError::MemberNotFound
        | EditError::NotAuthorized
        | EditError::AdminManaged(_)
        | EditError::AdminOnly
        | EditError::NoFields
        | EditError::NoSettings
        | EditError::Refused(AdminError::BadName { .. }) => 400,
        EditError::Refused(_) => 500,
    };
    Reply::failure(status, &error.to_string())
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(body).map_err(|_| "invalid JSON body".to_owned())
}

/// A text of at most as many bytes as a name.
fn text(name: &str, value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| text.len() <= NAME_BYTES_MAX);
    let text = text.map(str::to_owned);
    text.ok_or_else(|| format!("{name} must be a text of at most {NAME_BYTES_MAX} bytes"))
}

fn one_of(name: &str, value: &Value, known: &[&str]) -> Result<String, String> {
    let text = value.as_str().filter(|text| known.contains(text));
    let text = text.map(str::to_owned);
    text.ok_or_else(|| format!("{name} must be one of {}", known.join(", ")))
}

fn groups(value: &Value) -> Result<Vec<Group>, String> {
    let groups: Option<Vec<Group>> = serde_json::from_value(value.clone()).ok();
    let fits = |group: &Group| {
        let role = group.role.as_deref().unwrap_or_default();
        !group.name.is_empty() && group.name.len() <= NAME_BYTES_MAX && role.len() <= NAME_BYTES_MAX
    };
    let groups = groups.filter(|groups| groups.len() <= GROUPS_MAX && groups.iter().all(fits));
    groups.ok_or_else(|| format!("groups must be at most {GROUPS_MAX} of {{name, role?}}"))
}

/// What is to be edited; what else is in the body is ignored, as in the original.
fn parse_edit(body: &[u8]) -> Result<MemberEdit, String> {
    let body = object(body)?;
    let field = |name: &'static str| body.get(name).map(|value| (name, value));
    let tag = |(name, value): (&'static str, &Value)| match value {
        Value::Null => Ok(None),
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => text(name, value).map(Some),
    };
    let mode = ["push", "inbox", "off"];
    let permission = field("permission").map(|(n, v)| one_of(n, v, &["admin", "member"]));
    Ok(MemberEdit {
        display_name: field("displayName").map(|(n, v)| text(n, v)).transpose()?,
        role_tag: field("roleTag").map(tag).transpose()?,
        groups: field("groups").map(|(_, v)| groups(v)).transpose()?,
        message_mode: field("messageMode")
            .map(|(n, v)| one_of(n, v, &mode))
            .transpose()?,
        admin: permission.transpose()?.map(|it| it == "admin"),
    })
}

fn parse_settings(body: &[u8]) -> Result<SettingsEdit, String> {
    let body = object(body)?;
    let Some(editable) = body.get("selfEditable") else {
        return Ok(SettingsEdit::default());
    };
    let Some(editable) = editable.as_object() else {
        return Err("selfEditable must be an object of true or false".to_owned());
    };
    let flag = |name: &str| match editable.get(name) {
        None => Ok(None),
        Some(value) => {
            let flag = value.as_bool().map(Some);
            flag.ok_or_else(|| format!("selfEditable.{name} must be true or false"))
        }
    };
    Ok(SettingsEdit {
        display_name: flag("displayName")?,
        role_tag: flag("roleTag")?,
        groups: flag("groups")?,
        message_mode: flag("messageMode")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_says_what_it_changes_and_what_is_wrong_with_it() {
        let edit = parse_edit(
            br#"{"displayName":"a","roleTag":null,"groups":[{"name":"g"}],"messageMode":"off","permission":"admin","x":1}"#,
        );
        let edit = edit.unwrap();
        assert_eq!(edit.role_tag, Some(None));
        assert_eq!(edit.admin, Some(true));
        assert_eq!(edit.changes().len(), 5);
        assert_eq!(parse_edit(b"{}"), Ok(MemberEdit::default()));
        for (body, field) in [
            (r#"{"displayName":7}"#, "displayName"),
            (r#"{"displayName":null}"#, "displayName"),
            (r#"{"roleTag":[]}"#, "roleTag"),
            (r#"{"groups":[{}]}"#, "groups"),
            (r#"{"groups":[{"name":""}]}"#, "groups"),
            (r#"{"messageMode":"loud"}"#, "messageMode"),
            (r#"{"permission":"owner"}"#, "permission"),
            ("[]", "invalid JSON body"),
            ("{", "invalid JSON body"),
        ] {
            let error = parse_edit(body.as_bytes()).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
        let long = format!(r#"{{"displayName":"{}"}}"#, "x".repeat(NAME_BYTES_MAX + 1));
        assert!(parse_edit(long.as_bytes()).is_err());
    }

    #[test]
    fn settings_are_flags() {
        let edit = parse_settings(br#"{"selfEditable":{"groups":false,"roleTag":true}}"#).unwrap();
        assert_eq!((edit.groups, edit.role_tag), (Some(false), Some(true)));
        assert_eq!(parse_settings(b"{}"), Ok(SettingsEdit::default()));
        assert!(parse_settings(br#"{"selfEditable":{"groups":1}}"#).is_err());
        assert!(parse_settings(br#"{"selfEditable":true}"#).is_err());
    }
}
