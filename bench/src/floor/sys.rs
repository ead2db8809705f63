//! The only unsafe code: a descriptor seen through monoio's stream, which lends none itself.
#![expect(
    unsafe_code,
    reason = "monoio 0.2.4 has AsRawFd but neither AsFd nor Into<OwnedFd>"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use monoio::net::TcpStream;

/// The stream's descriptor, for calls that neither block nor close it.
pub(super) fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and closes it only when dropped; the result borrows
    // the stream, so it cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
