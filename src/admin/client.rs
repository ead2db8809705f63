//! The asking end: the running broker if there is one, else the database itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::protocol::{REPLY_BYTES_MAX, Reply, Request};
use super::{perform, socket_path};
use crate::store::{Offline, OpenError};

/// How long a reply may take: above every time-out on the broker's side.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts while another command holds the database, or a broker is between lock and socket.
const LOCKED_ATTEMPTS: u32 = 30;

/// Pause between them; together they make three seconds.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No broker runs on that database.
    #[error("no broker is running on {db}; start one: holdfast serve --db {db}")]
    NotRunning {
        /// The database.
        db: String,
    },
    /// The socket is there but cannot be used.
    #[error("cannot ask the broker at {socket}: {source}{}", advice(source))]
    Unreachable {
        /// Its socket.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such database, and the request would not make one.
    #[error(
        "there is no database {db}; make one with: holdfast mesh create SLUG --db {db} \
         (or name the right one with --db)"
    )]
    NoDatabase {
        /// The file.
        db: String,
    },
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The request was understood and not carried out.
    #[error("{0}")]
    Refused(String),
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (run this command as the user who runs the broker)"
    } else {
        ""
    }
}

/// Asks the broker running on `db`; without one, does it on the database itself.
///
/// # Errors
/// Neither is possible, or the request was refused.
pub fn ask(db: &Path, request: &Request) -> Result<Reply, AskError> {
    let mut attempt = 0;
    loop {
        match ask_running(db, request) {
            Err(AskError::NotRunning { .. }) => {}
            reply => return reply,
        }
        if !db.exists() && !matches!(request, Request::MeshCreate { .. }) {
            return Err(AskError::NoDatabase {
                db: db.display().to_string(),
            });
        }
        attempt += 1;
        match Offline::open(db) {
            Ok(store) => return granted(perform::offline(&store, request.clone())),
            Err(OpenError::Locked(_)) if attempt < LOCKED_ATTEMPTS => {
                thread::sleep(LOCKED_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks the broker running on `db`.
///
/// # Errors
/// None runs, it cannot be reached, or it refused.
pub fn ask_running(db: &Path, request: &Request) -> Result<Reply, AskError> {
    let socket = socket_path(db);
    let unreachable = |source| AskError::Unreachable {
        socket: socket.display().to_string(),
        source,
    };
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(AskError::NotRunning {
                db: db.display().to_string(),
            });
        }
        Err(error) => return Err(unreachable(error)),
    };
    granted(exchange(stream, request).map_err(unreachable)?)
}

/// Sends one line and reads one.
pub(super) fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    BufReader::new(stream.take(REPLY_BYTES_MAX)).read_until(b'\n', &mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed without a reply",
        ));
    }
    Ok(serde_json::from_slice(&reply)?)
}

fn granted(reply: Reply) -> Result<Reply, AskError> {
    if let Reply::Refused(why) = reply {
        Err(AskError::Refused(why))
    } else {
        Ok(reply)
    }
}
