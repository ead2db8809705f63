//! Kernel, io_uring, limits of files and sockets, clock.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::super::stopwatch;
use super::Finding;
use crate::core::time::Wall;

/// First kernel with everything the io_uring driver uses.
const KERNEL_WANTED: (u32, u32) = (5, 11);

/// Descriptors a broker with one loop needs beside its clients' sockets: database, log, ring,
/// listener. Each further loop takes eight more.
const OWN_DESCRIPTORS: u64 = 40;

/// Below this many descriptors a broker of any size will meet the limit.
const DESCRIPTORS_WANTED: u64 = 10_000;

/// Below this a fleet that comes back at once meets refused connections.
const BACKLOG_WANTED: u64 = 1024;

/// Below this much memory for TCP, thousands of slow readers can stall every socket.
const TCP_BYTES_WANTED: u64 = 64 * 1024 * 1024;

/// Ports towards one address below which a proxy on this machine is the limit.
const PORTS_WANTED: u64 = 10_000;

const YEAR_MS: i64 = 31_557_600_000;

/// All checks of the machine.
pub(super) fn check() -> Vec<Finding> {
    vec![
        kernel(),
        io_uring(),
        open_files(),
        backlog(),
        ports(),
        tcp_memory(),
        clock(),
    ]
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let found = format!("{} {release}", name.sysname().to_string_lossy());
    match version(&release) {
        Some(version) if version < KERNEL_WANTED => Finding::warn(
            "kernel",
            found,
            format!(
                "older than {}.{}: the broker falls back to epoll and uses more processor time",
                KERNEL_WANTED.0, KERNEL_WANTED.1
            ),
        ),
        Some(_) => Finding::ok("kernel", found),
        None => Finding::warn(
            "kernel",
            found,
            "version not understood; io_uring is tried below",
        ),
    }
}

/// Major and minor of a release such as `6.8.0-41-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn io_uring() -> Finding {
    let switch = number("/proc/sys/kernel/io_uring_disabled");
    match io_uring::IoUring::new(8) {
        Ok(_) => Finding::ok("io_uring", "a ring can be made"),
        Err(error) => Finding::warn(
            "io_uring",
            format!("no ring: {error}; the broker falls back to epoll"),
            ring_advice(&error, switch),
        ),
    }
}

fn ring_advice(error: &io::Error, switch: Option<u64>) -> String {
    let errno = rustix::io::Errno::from_io_error(error);
    match (errno, switch) {
        (Some(rustix::io::Errno::PERM), Some(level @ 1..)) => format!(
            "kernel.io_uring_disabled is {level}; as root: sysctl kernel.io_uring_disabled=0"
        ),
        (Some(rustix::io::Errno::PERM), _) => "forbidden by seccomp, as in most containers; allow \
             io_uring_setup, io_uring_enter and io_uring_register in its profile"
            .to_owned(),
        (Some(rustix::io::Errno::NOSYS), _) => {
            "this kernel has no io_uring, or a sandbox hides it".to_owned()
        }
        (Some(rustix::io::Errno::NOMEM), _) => {
            "too little lockable memory; raise it (ulimit -l, LimitMEMLOCK=)".to_owned()
        }
        _ => "epoll works as well, at a higher cost in processor time".to_owned(),
    }
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    // No limit is the largest one.
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let sessions = hard.saturating_sub(OWN_DESCRIPTORS);
    let found = format!(
        "{} soft, {} hard: room for {} connected sessions (those in grace need none)",
        shown(soft),
        shown(hard),
        shown(sessions)
    );
    let advice = "raise it with ulimit -n, LimitNOFILE= of systemd, or --ulimit nofile= of a \
                  container; the broker takes the hard limit";
    if hard < 2 * OWN_DESCRIPTORS {
        Finding::fail("open files", found, advice)
    } else if hard < DESCRIPTORS_WANTED {
        Finding::warn("open files", found, advice)
    } else {
        Finding::ok("open files", found)
    }
}

fn shown(limit: u64) -> String {
    if limit > u64::from(u32::MAX) {
        "unlimited".to_owned()
    } else {
        limit.to_string()
    }
}

fn backlog() -> Finding {
    match number("/proc/sys/net/core/somaxconn") {
        Some(backlog) if backlog < BACKLOG_WANTED => Finding::warn(
            "backlog",
            format!("{backlog} connections may wait to be accepted"),
            format!(
                "a fleet that comes back at once needs more; as root: \
                 sysctl net.core.somaxconn={}",
                4 * BACKLOG_WANTED
            ),
        ),
        Some(backlog) => Finding::ok(
            "backlog",
            format!("{backlog} connections may wait to be accepted"),
        ),
        None => unseen("backlog", "net.core.somaxconn"),
    }
}

fn ports() -> Finding {
    let Some([low, high]) = numbers("/proc/sys/net/ipv4/ip_local_port_range") else {
        return unseen("local ports", "net.ipv4.ip_local_port_range");
    };
    let count = high.saturating_sub(low) + 1;
    let found = format!("{low} to {high}: {count} connections from one address on this machine");
    if count < PORTS_WANTED {
        return Finding::warn(
            "local ports",
            found,
            "limits a proxy on this machine; as root: \
             sysctl net.ipv4.ip_local_port_range=\"10000 65535\"",
        );
    }
    Finding::ok("local ports", found)
}

fn tcp_memory() -> Finding {
    let Some([_, _, high]) = numbers("/proc/sys/net/ipv4/tcp_mem") else {
        return unseen("tcp memory", "net.ipv4.tcp_mem");
    };
    let bytes = high.saturating_mul(rustix::param::page_size() as u64);
    let found = format!("{} MiB for all sockets together", bytes >> 20);
    if bytes < TCP_BYTES_WANTED {
        return Finding::warn(
            "tcp memory",
            found,
            "give the machine more memory, or raise net.ipv4.tcp_mem",
        );
    }
    Finding::ok("tcp memory", found)
}

fn unseen(check: &'static str, setting: &str) -> Finding {
    Finding::ok(check, format!("{setting} cannot be read here"))
}

/// Hellos are signed with the time, so a wrong clock keeps every client out.
fn clock() -> Finding {
    let now = stopwatch::wall_now();
    judged_clock(now, synchronised())
}

fn judged_clock(now: Wall, synchronised: Option<bool>) -> Finding {
    let sane = (2025 - 1970) * YEAR_MS..(2100 - 1970) * YEAR_MS;
    if !sane.contains(&now.0) {
        return Finding::fail(
            "clock",
            format!("it says {now}"),
            "set it: clients sign the time, and one that is 60 s off is refused (timestamp_skew)",
        );
    }
    match synchronised {
        Some(true) => Finding::ok("clock", format!("{now}, synchronised")),
        Some(false) => Finding::warn(
            "clock",
            format!("{now}, not yet synchronised"),
            "wait for NTP, or see timedatectl: a client 60 s off is refused (timestamp_skew)",
        ),
        None => Finding::ok(
            "clock",
            format!("{now} (whether it is synchronised is not visible)"),
        ),
    }
}

/// What systemd's time service says; None where it does not run.
fn synchronised() -> Option<bool> {
    let service = Path::new("/run/systemd/timesync");
    service
        .exists()
        .then(|| service.join("synchronized").exists())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn numbers<const N: usize>(path: &str) -> Option<[u64; N]> {
    let text = fs::read_to_string(path).ok()?;
    let numbers: Option<Vec<u64>> = text
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn kernel_versions_are_compared_by_number() {
        assert_eq!(version("6.8.0-41-generic"), Some((6, 8)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("custom"), None);
        assert!(version("5.9.1").unwrap() < KERNEL_WANTED);
    }

    #[test]
    fn a_refused_ring_is_explained_by_its_cause() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        let perm = error(rustix::io::Errno::PERM);
        assert!(ring_advice(&perm, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(ring_advice(&perm, Some(0)).contains("seccomp"));
        assert!(ring_advice(&error(rustix::io::Errno::NOMEM), None).contains("MEMLOCK"));
        assert!(ring_advice(&io::Error::other("?"), None).contains("epoll"));
    }

    #[test]
    fn a_clock_of_another_century_fails() {
        assert_eq!(judged_clock(Wall(0), None).state, State::Fail);
        assert_eq!(
            judged_clock(Wall(1_800_000_000_000), Some(true)).state,
            State::Ok
        );
        assert_eq!(
            judged_clock(Wall(1_800_000_000_000), Some(false)).state,
            State::Warn
        );
    }
}
