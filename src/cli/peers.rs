//! `holdfast peers`: who is present, from the running broker.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::{Db, Failure, Json, output};
use crate::admin::protocol::Peer;
use crate::admin::{Reply, Request, client};

/// Show who is present in a mesh
///
/// Asks the running broker. A session whose lease is "grace" has lost its socket and is still
/// present: the others know nothing of it, and unless it returns before what is left runs out it
/// leaves, once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast peers team
  holdfast peers team --json

--json prints an array of {\"presenceId\",\"pubkey\",\"memberPubkey\",\"displayName\",\"peerRole\",\"lease\",
\"graceLeftMs\"?,\"status\",\"cwd\",\"connectedAt\",\"lastSeenAt\",\"generation\"}.")]
pub(super) struct Peers {
    /// Slug or id of the mesh
    mesh: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

impl Peers {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::Peers {
            mesh: self.mesh.clone(),
        };
        let Reply::Peers(peers) = client::ask_running(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &peers)?);
        }
        let grace = peers
            .iter()
            .filter(|peer| peer.grace_left_ms.is_some())
            .count();
        let rows: Vec<_> = peers.iter().map(row).collect();
        if !rows.is_empty() {
            output::table(
                out,
                ["NAME", "ROLE", "LEASE", "STATUS", "KEY", "SINCE", "CWD"],
                &rows,
            )?;
        }
        let online = peers.len() - grace;
        writeln!(
            out,
            "{} present in {}: {online} online, {grace} in grace",
            peers.len(),
            self.mesh
        )?;
        Ok(())
    }
}

fn row(peer: &Peer) -> [String; 7] {
    let lease = match peer.grace_left_ms {
        None => peer.lease.clone(),
        Some(left) => {
            let left = Duration::from_millis(left);
            format!("{} {:.1}s left", peer.lease, left.as_secs_f64())
        }
    };
    [
        output::plain(&peer.display_name),
        peer.peer_role.clone(),
        lease,
        peer.status.clone(),
        peer.pubkey.chars().take(16).collect(),
        peer.connected_at.clone(),
        output::plain(&peer.cwd),
    ]
}
