//! Which ends of a connection are the end of the session.

use super::{Refusal, Session};
use crate::client::event::{End, Loss};

impl Session {
    /// Whether a loss is the end.
    pub(super) fn judge(
        &self,
        greeting: bool,
        refusal: Option<Refusal>,
        why: Loss,
    ) -> Result<Loss, End> {
        let message = refusal.as_ref().map(|refusal| refusal.message.clone());
        let (code, reason) = match &why {
            Loss::Closed { code, reason } => (*code, reason.clone()),
            Loss::Broken(_)
            | Loss::ConnectTimeout
            | Loss::HelloTimeout
            | Loss::Rejected { .. }
            | Loss::Silent => (1006, String::new()),
        };
        match code {
            4001 => return Err(End::Kicked { reason }),
            4002 => {
                let message = message.unwrap_or(reason);
                return Err(End::Banned { message });
            }
            _ => {}
        }
        let refusal = refusal.or_else(|| {
            (greeting && code == 1008).then(|| Refusal {
                code: reason,
                message: String::new(),
            })
        });
        let Some(Refusal { code, message }) = refusal else {
            return Ok(why);
        };
        match &*code {
            "revoked" => Err(End::Banned { message }),
            // The broker would answer the same hello the same way.
            "unauthorized"
            | "malformed"
            | "bad_signature"
            | "bad_session_pubkey"
            | "bad_parent_pubkey"
            | "attestation_mismatch"
            | "parent_member_id_mismatch"
            | "invalid_argument"
            | "unknown_message_type"
            | "unsupported" => Err(End::Rejected { code, message }),
            "expired" if self.identity.cannot_vouch_anew() => Err(End::Rejected { code, message }),
            // What passes: capacity, a clock, a replay, a conflict.
            _ => Ok(Loss::Rejected { code, message }),
        }
    }
}
