//! The listening end: takes lines, hands them to a handler, writes its replies.
//!
//! Owns the socket file. Must not: know what a request does. One client's delay, garbage or death
//! costs at most one of a few threads for a bounded time.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{REQUEST_BYTES_MAX, Reply, Request};
use crate::core::time::{Millis, Mono};
use crate::shell::clock::Clock;

/// Administrators served at once; a further one is told to come again.
const CLIENTS_MAX: usize = 16;

/// Longest wait for the next piece of a request, or for a client to take one of its reply.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pieces a request may come in: with [`PATIENCE`] it bounds the time of one client to 32 s.
/// Honest clients write their line at once.
const PIECES_MAX: u32 = 16;

/// Longest time for a whole reply, give or take a piece.
const REPLY_PATIENCE: Millis = Millis::secs(10);

/// How much of a reply is written at once.
const REPLY_PIECE: usize = 32 * 1024;

/// How long the accepting thread waits for the question of a client it turns away.
const TURN_AWAY: Duration = Duration::from_millis(20);

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 64;

/// Pause after an accept that failed, lest a full descriptor table make a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The admin socket of this process, on which nobody is answered yet: who connects waits. Dropping
/// it removes the file.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode of our socket file, so that only our own is ever removed.
    file: (u64, u64),
    listener: UnixListener,
}

impl AdminSocket {
    /// Takes `path`.
    ///
    /// # Errors
    /// The socket cannot be made there, or another broker answers on it.
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        remove_stale(&path)?;
        let listener = bind_private(&path)?;
        let meta = fs::symlink_metadata(&path)?;
        Ok(Self {
            path,
            file: (meta.dev(), meta.ino()),
            listener,
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours {
            // A file that stays is replaced by the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Answers on an admin socket. Dropping it stops listening and removes the file.
#[derive(Debug)]
pub struct AdminServer {
    socket: Arc<AdminSocket>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Answers with what `handler` says.
    pub(super) fn start<H>(socket: AdminSocket, handler: H) -> io::Result<Self>
    where
        H: Fn(Request) -> Reply + Send + Sync + 'static,
    {
        let socket = Arc::new(socket);
        let listening = Arc::clone(&socket);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || accept_loop(&listening.listener, &stopped, &Arc::new(handler)))?;
        Ok(Self {
            socket,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept. If nobody accepts any more there is nothing to wake.
        let woken = UnixStream::connect(&self.socket.path).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
        {
            // A panic of the loop was printed when it happened; there is nobody to tell it again.
            drop(thread.join());
        }
    }
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::other(
            "what is there is not a socket; move it or use another --db",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another broker answers there; stop it or use another --db",
        )),
    }
}

/// A listener whose file is never, not even for a moment, open to others: the mode is set on the
/// socket before it gets a name.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is too long for a Unix socket (107 bytes); use a shorter --db",
        )
    })?;
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn accept_loop<H>(listener: &UnixListener, stop: &AtomicBool, handler: &Arc<H>)
where
    H: Fn(Request) -> Reply + Send + Sync + 'static,
{
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            thread::sleep(ACCEPT_RETRY);
            continue;
        };
        let Some(turn) = Turn::take(&busy) else {
            turn_away(stream);
            continue;
        };
        let handler = Arc::clone(handler);
        // Without a thread the client sees its connection closed and may come again.
        drop(
            thread::Builder::new()
                .name("admin-client".to_owned())
                .spawn(move || {
                    let _turn = turn;
                    serve_one(stream, &*handler);
                }),
        );
    }
}

/// One of [`CLIENTS_MAX`]; given back when dropped, also by a panic.
struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(busy: &Arc<AtomicUsize>) -> Option<Self> {
        let turn = Self(Arc::clone(busy));
        (busy.fetch_add(1, Ordering::SeqCst) < CLIENTS_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve_one(mut stream: UnixStream, handler: &impl Fn(Request) -> Reply) {
    if stream.set_read_timeout(Some(PATIENCE)).is_err()
        || stream.set_write_timeout(Some(PATIENCE)).is_err()
    {
        return;
    }
    let reply = match read_request(&mut stream) {
        Ok(request) => handler(request),
        Err(refusal) => *refusal,
    };
    answer(stream, &reply, REPLY_PATIENCE);
}

/// Reads one request, or says why it is none.
///
/// # Errors
/// The refusal to answer with.
#[doc(hidden)]
pub fn read_request(input: &mut impl Read) -> Result<Request, Box<Reply>> {
    let line = read_line(input)
        .map_err(|error| Box::new(Reply::Refused(format!("request not read: {error}"))))?;
    serde_json::from_slice(&line).map_err(|error| {
        // What was sent may be quoted in it; the refusal is one line of plain text.
        let error = error.to_string().replace(char::is_control, " ");
        Box::new(Reply::Refused(format!(
            "request not understood ({error}); broker and command may differ in version"
        )))
    })
}

/// Reads to the first newline or the end.
fn read_line(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    for _ in 0..PIECES_MAX {
        let read = match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let piece = piece.get(..read).unwrap_or_default();
        if let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            line.extend_from_slice(&piece[..end]);
            return Ok(line);
        }
        line.extend_from_slice(piece);
        if read == 0 {
            return Ok(line);
        }
        if line.len() as u64 > REQUEST_BYTES_MAX {
            break;
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "longer than 64 KiB, or in too many pieces",
    ))
}

/// Refuses a client that nobody has time for. What it asked is read first, as far as it is there:
/// closing a socket with unread bytes would reset it and lose the refusal.
fn turn_away(mut stream: UnixStream) {
    drop(stream.set_read_timeout(Some(TURN_AWAY)));
    drop(stream.read(&mut [0; 4096]));
    refuse(stream, "too many administrators at once; try again");
}

fn refuse(stream: UnixStream, why: &str) {
    answer(stream, &Reply::Refused(why.to_owned()), REPLY_PATIENCE);
}

/// Writes the reply. A client that went away or does not read harms only itself; one that reads
/// slowly loses the rest when `patience` is over.
fn answer(mut stream: UnixStream, reply: &Reply, patience: Millis) {
    let Ok(mut line) = serde_json::to_vec(reply) else {
        return;
    };
    line.push(b'\n');
    drop(stream.set_write_timeout(Some(PATIENCE)));
    let clock = Clock::start();
    for piece in line.chunks(REPLY_PIECE) {
        if clock.mono() > Mono(patience.0) || stream.write_all(piece).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
