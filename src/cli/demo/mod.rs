//! `holdfast demo`: the main job in one command, over real sockets.

mod peer;
mod story;
mod timeline;

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use self::peer::{Peer, PeerError};
use self::story::Story;
use self::timeline::Timeline;
use super::{Failure, Json, client_config};
use crate::admin::protocol::NewMember;
use crate::admin::{Reply, Request, client};
use crate::config::ServeConfig;
use crate::core::identity::KeyPair;
use crate::core::limits::Config as CoreConfig;
use crate::core::time::Millis;
use crate::shell::{Server, StopSignals};

/// The broker's grace in the demo: long enough to act in, short enough to watch it run out.
const GRACE: Millis = Millis::secs(2);

/// The mesh of the demo.
const MESH: &str = "demo";

/// See what holdfast does, in five seconds
///
/// Starts a broker with a temporary database on a free port of this machine and connects three
/// peers over WebSocket. bob's socket is cut, alice writes to him meanwhile, and he returns:
/// nobody saw him leave, and he misses nothing. Then carol's is cut and she does not return: when
/// her grace (2 s here, 90 s by default) is over, everybody sees her leave, once. What each peer
/// saw is checked; exit code 1 if anything did not hold.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast demo
  holdfast demo --keep
  holdfast demo --json

--json prints {\"ok\",\"startedAt\",\"timeline\":[{\"atMs\",\"who\",\"what\"}],\"checks\":[{\"check\",\"ok\",\"detail\"}]}.")]
pub(super) struct Demo {
    /// Leave the broker serving afterwards, and print how to connect to it
    ///
    /// Until Ctrl-C; its database is removed then.
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    json: Json,
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::Failed(format!("demo: {error}"))
    }
}

impl Demo {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let folder = Folder::new().map_err(|error| {
            Failure::Failed(format!(
                "demo: no temporary folder in {}: {error}",
                std::env::temp_dir().display()
            ))
        })?;
        let db = folder.0.join("demo.db");
        let server = Server::start(config(&db))?;
        let ok = self.show(out, &db, server.local_addr())?;
        if self.keep && ok {
            server.run_until_signal(StopSignals::listen()?)?;
        }
        if ok { Ok(()) } else { Err(Failure::Shown) }
    }

    fn show(&self, out: &mut dyn Write, db: &Path, broker: SocketAddr) -> Result<bool, Failure> {
        let peers = [
            Enrolled::new(db, "alice")?,
            Enrolled::new(db, "bob")?,
            Enrolled::new(db, "carol")?,
        ];
        let keys = peers[0].secret()?.to_owned();
        let alice = peers[0].member.member_id.clone();
        let mut connected = Vec::new();
        for enrolled in peers {
            connected.push(enrolled.peer(broker)?);
        }
        let Ok(peers) = <[Peer; 3]>::try_from(connected) else {
            return Err(Failure::Failed("demo: three peers are needed".to_owned()));
        };
        let json = self.json.json;
        let mut timeline = Timeline::start(out, json)?;
        timeline.tell(
            "broker",
            format!("serves ws://{broker}/ws, grace {} s", GRACE.0 / 1000),
        )?;
        let ok = Story::new(peers, timeline).play()?.verdict()?;
        if self.keep && ok && !json {
            explain(out, db, broker, (&alice, &keys))?;
        }
        Ok(ok)
    }
}

fn config(db: &Path) -> ServeConfig {
    ServeConfig {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        db: db.to_owned(),
        core: CoreConfig {
            grace: GRACE,
            ..CoreConfig::default()
        },
        ..ServeConfig::default()
    }
}

/// A member made for the demo, the way an operator makes one.
struct Enrolled {
    name: &'static str,
    member: NewMember,
}

impl Enrolled {
    /// Adds `name` to the mesh, which is made for the first.
    fn new(db: &Path, name: &'static str) -> Result<Self, Failure> {
        if client::ask_running(db, &Request::MeshList)? == Reply::Meshes(Vec::new()) {
            let create = Request::MeshCreate {
                slug: MESH.to_owned(),
                name: None,
            };
            client::ask_running(db, &create)?;
        }
        let add = Request::MemberAdd {
            mesh: MESH.to_owned(),
            name: name.to_owned(),
            pubkey: None,
            admin: false,
        };
        let Reply::MemberAdded(member) = client::ask_running(db, &add)? else {
            return Err(Failure::strange_reply());
        };
        Ok(Self { name, member })
    }

    fn secret(&self) -> Result<&str, Failure> {
        self.member
            .secret_key
            .as_deref()
            .ok_or_else(Failure::strange_reply)
    }

    fn peer(self, broker: SocketAddr) -> Result<Peer, Failure> {
        let keys =
            KeyPair::from_libsodium_hex(self.secret()?).ok_or_else(Failure::strange_reply)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Failure::Failed(format!("demo: no randomness: {error}")))?;
        Ok(Peer::new(self.name, &self.member, keys, seed, broker))
    }
}

/// How to connect to the broker that was left serving.
fn explain(
    out: &mut dyn Write,
    db: &Path,
    broker: SocketAddr,
    (alice, secret): (&str, &str),
) -> Result<(), Failure> {
    let url = format!("ws://{broker}/ws");
    let request = Request::ClientConfig {
        mesh: MESH.to_owned(),
        member: alice.to_owned(),
    };
    let Reply::ClientConfig(identity) = client::ask_running(db, &request)? else {
        return Err(Failure::strange_reply());
    };
    let db = db.display();
    writeln!(out, "\nThe broker goes on serving until Ctrl-C.")?;
    writeln!(out, "  WebSocket  {url}")?;
    writeln!(out, "  Health     http://{broker}/health")?;
    writeln!(out, "  Metrics    http://{broker}/metrics")?;
    writeln!(out, "  Mesh       {MESH} ({})", identity.mesh_id)?;
    writeln!(
        out,
        "\nWho is present:      holdfast peers {MESH} --db {db}"
    )?;
    writeln!(
        out,
        "Add a member:        holdfast member add {MESH} --name NAME --db {db}"
    )?;
    writeln!(
        out,
        "To connect as alice, save this as config.json in $CLAUDEMESH_CONFIG_DIR:"
    )?;
    writeln!(out, "{}", client_config::render(&identity, secret, &url)?)?;
    out.flush()?;
    Ok(())
}

/// A folder of our own below the system's temporary one, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let name = format!("holdfast-demo-{:016x}", u64::from_ne_bytes(nonce));
        let path = std::env::temp_dir().join(name);
        // Nobody else may read the keys in it. Fails if it exists: it is ours or nothing.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up; the demo has said what it had to.
        drop(fs::remove_dir_all(&self.0));
    }
}
