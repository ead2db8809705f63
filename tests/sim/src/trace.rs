//! What happened, as one hash, and as lines if somebody wants to read them.

use std::hash::{BuildHasher, Hasher};

use holdfast_core::effect::Effect;
use holdfast_core::ids::ConnId;

/// See the module.
pub(crate) struct Trace {
    hasher: foldhash::fast::FoldHasher<'static>,
    /// Kept only if asked for.
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(1).build_hasher();
        Self {
            hasher,
            lines: keep.then(Vec::new),
        }
    }

    /// Adds bytes to the hash.
    pub(crate) fn fold(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.hasher.write(bytes);
    }

    /// Adds a number to the hash.
    pub(crate) fn number(&mut self, number: u64) {
        self.hasher.write_u64(number);
    }

    /// Adds a line, if lines are kept.
    pub(crate) fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.clone().finish()
    }

    fn conn(&mut self, kind: u64, conn: ConnId) {
        self.number(kind << 56 | u64::from(conn.slot) << 28 ^ u64::from(conn.generation));
    }

    /// Adds an effect.
    pub(crate) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Send { conn, frame } => {
                self.conn(1, *conn);
                self.fold(frame);
                let text = || String::from_utf8_lossy(&frame[..frame.len().min(700)]).into_owned();
                self.line(|| format!("        -> {} {}", name(*conn), text()));
            }
            Effect::Ping { conn, watermark } => {
                self.conn(2, *conn);
                self.number(*watermark);
                self.line(|| format!("        -> {} ping {watermark}", name(*conn)));
            }
            Effect::Close { conn, close } => {
                self.conn(3, *conn);
                self.number(u64::from(close.code));
                self.line(|| {
                    format!(
                        "        -> {} close {} {}",
                        name(*conn),
                        close.code,
                        close.reason
                    )
                });
            }
            Effect::Abort { conn } => {
                self.conn(4, *conn);
                self.line(|| format!("        -> {} abort", name(*conn)));
            }
            Effect::Handoff { conn, shard, .. } => {
                self.conn(5, *conn);
                self.line(|| format!("        -> {} to shard {shard}", name(*conn)));
            }
            Effect::Persist { op, token } => {
                self.number(6 << 56 | token.map_or(0, |token| token.0));
                self.number(op_number(op));
                let text = || format!("{op:?}").chars().take(300).collect::<String>();
                self.line(|| format!("        => {:?} {}", token.map(|token| token.0), text()));
            }
            Effect::Query { query, token } => {
                self.number(7 << 56 | token.0);
                self.line(|| format!("        ?? {} {query:?}", token.0));
            }
            Effect::Fetch { request, token } => {
                self.number(10 << 56 | token.0);
                self.line(|| format!("        ?? {} {request:?}", token.0));
            }
            Effect::Answer { ticket, .. } => self.number(8 << 56 | ticket.0),
            Effect::Observe(event) => {
                self.number(9 << 56);
                self.line(|| format!("        .. {event:?}"));
            }
        }
    }
}

fn op_number(op: &holdfast_core::rows::StoreOp) -> u64 {
    use holdfast_core::rows::{StoreOp, Told};
    match op {
        StoreOp::PresencePut(row) => 100 + u64::from(row.generation) * 16 + row.groups.len() as u64,
        StoreOp::PresenceGrace { until, .. } => 200_u64.wrapping_add_signed(until.0),
        StoreOp::PresenceEnd { at, .. } => 300_u64.wrapping_add_signed(at.0),
        StoreOp::PresenceTold { told, .. } => match told {
            Told::Join(at) => 350_u64.wrapping_add(at.0.wrapping_mul(2)),
            Told::Leave(at) => 351_u64.wrapping_add(at.0.wrapping_mul(2)),
        },
        StoreOp::PresenceCursor { cursor, .. } => 360_u64.wrapping_add(cursor.0),
        StoreOp::Restarted(start) => 380_u64.wrapping_add_signed(start.at.0),
        StoreOp::PeerStatePut(row) => 400_u64.wrapping_add_signed(row.last_seen_at.0),
        StoreOp::StateSet { row, .. } => 420_u64.wrapping_add(row.position.0),
        StoreOp::StreamCreate(row) => 440 + row.name.len() as u64,
        StoreOp::Subscribed { subscribed, .. } => 460 + u64::from(*subscribed),
        StoreOp::MessageInsert(row) => 500 + row.seq.0,
        StoreOp::MessageDelivered { seq, .. } => 600 + seq.0,
        StoreOp::MessageAcked { seq, .. } => 700 + seq.map_or(0, |seq| seq.0),
        StoreOp::Fence => 90,
        StoreOp::Audit(row) => 800 + row.event_type.len() as u64,
        StoreOp::MemberRevoked { at, .. } => 900 + u64::from(at.is_some()),
        StoreOp::SchedulePut(row) => 1000_u64.wrapping_add_signed(row.deliver_at.0),
        StoreOp::ScheduleCancelled { id } => 1100 + id.len() as u64,
        StoreOp::ScheduleFired { sent, next, .. } => {
            let seq = sent.as_ref().map_or(0, |sent| sent.seq.0);
            1200 + seq * 2 + u64::from(next.is_some())
        }
        StoreOp::ServerPut(row) => 1300_u64.wrapping_add(row.told.0.0),
        StoreOp::ServerRemoved { name, .. } => 1400 + name.len() as u64,
        StoreOp::Topic(_) => 1500,
        StoreOp::WatchPut(row) => 1000 + u64::from(row.id.0),
        StoreOp::WatchRemoved { id, .. } => 1001_u64.wrapping_add(u64::from(id.0)),
    }
}

/// A socket's name in lines.
pub(crate) fn name(conn: ConnId) -> String {
    format!("{}.{}", conn.slot, conn.generation)
}
