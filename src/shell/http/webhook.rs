//! `POST /hook/:meshId/:secret` (protocol.md §19): what the world tells a mesh through a webhook.

use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::Reply;
use super::routes::Route;
use crate::core::ids::home_of;
use crate::core::input::{Answer, Ask};
use crate::core::limits::NAME_BYTES_MAX;
use crate::shell::ask::ask_one;
use crate::shell::reactor::Loop;

/// Hex digits of a secret.
const SECRET_LEN: usize = 64;

#[derive(Serialize)]
struct Delivered {
    ok: bool,
    delivered: u64,
}

/// The webhook that a target names; None if it has not the form of one.
pub(super) fn target(target: &str) -> Option<Route> {
    let (mesh_id, secret) = target.strip_prefix("/hook/")?.split_once('/')?;
    let fits = !mesh_id.is_empty() && mesh_id.len() <= NAME_BYTES_MAX && !secret.contains('/');
    fits.then(|| Route::Post {
        mesh_id: mesh_id.to_owned(),
        secret: secret.to_owned(),
    })
}

/// Whether a secret has the form of one: others are not looked for.
fn is_secret(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == SECRET_LEN && text.bytes().all(hex)
}

/// Answers. Its rate is counted as that of a status hook, for each webhook.
pub(super) async fn serve(lp: &Rc<Loop>, mesh_id: String, secret: String, body: &[u8]) -> Reply {
    if !is_secret(&secret) {
        return Reply::failure(401, "unauthorized");
    }
    let body = match parse(body) {
        Ok(body) => body,
        Err(error) => return Reply::failure(400, error),
    };
    let bucket = format!("webhook:{mesh_id}:{secret}");
    if !lp.shared.hook_allowed(&bucket, lp.mono()) {
        return Reply::failure(429, "rate limited");
    }
    let count = u16::try_from(lp.shared.lanes.len()).unwrap_or(u16::MAX);
    let home = usize::from(home_of(&mesh_id, count));
    let post = Ask::Post {
        mesh_id,
        secret,
        body,
    };
    match ask_one(lp, home, post).await {
        Some(Answer::Posted(Ok(Some(delivered)))) => {
            let ok = true;
            Reply::json(200, &Delivered { ok, delivered })
        }
        Some(Answer::Posted(Ok(None))) => Reply::failure(401, "unauthorized"),
        Some(Answer::Posted(Err(failure))) => Reply::failure(500, &failure.to_string()),
        Some(
            Answer::Gauges(_)
            | Answer::Peers(_)
            | Answer::HookCandidate(_)
            | Answer::HookDone(_)
            | Answer::Edited(_),
        )
        | None => Reply::failure(500, "no answer"),
    }
}

/// A body as it was sent, if every client can read it: an object or array, nested no deeper than
/// others accept, of texts that are texts.
fn parse(body: &[u8]) -> Result<Box<RawValue>, &'static str> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "invalid JSON")?;
    if !value.is_object() && !value.is_array() {
        return Err("invalid JSON body");
    }
    serde_json::from_slice(body).map_err(|_| "invalid JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_mesh_and_a_secret() {
        let found = |text| match target(text) {
            Some(Route::Post { mesh_id, secret }) => Some((mesh_id, secret)),
            _ => None,
        };
        assert_eq!(found("/hook/m/s"), Some(("m".into(), "s".into())));
        for other in ["/hook/", "/hook/m", "/hook//s", "/hook/m/s/t", "/hooks/m/s"] {
            assert_eq!(found(other), None, "{other}");
        }
        assert!(is_secret(&"0a".repeat(32)));
        for bad in ["0A".repeat(32), "0a".repeat(31), "0g".repeat(32)] {
            assert!(!is_secret(&bad));
        }
    }

    #[test]
    fn a_body_is_an_object_or_array_that_clients_can_read() {
        assert_eq!(parse(b" {\"a\": 1.50} ").unwrap().get(), "{\"a\": 1.50}");
        assert!(parse(b"[]").is_ok());
        for bad in [&b""[..], b"{", b"\"\xff\"", b"{\"a\":\"\\ud800\"}"] {
            assert_eq!(parse(bad).unwrap_err(), "invalid JSON");
        }
        assert_eq!(parse(b"7").unwrap_err(), "invalid JSON body");
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(parse(deep.as_bytes()).unwrap_err(), "invalid JSON");
    }
}
