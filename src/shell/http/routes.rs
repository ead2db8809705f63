//! What is answered where (protocol.md §2).

use std::rc::Rc;

use http::Method;
use serde::Serialize;

use super::absent;
use super::head::Request;
use super::join;
use super::members;
use super::reply::Reply;
use super::{trial, webhook};
use crate::core::input::{Answer, Ask, Gauges};
use crate::shell::ask::ask_all;
use crate::shell::hook::{self, Outcome};
use crate::shell::metrics::{self, Snapshot};
use crate::shell::reactor::Loop;
use crate::store::HealthState;

/// Named in `/health` as the original does.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, where the build says it.
const GIT_SHA: &str = match option_env!("HOLDFAST_GIT_SHA") {
    Some(sha) => sha,
    None => "unknown",
};

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Preflight,
    Health,
    Ready,
    Metrics,
    Hook,
    Join,
    /// Through a webhook, which is named in the target.
    Post {
        mesh_id: String,
        secret: String,
    },
    /// Something about the members of a mesh, or its settings.
    Members(Box<members::Asked>),
    /// Something that is not here, with the error and what is missing.
    Absent(&'static str, &'static str),
    TestClock,
    TestFlip,
    TestHtml,
    Unknown,
}

impl Route {
    /// Whether its requests have bodies.
    pub(super) fn has_body(&self) -> bool {
        match self {
            Self::Hook | Self::Join | Self::Post { .. } => true,
            Self::Members(asked) => asked.has_body(),
            Self::Preflight
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::TestClock
            | Self::TestFlip
            | Self::TestHtml
            | Self::Absent(..)
            | Self::Unknown => false,
        }
    }
}

/// By method and raw target: a query string makes a fixed route miss.
pub(super) fn find(request: &Request) -> Route {
    match (&request.method, request.target.as_str()) {
        (&Method::OPTIONS, _) => Route::Preflight,
        (&Method::GET, "/health") => Route::Health,
        (&Method::GET, "/health/ready") => Route::Ready,
        (&Method::GET, "/metrics") => Route::Metrics,
        (&Method::POST, "/hook/set-status") => Route::Hook,
        (&Method::POST, "/join") => Route::Join,
        (&Method::GET, "/test/clock") => Route::TestClock,
        (&Method::GET, "/test/flip") => Route::TestFlip,
        (&Method::GET, "/test/html") => Route::TestHtml,
        (&Method::POST, target) => webhook::target(target).unwrap_or_else(|| other(request)),
        _ => other(request),
    }
}

fn other(request: &Request) -> Route {
    let absent = || absent::find(request).map(|(error, detail)| Route::Absent(error, detail));
    let found = members::find(request).or_else(absent);
    found.unwrap_or(Route::Unknown)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    db: &'static str,
    version: &'static str,
    git_sha: &'static str,
    uptime: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    status: &'static str,
    version: &'static str,
    git_sha: &'static str,
    uptime: u64,
}

#[derive(Serialize)]
struct NotReady {
    status: &'static str,
    reason: &'static str,
}

/// Answers.
pub(super) async fn answer(lp: &Rc<Loop>, route: Route, body: &[u8]) -> Reply {
    let uptime = lp.mono().0 / 1000;
    let up = lp
        .shared
        .health()
        .is_some_and(|health| health.state == HealthState::Up);
    match route {
        Route::Preflight => Reply::empty(),
        Route::Health => Reply::json(
            200,
            &Health {
                status: "ok",
                db: if up { "up" } else { "down" },
                version: VERSION,
                git_sha: GIT_SHA,
                uptime,
            },
        ),
        Route::Ready if up => Reply::json(
            200,
            &Ready {
                status: "ready",
                version: VERSION,
                git_sha: GIT_SHA,
                uptime,
            },
        ),
        Route::Ready => Reply::json(
            503,
            &NotReady {
                status: "not_ready",
                reason: "db_down",
            },
        ),
        Route::Metrics => Reply::page(page(lp, uptime).await),
        Route::Hook => hook(lp, body).await,
        Route::Join => join::serve(lp, body).await,
        Route::Post { mesh_id, secret } => webhook::serve(lp, mesh_id, secret, body).await,
        Route::Members(asked) => members::serve(lp, asked, body).await,
        Route::Absent(error, detail) => absent::reply((error, detail)),
        Route::TestClock => trial::clock(lp.wall()),
        Route::TestFlip => trial::flip(lp.wall()),
        Route::TestHtml => trial::html(lp.wall()),
        Route::Unknown => Reply::text(404, "not found"),
    }
}

async fn page(lp: &Rc<Loop>, uptime_seconds: u64) -> String {
    let mut gauges = Gauges::default();
    for answer in ask_all(lp, Ask::Gauges).await.into_iter().flatten() {
        if let Answer::Gauges(of) = answer {
            gauges.online += of.online;
            gauges.grace += of.grace;
            gauges.queued += of.queued;
            gauges.greeting += of.greeting;
        }
    }
    let shared = &lp.shared;
    metrics::render(&Snapshot {
        counters: shared.all_counters(),
        gauges,
        health: shared.health(),
        sockets: shared.sockets(),
        lanes: shared.lanes.iter().map(|lane| lane.len() as u64).sum(),
        uptime_seconds,
        driver: shared.driver.name(),
    })
}

#[derive(Serialize)]
struct Applied {
    ok: bool,
    presence_id: String,
}

#[derive(Serialize)]
struct Pending {
    ok: bool,
    pending: bool,
}

/// `POST /hook/set-status` (protocol.md §2.3).
async fn hook(lp: &Rc<Loop>, body: &[u8]) -> Reply {
    match hook::serve(lp, body).await {
        Outcome::Applied(presence_id) => Reply::json(
            200,
            &Applied {
                ok: true,
                presence_id,
            },
        ),
        Outcome::Pending => Reply::json(
            200,
            &Pending {
                ok: true,
                pending: true,
            },
        ),
        Outcome::Limited => Reply::failure(429, "rate limited"),
        Outcome::Incomplete => Reply::failure(200, "cwd and status required"),
        Outcome::Failed(error) => Reply::failure(500, error),
    }
}
