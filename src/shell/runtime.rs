//! Which driver a loop runs on, and running it.
//!
//! io_uring where the kernel allows it, epoll otherwise; `HOLDFAST_DRIVER=epoll` forces the latter.

use std::future::Future;
use std::io;
use std::thread;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// What moves bytes under a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// One ring per loop.
    IoUring,
    /// One epoll instance per loop.
    Epoll,
}

impl Driver {
    /// The driver of this process: what `wish` names, else the best that works here.
    pub(super) fn choose(wish: Option<&str>) -> Self {
        if wish == Some("epoll") {
            return Self::Epoll;
        }
        // In a thread of its own: when a ring is torn down, whatever its thread waits for is
        // interrupted, and our caller may be a client that does not expect that.
        match thread::spawn(ring_works).join() {
            Ok(true) => Self::IoUring,
            Ok(false) | Err(_) => Self::Epoll,
        }
    }

    /// For the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The first probe asks for operations; only building one shows that a whole ring may be had.
fn ring_works() -> bool {
    monoio::utils::detect_uring() && RuntimeBuilder::<IoUringDriver>::new().build().is_ok()
}

/// A ring whose completions wait until the loop looks for them, instead of interrupting it: half
/// the CPU per echoed message. Kernels before 5.19 do not know the flag and get a plain one.
fn ring() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut flags = io_uring::IoUring::builder();
    flags.setup_coop_taskrun();
    let builder = RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(flags)
        .enable_timer();
    builder.build().or_else(|_| {
        RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()
    })
}

/// Runs `main` to its end on a loop of this thread.
///
/// # Errors
/// If the loop cannot be built.
pub(super) fn block_on<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    let ring = match driver {
        Driver::IoUring => or_warn(ring()),
        Driver::Epoll => None,
    };
    match ring {
        Some(mut ring) => Ok(ring.block_on(main)),
        None => Ok(RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?
            .block_on(main)),
    }
}

/// The limits may let us have one ring, but not one more.
fn or_warn<R>(ring: io::Result<R>) -> Option<R> {
    ring.inspect_err(|error| {
        tracing::warn!(%error, "one loop has got no ring and runs on epoll");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::log::tests::logged;

    #[test]
    fn a_loop_that_gets_no_ring_says_so() {
        let refused = io::Error::from(io::ErrorKind::OutOfMemory);
        let lines = logged(|| assert!(or_warn::<()>(Err(refused)).is_none()));
        assert!(lines.contains("WARN"), "{lines}");
        assert!(
            lines.contains("runs on epoll error=out of memory"),
            "{lines}"
        );
        assert_eq!(logged(|| assert_eq!(or_warn(Ok(1)), Some(1))), "");
    }
}
