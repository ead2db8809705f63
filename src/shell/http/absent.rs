//! Routes of the original that this broker does not have (protocol.md §2.5, §2.6): answered at once,
//! with what is missing.

use http::Method;
use serde::Serialize;

use super::head::Request;
use super::reply::Reply;

#[derive(Serialize)]
struct Unsupported<'a> {
    ok: bool,
    error: &'a str,
    detail: &'a str,
}

const FILES: &str = "there is no object store here";
const ACCOUNTS: &str = "there are no accounts here: see holdfast mesh, member and invite";
const TELEGRAM: &str = "there is no Telegram bridge here";

/// The error and the missing feature, if the request is for one of these.
pub(super) fn find(request: &Request) -> Option<(&'static str, &'static str)> {
    let (path, _query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let under = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty())
    };
    let unsupported = "unsupported";
    match request.method {
        Method::POST if path.starts_with("/invites/") && path.ends_with("/claim") => {
            let detail = "invites of version 2 make members that cannot say hello; use ic://join/";
            Some(("invite_v2_disabled", detail))
        }
        Method::POST if path == "/upload" => Some((unsupported, FILES)),
        Method::GET if under("/download/") => Some((unsupported, FILES)),
        Method::POST if path == "/cli-sync" => Some((unsupported, ACCOUNTS)),
        Method::GET | Method::POST | Method::DELETE if under("/cli/") => {
            Some((unsupported, ACCOUNTS))
        }
        Method::POST if path == "/tg/token" => Some((unsupported, TELEGRAM)),
        _ => None,
    }
}

/// Answers.
pub(super) fn reply((error, detail): (&'static str, &'static str)) -> Reply {
    let ok = false;
    Reply::json(501, &Unsupported { ok, error, detail })
}
