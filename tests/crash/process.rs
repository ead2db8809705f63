//! What the kernel says of a running broker, and lets it have.

use std::fs;
use std::process::Command;

use super::support::broker::Broker;

/// Processor time used so far, in milliseconds.
pub(crate) fn cpu_ms(broker: &Broker) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid()));
    let stat = stat.expect("the kernel must tell of its processes");
    // The name, in parentheses, may contain anything; utime and stime are fields 14 and 15.
    let (_, fields) = stat
        .rsplit_once(") ")
        .expect("a name must be in parentheses");
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().unwrap_or(0)).sum();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

/// One more than the highest descriptor in use below a limit; whoever started it may have left it
/// some above.
pub(crate) fn descriptors(broker: &Broker, below: u32) -> u32 {
    let open = fs::read_dir(format!("/proc/{}/fd", broker.pid()));
    let numbers = open
        .expect("the kernel must tell of its processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let numbers = numbers.filter(|number| *number < below);
    numbers.max().expect("a process has descriptors") + 1
}

/// Sets how many descriptors it may have from now on.
pub(crate) fn limit_descriptors(broker: &Broker, limit: u32) -> String {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", broker.pid()))
        .arg(format!("--nofile={limit}:"))
        .status();
    assert!(done.expect("prlimit must exist").success(), "prlimit");
    "ok".to_owned()
}
