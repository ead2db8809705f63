//! `mesh_info`: what there is, in numbers and names (protocol.md §20).

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;

use super::{Asker, Then};
use crate::card::Groups;
use crate::limits::LIST_ROWS;
use crate::rows::{RecordAnswer, RecordAsk};
use crate::shard::{Shard, Turn};
use crate::verbs::Request;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeshInfo<'a> {
    mesh: &'a str,
    peers: usize,
    groups: Vec<String>,
    state_keys: Vec<&'a str>,
    memory_count: u64,
    /// Files go from peer to peer here; none are kept.
    file_count: u64,
    tasks: Tasks,
    streams: Vec<&'a str>,
    /// There is no SQL here …
    tables: [(); 0],
    /// … and no vectors.
    collections: [(); 0],
    your_name: &'a str,
    your_groups: Groups<'a>,
}

#[derive(Serialize)]
struct Tasks {
    open: u64,
    claimed: u64,
    done: u64,
}

impl Shard {
    pub(crate) fn mesh_info(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        self.ask_records(t, request, RecordAsk::Tally, Then::MeshInfo);
    }

    /// Who is present, and in which groups, is counted as the asker sees it in its list.
    pub(super) fn mesh_info_answered(
        &self,
        by: &Asker<'_>,
        answer: &RecordAnswer,
    ) -> Option<Bytes> {
        let RecordAnswer::Tally(tally) = answer else {
            return None;
        };
        let asker = self.peers.get(by.handle)?;
        let mesh = self.mesh(asker.mesh)?;
        let mut peers = 0;
        let mut groups = BTreeSet::new();
        let present = self.present_in(asker.mesh);
        for peer in present.filter_map(|slot| self.peers.get_slot(slot)) {
            if peer.visible || peer.member == asker.member {
                peers += 1;
                groups.extend(peer.card.groups().iter().map(|(name, _)| name));
            }
        }
        let (state, streams) = (mesh.state.iter(), mesh.streams.iter());
        let groups = groups.into_iter().take(LIST_ROWS as usize);
        let info = MeshInfo {
            mesh: &mesh.id,
            peers,
            groups: groups.map(|name| format!("@{name}")).collect(),
            state_keys: state
                .flat_map(|all| all.iter())
                .map(|(key, _)| key)
                .collect(),
            memory_count: tally.memories,
            file_count: 0,
            tasks: Tasks {
                open: tally.open,
                claimed: tally.claimed,
                done: tally.done,
            },
            streams: streams.flat_map(|all| all.created_names()).collect(),
            tables: [],
            collections: [],
            your_name: asker.name(),
            your_groups: asker.card.groups(),
        };
        Some(by.reply("mesh_info_result", info))
    }
}
