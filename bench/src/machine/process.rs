//! What a process costs, as the kernel counts it.
//!
//! Syscalls are not counted here: the kernel has no cheap counter of them, and
//! `perf stat -e raw_syscalls:sys_enter -p PID` has one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has ended, or is somebody else's.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// Why it cannot be.
        source: io::Error,
    },
    /// Another kernel writes it in another way.
    #[error("{} says nothing of {what}", .path.display())]
    Unknown {
        /// What was read.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

/// User memory of a process.
///
/// The kernel adds these up from counters per processor, so they may be wrong by some hundred
/// KiB: compare thousands of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of all resident pages, those of files among them (`VmRSS`).
    pub resident: u64,
    /// Bytes of resident pages that no file backs: heap and stacks (`RssAnon`).
    pub anonymous: u64,
}

/// Reads the memory of process `pid`.
pub fn memory(pid: u32) -> Result<Memory, ProcessError> {
    let path = of(pid, "status");
    let text = read(&path)?;
    Ok(Memory {
        resident: kib(&text, "VmRSS:").ok_or_else(unknown(&path, "VmRSS"))?,
        anonymous: kib(&text, "RssAnon:").ok_or_else(unknown(&path, "RssAnon"))?,
    })
}

/// The bytes of a line such as `VmRSS:     1234 kB`.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// How many descriptors process `pid` has open.
///
/// Kernels before 6.2 make a directory entry of each to count them, which weighs on what
/// [`super::kernel`] counts: do not call it between two of its snapshots.
pub fn descriptors(pid: u32) -> Result<u64, ProcessError> {
    let path = of(pid, "fd");
    let size = fs::metadata(&path).map_err(unreadable(&path))?.len();
    if size > 0 {
        return Ok(size);
    }
    let entries = fs::read_dir(&path).map_err(unreadable(&path))?;
    Ok(entries.count() as u64)
}

/// CPU time that a process has used since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Nanoseconds of all its threads, ended ones too.
    pub total: u64,
    /// Nanoseconds by name of thread; threads of one name are added up.
    pub threads: BTreeMap<String, u64>,
}

impl CpuTime {
    /// What was used after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let used = |(name, now): (&String, &u64)| {
            let before = earlier.threads.get(name).copied().unwrap_or(0);
            (name.clone(), now.saturating_sub(before))
        };
        Self {
            total: self.total.saturating_sub(earlier.total),
            threads: self.threads.iter().map(used).collect(),
        }
    }
}

/// The CPU time of process `pid`. For one whose threads come and go, [`CpuMeter`] knows more.
pub fn cpu(pid: u32) -> Result<CpuTime, ProcessError> {
    CpuMeter::new(pid).sample()
}

/// Reads the CPU time of one process again and again.
///
/// A thread's time is exact while it sleeps, and late by up to one scheduler tick while it runs.
/// The kernel forgets a thread that ends, so the last that was seen of it is kept here. What it
/// used after that is lost to its name; the total makes up for it to within 20 ms.
#[derive(Debug)]
pub struct CpuMeter {
    pid: u32,
    alive: BTreeMap<u32, Thread>,
    ended: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    nanos: u64,
}

impl CpuMeter {
    /// A meter of process `pid`.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            alive: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// The time used up to now.
    pub fn sample(&mut self) -> Result<CpuTime, ProcessError> {
        let threads = threads(self.pid)?;
        let path = of(self.pid, "stat");
        let floor = ticks(&read(&path)?).ok_or_else(unknown(&path, "its CPU time"))?;
        Ok(self.take_in(threads, floor))
    }

    /// `floor`: a time that the whole process has used at least.
    fn take_in(&mut self, threads: BTreeMap<u32, Thread>, floor: u64) -> CpuTime {
        for (tid, last) in std::mem::replace(&mut self.alive, threads) {
            let goes_on = self
                .alive
                .get(&tid)
                .is_some_and(|now| now.nanos >= last.nanos);
            if !goes_on {
                *self.ended.entry(last.name).or_default() += last.nanos;
            }
        }
        let mut threads = self.ended.clone();
        for thread in self.alive.values() {
            *threads.entry(thread.name.clone()).or_default() += thread.nanos;
        }
        let seen: u64 = threads.values().sum();
        CpuTime {
            total: seen.max(floor),
            threads,
        }
    }
}

fn threads(pid: u32) -> Result<BTreeMap<u32, Thread>, ProcessError> {
    let path = of(pid, "task");
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(&path).map_err(unreadable(&path))? {
        let entry = entry.map_err(unreadable(&path))?;
        let Some(tid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        match thread(&entry.path()) {
            Ok(thread) => drop(threads.insert(tid, thread)),
            // It has ended since the directory was read.
            Err(ProcessError::Unreadable { source, .. }) if is_gone(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

fn is_gone(error: &io::Error) -> bool {
    let no_such_process = Some(rustix::io::Errno::SRCH);
    error.kind() == io::ErrorKind::NotFound
        || rustix::io::Errno::from_io_error(error) == no_such_process
}

fn thread(task: &Path) -> Result<Thread, ProcessError> {
    let path = task.join("schedstat");
    let nanos = read(&path)?
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(unknown(&path, "CPU time"))?;
    let name = read(&task.join("comm"))?.trim().to_owned();
    Ok(Thread { name, nanos })
}

/// Nanoseconds of user and system time in a `stat` line, which counts in hundredths of a second
/// (`USER_HZ`, the same on all machines that this runs on). The name, the second field, may hold
/// anything, brackets too.
fn ticks(stat: &str) -> Option<u64> {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * NANOS_PER_TICK)
}

fn of(pid: u32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}

fn read(path: &Path) -> Result<String, ProcessError> {
    fs::read_to_string(path).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

fn unknown(path: &Path, what: &'static str) -> impl FnOnce() -> ProcessError {
    move || ProcessError::Unknown {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(name: &str, nanos: u64) -> Thread {
        Thread {
            name: name.to_owned(),
            nanos,
        }
    }

    #[test]
    fn time_of_threads_that_ended_is_kept() {
        let mut meter = CpuMeter::new(1);
        let first = meter.take_in(
            BTreeMap::from([(1, thread("main", 50)), (2, thread("loop", 30))]),
            0,
        );
        assert_eq!(first.total, 80);
        // The thread 2 of now is another one.
        let second = meter.take_in(
            BTreeMap::from([(1, thread("main", 60)), (2, thread("loop", 10))]),
            0,
        );
        assert_eq!((second.total, second.threads["loop"]), (100, 40));
        let third = meter.take_in(BTreeMap::from([(1, thread("main", 60))]), 130);
        assert_eq!((third.total, third.threads["loop"]), (130, 40));
        let used = third.since(&first);
        assert_eq!((used.total, used.threads["main"]), (50, 10));
    }

    #[test]
    fn fields_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 5 5 20 0 1 0";
        assert_eq!(ticks(stat), Some(420_000_000));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn this_process_has_what_it_must_have() {
        let pid = std::process::id();
        let kept = vec![1_u8; 32 << 20];
        let memory = memory(pid).unwrap();
        assert!(memory.anonymous >= kept.len() as u64, "{memory:?}");
        assert!(memory.resident >= memory.anonymous, "{memory:?}");

        let mut meter = CpuMeter::new(pid);
        let before = meter.sample().unwrap();
        let mut product = 1_u64;
        for factor in 0..100_000_000_u64 {
            product = std::hint::black_box(product.wrapping_mul(factor | 1));
        }
        let used = meter.sample().unwrap().since(&before);
        assert!(used.total > 1_000_000, "{used:?}");
        assert!(used.total < 60_000_000_000, "{used:?}");

        let before = descriptors(pid).unwrap();
        let files: Vec<_> = (0..20)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = descriptors(pid).unwrap();
        // Other tests of this process open files too.
        assert!(after + 5 >= before + files.len() as u64, "{before} {after}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_its_path() {
        let error = memory(u32::MAX).unwrap_err();
        assert!(
            error.to_string().contains("/proc/4294967295/status"),
            "{error}"
        );
        assert!(CpuMeter::new(u32::MAX).sample().is_err());
        assert!(descriptors(u32::MAX).is_err());
    }
}
