//! What a session tells its user.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::core::rows::Group;
use crate::core::time::Millis;

/// Something the user should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A hello was accepted: the session is present.
    Welcome(Welcome),
    /// A message from another peer; each is told once.
    Message(Message),
    /// A push came again that was told before; a message is confirmed again. For those who count.
    Repeated {
        /// The broker's id of it.
        message_id: String,
        /// What it was.
        push: Push,
    },
    /// Another peer came, went, or changed its visibility; each is told once.
    Peer(PeerEvent),
    /// A message of ours is safe with the broker.
    Acknowledged {
        /// As given with it.
        client_message_id: String,
        /// The broker's id of it.
        message_id: String,
        /// Its recipient is absent and gets it on its return.
        deferred: bool,
    },
    /// A message of ours will not be delivered, or not for certain: see `error`. Said by the
    /// broker, by a full queue here, or by the end of the session.
    Refused {
        /// As given with it.
        client_message_id: String,
        /// Why.
        error: String,
    },
    /// The broker did not do what was asked.
    Error {
        /// From the protocol's closed set.
        code: String,
        /// For people.
        message: String,
        /// Of the request, if it had one.
        req_id: Option<String>,
    },
    /// Any other frame: replies to requests, state changes, stream data and so on.
    Frame(Value),
    /// A frame that is no JSON object with a type, or not shaped as its type wants.
    Unreadable {
        /// The frame.
        text: String,
    },
    /// A request or a group change that was not sent, and will not be.
    Unsent {
        /// Of the request, if it had one.
        req_id: Option<String>,
        /// Why.
        why: &'static str,
    },
    /// The connection was lost or could not be made.
    Lost {
        /// How.
        why: Loss,
        /// When it is tried again; `None` if only [`Command::Connect`](super::Command::Connect)
        /// does that.
        retry_in: Option<Millis>,
    },
    /// The session is over; nothing comes after this.
    Gone(End),
}

/// Which kind of push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// [`Event::Message`].
    Message,
    /// [`Event::Peer`].
    Peer,
}

/// What the broker says at the door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Welcome {
    /// The public name of the lease; the same across reattaches.
    pub presence_id: String,
    /// The name the session goes by.
    pub member_display_name: String,
    /// Whether an existing lease was found: nobody noticed that the session was away.
    pub reattached: bool,
    /// `truncated` if something said to many meanwhile is no longer kept.
    pub missed: Option<String>,
    /// How long the session stays present without a socket.
    pub lease_ttl_ms: Option<u64>,
    /// For the next hello; never shown.
    #[serde(rename = "resumeToken")]
    pub(super) resume_token: Option<Box<str>>,
}

/// A message from another peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Message {
    /// The broker's id; the same when it comes again.
    pub message_id: String,
    /// The key it is encrypted with.
    pub sender_pubkey: String,
    /// The sender's member key, unless it is a sibling.
    pub sender_member_pubkey: Option<String>,
    /// The sender's name.
    pub sender_name: Option<String>,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// When the broker accepted it.
    pub created_at: String,
    /// `reminder` or `webhook`, else nothing.
    pub subtype: Option<String>,
    /// As sent; of direct messages only.
    #[serde(rename = "client_message_id")]
    pub client_message_id: Option<String>,
    /// The message it answers.
    pub reply_to_id: Option<String>,
}

/// What happened to another peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEvent {
    /// What.
    pub change: PeerChange,
    /// The name it goes by.
    pub name: String,
    /// The key to send to.
    pub pubkey: String,
    /// Of those who come.
    pub groups: Vec<Group>,
}

/// A change of presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// It is new.
    Joined,
    /// It was here before, and left.
    Returned,
    /// Its lease is over.
    Left,
    /// It lets itself be seen again.
    Visible,
    /// It hides.
    Hidden,
}

impl PeerChange {
    /// The name used on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "peer_joined",
            Self::Returned => "peer_returned",
            Self::Left => "peer_left",
            Self::Visible => "peer_visible",
            Self::Hidden => "peer_hidden",
        }
    }

    /// The change of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Joined,
            Self::Returned,
            Self::Left,
            Self::Visible,
            Self::Hidden,
        ]
        .into_iter()
        .find(|change| change.name() == name)
    }
}

/// How a connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The broker closed it.
    Closed {
        /// RFC 6455 §7.4.
        code: u16,
        /// As given.
        reason: String,
    },
    /// The socket failed, or could not be opened.
    Broken(String),
    /// It did not open in time.
    ConnectTimeout,
    /// The hello was not answered in time.
    HelloTimeout,
    /// The hello was refused, for a reason that may pass.
    Rejected {
        /// From the protocol's closed set.
        code: String,
        /// For people.
        message: String,
    },
    /// The broker was silent for too long.
    Silent,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason } => write!(f, "closed by the broker: {code} {reason}"),
            Self::Broken(why) => f.write_str(why),
            Self::ConnectTimeout => f.write_str("the connection did not open in time"),
            Self::HelloTimeout => f.write_str("no answer to the hello"),
            Self::Rejected { code, message } => write!(f, "refused: {code}: {message}"),
            Self::Silent => f.write_str("the broker went silent"),
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It said goodbye, and the broker confirmed it.
    Left,
    /// It ended, but the broker did not confirm a goodbye: its lease may run out by itself.
    Unsaid,
    /// It was kicked.
    Kicked {
        /// As given.
        reason: String,
    },
    /// Its member was banned or removed.
    Banned {
        /// For people.
        message: String,
    },
    /// Its hello was refused, and would be again.
    Rejected {
        /// From the protocol's closed set.
        code: String,
        /// For people.
        message: String,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::Unsaid => f.write_str("ended without a confirmed goodbye"),
            Self::Kicked { reason } => write!(f, "kicked: {reason}"),
            Self::Banned { message } => write!(f, "banned: {message}"),
            Self::Rejected { code, message } => write!(f, "refused: {code}: {message}"),
        }
    }
}
