//! What is to be written to one socket, in order, and how far that has got.
//!
//! A socket has a queue only while something waits for it. Payloads are shared, never copied.
//! Must not: know connections or what the bytes mean.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::websocket::Header;

/// Slices given to the kernel at once; two per frame.
const SLICES: usize = 64;

/// How much a queue may keep allocated while it waits for reuse.
const KEPT_CHUNKS: usize = 8;

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything is with the kernel.
    All,
    /// The socket takes no more now.
    Blocked,
    /// The connection is gone; the reader will find out how.
    Broken,
    /// Nothing can be written any more, and the reader may never find out.
    Failed(Errno),
}

/// What keeping a frame costs beside its bytes.
const CHUNK_COST: usize = size_of::<Chunk>();

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    chunks: VecDeque<Chunk>,
    /// Not yet written, headers included.
    bytes: usize,
    /// Written of the first chunk.
    written: usize,
}

#[derive(Debug)]
struct Chunk {
    header: Header,
    body: Bytes,
}

impl Chunk {
    fn len(&self) -> usize {
        self.header.bytes().len() + self.body.len()
    }
}

impl Outbound {
    /// Appends a frame; with an empty header, bytes as they are.
    pub(super) fn push(&mut self, header: Header, body: Bytes) {
        let chunk = Chunk { header, body };
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Drops the last frame if it is a pong not yet begun: of several pings that wait for an
    /// answer only the latest needs one (RFC 6455 §5.5.3).
    pub(super) fn drop_last_pong(&mut self) {
        let begun = usize::from(self.written > 0);
        let is_pong = |last: &Chunk| last.header.is_pong();
        if self.chunks.len() > begun && self.chunks.back().is_some_and(is_pong) {
            let pong = self.chunks.pop_back();
            self.bytes -= pong.map_or(0, |pong| pong.len());
        }
    }

    /// Bytes not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that what is not yet written takes. A payload shared with other sockets counts here
    /// as if it were not.
    pub(super) fn cost(&self) -> usize {
        self.bytes + self.chunks.len() * CHUNK_COST
    }

    /// The same without the frame whose turn it is: one large frame makes no slow consumer, only
    /// what piles up behind it.
    pub(super) fn cost_behind(&self) -> usize {
        let first = self
            .chunks
            .front()
            .map_or(0, |chunk| chunk.len() - self.written + CHUNK_COST);
        self.cost().saturating_sub(first)
    }

    /// Drops whatever has not been begun, so that the next frame follows a whole one.
    pub(super) fn cut(&mut self) {
        self.chunks.truncate(usize::from(self.written > 0));
        self.bytes = self
            .chunks
            .front()
            .map_or(0, |chunk| chunk.len() - self.written);
    }

    /// Empties the queue for another socket; false if it is too large to keep.
    pub(super) fn recycle(&mut self) -> bool {
        self.chunks.clear();
        self.bytes = 0;
        self.written = 0;
        self.chunks.capacity() <= KEPT_CHUNKS
    }

    /// Writes what the socket takes, without waiting.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>) -> Written {
        while !self.chunks.is_empty() {
            let sent = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.slices(&mut slices);
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                sendmsg(
                    fd,
                    &slices[..count],
                    &mut SendAncillaryBuffer::default(),
                    flags,
                )
            };
            match sent {
                Ok(count) => self.advance(count),
                Err(Errno::AGAIN) => return Written::Blocked,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Written::Broken,
                Err(errno) => return Written::Failed(errno),
            }
        }
        Written::All
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        let mut skip = self.written;
        for chunk in &self.chunks {
            if count + 2 > SLICES {
                break;
            }
            for part in [chunk.header.bytes(), &chunk.body[..]] {
                let from = skip.min(part.len());
                skip -= from;
                if from < part.len() {
                    slices[count] = IoSlice::new(&part[from..]);
                    count += 1;
                }
            }
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.len() - self.written;
            if count < left {
                self.written += count;
                return;
            }
            count -= left;
            self.written = 0;
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use tungstenite::protocol::frame::coding::Control;

    use super::*;

    #[test]
    fn many_frames_through_a_narrow_socket_arrive_whole_and_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let mut out = Outbound::default();
        let mut expected = Vec::new();
        for n in 0..500_usize {
            let body = Bytes::from(vec![u8::try_from(n % 251).unwrap(); (n * 37) % 5000]);
            let header = Header::text(body.len());
            expected.extend_from_slice(header.bytes());
            expected.extend_from_slice(&body);
            out.push(header, body);
        }
        assert_eq!(out.bytes(), expected.len());
        while out.write(ours.as_fd()) == Written::Blocked {
            std::thread::yield_now();
        }
        assert_eq!((out.bytes(), out.chunks.len()), (0, 0));
        drop(ours);
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn a_cut_leaves_the_frame_begun_and_nothing_else() {
        let mut out = Outbound::default();
        out.push(Header::text(3), Bytes::from_static(b"one"));
        out.push(Header::text(3), Bytes::from_static(b"two"));
        out.advance(4);
        out.cut();
        assert_eq!((out.bytes(), out.chunks.len()), (1, 1));
        out.advance(1);
        out.push(Header::text(3), Bytes::from_static(b"six"));
        out.cut();
        assert_eq!((out.bytes(), out.chunks.len()), (0, 0));
    }

    #[test]
    fn a_frame_costs_more_than_its_bytes() {
        let mut out = Outbound::default();
        for _ in 0..1000 {
            out.push(Header::control(Control::Pong, 0), Bytes::new());
        }
        assert_eq!(out.bytes(), 2000);
        let kept = out.chunks.len() * size_of::<Chunk>();
        assert!(out.cost() >= kept, "{} of {kept}", out.cost());
        assert_eq!(out.cost_behind(), 999 * (2 + CHUNK_COST));
        out.advance(1);
        assert_eq!(out.cost_behind(), 999 * (2 + CHUNK_COST));
    }

    #[test]
    fn only_a_pong_at_the_end_that_is_not_begun_is_dropped() {
        let pong = || (Header::control(Control::Pong, 1), Bytes::from_static(b"x"));
        let mut out = Outbound::default();
        out.drop_last_pong();
        out.push(pong().0, pong().1);
        out.push(Header::text(3), Bytes::from_static(b"one"));
        out.drop_last_pong();
        assert_eq!((out.bytes(), out.chunks.len()), (8, 2));
        out.push(pong().0, pong().1);
        out.drop_last_pong();
        assert_eq!((out.bytes(), out.chunks.len()), (8, 2));
        out.advance(9);
        out.push(pong().0, pong().1);
        out.advance(1);
        out.drop_last_pong();
        assert_eq!((out.bytes(), out.chunks.len()), (2, 1), "begun");
        out.push(Header::control(Control::Ping, 0), Bytes::new());
        out.drop_last_pong();
        assert_eq!(out.chunks.len(), 2, "a ping");
    }

    #[test]
    fn an_error_that_the_reader_may_not_see_has_its_name() {
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let mut out = Outbound::default();
        out.push(Header::default(), Bytes::from_static(b"x"));
        assert_eq!(out.write(udp.as_fd()), Written::Failed(Errno::DESTADDRREQ));
    }

    #[test]
    fn a_vanished_peer_is_broken() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut out = Outbound::default();
        out.push(Header::default(), Bytes::from_static(b"x"));
        assert_eq!(out.write(ours.as_fd()), Written::Broken);
    }
}
