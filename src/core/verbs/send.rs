//! `send` (protocol.md §8): checks, the row, the push, and the ack that follows the commit.

use std::borrow::Cow;

use crate::effect::{Close, Effect};
use crate::event::Event;
use crate::ids::{PeerHandle, PubKey, Seq, Token};
use crate::limits::NAME_BYTES_MAX;
use crate::log::What;
use crate::marks::{Mark, mark};
use crate::outbox::Mail;
use crate::peer::{MeshIx, OwedJoin, PeerConn};
use crate::routing::{Audience, NoRecipient, Recipient, Target};
use crate::rows::{MessageRow, Origin, Priority, StoreFailure, StoreOp};
use crate::shard::{Shard, Turn, Waiting};
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

/// A message that waits for its commit.
#[derive(Debug)]
pub(crate) struct Unstored {
    pub(crate) sender: PeerHandle,
    /// The request's `id`.
    pub(crate) id: Box<str>,
    pub(crate) ack: bytes::Bytes,
    /// The mailbox that holds it, if it is direct.
    pub(crate) mail: Option<(MeshIx, PubKey, Seq)>,
    /// What it is known by, if its sender named it.
    pub(crate) hash: Option<u64>,
}

/// A send under way: the session, the request's id, what it is known by.
#[derive(Clone, Copy)]
struct Sending<'a> {
    slot: u32,
    id: &'a str,
    hash: Option<u64>,
}

/// Why a send was refused: what the sender is told, and the metric's label.
struct Refused(Cow<'static, str>, &'static str);

impl From<FieldError> for Refused {
    fn from(error: FieldError) -> Self {
        Self(
            format!("invalid_argument: {error}").into(),
            "parse_or_handler",
        )
    }
}

impl From<NoRecipient> for Refused {
    fn from(error: NoRecipient) -> Self {
        Self(error.to_string().into(), "no_recipient")
    }
}

impl Shard {
    /// A send always gets exactly one ack.
    pub(crate) fn send(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let id = request.fields.lenient_str("id").unwrap_or_default();
        if let Err(Refused(error, reason)) = self.try_send(t, request, &id) {
            t.observe(Event::SendRefused { reason });
            self.reply(t, request.slot, refusal(&id, &error));
        }
    }

    fn try_send(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        id: &str,
    ) -> Result<(), Refused> {
        self.take_send_token(t, request.slot)?;
        let row = self.message_row(t, request)?;
        let Ok(hash) = self.may_repeat(t, request.slot, (id, &row)) else {
            return Ok(());
        };
        let slot = request.slot;
        let routed = self.route(t, Sending { slot, id, hash }, row);
        if let (Err(_), Some(hash)) = (&routed, hash) {
            self.repeats.forget(hash);
        }
        routed
    }

    fn route(
        &mut self,
        t: &mut Turn<'_>,
        sending: Sending<'_>,
        row: MessageRow,
    ) -> Result<(), Refused> {
        // Whoever hears from it must have heard of it first.
        if self
            .peers
            .get_slot(sending.slot)
            .is_some_and(|p| p.owed != OwedJoin::Nothing)
        {
            mark(Mark::JoinToldEarly);
        }
        self.announce_joined(t, sending.slot);
        let Some(peer) = self.peers.get_slot(sending.slot) else {
            return Ok(());
        };
        let mesh = peer.mesh;
        match Target::parse(&row.target_spec) {
            Target::Key(key) => {
                let checked = self.check_direct(sending.slot, peer, key);
                if checked == Err(NoRecipient::Blocked) {
                    t.observe(Event::GrantDenied { cap: "dm" });
                }
                let recipient = checked?;
                self.send_direct(t, sending, (mesh, recipient), row);
                Ok(())
            }
            Target::Everyone | Target::Group(_) | Target::Topic(_) => {
                let unknown = || unknown_topic(&row.target_spec);
                let audience = self.audience(mesh, &row.target_spec).ok_or_else(unknown)?;
                self.send_multicast(t, sending, row, audience);
                Ok(())
            }
        }
    }

    fn take_send_token(&mut self, t: &Turn<'_>, slot: u32) -> Result<(), Refused> {
        let (rate, burst) = (self.config.send_rate, self.config.send_burst);
        let member = self.peers.get_slot(slot).map(|peer| peer.member);
        let member = member.and_then(|ix| self.member_mut(ix));
        if member.is_some_and(|m| !m.bucket.take(t.now.mono, rate, burst)) {
            let error =
                format!("rate_limit: max {rate} msg/min (burst {burst}) \u{2014} slow down");
            return Err(Refused(error.into(), "rate_limit"));
        }
        Ok(())
    }

    /// Reads a send into the row it becomes.
    fn message_row(&mut self, t: &Turn<'_>, request: &Request<'_>) -> Result<MessageRow, Refused> {
        let fields = request.fields;
        let any = usize::MAX;
        let target_spec = fields.str("targetSpec", any)?;
        let (nonce, ciphertext) = (fields.str("nonce", any)?, fields.str("ciphertext", any)?);
        let size = size(
            &[&ciphertext, &nonce, &target_spec],
            self.config.max_message_bytes,
        );
        size.map_err(|error| Refused(error.into(), "too_large"))?;
        let priority = Priority::parse(&fields.str("priority", NAME_BYTES_MAX)?)
            .ok_or_else(|| FieldError::new("priority", "one of now, next, low"))?;
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let client_message_id = owned(fields.opt_str("client_message_id", NAME_BYTES_MAX)?);
        let request_fingerprint = owned(fields.opt_str("request_fingerprint", NAME_BYTES_MAX)?);
        let reply_to_id = owned(fields.opt_str("replyToId", NAME_BYTES_MAX)?);
        let post = self.topic_post(request, &target_spec, &ciphertext)?;
        let seq = self.next_seq();
        let id = self.mint.message_id(seq);
        let peer = self.peers.get_slot(request.slot);
        let found = peer.and_then(|p| Some((p, self.mesh(p.mesh)?, self.member(p.member)?)));
        let Some((peer, mesh, member)) = found else {
            return Err(Refused("session is gone".into(), "no_recipient"));
        };
        Ok(MessageRow {
            seq,
            id,
            mesh_id: mesh.id.to_string(),
            sender_member_id: member.id.to_string(),
            sender_member_pubkey: member.key,
            sender_session_pubkey: peer.session_key,
            sender_name: peer.name().to_owned(),
            target_spec: target_spec.into_owned(),
            priority,
            nonce: nonce.into_owned(),
            ciphertext: ciphertext.into_owned(),
            created_at: t.now.wall,
            delivered_at: None,
            client_message_id,
            request_fingerprint,
            reply_to_id,
            position: None,
            deferred: false,
            origin: Origin::Sent,
            post,
        })
    }

    fn send_direct(
        &mut self,
        t: &mut Turn<'_>,
        sending: Sending<'_>,
        (mesh, recipient): (MeshIx, Recipient),
        mut row: MessageRow,
    ) {
        let target = recipient.key;
        row.deferred = recipient.deferred;
        let frame = self.push_frame(mesh, &row, Some(&target));
        let mail = Mail {
            sender_presence: self
                .peers
                .get_slot(sending.slot)
                .map(|peer| (&*peer.presence_id()).into()),
            ..Mail::of_row(&row, target, frame)
        };
        let place = Some((mesh, target, mail.seq));
        if self.store_message(t, sending, row, place) {
            self.deliver(t, mesh, mail);
        }
    }

    fn send_multicast(
        &mut self,
        t: &mut Turn<'_>,
        sending: Sending<'_>,
        mut row: MessageRow,
        audience: Audience,
    ) {
        let at = self.stamp();
        row.position = Some(at);
        let Some(peer) = self.peers.get_slot(sending.slot) else {
            return;
        };
        let frame = self.push_frame(peer.mesh, &row, None);
        let what = What::message(&row, peer.member, audience);
        let (mesh, priority) = (peer.mesh, row.priority);
        row.delivered_at = Some(t.now.wall);
        // First, since who speaks may be cut off by what it says: then the row is there all the same.
        if !self.store_message(t, sending, row, None) {
            return;
        }
        let recipients = self.publish(t, mesh, at, (what, frame));
        t.observe(Event::Routed {
            priority,
            recipients,
        });
    }

    /// Gives the row to the store, with its audit entry; its commit releases the ack. False if so
    /// many answers wait that the sender is cut off instead.
    fn store_message(
        &mut self,
        t: &mut Turn<'_>,
        sending: Sending<'_>,
        row: MessageRow,
        mail: Option<(MeshIx, PubKey, Seq)>,
    ) -> bool {
        let token = self.next_token();
        let Some(sender) = self.wait_in_line(t, sending.slot, token) else {
            return false;
        };
        let unstored = Unstored {
            sender,
            id: sending.id.into(),
            ack: accepted(sending.id, &row),
            mail,
            hash: sending.hash,
        };
        self.waiting
            .insert(token, Waiting::Send(Box::new(unstored)));
        t.fx.push(Effect::Persist {
            op: StoreOp::MessageInsert(Box::new(row)),
            token: Some(token),
        });
        true
    }

    /// Keeps a place for an answer that waits for the store; a client with too many of them
    /// reads nothing and is closed.
    pub(crate) fn wait_in_line(
        &mut self,
        t: &mut Turn<'_>,
        slot: u32,
        token: Token,
    ) -> Option<PeerHandle> {
        let handle = self.peers.handle_of(slot)?;
        let online = self.peers.get_mut(handle)?.online_mut()?;
        if !online.replies.wait(token) {
            self.close_slow(t, slot);
        }
        Some(handle)
    }

    /// More waits for a connection than may: it is closed, and its session enters grace.
    pub(crate) fn close_slow(&mut self, t: &mut Turn<'_>, slot: u32) {
        let peer = self.peers.get_slot(slot);
        if let Some(conn) = peer.and_then(PeerConn::conn) {
            self.close(t, conn, Close::SLOW_CONSUMER);
            self.begin_grace(t, slot);
        }
    }

    /// The store answered for a message.
    pub(crate) fn send_stored(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        unstored: Unstored,
        result: Result<(), StoreFailure>,
    ) {
        let Unstored {
            sender,
            id,
            ack,
            mail,
            hash,
        } = unstored;
        let frame = match result {
            Ok(()) => ack,
            Err(failure) => {
                t.observe(Event::SendRefused { reason: "storage" });
                mark(Mark::SendNotStored);
                if let Some((mesh, key, seq)) = mail {
                    self.forget_mail(mesh, key, seq);
                }
                if let Some(hash) = hash {
                    self.repeats.forget(hash);
                }
                refusal(
                    &id,
                    &format!("{failure}: the message was not accepted, send it again"),
                )
            }
        };
        self.fill_reply(t, sender, token, frame);
    }

    /// A message without a row is not delivered, unless it was already.
    fn forget_mail(&mut self, mesh: MeshIx, key: PubKey, seq: Seq) {
        let Some(mesh) = self.mesh_mut(mesh) else {
            return;
        };
        let Some(mailbox) = mesh.mailboxes.get_mut(&key) else {
            return;
        };
        if mailbox.forget(seq) && mailbox.is_empty() {
            mesh.mailboxes.remove(&key);
        }
    }

    /// An answer that waited for the store is ready; it and those behind it are written.
    pub(crate) fn fill_reply(
        &mut self,
        t: &mut Turn<'_>,
        asker: PeerHandle,
        token: Token,
        frame: bytes::Bytes,
    ) {
        let peer = self.peers.get_mut(asker);
        let Some(online) = peer.and_then(PeerConn::online_mut) else {
            return;
        };
        if online.replies.fill(token, frame) {
            self.write_replies(t, asker);
        } else {
            self.close_slow(t, asker.slot);
        }
    }

    /// As [`Self::fill_reply`]; without a frame, the place in the line is given up.
    pub(crate) fn fill_or_forgo(
        &mut self,
        t: &mut Turn<'_>,
        asker: PeerHandle,
        token: Token,
        frame: Option<bytes::Bytes>,
    ) {
        if let Some(frame) = frame {
            return self.fill_reply(t, asker, token, frame);
        }
        let peer = self.peers.get_mut(asker);
        if let Some(online) = peer.and_then(PeerConn::online_mut) {
            online.replies.forgo(token);
        }
        self.write_replies(t, asker);
    }

    fn write_replies(&mut self, t: &mut Turn<'_>, asker: PeerHandle) {
        let peer = self.peers.get_mut(asker);
        let Some(online) = peer.and_then(PeerConn::online_mut) else {
            return;
        };
        while let Some(frame) = online.replies.next() {
            t.send(online.conn, frame);
        }
        self.look_up_more(t, asker);
    }
}

fn unknown_topic(target_spec: &str) -> Refused {
    Refused(topic_not_found(target_spec).into(), "no_recipient")
}

/// What the sender of a message to a topic is told that is not there.
pub(crate) fn topic_not_found(target_spec: &str) -> String {
    let topic = target_spec.strip_prefix('#').unwrap_or_default();
    format!("topic_not_found: topic \"{topic}\" not found")
}

/// Whether a message is not too large, which clients count in UTF-16.
pub(crate) fn size(texts: &[&str], max: usize) -> Result<(), String> {
    let sum = |size: fn(&str) -> usize| texts.iter().map(|text| size(text)).sum::<usize>();
    // A text has no more units than bytes, so that few have to be counted.
    let size = match sum(str::len) {
        bytes if bytes <= max => bytes,
        _ => sum(|text| text.encode_utf16().count()),
    };
    if size > max {
        return Err(format!(
            "payload too large: {size} bytes > MAX_MESSAGE_BYTES={max}"
        ));
    }
    Ok(())
}

/// The answer to the sender of a message that is on disk.
pub(crate) fn accepted(id: &str, row: &MessageRow) -> bytes::Bytes {
    frames::encode(&frames::Ack {
        id,
        message_id: row.id.as_str(),
        queued: true,
        deferred: row.deferred,
        error: None,
        req_id: None,
    })
}

/// The answer to the sender of a message that is not.
pub(crate) fn refusal(id: &str, error: &str) -> bytes::Bytes {
    frames::encode(&frames::Ack {
        id,
        message_id: "",
        queued: false,
        deferred: false,
        error: Some(error),
        req_id: None,
    })
}
