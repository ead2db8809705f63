//! The only unsafe code: a descriptor seen through monoio's streams, which lend none themselves.
//!
//! Must not: call the system, close anything, or decide whether an operation is in flight.
#![expect(
    unsafe_code,
    reason = "monoio 0.2.4 has AsRawFd but neither AsFd nor Into<OwnedFd>"
)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use monoio::net::TcpStream;

/// The stream's descriptor, for calls that neither block nor close it.
pub(super) fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and closes it only when dropped; the result borrows
    // the stream, so it cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Takes the descriptor out of the stream and the runtime.
///
/// # Panics
/// If an operation is in flight on it: see `handoff.rs` for why none is.
pub(super) fn take(stream: TcpStream) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up ownership without closing, and panics rather than share it,
    // so this is the only owner.
    unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) }
}
