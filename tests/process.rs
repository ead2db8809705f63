//! Process tests: the real binary, driven by WebSocket clients that are not ours, Node's `ws` and
//! Python's `websockets`. What they check is written in the scenario files under `tests/clients`.
//!
//! One of them: `cargo test --test process lease_node -- --nocapture`; one case of it: the same
//! with `CASE="taken over"` before it. `HOLDFAST_TEST_LONG=1` watches storms for half a minute.

mod support;

use serde_json::{Value, json};
use support::Scenario;

/// Room for the cases of the largest scenario file.
const MESHES: usize = 14;

#[test]
fn lease_node() {
    Scenario::node("lease").meshes(9).run();
}

#[test]
fn lease_python() {
    Scenario::python("lease").meshes(6).run();
}

#[test]
fn lease_node_two_loops() {
    Scenario::node("lease").meshes(9).threads(2).run();
}

#[test]
fn lease_python_two_loops() {
    Scenario::python("lease").meshes(6).threads(2).run();
}

#[test]
fn member_node() {
    Scenario::node("member").meshes(9).run();
}

#[test]
fn member_python() {
    Scenario::python("member").meshes(8).run();
}

#[test]
fn member_node_two_loops() {
    Scenario::node("member").meshes(9).threads(2).run();
}

#[test]
fn member_python_two_loops() {
    Scenario::python("member").meshes(8).threads(2).run();
}

#[test]
fn storm() {
    Scenario::node("storm").heavy().run();
}

#[test]
fn storm_two_loops() {
    Scenario::node("storm").meshes(2).threads(2).heavy().run();
}

#[test]
fn full_mesh() {
    Scenario::node("capacity")
        .flag("--max-sessions-per-mesh", "5")
        .run();
}

#[test]
fn full_mesh_two_loops() {
    Scenario::node("capacity")
        .flag("--max-sessions-per-mesh", "5")
        .threads(2)
        .run();
}

#[test]
fn churn_reconnects() {
    churn("reconnects").run();
}

#[test]
fn churn_evictions() {
    churn("evictions").run();
}

#[test]
fn churn_reconnects_two_loops() {
    churn("reconnects").threads(2).run();
}

#[test]
fn churn_evictions_two_loops() {
    churn("evictions").threads(2).run();
}

fn churn(case: &'static str) -> Scenario {
    let room = "8";
    Scenario::node("churn")
        .case(case)
        .flag("--max-sessions-per-mesh", room)
        .heavy()
}

#[test]
fn stopped_client() {
    stopped().run();
}

#[test]
fn stopped_client_two_loops() {
    stopped().threads(2).run();
}

fn stopped() -> Scenario {
    let scenario = Scenario::node("stopped").flag("--ping-interval", "400ms");
    scenario
        .flag("--pong-timeout", "1500ms")
        .fact("pingIntervalMs", json!(400))
        .fact("pongTimeoutMs", json!(1500))
}

#[test]
fn messaging() {
    Scenario::node("messaging").meshes(MESHES).run();
}

#[test]
fn messaging_two_loops() {
    Scenario::node("messaging").meshes(MESHES).threads(2).run();
}

#[test]
fn send_rate() {
    Scenario::node("limits")
        .flag("--send-rate", "60")
        .flag("--send-burst", "10")
        .run();
}

#[test]
fn status() {
    Scenario::node("status").meshes(5).run();
}

#[test]
fn status_two_loops() {
    Scenario::node("status").meshes(5).threads(2).run();
}

#[test]
fn moderation() {
    Scenario::node("moderation").meshes(5).run();
}

#[test]
fn moderation_two_loops() {
    Scenario::node("moderation").meshes(5).threads(2).run();
}

#[test]
fn killed_before_push() {
    restart("killed before push").run();
}

#[test]
fn killed_before_ack() {
    restart("killed before ack").run();
}

#[test]
fn killed_amid_sends() {
    restart("killed amid sends").run();
}

#[test]
fn killed_at_expiry() {
    restart("killed at expiry").run();
}

#[test]
fn stopped_and_started() {
    restart("stopped").run();
}

#[test]
fn killed_before_push_two_loops() {
    restart("killed before push").threads(2).run();
}

#[test]
fn stopped_and_started_two_loops() {
    restart("stopped").threads(2).run();
}

fn restart(case: &'static str) -> Scenario {
    Scenario::node("restart")
        .case(case)
        .flag("--restart-grace", "3s")
}

#[test]
fn join() {
    Scenario::node("join").meshes(3).run();
}

#[test]
fn join_two_loops() {
    Scenario::node("join").meshes(3).threads(2).run();
}

#[test]
fn join_over_a_kill() {
    Scenario::node("join").case("survives_a_kill").run();
}

const ADMIN_TOKEN: &str = "only for this test, not a secret";

#[test]
fn profile() {
    Scenario::node("profile")
        .meshes(4)
        .flag("--admin-token", ADMIN_TOKEN)
        .run();
}

#[test]
fn profile_two_loops() {
    Scenario::node("profile")
        .meshes(4)
        .threads(2)
        .flag("--admin-token", ADMIN_TOKEN)
        .run();
}

#[test]
fn profile_of_existing_clients() {
    Scenario::node("profile")
        .case("trusts_as_told")
        .flag("--trust-member-header", "true")
        .flag("--public-members", "true")
        .run();
}

#[test]
fn missed_node() {
    Scenario::node("missed").meshes(4).run();
}

#[test]
fn missed_node_two_loops() {
    Scenario::node("missed").meshes(4).threads(2).run();
}

#[test]
fn missed_python() {
    Scenario::python("missed").meshes(3).run();
}

#[test]
fn missed_too_much() {
    let entries = 16;
    let scenario = Scenario::node("missed").case("truncated");
    scenario
        .flag("--mesh-log-entries", &entries.to_string())
        .fact("logEntries", json!(entries))
        .run();
}

#[test]
fn missed_over_a_kill() {
    killed("missed").run();
}

#[test]
fn missed_over_a_kill_two_loops() {
    killed("missed").threads(2).run();
}

#[test]
fn kept() {
    Scenario::node("kept").meshes(4).run();
}

#[test]
fn kept_two_loops() {
    Scenario::node("kept").meshes(4).threads(2).run();
}

#[test]
fn kept_over_a_kill() {
    killed("kept").run();
}

#[test]
fn leaving() {
    leases().run();
}

#[test]
fn leaving_two_loops() {
    leases().threads(2).run();
}

fn leases() -> Scenario {
    let scenario = Scenario::node("leaving").meshes(6);
    let longest = scenario.flag("--max-grace", "8s");
    longest.fact("maxGraceMs", json!(8000))
}

#[test]
fn resume() {
    Scenario::node("resume").meshes(2).run();
}

#[test]
fn resume_two_loops() {
    Scenario::node("resume").meshes(2).threads(2).run();
}

#[test]
fn resume_with_unfit_tokens() {
    Scenario::node("resume").case("unfit").run();
}

#[test]
fn resume_over_a_kill() {
    killed("resume").run();
}

/// The case of a scenario that kills the broker.
fn killed(name: &'static str) -> Scenario {
    let case = Scenario::node(name).case("kill");
    case.flag("--restart-grace", "5s")
}

#[test]
fn schedule_over_a_kill() {
    later("schedule_kill").run();
}

#[test]
fn servers_over_a_kill() {
    later("mcp_kill").run();
}

#[test]
fn servers_over_a_kill_two_loops() {
    later("mcp_kill").threads(2).run();
}

#[test]
fn servers_over_a_cut() {
    later("mcp_cut").run();
}

fn later(case: &'static str) -> Scenario {
    let scenario = Scenario::python("later").case(case);
    scenario.flag("--restart-grace", "5s")
}

#[test]
fn watches() {
    private(Scenario::node("watches").meshes(4)).run();
}

#[test]
fn watches_two_loops() {
    private(Scenario::node("watches").meshes(4))
        .threads(2)
        .run();
}

#[test]
fn watches_in_crowds() {
    let crowd = Scenario::node("watches").case("crowd").meshes(10);
    private(crowd).threads(2).heavy().run();
}

#[test]
fn watches_refused() {
    Scenario::node("watches").case("refused").run();
}

#[test]
fn watches_over_a_kill() {
    private(killed("watches")).run();
}

/// The servers of scenarios are on this machine.
fn private(scenario: Scenario) -> Scenario {
    scenario.flag("--watch-allow-private", "true")
}

#[test]
fn burst() {
    bursts().run();
}

#[test]
fn burst_two_loops() {
    bursts().threads(2).run();
}

/// `BURSTS` asks for more of them than fit into every run.
fn bursts() -> Scenario {
    let asked = std::env::var("BURSTS").map(|text| text.parse::<u32>());
    let count = asked.map_or(3, |number| number.expect("BURSTS must be a number"));
    let fresh = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 32;
    let scenario = Scenario::node("burst").heavy();
    scenario
        .fact("bursts", json!(count))
        .fact("seed", json!(fresh))
}

#[test]
fn metrics() {
    Scenario::python("metrics").case("metrics").run();
}

#[test]
fn metrics_two_loops() {
    Scenario::python("metrics").case("metrics").threads(2).run();
}

#[test]
fn counters() {
    Scenario::python("metrics").case("counted").run();
}

#[test]
fn health() {
    Scenario::python("metrics").case("health").run();
}

#[test]
fn bad_hellos() {
    Scenario::python("hellos").meshes(6).run();
}

#[test]
fn bad_hellos_two_loops() {
    Scenario::python("hellos").meshes(6).threads(2).run();
}

#[test]
fn every_request() {
    Scenario::node("requests")
        .fact("requests", requests_of_readme())
        .heavy()
        .run();
}

/// The rows of README's table of requests: type, example, answer.
fn requests_of_readme() -> Value {
    let readme = include_str!("../README.md");
    let section = readme
        .split("\n## ")
        .find(|section| section.starts_with("Every request"));
    let rows = section.into_iter().flat_map(str::lines).filter_map(|line| {
        let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let mut cells = row.split(" | ");
        let kind = cells.next()?.trim_end_matches('`');
        let example = cells.next()?.trim_matches('`');
        Some(json!([kind, example, cells.next()?]))
    });
    let rows: Vec<Value> = rows.collect();
    assert!(rows.len() > 90, "README lists only {} requests", rows.len());
    rows.into()
}

#[test]
fn records() {
    Scenario::python("records")
        .flag("--public-url", "https://hooks.example/base/")
        .meshes(7)
        .run();
}

#[test]
fn records_two_loops() {
    Scenario::python("records")
        .flag("--public-url", "https://hooks.example/base/")
        .meshes(7)
        .threads(2)
        .run();
}

#[test]
fn records_over_a_kill() {
    Scenario::python("records_kill").run();
}

#[test]
fn topics() {
    Scenario::python("topics").meshes(4).run();
}

#[test]
fn topics_two_loops() {
    Scenario::python("topics").meshes(4).threads(2).run();
}

#[test]
fn topics_over_a_kill() {
    Scenario::python("topics_kill").run();
}

#[test]
fn bad_frames() {
    Scenario::python("frames")
        .meshes(9)
        .flag("--hello-timeout", "1s")
        .run();
}

#[test]
fn bad_frames_two_loops() {
    Scenario::python("frames")
        .meshes(9)
        .flag("--hello-timeout", "1s")
        .threads(2)
        .run();
}

#[test]
fn bad_wire() {
    Scenario::python("raw").meshes(6).run();
}

#[test]
fn bad_wire_two_loops() {
    Scenario::python("raw").meshes(6).threads(2).run();
}

#[test]
fn shared() {
    Scenario::python("shared").case("away").run();
}

#[test]
fn shared_two_loops() {
    Scenario::python("shared").case("away").threads(2).run();
}

#[test]
fn clock_and_schedules() {
    Scenario::python("shared").case("clock").run();
}

#[test]
fn shared_over_a_kill() {
    Scenario::python("shared")
        .case("kill")
        .flag("--restart-grace", "5s")
        .run();
}

#[test]
fn golden() {
    Scenario::python("golden")
        .meshes(50)
        .flag("--send-rate", "60")
        .flag("--send-burst", "10")
        .flag("--watch-allow-private", "true")
        .run();
}

#[test]
fn golden_over_a_kill() {
    restarted("kill").run();
}

#[test]
fn golden_over_a_restart() {
    restarted("term").run();
}

/// Flows in which the broker ends so and starts again.
fn restarted(how: &'static str) -> Scenario {
    let golden = Scenario::python("golden").fact("restart", json!(how));
    golden.flag("--restart-grace", "5s")
}

#[test]
fn golden_full_mesh() {
    let scenario = Scenario::python("golden")
        .meshes(4)
        .flag("--send-rate", "60");
    scenario
        .flag("--max-sessions-per-mesh", "5")
        .fact("room", json!(5))
        .run();
}
