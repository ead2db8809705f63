//! Whether the files that are open are still the ones with our names.
//!
//! A database that is deleted, moved or replaced can be written to as before, and nobody will ever
//! read it: everything acknowledged from then on would be lost.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files of one database.
#[derive(Debug)]
pub(super) struct Place {
    database: Named,
    wal: Named,
}

#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Place {
    /// Notes the files of a database that SQLite has opened and read from: both are there.
    pub(super) fn note(database: &Path) -> io::Result<Self> {
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        Ok(Self {
            database: Named::note(database.to_owned())?,
            wal: Named::note(PathBuf::from(wal))?,
        })
    }

    /// Whether both are where they were. Names cost no disk access, nor does it open a file.
    pub(super) fn holds(&self) -> bool {
        self.database.holds() && self.wal.holds()
    }

    pub(super) fn path(&self) -> &Path {
        &self.database.path
    }

    /// Length of the WAL's file.
    pub(super) fn wal_bytes(&self) -> Option<u64> {
        fs::metadata(&self.wal.path).ok().map(|meta| meta.len())
    }
}

impl Named {
    fn note(path: PathBuf) -> io::Result<Self> {
        let file = identity(&fs::metadata(&path)?);
        Ok(Self { path, file })
    }

    fn holds(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(meta) => identity(&meta) == self.file,
            // A folder that may not be looked into, or a disk that fails, says nothing of the
            // file; the next commit does.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}
