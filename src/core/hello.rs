//! The two hellos: what they say, and the checks that need nothing but the message and the clock
//! (protocol.md §4 and §5, in the order of their tables; the rest is for the mesh's home shard).

use serde_json::value::RawValue;

use crate::effect::Close;
use crate::identity::{AttestationText, HelloText, ResumeKey, SessionHelloText, Signature, Unfit};
use crate::ids::PubKey;
use crate::limits::{ATTESTATION_LIFE, GROUPS_MAX, HELLO_SKEW, NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::proof::{Claimed, Proof};
use crate::rows::{Group, PeerRole};
use crate::time::{Millis, Wall};
use crate::wire::{FieldError, Fields};

/// A hello whose shape and timestamp hold. Whether its member exists, is not revoked and may enter
/// is for the mesh's home shard, and which of its signatures must still be checked.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Which of the two.
    pub role: PeerRole,
    /// The mesh it wants into.
    pub mesh_id: String,
    /// The (parent) member's key.
    pub member_key: PubKey,
    /// Whether the key was written in lower case; otherwise it names nobody (protocol.md §1).
    pub member_key_exact: bool,
    /// `parentMemberId`, if given and not empty.
    pub parent_member_id: Option<String>,
    /// The session key: proven by `session_hello`, merely claimed by `hello`.
    pub session_key: Option<PubKey>,
    /// The client's session id.
    pub session_id: String,
    /// The client's process id; 0 if not given.
    pub pid: i64,
    /// Working directory; empty if not given (protocol.md B13).
    pub cwd: String,
    /// The name to go by.
    pub display_name: Option<String>,
    /// For show.
    pub hostname: Option<String>,
    /// For show.
    pub peer_type: Option<String>,
    /// For show.
    pub channel: Option<String>,
    /// For show.
    pub model: Option<String>,
    /// How long it would stay present without a socket, in milliseconds (`leaseMs`), if it says.
    pub lease: Option<Millis>,
    /// None if absent.
    pub groups: Option<Vec<Group>>,
    /// The hello's own signature, which is accepted once.
    pub signature: Signature,
    /// Until when the parent attestation holds.
    pub attested_until: Option<Wall>,
    /// What it has yet to prove.
    pub(crate) proof: Proof,
    /// Why the resume token it brought did not serve.
    pub(crate) unfit: Option<Unfit>,
}

/// Why a hello was refused: what the client is told, and the label it is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Error code on the wire.
    pub code: &'static str,
    /// Error message on the wire.
    pub message: String,
    /// How the socket is closed.
    pub close: Close,
    /// Metric label (protocol.md §2.2).
    pub label: &'static str,
}

impl Refusal {
    /// A refusal whose close reason and label are its code.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            close: Close::policy(code),
            label: code,
        }
    }

    /// The signature of a hello does not hold.
    pub(crate) fn bad_signature(role: PeerRole) -> Self {
        match role {
            PeerRole::ControlPlane => Self::hello("bad_signature"),
            PeerRole::Session => Self::session("bad_signature", "session_bad_signature"),
        }
    }

    /// The member's signature that vouches for a session does not hold.
    pub(crate) fn bad_attestation() -> Self {
        Self::attestation("bad_signature", "attestation_bad_signature")
    }

    fn hello(code: &'static str) -> Self {
        Self::new(code, format!("hello rejected: {code}"))
    }

    fn session(code: &'static str, label: &'static str) -> Self {
        Self {
            label,
            ..Self::new(code, format!("session_hello rejected: {code}"))
        }
    }

    fn attestation(code: &'static str, label: &'static str) -> Self {
        Self {
            label,
            ..Self::new(code, format!("attestation rejected: {code}"))
        }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new("invalid_argument", error.to_string())
    }
}

impl Hello {
    /// Reads and checks a `hello`, but for its signature; perhaps a resume token made with `key`
    /// stands for that.
    ///
    /// # Errors
    /// The first row of protocol.md §4 (1, 3, 4, 5) that fails.
    pub fn member(
        fields: &Fields<'_>,
        now: Wall,
        key: Option<&ResumeKey>,
    ) -> Result<Self, Refusal> {
        let mut proof = Proof::default();
        let read = Self::read_member(fields, now, &mut proof);
        Self::proving(read, (PeerRole::ControlPlane, proof), fields, (now, key))
    }

    /// Reads and checks a `session_hello`, but for its signatures; perhaps a resume token made with
    /// `key` stands for those.
    ///
    /// # Errors
    /// The first row of protocol.md §5 (1, 2, 3, 5, 6) that fails.
    pub fn session(
        fields: &Fields<'_>,
        now: Wall,
        key: Option<&ResumeKey>,
    ) -> Result<Self, Refusal> {
        let mut proof = Proof::default();
        let read = Self::read_session(fields, now, &mut proof);
        Self::proving(read, (PeerRole::Session, proof), fields, (now, key))
    }

    /// A hello that is complete, with its proof; or why it is refused, for which the signatures
    /// that were read until then come first.
    fn proving(
        read: Result<Self, Refusal>,
        (role, proof): (PeerRole, Proof),
        fields: &Fields<'_>,
        (now, key): (Wall, Option<&ResumeKey>),
    ) -> Result<Self, Refusal> {
        // What is no text is none.
        let token = fields.lenient_str("resumeToken");
        let token = token.as_deref().filter(|token| !token.is_empty());
        match read {
            Ok(hello) => Ok(hello.resting_on(proof, token, key, now)),
            Err(refusal) => Err(proof.or_first(role, token.is_some(), refusal)),
        }
    }

    fn read_member(fields: &Fields<'_>, now: Wall, proof: &mut Proof) -> Result<Self, Refusal> {
        let session_key = claimed_session_key(fields)?;
        let timestamp = fresh(fields, now).ok_or_else(|| Refusal::hello("timestamp_skew"))?;
        let pubkey = fields.lenient_str("pubkey").unwrap_or_default();
        let (Some(member_key), Some(signature)) = (
            PubKey::parse_any_case(&pubkey),
            signature(fields.lenient_str("signature").as_deref()),
        ) else {
            return Err(Refusal::hello("malformed"));
        };
        let mesh_id = fields.str("meshId", NAME_BYTES_MAX)?;
        let text = HelloText {
            mesh_id: &mesh_id,
            member_id: &fields.str("memberId", NAME_BYTES_MAX)?,
            pubkey: &pubkey,
            timestamp,
        };
        proof.own = Some(Claimed {
            key: member_key,
            text: text.text(),
            signature,
        });
        Ok(Self {
            role: PeerRole::ControlPlane,
            member_key_exact: PubKey::parse(&pubkey).is_some(),
            session_key,
            attested_until: None,
            parent_member_id: None,
            ..common(fields, mesh_id.into_owned(), member_key, signature)?
        })
    }

    fn read_session(fields: &Fields<'_>, now: Wall, proof: &mut Proof) -> Result<Self, Refusal> {
        let Some(session_key) = fields.pubkey("sessionPubkey") else {
            return Err(bad_session_pubkey());
        };
        let Some(member_key) = fields.pubkey("parentMemberPubkey") else {
            return Err(Refusal::new(
                "bad_parent_pubkey",
                "parentMemberPubkey must be 64 lowercase hex chars",
            ));
        };
        let attested_until = attestation(fields, (&session_key, &member_key), now, proof)?;
        let timestamp = fresh(fields, now)
            .ok_or_else(|| Refusal::session("timestamp_skew", "session_timestamp_skew"))?;
        let signature = signature(fields.lenient_str("signature").as_deref())
            .ok_or_else(|| Refusal::session("malformed", "session_malformed"))?;
        let mesh_id = fields.str("meshId", NAME_BYTES_MAX)?;
        let text = SessionHelloText {
            mesh_id: &mesh_id,
            parent_pubkey: &member_key.to_string(),
            session_pubkey: &session_key.to_string(),
            timestamp,
        };
        proof.own = Some(Claimed {
            key: session_key,
            text: text.text(),
            signature,
        });
        let parent_member_id = fields.opt_str("parentMemberId", NAME_BYTES_MAX)?;
        Ok(Self {
            role: PeerRole::Session,
            member_key_exact: true,
            session_key: Some(session_key),
            attested_until: Some(attested_until),
            parent_member_id: parent_member_id
                .filter(|id| !id.is_empty())
                .map(std::borrow::Cow::into_owned),
            ..common(fields, mesh_id.into_owned(), member_key, signature)?
        })
    }
}

/// What both hellos say of their client; the caller fills in the rest.
fn common(
    fields: &Fields<'_>,
    mesh_id: String,
    member_key: PubKey,
    signature: Signature,
) -> Result<Hello, FieldError> {
    let text = |field, max| {
        Ok(fields
            .opt_str(field, max)?
            .map(std::borrow::Cow::into_owned))
    };
    let groups: Option<Vec<Group>> =
        fields.json("groups", "a list of {name, role?} with string values")?;
    if let Some(groups) = &groups {
        check_groups(groups)?;
    }
    Ok(Hello {
        role: PeerRole::ControlPlane,
        mesh_id,
        member_key,
        member_key_exact: false,
        parent_member_id: None,
        session_key: None,
        session_id: fields.str("sessionId", NAME_BYTES_MAX)?.into_owned(),
        pid: fields.json("pid", "an integer")?.unwrap_or(0),
        cwd: text("cwd", TEXT_BYTES_MAX)?.unwrap_or_default(),
        display_name: text("displayName", NAME_BYTES_MAX)?.filter(|name| !name.is_empty()),
        hostname: text("hostname", NAME_BYTES_MAX)?,
        peer_type: text("peerType", NAME_BYTES_MAX)?,
        channel: text("channel", NAME_BYTES_MAX)?,
        model: text("model", NAME_BYTES_MAX)?,
        lease: lease(fields)?,
        groups,
        signature,
        attested_until: None,
        proof: Proof::default(),
        unfit: None,
    })
}

/// `leaseMs`: any number; what is out of bounds is clamped, not refused.
fn lease(fields: &Fields<'_>) -> Result<Option<Millis>, FieldError> {
    let wanted = fields.opt_number("leaseMs")?;
    // 2^52 ms is 142 000 years: beyond it only the clamp counts.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2^52"
    )]
    Ok(wanted.map(|ms| Millis(ms.clamp(0.0, 4_503_599_627_370_496.0) as u64)))
}

/// Checks number and length of groups a client names.
pub(crate) fn check_groups(groups: &[Group]) -> Result<(), FieldError> {
    if groups.len() > GROUPS_MAX {
        return Err(FieldError::new(
            "groups",
            format!("at most {GROUPS_MAX} groups"),
        ));
    }
    let long = |text: &str| text.len() > NAME_BYTES_MAX;
    if groups
        .iter()
        .any(|g| long(&g.name) || g.role.as_deref().is_some_and(long))
    {
        return Err(FieldError::new(
            "groups",
            format!("names of at most {NAME_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn bad_session_pubkey() -> Refusal {
    Refusal::new(
        "bad_session_pubkey",
        "sessionPubkey must be 64 lowercase hex chars",
    )
}

/// `hello`'s optional key: absent, null and empty mean none (protocol.md §4).
fn claimed_session_key(fields: &Fields<'_>) -> Result<Option<PubKey>, Refusal> {
    if !fields.has("sessionPubkey") || fields.lenient_str("sessionPubkey").as_deref() == Some("") {
        return Ok(None);
    }
    fields
        .pubkey("sessionPubkey")
        .map(Some)
        .ok_or_else(bad_session_pubkey)
}

fn signature(text: Option<&str>) -> Option<Signature> {
    Signature::parse(text?)
}

/// The `timestamp`, if it is a whole number of milliseconds within the skew.
fn fresh(fields: &Fields<'_>, now: Wall) -> Option<Wall> {
    let timestamp = whole_millis(fields.opt_number("timestamp").ok().flatten()?)?;
    let skew = i64::try_from(HELLO_SKEW.0).unwrap_or(i64::MAX);
    (now.0.abs_diff(timestamp.0) <= skew.unsigned_abs()).then_some(timestamp)
}

fn whole_millis(number: f64) -> Option<Wall> {
    // Whole milliseconds up to 2^53, as JavaScript writes a Date.
    if number.fract() != 0.0 || number.abs() > 9_007_199_254_740_992.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53")]
    Some(Wall(number as i64))
}

/// Checks the parent attestation (protocol.md §5, checks 3 and 5) but for its signature; returns
/// when it runs out.
fn attestation(
    fields: &Fields<'_>,
    (session_key, member_key): (&PubKey, &PubKey),
    now: Wall,
    proof: &mut Proof,
) -> Result<Wall, Refusal> {
    let raw: Option<&RawValue> = fields.json("parentAttestation", "an object").ok().flatten();
    let attestation = raw
        .and_then(|raw| Fields::parse(raw.get()).ok())
        .filter(|attestation| {
            attestation.pubkey("sessionPubkey").as_ref() == Some(session_key)
                && attestation.pubkey("parentMemberPubkey").as_ref() == Some(member_key)
        });
    let Some(attestation) = attestation else {
        return Err(Refusal::new(
            "attestation_mismatch",
            "parentAttestation does not bind the claimed session+parent pubkeys",
        ));
    };
    let malformed = || Refusal::attestation("malformed", "attestation_malformed");
    let expires_at = attestation
        .opt_number("expiresAt")
        .ok()
        .flatten()
        .ok_or_else(malformed)?;
    let expires_at = whole_millis(expires_at).ok_or_else(malformed)?;
    if expires_at <= now {
        return Err(Refusal::attestation("expired", "attestation_expired"));
    }
    if expires_at > now.after(ATTESTATION_LIFE) {
        return Err(Refusal::attestation(
            "ttl_too_long",
            "attestation_ttl_too_long",
        ));
    }
    let signature =
        signature(attestation.lenient_str("signature").as_deref()).ok_or_else(malformed)?;
    let text = AttestationText {
        parent_pubkey: &member_key.to_string(),
        session_pubkey: &session_key.to_string(),
        expires_at,
    };
    proof.attestation = Some(Claimed {
        key: *member_key,
        text: text.text(),
        signature,
    });
    Ok(expires_at)
}
