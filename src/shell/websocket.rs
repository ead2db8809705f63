//! WebSocket frames, without I/O: from bytes read to messages, and the headers of what is written.
//!
//! Headers are tungstenite's; unmasking, fragmentation and the UTF-8 check are here, so that whole
//! frames are read in place in the loop's shared buffer and a connection between messages holds
//! nothing but an empty `Option`. In the middle of a message there is one box with what has come
//! so far. Every violation ends with the close code that RFC 6455 asks for.
//!
//! Must not: read or write sockets, or know what a message means.

use std::mem;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

mod frame;
#[cfg(test)]
mod tests;

pub(super) use frame::{Header, close_payload};
use frame::{parse, skip, unmasked};

/// Longest header of a frame from a client.
const HEADER_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: usize = 125;

/// Room made at once for a message whose header announces more; the rest grows as it arrives.
const TRUSTED_BYTES: usize = 4096;

/// One thing a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text, or binary that is valid UTF-8.
    Text(&'a str),
    /// Binary that is not.
    Undecodable,
    /// Wants the same payload back.
    Ping(&'a [u8]),
    /// Gives a payload back.
    Pong(&'a [u8]),
    /// The end, with its code.
    Close(Option<u16>),
}

/// How a client broke the protocol; nothing more of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What the close frame says.
    pub code: u16,
    /// Why, for the log and the close frame.
    pub reason: &'static str,
}

const fn protocol(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

const BAD_UTF8: Violation = Violation {
    code: 1007,
    reason: "invalid UTF-8",
};
const TOO_BIG: Violation = Violation {
    code: 1009,
    reason: "message too big",
};

/// One connection's place in its stream of frames.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// What is kept between reads, only while something is incomplete.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header.
    head: [u8; HEADER_MAX],
    head_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload so far of a control frame.
    control: Vec<u8>,
    /// Payload so far of the data message, unmasked.
    message: Vec<u8>,
    /// The data message's kind, from its first frame to its last.
    kind: Option<Kind>,
    /// How much of `message` is known to be UTF-8.
    checked: usize,
    /// What the last call gave out of this box, to be cleared now.
    given: Given,
}

#[derive(Clone, Copy, Debug, Default)]
enum Given {
    #[default]
    Nothing,
    Control,
    Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Begins a message (`Some`) or continues one.
    Data(Option<Kind>),
    Close,
    Ping,
    Pong,
}

impl Op {
    fn is_control(self) -> bool {
        match self {
            Self::Data(_) => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    op: Op,
    last: bool,
    mask: [u8; 4],
    /// Payload yet to come.
    left: usize,
}

/// Where a complete thing lies.
enum Step<'i> {
    Starved,
    /// In the input, whole.
    Control(Op, &'i [u8]),
    /// In the input, whole.
    Data(Kind, &'i [u8]),
    /// In the box.
    KeptControl(Op),
    /// In the box.
    KeptData(Kind),
}

impl Reader {
    /// The next message in `input`, which shrinks to what is not read yet; None when all of it is
    /// taken in. Messages of more than `max` bytes are refused, as soon as that is known.
    pub fn next<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        max: usize,
    ) -> Result<Option<Message<'m>>, Violation> {
        self.tidy();
        let step = self.step(input, max)?;
        let kept = self.partial.as_deref();
        Ok(Some(match step {
            Step::Starved => return Ok(None),
            Step::Control(op, payload) => control(op, payload)?,
            Step::Data(kind, payload) => data(kind, payload)?,
            Step::KeptControl(op) => control(op, kept.map_or(&[], |kept| &kept.control))?,
            Step::KeptData(kind) => data(kind, kept.map_or(&[], |kept| &kept.message))?,
        }))
    }

    /// Whether nothing is incomplete; then it holds no memory after the next call either.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Clears what was given out, and the box if nothing is left in it.
    fn tidy(&mut self) {
        let Some(partial) = &mut self.partial else {
            return;
        };
        match mem::take(&mut partial.given) {
            Given::Nothing => {}
            Given::Control => partial.control = Vec::new(),
            Given::Message => {
                partial.message = Vec::new();
                partial.kind = None;
                partial.checked = 0;
            }
        }
        if partial.kind.is_none() && partial.frame.is_none() && partial.head_len == 0 {
            self.partial = None;
        }
    }

    fn step<'i>(&mut self, input: &mut &'i mut [u8], max: usize) -> Result<Step<'i>, Violation> {
        loop {
            if self
                .partial
                .as_ref()
                .is_none_or(|partial| partial.frame.is_none())
            {
                let Some(frame) = self.header(input, max)? else {
                    return Ok(Step::Starved);
                };
                if let Some(step) = Self::whole(frame, input) {
                    return Ok(step);
                }
                self.begin(frame, max);
            }
            let Some(partial) = &mut self.partial else {
                return Ok(Step::Starved);
            };
            if let Some(step) = partial.take_in(input)? {
                return Ok(step);
            }
            if input.is_empty() {
                return Ok(Step::Starved);
            }
        }
    }

    /// Reads a header; None if `input` ends within it.
    fn header(&mut self, input: &mut &mut [u8], max: usize) -> Result<Option<Frame>, Violation> {
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head_len);
        let parsed = match &mut self.partial {
            Some(partial) if kept > 0 => {
                let more = input.len().min(HEADER_MAX - kept);
                partial.head[kept..kept + more].copy_from_slice(&input[..more]);
                parse(&partial.head[..kept + more])?
            }
            Some(_) | None => parse(input)?,
        };
        let Some((header, payload, len)) = parsed else {
            if !input.is_empty() {
                let partial = self.partial.get_or_insert_default();
                let more = input.len().min(HEADER_MAX - kept);
                partial.head[kept..kept + more].copy_from_slice(&input[..more]);
                partial.head_len = kept + more;
                skip(input, more);
            }
            return Ok(None);
        };
        skip(input, len - kept);
        if let Some(partial) = &mut self.partial {
            partial.head_len = 0;
        }
        self.check(&header, payload, max).map(Some)
    }

    /// Whether a frame with this header may come now.
    fn check(&self, header: &FrameHeader, payload: u64, max: usize) -> Result<Frame, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("reserved bit set"));
        }
        let Some(mask) = header.mask else {
            return Err(protocol("frame not masked"));
        };
        let partial = self.partial.as_deref();
        let assembling = partial.is_some_and(|partial| partial.kind.is_some());
        let op = match header.opcode {
            OpCode::Data(Data::Text) => Op::Data(Some(Kind::Text)),
            OpCode::Data(Data::Binary) => Op::Data(Some(Kind::Binary)),
            OpCode::Data(Data::Continue) => Op::Data(None),
            OpCode::Control(Control::Close) => Op::Close,
            OpCode::Control(Control::Ping) => Op::Ping,
            OpCode::Control(Control::Pong) => Op::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(protocol("reserved opcode"));
            }
        };
        if op.is_control() {
            if !header.is_final {
                return Err(protocol("fragmented control frame"));
            }
            if payload > CONTROL_MAX as u64 {
                return Err(protocol("oversized control frame"));
            }
        }
        match op {
            Op::Data(Some(_)) if assembling => return Err(protocol("continuation expected")),
            Op::Data(None) if !assembling => return Err(protocol("nothing to continue")),
            Op::Data(_) | Op::Close | Op::Ping | Op::Pong => {}
        }
        let left = usize::try_from(payload).map_err(|_| TOO_BIG)?;
        let before = partial.map_or(0, |partial| partial.message.len());
        if !op.is_control() && before.checked_add(left).is_none_or(|total| total > max) {
            return Err(TOO_BIG);
        }
        Ok(Frame {
            op,
            last: header.is_final,
            mask,
            left,
        })
    }

    /// The fast path: a frame that is a whole message and lies whole in `input`.
    fn whole<'i>(frame: Frame, input: &mut &'i mut [u8]) -> Option<Step<'i>> {
        if input.len() < frame.left {
            return None;
        }
        match frame.op {
            Op::Data(Some(kind)) if frame.last => {
                Some(Step::Data(kind, unmasked(input, frame.left, frame.mask)))
            }
            Op::Data(_) => None,
            Op::Close | Op::Ping | Op::Pong => Some(Step::Control(
                frame.op,
                unmasked(input, frame.left, frame.mask),
            )),
        }
    }

    /// Makes room for a frame that is not whole.
    fn begin(&mut self, frame: Frame, max: usize) {
        let partial = self.partial.get_or_insert_default();
        if let Op::Data(first) = frame.op {
            partial.kind = first.or(partial.kind);
            partial
                .message
                .reserve(frame.left.min(TRUSTED_BYTES).min(max));
        }
        partial.frame = Some(frame);
    }
}

impl Partial {
    /// Takes payload of the current frame; Some if that completes something.
    fn take_in<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Step<'i>>, Violation> {
        let Some(mut frame) = self.frame.take() else {
            return Ok(None);
        };
        let count = frame.left.min(input.len());
        let payload = unmasked(input, count, frame.mask);
        frame.left -= count;
        frame.mask.rotate_left(count % 4);
        let complete = frame.left == 0;
        if frame.op.is_control() {
            self.control.extend_from_slice(payload);
            if complete {
                self.given = Given::Control;
                return Ok(Some(Step::KeptControl(frame.op)));
            }
            self.frame = Some(frame);
            return Ok(None);
        }
        self.message.extend_from_slice(payload);
        let done = complete && frame.last;
        if self.kind == Some(Kind::Text) {
            self.check_utf8(done)?;
        }
        if !complete {
            self.frame = Some(frame);
        }
        if !done {
            return Ok(None);
        }
        self.given = Given::Message;
        Ok(self.kind.map(Step::KeptData))
    }

    /// Fails as soon as what has come cannot become UTF-8.
    fn check_utf8(&mut self, done: bool) -> Result<(), Violation> {
        let fresh = self.message.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(fresh) {
            Ok(_) => self.checked = self.message.len(),
            Err(e) if e.error_len().is_some() || done => return Err(BAD_UTF8),
            Err(e) => self.checked += e.valid_up_to(),
        }
        Ok(())
    }
}

fn data(kind: Kind, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match (std::str::from_utf8(payload), kind) {
        (Ok(text), _) => Ok(Message::Text(text)),
        (Err(_), Kind::Text) => Err(BAD_UTF8),
        (Err(_), Kind::Binary) => Ok(Message::Undecodable),
    }
}

fn control(op: Op, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match (op, payload) {
        (Op::Ping, _) => Ok(Message::Ping(payload)),
        (Op::Pong, _) => Ok(Message::Pong(payload)),
        (Op::Close | Op::Data(_), []) => Ok(Message::Close(None)),
        (Op::Close | Op::Data(_), [_]) => Err(protocol("close code cut off")),
        (Op::Close | Op::Data(_), [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(protocol("invalid close code"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(BAD_UTF8);
            }
            Ok(Message::Close(Some(code)))
        }
    }
}
