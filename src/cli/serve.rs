//! `holdfast serve`: run the broker.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use clap::Args;

use super::Failure;
use crate::config::{DEFAULT_DB, ServeOptions};
use crate::shell::{Server, StopSignals, init_log};

/// Run the broker
///
/// Listens for WebSocket clients (at /ws) and HTTP (/health, /health/ready, /metrics,
/// /hook/set-status) on one port, and for the other commands on a Unix socket beside the
/// database. SIGTERM or Ctrl-C stops it gently: sessions stay leased, so whoever returns within
/// --restart-grace of the next start never left.
///
/// Every option can also be given as an environment variable or in a file (--config). A flag
/// beats the variable, which beats the file, which beats the default.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast serve
  holdfast serve --listen 0.0.0.0:7900 --db /var/lib/holdfast/holdfast.db --log json
  holdfast serve --config /etc/holdfast.toml
  holdfast serve --grace 5m --threads 2 --durability normal

A config file:
    listen = \"0.0.0.0:7900\"
    db = \"/var/lib/holdfast/holdfast.db\"
    grace = \"5m\"
    threads = 2

Signals: SIGTERM and SIGINT stop the broker gently.
Exit codes: 0 stopped by a signal, 1 could not start, 2 wrong flag or configuration.")]
pub(super) struct Serve {
    #[command(flatten)]
    options: ServeOptions,
}

impl Serve {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let config = self.options.resolve()?;
        let db = config.db.clone();
        init_log(config.log);
        let signals = StopSignals::listen()?;
        let server = Server::start(config)?;
        let address = server.local_addr();
        let store = server.control().store_admin();
        // Asked before anybody is told where the broker is, and may make a mesh.
        let empty = matches!(store.mesh_list(), Ok(meshes) if meshes.is_empty());
        writeln!(out, "serving ws://{address}/ws, database {}", db.display())?;
        if empty {
            first_steps(out, &db, address)?;
        }
        out.flush()?;
        Ok(server.run_until_signal(signals)?)
    }
}

/// What to do with a database that holds no mesh yet.
fn first_steps(out: &mut dyn Write, db: &Path, address: SocketAddr) -> std::io::Result<()> {
    let db = if db == Path::new(DEFAULT_DB) {
        String::new()
    } else {
        format!(" --db {}", db.display())
    };
    // An address for everybody is none to connect to; clients need this machine's name there.
    let host = match address.ip() {
        ip if ip.is_unspecified() => "HOST".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let url = format!("ws://{host}:{}/ws", address.port());
    writeln!(out, "\nThis database has no mesh yet. In another terminal:")?;
    writeln!(out, "  holdfast mesh create team{db}")?;
    writeln!(out, "  holdfast member add team --name alice{db}")?;
    writeln!(
        out,
        "  holdfast client-config team --member ID --secret-key HEX --url {url}{db}"
    )?;
    writeln!(out, "  holdfast peers team{db}\n")
}
