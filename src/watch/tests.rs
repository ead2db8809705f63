//! The fetcher against servers that mean harm, on this machine.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::core::rows::WatchMode;
use crate::core::watch::Reading;
use crate::shell::clock::Clock;

type Answer = (Token, Result<String, FetchFailure>);

struct Sink(Mutex<Sender<Answer>>);

impl FetchSink for Sink {
    fn fetched(&self, _shard: u16, token: Token, result: Result<String, FetchFailure>) {
        self.0.lock().unwrap().send((token, result)).ok();
    }
}

/// Gives each lookup the next of these, and the last one for ever.
struct Names(Vec<Vec<IpAddr>>, AtomicUsize);

impl Lookup for Names {
    fn lookup(
        &self,
        host: &str,
        port: u16,
        _limit: Duration,
    ) -> Result<Vec<SocketAddr>, FetchFailure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let nth = self.1.fetch_add(1, Ordering::SeqCst).min(self.0.len() - 1);
        let found = self.0[nth].iter();
        Ok(found
            .map(|address| SocketAddr::new(*address, port))
            .collect())
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

fn fetcher(lookup: Arc<dyn Lookup>, allow_private: bool) -> (Fetcher, Receiver<Answer>) {
    let (sender, answers) = channel();
    let clock = Clock::start();
    let sink = Arc::new(Sink(Mutex::new(sender)));
    let fetcher = Fetcher::start(lookup, allow_private, move || clock.mono(), sink).unwrap();
    (fetcher, answers)
}

fn request(url: &str, mode: WatchMode) -> Box<FetchRequest> {
    let extract = (mode == WatchMode::Json).then(|| "a".to_owned());
    Box::new(FetchRequest {
        url: url.to_owned(),
        headers: vec![("X-Secret".to_owned(), "mine".to_owned())],
        reading: Reading { mode, extract },
    })
}

fn ask(lookup: Arc<dyn Lookup>, private: bool, url: &str) -> Result<String, FetchFailure> {
    let (fetcher, answers) = fetcher(lookup, private);
    fetcher.fetch(0, Token(7), request(url, WatchMode::Json));
    let (token, result) = answers.recv_timeout(Duration::from_secs(15)).unwrap();
    assert_eq!(token, Token(7));
    result
}

fn allowed(url: &str) -> Result<String, FetchFailure> {
    ask(Arc::<SystemLookup>::default(), true, url)
}

fn refused(url: &str) -> Result<String, FetchFailure> {
    ask(Arc::<SystemLookup>::default(), false, url)
}

/// A server that serves each connection as `serve` does, given what was asked.
fn server(mut serve: impl FnMut(String, &mut TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            serve(String::from_utf8(head).unwrap(), &mut stream);
        }
    });
    port
}

fn say(stream: &mut TcpStream, text: &str) {
    // Whoever asked may have gone.
    stream.write_all(text.as_bytes()).ok();
}

fn document(stream: &mut TcpStream, body: &str) {
    let length = body.len();
    say(
        stream,
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
    );
}

#[test]
fn a_document_is_fetched_and_read_with_its_headers() {
    let port = server(|asked, stream| {
        let asked = asked.to_lowercase();
        let known = asked.contains("x-secret: mine") && asked.starts_with("get /x?y http/1.1");
        document(stream, &format!("{{\"a\":{known}}}"));
    });
    let url = format!("http://127.0.0.1:{port}/x?y#z");
    assert_eq!(allowed(&url), Ok("true".to_owned()));
    let (fetcher, answers) = fetcher(Arc::<SystemLookup>::default(), true);
    fetcher.fetch(0, Token(1), request(&url, WatchMode::Status));
    assert_eq!(answers.recv().unwrap(), (Token(1), Ok("200".to_owned())));
}

#[test]
fn any_status_is_an_answer() {
    let port = server(|_, stream| {
        say(
            stream,
            "HTTP/1.1 503 No\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
        );
    });
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(allowed(&url), Ok("1".to_owned()));
}

#[test]
fn this_machine_is_not_reached_under_any_name() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let port = server(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        document(stream, "{}");
    });
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
    ] {
        let result = refused(&format!("http://{host}:{port}/"));
        let known = matches!(
            result,
            Err(FetchFailure::NotPublic | FetchFailure::HostNotFound)
        );
        assert!(known, "{host}: {result:?}");
    }
    assert_eq!(
        refused("http://169.254.169.254/"),
        Err(FetchFailure::NotPublic)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_name_is_looked_up_once_for_a_request() {
    let port = server(|_, stream| document(stream, "{\"a\":1}"));
    // It turns into this machine when it is looked up again, and that never happens.
    let names = Arc::new(Names(vec![vec![PUBLIC], vec![HERE]], AtomicUsize::new(0)));
    let lookup: Arc<dyn Lookup> = Arc::clone(&names) as _;
    let guard = guard(lookup);
    let uri = format!("http://rebinding:{port}/").parse().unwrap();
    let config = ureq::config::Config::default();
    let find = || {
        let timeout = ureq::unversioned::transport::NextTimeout::default();
        ureq::unversioned::resolver::Resolver::resolve(&guard, &uri, &config, timeout)
    };
    assert_eq!(find().unwrap()[..], [SocketAddr::new(PUBLIC, port)]);
    assert!(find().is_err(), "judged again at the second lookup");

    let names = Arc::new(Names(vec![vec![HERE]], AtomicUsize::new(0)));
    let lookup: Arc<dyn Lookup> = Arc::clone(&names) as _;
    let url = format!("http://once:{port}/");
    assert_eq!(ask(lookup, true, &url), Ok("1".to_owned()));
    assert_eq!(names.1.load(Ordering::SeqCst), 1);
}

fn guard(lookup: Arc<dyn Lookup>) -> resolve::Guard {
    let allows = is_public;
    resolve::Guard { lookup, allows }
}

#[test]
fn of_several_addresses_only_the_public_ones_are_used() {
    let lookup = Arc::new(Names(vec![vec![HERE, PUBLIC]], AtomicUsize::new(0)));
    let guard = guard(lookup);
    let uri = "https://both/".parse().unwrap();
    let config = ureq::config::Config::default();
    let timeout = ureq::unversioned::transport::NextTimeout::default();
    let found = ureq::unversioned::resolver::Resolver::resolve(&guard, &uri, &config, timeout);
    assert_eq!(found.unwrap()[..], [SocketAddr::new(PUBLIC, 443)]);
}

#[test]
fn a_redirect_is_judged_like_any_request() {
    let port = server(|asked, stream| {
        let to = match asked.split(' ').nth(1).unwrap() {
            "/file" => "file:///etc/passwd",
            "/ftp" => "ftp://127.0.0.1/",
            "/loop" => "loop",
            "/inside" => "http://127.0.0.2/",
            "/once" => "/end?from=once",
            "/end?from=once" => return document(stream, "{\"a\":\"there\"}"),
            _ => "/bad path",
        };
        say(
            stream,
            &format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
        );
    });
    let at = |path: &str| allowed(&format!("http://127.0.0.1:{port}{path}"));
    assert_eq!(at("/once"), Ok("there".to_owned()));
    assert_eq!(at("/loop"), Err(FetchFailure::Redirects));
    assert_eq!(at("/file"), Err(FetchFailure::BadUrl));
    assert_eq!(at("/ftp"), Err(FetchFailure::BadUrl));
    assert_eq!(at("/other"), Err(FetchFailure::BadUrl));
    let one_host = Client::new(Arc::<SystemLookup>::default(), |address| address == HERE);
    let inside = request(
        &format!("http://127.0.0.1:{port}/inside"),
        WatchMode::Status,
    );
    let fetched = one_host.fetch(&inside, &|| FETCH_TIME);
    assert_eq!(fetched, Err(FetchFailure::NotPublic));
}

#[test]
fn headers_stay_with_the_host_they_were_meant_for() {
    let other = server(|asked, stream| {
        let told = asked.to_lowercase().contains("x-secret");
        document(stream, &format!("{{\"a\":{told}}}"));
    });
    let port = server(move |_, stream| {
        let to = format!("http://127.0.0.1:{other}/");
        say(
            stream,
            &format!("HTTP/1.1 307 Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
        );
    });
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(allowed(&url), Ok("false".to_owned()));
}

#[test]
fn a_document_has_a_largest_size() {
    let port = server(|asked, stream| match asked.split(' ').nth(1).unwrap() {
        "/endless" => {
            say(stream, "HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        }
        "/head" => {
            say(stream, "HTTP/1.1 200 OK\r\n");
            while stream
                .write_all(b"X-Much: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
                .is_ok()
            {}
        }
        path => {
            let size: usize = path[1..].parse().unwrap();
            document(stream, &" ".repeat(size));
        }
    });
    let at = |path: &str| allowed(&format!("http://127.0.0.1:{port}{path}"));
    assert_eq!(at("/1048576").map(|text| text.len()), Ok(200));
    assert_eq!(at("/1048577"), Err(FetchFailure::TooLarge));
    assert_eq!(at("/endless"), Err(FetchFailure::TooLarge));
    assert!(at("/head").is_err());
}

#[test]
fn a_trickle_ends_with_the_time_of_its_request() {
    let port = server(|_, stream| {
        say(stream, "HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let clock = Clock::start();
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(allowed(&url), Err(FetchFailure::Timeout));
    let took = clock.mono().0;
    assert!((9_500..11_500).contains(&took), "{took} ms");
}

#[test]
fn what_is_no_http_is_an_error() {
    let closed = TcpListener::bind((HERE, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        allowed(&format!("http://127.0.0.1:{closed}/")),
        Err(FetchFailure::Connection)
    );
    let port = server(|_, stream| say(stream, "SSH-2.0-nothing\r\n\r\n"));
    assert!(allowed(&format!("http://127.0.0.1:{port}/")).is_err());
    let port = server(|_, stream| say(stream, "no TLS"));
    assert!(allowed(&format!("https://127.0.0.1:{port}/")).is_err());
    assert_eq!(allowed("http://"), Err(FetchFailure::BadUrl));
    assert_eq!(allowed("http://a b/"), Err(FetchFailure::BadUrl));
}

#[test]
fn a_full_queue_is_an_error_and_never_a_wait() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (fetcher, answers) = fetcher(Arc::<SystemLookup>::default(), true);
    let all = FETCHERS + QUEUE_MAX + 20;
    for n in 0..all {
        fetcher.fetch(0, Token(n as u64), request(&url, WatchMode::Hash));
    }
    let clock = Clock::start();
    let mut busy = 0;
    while let Ok((_, result)) = answers.recv_timeout(Duration::from_secs(1)) {
        assert_eq!(result, Err(FetchFailure::Busy));
        busy += 1;
    }
    assert!((20..=20 + FETCHERS).contains(&busy), "{busy}");
    // Those that wait are not begun any more when their time is over.
    let mut rest = 0;
    while rest + busy < all {
        let (_, result) = answers.recv_timeout(Duration::from_secs(15)).unwrap();
        assert!(result.is_err());
        rest += 1;
    }
    assert!(clock.mono().0 < 14_000);
}
