//! `vault_set`, `vault_list`, `vault_get`, `vault_delete` (protocol.md §20). A vault is its
//! member's, and what is in it means nothing to the broker.

use bytes::Bytes;
use serde::Serialize;

use super::{Asker, Listed, Then as Any, name, optional};
use crate::limits::{
    LIST_ROWS, NAME_BYTES_MAX, RECORD_LIST_BYTES_MAX, RECORD_TEXT_BYTES_MAX, TEXT_BYTES_MAX,
    VAULT_ENTRIES_MAX, VAULT_KEYS_MAX,
};
use crate::rows::{RecordAnswer, RecordAsk, VaultEntry};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Set { key: String },
    Deleted { key: String },
    Listed,
    Got,
}

#[derive(Serialize)]
struct Ack<'a> {
    key: &'a str,
    action: &'a str,
}

#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    entry_type: &'a str,
    mount_path: Option<&'a str>,
    description: Option<&'a str>,
    updated_at: Wall,
}

#[derive(Serialize)]
struct Secret<'a> {
    key: &'a str,
    ciphertext: &'a str,
    nonce: &'a str,
    sealed_key: &'a str,
    entry_type: &'a str,
    mount_path: Option<&'a str>,
}

impl Shard {
    pub(crate) fn vault_set(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let key = name(fields, "key")?.into_owned();
        let ciphertext = fields.str("ciphertext", RECORD_TEXT_BYTES_MAX)?;
        let nonce = fields.str("nonce", NAME_BYTES_MAX)?.into_owned();
        let sealed_key = fields.str("sealed_key", TEXT_BYTES_MAX)?.into_owned();
        let entry_type = fields.str("entry_type", NAME_BYTES_MAX)?.into_owned();
        if !matches!(&*entry_type, "env" | "file") {
            return Err(FieldError::new("entry_type", "env or file"));
        }
        let mount_path = optional(fields, "mount_path", TEXT_BYTES_MAX)?;
        let description = optional(fields, "description", TEXT_BYTES_MAX)?;
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let entry = VaultEntry {
            member_id: who.member_id,
            key: key.clone(),
            ciphertext: ciphertext.into_owned(),
            nonce,
            sealed_key,
            entry_type,
            mount_path,
            description,
            updated_at: t.now.wall,
        };
        let then = Any::Vault(Then::Set { key });
        self.ask_records(t, request, RecordAsk::VaultSet(entry), then);
        Ok(())
    }

    pub(crate) fn vault_list(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(who) = self.who(request.slot) else {
            return;
        };
        let ask = RecordAsk::VaultList {
            member_id: who.member_id,
            limit: LIST_ROWS,
        };
        self.ask_records(t, request, ask, Any::Vault(Then::Listed));
    }

    pub(crate) fn vault_get(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let keys = request.fields.list("keys", RECORD_LIST_BYTES_MAX)?;
        let keys = keys.ok_or_else(|| FieldError::new("keys", "a list of strings"))?;
        if keys.len() > VAULT_KEYS_MAX {
            let message = format!("at most {VAULT_KEYS_MAX} keys may be asked for at once");
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let member_id = who.member_id;
        let ask = RecordAsk::VaultGet { member_id, keys };
        self.ask_records(t, request, ask, Any::Vault(Then::Got));
        Ok(())
    }

    pub(crate) fn vault_delete(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let key = name(request.fields, "key")?.into_owned();
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let then = Any::Vault(Then::Deleted { key: key.clone() });
        let member_id = who.member_id;
        self.ask_records(t, request, RecordAsk::VaultDelete { member_id, key }, then);
        Ok(())
    }
}

pub(super) fn answered(by: &Asker<'_>, then: Then, answer: RecordAnswer) -> Option<Bytes> {
    let ack = |key: &str, action| Some(by.reply("vault_ack", Ack { key, action }));
    match (then, answer) {
        (Then::Set { key }, RecordAnswer::Written) => ack(&key, "stored"),
        (Then::Set { .. }, RecordAnswer::Full) => {
            let message = format!("a vault may have at most {VAULT_ENTRIES_MAX} entries");
            Some(by.error("limit", &message))
        }
        (Then::Deleted { key }, RecordAnswer::Written) => ack(&key, "deleted"),
        (Then::Deleted { key }, RecordAnswer::Missing) => ack(&key, "not_found"),
        (Then::Listed, RecordAnswer::Vault(entries)) => {
            let entries = entries.iter().map(|entry| Entry {
                key: &entry.key,
                entry_type: &entry.entry_type,
                mount_path: entry.mount_path.as_deref(),
                description: entry.description.as_deref(),
                updated_at: entry.updated_at,
            });
            Some(by.reply("vault_list_result", Listed::new("entries", entries)))
        }
        (Then::Got, RecordAnswer::Vault(entries)) => {
            let secrets = entries.iter().map(|entry| Secret {
                key: &entry.key,
                ciphertext: &entry.ciphertext,
                nonce: &entry.nonce,
                sealed_key: &entry.sealed_key,
                entry_type: &entry.entry_type,
                mount_path: entry.mount_path.as_deref(),
            });
            Some(by.reply("vault_get_result", Listed::new("entries", secrets)))
        }
        (Then::Set { .. } | Then::Deleted { .. } | Then::Listed | Then::Got, _) => None,
    }
}
