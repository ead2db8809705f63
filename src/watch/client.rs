//! One GET with its redirects, bounded in time, bytes and number.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::location;
use super::resolve::{Guard, Lookup, Refused};
use crate::core::time::Millis;
use crate::core::watch::{FetchFailure, FetchRequest};

/// Largest document, in bytes (design.md §7).
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// Redirects followed; a loop ends here.
const REDIRECTS_MAX: u32 = 5;

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What the client reads at once; a head must fit.
const INPUT_BYTES: usize = 64 * 1024;

/// What it writes at once; URL and headers of a watch fit.
const OUTPUT_BYTES: usize = 16 * 1024;

const USER_AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// See the module.
pub(super) struct Client {
    agent: Agent,
}

impl Client {
    /// A client that connects only to addresses that are allowed.
    pub(super) fn new(lookup: Arc<dyn Lookup>, allows: fn(IpAddr) -> bool) -> Self {
        let config = Agent::config_builder()
            // A proxy would do the lookup, and see to no policy.
            .proxy(None)
            // Followed here: what is sent depends on where to.
            .max_redirects(0)
            .http_status_as_error(false)
            // Each check connects, so that each is judged by what its host is now.
            .max_idle_connections(0)
            .max_response_header_size(HEAD_BYTES_MAX)
            .input_buffer_size(INPUT_BYTES)
            .output_buffer_size(OUTPUT_BYTES)
            .user_agent(USER_AGENT)
            .build();
        let guard = Guard { lookup, allows };
        Self {
            agent: Agent::with_parts(config, DefaultConnector::default(), guard),
        }
    }

    /// Fetches a document and reads its value, in the time `left` says at each step.
    pub(super) fn fetch(
        &self,
        request: &FetchRequest,
        left: &dyn Fn() -> Millis,
    ) -> Result<String, FetchFailure> {
        let url = request.url.split('#').next().unwrap_or_default();
        let first: Uri = url.parse().map_err(|_| FetchFailure::BadUrl)?;
        let mut uri = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            // Headers may be secrets between the watch and its own host.
            let own = same_origin(&first, &uri);
            let response = self.get(&uri, request.headers.iter().filter(|_| own), left())?;
            match redirect(&response) {
                Some(to) => {
                    let to = to.to_str().map_err(|_| FetchFailure::BadUrl)?;
                    uri = location::resolve(&uri, to).ok_or(FetchFailure::BadUrl)?;
                }
                None => return value(request, response, left),
            }
        }
        Err(FetchFailure::Redirects)
    }

    fn get<'a>(
        &self,
        uri: &Uri,
        headers: impl Iterator<Item = &'a (String, String)>,
        left: Millis,
    ) -> Result<http::Response<Body>, FetchFailure> {
        if left == Millis(0) {
            return Err(FetchFailure::Timeout);
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(FetchFailure::BadUrl);
        }
        let limit = Some(Duration::from_millis(left.0));
        let mut call = self.agent.get(uri).config().timeout_global(limit).build();
        for (name, value) in headers {
            call = call.header(name, value);
        }
        call.call().map_err(|error| failure(&error))
    }
}

fn same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

fn redirect(response: &http::Response<Body>) -> Option<&HeaderValue> {
    let leads = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    response.headers().get(header::LOCATION).filter(|_| leads)
}

fn value(
    request: &FetchRequest,
    response: http::Response<Body>,
    left: &dyn Fn() -> Millis,
) -> Result<String, FetchFailure> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    if request.reading.wants_body() {
        let reader = response.into_body().into_reader();
        // One byte more than is allowed tells whether there is one.
        let mut reader = reader.take(BODY_BYTES_MAX + 1);
        let read = reader.read_to_end(&mut body);
        read.map_err(|error| failure(&ureq::Error::from(error)))?;
        if body.len() as u64 > BODY_BYTES_MAX {
            return Err(FetchFailure::TooLarge);
        }
    }
    if left() == Millis(0) {
        return Err(FetchFailure::Timeout);
    }
    Ok(request.reading.value(status, &body))
}

/// What is told of an error; its text would tell of addresses.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client's errors are not exhaustive"
)]
fn failure(error: &ureq::Error) -> FetchFailure {
    match error {
        ureq::Error::Other(inner) => inner
            .downcast_ref::<Refused>()
            .map_or(FetchFailure::Connection, |refused| refused.0),
        ureq::Error::Timeout(_) => FetchFailure::Timeout,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            FetchFailure::Timeout
        }
        ureq::Error::HostNotFound => FetchFailure::HostNotFound,
        ureq::Error::BadUri(_) => FetchFailure::BadUrl,
        ureq::Error::Http(_) | ureq::Error::Protocol(_) | ureq::Error::BodyStalled => {
            FetchFailure::Protocol
        }
        ureq::Error::LargeResponseHeader(..) => FetchFailure::TooLarge,
        _ => FetchFailure::Connection,
    }
}
