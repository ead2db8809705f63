//! `POST /join`: whoever brings an invite becomes a member (protocol.md §2.4).

use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use super::reply::Reply;
use crate::core::identity::is_usable;
use crate::core::ids::PubKey;
use crate::shell::clerk;
use crate::shell::control::Control;
use crate::shell::reactor::Loop;
use crate::store::{AdminError, JoinError, Joined, Joining};

/// Why a body is no request to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Something is missing, or the body is not JSON.
    #[error("invite_token, invite_payload, peer_pubkey, display_name required")]
    Incomplete,
    /// The key is none.
    #[error("peer_pubkey must be 64 hex chars (32 bytes)")]
    Key,
    /// The payload does not have the form of one, so nobody can have signed it.
    #[error("invite_bad_signature")]
    Payload,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Success {
    ok: bool,
    member_id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already_member: bool,
}

/// What a body asks for.
///
/// # Errors
/// See [`Unfit`].
pub fn parse(body: &[u8]) -> Result<Joining, Unfit> {
    let mut body: Value = serde_json::from_slice(body).map_err(|_| Unfit::Incomplete)?;
    let text = |name: &str| {
        let text = body.get(name).and_then(Value::as_str);
        let text = text.filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or(Unfit::Incomplete)
    };
    let (token, key, name) = (
        text("invite_token")?,
        text("peer_pubkey")?,
        text("display_name")?,
    );
    let payload = body.get_mut("invite_payload").map(Value::take);
    let payload = payload.filter(|payload| !payload.is_null());
    let payload = payload.ok_or(Unfit::Incomplete)?;
    Ok(Joining {
        token,
        pubkey: PubKey::parse(&key).filter(is_usable).ok_or(Unfit::Key)?,
        name,
        payload: serde_json::from_value(payload).map_err(|_| Unfit::Payload)?,
    })
}

/// Answers the request.
pub(super) async fn serve(lp: &Rc<Loop>, body: &[u8]) -> Reply {
    match parse(body) {
        Ok(joining) => clerk::ask(lp, |control| join(control, joining)).await,
        Err(unfit) => Reply::failure(400, &unfit.to_string()),
    }
}

fn join(control: &Control, joining: Joining) -> Reply {
    let _turn = control.changing();
    let Joined { member, already } = match control.store_admin().join(joining) {
        Ok(joined) => joined,
        Err(error) => return refused(&error),
    };
    let member_id = member.id.clone();
    // Also of one that was a member before: its home may have been too busy then.
    if !control.put_member(member) {
        return Reply::failure(500, "the broker is busy; try again");
    }
    let success = Success {
        ok: true,
        member_id,
        already_member: already,
    };
    Reply::json(200, &success)
}

fn refused(error: &JoinError) -> Reply {
    let status = match error {
        JoinError::BadSignature
        | JoinError::MeshNotFound
        | JoinError::OwnerMismatch
        | JoinError::NotFound
        | JoinError::MeshMismatch
        | JoinError::Revoked
        | JoinError::Expired
        | JoinError::Exhausted
        | JoinError::Banned
        | JoinError::Refused(AdminError::BadName { .. }) => 400,
        JoinError::Refused(_) => 500,
    };
    Reply::failure(status, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::identity::KeyPair;

    fn body(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut body = serde_json::json!({
            "invite_token": "token",
            "invite_payload": {
                "v": 1, "mesh_id": "m", "mesh_slug": "s", "broker_url": "ws://h/ws",
                "expires_at": 1, "mesh_root_key": "k", "role": "member", "owner_pubkey": "o",
                "signature": "x",
            },
            "peer_pubkey": KeyPair::from_seed([1; 32]).public().to_string(),
            "display_name": "alice",
        });
        change(&mut body);
        body.to_string().into_bytes()
    }

    fn unfit(change: impl FnOnce(&mut Value)) -> Option<Unfit> {
        parse(&body(change)).err()
    }

    #[test]
    fn what_is_missing_or_no_key_is_said_before_anything_is_looked_up() {
        assert_eq!(unfit(|_| ()), None);
        for name in ["invite_token", "peer_pubkey", "display_name"] {
            assert_eq!(unfit(|b| b[name] = "".into()), Some(Unfit::Incomplete));
            assert_eq!(unfit(|b| b[name] = 1.into()), Some(Unfit::Incomplete));
        }
        let none = unfit(|b| b["invite_payload"] = Value::Null);
        assert_eq!(none, Some(Unfit::Incomplete));
        assert_eq!(parse(b"{").err(), Some(Unfit::Incomplete));
        assert_eq!(parse(b"[]").err(), Some(Unfit::Incomplete));
        // The last is nobody's: it can sign nothing.
        let keys = ["ab", &"AB".repeat(32), &"zz".repeat(32), &"00".repeat(32)];
        for key in keys {
            assert_eq!(unfit(|b| b["peer_pubkey"] = key.into()), Some(Unfit::Key));
        }
    }

    #[test]
    fn a_payload_of_another_form_is_signed_by_nobody() {
        for payload in [serde_json::json!({}), 1.into(), "x".into()] {
            let found = unfit(|b| b["invite_payload"] = payload);
            assert_eq!(found, Some(Unfit::Payload));
        }
        let late = unfit(|b| b["invite_payload"]["expires_at"] = "soon".into());
        assert_eq!(late, Some(Unfit::Payload));
    }
}
