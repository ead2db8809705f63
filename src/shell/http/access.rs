//! Who may read or change members over HTTP: a member by its signature, an administrator's program
//! by its token, or whoever is believed because the operator says so.
//!
//! A signature is for one request (method, path, body) at one time, and is accepted once. Which
//! have been accepted is not known to the next process: it accepts none that is older than itself.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::head::Request;
use super::reply::Reply;
use crate::config::ServeConfig;
use crate::core::identity::{RequestText, Signature, digest, verify};
use crate::core::limits::HELLO_SKEW;
use crate::core::time::Wall;
use crate::shell::control::Control;
use crate::shell::limits::SIGNATURES_MAX;
use crate::store::EditError;

/// What a request says of who makes it, and what a signature of it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    method: String,
    target: String,
    member_id: Option<String>,
    signature: Option<String>,
    authorization: Option<String>,
}

impl Credentials {
    pub(super) fn of(request: &Request) -> Self {
        let header = |name| request.header(name).map(str::to_owned);
        Self {
            method: request.method.as_str().to_owned(),
            target: request.target.clone(),
            member_id: header("x-member-id"),
            signature: header("x-member-signature"),
            authorization: header("authorization"),
        }
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// An administrator of the broker.
    Operator,
    /// The active member of that id.
    Member(String),
}

impl Caller {
    /// The member id, if it is a member.
    pub(super) fn member_id(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::Member(id) => Some(id),
        }
    }
}

/// Why a request is refused before it is looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("unauthorized")]
    Token,
    #[error("X-Member-Id header required")]
    Nobody,
    #[error("signature required: X-Member-Signature")]
    Unsigned,
    #[error("X-Member-Signature must be <timestamp in ms>:<128 hex digits>")]
    Malformed,
    #[error("timestamp_skew")]
    Skew,
    #[error("bad_signature")]
    Signature,
    #[error("replayed")]
    Replayed,
    #[error("rate limited")]
    Limited,
    #[error("too many signed requests lately, try again in a minute")]
    Busy,
    #[error(transparent)]
    Member(#[from] EditError),
}

impl Denied {
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Member(error) => super::members::refused(error),
            Self::Limited => Reply::failure(429, &self.to_string()),
            Self::Busy => Reply::failure(503, &self.to_string()),
            Self::Token
            | Self::Nobody
            | Self::Unsigned
            | Self::Malformed
            | Self::Skew
            | Self::Signature
            | Self::Replayed => Reply::failure(401, &self.to_string()),
        }
    }
}

/// What the operator allows, and which signatures have been used.
pub(in crate::shell) struct Access {
    token: Option<[u8; 32]>,
    trust_member_header: bool,
    public_members: bool,
    started: Wall,
    seen: Mutex<Seen>,
}

/// Signatures that have been accepted, the earliest first; none is asked for again when it is too
/// old to be accepted anyway.
#[derive(Default)]
struct Seen {
    order: VecDeque<(Wall, Signature)>,
    known: HashSet<Signature>,
}

impl Seen {
    /// Notes a signature, if it has not been yet, may be by who asks, and could be known again.
    fn note(
        &mut self,
        now: Wall,
        signature: Signature,
        may: impl FnOnce() -> bool,
    ) -> Result<(), Denied> {
        // One that is ahead of our clock by as much as it may be lasts twice as long.
        while let Some((_, old)) = self
            .order
            .pop_front_if(|(at, _)| now.since(*at).0 > 2 * HELLO_SKEW.0)
        {
            self.known.remove(&old);
        }
        if self.known.contains(&signature) {
            return Err(Denied::Replayed);
        }
        // What is refused is not noted, or one member's signatures would leave no room for others'.
        if !may() {
            return Err(Denied::Limited);
        }
        if self.order.len() >= SIGNATURES_MAX {
            return Err(Denied::Busy);
        }
        self.known.insert(signature);
        self.order.push_back((now, signature));
        Ok(())
    }
}

impl Access {
    /// As configured; `started` is when the process began.
    pub(in crate::shell) fn new(config: &ServeConfig, started: Wall) -> Self {
        let token = config.admin_token.as_ref();
        Self {
            token: token.map(|token| digest(token.expose().as_bytes())),
            trust_member_header: config.trust_member_header,
            public_members: config.public_members,
            started,
            seen: Mutex::default(),
        }
    }

    /// Whether anybody may read who the members of a mesh are.
    pub(super) fn public_members(&self) -> bool {
        self.public_members
    }

    fn check_token(&self, authorization: &str) -> Result<Caller, Denied> {
        let given = authorization.strip_prefix("Bearer ");
        let given = given.map(|token| digest(token.trim().as_bytes()));
        if given.is_some() && given == self.token {
            Ok(Caller::Operator)
        } else {
            Err(Denied::Token)
        }
    }

    /// Reads a signature, which is of about now.
    fn read_signature(&self, now: Wall, header: &str) -> Result<(Wall, Signature), Denied> {
        let (timestamp, signature) = header.split_once(':').ok_or(Denied::Malformed)?;
        let timestamp = timestamp.parse().map(Wall).map_err(|_| Denied::Malformed)?;
        let signature = Signature::parse(signature).ok_or(Denied::Malformed)?;
        let off = now.since(timestamp).max(timestamp.since(now));
        if off > HELLO_SKEW || timestamp < self.started {
            return Err(Denied::Skew);
        }
        Ok((timestamp, signature))
    }

    fn note(
        &self,
        now: Wall,
        signature: Signature,
        may: impl FnOnce() -> bool,
    ) -> Result<(), Denied> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(now, signature, may)
    }
}

/// Who makes a request that concerns that mesh. Whether it may do what it asks for is another
/// question. An unsigned header is believed only for changes, and where the operator says so.
pub(super) fn authorize(
    control: &Control,
    credentials: &Credentials,
    (mesh_id, body): (&str, &[u8]),
) -> Result<Caller, Denied> {
    let access = control.access();
    if let Some(authorization) = &credentials.authorization {
        return access.check_token(authorization);
    }
    let id = credentials.member_id.as_deref().ok_or(Denied::Nobody)?;
    let Some(header) = &credentials.signature else {
        if !access.trust_member_header || credentials.method == "GET" {
            return Err(Denied::Unsigned);
        }
        control.store_admin().caller(mesh_id, id)?;
        return Ok(Caller::Member(id.to_owned()));
    };
    let now = control.wall();
    let (timestamp, signature) = access.read_signature(now, header)?;
    let member = control.store_admin().caller(mesh_id, id)?;
    let text = RequestText {
        method: &credentials.method,
        target: &credentials.target,
        body,
        timestamp,
    };
    if !verify(&member.pubkey, text.text().as_bytes(), &signature) {
        return Err(Denied::Signature);
    }
    access.note(now, signature, || control.may_ask(&format!("member:{id}")))?;
    Ok(Caller::Member(member.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(started: i64) -> Access {
        let token = "a secret of some length".parse();
        let config = ServeConfig {
            admin_token: token.ok(),
            ..ServeConfig::default()
        };
        Access::new(&config, Wall(started))
    }

    fn signature(byte: u8) -> Signature {
        Signature([byte; 64])
    }

    #[test]
    fn a_token_must_be_the_one() {
        let access = access(0);
        let check = |text| access.check_token(text).ok();
        assert_eq!(
            check("Bearer a secret of some length"),
            Some(Caller::Operator)
        );
        for wrong in [
            "a secret of some length",
            "Bearer ",
            "Bearer a secret",
            "Basic x",
        ] {
            assert_eq!(check(wrong), None, "{wrong}");
        }
        let none = Access::new(&ServeConfig::default(), Wall(0));
        assert!(
            none.check_token("Bearer ").is_err(),
            "no token, no operator"
        );
    }

    #[test]
    fn a_signature_is_of_about_now_and_not_older_than_the_process() {
        let access = access(50_000);
        let hex = signature(7).to_string();
        let read = |now, text: &str| {
            access
                .read_signature(Wall(now), text)
                .map_err(|e| e.to_string())
        };
        let at = |timestamp: i64| format!("{timestamp}:{hex}");
        assert!(read(100_000, &at(160_000)).is_ok());
        assert!(read(110_000, &at(50_000)).is_ok());
        for (now, timestamp) in [(100_000, 160_001), (120_000, 59_999), (60_000, 49_999)] {
            assert_eq!(read(now, &at(timestamp)), Err("timestamp_skew".to_owned()));
        }
        for wrong in [
            hex.clone(),
            format!("x:{hex}"),
            "60000:ab".to_owned(),
            String::new(),
        ] {
            assert!(read(60_000, &wrong).unwrap_err().contains("128 hex"));
        }
    }

    #[test]
    fn a_signature_is_accepted_once() {
        let mut seen = Seen::default();
        let mut note = |at, byte| seen.note(Wall(at), signature(byte), || true).is_ok();
        assert!(note(0, 1));
        assert!(!note(120_000, 1));
        assert!(note(120_000, 2));
        // Too old to be accepted by then.
        assert!(note(120_001, 3));
        assert_eq!(seen.known.len(), 2);
    }

    #[test]
    fn what_is_refused_for_its_rate_takes_no_room_from_others() {
        let mut seen = Seen::default();
        let limited = seen.note(Wall(0), signature(1), || false);
        assert!(matches!(limited, Err(Denied::Limited)));
        assert!(seen.note(Wall(0), signature(1), || true).is_ok());
        let again = seen.note(Wall(0), signature(1), || false);
        assert!(matches!(again, Err(Denied::Replayed)));
        let numbered = |number: usize| {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Signature(bytes)
        };
        let full = (0..=SIGNATURES_MAX).find_map(|number| {
            let noted = seen.note(Wall(0), numbered(number + 2), || true);
            noted.err()
        });
        assert!(matches!(full, Some(Denied::Busy)), "{full:?}");
        let known = seen.note(Wall(0), signature(1), || true);
        assert!(
            matches!(known, Err(Denied::Replayed)),
            "what is known stays so"
        );
    }
}
