//! Administration of a running broker, over a Unix socket beside its database.
//!
//! One connection carries one request and one reply, each one line of JSON. The socket has mode
//! 0600: whoever may write the database may administer it, nobody else, and never over the network.
//!
//! `protocol` says what can be asked, `perform` carries it out on the store, `server` and `client`
//! move the lines. Must not: decide anything about sessions, or touch the database but through
//! `crate::store`.

pub mod client;
pub mod perform;
pub mod protocol;
mod server;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use protocol::{Reply, Request};
pub use server::{AdminServer, AdminSocket, read_request};

use crate::shell::Control;

/// Starts answering administrators of the broker behind `control` on `socket`. Ends when the
/// returned value is dropped.
///
/// # Errors
/// There is no thread for it.
pub fn serve(control: Control, socket: AdminSocket) -> io::Result<AdminServer> {
    AdminServer::start(socket, move |request| perform::live(&control, request))
}

/// Where the broker on database `db` listens for administrators.
#[must_use]
pub fn socket_path(db: &Path) -> PathBuf {
    // Two names of a database must lead to one socket, as they do to one lock.
    let db = db.canonicalize().unwrap_or_else(|_| db.to_owned());
    let mut path = OsString::from(db);
    path.push(".sock");
    PathBuf::from(path)
}
