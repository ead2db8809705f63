//! The same administration without a server, on a file that no server has open.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::admin::{AdminStore, RunJob};
use super::open::{self, FileLock, OpenError};
use super::queue::Job;
use super::schema;
use crate::config::Durability;

/// An open database without threads. Holds the lock for as long as it lives.
pub struct Offline {
    admin: AdminStore,
    _lock: FileLock,
}

impl Offline {
    /// Opens or creates the database.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Locked`] if a server runs on it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let path = &open::create(path)?;
        let lock = FileLock::take(path)?;
        let mut conn = open::writer(path, Durability::Full)?;
        schema::migrate(&mut conn).map_err(OpenError::sqlite(path))?;
        Ok(Self {
            admin: AdminStore::new(Arc::new(Here(Mutex::new(conn)))),
            _lock: lock,
        })
    }

    /// What can be done. Not to be kept longer than `self`, which holds the lock.
    #[must_use]
    pub fn admin(&self) -> &AdminStore {
        &self.admin
    }
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").finish_non_exhaustive()
    }
}

/// Runs jobs on the calling thread.
struct Here(Mutex<Connection>);

impl RunJob for Here {
    fn run(&self, job: Job) {
        let mut conn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        job(Ok(&mut conn));
    }
}
