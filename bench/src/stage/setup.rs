//! How a stage is set: which binary, which flags, where.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use holdfast::client::Settings;
use holdfast::core::time::Millis;

use super::{StageError, Wanted};
use crate::broker::{Launch, asked};
use crate::cli::Common;

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

pub(super) fn reachable(url: &str) -> Result<(), StageError> {
    let refused = |error| StageError::Unfit(format!("nobody answers at {url}: {error}"));
    asked(address(url)?, "/health").map(drop).map_err(refused)
}
