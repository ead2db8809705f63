//! Names to addresses, once for each request, and the policy on them.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::core::watch::FetchFailure;

/// Addresses tried of one name; the client can hold 16.
const ADDRESSES_MAX: usize = 8;

/// Lookups under way at once. The system's cannot be cut short: one that takes longer than its
/// request goes on without it.
const LOOKUPS_MAX: usize = 32;

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync + 'static {
    /// Addresses of `host` with that port, at least one. `host` may be an address.
    ///
    /// # Errors
    /// If there are none, or not within `limit`.
    fn lookup(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, FetchFailure>;
}

/// As the system finds them: hosts file and DNS.
#[derive(Debug, Default)]
pub struct SystemLookup {
    under_way: Arc<AtomicUsize>,
}

/// One lookup under way.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(count: &Arc<AtomicUsize>) -> Option<Self> {
        // Counted first, so that two cannot take the last place.
        let place = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < LOOKUPS_MAX).then_some(place)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lookup for SystemLookup {
    fn lookup(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, FetchFailure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let place = UnderWay::begin(&self.under_way).ok_or(FetchFailure::Busy)?;
        let (found, awaited) = sync_channel(1);
        let host = host.to_owned();
        let named = thread::Builder::new().name("lookup".to_owned());
        let started = named.spawn(move || {
            let addresses = (host.as_str(), port).to_socket_addrs();
            drop(place);
            // Nobody waits any more if it took too long.
            found.send(addresses.map(Iterator::collect)).ok();
        });
        started.map_err(|_| FetchFailure::Busy)?;
        match awaited.recv_timeout(limit) {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(_)) => Err(FetchFailure::HostNotFound),
            Err(_) => Err(FetchFailure::Timeout),
        }
    }
}

/// A failure on its way through the client.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Refused(pub(super) FetchFailure);

/// The one place where it is decided what may be connected to: the client is given these addresses
/// and asks for no others.
pub(super) struct Guard {
    pub(super) lookup: Arc<dyn Lookup>,
    /// Which of them may be connected to.
    pub(super) allows: fn(IpAddr) -> bool,
}

impl Guard {
    /// The addresses of a URL that may be connected to, at least one.
    fn addresses(&self, uri: &Uri, limit: Duration) -> Result<Vec<SocketAddr>, FetchFailure> {
        let port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            Some(_) | None => return Err(FetchFailure::BadUrl),
        };
        let host = uri.host().ok_or(FetchFailure::BadUrl)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let port = uri.port_u16().unwrap_or(port);
        let mut found = self.lookup.lookup(bare.unwrap_or(host), port, limit)?;
        if found.is_empty() {
            return Err(FetchFailure::HostNotFound);
        }
        found.retain(|address| (self.allows)(address.ip()));
        if found.is_empty() {
            return Err(FetchFailure::NotPublic);
        }
        Ok(found)
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.addresses(uri, *timeout.after);
        let found = found.map_err(|failure| ureq::Error::Other(Box::new(Refused(failure))))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
