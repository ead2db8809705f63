//! Which SQLite errors concern one operation, which the whole transaction, and what either is
//! called towards those who wait.

use rusqlite::{Connection, Error, ErrorCode};

use crate::core::rows::StoreFailure;

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// This operation alone; SQLite has undone it and the transaction goes on.
    Operation(StoreFailure),
    /// The transaction: nothing of it is durable, and the next one may well fail the same way.
    /// All of these pass by themselves once the disk does: they are retried.
    Transaction(StoreFailure),
}

/// Judges an error of a statement inside a transaction of `conn`.
pub(super) fn scope(conn: &Connection, error: &Error) -> Scope {
    let failure = failure(error);
    // For some errors SQLite rolls the transaction back by itself.
    if conn.is_autocommit() || concerns_disk(error) {
        Scope::Transaction(failure)
    } else {
        Scope::Operation(failure)
    }
}

/// What an error is called towards those who wait.
pub(super) fn failure(error: &Error) -> StoreFailure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreFailure::Full,
        Some(ErrorCode::ReadOnly) => StoreFailure::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreFailure::Corrupt,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreFailure::Overloaded,
        Some(_) | None => StoreFailure::Io,
    }
}

/// Errors of the file and its surroundings rather than of what was asked.
fn concerns_disk(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted
        )
    )
}
