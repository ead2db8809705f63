//! A floor's own process: listening, the loop, pings, and the end.

use std::future::pending;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, ipproto, listen, socket_with,
    sockopt,
};

use super::fanout::Fanout;
use super::lone::Lone;
use super::{Args, Kind, SUBCOMMAND};
use crate::machine::limits;

/// Connections that the kernel completes while the loop is busy.
const BACKLOG: i32 = 4096;

/// Connections accepted before the loop does something else.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting pauses without descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Pings of a period go out in that many steps, so that they never come as a wave.
const PING_STEPS: u32 = 600;

/// Why a floor cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The address is not ours, or taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A floor is io_uring or nothing: on epoll it would be another.
    #[error("a floor needs io_uring, and this machine gives no ring: {0}")]
    Ring(io::Error),
    /// Nobody reads where the port is written.
    #[error("cannot write the port: {0}")]
    Output(io::Error),
    /// Limits, threads, listeners.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// What a kind of floor does with its connections.
pub(super) trait Floor: 'static {
    /// Takes in a connection.
    fn admit(self: &Rc<Self>, socket: TcpStream) -> io::Result<()>;

    /// Every upgraded connection has a number below this.
    fn slots(&self) -> usize;

    /// Pings the connection of that number, if there is one.
    fn ping(&self, slot: usize);
}

/// The main function of a floor's process: writes its port to standard output and serves until
/// standard input ends, and with it the process.
#[must_use]
pub fn serve(args: &Args) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), ServeError> {
    limits::raise_open_files()?;
    let listener = listen_on(args.listen).map_err(|source| ServeError::Listen {
        address: args.listen,
        source,
    })?;
    let mut output = io::stdout().lock();
    writeln!(output, "{}", listener.local_addr()?.port())
        .and_then(|()| output.flush())
        .map_err(ServeError::Output)?;
    drop(output);
    thread::Builder::new().name("stdin".to_owned()).spawn(|| {
        match io::copy(&mut io::stdin().lock(), &mut io::sink()) {
            Ok(_) => process::exit(0),
            Err(error) => give_up(&format!("cannot read standard input: {error}")),
        }
    })?;
    run(listener, args.kind, Duration::from_secs(args.ping))
}

/// Ends the process, loudly: what it serves can no longer be measured.
pub(super) fn give_up(reason: &str) -> ! {
    eprintln!("{SUBCOMMAND}: {reason}");
    process::exit(1);
}

/// A listener whose accepted sockets inherit what a broker's have.
pub(super) fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    bind(&fd, &address)?;
    listen(&fd, BACKLOG)?;
    Ok(TcpListener::from(fd))
}

/// Serves for ever, on this thread.
pub(super) fn run(listener: TcpListener, kind: Kind, ping: Duration) -> Result<(), ServeError> {
    let mut ring = ring().map_err(ServeError::Ring)?;
    ring.block_on(async move {
        match kind {
            Kind::Upgrade | Kind::Echo | Kind::Verify => {
                run_floor(Lone::new(kind), listener, ping).await
            }
            Kind::Fanout => run_floor(Rc::<Fanout>::default(), listener, ping).await,
        }
    })?;
    Ok(())
}

/// With the flags that the broker's loops have.
fn ring() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut flags = io_uring::IoUring::builder();
    flags.setup_coop_taskrun();
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(flags)
        .enable_timer()
        .build()
}

async fn run_floor<F: Floor>(
    floor: Rc<F>,
    listener: TcpListener,
    ping: Duration,
) -> io::Result<()> {
    let polled = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
    if !ping.is_zero() {
        drop(monoio::spawn(ping_all(Rc::clone(&floor), ping)));
    }
    drop(monoio::spawn(accept(floor, listener, polled)));
    // A loop's first task has no waker of its own, so it does nothing.
    pending().await
}

/// `listener` and `polled` are one socket, seen by us and by the runtime.
async fn accept<F: Floor>(floor: Rc<F>, listener: TcpListener, polled: monoio::net::TcpListener) {
    loop {
        if polled.readable(false).await.is_err() {
            give_up("the listener has failed");
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let admitted = match acceptfrom_with(&listener, flags) {
                Ok((socket, _)) => floor.admit(TcpStream::from(socket)),
                Err(Errno::AGAIN) => break,
                // The client went away again.
                Err(Errno::CONNABORTED | Errno::INTR) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = admitted {
                eprintln!("{SUBCOMMAND}: cannot accept: {error}");
                monoio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Pings each connection once per period.
async fn ping_all<F: Floor>(floor: Rc<F>, period: Duration) {
    let mut ticks = monoio::time::interval(period / PING_STEPS);
    let steps = PING_STEPS as usize;
    for step in (0..steps).cycle() {
        ticks.tick().await;
        for slot in (step..floor.slots()).step_by(steps) {
            floor.ping(slot);
        }
    }
}
