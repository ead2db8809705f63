//! The socket's life, and clients that misbehave.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;

use super::super::client::exchange;
use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("holdfast-sock-{}-{id}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("x.db.sock")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn echo(request: Request) -> Reply {
    Reply::Refused(format!("{request:?}"))
}

fn talk(dir: &Dir, text: &[u8]) -> Reply {
    let mut stream = UnixStream::connect(dir.socket()).unwrap();
    stream.write_all(text).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap()
}

fn serve<H>(path: PathBuf, handler: H) -> io::Result<AdminServer>
where
    H: Fn(Request) -> Reply + Send + Sync + 'static,
{
    AdminServer::start(AdminSocket::bind(path)?, handler)
}

#[test]
fn a_request_is_answered_over_a_private_socket_that_ends_with_the_server() {
    let dir = Dir::new();
    let server = serve(dir.socket(), echo).unwrap();
    assert_eq!(
        fs::metadata(dir.socket()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for _ in 0..3 {
        let stream = UnixStream::connect(dir.socket()).unwrap();
        let reply = exchange(stream, &Request::Peers { mesh: "m".into() }).unwrap();
        assert_eq!(reply, Reply::Refused("Peers { mesh: \"m\" }".into()));
    }
    drop(server);
    assert!(!dir.socket().exists());
}

#[test]
fn a_dead_socket_is_replaced_a_live_one_and_other_files_are_not() {
    let dir = Dir::new();
    drop(bind_private(&dir.socket()).unwrap());
    assert!(dir.socket().exists(), "left by a dead broker");
    let server = serve(dir.socket(), echo).unwrap();
    let second = serve(dir.socket(), echo).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    assert!(
        second.to_string().contains("another broker answers"),
        "{second}"
    );
    assert_eq!(
        talk(&dir, b"{\"op\":\"mesh-list\"}\n"),
        Reply::Refused("MeshList".into())
    );
    drop(server);
    fs::write(dir.socket(), "precious").unwrap();
    let refused = serve(dir.socket(), echo).unwrap_err();
    assert!(refused.to_string().contains("not a socket"), "{refused}");
    assert_eq!(fs::read_to_string(dir.socket()).unwrap(), "precious");
}

#[test]
fn a_path_too_long_for_a_socket_is_explained() {
    let dir = Dir::new();
    let path = dir.0.join("long".repeat(40));
    let error = serve(path, echo).unwrap_err().to_string();
    assert!(error.contains("too long for a Unix socket"), "{error}");
}

#[test]
fn bad_requests_are_refused_and_harm_nobody() {
    let dir = Dir::new();
    let server = serve(dir.socket(), |request| {
        assert_ne!(request, Request::Status, "a handler that panics");
        echo(request)
    })
    .unwrap();
    for bad in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[[[[\n",
    ] {
        let Reply::Refused(why) = talk(&dir, bad) else {
            panic!("{bad:?} was taken")
        };
        assert!(why.contains("not understood"), "{why}");
    }
    let Reply::Refused(why) = talk(&dir, &[b'x'; 65_536]) else {
        panic!("size")
    };
    assert!(why.contains("longer than 64 KiB"), "{why}");
    let mut stream = UnixStream::connect(dir.socket()).unwrap();
    stream.write_all(b"{\"op\":\"status\"}\n").unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert!(reply.is_empty(), "the panic took its own connection only");
    // Gone before the answer, and before the question.
    drop(UnixStream::connect(dir.socket()).unwrap());
    let mut stream = UnixStream::connect(dir.socket()).unwrap();
    stream.write_all(b"{\"op\":\"mesh-list\"}\n").unwrap();
    drop(stream);
    assert_eq!(
        talk(&dir, b"{\"op\":\"mesh-list\"}\n"),
        Reply::Refused("MeshList".into())
    );
    drop(server);
}

#[test]
fn the_number_of_clients_at_once_is_bounded_and_comes_back() {
    let dir = Dir::new();
    let (release, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let server = serve(dir.socket(), move |request| {
        if request == Request::Status {
            gate.lock().unwrap().recv().unwrap();
        }
        echo(request)
    })
    .unwrap();
    let waiting: Vec<UnixStream> = (0..CLIENTS_MAX)
        .map(|_| {
            let mut stream = UnixStream::connect(dir.socket()).unwrap();
            stream.write_all(b"{\"op\":\"status\"}\n").unwrap();
            stream
        })
        .collect();
    let list = b"{\"op\":\"mesh-list\"}\n";
    let Reply::Refused(why) = talk(&dir, list) else {
        panic!("taken")
    };
    assert!(why.contains("too many administrators"), "{why}");
    waiting.iter().for_each(|_| release.send(()).unwrap());
    for mut stream in waiting {
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
    }
    // Its turn is given back just after its reply was written.
    let free = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(5));
        talk(&dir, list) == Reply::Refused("MeshList".into())
    });
    assert!(free, "turns were not given back");
    drop(server);
}

#[test]
fn a_client_that_reads_slowly_keeps_nobody_for_long() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reply = Reply::Refused("x".repeat(4 * 1024 * 1024));
    let answering = thread::spawn(move || answer(ours, &reply, Millis(300)));
    let clock = Clock::start();
    let mut piece = [0; 8 * 1024];
    // At this pace the whole would take 10 s.
    while !answering.is_finished() {
        thread::sleep(Duration::from_millis(20));
        theirs.read_exact(&mut piece).unwrap();
    }
    answering.join().unwrap();
    let took = clock.mono();
    assert!(took < Mono(3000), "{took:?}");
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).unwrap();
    assert_ne!(rest.last(), Some(&b'\n'), "cut off");
}
