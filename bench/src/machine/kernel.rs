//! Kernel memory of sockets, by counts of slab objects.
//!
//! `MemFree` and its like move with everything a machine does. Slab caches are named after what
//! lies in them, so sockets can be told from the rest:
//!
//! - `TCP`, `TCPv6`: the connection itself.
//! - `sock_inode_cache`: one per socket that a process holds; this is what counts sockets here.
//! - `filp`, `dentry`, `lsm_inode_cache`, `lsm_file_cache`: each socket has exactly one of each,
//!   and so has everything else that is open. Above all, whoever lists `/proc/PID/fd` makes
//!   dentries and inodes by the thousand. So only their sizes are used, never their numbers.
//! - the slot in the table of descriptors, a plain array: a constant.
//! - `io_kiocb`: what an io_uring waits for. One per idle connection of a loop that polls; the
//!   client of these measurements has no ring, so they are all the server's.
//! - `kmalloc-*`: what io_uring keeps beside an operation that waits with a buffer, and what the
//!   whole machine keeps for any reason. Given apart, as the most that may have been overlooked.
//! - `eventpoll_epi`: the client's, so never counted.
//!
//! A connection to the same machine has two sockets here that cost the same; a figure per socket
//! is what one end costs. The kernel counts what waits free on a processor as used, so a count may
//! be wrong by some hundred: compare thousands of sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io;

const SLABINFO: &str = "/proc/slabinfo";

/// Caches of which a socket has one object, whoever else has some.
const BESIDE_EACH: [&str; 4] = ["filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// A pointer in the table of descriptors.
const SLOT_BYTES: f64 = 8.0;

/// Why slabs cannot be counted here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The kernel shows them to root only, and some sandboxes to nobody.
    #[error("kernel memory is not measured: cannot read /proc/slabinfo: {source}{}", advice(.source))]
    Unreadable {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// A line is not as in version 2 of the file.
    #[error("kernel memory is not measured: /proc/slabinfo has a line {0:?}")]
    Unknown(String),
    /// There is no cache of that name: another kernel names or merges them in another way.
    #[error("kernel memory is not measured: /proc/slabinfo has no cache {0}")]
    Missing(&'static str),
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (root may read it)"
    } else {
        ""
    }
}

/// The objects of one cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cache {
    /// How many are in use.
    pub objects: u64,
    /// What one takes, its share of the unused ends of pages included.
    pub bytes_each: f64,
}

/// All caches at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Slabs {
    caches: BTreeMap<String, Cache>,
}

impl Slabs {
    /// Those of this moment.
    pub fn now() -> Result<Self, Unavailable> {
        Self::parse(&fs::read_to_string(SLABINFO)?, rustix::param::page_size())
    }

    fn parse(text: &str, page: usize) -> Result<Self, Unavailable> {
        let mut caches = BTreeMap::new();
        // Two lines of heading.
        for line in text.lines().skip(2) {
            let (name, cache) =
                parse_line(line, page).ok_or_else(|| Unavailable::Unknown(line.to_owned()))?;
            caches.insert(name.to_owned(), cache);
        }
        for name in ["TCP", "sock_inode_cache"] {
            if !caches.contains_key(name) {
                return Err(Unavailable::Missing(name));
            }
        }
        Ok(Self { caches })
    }

    /// One cache; None if this kernel has none of that name.
    #[must_use]
    pub fn cache(&self, name: &str) -> Option<Cache> {
        self.caches.get(name).copied()
    }

    /// What has been added since `earlier`; less than nothing if more was freed.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Growth {
        let sockets = self.added("sock_inode_cache", earlier);
        let beside: f64 = BESIDE_EACH.iter().map(|name| self.bytes_each(name)).sum();
        let inode = self.bytes_each("sock_inode_cache");
        let tcp = self.added_bytes("TCP", earlier) + self.added_bytes("TCPv6", earlier);
        let loose = self
            .caches
            .keys()
            .filter(|name| is_loose(name))
            .map(|name| self.added_bytes(name, earlier))
            .sum();
        Growth {
            sockets,
            socket_bytes: tcp + sockets * (inode + beside + SLOT_BYTES),
            ring_bytes: self.added_bytes("io_kiocb", earlier),
            loose_bytes: loose,
        }
    }

    fn bytes_each(&self, name: &str) -> f64 {
        self.cache(name).map_or(0.0, |cache| cache.bytes_each)
    }

    fn added(&self, name: &str, earlier: &Self) -> f64 {
        let objects = |slabs: &Self| slabs.cache(name).map_or(0, |cache| cache.objects);
        objects(self) as f64 - objects(earlier) as f64
    }

    fn added_bytes(&self, name: &str, earlier: &Self) -> f64 {
        self.added(name, earlier) * self.bytes_each(name)
    }
}

/// `kmalloc-96` and its like, of whatever size a kernel has; not those of a special kind, such as
/// `kmalloc-rcl-96`.
fn is_loose(name: &str) -> bool {
    name.strip_prefix("kmalloc-")
        .is_some_and(|size| size.starts_with(|first: char| first.is_ascii_digit()))
}

/// What sockets added between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// How many sockets, of both ends if both are on this machine.
    pub sockets: f64,
    /// Bytes of those sockets.
    pub socket_bytes: f64,
    /// Bytes of what io_uring waits for.
    pub ring_bytes: f64,
    /// Bytes that anybody may have taken.
    pub loose_bytes: f64,
}

impl Growth {
    /// What one end of a connection costs the kernel, without its ring; None if no socket came.
    #[must_use]
    pub fn per_socket(&self) -> Option<f64> {
        (self.sockets >= 1.0).then(|| self.socket_bytes / self.sockets)
    }

    /// What the server's end of each of `connections` costs the kernel, its share of a ring
    /// included; None if no socket came.
    #[must_use]
    pub fn per_connection(&self, connections: u64) -> Option<f64> {
        let ring = self.ring_bytes / connections.max(1) as f64;
        self.per_socket().map(|socket| socket + ring)
    }
}

/// Fields: name, active objects, all objects, size, objects per slab, pages per slab, and behind
/// `slabdata` active slabs and all slabs.
fn parse_line(line: &str, page: usize) -> Option<(&str, Cache)> {
    let (counts, slabdata) = line.split_once(": slabdata")?;
    let mut fields = counts.split_whitespace();
    let name = fields.next()?;
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (objects, all, size) = (number()?, number()?, number()?);
    let _per_slab = number()?;
    let pages = number()?;
    let slabs: u64 = slabdata.split_whitespace().nth(1)?.parse().ok()?;
    let bytes_each = if all == 0 {
        size as f64
    } else {
        (slabs * pages * page as u64) as f64 / all as f64
    };
    Some((
        name,
        Cache {
            objects,
            bytes_each,
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const HEAD: &str = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> ...\n";

    fn slabs(lines: &[(&str, u64, u64, u64, u64, u64)]) -> Slabs {
        let line = |&(name, active, all, size, pages, slabs): &(&str, u64, u64, u64, u64, u64)| {
            format!(
                "{name} {active} {all} {size} 1 {pages} : tunables 0 0 0 : slabdata {slabs} {slabs} 0\n"
            )
        };
        let text: String = lines.iter().map(line).collect();
        Slabs::parse(&format!("{HEAD}{text}"), 4096).unwrap()
    }

    #[test]
    fn sockets_count_what_is_theirs() {
        let before = slabs(&[
            ("TCP", 10, 13, 2368, 8, 1),
            ("sock_inode_cache", 10, 19, 832, 4, 1),
            ("filp", 100, 21, 192, 1, 1),
            ("dentry", 100, 21, 192, 1, 1),
            ("io_kiocb", 0, 0, 256, 1, 0),
            ("kmalloc-96", 0, 42, 96, 1, 1),
            ("kmalloc-rcl-96", 0, 42, 96, 1, 1),
        ]);
        let after = slabs(&[
            ("TCP", 2010, 2015, 2368, 8, 155),
            ("sock_inode_cache", 2010, 2014, 832, 4, 106),
            ("filp", 9_000, 21_000, 192, 1, 1000),
            // Somebody has listed directories.
            ("dentry", 1_000_000, 2_100_000, 192, 1, 100_000),
            ("io_kiocb", 1000, 1008, 256, 1, 63),
            ("kmalloc-96", 10, 42, 96, 1, 1),
            ("kmalloc-rcl-96", 9000, 9030, 96, 1, 215),
        ]);
        let growth = after.since(&before);
        assert_eq!(growth.sockets, 2000.0);
        let each = growth.per_socket().unwrap();
        assert!((3780.0..3790.0).contains(&each), "{each}");
        let connection = growth.per_connection(1000).unwrap();
        assert!((connection - each - 256.0).abs() < 0.1, "{connection}");
        assert!((growth.loose_bytes - 975.0).abs() < 1.0, "{growth:?}");
        assert_eq!(before.since(&after).sockets, -2000.0);
        assert_eq!(before.since(&after).per_socket(), None);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let error = Slabs::parse(&format!("{HEAD}TCP 1 x\n"), 4096).unwrap_err();
        assert!(error.to_string().ends_with("a line \"TCP 1 x\""), "{error}");
        let error = Slabs::parse(HEAD, 4096).unwrap_err();
        assert!(error.to_string().ends_with("no cache TCP"), "{error}");
        let error = Unavailable::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(error.to_string().contains("root may read it"), "{error}");
    }

    /// Passes where slabs cannot be read, if that is said.
    #[test]
    fn sockets_of_this_machine_show() {
        const CONNECTIONS: usize = 400;
        let before = match Slabs::now() {
            Ok(slabs) => slabs,
            Err(error) => return assert!(error.to_string().contains("not measured"), "{error}"),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let pair = |_| {
            let client = TcpStream::connect(address).unwrap();
            (client, listener.accept().unwrap())
        };
        let pairs: Vec<_> = (0..CONNECTIONS).map(pair).collect();
        let growth = Slabs::now().unwrap().since(&before);
        // Some objects were there and free; other programs open and close sockets.
        assert!(growth.sockets > pairs.len() as f64, "{growth:?}");
        let each = growth.per_socket().unwrap();
        assert!((2_000.0..10_000.0).contains(&each), "{each}");
    }
}
