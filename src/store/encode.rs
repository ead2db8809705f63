//! Columns of the file to rows of the core. The only place that knows the order of columns.
//!
//! Reading never trusts the file: a value that does not parse is an error of that row, not a
//! panic. Columns are read by position: by name, SQLite would be asked for every name of a row.

use std::collections::BTreeMap;

use rusqlite::types::{FromSql, Type};
use rusqlite::{Error, Row};

use crate::core::ids::{Position, PubKey, Seq, WatchId};
use crate::core::mint::MessageId;
use crate::core::rows::{
    EndedRow, Group, MemberRow, MeshRow, MessageRow, NotifyOn, Origin, PeerRole, PeerStateRow,
    PresenceRow, Priority, Restart, ScheduleRow, ServerRow, Stats, Status, StatusSource, WatchMode,
    WatchRow,
};
use crate::core::time::{Millis, Wall};

/// A column whose value is of the right type and means nothing.
#[derive(Debug, thiserror::Error)]
#[error("the value means nothing to holdfast")]
struct Meaningless;

/// Reads the columns of one row from left to right.
pub(super) struct Fields<'a, 'statement> {
    row: &'a Row<'statement>,
    at: usize,
}

impl<'a, 'statement> Fields<'a, 'statement> {
    pub(super) fn of(row: &'a Row<'statement>) -> Self {
        Self { row, at: 0 }
    }

    /// What follows a list of columns.
    pub(super) fn after(row: &'a Row<'statement>, columns: &str) -> Self {
        Self {
            row,
            at: columns.split(',').count(),
        }
    }

    pub(super) fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let value = self.row.get(self.at);
        self.at += 1;
        value
    }

    pub(super) fn parsed<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> rusqlite::Result<T> {
        let value = self.row.get_ref(self.at)?.as_str()?;
        let parsed = parse(value).ok_or_else(|| self.meaningless(Type::Text));
        self.at += 1;
        parsed
    }

    fn optional<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> rusqlite::Result<Option<T>> {
        match self.row.get_ref(self.at)?.as_str_or_null()? {
            Some(_) => self.parsed(parse).map(Some),
            None => self.next::<Option<String>>().map(|_| None),
        }
    }

    pub(super) fn optional_key(&mut self) -> rusqlite::Result<Option<PubKey>> {
        self.optional(PubKey::parse)
    }

    pub(super) fn wall(&mut self) -> rusqlite::Result<Wall> {
        self.next().map(Wall)
    }

    pub(super) fn optional_wall(&mut self) -> rusqlite::Result<Option<Wall>> {
        Ok(self.next::<Option<i64>>()?.map(Wall))
    }

    pub(super) fn count(&mut self) -> rusqlite::Result<u64> {
        u64::try_from(self.next::<i64>()?).map_err(|_| self.meaningless(Type::Integer))
    }

    fn optional_count(&mut self) -> rusqlite::Result<Option<u64>> {
        match self.row.get_ref(self.at)?.as_i64_or_null()? {
            Some(_) => self.count().map(Some),
            None => self.next::<Option<i64>>().map(|_| None),
        }
    }

    pub(super) fn position(&mut self) -> rusqlite::Result<Position> {
        self.count().map(Position)
    }

    pub(super) fn seq(&mut self) -> rusqlite::Result<Seq> {
        let rowid: i64 = self.next()?;
        u64::try_from(rowid)
            .map(Seq)
            .map_err(|_| self.meaningless(Type::Integer))
    }

    fn groups(&mut self) -> rusqlite::Result<Vec<Group>> {
        self.parsed(|json| serde_json::from_str(json).ok())
    }

    fn meaningless(&self, kind: Type) -> Error {
        Error::FromSqlConversionFailure(self.at, kind, Box::new(Meaningless))
    }
}

/// JSON of types that have no way to fail.
pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// The rowid of a sequence.
pub(super) fn rowid(seq: Seq) -> rusqlite::Result<i64> {
    i64::try_from(seq.0).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// A position, as its column has it.
pub(super) fn position(position: Position) -> rusqlite::Result<i64> {
    rowid(Seq(position.0))
}

/// A span, as its column has it.
pub(super) fn millis(span: Millis) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

/// `{<pubkey>: [cap, ...]}`.
pub(super) fn grants_json(grants: &[(PubKey, Vec<String>)]) -> rusqlite::Result<String> {
    let map: BTreeMap<String, &[String]> = grants
        .iter()
        .map(|(key, caps)| (key.to_string(), caps.as_slice()))
        .collect();
    json(&map)
}

fn parse_grants(json: &str) -> Option<Vec<(PubKey, Vec<String>)>> {
    let map: BTreeMap<String, Vec<String>> = serde_json::from_str(json).ok()?;
    map.into_iter()
        .map(|(key, caps)| Some((PubKey::parse(&key)?, caps)))
        .collect()
}

/// Columns of [`mesh`].
pub(super) const MESH: &str = "id, slug, name, self_editable";

pub(super) fn mesh(row: &Row<'_>) -> rusqlite::Result<MeshRow> {
    let fields = &mut Fields::of(row);
    Ok(MeshRow {
        id: fields.next()?,
        slug: fields.next()?,
        name: fields.next()?,
        self_editable: fields.next()?,
    })
}

/// Columns of [`member`].
pub(super) const MEMBER: &str = "id, mesh_id, peer_pubkey, display_name, role, role_tag, \
     default_groups, message_mode, revoked_at, peer_grants";

pub(super) fn member(row: &Row<'_>) -> rusqlite::Result<MemberRow> {
    let fields = &mut Fields::of(row);
    Ok(MemberRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        pubkey: fields.parsed(PubKey::parse)?,
        display_name: fields.next()?,
        admin: fields.parsed(|role| Some(role == "admin"))?,
        role_tag: fields.next()?,
        default_groups: fields.groups()?,
        message_mode: fields.next()?,
        revoked_at: fields.optional_wall()?,
        grants: fields.parsed(parse_grants)?,
    })
}

/// Columns of [`peer_state`].
pub(super) const PEER_STATE: &str = "mesh_id, member_id, groups, profile, visible, last_summary, \
     last_display_name, cumulative_stats, last_seen_at";

pub(super) fn peer_state(row: &Row<'_>) -> rusqlite::Result<PeerStateRow> {
    let fields = &mut Fields::of(row);
    Ok(PeerStateRow {
        mesh_id: fields.next()?,
        member_id: fields.next()?,
        groups: fields.groups()?,
        profile: fields.next()?,
        visible: fields.next()?,
        last_summary: fields.next()?,
        last_display_name: fields.next()?,
        stats: fields.parsed(|json| serde_json::from_str::<Stats>(json).ok())?,
        last_seen_at: fields.wall()?,
    })
}

/// Columns of [`presence_of`].
pub(super) const PRESENCE: &str = "id, mesh_id, member_id, session_id, session_pubkey, role, \
     display_name, pid, cwd, hostname, peer_type, channel, model, status, status_source, \
     status_updated_at, summary, groups, visible, profile, connected_at, last_ping_at, \
     lease_until, generation, attested_until, boot_epochs, grace, began_pos, joined_pos, \
     shown_pos, cursor_pos, heard_pos, known_pos";

#[cfg(test)]
pub(super) fn presence(row: &Row<'_>) -> rusqlite::Result<PresenceRow> {
    presence_of(&mut Fields::of(row))
}

pub(super) fn presence_of(fields: &mut Fields<'_, '_>) -> rusqlite::Result<PresenceRow> {
    Ok(PresenceRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        member_id: fields.next()?,
        session_id: fields.next()?,
        session_pubkey: fields.optional_key()?,
        role: fields.parsed(PeerRole::parse)?,
        display_name: fields.next()?,
        pid: fields.next()?,
        cwd: fields.next()?,
        hostname: fields.next()?,
        peer_type: fields.next()?,
        channel: fields.next()?,
        model: fields.next()?,
        status: fields.parsed(Status::parse)?,
        status_source: fields.parsed(StatusSource::parse)?,
        status_at: fields.wall()?,
        summary: fields.next()?,
        groups: fields.groups()?,
        visible: fields.next()?,
        profile: fields.next()?,
        connected_at: fields.wall()?,
        last_ping_at: fields.wall()?,
        lease_until: fields.optional_wall()?,
        generation: fields.next()?,
        attested_until: fields.optional_wall()?,
        boot_epochs: fields.next()?,
        grace: fields.optional_count()?.map(Millis),
        began: fields.position()?,
        joined: fields.optional_count()?.map(Position),
        shown: fields.optional_count()?.map(Position),
        cursor: fields.position()?,
        heard: fields.position()?,
        known: fields.position()?,
    })
}

/// Columns of [`restart_of`].
pub(super) const RESTART: &str = "restored_at, grace, max_grace, restart_grace, heard_pos";

pub(super) fn restart_of(fields: &mut Fields<'_, '_>) -> rusqlite::Result<Restart> {
    Ok(Restart {
        at: fields.wall()?,
        grace: fields.count().map(Millis)?,
        max_grace: fields.count().map(Millis)?,
        restart_grace: fields.count().map(Millis)?,
        heard: fields.position()?,
    })
}

/// Columns of [`ended`].
pub(super) const ENDED: &str = "id, mesh_id, member_id, session_pubkey, role, display_name, \
     began_pos, ended_pos, joined_pos, left_pos, disconnected_at";

pub(super) fn ended(row: &Row<'_>) -> rusqlite::Result<EndedRow> {
    let fields = &mut Fields::of(row);
    Ok(EndedRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        member_id: fields.next()?,
        session_pubkey: fields.optional_key()?,
        role: fields.parsed(PeerRole::parse)?,
        display_name: fields.next()?,
        began: fields.position()?,
        ended: fields.position()?,
        joined: fields.optional_count()?.map(Position),
        left: fields.optional_count()?.map(Position),
        ended_at: fields.wall()?,
    })
}

/// Columns of [`message`].
pub(super) const MESSAGE: &str = "seq, id, mesh_id, sender_member_id, sender_member_pubkey, \
     sender_session_pubkey, sender_name, target_spec, priority, nonce, ciphertext, created_at, \
     delivered_at, client_message_id, request_fingerprint, reply_to_id, position, deferred, origin";

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    let fields = &mut Fields::of(row);
    Ok(MessageRow {
        seq: fields.seq()?,
        id: fields.parsed(MessageId::parse)?,
        mesh_id: fields.next()?,
        sender_member_id: fields.next()?,
        sender_member_pubkey: fields.parsed(PubKey::parse)?,
        sender_session_pubkey: fields.optional_key()?,
        sender_name: fields.next()?,
        target_spec: fields.next()?,
        priority: fields.parsed(Priority::parse)?,
        nonce: fields.next()?,
        ciphertext: fields.next()?,
        created_at: fields.wall()?,
        delivered_at: fields.optional_wall()?,
        client_message_id: fields.next()?,
        request_fingerprint: fields.next()?,
        reply_to_id: fields.next()?,
        position: fields.optional_count()?.map(Position),
        deferred: fields.next()?,
        origin: fields.optional(Origin::parse)?.unwrap_or_default(),
        post: None,
    })
}

/// Columns of [`server`].
pub(super) const SERVER: &str = "mesh_id, name, member_id, role, session_pubkey, host_pos, \
     offline_since, hosted_by, description, tools, persistent, told_pos, told_at";

pub(super) fn server(row: &Row<'_>) -> rusqlite::Result<ServerRow> {
    let fields = &mut Fields::of(row);
    Ok(ServerRow {
        mesh_id: fields.next()?,
        name: fields.next()?,
        member_id: fields.next()?,
        role: fields.parsed(PeerRole::parse)?,
        session_pubkey: fields.optional_key()?,
        host: fields.optional_count()?.map(Position),
        offline_since: fields.optional_wall()?,
        hosted_by: fields.next()?,
        description: fields.next()?,
        tools: fields.next()?,
        persistent: fields.next()?,
        told: (fields.position()?, fields.wall()?),
    })
}

/// Columns of [`schedule`].
pub(super) const SCHEDULE: &str = "id, mesh_id, member_id, presence_id, session_pubkey, \
     sender_name, send_to, target_spec, message, deliver_at, cron, reminder, fired_count, created_at";

pub(super) fn schedule(row: &Row<'_>) -> rusqlite::Result<ScheduleRow> {
    let fields = &mut Fields::of(row);
    Ok(ScheduleRow {
        id: fields.next()?,
        mesh_id: fields.next()?,
        member_id: fields.next()?,
        presence_id: fields.next()?,
        session_pubkey: fields.optional_key()?,
        sender_name: fields.next()?,
        to: fields.next()?,
        target_spec: fields.next()?,
        message: fields.next()?,
        deliver_at: fields.wall()?,
        cron: fields.next()?,
        reminder: fields.next()?,
        fired_count: fields.next()?,
        created_at: fields.wall()?,
    })
}

/// Columns of [`watch`].
pub(super) const WATCH: &str = "began_pos, id, mesh_id, url, mode, extract, interval, notify_on, \
     headers, label, value, created_at";

pub(super) fn watch(row: &Row<'_>) -> rusqlite::Result<WatchRow> {
    let fields = &mut Fields::of(row);
    Ok(WatchRow {
        began: fields.position()?,
        id: fields.parsed(WatchId::parse)?,
        mesh_id: fields.next()?,
        url: fields.next()?,
        mode: fields.parsed(WatchMode::parse)?,
        extract: fields.next()?,
        interval: fields.count().map(Millis)?,
        notify_on: fields.parsed(NotifyOn::parse)?,
        headers: fields.parsed(|json| serde_json::from_str(json).ok())?,
        label: fields.next()?,
        value: fields.next()?,
        created_at: fields.wall()?,
    })
}
