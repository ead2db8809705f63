//! `audit_query`, `audit_verify` (protocol.md §17). Any member may ask.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Asker, Listed, Then as Any, optional};
use crate::limits::{AUDIT_ROWS_MAX, NAME_BYTES_MAX};
use crate::peer::MeshIx;
use crate::rows::{AuditEntry, RecordAnswer, RecordAsk, StoreFailure};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::{FieldError, Fields};

/// Entries in an answer, if the client does not say how many.
const ROWS: u64 = 50;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Page,
    Verified(MeshIx),
}

#[derive(Serialize)]
struct Page {
    #[serde(flatten)]
    entries: Listed,
    total: u64,
    /// There are older entries that were not looked at, so `total` may be less than there are.
    #[serde(
        rename = "olderNotSearched",
        skip_serializing_if = "std::ops::Not::not"
    )]
    older_not_searched: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: i64,
    event_type: &'a str,
    actor: &'a str,
    payload: Option<&'a RawValue>,
    hash: &'a str,
    created_at: Wall,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    valid: bool,
    entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<i64>,
}

impl Shard {
    pub(crate) fn audit_query(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let limit = count(request.fields, "limit")?.unwrap_or(ROWS);
        let offset = count(request.fields, "offset")?.unwrap_or(0);
        let ask = RecordAsk::AuditPage {
            event_type: optional(request.fields, "eventType", NAME_BYTES_MAX)?,
            limit: u32::try_from(limit).unwrap_or(u32::MAX).min(AUDIT_ROWS_MAX),
            offset,
        };
        self.ask_records(t, request, ask, Any::Audit(Then::Page));
        Ok(())
    }

    /// One at a time for each mesh: it reads the whole log.
    pub(crate) fn audit_verify(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let Some(ix) = self.peers.get_slot(request.slot).map(|peer| peer.mesh) else {
            return;
        };
        if self.mesh(ix).is_none_or(|mesh| mesh.verifying) {
            let message = "the audit log of this mesh is being verified; 1 at a time";
            return self.error(t, request, "limit", message);
        }
        let then = Any::Audit(Then::Verified(ix));
        let asked = self.ask_records(t, request, RecordAsk::AuditVerify, then);
        if let Some(mesh) = self.mesh_mut(ix) {
            mesh.verifying = asked;
        }
    }

    pub(super) fn audit_answered(
        &mut self,
        by: &Asker<'_>,
        then: Then,
        answer: Result<RecordAnswer, StoreFailure>,
    ) -> Option<Bytes> {
        let code = match then {
            Then::Page => "audit_query_error",
            Then::Verified(ix) => {
                if let Some(mesh) = self.mesh_mut(ix) {
                    mesh.verifying = false;
                }
                "audit_verify_error"
            }
        };
        match (then, answer) {
            (_, Err(failure)) => Some(by.error(code, &failure.to_string())),
            (Then::Page, Ok(RecordAnswer::Audit(page))) => {
                let entries = Listed::new("entries", page.entries.iter().map(entry));
                let body = Page {
                    entries,
                    total: page.total,
                    older_not_searched: page.truncated,
                };
                Some(by.reply("audit_result", body))
            }
            (Then::Verified(_), Ok(RecordAnswer::Chain(chain))) => {
                let body = Verified {
                    valid: chain.broken_at.is_none(),
                    entries: chain.entries,
                    broken_at: chain.broken_at,
                };
                Some(by.reply("audit_verify_result", body))
            }
            (Then::Page | Then::Verified(_), Ok(_)) => None,
        }
    }
}

fn entry(entry: &AuditEntry) -> Entry<'_> {
    Entry {
        id: entry.id,
        event_type: &entry.event_type,
        actor: &entry.actor,
        // One that somebody broke is shown as null; the chain tells.
        payload: serde_json::from_str(&entry.payload).ok(),
        hash: &entry.hash,
        created_at: entry.created_at,
    }
}

/// A whole number that is not negative.
fn count(fields: &Fields<'_>, field: &'static str) -> Result<Option<u64>, FieldError> {
    fields.json(field, "a whole number")
}
