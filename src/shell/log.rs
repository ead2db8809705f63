//! Where log lines go and how they look.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Chooses what is logged, as `RUST_LOG` does elsewhere.
const FILTER: &str = "HOLDFAST_LOG_FILTER";

/// Sends log lines of this process to standard error. Does nothing if somebody has chosen before.
pub fn init_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where even standard error cannot be written, there is nobody to tell.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let chosen = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Another subscriber is as good.
    chosen.ok();
}
