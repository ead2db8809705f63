//! Taking connections, each loop from its own listener.
//!
//! Without descriptors accepting pauses, and goes on as soon as one frees; it never spins. Must
//! not: read a byte of what it accepts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};

use super::limiter::Limiter;
use super::limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN};
use super::reactor::Loop;
use super::{http, observe};

/// What one attempt came to.
enum Attempt {
    Accepted(OwnedFd, Option<IpAddr>),
    /// Nobody waits.
    Empty,
    /// Somebody waits, and no descriptor is left.
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
            if !paused {
                let loud = lp.shared.pause_to_be_told(lp.mono());
                observe::accept_paused(lp.counters(), loud);
            }
            pause(&lp).await;
        }
        paused = exhausted;
    }
}

/// Waits until a descriptor frees on this loop, or a while.
async fn pause(lp: &Loop) {
    let span = Duration::from_millis(ACCEPT_RETRY.0);
    monoio::time::timeout(span, lp.freed.wait()).await.ok();
}

fn accept(lp: &Loop, listener: &TcpListener) -> Attempt {
    if !lp.shared.socket_opened() {
        return exhausted(listener);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let failed = match acceptfrom_with(listener, flags) {
        Ok((fd, source)) => {
            let source = source.and_then(|source| SocketAddr::try_from(source).ok());
            return Attempt::Accepted(fd, source.map(|source| source.ip()));
        }
        Err(Errno::AGAIN) => Attempt::Empty,
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => exhausted(listener),
        // Also what shutting the listener down gives; the caller sees that it is to stop.
        Err(Errno::INVAL) => Attempt::Empty,
        Err(_) => Attempt::Failed,
    };
    lp.shared.socket_closed();
    failed
}

/// No descriptor is left, which is no matter while nobody waits for one. The kernel, too, says so
/// before it looks whether anybody does.
fn exhausted(listener: &TcpListener) -> Attempt {
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    match poll(&mut waiting, Some(&Timespec::default())) {
        Ok(0) => Attempt::Empty,
        Ok(_) | Err(_) => Attempt::Exhausted,
    }
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
    match lp.turn(|reactor| http::begin(reactor, fd)) {
        Some((conn, bell)) => {
            observe::accepted(lp.counters());
            monoio::spawn(http::serve(Rc::clone(lp), conn, bell));
        }
        None => lp.shared.socket_closed(),
    }
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

    #[test]
    fn without_descriptors_accepting_pauses_only_if_somebody_waits() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(matches!(exhausted(&listener), Attempt::Empty));
        let _waiting = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(matches!(exhausted(&listener), Attempt::Exhausted));
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
