//! Who is here and what they show: `list_peers`, summary, stats, visibility, profile, groups
//! (protocol.md §7, §10). All apply to the calling session only.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::limits::{GROUPS_MAX, NAME_BYTES_MAX, PROFILE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::peer::{Lease, PeerConn};
use crate::rows::Group;
use crate::shard::{Shard, Turn};
use crate::time::Now;
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

impl Shard {
    /// Everybody present, from memory, in the order their leases began; hidden peers of other
    /// members are left out.
    pub(crate) fn list_peers(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        #[derive(serde::Serialize)]
        struct Peers<'a> {
            peers: Vec<frames::PeerEntry<'a>>,
        }

        let Some(mesh) = self.peers.get_slot(request.slot).map(|peer| peer.mesh) else {
            return;
        };
        self.tell_pending(t, mesh);
        let Some(caller) = self.peers.get_slot(request.slot) else {
            return;
        };
        let peers = self
            .present_in(caller.mesh)
            .filter_map(|slot| self.peers.get_slot(slot))
            .filter(|peer| peer.visible || peer.member == caller.member)
            .filter_map(|peer| self.peer_entry(t.now, peer))
            .collect();
        let req_id = request.req_id.as_deref();
        let body = Peers { peers };
        let frame = frames::encode(&frames::Reply {
            kind: "peers_list",
            body,
            req_id,
        });
        self.reply(t, request.slot, frame);
    }

    fn peer_entry<'s>(&'s self, now: Now, peer: &'s PeerConn) -> Option<frames::PeerEntry<'s>> {
        let member_pubkey = self.member(peer.member)?.key;
        let rare = peer.rare.as_deref();
        let known = |text: Option<&'s str>| text.filter(|text| !text.is_empty());
        Some(frames::PeerEntry {
            pubkey: peer.session_key.unwrap_or(member_pubkey),
            member_pubkey,
            display_name: peer.name(),
            status: peer.status.name(),
            summary: peer.card.summary(),
            groups: peer.card.groups(),
            session_id: peer.card.session_id(),
            connected_at: peer.connected_at,
            cwd: peer.card.cwd(),
            peer_role: peer.role().name(),
            hostname: known(peer.card.hostname()),
            peer_type: known(peer.card.peer_type()),
            channel: known(peer.card.channel()),
            model: known(peer.card.model()),
            stats: rare
                .and_then(|rare| rare.stats.as_deref())
                .and_then(|text| serde_json::from_str(text).ok()),
            visible: peer.visible,
            profile: rare
                .map(|rare| &rare.profile)
                .filter(|profile| **profile != frames::Profile::default()),
            lease: match &peer.lease {
                Lease::Online(_) => "online",
                Lease::Grace(_) => "grace",
            },
            last_seen_at: now.wall_at(peer.last_seen),
        })
    }

    pub(crate) fn set_summary(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let summary = request.fields.str("summary", TEXT_BYTES_MAX)?;
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            let summary = Some(summary.into());
            peer.card.change(|card| card.summary = summary);
        }
        self.persist_presence(t, request.slot);
        Ok(())
    }

    pub(crate) fn set_stats(&mut self, request: &Request<'_>) -> Result<(), FieldError> {
        let stats = request.fields.object("stats", PROFILE_BYTES_MAX)?;
        let stats = stats.ok_or_else(|| FieldError::new("stats", "an object"))?;
        // Whoever lists peers must be able to read it: nothing nested, no broken text.
        let numbers = "an object of numbers";
        request
            .fields
            .json::<BTreeMap<String, serde_json::Number>>("stats", numbers)?;
        request
            .fields
            .json::<crate::rows::Stats>("stats", numbers)?;
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            peer.rare_mut().stats = Some(stats.into());
        }
        Ok(())
    }

    pub(crate) fn set_visible(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let visible = request.fields.bool("visible")?;
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            peer.visible = visible;
        }
        self.announce_visibility(t, request.slot);
        self.persist_presence(t, request.slot);
        self.bare_ack(t, request);
        Ok(())
    }

    pub(crate) fn set_profile(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let text = |field| Ok(fields.opt_str(field, TEXT_BYTES_MAX)?.map(Box::from));
        let (avatar, title, bio) = (text("avatar")?, text("title")?, text("bio")?);
        let capabilities: Option<&RawValue> = fields.json("capabilities", "a list of strings")?;
        if capabilities.is_some_and(|raw| raw.get().len() > PROFILE_BYTES_MAX) {
            let expected = format!("at most {PROFILE_BYTES_MAX} bytes");
            return Err(FieldError::new("capabilities", expected));
        }
        let capabilities = fields.json("capabilities", "a list of strings")?;
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            let profile = &mut peer.rare_mut().profile;
            profile.avatar = avatar.or_else(|| profile.avatar.take());
            profile.title = title.or_else(|| profile.title.take());
            profile.bio = bio.or_else(|| profile.bio.take());
            profile.capabilities = capabilities.or_else(|| profile.capabilities.take());
        }
        self.persist_presence(t, request.slot);
        self.bare_ack(t, request);
        Ok(())
    }

    pub(crate) fn join_group(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = request.fields.str("name", NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(FieldError::new("name", "not empty"));
        }
        let role: Option<Box<str>> = request
            .fields
            .opt_str("role", NAME_BYTES_MAX)?
            .map(Box::from);
        self.keep_owed_join(request.slot);
        let Some(peer) = self.peers.get_slot_mut(request.slot) else {
            return Ok(());
        };
        let joined = peer.card.change(|card| {
            let groups = &mut card.groups;
            if let Some(group) = groups.iter_mut().find(|group| *group.name == *name) {
                group.role = role;
            } else if groups.len() < GROUPS_MAX {
                let name = name.into();
                groups.push(Group { name, role });
            } else {
                return false;
            }
            true
        });
        if !joined {
            let message = format!("a session may be in at most {GROUPS_MAX} groups");
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        self.persist_presence(t, request.slot);
        Ok(())
    }

    pub(crate) fn leave_group(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = request.fields.str("name", NAME_BYTES_MAX)?;
        self.keep_owed_join(request.slot);
        if let Some(peer) = self.peers.get_slot_mut(request.slot) {
            peer.card
                .change(|card| card.groups.retain(|group| *group.name != *name));
        }
        self.persist_presence(t, request.slot);
        Ok(())
    }
}
