//! Binding: one listener per loop, options set once on it, since accepted sockets inherit them.
//!
//! Must not: listen or accept; a client is refused until every loop has its rows.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use super::limits::SEND_BUFFER_BYTES;
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
}
