//! Invitations: making them, and joining by one (protocol.md §2.4).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::members::{self, Newcomer};
use super::meshes::{self, check_name, new_id};
use super::{AdminError, Invite, JoinError, Joined, NewInvite};
use crate::core::identity::{InviteText, KeyPair, Signature, verify};
use crate::core::ids::PubKey;
use crate::core::time::{Millis, Wall};
use crate::store::{apply, encode};

/// The only form of an invite there is.
const VERSION: u32 = 1;

/// Longest life of an invite: ten years, so that no sum of times runs over.
const LIFE_MAX: Millis = Millis::secs(10 * 365 * 86_400);

/// Most members one invite may make.
const USES_MAX: u32 = 1_000_000;

/// What a token says; clients read it, and send it back as `invite_payload`. Holds the key that
/// all members of the mesh share.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitePayload {
    v: u32,
    mesh_id: String,
    mesh_slug: String,
    broker_url: String,
    /// Unix seconds.
    expires_at: i64,
    mesh_root_key: String,
    role: String,
    owner_pubkey: String,
    signature: String,
}

impl InvitePayload {
    fn text(&self) -> String {
        InviteText {
            version: self.v,
            mesh_id: &self.mesh_id,
            mesh_slug: &self.mesh_slug,
            broker_url: &self.broker_url,
            expires_at: self.expires_at,
            mesh_root_key: &self.mesh_root_key,
            role: &self.role,
            owner_pubkey: &self.owner_pubkey,
        }
        .text()
    }

    /// Whether the key it names has signed it.
    fn is_signed(&self) -> bool {
        let key = PubKey::parse(&self.owner_pubkey);
        let signature = Signature::parse(&self.signature);
        let both = key.zip(signature);
        both.is_some_and(|(key, signature)| verify(&key, self.text().as_bytes(), &signature))
    }
}

/// Who wants to join, by what.
#[derive(Clone, PartialEq, Eq)]
pub struct Joining {
    /// The token as it was given out.
    pub token: String,
    /// What the token says.
    pub payload: InvitePayload,
    /// The newcomer's member key.
    pub pubkey: PubKey,
    /// The name that others will see.
    pub name: String,
}

/// What signs the invites of a mesh.
struct Owner {
    secret_key: String,
    root_key: String,
}

const INVITE: &str =
    "id, mesh_id, token, role, max_uses, used_count, expires_at, created_at, revoked_at";

fn invite(row: &Row<'_>) -> rusqlite::Result<Invite> {
    let mut fields = encode::Fields::of(row);
    Ok(Invite {
        id: fields.next()?,
        mesh_id: fields.next()?,
        token: fields.next()?,
        admin: fields.parsed(|role| match role {
            "admin" => Some(true),
            "member" => Some(false),
            _ => None,
        })?,
        uses: fields.next()?,
        used: fields.next()?,
        expires_at: fields.wall()?,
        created_at: fields.wall()?,
        revoked_at: fields.optional_wall()?,
    })
}

pub(super) fn create(conn: &mut Connection, new: &NewInvite) -> Result<Invite, AdminError> {
    if new.uses == 0 || new.uses > USES_MAX {
        return Err(AdminError::BadUses { max: USES_MAX });
    }
    if new.life == Millis(0) || new.life > LIFE_MAX {
        return Err(AdminError::BadLife);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mesh = meshes::get(&tx, &new.mesh)?;
    let owner = tx.query_row(
        "SELECT owner_secret_key, root_key FROM mesh WHERE id = ?1",
        [&mesh.id],
        |row| {
            let mut fields = encode::Fields::of(row);
            Ok(Owner {
                secret_key: fields.next()?,
                root_key: fields.next()?,
            })
        },
    )?;
    let pair = KeyPair::from_libsodium_hex(&owner.secret_key).ok_or(AdminError::NoOwnerKey)?;
    let now = apply::wall(&tx)?;
    // The payload counts in seconds, and row and payload are to agree.
    let mut expires_at = now.after(new.life).0.div_euclid(1000);
    let role = if new.admin { "admin" } else { "member" };
    let mut payload = InvitePayload {
        v: VERSION,
        mesh_id: mesh.id.clone(),
        mesh_slug: mesh.slug,
        broker_url: new.broker_url.clone(),
        expires_at,
        mesh_root_key: owner.root_key,
        role: role.to_owned(),
        owner_pubkey: pair.public().to_string(),
        signature: String::new(),
    };
    // An invite is what it says: the second one of a second holds a second longer.
    let token = loop {
        payload.expires_at = expires_at;
        payload.signature = pair.sign(payload.text().as_bytes()).to_string();
        let token = BASE64_URL_SAFE_NO_PAD.encode(encode::json(&payload)?);
        let taken = "SELECT EXISTS (SELECT 1 FROM invite WHERE token = ?1)";
        if !tx.query_row(taken, [&token], |row| row.get::<_, bool>(0))? {
            break token;
        }
        expires_at += 1;
    };
    let id = new_id()?;
    tx.execute(
        "INSERT INTO invite (id, mesh_id, token, role, max_uses, expires_at, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![id, mesh.id, token, role, new.uses, expires_at * 1000, now.0,],
    )?;
    let made = by_id(&tx, &id)?;
    tx.commit()?;
    made.ok_or(AdminError::NoInvite(id))
}

pub(super) fn list(conn: &Connection, mesh: &str) -> Result<Vec<Invite>, AdminError> {
    let mesh = meshes::get(conn, mesh)?;
    let sql = format!("SELECT {INVITE} FROM invite WHERE mesh_id = ?1 ORDER BY rowid");
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map([mesh.id], invite)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn revoke(conn: &mut Connection, id: &str) -> Result<Invite, AdminError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute(
        "UPDATE invite SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
        params![id, apply::wall(&tx)?.0],
    )?;
    let revoked = by_id(&tx, id)?;
    tx.commit()?;
    revoked.ok_or_else(|| AdminError::NoInvite(id.to_owned()))
}

fn by_id(conn: &Connection, id: &str) -> rusqlite::Result<Option<Invite>> {
    let sql = format!("SELECT {INVITE} FROM invite WHERE id = ?1");
    conn.query_row(&sql, [id], invite).optional()
}

/// The checks are in the order of the protocol. A use is taken in the transaction that makes the
/// member, so that no two take the last one.
pub(super) fn join(conn: &mut Connection, joining: &Joining) -> Result<Joined, JoinError> {
    let payload = &joining.payload;
    if !payload.is_signed() {
        return Err(JoinError::BadSignature);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let owner: Option<String> = tx
        .query_row(
            "SELECT owner_pubkey FROM mesh WHERE id = ?1 AND archived_at IS NULL",
            [&payload.mesh_id],
            |row| row.get(0),
        )
        .optional()?;
    let owner = owner.ok_or(JoinError::MeshNotFound)?;
    if owner != payload.owner_pubkey {
        return Err(JoinError::OwnerMismatch);
    }
    let sql = format!("SELECT {INVITE} FROM invite WHERE token = ?1");
    let found = tx.query_row(&sql, [&joining.token], invite);
    let found = found.optional()?.ok_or(JoinError::NotFound)?;
    let now = apply::wall(&tx)?;
    fits(&found, payload, now)?;
    let member = match members::holder(&tx, &payload.mesh_id, joining.pubkey)? {
        Some(member) => {
            return Ok(Joined {
                member,
                already: true,
            });
        }
        // A ban is lifted by whoever invites anew, not by an invite that was out before it.
        None if members::was_revoked(
            &tx,
            (&payload.mesh_id, joining.pubkey),
            found.created_at,
        )? =>
        {
            return Err(JoinError::Banned);
        }
        None if found.used >= found.uses => return Err(JoinError::Exhausted),
        None => {
            check_name(&joining.name)?;
            members::insert(
                &tx,
                &Newcomer {
                    mesh_id: &payload.mesh_id,
                    name: &joining.name,
                    pubkey: joining.pubkey,
                    admin: found.admin,
                },
            )?
        }
    };
    tx.execute(
        "UPDATE invite SET used_count = used_count + 1 WHERE id = ?1",
        [&found.id],
    )?;
    tx.commit()?;
    Ok(Joined {
        member,
        already: false,
    })
}

/// Whether the invite is what the payload says, and still holds.
fn fits(found: &Invite, payload: &InvitePayload, now: Wall) -> Result<(), JoinError> {
    if found.mesh_id != payload.mesh_id {
        return Err(JoinError::MeshMismatch);
    }
    if found.revoked_at.is_some() {
        return Err(JoinError::Revoked);
    }
    if now >= found.expires_at {
        return Err(JoinError::Expired);
    }
    Ok(())
}
