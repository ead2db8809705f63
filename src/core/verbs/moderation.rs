//! Kick, disconnect, ban, unban, list of bans (protocol.md §18). All end the lease at once, with
//! its `peer_left`.

use serde::Serialize;

use crate::chain::List;
use crate::effect::Close;
use crate::event::LeaseEnd;
use crate::ids::PubKey;
use crate::limits::NAME_BYTES_MAX;
use crate::peer::{MemberIx, PeerConn};
use crate::rows::{PeerRole, StoreOp};
use crate::shard::{Shard, Turn};
use crate::time::{Millis, Wall};
use crate::verbs::Request;
use crate::wire::FieldError;

/// Whom a kick means; all wins over stale over target.
enum Whom<'a> {
    All,
    Stale(Millis),
    Target(std::borrow::Cow<'a, str>),
    Nobody,
}

#[derive(Serialize)]
struct KickAck<'a> {
    kicked: &'a [Box<str>],
    affected: &'a [Box<str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    skipped_control_plane: &'a [Box<str>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ban {
    name: Box<str>,
    pubkey: PubKey,
    revoked_at: Wall,
}

impl Shard {
    /// Whether the caller may moderate; if not, it is told.
    fn moderates(&mut self, t: &mut Turn<'_>, request: &Request<'_>, verb: &str) -> bool {
        let caller = self
            .peers
            .get_slot(request.slot)
            .and_then(|peer| self.member(peer.member));
        let admin = caller.is_some_and(|member| member.admin);
        if !admin {
            self.error(
                t,
                request,
                "forbidden",
                &format!("only owner or admin can {verb}"),
            );
        }
        admin
    }

    /// `kick` and `disconnect`; they differ in the close and in whether control-plane sessions
    /// are spared.
    pub(crate) fn kick(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kick: bool,
    ) -> Result<(), FieldError> {
        let (verb, ack) = if kick {
            ("kicked", "kick_ack")
        } else {
            ("disconnected", "disconnect_ack")
        };
        if !self.moderates(t, request, verb) {
            return Ok(());
        }
        let whom = whom(request)?;
        let (close, why) = match (kick, &whom) {
            (true, Whom::Stale(_)) => (Close::KICKED_STALE, LeaseEnd::Kicked),
            (true, _) => (Close::KICKED, LeaseEnd::Kicked),
            (false, Whom::Stale(_)) => (Close::DISCONNECTED_STALE, LeaseEnd::Disconnected),
            (false, _) => (Close::DISCONNECTED, LeaseEnd::Disconnected),
        };
        let meant = self.meant(t, request.slot, &whom);
        let (spared, ended): (Vec<_>, Vec<_>) = meant
            .into_iter()
            .partition(|(_, _, role)| kick && *role == PeerRole::ControlPlane);
        let names = |list: &[(u32, Box<str>, PeerRole)]| -> Vec<Box<str>> {
            list.iter().map(|(_, name, _)| name.clone()).collect()
        };
        let (kicked, skipped) = (names(&ended), names(&spared));
        let body = KickAck {
            kicked: &kicked,
            affected: &kicked,
            skipped_control_plane: &skipped,
        };
        // The answer first: the caller may be among those who go, and the leaves come behind it.
        self.answer(t, request, ack, body);
        for (slot, ..) in ended {
            self.evict(t, slot, why, Some(close));
        }
        Ok(())
    }

    fn meant(&self, t: &Turn<'_>, caller: u32, whom: &Whom<'_>) -> Vec<(u32, Box<str>, PeerRole)> {
        let Some(mesh) = self
            .peers
            .get_slot(caller)
            .and_then(|peer| self.mesh(peer.mesh))
        else {
            return Vec::new();
        };
        let is_meant = |slot: u32, peer: &PeerConn| match whom {
            Whom::All => slot != caller,
            Whom::Stale(age) => slot != caller && t.now.mono.since(peer.last_seen) > *age,
            Whom::Target(target) => {
                let key = self
                    .member(peer.member)
                    .map(|m| m.key.to_string())
                    .unwrap_or_default();
                *peer.name() == **target || (!target.is_empty() && key.starts_with(&**target))
            }
            Whom::Nobody => false,
        };
        let roster = mesh.roster.iter(&self.peers, List::Mesh);
        let peers = roster.filter_map(|slot| Some((slot, self.peers.get_slot(slot)?)));
        peers
            .filter(|(slot, peer)| is_meant(*slot, peer))
            .map(|(slot, peer)| (slot, peer.name().into(), peer.role()))
            .collect()
    }

    pub(crate) fn ban(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        #[derive(Serialize)]
        struct BanAck {
            banned: Box<str>,
        }

        if !self.moderates(t, request, "ban") {
            return Ok(());
        }
        let Some(target) = self.moderation_target(t, request)? else {
            return Ok(());
        };
        let Some(member_ix) = self.find_member(request.slot, &target, false) else {
            self.error(
                t,
                request,
                "not_found",
                &format!("peer \"{target}\" not found"),
            );
            return Ok(());
        };
        let Some(caller) = self.peers.get_slot(request.slot) else {
            return Ok(());
        };
        if caller.member == member_ix {
            self.error(t, request, "invalid", "cannot ban yourself");
            return Ok(());
        }
        let Some(member) = self.member_mut(member_ix) else {
            return Ok(());
        };
        member.revoked_at = Some(t.now.wall);
        let (id, key, banned) = (member.id.to_string(), member.key, member.name.clone());
        let op = StoreOp::MemberRevoked {
            id,
            at: Some(t.now.wall),
        };
        self.answer_when_stored(
            t,
            request,
            op,
            "ban_ack",
            BanAck {
                banned: banned.clone(),
            },
        );
        if let Some(caller) = self.peers.get_slot(request.slot) {
            let payload = serde_json::json!({ "target": banned, "targetPubkey": key });
            self.audit(t, caller, "member_banned", payload);
        }
        self.end_member(t, member_ix);
        Ok(())
    }

    pub(crate) fn unban(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        #[derive(Serialize)]
        struct UnbanAck {
            unbanned: Box<str>,
        }

        if !self.moderates(t, request, "unban") {
            return Ok(());
        }
        let Some(target) = self.moderation_target(t, request)? else {
            return Ok(());
        };
        let Some(member_ix) = self.find_member(request.slot, &target, true) else {
            self.error(
                t,
                request,
                "not_found",
                &format!("no banned peer \"{target}\""),
            );
            return Ok(());
        };
        let Some(member) = self.member_mut(member_ix) else {
            return Ok(());
        };
        member.revoked_at = None;
        let (id, key, mesh, unbanned) = (
            member.id.to_string(),
            member.key,
            member.mesh,
            member.name.clone(),
        );
        self.index_member(mesh, key, member_ix);
        let op = StoreOp::MemberRevoked { id, at: None };
        let ack = UnbanAck {
            unbanned: unbanned.clone(),
        };
        self.answer_when_stored(t, request, op, "unban_ack", ack);
        if let Some(caller) = self.peers.get_slot(request.slot) {
            let payload = serde_json::json!({ "target": unbanned });
            self.audit(t, caller, "member_unbanned", payload);
        }
        Ok(())
    }

    /// Anyone may ask who is banned.
    pub(crate) fn list_bans(&mut self, t: &mut Turn<'_>, request: &Request<'_>) {
        #[derive(Serialize)]
        struct Bans {
            bans: Vec<Ban>,
        }

        let mesh = self
            .peers
            .get_slot(request.slot)
            .and_then(|peer| self.mesh(peer.mesh));
        let bans = mesh.map(|mesh| {
            let ban = |ix: &MemberIx| {
                let member = self.member(*ix)?;
                // Whose key has an active member again is not banned.
                let usurped = mesh.by_key.get(&member.key) != Some(ix);
                let revoked_at = member.revoked_at.filter(|_| !usurped)?;
                Some(Ban {
                    name: member.name.clone(),
                    pubkey: member.key,
                    revoked_at,
                })
            };
            mesh.members.iter().filter_map(ban).collect()
        });
        let bans: Vec<Ban> = bans.unwrap_or_default();
        self.answer(t, request, "list_bans_result", Bans { bans });
    }

    fn moderation_target(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<Option<String>, FieldError> {
        let target = request
            .fields
            .opt_str("target", NAME_BYTES_MAX)?
            .unwrap_or_default();
        if target.is_empty() {
            self.error(t, request, "invalid", "target required");
            return Ok(None);
        }
        Ok(Some(target.into_owned()))
    }

    /// A member by display name, key or, if active, the beginning of its key. Of revoked ones
    /// those whose key has an active member again are not meant.
    fn find_member(&self, caller: u32, target: &str, revoked: bool) -> Option<MemberIx> {
        let mesh = self.mesh(self.peers.get_slot(caller)?.mesh)?;
        let candidates = mesh.members.iter().copied().filter(|ix| {
            self.member(*ix).is_some_and(|member| {
                let usurped = revoked && mesh.by_key.get(&member.key) != Some(ix);
                member.revoked_at.is_some() == revoked && !usurped
            })
        });
        let matches = |ix: &MemberIx| {
            self.member(*ix).is_some_and(|member| {
                let key = member.key.to_string();
                *member.name == *target || key == target || (!revoked && key.starts_with(target))
            })
        };
        candidates.into_iter().find(matches)
    }
}

fn whom<'a>(request: &Request<'a>) -> Result<Whom<'a>, FieldError> {
    if request.fields.json::<bool>("all", "true or false")? == Some(true) {
        return Ok(Whom::All);
    }
    if let Some(stale) = request.fields.opt_number("stale")? {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float casts to the nearest u64"
        )]
        return Ok(Whom::Stale(Millis(stale as u64)));
    }
    let target = request.fields.opt_str("target", NAME_BYTES_MAX)?;
    Ok(target.map_or(Whom::Nobody, Whom::Target))
}
