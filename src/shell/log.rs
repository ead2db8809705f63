//! Where log lines go and how they look.

use std::env::{self, VarError};
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Chooses what is logged, as `RUST_LOG` does elsewhere.
const FILTER: &str = "HOLDFAST_LOG_FILTER";

/// What is logged unless somebody chooses.
const DEFAULT: &str = "info";

/// Sends log lines of this process to standard error. Does nothing if somebody has chosen before.
pub fn init_log(format: LogFormat) {
    let (filter, complaint) = filter(env::var(FILTER));
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
    if let Some(why) = complaint {
        tracing::warn!("{FILTER} is not understood ({why}); {DEFAULT} is used instead");
    }
}

/// What the variable asks for, else the default and why.
fn filter(wish: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let understood = match wish {
        Err(VarError::NotPresent) => return (EnvFilter::new(DEFAULT), None),
        Err(error @ VarError::NotUnicode(_)) => Err(error.to_string()),
        Ok(text) => EnvFilter::try_new(text).map_err(|error| error.to_string()),
    };
    match understood {
        Ok(filter) => (filter, None),
        Err(why) => (EnvFilter::new(DEFAULT), Some(why)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs in this thread.
    pub(in crate::shell) fn logged(work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_filter_that_is_none_is_complained_of_in_one_line() {
        let said = |wish: Result<&str, VarError>| {
            let (filter, complaint) = filter(wish.map(str::to_owned));
            (filter.to_string(), complaint)
        };
        assert_eq!(said(Err(VarError::NotPresent)), ("info".to_owned(), None));
        assert_eq!(
            said(Ok("holdfast=debug")),
            ("holdfast=debug".to_owned(), None)
        );
        let strange = VarError::NotUnicode(std::ffi::OsString::from("x"));
        for wish in [Ok("holdfast=loud"), Ok("info,=,"), Err(strange)] {
            let (used, complaint) = said(wish);
            let why = complaint.expect("it must be complained of");
            assert_eq!(used, "info");
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }
}
