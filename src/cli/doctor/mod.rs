//! `holdfast doctor`: would `serve` work here, and how well.

mod machine;
mod storage;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use clap::Args;
use serde::Serialize;

use super::{Db, Failure, Json, output};
use crate::admin::protocol::Status;
use crate::admin::{Reply, Request, client};

/// Check this machine and the database, and say what to change
///
/// Looks at the kernel, io_uring, open-file and socket limits, the disk below the database, the
/// clock, the database file and the port. Changes nothing; a small probe file is written beside
/// the database and removed. Exit code 1 if something would keep `serve` from working.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast doctor
  holdfast doctor --db /var/lib/holdfast/holdfast.db --listen 0.0.0.0:7900 --json

--json prints {\"ok\",\"findings\":[{\"check\",\"state\":\"ok\"|\"warn\"|\"fail\",\"found\",\"advice\"?}]}.")]
pub(super) struct Doctor {
    /// Address and port that `serve` would be given [default: 127.0.0.1:7900]
    #[arg(
        long,
        env = "HOLDFAST_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7900",
        hide_default_value = true
    )]
    listen: SocketAddr,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nothing to do.
    Ok,
    /// Works, with a limit worth knowing.
    Warn,
    /// `serve` would not work.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Warn,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Fail,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let running = match client::ask_running(&self.db.path, &Request::Status) {
            Ok(Reply::Status(status)) => Some(status),
            Ok(_) | Err(_) => None,
        };
        let mut findings = machine::check();
        findings.extend(storage::check(&self.db.path, running.as_ref()));
        findings.push(port(self.listen, running.as_ref()));
        let ok = findings.iter().all(|finding| finding.state != State::Fail);
        if self.json.json {
            output::json(out, &Report { ok, findings })?;
        } else {
            print(out, &findings)?;
            writeln!(out)?;
            let verdict = if ok {
                "serve can run here"
            } else {
                "serve would not work here"
            };
            writeln!(out, "{verdict}")?;
        }
        if ok { Ok(()) } else { Err(Failure::Shown) }
    }
}

fn print(out: &mut dyn Write, findings: &[Finding]) -> std::io::Result<()> {
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        writeln!(
            out,
            "{state}  {:<12} {}",
            finding.check,
            output::plain(&finding.found)
        )?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "{:19}-> {}", "", output::plain(advice))?;
        }
    }
    Ok(())
}

/// Whether the port can be had.
fn port(listen: SocketAddr, running: Option<&Status>) -> Finding {
    if let Some(status) = running
        && status.listen == listen.to_string()
    {
        return Finding::ok("port", format!("{listen} is served by the running broker"));
    }
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) => Finding::fail(
            "port",
            format!("{listen} cannot be had: {error}"),
            "stop what uses it (ss -ltnp shows what), or give serve another --listen",
        ),
    }
}
