//! `create_webhook`, `list_webhooks`, `delete_webhook` (protocol.md §19).

use bytes::Bytes;
use serde::Serialize;

use super::{Asker, Listed, Then as Any, optional};
use crate::limits::{LIST_ROWS, NAME_BYTES_MAX, WEBHOOKS_MAX};
use crate::rows::{RecordAnswer, RecordAsk, Webhook};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer; with the mesh, which addresses have in them.
#[derive(Debug)]
pub(super) enum Then {
    Created {
        /// Where the mesh's webhooks are.
        hooks: String,
        name: String,
        secret: String,
    },
    Listed {
        /// Where the mesh's webhooks are.
        hooks: String,
    },
    Deleted {
        name: String,
    },
}

#[derive(Serialize)]
struct Ack<'a> {
    name: &'a str,
    url: &'a str,
    secret: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    name: &'a str,
    url: String,
    active: bool,
    created_at: Wall,
}

/// Where a webhook takes messages.
fn url(hooks: &str, secret: &str) -> String {
    format!("{hooks}/{secret}")
}

impl Shard {
    pub(crate) fn create_webhook(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some((name, hooks)) = self.webhook_named(t, request)? else {
            return Ok(());
        };
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let secret = hex::encode(self.mint.secret());
        let webhook = Webhook {
            id: self.mint.record_id(),
            name: name.clone(),
            secret: secret.clone(),
            member_id: who.member_id,
            created_at: t.now.wall,
        };
        let then = Any::Webhook(Then::Created {
            hooks,
            name,
            secret,
        });
        self.ask_records(t, request, RecordAsk::CreateWebhook(webhook), then);
        Ok(())
    }

    pub(crate) fn list_webhooks(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(hooks) = self.hooks_of(request.slot) else {
            return;
        };
        let ask = RecordAsk::ListWebhooks { limit: LIST_ROWS };
        self.ask_records(t, request, ask, Any::Webhook(Then::Listed { hooks }));
    }

    pub(crate) fn delete_webhook(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some((name, _)) = self.webhook_named(t, request)? else {
            return Ok(());
        };
        let then = Any::Webhook(Then::Deleted { name: name.clone() });
        self.ask_records(t, request, RecordAsk::DeleteWebhook { name }, then);
        Ok(())
    }

    /// The name in a request, and where webhooks of its mesh are. Without a name, whoever asks is told.
    fn webhook_named(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<Option<(String, String)>, FieldError> {
        let name = optional(request.fields, "name", NAME_BYTES_MAX)?.unwrap_or_default();
        if name.is_empty() {
            self.error(t, request, "invalid_webhook", "name is required");
            return Ok(None);
        }
        Ok(self.hooks_of(request.slot).map(|hooks| (name, hooks)))
    }

    fn hooks_of(&self, slot: u32) -> Option<String> {
        let mesh = self.mesh(self.peers.get_slot(slot)?.mesh)?;
        Some(format!("{}/hook/{}", self.config.public_url, mesh.id))
    }
}

pub(super) fn answered(by: &Asker<'_>, then: Then, answer: RecordAnswer) -> Option<Bytes> {
    let ack = |name: &str, url: &str, secret: &str| {
        Some(by.reply("webhook_ack", Ack { name, url, secret }))
    };
    match (then, answer) {
        (
            Then::Created {
                hooks,
                name,
                secret,
            },
            RecordAnswer::Written,
        ) => ack(&name, &url(&hooks, &secret), &secret),
        (Then::Created { name, .. }, RecordAnswer::Taken) => {
            let message = format!("Webhook \"{name}\" already exists in this mesh");
            Some(by.error("webhook_exists", &message))
        }
        (Then::Created { .. }, RecordAnswer::Full) => Some(by.full(WEBHOOKS_MAX, "webhooks")),
        (Then::Listed { hooks }, RecordAnswer::Webhooks(webhooks)) => {
            let entries = webhooks.iter().map(|webhook| Entry {
                name: &webhook.name,
                url: url(&hooks, &webhook.secret),
                active: true,
                created_at: webhook.created_at,
            });
            Some(by.reply("webhook_list", Listed::new("webhooks", entries)))
        }
        (Then::Deleted { name }, RecordAnswer::Written) => ack(&name, "", ""),
        (Then::Deleted { name }, RecordAnswer::Missing) => {
            let message = format!("no webhook \"{name}\"");
            Some(by.error("not_found", &message))
        }
        (Then::Created { .. } | Then::Listed { .. } | Then::Deleted { .. }, _) => None,
    }
}
