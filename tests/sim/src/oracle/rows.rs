//! Restart, rows and recounts: what is on disk, what a boot restores, and what gauges say.

use holdfast_core::ids::Position;
use holdfast_core::rows::{BootRow, PeerRole, PresenceRow, Status};
use holdfast_core::time::Now;

use super::mail::Fate;
use super::model::{Lease, Saved, Seat};
use super::told::Owed;
use super::{Oracle, Verdict, Violation, ensure};
use crate::disk::Tables;
use crate::town::{Identity, Kind};

/// Boots after which a lease nobody claims is not extended any more (design.md §6).
const BOOTS: u8 = 3;

/// A status posted for a session to come.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) shard: u16,
    pub(crate) cwd: String,
    pub(crate) pid: i64,
    pub(crate) status: Status,
    pub(crate) at: u64,
}

/// The mesh a row belongs to.
pub(crate) fn mesh_of_row(row: &BootRow, tables: &Tables) -> String {
    match row {
        BootRow::Mesh(row) => row.id.clone(),
        BootRow::Member(row) => row.mesh_id.clone(),
        BootRow::PeerState(row) => {
            let member = tables
                .members
                .iter()
                .find(|member| member.id == row.member_id);
            member
                .map(|member| member.mesh_id.clone())
                .unwrap_or_default()
        }
        BootRow::State(row) => row.mesh_id.clone(),
        BootRow::Stream(row) => row.mesh_id.clone(),
        BootRow::Topic(row) => row.mesh_id.clone(),
        BootRow::TopicMember(row) => row.mesh_id.clone(),
        BootRow::Watch(row) => row.mesh_id.clone(),
        BootRow::Presence(row) => row.mesh_id.clone(),
        BootRow::Subscription(row) => row.mesh_id.clone(),
        BootRow::Resume(_) => String::new(),
        BootRow::Ended(row) => row.mesh_id.clone(),
        BootRow::Said(row) => row.mesh_id.clone(),
        BootRow::Log(row) => row.mesh_id.clone(),
        BootRow::Sent(row) => row.mesh_id.clone(),
        BootRow::Mailbox(row) => row.mesh_id.clone(),
        BootRow::Schedule(row) => row.mesh_id.clone(),
        BootRow::Server(row) => row.mesh_id.clone(),
    }
}

impl Oracle {
    /// The process is gone, and all that was only in its memory.
    pub(crate) fn died(&mut self) {
        self.news_died();
        self.conns.clear();
        self.heard.clear();
        self.pending_status.clear();
        self.candidate = None;
        self.stopping = false;
        self.leases.clear();
        self.waiting.clear();
        self.calls.clear();
        self.tokens.clear();
    }

    /// A process begins: from here on only what is on disk counts.
    pub(crate) fn booting(&mut self, now: Now, begun: Position, tables: &Tables) -> Verdict {
        self.booting = true;
        self.begun = begun;
        self.store_refused = false;
        self.now = now;
        let seqs: Vec<(usize, u64)> = self
            .by_seq
            .iter()
            .map(|(seq, index)| (*index, *seq))
            .collect();
        for message in &mut self.messages {
            message.holder = None;
        }
        let mut stored = vec![None; self.messages.len()];
        for (index, seq) in seqs {
            stored[index] = tables.messages.get(&seq);
        }
        for (message, row) in self.messages.iter_mut().zip(stored) {
            let number = message.said.number;
            match row {
                None => {
                    ensure!(
                        message.fate != Fate::Acked,
                        "I4",
                        "m{number} was acknowledged and is not on disk"
                    );
                    message.lost = true;
                }
                Some(row) => {
                    message.delivered = row.delivered_at.is_some();
                    if message.sender.is_empty() {
                        message.fate = Fate::Acked;
                    }
                    let direct = matches!(message.target, super::mail::Target::Key(_));
                    let known = message.received || message.renounced || !direct;
                    ensure!(
                        !message.delivered || known,
                        "I4",
                        "m{number} is delivered on disk and nobody has it"
                    );
                }
            }
        }
        for (index, member) in self.members.iter_mut().enumerate() {
            let id = &self.plan.town.members[index].id;
            let Some(row) = tables.members.iter().find(|row| row.id == *id) else {
                continue;
            };
            member.take(row);
            let saved = tables.states.iter().find(|row| row.member_id == *id);
            member.saved = saved.map(|row| Saved {
                groups: row
                    .groups
                    .iter()
                    .map(|group| group.name.to_string())
                    .collect(),
                visible: row.visible,
            });
        }
        self.news_restored(tables)?;
        self.watches_restored(tables)?;
        self.schedules_restored(tables)
    }

    /// The boot is over.
    pub(crate) fn booted(&mut self, tables: &Tables) -> Verdict {
        self.booting = false;
        self.accounts_kept();
        self.servers_restored(tables)
    }

    /// A row became a lease again: in grace, for what is left or the restart grace.
    pub(crate) fn restored(&mut self, id: &str, row: &BootRow) -> Verdict {
        let BootRow::Presence(row) = row else {
            return Err(Violation::new(
                "I10",
                format!("{id} began at boot without a row"),
            ));
        };
        ensure!(row.id == id, "I10", "the row of {} began as {id}", row.id);
        let lease = self.lease_of_row(row)?;
        ensure!(
            !self.members[lease.who.member].revoked,
            "I10",
            "{id} of a revoked member was restored"
        );
        self.leases.insert(id.to_owned(), lease);
        self.account_of_restored(id);
        // Written down for all when the boot is over.
        let known = row.lease_until.map_or(self.begun, |_| row.known);
        self.known_noted(id, Some(known));
        self.counts.restored += 1;
        Ok(())
    }

    pub(crate) fn lease_of_row(&mut self, row: &PresenceRow) -> Result<Lease, Violation> {
        let order = self.order_of_restored(&row.id);
        let town = &self.plan.town;
        let Some(member) = town
            .members
            .iter()
            .position(|member| member.id == row.member_id)
        else {
            return Err(Violation::new("I10", "a row of nobody was restored"));
        };
        let kind = match (row.role, row.session_pubkey) {
            (PeerRole::Session, _) => Kind::Launched,
            (PeerRole::ControlPlane, Some(_)) => Kind::ThrowAway,
            (PeerRole::ControlPlane, None) => Kind::Member,
        };
        let number = (0..1000).find(|n| Some(crate::keys::key(*n)) == row.session_pubkey);
        let number = row.session_pubkey.and(number);
        let given = self.grace_of(row.grace.map(|grace| grace.0));
        let left = row
            .lease_until
            .map_or(0, |until| until.since(self.now.wall).0);
        // No lease has more left than it was given, whatever became of the clock.
        let left = left.min(given);
        let never = row.lease_until.is_none();
        let left = if never || row.boot_epochs <= BOOTS {
            left.max(self.plan.swarm.config.restart_grace.0)
        } else {
            left
        };
        let unseen = self.now.wall.since(row.last_ping_at).0;
        let worked = self.now.wall.since(row.status_at).0;
        let now = self.mono();
        Ok(Lease {
            who: Identity {
                member,
                kind,
                key: number,
                session_id: row.session_id.clone(),
            },
            mesh: town.members[member].mesh,
            shard: town.mesh_of(member).home,
            key: row.session_pubkey,
            name: row.display_name.clone(),
            groups: row
                .groups
                .iter()
                .map(|group| group.name.to_string())
                .collect(),
            visible: row.visible,
            cwd: row.cwd.clone(),
            pid: row.pid,
            status: row.status,
            working_until: (row.status == Status::Working)
                .then(|| now + 60_000_u64.saturating_sub(worked)),
            seat: Seat::Grace(now + left),
            order,
            attached: 0,
            last_proof: now.saturating_sub(unseen),
            last_ping: 0,
            owed: if row.joined.is_some() {
                Owed::Nothing
            } else {
                Owed::Perhaps
            },
            takeovers: Vec::new(),
            sudden: Vec::new(),
            unconfirmed: Vec::new(),
            rewrite: std::collections::VecDeque::new(),
            acks: false,
            grace: given,
        })
    }

    /// A row that was not ended is a lease again, if it may.
    pub(crate) fn was_restored(&self, row: &PresenceRow) -> Verdict {
        let member = self
            .plan
            .town
            .members
            .iter()
            .position(|member| member.id == row.member_id);
        let revoked = member.is_none_or(|member| self.members[member].revoked);
        let there = self.leases.contains_key(&row.id);
        if there || revoked {
            return Ok(());
        }
        // Its identity has a lease already: two rows of one, of which one is ended.
        let same = self.leases.values().any(|lease| {
            lease.key == row.session_pubkey
                && self.plan.town.members[lease.who.member].id == row.member_id
                && (lease.key.is_some() || lease.who.session_id == row.session_id)
        });
        ensure!(same, "I10", "the row of {} was not restored", row.id);
        Ok(())
    }

    /// The journal says what peers were told (I10); asked when nothing is under way.
    pub(crate) fn rows_agree(&self, tables: &Tables) -> Verdict {
        if self.stopping {
            return Ok(());
        }
        for (id, lease) in &self.leases {
            let Some(found) = tables.presences.get(id) else {
                return Err(Violation::new(
                    "I10",
                    format!("{id} is there and has no row"),
                ));
            };
            ensure!(
                found.ended.is_none(),
                "I10",
                "{id} is there and its row has ended"
            );
            let row = &found.row;
            let online = lease.conn().is_some();
            ensure!(
                row.lease_until.is_none() == online,
                "I10",
                "{id} online={online}, its row {:?}",
                row.lease_until
            );
            ensure!(
                row.session_id == lease.who.session_id,
                "I10",
                "{id} is {}, its row {}",
                lease.who.session_id,
                row.session_id
            );
            ensure!(
                row.display_name == lease.name,
                "I10",
                "{id} is {}, its row {}",
                lease.name,
                row.display_name
            );
            ensure!(
                row.visible == lease.visible,
                "I10",
                "{id} visible={}, its row not",
                lease.visible
            );
            let groups: Vec<&str> = row.groups.iter().map(|group| &*group.name).collect();
            ensure!(
                groups == lease.groups,
                "I10",
                "{id} is in {:?}, its row in {groups:?}",
                lease.groups
            );
            let working = lease.working_until.is_some();
            ensure!(
                working || row.status == lease.status,
                "I10",
                "{id} is {:?}, its row {:?}",
                lease.status,
                row.status
            );
        }
        self.watch_rows_agree(tables)?;
        self.schedule_rows_agree(tables)?;
        self.server_rows_agree(tables)?;
        let open = tables
            .presences
            .iter()
            .filter(|(_, presence)| presence.ended.is_none());
        for (id, _) in open {
            ensure!(
                self.leases.contains_key(id),
                "I10",
                "{id} is gone and its row is open"
            );
        }
        Ok(())
    }
}

impl super::model::MemberModel {
    pub(crate) fn take(&mut self, row: &holdfast_core::rows::MemberRow) {
        self.name.clone_from(&row.display_name);
        self.admin = row.admin;
        self.revoked = row.revoked_at.is_some();
        let caps = |caps: &[String], cap: &str| caps.iter().any(|own| own == cap);
        self.grants = row
            .grants
            .iter()
            .map(|(key, own)| (*key, caps(own, "dm"), caps(own, "broadcast")))
            .collect();
    }
}
