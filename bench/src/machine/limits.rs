//! What this machine allows, and what would lift it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a broker, or this program, needs beside its sockets.
const OWN_DESCRIPTORS: u64 = 128;

/// What a connection takes of the machine's memory, both of its ends and both programs' state.
const CONNECTION_BYTES: u64 = 10_000;

/// What bounds the number of connections here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open files that a process may have, after [`raise_open_files`].
    pub open_files: u64,
    /// How far root may raise that (`fs.nr_open`).
    pub open_files_max: Option<u64>,
    /// First and last local port (`net.ipv4.ip_local_port_range`).
    pub ports: Option<(u64, u64)>,
    /// Bytes of memory.
    pub memory: Option<u64>,
}

/// How many connections fit, and why not more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// That many can be open at once.
    pub connections: u64,
    /// What was found, and what would lift it; a line for each bound, the tightest first.
    pub lines: Vec<String>,
}

/// Raises this process's limit of open files as far as it may go by itself, for it and for the
/// processes it starts, and returns it.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    // No limit is the largest one.
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

impl Limits {
    /// Those of this machine, after raising what may be raised.
    pub fn find() -> io::Result<Self> {
        Ok(Self {
            open_files: raise_open_files()?,
            open_files_max: numbers("/proc/sys/fs/nr_open").map(|[max]| max),
            ports: numbers("/proc/sys/net/ipv4/ip_local_port_range").map(|[low, high]| (low, high)),
            memory: memory(),
        })
    }

    /// What fits between this program, from `addresses` source addresses, and one broker on the
    /// same machine; each in a process of its own, under the same limits.
    #[must_use]
    pub fn room(&self, addresses: u64) -> Room {
        let mut bounds = vec![self.by_files()];
        bounds.extend(self.by_ports(addresses));
        bounds.extend(self.by_memory());
        bounds.sort_by_key(|&(connections, _)| connections);
        Room {
            connections: bounds.first().map_or(0, |&(connections, _)| connections),
            lines: bounds.into_iter().map(|(_, line)| line).collect(),
        }
    }

    fn by_files(&self) -> (u64, String) {
        let connections = self.open_files.saturating_sub(OWN_DESCRIPTORS);
        let mut line = format!(
            "open files: {} per process, so {connections} connections; `ulimit -n` as root, \
             LimitNOFILE= of systemd or --ulimit nofile= of a container lift it",
            shown(self.open_files)
        );
        if let Some(max) = self.open_files_max {
            line.push_str(&format!(", up to {max} (fs.nr_open, a sysctl)"));
        }
        (connections, line)
    }

    fn by_ports(&self, addresses: u64) -> Option<(u64, String)> {
        let (low, high) = self.ports?;
        let each = (high + 1).saturating_sub(low);
        let connections = each.saturating_mul(addresses);
        let line = format!(
            "local ports: {each} for each of {addresses} source addresses, so {connections} \
             connections; more 127.0.0.x addresses, or \
             `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"`, lift it"
        );
        Some((connections, line))
    }

    fn by_memory(&self) -> Option<(u64, String)> {
        let memory = self.memory?;
        let connections = memory / CONNECTION_BYTES;
        let line = format!(
            "memory: {} MiB, so about {connections} connections at {CONNECTION_BYTES} bytes for \
             both ends",
            memory >> 20
        );
        Some((connections, line))
    }
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX {
        "unlimited".to_owned()
    } else {
        limit.to_string()
    }
}

/// What must be the same for two reports to be compared.
#[must_use]
pub fn header() -> BTreeMap<String, String> {
    let unknown = || "unknown".to_owned();
    let system = rustix::system::uname();
    let memory = memory().map(|bytes| format!("{} MiB", bytes >> 20));
    let open_files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let cores =
        thread::available_parallelism().map_or_else(|_| unknown(), |cores| cores.to_string());
    let entries = [
        ("kernel", system.release().to_string_lossy().into_owned()),
        ("processor", processor().unwrap_or_else(unknown)),
        ("cores", cores),
        ("memory", memory.unwrap_or_else(unknown)),
        ("open files", shown(open_files)),
    ];
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&text, "model name").map(str::to_owned)
}

fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = field(&text, "MemTotal")?
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kib * 1024)
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
        .next()
}

fn numbers<const N: usize>(path: &str) -> Option<[u64; N]> {
    let text = fs::read_to_string(path).ok()?;
    let words = text.split_whitespace().map(|word| word.parse().ok());
    words.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        open_files: 20_000,
        open_files_max: Some(1_048_576),
        ports: Some((32_768, 60_999)),
        memory: Some(24 << 30),
    };

    #[test]
    fn the_tightest_bound_comes_first() {
        let room = SMALL.room(1);
        assert_eq!((room.connections, room.lines.len()), (19_872, 3));
        assert!(room.lines[0].starts_with("open files: 20000"), "{room:?}");
        assert!(
            room.lines[0].contains("up to 1048576 (fs.nr_open"),
            "{room:?}"
        );

        let wide = Limits {
            open_files: 1_048_576,
            ..SMALL
        };
        let room = wide.room(1);
        assert_eq!(room.connections, 28_232);
        assert!(room.lines[0].starts_with("local ports"), "{room:?}");
        assert_eq!(wide.room(100).connections, 1_048_576 - 128);

        let unlimited = Limits {
            open_files: u64::MAX,
            ..SMALL
        };
        let room = unlimited.room(250);
        assert!(room.lines[0].starts_with("memory: 24576 MiB"), "{room:?}");
        assert!(
            room.lines[2].starts_with("open files: unlimited"),
            "{room:?}"
        );
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let limit = raise_open_files().unwrap();
        assert_eq!(
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            limit
        );
        let limits = Limits::find().unwrap();
        assert_eq!(limits.open_files, limit);
        assert!(limits.room(8).connections > 0, "{limits:?}");
        let header = header();
        for name in ["kernel", "processor", "cores", "memory", "open files"] {
            assert!(!header[name].is_empty(), "{name}");
        }
        assert_eq!(header["open files"], shown(limit));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: Some CPU\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name"), Some("Some CPU"));
        assert_eq!(field(text, "name"), None);
    }
}
