//! `peer_file_request`, `peer_dir_request` and their responses (protocol.md §20): forwarded between
//! two sessions that are online, neither kept nor replayed.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::chain::List;
use crate::ids::{PeerHandle, PubKey};
use crate::limits::{
    NAME_BYTES_MAX, RELAY_BYTES_MAX, RELAY_PATIENCE, RELAYS_MAX, RELAYS_OF_SESSION_MAX,
    TEXT_BYTES_MAX,
};
use crate::peer::{Kind, MeshIx};
use crate::relay::{Answered, Relayed, TooMany, Wanted};
use crate::shard::{Shard, Timer, Turn};
use crate::verbs::Request;
use crate::wire::{FieldError, Fields, frames};

impl Wanted {
    /// The field with the path.
    fn path_field(self) -> &'static str {
        match self {
            Self::File => "filePath",
            Self::Directory => "dirPath",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    requester_pubkey: PubKey,
    #[serde(flatten)]
    path: Path<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    req_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Given<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    path: Path<'a>,
    #[serde(flatten)]
    content: Content<'a>,
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    req_id: Option<&'a str>,
}

/// A path under the name it has in such frames.
#[derive(Serialize)]
enum Path<'a> {
    #[serde(rename = "filePath")]
    File(&'a str),
    #[serde(rename = "dirPath")]
    Directory(&'a str),
}

/// What a holder answers.
#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

impl Wanted {
    fn path(self, path: &str) -> Path<'_> {
        match self {
            Self::File => Path::File(path),
            Self::Directory => Path::Directory(path),
        }
    }

    fn kinds(self) -> (&'static str, &'static str) {
        match self {
            Self::File => ("peer_file_request_forward", "peer_file_response_forward"),
            Self::Directory => ("peer_dir_request_forward", "peer_dir_response_forward"),
        }
    }
}

impl Shard {
    /// Carries out a request of this family; None if it is of another.
    pub(crate) fn relay_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        Some(match kind {
            "peer_file_request" => self.ask_peer(t, request, Wanted::File),
            "peer_dir_request" => self.ask_peer(t, request, Wanted::Directory),
            "peer_file_response" => self.answer_peer(t, request, Wanted::File),
            "peer_dir_response" => self.answer_peer(t, request, Wanted::Directory),
            _ => return None,
        })
    }

    fn ask_peer(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        wanted: Wanted,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let target = fields.str("targetPubkey", NAME_BYTES_MAX)?;
        let path = fields.str(wanted.path_field(), TEXT_BYTES_MAX)?;
        let pattern = match wanted {
            Wanted::File => None,
            Wanted::Directory => fields.opt_str("pattern", TEXT_BYTES_MAX)?,
        };
        let target = PubKey::parse(&target);
        let holder = target.and_then(|key| self.holder_of(request.slot, &key));
        let (Some(holder), Some(asker)) = (holder, self.peers.handle_of(request.slot)) else {
            self.error(t, request, "peer_not_found", "target peer not connected");
            return Ok(());
        };
        let Some(peer) = self.peers.get(asker) else {
            return Ok(());
        };
        let (mesh, asker_key) = (peer.mesh, self.public_key(peer));
        let req_id = request.req_id.as_deref();
        let relayed = Relayed {
            wanted,
            path: (&*path).into(),
            req_id: req_id.map(Into::into),
            asker,
            asker_key,
            holder,
            until: t.now.mono.after(RELAY_PATIENCE),
        };
        if let Err(too_many) = self.note_relay(mesh, relayed) {
            let message = match too_many {
                TooMany::OfMesh => format!("at most {RELAYS_MAX} requests of a mesh may wait"),
                TooMany::OfSession => {
                    format!("at most {RELAYS_OF_SESSION_MAX} requests of a session may wait")
                }
            };
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let frame = frames::encode(&Asked {
            kind: wanted.kinds().0,
            requester_pubkey: asker_key,
            path: wanted.path(&path),
            pattern: pattern.as_deref(),
            req_id,
        });
        self.send_to(t, holder, frame);
        Ok(())
    }

    /// An answer of a holder. Whoever waits for it gets it; that is no news to the holder.
    fn answer_peer(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        wanted: Wanted,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let asker_key = fields.str("requesterPubkey", NAME_BYTES_MAX)?;
        let path = fields.str(wanted.path_field(), TEXT_BYTES_MAX)?;
        let content = content(fields, wanted)?;
        let holder = self.peers.handle_of(request.slot);
        let (Some(asker_key), Some(holder)) = (PubKey::parse(&asker_key), holder) else {
            self.error(t, request, "peer_not_found", "target peer not connected");
            return Ok(());
        };
        let answered = Answered {
            wanted,
            path: &path,
            req_id: request.req_id.as_deref(),
            asker_key,
            holder,
        };
        let mesh = self.peers.get(holder).map(|peer| peer.mesh);
        let mesh = mesh.and_then(|mesh| self.mesh_mut(mesh));
        let relays = mesh.and_then(|mesh| mesh.relays.as_mut());
        let Some(relayed) = relays.and_then(|relays| relays.take(&answered)) else {
            self.error(t, request, "not_found", "nobody waits for this answer");
            return Ok(());
        };
        let frame = frames::encode(&Given {
            kind: wanted.kinds().1,
            path: wanted.path(&path),
            content,
            req_id: relayed.req_id.as_deref(),
        });
        self.send_to(t, relayed.asker, frame);
        Ok(())
    }

    /// The online session that a key means, other than the asker: the one of that session key,
    /// else of that member its control-plane connection, else the one that attached last.
    fn holder_of(&self, asker: u32, key: &PubKey) -> Option<PeerHandle> {
        let mesh_ix = self.peers.get_slot(asker)?.mesh;
        let online = |slot: &u32| {
            let peer = self.peers.get_slot(*slot);
            *slot != asker && peer.is_some_and(|peer| peer.conn().is_some())
        };
        let by_session = self.key_holder(mesh_ix, key).filter(online);
        let by_member = || {
            let member = self.member(*self.mesh(mesh_ix)?.by_key.get(key)?)?;
            let kinds = [Kind::Member, Kind::Launched, Kind::ThrowAway];
            kinds.into_iter().find_map(|kind| {
                let sessions = member.online(kind).iter(&self.peers, List::Online);
                sessions.filter(online).last()
            })
        };
        self.peers.handle_of(by_session.or_else(by_member)?)
    }

    fn note_relay(&mut self, mesh: MeshIx, relayed: Relayed) -> Result<(), TooMany> {
        let until = relayed.until;
        let Some(found) = self.mesh_mut(mesh) else {
            return Ok(());
        };
        let relays = found.relays.get_or_insert_default();
        relays.push(relayed)?;
        if !std::mem::replace(&mut relays.timed, true) {
            self.wheel.insert(until, Timer::Relays(mesh));
        }
        Ok(())
    }

    /// Some requests may have waited long enough.
    pub(crate) fn relays_due(&mut self, t: &mut Turn<'_>, mesh: MeshIx) {
        while let Some(relayed) = self.overdue_relay(t, mesh) {
            let message = format!(
                "the peer did not answer within {} s",
                RELAY_PATIENCE.0 / 1000
            );
            let frame = frames::error("not_found", &message, relayed.req_id.as_deref());
            self.send_to(t, relayed.asker, frame);
        }
        let relays = self.mesh_mut(mesh).map(|found| &mut found.relays);
        let next = relays.and_then(|relays| match relays.as_mut()?.next() {
            Some(next) => Some(next),
            None => {
                *relays = None;
                None
            }
        });
        if let Some(next) = next {
            self.wheel.insert(next, Timer::Relays(mesh));
        }
    }

    fn overdue_relay(&mut self, t: &Turn<'_>, mesh: MeshIx) -> Option<Relayed> {
        let relays = self.mesh_mut(mesh)?.relays.as_mut()?;
        relays.overdue(t.now.mono)
    }

    /// Writes to a session, if it is still attached as it was.
    fn send_to(&self, t: &mut Turn<'_>, to: PeerHandle, frame: Bytes) {
        if let Some(conn) = self.peers.get(to).and_then(|peer| peer.conn()) {
            t.send(conn, frame);
        }
    }
}

fn content<'a>(fields: &Fields<'a>, wanted: Wanted) -> Result<Content<'a>, FieldError> {
    let error = fields.opt_str("error", TEXT_BYTES_MAX)?;
    let (content, entries) = match wanted {
        Wanted::File => (fields.opt_str("content", RELAY_BYTES_MAX)?, None),
        Wanted::Directory => {
            let expected = format!("a list of at most {RELAY_BYTES_MAX} bytes");
            let entries = fields.readable("entries")?;
            let fits = |list: &&RawValue| {
                list.get().starts_with('[') && list.get().len() <= RELAY_BYTES_MAX
            };
            if !entries.as_ref().is_none_or(fits) {
                return Err(FieldError::new("entries", expected));
            }
            (None, entries)
        }
    };
    Ok(Content {
        content,
        entries,
        error,
    })
}
