//! `apikey_create`, `apikey_list`, `apikey_revoke` (protocol.md §20). A secret is shown once and
//! kept as its hash; any member may do all three, as in the original.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Asker, Listed, Then as Any};
use crate::limits::{API_KEYS_MAX, LIST_ROWS, NAME_BYTES_MAX, RECORD_LIST_BYTES_MAX};
use crate::rows::{ApiKey, RecordAnswer, RecordAsk, Revoked};
use crate::shard::{Shard, Turn};
use crate::time::{Millis, Wall};
use crate::verbs::Request;
use crate::wire::{FieldError, Fields, frames};

/// Characters of a secret that are shown in lists.
const PREFIX_LEN: usize = 11;

/// What a key may be allowed to do.
const CAPABILITIES: [&str; 4] = ["send", "read", "state_write", "admin"];

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Created { secret: String, key: Box<ApiKey> },
    Listed,
    Revoked,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    id: &'a str,
    secret: &'a str,
    label: &'a str,
    prefix: &'a str,
    capabilities: &'a [String],
    topic_scopes: Option<&'a [String]>,
    created_at: Wall,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    label: &'a str,
    prefix: &'a str,
    capabilities: &'a [String],
    topic_scopes: Option<&'a [String]>,
    created_at: Wall,
    last_used_at: Option<Wall>,
    revoked_at: Option<Wall>,
    expires_at: Option<Wall>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<u64>,
}

/// What is asked for.
struct Wanted {
    label: String,
    capabilities: Vec<String>,
    topic_scopes: Option<Vec<String>>,
    expires_at: Option<Wall>,
}

impl Shard {
    pub(crate) fn apikey_create(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let wanted = match wanted(request.fields) {
            Ok(wanted) => wanted,
            Err(error) => return self.invalid_args(t, request, &error),
        };
        let Some(who) = self.who(request.slot) else {
            return;
        };
        let secret = format!("cm_{}", base64url(&self.mint.secret()));
        let key = ApiKey {
            id: self.mint.record_id(),
            label: wanted.label,
            secret_hash: hex::encode(Sha256::digest(&secret)),
            prefix: secret.chars().take(PREFIX_LEN).collect(),
            capabilities: wanted.capabilities,
            topic_scopes: wanted.topic_scopes,
            member_id: who.member_id,
            created_at: t.now.wall,
            last_used_at: None,
            revoked_at: None,
            expires_at: wanted.expires_at,
        };
        let then = Then::Created {
            secret,
            key: Box::new(key.clone()),
        };
        let then = Any::ApiKey(then);
        self.ask_records(t, request, RecordAsk::CreateApiKey(key), then);
    }

    pub(crate) fn apikey_list(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let ask = RecordAsk::ListApiKeys { limit: LIST_ROWS };
        self.ask_records(t, request, ask, Any::ApiKey(Then::Listed));
    }

    pub(crate) fn apikey_revoke(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let id = match super::name(request.fields, "id") {
            Ok(id) => id.into_owned(),
            Err(error) => return self.invalid_args(t, request, &error),
        };
        let at = t.now.wall;
        let ask = RecordAsk::RevokeApiKey { id, at };
        self.ask_records(t, request, ask, Any::ApiKey(Then::Revoked));
    }

    fn invalid_args(&mut self, t: &mut Turn<'_>, request: &Request<'_>, error: &FieldError) {
        let req_id = request.req_id.as_deref();
        let frame = frames::error_with_id("invalid_args", error, req_id);
        self.reply(t, request.slot, frame);
    }
}

fn wanted(fields: &Fields<'_>) -> Result<Wanted, FieldError> {
    let label = super::name(fields, "label")?.into_owned();
    let known = || FieldError::new("capabilities", "some of send, read, state_write, admin");
    let capabilities = fields.list("capabilities", RECORD_LIST_BYTES_MAX)?;
    let capabilities = capabilities.ok_or_else(known)?;
    let all_known = capabilities
        .iter()
        .all(|name| CAPABILITIES.contains(&&**name));
    if capabilities.is_empty() || capabilities.len() > CAPABILITIES.len() || !all_known {
        return Err(known());
    }
    let topic_scopes = fields.list("topicScopes", RECORD_LIST_BYTES_MAX)?;
    let expires_at = match fields.opt_str("expiresAt", NAME_BYTES_MAX)? {
        Some(text) => {
            let moment = parse_moment(&text);
            Some(moment.ok_or_else(|| FieldError::new("expiresAt", "a moment in ISO-8601, UTC"))?)
        }
        None => None,
    };
    Ok(Wanted {
        label,
        capabilities,
        topic_scopes,
        expires_at,
    })
}

fn parse_moment(text: &str) -> Option<Wall> {
    let moment = humantime::parse_rfc3339(text).ok()?;
    let since = moment.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Wall(0).after(Millis::from(since)))
}

pub(super) fn answered(by: &Asker<'_>, then: Then, answer: RecordAnswer) -> Option<Bytes> {
    match (then, answer) {
        (Then::Created { secret, key }, RecordAnswer::Written) => {
            let created = Created {
                id: &key.id,
                secret: &secret,
                label: &key.label,
                prefix: &key.prefix,
                capabilities: &key.capabilities,
                topic_scopes: key.topic_scopes.as_deref(),
                created_at: key.created_at,
            };
            Some(by.reply("apikey_created", created))
        }
        (Then::Created { .. }, RecordAnswer::Full) => {
            Some(by.full(API_KEYS_MAX, "API keys in use"))
        }
        (Then::Listed, RecordAnswer::ApiKeys(keys)) => {
            let entries = keys.iter().map(|key| Entry {
                id: &key.id,
                label: &key.label,
                prefix: &key.prefix,
                capabilities: &key.capabilities,
                topic_scopes: key.topic_scopes.as_deref(),
                created_at: key.created_at,
                last_used_at: key.last_used_at,
                revoked_at: key.revoked_at,
                expires_at: key.expires_at,
            });
            Some(by.reply("apikey_list_response", Listed::new("keys", entries)))
        }
        (Then::Revoked, RecordAnswer::Revoked(revoked)) => {
            let (status, id, matches) = match &revoked {
                Revoked::Key(id) => ("revoked", Some(id.as_str()), None),
                Revoked::NotFound => ("not_found", None, None),
                Revoked::NotUnique(matches) => ("not_unique", None, Some(*matches)),
            };
            let outcome = Outcome {
                status,
                id,
                matches,
            };
            Some(by.reply("apikey_revoke_response", outcome))
        }
        (Then::Created { .. } | Then::Listed | Then::Revoked, _) => None,
    }
}

/// Base64 with the alphabet for addresses, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits: u32 = 0;
        for byte in 0..3 {
            bits = bits << 8 | chunk.get(byte).map_or(0, |byte| u32::from(*byte));
        }
        for place in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * place) & 0x3f;
            let digit = usize::try_from(digit).unwrap_or(0);
            text.extend(DIGITS.get(digit).map(|digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_as_others_write_it() {
        assert_eq!(base64url(b""), "");
        assert_eq!(base64url(b"f"), "Zg");
        assert_eq!(base64url(b"fo"), "Zm8");
        assert_eq!(base64url(b"foo"), "Zm9v");
        assert_eq!(base64url(&[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        let text = "2023-11-14T22:13:20.123Z";
        assert_eq!(parse_moment(text).unwrap().to_string(), text);
        assert_eq!(parse_moment("tomorrow"), None);
    }
}
