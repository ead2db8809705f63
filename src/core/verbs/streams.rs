//! Streams: `create_stream`, `subscribe`, `unsubscribe`, `publish`, `list_streams` (protocol.md
//! §12). A subscription belongs to the lease: it survives every reattach, and ends with the lease.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::Position;
use crate::limits::{
    STREAM_DATA_BYTES_MAX, STREAM_NAME_BYTES_MAX, STREAMS_BYTES_MAX, STREAMS_MAX, SUBSCRIPTIONS_MAX,
};
use crate::log::What;
use crate::marks::{Mark, mark};
use crate::peer::{MeshIx, PeerConn};
use crate::rows::{StoreOp, StreamRow, SubscriptionRow};
use crate::shard::{Shard, Turn};
use crate::streams::{Created, StreamEntry, Streams};
use crate::verbs::{Request, readable};
use crate::wire::{FieldError, frames};

#[derive(Serialize)]
struct StreamCreated<'a> {
    id: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Subscribed<'a> {
    stream: &'a str,
}

/// What subscribers are told.
#[derive(Serialize)]
#[serde(tag = "type", rename = "stream_data", rename_all = "camelCase")]
struct StreamData<'a> {
    stream: &'a str,
    data: &'a RawValue,
    published_by: &'a str,
}

impl Shard {
    /// Makes a stream, or finds it.
    pub(crate) fn create_stream(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some(name) = self.stream_name(t, request, "name")? else {
            return Ok(());
        };
        let Some((mesh, by)) = self.mesh_and_member(request.slot) else {
            return Ok(());
        };
        if let Some(created) = self.streams(mesh).and_then(|s| s.created(&name)) {
            let id = created.id.clone();
            let body = StreamCreated {
                id: &id,
                name: &name,
            };
            // Its row may still be on its way.
            self.answer_when_stored(t, request, StoreOp::Fence, "stream_created", body);
            return Ok(());
        }
        let id = self.mint.presence_id();
        let at = t.now.wall;
        let created = Created {
            id: id.as_str().into(),
            by,
            at,
        };
        let streams = self.streams_mut(mesh);
        if !streams.is_some_and(|streams| streams.may_create(&name, &created)) {
            let what = format!(
                "a mesh may have at most {STREAMS_MAX} streams, of {STREAMS_BYTES_MAX} bytes in all"
            );
            self.over_limit(t, request, &what);
            return Ok(());
        }
        let row = StreamRow {
            id: id.clone(),
            mesh_id: self.mesh_id(mesh),
            name: name.clone().into_owned(),
            created_by: created.by.to_string(),
            created_at: at,
        };
        if let Some(streams) = self.streams_mut(mesh) {
            streams.create(&name, created);
        }
        let op = StoreOp::StreamCreate(Box::new(row));
        let body = StreamCreated {
            id: &id,
            name: &name,
        };
        self.answer_when_stored(t, request, op, "stream_created", body);
        Ok(())
    }

    /// From here on the session is told what is published.
    pub(crate) fn subscribe(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some(name) = self.stream_name(t, request, "stream")? else {
            return Ok(());
        };
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let mesh = peer.mesh;
        if self.subscribed(peer, &name).is_some() {
            let body = Subscribed { stream: &name };
            self.answer_when_stored(t, request, StoreOp::Fence, "subscribed", body);
            return Ok(());
        }
        if peer.subscriptions().is_some_and(|own| own.is_full()) {
            let what =
                format!("a session may be subscribed to at most {SUBSCRIPTIONS_MAX} streams");
            self.over_limit(t, request, &what);
            return Ok(());
        }
        if self.streams(mesh).is_some_and(|s| !s.may_enter(&name)) {
            let what = format!("a mesh may have at most {STREAMS_MAX} streams");
            self.over_limit(t, request, &what);
            return Ok(());
        }
        let since = self.stamp();
        self.enter_stream(request.slot, &name, since);
        let Some(op) = self.subscription_op(request.slot, &name, true) else {
            return Ok(());
        };
        // Not sooner: a client that was told must find itself subscribed after a crash.
        self.answer_when_stored(t, request, op, "subscribed", Subscribed { stream: &name });
        Ok(())
    }

    /// From here on it is not. No answer.
    pub(crate) fn unsubscribe(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some(name) = self.stream_name(t, request, "stream")? else {
            return Ok(());
        };
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let (mesh, found) = (peer.mesh, self.subscribed(peer, &name));
        let Some(number) = found else {
            let message = format!("not subscribed to stream \"{name}\"");
            self.error(t, request, "not_found", &message);
            return Ok(());
        };
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            peer.rare_mut().subscriptions.remove(number);
        }
        if let Some(streams) = self.streams_mut(mesh) {
            streams.leave(&name);
        }
        if let Some(op) = self.subscription_op(request.slot, &name, false) {
            t.persist(op);
        }
        Ok(())
    }

    /// Says something to the subscribers of a stream, except to the session that says it. No
    /// answer, unless there is no such stream.
    pub(crate) fn publish_data(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some(name) = self.stream_name(t, request, "stream")? else {
            return Ok(());
        };
        let data = request.fields.raw("data");
        let data = data.ok_or_else(|| FieldError::new("data", "given"))?;
        readable("data", data)?;
        if data.get().len() > STREAM_DATA_BYTES_MAX {
            let what = format!("data may have at most {STREAM_DATA_BYTES_MAX} bytes");
            self.over_limit(t, request, &what);
            return Ok(());
        }
        let Some((mesh, published_by)) = self.mesh_and_member(request.slot) else {
            return Ok(());
        };
        let Some(stream) = self.streams(mesh).and_then(|s| s.number(&name)) else {
            let message = format!("stream \"{name}\" not found");
            self.error(t, request, "not_found", &message);
            return Ok(());
        };
        self.announce_joined(t, request.slot);
        let order = self.peers.get_slot(request.slot).map(|peer| peer.order);
        let publisher = order.unwrap_or_default();
        let frame = frames::encode(&StreamData {
            stream: &name,
            data,
            published_by: &published_by,
        });
        let at = self.stamp();
        let what = What::Stream { stream, publisher };
        self.publish(t, mesh, at, (what, frame));
        Ok(())
    }

    /// Streams that were created.
    pub(crate) fn list_streams(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        #[derive(Serialize)]
        struct StreamList<'a> {
            streams: Vec<StreamEntry<'a>>,
        }

        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let streams = mesh.and_then(|mesh| self.streams(mesh));
        let streams = streams.map(Streams::list).unwrap_or_default();
        let body = StreamList { streams };
        let frame = frames::reply("stream_list", body, request.req_id.as_deref());
        self.reply(t, request.slot, frame);
    }

    /// A session's lease ended: so do its subscriptions. Their rows go with that of the presence.
    pub(crate) fn leave_streams(&mut self, gone: &PeerConn) {
        let Some(streams) = self.streams_mut(gone.mesh) else {
            return;
        };
        for name in gone.subscriptions().into_iter().flat_map(|own| own.names()) {
            mark(Mark::SubscriptionEnded);
            streams.leave(name);
        }
    }

    /// A stream that was created before this process began.
    pub(crate) fn stream_found(&mut self, row: StreamRow) {
        let Some(mesh) = self.mesh_ids.get(row.mesh_id.as_str()).copied() else {
            return;
        };
        let created = Created {
            id: row.id.into(),
            by: row.created_by.into(),
            at: row.created_at,
        };
        if let Some(streams) = self.streams_mut(mesh) {
            streams.create(&row.name, created);
        }
    }

    /// What the presence restored last was subscribed to. Nothing of before is there any more.
    pub(crate) fn subscription_found(&mut self, row: &SubscriptionRow) {
        let Some(mesh) = self.mesh_ids.get(row.mesh_id.as_str()).copied() else {
            return;
        };
        let roster = self.mesh(mesh).map(|found| found.roster);
        let last = roster.and_then(|roster| {
            let mut slots = roster.iter_back(&self.peers, crate::chain::List::Mesh);
            slots.find(|slot| {
                let peer = self.peers.get_slot(*slot);
                peer.is_none_or(|peer| peer.order <= row.began.0)
            })
        });
        let Some(slot) = last else { return };
        let peer = self.peers.get_slot(slot);
        // One that was not restored has none any more.
        let peer = peer.filter(|peer| peer.order == row.began.0);
        if peer.is_some_and(|peer| self.subscribed(peer, &row.stream).is_none()) {
            mark(Mark::SubscriptionRestored);
            self.enter_stream(slot, &row.stream, Position::default());
        }
    }

    fn enter_stream(&mut self, slot: u32, name: &str, since: Position) {
        let Some(mesh) = self.peers.get_slot(slot).map(|peer| peer.mesh) else {
            return;
        };
        let subscription = self.streams_mut(mesh).map(|s| s.enter(name, since));
        let peer = self.peers.get_slot_mut(slot);
        if let (Some(peer), Some(subscription)) = (peer, subscription) {
            peer.rare_mut().subscriptions.add(subscription);
        }
    }

    /// The number of a stream that a session is subscribed to.
    fn subscribed(&self, peer: &PeerConn, name: &str) -> Option<u64> {
        let number = self.streams(peer.mesh)?.number(name)?;
        peer.subscriptions()?.since(number).map(|_| number)
    }

    fn subscription_op(&self, slot: u32, name: &str, subscribed: bool) -> Option<StoreOp> {
        let peer = self.peers.get_slot(slot)?;
        Some(StoreOp::Subscribed {
            began: Position(peer.order),
            id: peer.presence_id().to_owned(),
            stream: name.to_owned(),
            subscribed,
        })
    }

    /// The name of a stream, if it is not too long; else whoever asked is told.
    fn stream_name<'a>(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'a>,
        field: &'static str,
    ) -> Result<Option<Cow<'a, str>>, FieldError> {
        let name = request.fields.str(field, usize::MAX)?;
        if name.is_empty() {
            return Err(FieldError::new(field, "not empty"));
        }
        if name.len() > STREAM_NAME_BYTES_MAX {
            let what = format!("a stream's name may have at most {STREAM_NAME_BYTES_MAX} bytes");
            self.over_limit(t, request, &what);
            return Ok(None);
        }
        Ok(Some(name))
    }

    fn streams(&self, mesh: MeshIx) -> Option<&Streams> {
        self.mesh(mesh)?.streams.as_deref()
    }

    fn streams_mut(&mut self, mesh: MeshIx) -> Option<&mut Streams> {
        let found = self.mesh_mut(mesh)?;
        Some(&mut **found.streams.get_or_insert_default())
    }

    fn mesh_id(&self, mesh: MeshIx) -> String {
        let found = self.mesh(mesh).map(|found| found.id.to_string());
        found.unwrap_or_default()
    }

    /// The mesh of a session, and the name of its member.
    fn mesh_and_member(&self, slot: u32) -> Option<(MeshIx, Box<str>)> {
        let peer = self.peers.get_slot(slot)?;
        Some((peer.mesh, self.member(peer.member)?.name.clone()))
    }
}
