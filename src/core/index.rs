//! Sessions found by something they bear. Only their slots are kept: what they are found by is
//! compared in the sessions themselves, so that an entry costs a few bytes.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::Hasher;
use crate::handle::HandleSlab;
use crate::ids::PubKey;
use crate::peer::{Kind, MemberIx, MeshIx, PeerConn};
use crate::shard::Shard;

/// Slots by hash.
#[derive(Debug, Default)]
pub(crate) struct Index(HashTable<u32>);

impl Index {
    /// The first entry under that hash which is it.
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.0.find(hash, |slot| is_it(*slot)).copied()
    }

    /// Enters a slot; `hash_of` tells the hash of any entry.
    fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        self.0.insert_unique(hash, slot, |slot| hash_of(*slot));
    }

    /// Takes a slot out; false if it was not there.
    fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let entry = self.0.find_entry(hash, |found| *found == slot);
        entry.is_ok_and(|entry| {
            entry.remove();
            true
        })
    }

    /// How many entries there are.
    #[cfg(feature = "marks")]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Member, kind and session id.
pub(crate) type Identity<'a> = (MemberIx, Kind, &'a str);

/// Whether a session is the one of that identity.
fn is(peer: &PeerConn, (member, kind, id): Identity<'_>) -> bool {
    peer.member == member && peer.kind == kind && *peer.card.session_id() == *id
}

fn key_hash(hasher: &Hasher, peers: &HandleSlab<PeerConn>, slot: u32) -> u64 {
    hasher.hash_one(peers.get_slot(slot).and_then(|peer| peer.session_key))
}

fn id_hash(hasher: &Hasher, peers: &HandleSlab<PeerConn>, slot: u32) -> u64 {
    let Some(peer) = peers.get_slot(slot) else {
        return 0;
    };
    let who: Identity<'_> = (peer.member, peer.kind, &peer.card.session_id());
    hasher.hash_one(who)
}

impl Shard {
    /// Which session is reached by a session key.
    pub(crate) fn key_holder(&self, mesh: MeshIx, key: &PubKey) -> Option<u32> {
        let bears = |slot| {
            let peer = self.peers.get_slot(slot);
            peer.is_some_and(|peer| peer.session_key.as_ref() == Some(key))
        };
        let hash = self.hasher.hash_one(Some(key));
        self.mesh(mesh)?.by_session_key.find(hash, bears)
    }

    /// From now on a session is the one reached by its key, and no other is.
    pub(crate) fn hold_key(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, Some(key)) = (peer.mesh, peer.session_key) else {
            return;
        };
        let holder = self.key_holder(mesh, &key);
        let hash = self.hasher.hash_one(Some(key));
        let (peers, hasher) = (&self.peers, &self.hasher);
        if let Some(mesh) = self.meshes.get_mut(mesh.0 as usize) {
            if let Some(holder) = holder {
                mesh.by_session_key.remove(hash, holder);
            }
            mesh.by_session_key
                .insert(hash, slot, |slot| key_hash(hasher, peers, slot));
        }
    }

    /// A session is no longer reached by its key; false if it was not. It may be gone already.
    pub(crate) fn drop_key(&mut self, mesh: MeshIx, slot: u32, key: &PubKey) -> bool {
        let hash = self.hasher.hash_one(Some(key));
        self.mesh_mut(mesh)
            .is_some_and(|mesh| mesh.by_session_key.remove(hash, slot))
    }

    /// The session of that member and kind that goes by a session id, the latest if there were
    /// several.
    pub(crate) fn id_holder(&self, mesh: MeshIx, who: Identity<'_>) -> Option<u32> {
        let is_it = |slot| self.peers.get_slot(slot).is_some_and(|peer| is(peer, who));
        let hash = self.hasher.hash_one(who);
        self.mesh(mesh)?.by_session_id.find(hash, is_it)
    }

    /// From now on a session is the one that goes by its session id, and no other is.
    pub(crate) fn hold_id(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (mesh, id) = (peer.mesh, peer.card.session_id());
        let who: Identity<'_> = (peer.member, peer.kind, &id);
        let holder = self.id_holder(mesh, who);
        let hash = self.hasher.hash_one(who);
        let (peers, hasher) = (&self.peers, &self.hasher);
        if let Some(mesh) = self.meshes.get_mut(mesh.0 as usize) {
            if let Some(holder) = holder {
                mesh.by_session_id.remove(hash, holder);
            }
            mesh.by_session_id
                .insert(hash, slot, |slot| id_hash(hasher, peers, slot));
        }
    }

    /// A session no longer goes by that id. It may be gone already.
    pub(crate) fn drop_id(&mut self, mesh: MeshIx, slot: u32, who: Identity<'_>) {
        let hash = self.hasher.hash_one(who);
        if let Some(mesh) = self.mesh_mut(mesh) {
            mesh.by_session_id.remove(hash, slot);
        }
    }
}
