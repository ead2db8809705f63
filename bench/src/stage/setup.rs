//! How a stage is set: which binary, which flags, where.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use holdfast::client::Settings;
use holdfast::core::time::Millis;

use super::{StageError, Wanted};
use crate::broker::{Launch, asked};
use crate::cli::Common;
use crate::fleet::{Fleet, WINDOW};
use crate::town::Town;

/// Sessions that are tried at most before a broker that is not ours is loaded.
const PROBES_MAX: usize = 200;

/// How long they may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Settings of sessions that connect when they are told to, and not by themselves.
pub fn by_hand() -> Settings {
    Settings {
        reconnect: None,
        // Signing and reading are done by one thread for all of them.
        hello_timeout: Millis::secs(30),
        connect_timeout: Millis::secs(30),
        unacknowledged: 1 << 20,
        unacknowledged_bytes: 1 << 30,
        ..Settings::default()
    }
}

pub(super) fn launch(common: &Common, wanted: &Wanted) -> Result<Launch, StageError> {
    let beside = || -> Result<PathBuf, StageError> {
        let here = std::env::current_exe()?;
        Ok(here.with_file_name("holdfast"))
    };
    let binary = common.broker.clone().map_or_else(beside, Ok)?;
    let mut flags = vec![
        "--threads".to_owned(),
        common.threads.to_string(),
        // What is measured is the broker, not its patience with one member.
        "--send-rate".to_owned(),
        "0".to_owned(),
    ];
    flags.extend(wanted.flags.iter().cloned());
    flags.extend(common.with.iter().cloned());
    Ok(Launch {
        binary,
        flags,
        dir: common.dir.clone(),
    })
}

pub(super) fn address(url: &str) -> Result<SocketAddr, StageError> {
    let host = url
        .strip_prefix("ws://")
        .and_then(|rest| rest.split('/').next());
    let found = host.and_then(|host| host.to_socket_addrs().ok()?.next());
    found.ok_or_else(|| {
        StageError::Unfit(format!(
            "{url}: give an address such as ws://127.0.0.1:7900/ws"
        ))
    })
}

/// Whether a broker of this protocol answers there.
pub(super) fn reachable(url: &str) -> Result<(), StageError> {
    let refused = |error| StageError::Unfit(format!("nobody answers at {url}: {error}"));
    let answer = asked(address(url)?, "/health").map_err(refused)?;
    let first = answer.lines().next().unwrap_or_default();
    let body = answer.lines().last().unwrap_or_default();
    let health = serde_json::from_str::<serde_json::Value>(body).ok();
    if health.is_some_and(|health| health.get("status").is_some()) {
        return Ok(());
    }
    Err(StageError::Unfit(format!(
        "no broker of this protocol at {url}: it answers /health with {first:?}; give the address \
         of a broker"
    )))
}

/// Whether the broker lets in whom the mesh file names: a session of each member, or of some all
/// over the file if there are many, comes and leaves again. None of them is in any scenario.
pub(super) fn admitted(url: &str, town: &Town, members: usize) -> Result<(), StageError> {
    let everyone = || town.meshes.iter().enumerate();
    let everyone = everyone().flat_map(|(at, mesh)| {
        let some = mesh.members.iter().take(members).enumerate();
        some.map(move |(place, member)| (usize::MAX - at * members - place, mesh, member))
    });
    let all = town.meshes.len() * members;
    let mut fleet = Fleet::new(url, by_hand())?;
    fleet.patience = PROBE_PATIENCE;
    for (number, mesh, member) in everyone.step_by(all.div_ceil(PROBES_MAX).max(1)) {
        fleet.add(town.session(mesh, member, number));
    }
    let probes = fleet.swarm.count();
    let refused = |error| {
        StageError::Unfit(format!(
            "the broker at {url} does not let in whom the mesh file names: {error}"
        ))
    };
    fleet.attach(0..probes, WINDOW, |_| {}).map_err(refused)?;
    (0..probes).for_each(|probe| fleet.leave(probe));
    fleet.run(Duration::from_millis(200))?;
    Ok(())
}
