//! Crash and fault tests: the real binary, killed, starved and misled, with clients that are not
//! ours. What the clients check is written in `tests/clients/node/crash*.mjs`.
//!
//! One of them: `cargo test --test crash kills -- --nocapture`. `scripts/crash` kills for as long
//! as one likes.

#[expect(
    dead_code,
    reason = "the process tests use more of it than the crash tests"
)]
#[path = "../support/mod.rs"]
mod support;

mod cage;
mod clock;
mod database;
mod faults;
mod files;
mod process;

use cage::Cage;
use clock::WallClock;
use faults::{Fault, Full, Immutable, Limited, Locked};
use serde_json::json;
use support::Scenario;
use support::broker::Broker;

/// An environment variable that `scripts/crash` sets, as a number.
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// The seed asked for, else a new one; printed with whatever it decides.
fn seed() -> u64 {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 32;
    asked("HOLDFAST_CRASH_SEED").unwrap_or_else(fresh)
}

/// What a run in CI may take, if `scripts/crash` does not ask for a number of kills; on a slow
/// machine fewer kills fit, but not too few.
const BUDGET_MS: u64 = 45_000;
const KILLS_MIN: u64 = 15;

fn crash(case: &'static str, kills: u64) -> Scenario {
    let mut scenario = Scenario::node("crash")
        .case(case)
        .flag("--restart-grace", "3s");
    let seed = seed();
    println!("HOLDFAST_CRASH_SEED={seed}");
    let (kills, kills_min, budget_ms) = match asked("HOLDFAST_CRASH_ROUNDS") {
        Some(asked) => (asked, asked, asked * 60_000),
        None => (kills, KILLS_MIN, BUDGET_MS),
    };
    scenario = scenario
        .fact("seed", json!(seed))
        .fact("rounds", json!(kills))
        .fact("roundsMin", json!(kills_min))
        .fact("budgetMs", json!(budget_ms))
        .fact("lifeMs", json!(600))
        .fact("terms", json!(5))
        .fact("stopMs", json!(5000));
    scenario.verbs = Some(Box::new(crash_verb));
    scenario
}

fn crash_verb(verb: &str, broker: &mut Broker) -> String {
    match verb {
        "spawn" => {
            broker.spawn();
            "ok".to_owned()
        }
        "check" => database::check(broker),
        "audit" => database::audit(broker),
        "ended" => database::ended(broker),
        "lose messages" => database::spoil(broker, "DELETE FROM message_queue"),
        "lose leases" => database::spoil(broker, "DELETE FROM presence"),
        "swap messages" => database::spoil(broker, database::SWAP),
        "break chain" => database::spoil(broker, "UPDATE audit_log SET hash = 'x' WHERE id = 2"),
        other => panic!("a scenario asked for {other}"),
    }
}

#[test]
fn kills() {
    crash("kills", 50).run();
}

#[test]
fn kills_two_loops() {
    crash("kills", 30).threads(2).run();
}

/// The checks of the above can fail: what a lossy database loses is noticed.
#[test]
fn losses_are_noticed() {
    crash("losses", 1).run();
}

#[test]
fn terms() {
    crash("terms", 1).run();
}

#[test]
fn terms_two_loops() {
    crash("terms", 1).threads(2).run();
}

/// As many sessions as the issue asks for; `scripts/crash` and CI run the same.
const CROWD: u32 = 1000;

/// Long enough for all of them to be back on a crowded machine.
const CROWD_GRACE_MS: u32 = 6000;

fn crowd() -> Scenario {
    let grace = format!("{CROWD_GRACE_MS}ms");
    let mut scenario = Scenario::node("crash-crowd")
        .flag("--restart-grace", &grace)
        .fact("restartGraceMs", json!(CROWD_GRACE_MS))
        .fact("sessions", json!(CROWD))
        .fact("seed", json!(seed()))
        .heavy();
    scenario.verbs = Some(Box::new(crash_verb));
    scenario
}

#[test]
fn a_crowd_survives_restarts() {
    crowd().run();
}

/// With `CI=true` a skip is a failure.
fn skip(test: &str, why: &str) {
    println!("skip {test}: {why}");
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test}: {why}"
    );
}

/// Room for some thousand messages.
const DISK_MIB: u32 = 16;

fn full() -> Box<dyn Fault> {
    match Cage::new(DISK_MIB) {
        Some(cage) => Box::new(Full(cage)),
        None => Box::new(Limited),
    }
}

fn read_only() -> Box<dyn Fault> {
    if Immutable::possible() {
        Box::new(Immutable)
    } else {
        Box::new(Limited)
    }
}

fn faulty(case: &'static str, mut fault: Box<dyn Fault>) -> Scenario {
    let mut scenario = Scenario::node("crash-faults")
        .case(case)
        .fact("reason", json!(fault.reason()))
        .fact("stopMs", json!(8000));
    fault.launch(&mut scenario.launch);
    scenario.verbs = Some(Box::new(move |verb, broker| match verb {
        "break" => {
            fault.start(broker);
            "ok".to_owned()
        }
        "mend" => {
            fault.end(broker);
            "ok".to_owned()
        }
        "check" => fault.check(broker),
        "refused" => files::serve_in(&broker.launch.wrapper, &broker.db()),
        other => panic!("a scenario asked for {other}"),
    }));
    scenario
}

#[test]
fn disk_full() {
    faulty("broken", full()).run();
}

#[test]
fn disk_full_two_loops() {
    faulty("broken", full()).threads(2).run();
}

/// The log is on the disk that is full: no line of it can be written.
#[test]
fn log_on_the_full_disk() {
    let mut scenario = faulty("broken", full());
    let lose_log = ["sh", "-c", "exec \"$@\" 2> /dev/full", "sh"];
    let wrapper = &mut scenario.launch.wrapper;
    wrapper.extend(lose_log.map(str::to_owned));
    scenario.run();
}

#[test]
fn killed_while_full() {
    match Cage::new(DISK_MIB) {
        Some(cage) => faulty("killed", Box::new(Full(cage))).run(),
        None => skip(
            "killed_while_full",
            "no small file system can be mounted here",
        ),
    }
}

#[test]
fn stopped_while_full() {
    faulty("stopped", full()).run();
}

#[test]
fn read_only_while_running() {
    faulty("broken", read_only()).run();
}

#[test]
fn file_size_limit() {
    faulty("broken", Box::new(Limited)).run();
}

#[test]
fn locked_by_a_tool() {
    faulty("broken", Box::new(Locked::default())).run();
}

/// The limit of descriptors: some for sockets, beside those that the broker keeps back.
const DESCRIPTORS: u32 = 128;

fn starved(case: &'static str) -> Scenario {
    let mut scenario = Scenario::node("crash-descriptors")
        .case(case)
        .fact("descriptors", json!(DESCRIPTORS));
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    scenario.launch.wrapper = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    scenario.verbs = Some(Box::new(move |verb, broker| match verb {
        "cpu" => process::cpu_ms(broker).to_string(),
        "exhaust" => {
            let used = process::descriptors(broker, DESCRIPTORS);
            process::limit_descriptors(broker, used)
        }
        "relieve" => process::limit_descriptors(broker, DESCRIPTORS),
        other => panic!("a scenario asked for {other}"),
    }));
    scenario
}

#[test]
fn no_socket_left() {
    starved("sockets").run();
}

#[test]
fn no_descriptor_left() {
    starved("descriptors").run();
}

#[test]
fn no_descriptor_left_two_loops() {
    starved("descriptors").threads(2).run();
}

fn clock(case: &'static str) {
    let Some(clock) = WallClock::new() else {
        return skip(case, "no C compiler");
    };
    let mut scenario = Scenario::node("crash-clock")
        .case(case)
        .flag("--restart-grace", "3s");
    clock.launch(&mut scenario.launch);
    scenario.verbs = Some(Box::new(move |verb, _| {
        let seconds = verb.strip_prefix("clock ").and_then(|n| n.parse().ok());
        clock.step(seconds.unwrap_or_else(|| panic!("a scenario asked for {verb}")));
        "ok".to_owned()
    }));
    scenario.run();
}

#[test]
fn clock_stepped_on() {
    clock("stepped on");
}

#[test]
fn clock_stepped_back() {
    clock("stepped back");
}

#[test]
fn restarted_with_a_later_clock() {
    clock("restarted later");
}

#[test]
fn restarted_with_an_earlier_clock() {
    clock("restarted earlier");
}
