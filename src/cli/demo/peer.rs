//! One of the demo's peers: a session of the client library, with keys of its own.
//!
//! Knows the wire as any client does and nothing of the broker's inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::Value;

use crate::admin::protocol::NewMember;
use crate::client::{
    Client, Event, Identity, Outgoing, Over, Profile, Push, Settings, SpawnError, Voucher,
};
use crate::core::identity::KeyPair;

/// How long one look at a peer waits for something to have happened.
const GLANCE: Duration = Duration::from_millis(1);

/// What a peer cannot get over.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// It cannot start.
    #[error("{name}: {source}")]
    Start {
        /// Who.
        name: &'static str,
        /// Why.
        source: SpawnError,
    },
    /// It lost its connection, and nobody had cut it.
    #[error("{name}: {what}")]
    Lost {
        /// Who.
        name: &'static str,
        /// How.
        what: String,
    },
    /// The broker sent something that is no JSON object, or not shaped as its type wants.
    #[error("{name}: the broker sent {text:?}")]
    Garbage {
        /// To whom.
        name: &'static str,
        /// What.
        text: String,
    },
    /// It acts without being connected.
    #[error("{name} is not connected")]
    Away {
        /// Who.
        name: &'static str,
    },
}

/// A member with one session.
pub(super) struct Peer {
    pub(super) name: &'static str,
    key: String,
    url: String,
    identity: Identity,
    client: Option<Client>,
    /// Whether its connection was cut, so that the loss of it is no surprise.
    cut: bool,
}

impl Peer {
    /// A peer that has not connected yet. `seed` makes its session key.
    pub(super) fn new(
        name: &'static str,
        member: &NewMember,
        member_keys: KeyPair,
        seed: [u8; 32],
        broker: SocketAddr,
    ) -> Self {
        let profile = Profile {
            session_id: format!("demo-{name}").into(),
            display_name: Some(name.into()),
            pid: std::process::id(),
            cwd: format!("/demo/{name}").into(),
            channel: Some("holdfast-demo".into()),
            ..Profile::default()
        };
        let voucher = Voucher::Keys(Arc::new(member_keys));
        let (mesh, id) = (&*member.mesh_id, &*member.member_id);
        let identity =
            Identity::launched(mesh, id, voucher, KeyPair::from_seed(seed)).with(profile);
        Self {
            name,
            key: identity.key().to_string(),
            url: format!("ws://{broker}/ws"),
            identity,
            client: None,
            cut: false,
        }
    }

    /// The key others send to.
    pub(super) fn session_key(&self) -> &str {
        &self.key
    }

    /// Connects and says who it is, with the same session key every time.
    pub(super) fn connect(&mut self) -> Result<(), PeerError> {
        self.cut = false;
        if let Some(client) = &self.client {
            return client.connect().map_err(|Over| self.away());
        }
        // It returns when the story wants it to.
        let settings = Settings {
            reconnect: None,
            ..Settings::default()
        };
        let name = self.name;
        let client = Client::spawn(&self.url, self.identity.clone(), settings)
            .map_err(|source| PeerError::Start { name, source })?;
        self.client = Some(client);
        Ok(())
    }

    /// Breaks the connection as a dead network does: a reset, no close frame.
    pub(super) fn cut(&mut self) -> Result<(), PeerError> {
        self.cut = true;
        self.client()?.cut().map_err(|Over| self.away())
    }

    /// Sends a message to a key.
    pub(super) fn send(&self, target: &str, body: &str) -> Result<(), PeerError> {
        let sent = self.client()?.send(Outgoing::new(target, body));
        sent.map(drop).map_err(|Over| self.away())
    }

    /// Asks the broker something.
    pub(super) fn request(&self, request: Value) -> Result<(), PeerError> {
        let asked = self.client()?.request(request);
        asked.map_err(|Over| self.away())
    }

    /// What has happened to it: the next event, or None if nothing does within a glance.
    pub(super) fn glance(&self) -> Result<Option<Event>, PeerError> {
        let name = self.name;
        let Some(client) = &self.client else {
            return Ok(None);
        };
        match client.events().recv_timeout(GLANCE) {
            Ok(Event::Lost { .. }) if self.cut => Ok(None),
            // News that it had heard and not yet confirmed when it was cut.
            Ok(Event::Repeated {
                push: Push::Peer, ..
            }) => Ok(None),
            Ok(Event::Lost { why, .. }) => Err(PeerError::Lost {
                name,
                what: why.to_string(),
            }),
            Ok(Event::Gone(end)) => Err(PeerError::Lost {
                name,
                what: end.to_string(),
            }),
            Ok(Event::Unreadable { text }) => Err(PeerError::Garbage { name, text }),
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.away()),
        }
    }

    fn client(&self) -> Result<&Client, PeerError> {
        self.client.as_ref().ok_or_else(|| self.away())
    }

    fn away(&self) -> PeerError {
        PeerError::Away { name: self.name }
    }
}
