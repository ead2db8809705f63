//! Sessions by working directory: what a status hook matches on (protocol.md §2.3).

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::Hasher;
use crate::chain::{Chain, Link, List};
use crate::handle::HandleSlab;
use crate::peer::PeerConn;
use crate::shard::Shard;

/// For each directory the present sessions. Its name is compared in the first of them.
#[derive(Debug, Default)]
pub(crate) struct Cwds(HashTable<Chain>);

fn cwd_of<'a>(peers: &'a HandleSlab<PeerConn>, chain: &Chain) -> Option<&'a str> {
    let first = peers.get_slot(chain.first()?)?;
    Some(first.card.cwd())
}

impl Cwds {
    /// Sessions in all directories.
    #[cfg(feature = "marks")]
    pub(crate) fn len(&self) -> usize {
        // A sum: the order in which directories are visited cannot be seen.
        self.0.iter().map(Chain::len).sum()
    }

    fn enter(&mut self, hasher: &Hasher, peers: &mut HandleSlab<PeerConn>, slot: u32) {
        let Some(cwd) = peers.get_slot(slot).map(|peer| peer.card.cwd()) else {
            return;
        };
        let hash = hasher.hash_one(cwd);
        let entry = self.0.entry(
            hash,
            |chain| cwd_of(peers, chain) == Some(cwd),
            |chain| hasher.hash_one(cwd_of(peers, chain).unwrap_or_default()),
        );
        let chain = entry.or_insert(Chain::default()).into_mut();
        chain.insert(peers, List::Cwd, slot);
    }

    /// Takes out the session of a slot, which it may have left already.
    fn leave(
        &mut self,
        hasher: &Hasher,
        peers: &mut HandleSlab<PeerConn>,
        (slot, cwd, link): (u32, &str, Link),
    ) {
        let hash = hasher.hash_one(cwd);
        let is_it =
            |chain: &Chain| chain.first() == Some(slot) || cwd_of(peers, chain) == Some(cwd);
        if let Ok(mut entry) = self.0.find_entry(hash, is_it) {
            entry.get_mut().remove(peers, List::Cwd, link);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    fn find(&self, hasher: &Hasher, peers: &HandleSlab<PeerConn>, cwd: &str) -> Chain {
        let is_it = |chain: &Chain| cwd_of(peers, chain) == Some(cwd);
        let found = self.0.find(hasher.hash_one(cwd), is_it);
        found.copied().unwrap_or_default()
    }
}

impl Shard {
    /// Enters a session under its directory.
    pub(crate) fn enter_cwd(&mut self, slot: u32) {
        self.cwds.enter(&self.hasher, &mut self.peers, slot);
    }

    /// Takes a session out before its directory changes.
    pub(crate) fn leave_cwd(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_slot(slot) else {
            return;
        };
        let (cwd, link) = (Box::<str>::from(peer.card.cwd()), peer.links.cwd);
        let place = (slot, &*cwd, link);
        self.cwds.leave(&self.hasher, &mut self.peers, place);
    }

    /// Takes a session out that has left its slot.
    pub(crate) fn forget_cwd(&mut self, slot: u32, gone: &PeerConn) {
        let place = (slot, gone.card.cwd(), gone.links.cwd);
        self.cwds.leave(&self.hasher, &mut self.peers, place);
    }

    /// The sessions of a directory, latest first.
    pub(crate) fn latest_in(&self, cwd: &str) -> impl Iterator<Item = u32> {
        let chain = self.cwds.find(&self.hasher, &self.peers, cwd);
        chain.iter_back(&self.peers, List::Cwd)
    }
}
