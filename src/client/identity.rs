//! Who a session is, and the hello that says so.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::core::identity::{AttestationText, HelloText, KeyPair, SessionHelloText, Signature};
use crate::core::ids::PubKey;
use crate::core::rows::Group;
use crate::core::time::{Millis, Wall};

/// How long an attestation made here holds; half of what the broker allows, so that neither
/// clock has to be right.
const ATTESTATION_LIFE: Millis = Millis::secs(12 * 3600);

/// Who a session is: the lease a broker finds for it follows from this.
#[derive(Clone, Debug)]
pub struct Identity {
    mesh_id: Arc<str>,
    member_id: Arc<str>,
    who: Who,
    profile: Profile,
}

#[derive(Clone, Debug)]
enum Who {
    Member(Arc<KeyPair>),
    OneShot(Arc<KeyPair>, KeyPair),
    Launched(Voucher, KeyPair),
}

/// Where a launched session has its member's word from.
#[derive(Clone, Debug)]
pub enum Voucher {
    /// It holds the member's keys and vouches for itself, anew when half the time is over.
    Keys(Arc<KeyPair>),
    /// It was given an attestation. When that has expired, the session is refused for good.
    Given(Attestation),
}

/// A member's word that a session key is one of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The key vouched for.
    pub session_pubkey: PubKey,
    /// Who vouches.
    pub parent_member_pubkey: PubKey,
    /// Until when, in Unix milliseconds on the wire.
    #[serde(serialize_with = "millis")]
    pub expires_at: Wall,
    /// The member's signature.
    pub signature: Signature,
}

impl Attestation {
    /// Vouches for `session` until `expires_at`, at most 24 hours ahead.
    #[must_use]
    pub fn sign(member: &KeyPair, session: PubKey, expires_at: Wall) -> Self {
        let parent = member.public();
        let text = AttestationText {
            parent_pubkey: &parent.to_string(),
            session_pubkey: &session.to_string(),
            expires_at,
        };
        Self {
            session_pubkey: session,
            parent_member_pubkey: parent,
            expires_at,
            signature: member.sign(text.text().as_bytes()),
        }
    }

    /// Whether there is no need yet for a new one. One from a future that the clock has since
    /// been set back from may be too long for the broker.
    fn serves(&self, now: Wall) -> bool {
        let left = self.expires_at.since(now);
        left > Millis(ATTESTATION_LIFE.0 / 2) && left <= ATTESTATION_LIFE
    }
}

/// What a session tells of itself. Others see it in the list of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Stable over reconnects: of a member connection it is part of its identity.
    pub session_id: Arc<str>,
    /// The process, 0 if it is not to be told.
    pub pid: u32,
    /// Its working directory.
    pub cwd: Arc<str>,
    /// The name it goes by; the member's if none.
    pub display_name: Option<Arc<str>>,
    /// Where it runs.
    pub hostname: Option<Arc<str>>,
    /// `ai`, `human` or `connector`.
    pub peer_type: Option<Arc<str>>,
    /// Which software it is.
    pub channel: Option<Arc<str>>,
    /// Which model it runs.
    pub model: Option<Arc<str>>,
    /// Its groups; the member's default ones if none are given.
    pub groups: Option<Vec<Group>>,
    /// How long it would stay present without a socket; the broker may give it less.
    pub lease: Option<Millis>,
}

impl Identity {
    /// A member's own connection (`hello` without a session key), such as a daemon's.
    #[must_use]
    pub fn member(
        mesh_id: impl Into<Arc<str>>,
        member_id: impl Into<Arc<str>>,
        keys: Arc<KeyPair>,
    ) -> Self {
        Self::new(mesh_id.into(), member_id.into(), Who::Member(keys))
    }

    /// A member's connection for one purpose (`hello` with a session key made for it). Closing it
    /// cleanly ends its lease.
    #[must_use]
    pub fn one_shot(
        mesh_id: impl Into<Arc<str>>,
        member_id: impl Into<Arc<str>>,
        keys: Arc<KeyPair>,
        session: KeyPair,
    ) -> Self {
        Self::new(
            mesh_id.into(),
            member_id.into(),
            Who::OneShot(keys, session),
        )
    }

    /// A launched session (`session_hello`). `member_id` may be empty.
    #[must_use]
    pub fn launched(
        mesh_id: impl Into<Arc<str>>,
        member_id: impl Into<Arc<str>>,
        voucher: Voucher,
        session: KeyPair,
    ) -> Self {
        Self::new(
            mesh_id.into(),
            member_id.into(),
            Who::Launched(voucher, session),
        )
    }

    fn new(mesh_id: Arc<str>, member_id: Arc<str>, who: Who) -> Self {
        let mut identity = Self {
            mesh_id,
            member_id,
            who,
            profile: Profile::default(),
        };
        identity.profile.session_id = identity.key().to_string().into();
        identity
    }

    /// The same, with this to tell of itself. An empty session id stays the key's text.
    #[must_use]
    pub fn with(mut self, profile: Profile) -> Self {
        let keep = std::mem::replace(&mut self.profile, profile).session_id;
        if self.profile.session_id.is_empty() {
            self.profile.session_id = keep;
        }
        self
    }

    /// The key that others send to: the session's, else the member's.
    #[must_use]
    pub fn key(&self) -> PubKey {
        match &self.who {
            Who::Member(keys) => keys.public(),
            Who::OneShot(_, session) | Who::Launched(_, session) => session.public(),
        }
    }

    /// Whether a refusal for its attestation is for good.
    pub(super) fn cannot_vouch_anew(&self) -> bool {
        matches!(&self.who, Who::Launched(Voucher::Given(_), _))
    }

    /// An attestation for the next hello, if one is needed and there is none that serves.
    pub(super) fn renewal(&self, now: Wall, held: Option<&Attestation>) -> Option<Attestation> {
        let Who::Launched(Voucher::Keys(member), session) = &self.who else {
            return None;
        };
        if held.is_some_and(|held| held.serves(now)) {
            return None;
        }
        let until = now.after(ATTESTATION_LIFE);
        Some(Attestation::sign(member, session.public(), until))
    }

    /// The hello, signed. `held` is what [`Self::renewal`] made, now or earlier.
    pub(super) fn hello(
        &self,
        timestamp: Wall,
        held: Option<&Attestation>,
        resume_token: Option<&str>,
    ) -> String {
        let hello = match &self.who {
            Who::Member(keys) => self.member_hello(keys, None, timestamp),
            Who::OneShot(keys, session) => self.member_hello(keys, Some(session), timestamp),
            Who::Launched(Voucher::Given(given), session) => {
                self.session_hello(Some(given), session, timestamp)
            }
            Who::Launched(Voucher::Keys(_), session) => {
                self.session_hello(held, session, timestamp)
            }
        };
        let hello = Hello {
            resume_token,
            ..hello
        };
        // A struct of numbers and texts: there is nothing in it that JSON cannot say.
        serde_json::to_string(&hello).unwrap_or_default()
    }

    fn member_hello(
        &self,
        keys: &KeyPair,
        session: Option<&KeyPair>,
        timestamp: Wall,
    ) -> Hello<'_> {
        let pubkey = keys.public();
        let text = HelloText {
            mesh_id: &self.mesh_id,
            member_id: &self.member_id,
            pubkey: &pubkey.to_string(),
            timestamp,
        };
        Hello {
            kind: "hello",
            member_id: Some(&self.member_id),
            pubkey: Some(pubkey),
            session_pubkey: session.map(KeyPair::public),
            signature: Some(keys.sign(text.text().as_bytes())),
            ..self.common(timestamp)
        }
    }

    fn session_hello<'a>(
        &'a self,
        attestation: Option<&'a Attestation>,
        session: &KeyPair,
        timestamp: Wall,
    ) -> Hello<'a> {
        let parent = attestation.map(|held| held.parent_member_pubkey);
        let text = SessionHelloText {
            mesh_id: &self.mesh_id,
            parent_pubkey: &parent.map_or_else(String::new, |key| key.to_string()),
            session_pubkey: &session.public().to_string(),
            timestamp,
        };
        Hello {
            kind: "session_hello",
            parent_member_id: Some(&self.member_id),
            parent_member_pubkey: parent,
            session_pubkey: Some(session.public()),
            parent_attestation: attestation,
            signature: Some(session.sign(text.text().as_bytes())),
            ..self.common(timestamp)
        }
    }

    fn common(&self, timestamp: Wall) -> Hello<'_> {
        let profile = &self.profile;
        Hello {
            mesh_id: &self.mesh_id,
            timestamp: timestamp.0,
            session_id: &profile.session_id,
            pid: profile.pid,
            cwd: &profile.cwd,
            display_name: profile.display_name.as_deref(),
            hostname: profile.hostname.as_deref(),
            peer_type: profile.peer_type.as_deref(),
            channel: profile.channel.as_deref(),
            model: profile.model.as_deref(),
            groups: profile.groups.as_deref(),
            lease_ms: profile.lease.map(|lease| lease.0),
            ..Hello::default()
        }
    }
}

/// Both hellos (protocol: `hello`, `session_hello`); what is `None` is left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    mesh_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pubkey: Option<PubKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_member_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_member_pubkey: Option<PubKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_pubkey: Option<PubKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_attestation: Option<&'a Attestation>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
    session_id: &'a str,
    pid: u32,
    cwd: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<&'a [Group]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_token: Option<&'a str>,
}

fn millis<S: Serializer>(moment: &Wall, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(moment.0)
}
