//! Taking connections: one listener per loop, options set once on it, since sockets inherit them.
//!
//! Without descriptors accepting pauses, and goes on as soon as one frees; it never spins. Must
//! not: read a byte of what it accepts.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, ipproto, socket_with, sockopt,
};

use super::connection::Phase;
use super::limiter::Limiter;
use super::limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN, SEND_BUFFER_BYTES};
use super::reactor::Loop;
use super::{http, observe};
use crate::core::time::Millis;

/// A peer the kernel cannot reach shows after these; the core's pings show most of them sooner.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// How long a port may stay taken by a broker that was killed: the kernel ends an io_uring, and
/// with it the sockets it holds, some time after its process.
const BIND_PATIENCE: Duration = Duration::from_secs(3);

/// Pause between two tries to bind.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// [`bind_all`], waiting for the port to become free.
///
/// # Errors
/// As [`bind_all`], if the port is still taken after [`BIND_PATIENCE`].
pub(super) fn bind_patiently(
    address: SocketAddr,
    count: u16,
    user_timeout: Millis,
) -> io::Result<Vec<TcpListener>> {
    let tries = BIND_PATIENCE.as_millis() / BIND_PAUSE.as_millis();
    for _ in 0..tries {
        match bind_all(address, count, user_timeout) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
    bind_all(address, count, user_timeout)
}

/// Binds `count` listeners to one address, without listening yet: a client is refused until every
/// loop has its rows. `user_timeout` is how long bytes sent may stay unacknowledged.
///
/// # Errors
/// If the address is not ours, or somebody listens there.
pub(super) fn bind_all(
    address: SocketAddr,
    count: u16,
    user_timeout: Millis,
) -> io::Result<Vec<TcpListener>> {
    let shared = count > 1;
    if shared && address.port() != 0 {
        // SO_REUSEPORT would share the port with another broker of the same user, each taking
        // some of the clients. Without it that broker shows.
        drop(bind_one(address, false, user_timeout)?);
    }
    let first = bind_one(address, shared, user_timeout)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count.max(1) {
        listeners.push(bind_one(address, true, user_timeout)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, shared: bool, user_timeout: Millis) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if shared {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&fd, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(&fd, u32::try_from(user_timeout.0).unwrap_or(u32::MAX))?;
    sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER_BYTES)?;
    bind(&fd, &address)?;
    Ok(TcpListener::from(fd))
}

/// What one attempt came to.
enum Attempt {
    Accepted(OwnedFd, Option<IpAddr>),
    /// Nobody waits.
    Empty,
    /// No descriptor is left.
    Exhausted,
    /// That one client failed, or went away again.
    Failed,
}

/// The task that accepts. `listener` and `polled` are one socket, seen by us and by the runtime.
pub(super) async fn run(lp: Rc<Loop>, listener: TcpListener, polled: monoio::net::TcpListener) {
    let (burst, per_minute) = lp.shared.source_limit;
    let mut sources = Limiter::new(burst, per_minute);
    let mut paused = false;
    loop {
        if !paused && polled.readable(false).await.is_err() {
            pause(&lp).await;
        }
        if lp.stopping.get() {
            return;
        }
        let exhausted = (0..ACCEPTS_PER_TURN).find_map(|_| match accept(&lp, &listener) {
            Attempt::Accepted(fd, source) => {
                admit(&lp, fd, source, &mut sources);
                None
            }
            Attempt::Failed => None,
            Attempt::Empty => Some(false),
            Attempt::Exhausted => Some(true),
        });
        let exhausted = exhausted.unwrap_or(false);
        if exhausted {
            observe::accept_paused(lp.counters(), !paused);
            pause(&lp).await;
        }
        paused = exhausted;
    }
}

/// Waits until a descriptor frees on this loop, or a while.
async fn pause(lp: &Loop) {
    let span = Duration::from_millis(ACCEPT_RETRY.0);
    monoio::time::timeout(span, lp.freed.wait()).await.ok();
    // A freed descriptor is closed by the ring, after the turn that freed it.
    monoio::time::sleep(Duration::from_millis(1)).await;
}

fn accept(lp: &Loop, listener: &TcpListener) -> Attempt {
    if !lp.shared.socket_opened() {
        return Attempt::Exhausted;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let failed = match acceptfrom_with(listener, flags) {
        Ok((fd, source)) => {
            let source = source.and_then(|source| SocketAddr::try_from(source).ok());
            return Attempt::Accepted(fd, source.map(|source| source.ip()));
        }
        Err(Errno::AGAIN) => Attempt::Empty,
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Attempt::Exhausted,
        // Also what shutting the listener down gives; the caller sees that it is to stop.
        Err(Errno::INVAL) => Attempt::Empty,
        Err(_) => Attempt::Failed,
    };
    lp.shared.socket_closed();
    failed
}

fn admit(lp: &Rc<Loop>, fd: OwnedFd, source: Option<IpAddr>, sources: &mut Limiter<IpAddr>) {
    if let Some(source) = source.and_then(limited)
        && !sources.take(source, lp.mono())
    {
        observe::source_limited(lp.counters());
        // A reset leaves nothing behind in the kernel.
        sockopt::set_socket_linger(&fd, Some(Duration::ZERO)).ok();
        return lp.shared.socket_closed();
    }
    let Ok(socket) = TcpStream::from_std(std::net::TcpStream::from(fd)) else {
        return lp.shared.socket_closed();
    };
    observe::accepted(lp.counters());
    let socket = Rc::new(socket);
    let conn = lp.turn(|reactor| reactor.conns.insert(Rc::clone(&socket), Phase::Http));
    monoio::spawn(http::serve(Rc::clone(lp), conn, socket));
}

/// What a source is counted as: an IPv4 address, or an IPv6 network of 64 bits; None for this
/// machine itself.
fn limited(source: IpAddr) -> Option<IpAddr> {
    let source = source.to_canonical();
    if source.is_loopback() {
        return None;
    }
    Some(match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn several_loops_share_a_port_that_nobody_else_has() {
        let ours = bind_all(loopback(0), 3, Millis(1000)).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(
            ours.iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
        for listener in &ours {
            rustix::net::listen(listener, 16).unwrap();
        }
        for count in [1, 2] {
            let error = bind_all(address, count, Millis(1000)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{count}");
        }
    }

    #[test]
    fn a_site_is_one_source_and_this_machine_none() {
        let of = |text: &str| limited(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(of("127.0.0.1"), None);
        assert_eq!(of("::1"), None);
        assert_eq!(of("::ffff:127.0.0.1"), None);
        assert_eq!(of("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(of("::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(
            of("2001:db8:1:2:3:4:5:6").as_deref(),
            Some("2001:db8:1:2::")
        );
    }
}
