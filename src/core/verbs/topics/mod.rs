//! Topics (protocol.md §20): who makes them and who is in them. What is said in them goes through
//! `send` and the mesh's log like any message to many.
//!
//! Visibility and roles are for show, as in the original: any member may join, read and write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::records::{self, Listed};
use crate::identity::seal;
use crate::ids::PubKey;
use crate::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, TOPIC_MEMBERS_MAX, TOPICS_MAX};
use crate::peer::{MemberIx, MeshIx};
use crate::rows::{
    NewTopic, StoreOp, TopicChange, TopicKeyRow, TopicMemberRow, TopicRole, TopicRow, Visibility,
};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::topics::{Membership, Topic, TopicIx, Topics};
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

mod posts;

/// The member that asks, the topic it asks for, and as what.
pub(super) type Asked = (MemberIx, TopicIx, Box<str>);

#[derive(Serialize)]
struct Created<'a> {
    topic: Named<'a>,
    created: bool,
}

#[derive(Serialize)]
struct Named<'a> {
    id: &'a str,
    name: &'a str,
    visibility: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    visibility: &'a str,
    member_count: usize,
    created_at: Wall,
}

#[derive(Serialize)]
struct Members<'a> {
    topic: &'a str,
    #[serde(flatten)]
    members: Listed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberEntry<'a> {
    member_id: &'a str,
    pubkey: PubKey,
    display_name: &'a str,
    role: &'a str,
    joined_at: Wall,
    last_read_at: Option<Wall>,
}

impl Shard {
    /// Carries out a request of this family; None if it is of another.
    pub(super) fn topic_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        Some(match kind {
            "topic_create" => self.topic_create(t, request),
            "topic_list" => {
                self.topic_list(t, request);
                Ok(())
            }
            "topic_join" => self.topic_join(t, request),
            "topic_leave" => self.topic_leave(t, request),
            "topic_mark_read" => self.topic_mark_read(t, request),
            "topic_members" => self.topic_members(t, request),
            "topic_history" => self.topic_history(t, request),
            _ => return None,
        })
    }

    /// The topics of a mesh, if it has any.
    pub(crate) fn topics(&self, mesh: MeshIx) -> Option<&Topics> {
        self.mesh(mesh)?.topics.as_deref()
    }

    /// The name of the topic that a message is for, if it is for one.
    pub(crate) fn topic_name(&self, mesh: MeshIx, target_spec: &str) -> Option<&str> {
        let topics = self.topics(mesh)?;
        let ix = topics.by_id(target_spec.strip_prefix('#')?)?;
        topics.get(ix).map(|topic| &*topic.name)
    }

    /// A topic of a session's mesh.
    pub(super) fn topic_in(&self, slot: u32, ix: TopicIx) -> Option<&Topic> {
        let mesh = self.peers.get_slot(slot)?.mesh;
        self.topics(mesh)?.get(ix)
    }

    /// A topic, found at boot.
    pub(crate) fn topic_found(&mut self, row: &TopicRow) {
        let mesh = self.mesh_ids.get(&*row.mesh_id).copied();
        if let Some(mesh) = mesh.and_then(|ix| self.mesh_mut(ix)) {
            mesh.topics.get_or_insert_default().add(row);
        }
    }

    /// That a member is in a topic, found at boot.
    pub(crate) fn topic_member_found(&mut self, row: &TopicMemberRow) {
        let mesh = self.mesh_ids.get(&*row.mesh_id).copied();
        let member = self.member_ids.get(&*row.member_id).copied();
        let topics = mesh.and_then(|ix| self.mesh_mut(ix)?.topics.as_mut());
        if let (Some(topics), Some(member)) = (topics, member)
            && let Some(ix) = topics.by_id(&row.topic_id)
        {
            // There was room for it when it was written.
            let _ = topics.put(ix, member, Membership::of(row));
        }
    }

    /// Idempotent by name: who asks for a topic that is there is told so, and does not join it.
    fn topic_create(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        let fields = request.fields;
        let name = records::name(fields, "name")?;
        let description = records::optional(fields, "description", TEXT_BYTES_MAX)?;
        let visibility = match fields.opt_str("visibility", NAME_BYTES_MAX)? {
            None => Visibility::default(),
            Some(name) => {
                let visibility = Visibility::parse(&name);
                visibility.ok_or_else(|| FieldError::new("visibility", "public, private or dm"))?
            }
        };
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        let (mesh, member) = (peer.mesh, peer.member);
        let topics = self.topics(mesh);
        if let Some(ix) = topics.and_then(|topics| topics.by_name(&name)) {
            self.topic_exists(t, request, ix);
            return Ok(());
        }
        if topics.is_some_and(|topics| !topics.has_room()) {
            let message = format!("a mesh may have at most {TOPICS_MAX} topics");
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let (Some(who), Some(mesh_id)) = (
            self.who(request.slot),
            self.mesh(mesh).map(|mesh| mesh.id.to_string()),
        ) else {
            return Ok(());
        };
        let row = TopicRow {
            id: self.mint.record_id(),
            mesh_id,
            name: name.into_owned(),
            description,
            visibility,
            created_by: who.member_id,
            created_at: t.now.wall,
        };
        self.make_topic(t, request, (mesh, member), row);
        Ok(())
    }

    fn topic_exists(&mut self, t: &mut Turn<'_>, request: &Request<'_>, ix: TopicIx) {
        let Some(topic) = self.topic_in(request.slot, ix) else {
            return;
        };
        let (id, name) = (topic.id.clone(), topic.name.clone());
        let body = Created {
            topic: Named {
                id: &id,
                name: &name,
                visibility: topic.visibility.name(),
            },
            created: false,
        };
        // Its row may still be on its way.
        self.answer_when_stored(t, request, StoreOp::Fence, "topic_created", body);
    }

    /// Whoever makes a topic is in it, as its lead.
    fn make_topic(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        (mesh, member): (MeshIx, MemberIx),
        row: TopicRow,
    ) {
        let lead = TopicMemberRow {
            mesh_id: row.mesh_id.clone(),
            topic_id: row.id.clone(),
            member_id: row.created_by.clone(),
            role: TopicRole::Lead,
            joined_at: row.created_at,
            last_read_at: None,
        };
        let Some(found) = self.mesh_mut(mesh) else {
            return;
        };
        let topics = found.topics.get_or_insert_default();
        let made = topics
            .add(&row)
            .is_some_and(|ix| topics.put(ix, member, Membership::of(&lead)));
        if !made {
            return;
        }
        let (id, name) = (row.id.clone(), row.name.clone());
        let body = Created {
            topic: Named {
                id: &id,
                name: &name,
                visibility: row.visibility.name(),
            },
            created: true,
        };
        let key = self.topic_key(member, &row);
        let topic = row;
        let made = Box::new(NewTopic { topic, lead, key });
        let change = StoreOp::Topic(Box::new(TopicChange::Created(made)));
        self.answer_when_stored(t, request, change, "topic_created", body);
    }

    /// A new key for a topic, sealed for who made it. No request gives it out: it lies in the store
    /// for the web app beside the broker, as in the original. None if nobody could open what is sealed
    /// for the member's key.
    fn topic_key(&mut self, member: MemberIx, topic: &TopicRow) -> Option<TopicKeyRow> {
        let key = Zeroizing::new(self.mint.secret());
        let sender = Zeroizing::new(self.mint.secret());
        let entropy = self.mint.secret();
        let owner = self.member(member)?;
        let sealed = seal(&*key, &owner.key, (sender, entropy))?;
        Some(TopicKeyRow {
            topic_id: topic.id.clone(),
            member_id: topic.created_by.clone(),
            sender: hex::encode(sealed.sender),
            encrypted_key: STANDARD.encode(&sealed.blob),
            nonce: STANDARD.encode(sealed.nonce),
        })
    }

    fn topic_list(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let topics = mesh.and_then(|mesh| self.topics(mesh));
        let entries = topics
            .into_iter()
            .flat_map(Topics::iter)
            .map(|topic| Entry {
                id: &topic.id,
                name: &topic.name,
                description: topic.description.as_deref(),
                visibility: topic.visibility.name(),
                member_count: self.members_in(topic).count(),
                created_at: topic.created_at,
            });
        let listed = Listed::new("topics", entries);
        self.answer(t, request, "topic_list_response", listed);
    }

    /// The members in a topic who may be in the mesh.
    fn members_in<'a>(
        &'a self,
        topic: &'a Topic,
    ) -> impl Iterator<Item = (MemberIx, &'a Membership)> {
        let active = |ix: MemberIx| self.member(ix).is_some_and(|m| m.revoked_at.is_none());
        let members = topic
            .members
            .iter()
            .map(|(ix, membership)| (*ix, membership));
        members.filter(move |(ix, _)| active(*ix))
    }

    /// Whoever is in it already keeps its role, unless it names one.
    fn topic_join(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        let role = match request.fields.opt_str("role", NAME_BYTES_MAX)? {
            None => None,
            Some(name) => {
                let role = TopicRole::parse(&name);
                Some(role.ok_or_else(|| FieldError::new("role", "lead, member or observer"))?)
            }
        };
        let Some((member, ix, _)) = self.topic_asked(t, request)? else {
            return Ok(());
        };
        let topic = self.topic_in(request.slot, ix);
        let earlier = topic.and_then(|topic| topic.members.get(&member).copied());
        let mut joined = earlier.unwrap_or_else(|| Membership {
            role: TopicRole::default(),
            joined_at: t.now.wall,
            last_read_at: None,
        });
        joined.role = role.unwrap_or(joined.role);
        if earlier != Some(joined) {
            self.put_membership(t, request, (member, ix), joined);
        }
        Ok(())
    }

    fn topic_leave(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        let Some((member, ix, _)) = self.topic_asked(t, request)? else {
            return Ok(());
        };
        let Some(row) = self.membership_row(request.slot, (member, ix), None) else {
            return Ok(());
        };
        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let topics = mesh.and_then(|mesh| self.mesh_mut(mesh)?.topics.as_mut());
        if topics.is_some_and(|topics| topics.remove(ix, member)) {
            t.persist(StoreOp::Topic(Box::new(TopicChange::MemberGone {
                mesh_id: row.mesh_id,
                topic_id: row.topic_id,
                member_id: row.member_id,
            })));
        }
        Ok(())
    }

    /// Only a member can have read: others are told that they are none.
    fn topic_mark_read(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let Some((member, ix, topic)) = self.topic_asked(t, request)? else {
            return Ok(());
        };
        let found = self.topic_in(request.slot, ix);
        let Some(mut read) = found.and_then(|topic| topic.members.get(&member).copied()) else {
            let message = format!("you are not in topic \"{topic}\"");
            self.error(t, request, "not_found", &message);
            return Ok(());
        };
        read.last_read_at = Some(t.now.wall);
        self.put_membership(t, request, (member, ix), read);
        Ok(())
    }

    fn put_membership(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        (member, ix): (MemberIx, TopicIx),
        membership: Membership,
    ) {
        let Some(row) = self.membership_row(request.slot, (member, ix), Some(membership)) else {
            return;
        };
        let mesh = self.peers.get_slot(request.slot).map(|peer| peer.mesh);
        let topics = mesh.and_then(|mesh| self.mesh_mut(mesh)?.topics.as_mut());
        if topics.is_some_and(|topics| topics.put(ix, member, membership)) {
            t.persist(StoreOp::Topic(Box::new(TopicChange::MemberPut(row))));
        } else {
            let message = format!("a mesh may have at most {TOPIC_MEMBERS_MAX} members of topics");
            self.error(t, request, "limit", &message);
        }
    }

    fn membership_row(
        &self,
        slot: u32,
        (member, ix): (MemberIx, TopicIx),
        membership: Option<Membership>,
    ) -> Option<TopicMemberRow> {
        let peer = self.peers.get_slot(slot)?;
        let membership = membership.unwrap_or_default();
        Some(TopicMemberRow {
            mesh_id: self.mesh(peer.mesh)?.id.to_string(),
            topic_id: self.topics(peer.mesh)?.get(ix)?.id.to_string(),
            member_id: self.member(member)?.id.to_string(),
            role: membership.role,
            joined_at: membership.joined_at,
            last_read_at: membership.last_read_at,
        })
    }

    fn topic_members(&mut self, t: &mut Turn<'_>, request: &Request<'_>) -> Result<(), FieldError> {
        let Some((_, ix, asked)) = self.topic_asked(t, request)? else {
            return Ok(());
        };
        let Some(topic) = self.topic_in(request.slot, ix) else {
            return Ok(());
        };
        let mut members: Vec<_> = self.members_in(topic).collect();
        members.sort_by_key(|(ix, membership)| (membership.joined_at, *ix));
        let entries = members.into_iter().filter_map(|(ix, membership)| {
            let member = self.member(ix)?;
            Some(MemberEntry {
                member_id: &member.id,
                pubkey: member.key,
                display_name: &member.name,
                role: membership.role.name(),
                joined_at: membership.joined_at,
                last_read_at: membership.last_read_at,
            })
        });
        let members = Listed::new("members", entries);
        let topic = &asked;
        self.answer(
            t,
            request,
            "topic_members_response",
            Members { topic, members },
        );
        Ok(())
    }

    /// Who asks and for which topic, by id or name; whoever asks for one that is not there is told.
    pub(super) fn topic_asked(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<Option<Asked>, FieldError> {
        let asked = request.fields.str("topic", NAME_BYTES_MAX)?;
        let Some(peer) = self.peers.get_slot(request.slot) else {
            return Ok(None);
        };
        let topics = self.topics(peer.mesh);
        let Some(ix) = topics.and_then(|topics| topics.find(&asked)) else {
            let message = format!("topic \"{asked}\" not found");
            let req_id = request.req_id.as_deref();
            let frame = frames::error_with_id("topic_not_found", message, req_id);
            self.reply(t, request.slot, frame);
            return Ok(None);
        };
        Ok(Some((peer.member, ix, (&*asked).into())))
    }
}
