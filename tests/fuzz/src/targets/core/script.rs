//! The text form of a story: what happens to a broker, one line each, so that a corpus can be read.
//!
//! ```text
//! 0 {"type":"list_peers"}   a message on socket 0, which is opened if it is not open
//! 0 !launch 1 7 sid ,"pid":3   a session_hello of member 1 with session key 7, signed, then more fields
//! 0 !hello 2 - sid          a hello of member 2; a number in place of `-` claims a session key
//! 0 ~ping  0 ~pong 5  0 ~bin  0 ~close  0 ~cut    other things a socket does
//! ~pass 5000   ~wall -7000   ~hold  ~release  ~fail  ~ok   ~hook {"cwd":"/w"}   ~shutdown   ~small
//! ```
//! Within messages `<m1>` is the key of member 1, `<s7>` session key 7, `<last>` the newest
//! message's id, and `<A*500>` stands for 500 times what is before the star. Lines that say nothing
//! are passed over.

use holdfast_core::identity::{AttestationText, HelloText, KeyPair, SessionHelloText};
use holdfast_core::time::{Millis, Wall};

/// Sockets a story may have at once.
pub(super) const SOCKETS: usize = 8;

/// Members there are: the first four in one mesh, the others in another.
pub(super) const MEMBERS: u8 = 6;

/// Longest message once its repeats are written out.
const MESSAGE_BYTES_MAX: usize = 300_000;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A socket sends a text message.
    Message(usize, &'a str),
    /// A socket sends a signed hello.
    Hello(usize, Spec<'a>),
    /// A socket sends what is no text.
    Binary(usize),
    /// A socket pings.
    Ping(usize),
    /// A socket pongs.
    Pong(usize, u64),
    /// A socket closes, cleanly or not.
    Close(usize, bool),
    /// Time goes by.
    Pass(u64),
    /// The wall clock is set.
    Wall(i64),
    /// The store stops or goes on answering.
    Hold(bool),
    /// The store refuses or takes what it is given.
    Fail(bool),
    /// The broker stops.
    Shutdown,
    /// A status hook posts this.
    Hook(&'a str),
    /// The limits are small; of use as a first line only.
    Small,
}

/// What a signed hello says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec<'a> {
    launched: bool,
    member: u8,
    session: Option<u8>,
    session_id: &'a str,
    /// Written before the last brace.
    more: &'a str,
}

/// Reads a line.
#[must_use]
pub(super) fn parse(line: &str) -> Option<Step<'_>> {
    if let Some(control) = line.strip_prefix('~') {
        return parse_control(control);
    }
    let (socket, rest) = line.split_once(' ')?;
    let socket = socket.parse::<usize>().ok().filter(|n| *n < SOCKETS)?;
    if let Some(hello) = rest.strip_prefix('!') {
        return Some(Step::Hello(socket, Spec::parse(hello)?));
    }
    let Some(event) = rest.strip_prefix('~') else {
        return Some(Step::Message(socket, rest));
    };
    match event.split_once(' ').unwrap_or((event, "")) {
        ("bin", _) => Some(Step::Binary(socket)),
        ("ping", _) => Some(Step::Ping(socket)),
        ("pong", mark) => Some(Step::Pong(socket, mark.parse().ok()?)),
        ("close", _) => Some(Step::Close(socket, true)),
        ("cut", _) => Some(Step::Close(socket, false)),
        _ => None,
    }
}

fn parse_control(control: &str) -> Option<Step<'_>> {
    match control.split_once(' ').unwrap_or((control, "")) {
        ("pass", span) => Some(Step::Pass(span.parse().ok()?)),
        ("wall", by) => Some(Step::Wall(by.parse().ok()?)),
        ("hold", _) => Some(Step::Hold(true)),
        ("release", _) => Some(Step::Hold(false)),
        ("fail", _) => Some(Step::Fail(true)),
        ("ok", _) => Some(Step::Fail(false)),
        ("shutdown", _) => Some(Step::Shutdown),
        ("hook", body) => Some(Step::Hook(body)),
        ("small", _) => Some(Step::Small),
        _ => None,
    }
}

impl<'a> Spec<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        let launched = match parts.next()? {
            "launch" => true,
            "hello" => false,
            _ => return None,
        };
        let member = parts.next()?.parse().ok()?;
        let session = match parts.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let session_id = parts.next()?;
        let more = parts.next().unwrap_or_default();
        ((1..=MEMBERS).contains(&member)).then_some(Self {
            launched,
            member,
            session,
            session_id,
            more,
        })
    }

    /// The message, signed at that moment.
    #[must_use]
    pub(super) fn text(&self, now: Wall) -> String {
        let mesh = mesh_of(self.member);
        let member = member_keys(self.member);
        let key = member.public().to_string();
        let session = self.session.unwrap_or_default();
        let id = serde_json::Value::from(self.session_id);
        let at = now.0;
        let signed = if self.launched {
            session_hello(mesh, &member, &session_keys(session), now)
        } else {
            let text = HelloText {
                mesh_id: mesh,
                member_id: "m",
                pubkey: &key,
                timestamp: now,
            };
            let signature = member.sign(text.text().as_bytes());
            let claimed = self.session.map_or_else(String::new, |number| {
                let key = session_keys(number).public();
                format!(r#""sessionPubkey":"{key}","#)
            });
            format!(
                r#"{{"type":"hello","meshId":"{mesh}","memberId":"m","pubkey":"{key}",{claimed}"signature":"{signature}""#
            )
        };
        format!(
            r#"{signed},"timestamp":{at},"sessionId":{id}{}}}"#,
            self.more
        )
    }
}

fn session_hello(mesh: &str, member: &KeyPair, session: &KeyPair, now: Wall) -> String {
    let (parent, own) = (member.public().to_string(), session.public().to_string());
    let expires_at = now.after(Millis::secs(3600));
    let attestation = AttestationText {
        parent_pubkey: &parent,
        session_pubkey: &own,
        expires_at,
    };
    let attested = member.sign(attestation.text().as_bytes());
    let text = SessionHelloText {
        mesh_id: mesh,
        parent_pubkey: &parent,
        session_pubkey: &own,
        timestamp: now,
    };
    let signature = session.sign(text.text().as_bytes());
    let until = expires_at.0;
    format!(
        r#"{{"type":"session_hello","meshId":"{mesh}","parentMemberPubkey":"{parent}","sessionPubkey":"{own}","signature":"{signature}","parentAttestation":{{"sessionPubkey":"{own}","parentMemberPubkey":"{parent}","expiresAt":{until},"signature":"{attested}"}}"#
    )
}

/// The mesh a member belongs to. With two shards each mesh lives on one of them.
#[must_use]
pub(super) fn mesh_of(member: u8) -> &'static str {
    if member <= 4 { "mesh-a" } else { "mesh-b" }
}

/// A member's keys.
#[must_use]
pub(super) fn member_keys(member: u8) -> KeyPair {
    KeyPair::from_seed([member; 32])
}

fn session_keys(session: u8) -> KeyPair {
    let mut seed = [session; 32];
    // So that no session key is a member's.
    seed[0] = 0xff;
    KeyPair::from_seed(seed)
}

/// Writes out what stands in angle brackets.
#[must_use]
pub(super) fn expand(text: &str, last: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        let meaning = after
            .split_once('>')
            .and_then(|(name, tail)| Some((meaning(name, last)?, tail)));
        if let Some((meaning, tail)) = meaning
            && out.len() + meaning.len() <= MESSAGE_BYTES_MAX
        {
            out.push_str(&meaning);
            rest = tail;
        } else {
            out.push('<');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn meaning(name: &str, last: &str) -> Option<String> {
    if let Some((what, count)) = name.rsplit_once('*') {
        let count = count.parse::<usize>().ok()?;
        return (what.len().checked_mul(count)? <= MESSAGE_BYTES_MAX).then(|| what.repeat(count));
    }
    match (name.get(..1)?, name.get(1..)?.parse::<u8>()) {
        ("m", Ok(number)) => Some(member_keys(number).public().to_string()),
        ("s", Ok(number)) => Some(session_keys(number).public().to_string()),
        _ => (name == "last").then(|| last.to_owned()),
    }
}
