//! URL watches as clients ask for them (protocol.md §13).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{Position, WatchId};
use crate::limits::{
    MESH_WATCHES_MAX, NAME_BYTES_MAX, WATCH_BURST, WATCH_HEADER_BYTES_MAX, WATCH_HEADERS_MAX,
    WATCH_INTERVAL, WATCH_INTERVAL_MAX, WATCH_INTERVAL_MIN, WATCH_RATE, WATCH_URL_BYTES_MAX,
    WATCHES_MAX,
};
use crate::peer::PeerConn;
use crate::rows::{NotifyOn, StoreOp, WatchMode, WatchRow};
use crate::shard::{Shard, Turn};
use crate::time::{Millis, Wall};
use crate::verbs::Request;
use crate::watching::{Watch, Watches};
use crate::wire::{FieldError, Fields, frames};

/// Answer to `watch` and `unwatch`. Existing clients print `id`, the original sent `watchId`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WatchAck<'a> {
    watch_id: WatchId,
    id: WatchId,
    url: &'a str,
    mode: &'a str,
    interval: u64,
}

#[derive(Serialize)]
struct WatchList<'a> {
    watches: Vec<Listed<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    id: WatchId,
    url: &'a str,
    mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    interval: u64,
    last_hash: &'a str,
    last_value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    created_at: Wall,
}

impl<'a> Listed<'a> {
    fn of(watch: &'a Watch) -> Self {
        let row = &watch.row;
        Self {
            id: row.id,
            url: &row.url,
            mode: row.mode.name(),
            label: row.label.as_deref(),
            interval: seconds(row.interval),
            last_hash: &watch.value,
            last_value: &watch.value,
            last_check: watch.checked,
            last_error: watch.failure.map(|failure| failure.to_string()),
            created_at: row.created_at,
        }
    }
}

fn seconds(interval: Millis) -> u64 {
    interval.0 / 1000
}

/// What a `watch` asks for.
struct Wish {
    url: String,
    mode: WatchMode,
    extract: Option<String>,
    interval: Millis,
    notify_on: NotifyOn,
    headers: Vec<(String, String)>,
    label: Option<String>,
}

impl Wish {
    fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let owned = |field: &'static str| {
            let text = fields.opt_str(field, NAME_BYTES_MAX)?;
            Ok(text.map(std::borrow::Cow::into_owned))
        };
        let mode = match fields.opt_str("mode", NAME_BYTES_MAX)? {
            Some(mode) => WatchMode::parse(&mode)
                .ok_or_else(|| FieldError::new("mode", "hash, json or status"))?,
            None => WatchMode::default(),
        };
        let notify_on = match fields.opt_str("notify_on", NAME_BYTES_MAX)? {
            Some(rule) => NotifyOn::parse(&rule).ok_or_else(|| {
                FieldError::new("notify_on", "change, match:VALUE or not_match:VALUE")
            })?,
            None => NotifyOn::default(),
        };
        Ok(Self {
            url: url(fields)?,
            mode,
            extract: owned("extract")?.filter(|path| !path.is_empty()),
            interval: interval(fields)?,
            notify_on,
            headers: headers(fields)?,
            label: owned("label")?,
        })
    }
}

/// Whoever fetches parses it in full; here it is only kept from being something else. Credentials
/// in it are refused as by browsers: they would show in lists and news.
fn url(fields: &Fields<'_>) -> Result<String, FieldError> {
    let url = fields.str("url", WATCH_URL_BYTES_MAX)?;
    let rest = url.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let authority = rest.and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let host = authority.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if host && url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(url.into_owned());
    }
    let expected = "an http or https URL in printable ASCII, without credentials";
    Err(FieldError::new("url", expected))
}

/// Whole seconds. Less than the least gets the least, as it always did: the answer says so.
fn interval(fields: &Fields<'_>) -> Result<Millis, FieldError> {
    let most = seconds(WATCH_INTERVAL_MAX);
    let Some(wanted) = fields.opt_number("interval")? else {
        return Ok(WATCH_INTERVAL);
    };
    #[expect(clippy::cast_precision_loss, reason = "a day has few seconds")]
    let fits = (0.0..=most as f64).contains(&wanted);
    if !fits {
        let expected = format!("a number of seconds, at most {most}");
        return Err(FieldError::new("interval", expected));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    let wanted = Millis::secs(wanted.ceil() as u64);
    Ok(wanted.max(WATCH_INTERVAL_MIN))
}

/// Headers that say where a request goes, where it ends or what becomes of its connection. Those
/// are not the client's to say.
const FRAMING: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers(fields: &Fields<'_>) -> Result<Vec<(String, String)>, FieldError> {
    let given: Option<BTreeMap<String, String>> = fields.json("headers", "an object of strings")?;
    let given = given.unwrap_or_default();
    let bytes: usize = given.iter().map(|(k, v)| k.len() + v.len()).sum();
    if given.len() > WATCH_HEADERS_MAX || bytes > WATCH_HEADER_BYTES_MAX {
        return Err(FieldError::new(
            "headers",
            format!("at most {WATCH_HEADERS_MAX}, of {WATCH_HEADER_BYTES_MAX} bytes together"),
        ));
    }
    for (name, value) in &given {
        let lower = name.to_ascii_lowercase();
        let framing = FRAMING.contains(&&*lower) || lower.starts_with("proxy-");
        if framing || !is_token(name) || !is_text(value) {
            let expected = "names and values of HTTP headers that do not frame the request";
            return Err(FieldError::new("headers", expected));
        }
    }
    Ok(given.into_iter().collect())
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_char)
}

fn is_text(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

impl Shard {
    /// Makes a watch; answered when it is on disk.
    pub(crate) fn watch(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let wish = Wish::read(request.fields)?;
        if let Some(limit) = self.watch_limit(t, request.slot) {
            self.error(t, request, "limit", &limit);
            return Ok(());
        }
        let id = self.new_watch_id(request.slot);
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let mesh_id = self.mesh(peer.mesh).map(|mesh| mesh.id.to_string());
        let row = WatchRow {
            began: Position(peer.order),
            id,
            mesh_id: mesh_id.unwrap_or_default(),
            url: wish.url,
            mode: wish.mode,
            extract: wish.extract,
            interval: wish.interval,
            notify_on: wish.notify_on,
            headers: wish.headers,
            label: wish.label,
            value: String::new(),
            created_at: t.now.wall,
        };
        self.add_watch(t, request.slot, row.clone());
        let ack = WatchAck {
            watch_id: id,
            id,
            url: &row.url,
            mode: row.mode.name(),
            interval: seconds(row.interval),
        };
        let op = StoreOp::WatchPut(Box::new(row.clone()));
        self.answer_when_stored(t, request, op, "watch_ack", ack);
        Ok(())
    }

    /// Why a session may not make another watch now.
    fn watch_limit(&mut self, t: &Turn<'_>, slot: u32) -> Option<String> {
        let peer = self.peers.get_slot(slot)?;
        let own = peer.watches().map_or(0, |watches| watches.list().len());
        if own >= WATCHES_MAX {
            return Some(format!("at most {WATCHES_MAX} watches per session"));
        }
        let all = self.mesh(peer.mesh).map_or(0, |mesh| mesh.watches.len());
        if all >= MESH_WATCHES_MAX {
            return Some(format!("at most {MESH_WATCHES_MAX} watches per mesh"));
        }
        let may = self.may_watch(t.now.mono, slot);
        let limit = format!("at most {WATCH_BURST} new watches at once, {WATCH_RATE} per minute");
        (!may).then_some(limit)
    }

    /// Gives up a watch, if it is the session's own; answered when it is gone from disk.
    pub(crate) fn unwatch(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let named = request.fields.str("watchId", NAME_BYTES_MAX)?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let (mesh, began) = (peer.mesh, Position(peer.order));
        let id = WatchId::parse(&named);
        let owner = id.and_then(|id| self.mesh(mesh)?.watches.get(&id).copied());
        let (Some(id), Some(owner)) = (id, owner) else {
            self.error(t, request, "not_found", "no such watch");
            return Ok(());
        };
        if owner != request.slot {
            let message = "only the session that made a watch may end it";
            self.error(t, request, "forbidden", message);
            return Ok(());
        }
        if let Some(row) = self.remove_watch(request.slot, id) {
            let ack = WatchAck {
                watch_id: id,
                id,
                url: &row.url,
                mode: row.mode.name(),
                interval: 0,
            };
            let op = StoreOp::WatchRemoved { began, id };
            self.answer_when_stored(t, request, op, "watch_ack", ack);
        }
        Ok(())
    }

    /// The session's own watches.
    pub(crate) fn watch_list(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let peer = self.peers.get_slot(request.slot);
        let own = peer.and_then(PeerConn::watches).map(Watches::list);
        let watches = own.unwrap_or_default().iter().map(Listed::of).collect();
        let req_id = request.req_id.as_deref();
        let frame = frames::encode(&frames::Reply {
            kind: "watch_list_result",
            body: WatchList { watches },
            req_id,
        });
        self.reply(t, request.slot, frame);
        Ok(())
    }
}
