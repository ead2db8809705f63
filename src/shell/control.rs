//! The broker as other threads see it: questions, changes, the store.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clerk::Order;
use super::http::access::Access;
use super::limits::ASK_TIMEOUT;
use super::message::{Asker, Message};
use super::shared::Shared;
use crate::core::ids::home_of;
use crate::core::input::{Answer, Ask, Edited};
use crate::core::rows::{MemberRow, MeshRow};
use crate::core::time::Wall;
use crate::store::AdminStore;

/// A handle on a running broker, for the thread that administers it. Its calls block.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
    store: AdminStore,
    address: SocketAddr,
    changes: Arc<Mutex<()>>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>, store: AdminStore, address: SocketAddr) -> Self {
        Self {
            shared,
            store,
            address,
            changes: Arc::default(),
        }
    }

    /// Asks every loop. Loops that are too busy to answer within 5 s are left out; the others'
    /// answers come in the order of the loops.
    #[must_use]
    pub fn ask_all(&self, ask: Ask) -> Vec<Answer> {
        let (reply, answers) = mpsc::channel();
        let mut asked = 0_usize;
        for lane in self.shared.lanes.iter() {
            let asker = Asker::Thread(reply.clone());
            let question = Message::Ask {
                ask: ask.clone(),
                asker,
            };
            asked += usize::from(lane.offer(question).is_ok());
        }
        // Only the loops hold senders now: when the last of them is gone, waiting ends.
        drop(reply);
        let deadline = self.shared.clock.mono().after(ASK_TIMEOUT);
        let mut found = Vec::with_capacity(asked);
        while found.len() < asked {
            let left = deadline.since(self.shared.clock.mono());
            match answers.recv_timeout(Duration::from_millis(left.0)) {
                Ok(answer) => found.push(answer),
                Err(_) => break,
            }
        }
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, answer)| answer).collect()
    }

    /// To be held from before a change of the store until the loop it concerns has taken it, so
    /// that loops learn of changes in the order of their commits.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards an order, which a panic leaves as it is.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a mesh known where it lives. True once it is; false if its loop is too busy, and
    /// then it is known from the next start.
    pub fn put_mesh(&self, row: MeshRow) -> bool {
        let id = row.id.clone();
        self.put(&id, |taken| Message::PutMesh(Box::new(row), taken))
    }

    /// Makes a member known where its mesh lives; as [`Self::put_mesh`].
    pub fn put_member(&self, row: MemberRow) -> bool {
        let id = row.mesh_id.clone();
        self.put(&id, |taken| Message::PutMember(Box::new(row), taken))
    }

    /// Tells whom it concerns of a change that has been made and put; as [`Self::put_mesh`].
    pub(super) fn tell_edited(&self, edited: Edited) -> bool {
        let id = edited.mesh_id.clone();
        let answer = self.ask_home(&id, Ask::Edited(Box::new(edited)));
        matches!(answer, Some(Answer::Edited(true)))
    }

    /// Asks the loop where a mesh lives; None if it is too busy.
    pub(super) fn ask_home(&self, mesh_id: &str, ask: Ask) -> Option<Answer> {
        let (reply, answer) = mpsc::channel();
        let asker = Asker::Thread(reply);
        let lane = self.shared.lanes.get(self.home(mesh_id))?;
        lane.offer(Message::Ask { ask, asker }).ok()?;
        let patience = Duration::from_millis(ASK_TIMEOUT.0);
        answer.recv_timeout(patience).ok().map(|(_, answer)| answer)
    }

    fn home(&self, mesh_id: &str) -> usize {
        let count = u16::try_from(self.shared.lanes.len()).unwrap_or(u16::MAX);
        usize::from(home_of(mesh_id, count))
    }

    /// Who may change what over HTTP.
    pub(super) fn access(&self) -> &Access {
        &self.shared.access
    }

    /// Takes a token of a bucket, as status hooks do.
    pub(super) fn may_ask(&self, key: &str) -> bool {
        self.shared.hook_allowed(key, self.shared.clock.mono())
    }

    /// What time it is.
    pub(super) fn wall(&self) -> Wall {
        self.shared.clock.now().wall
    }

    /// The store's door for administrators.
    #[must_use]
    pub fn store_admin(&self) -> AdminStore {
        self.store.clone()
    }

    /// Where the broker listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on loops can have work done.
    pub(super) fn employ_clerk(&self, orders: SyncSender<Order>) {
        self.shared.employ_clerk(orders);
    }

    /// Brings the clerk's answer to the loop that waits for it.
    pub(super) fn replied(&self, index: u16, message: Message) {
        if let Some(lane) = self.shared.lanes.get(usize::from(index)) {
            // Refused only by a loop that has ended, and its requests with it.
            lane.deliver(message).ok();
        }
    }

    fn put(&self, mesh_id: &str, message: impl FnOnce(Sender<()>) -> Message) -> bool {
        let (taken, done) = mpsc::channel();
        let lanes = &self.shared.lanes;
        let sent = lanes
            .get(self.home(mesh_id))
            .is_some_and(|l| l.offer(message(taken)).is_ok());
        sent && done
            .recv_timeout(Duration::from_millis(ASK_TIMEOUT.0))
            .is_ok()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
