//! Shared state: `set_state`, `get_state`, `list_state` (protocol.md §11, §26).

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::Position;
use crate::limits::{STATE_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX};
use crate::log::{Kept, What};
use crate::marks::{Mark, mark};
use crate::peer::MeshIx;
use crate::rows::{StateRow, StoreOp};
use crate::shard::{Shard, Turn};
use crate::state::{Full, StateEntry, Value};
use crate::verbs::{Request, readable};
use crate::wire::{FieldError, frames};

/// What all others are told of a key.
#[derive(Serialize)]
#[serde(tag = "type", rename = "state_change", rename_all = "camelCase")]
struct StateChange<'a> {
    key: &'a str,
    value: &'a RawValue,
    updated_by: &'a str,
}

impl Shard {
    /// Sets a key, in memory at once. No answer: existing clients would take one for something
    /// else.
    pub(crate) fn set_state(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let key = request.fields.str("key", usize::MAX)?;
        let raw = request
            .fields
            .raw("value")
            .filter(|raw| raw.get() != "null");
        let raw = raw.ok_or_else(|| FieldError::new("value", "given, and not null"))?;
        let json = readable("value", raw)?;
        if key.len() > STATE_KEY_BYTES_MAX {
            let what = format!("a key may have at most {STATE_KEY_BYTES_MAX} bytes");
            self.over_limit(t, request, &what);
            return Ok(());
        }
        if raw.get().len() > STATE_VALUE_BYTES_MAX {
            let what = format!("a value may have at most {STATE_VALUE_BYTES_MAX} bytes");
            self.over_limit(t, request, &what);
            return Ok(());
        }
        let Some(row) = self.state_row(t, request.slot, (&key, raw)) else {
            return Ok(());
        };
        match self.check_state(request.slot, row.clone()) {
            Ok(()) => {}
            Err(Full::Keys) => {
                let what = format!("a mesh may share at most {STATE_KEYS_MAX} keys");
                self.over_limit(t, request, &what);
                return Ok(());
            }
            Err(Full::Bytes) => {
                let what = format!("a mesh may share at most {STATE_BYTES_MAX} bytes");
                self.over_limit(t, request, &what);
                return Ok(());
            }
        }
        self.announce_joined(t, request.slot);
        let payload = serde_json::json!({ "key": key, "value": json });
        self.put_state(t, request.slot, row, payload);
        Ok(())
    }

    /// What a session sets a key to; its place is yet to be given.
    fn state_row(
        &self,
        t: &Turn<'_>,
        slot: u32,
        (key, raw): (&str, &RawValue),
    ) -> Option<StateRow> {
        let peer = self.peers.get_slot(slot)?;
        Some(StateRow {
            mesh_id: self.mesh(peer.mesh)?.id.to_string(),
            key: key.to_owned(),
            value: raw.get().to_owned(),
            updated_by: self.member(peer.member)?.name.to_string(),
            updated_at: t.now.wall,
            setter: Position(peer.order),
            position: Position::default(),
        })
    }

    fn check_state(&self, slot: u32, row: StateRow) -> Result<(), Full> {
        let mesh = self.peers.get_slot(slot).map(|peer| peer.mesh);
        let Some(state) = mesh.and_then(|mesh| self.mesh(mesh)?.state.as_ref()) else {
            return Ok(());
        };
        match Value::of(row) {
            Some((key, value)) => state.check(&key, &value),
            None => Ok(()),
        }
    }

    /// Stores a value that there is room for, and tells all others.
    fn put_state(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        row: StateRow,
        payload: serde_json::Value,
    ) {
        let position = self.stamp();
        let row = StateRow { position, ..row };
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, setter) = (peer.mesh, peer.order);
        let Some(audit) = self.audit_row(t, peer, "state_set", payload) else {
            return;
        };
        let Some((key, value)) = Value::of(row.clone()) else {
            return;
        };
        let frame = state_frame(&key, &value);
        let earlier = self.mesh_mut(mesh).and_then(|found| {
            let state = found.state.get_or_insert_default();
            state.set(key, value)
        });
        if earlier.is_some() {
            mark(Mark::StateReplaced);
        }
        let earlier = earlier.map(|value| value.position);
        let row = Box::new(row);
        let audit = Box::new(audit);
        t.persist(StoreOp::StateSet { row, audit });
        let superseded = None;
        let what = What::State {
            setter,
            earlier,
            superseded,
        };
        self.publish(t, mesh, position, (what, frame));
    }

    /// The last value of a key, from memory. The daemon waits for `state_value`, which no other
    /// client minds.
    pub(crate) fn get_state(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct StateResult<'a> {
            key: &'a str,
            value: Option<&'a RawValue>,
            updated_by: &'a str,
            updated_at: String,
        }

        #[derive(Serialize)]
        struct StateValue<'a> {
            state: Option<StateEntry<'a>>,
        }

        let key = request.fields.str("key", usize::MAX)?;
        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let state = mesh.and_then(|mesh| self.mesh(mesh)?.state.as_ref());
        let entry = state.and_then(|state| Some(state.get(&key)?.entry(&key)));
        let result = StateResult {
            key: &key,
            value: entry.as_ref().map(|entry| entry.value),
            updated_by: entry.as_ref().map_or("", |entry| entry.updated_by),
            updated_at: entry
                .as_ref()
                .map_or_else(String::new, |entry| entry.updated_at.to_string()),
        };
        let req_id = request.req_id.as_deref();
        let result = frames::reply("state_result", result, req_id);
        let value = frames::reply("state_value", StateValue { state: entry }, req_id);
        self.reply(t, request.slot, result);
        if req_id.is_some() {
            self.reply(t, request.slot, value);
        }
        Ok(())
    }

    /// All keys.
    pub(crate) fn list_state(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        #[derive(Serialize)]
        struct StateList<'a> {
            entries: Vec<StateEntry<'a>>,
        }

        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let state = mesh.and_then(|mesh| self.mesh(mesh)?.state.as_ref());
        let values = state.into_iter().flat_map(|state| state.iter());
        let entries = values.map(|(key, value)| value.entry(key)).collect();
        let body = StateList { entries };
        let frame = frames::reply("state_list", body, request.req_id.as_deref());
        self.reply(t, request.slot, frame);
    }

    /// A key that was set before this process began.
    pub(crate) fn state_found(&mut self, row: StateRow) {
        let mesh = self.mesh_ids.get(row.mesh_id.as_str()).copied();
        let Some(found) = mesh.and_then(|mesh| self.mesh_mut(mesh)) else {
            return;
        };
        if let Some((key, value)) = Value::of(row) {
            found.state.get_or_insert_default().set(key, value);
        }
    }

    /// Puts what was set after that place back into the log.
    pub(crate) fn recall_state(&mut self, t: &Turn<'_>, mesh: MeshIx, confirmed: Position) {
        let state = self.mesh(mesh).and_then(|found| found.state.as_ref());
        let values = state.into_iter().flat_map(|state| state.iter());
        let news = values.filter(|(_, value)| value.position > confirmed);
        let news: Vec<_> = news
            .map(|(key, value)| {
                let what = What::State {
                    setter: value.setter,
                    earlier: None,
                    superseded: None,
                };
                let kept = Kept::said(what, state_frame(key, value));
                ((value.updated_at, value.position), kept)
            })
            .collect();
        for (place, kept) in news {
            mark(Mark::StateRecalled);
            self.recall(t.now, mesh, place, kept);
        }
    }
}

fn state_frame(key: &str, value: &Value) -> Bytes {
    frames::encode(&StateChange {
        key,
        value: &value.json,
        updated_by: &value.updated_by,
    })
}
