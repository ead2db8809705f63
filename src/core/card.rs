//! What a session shows of its client: all texts of it in one place. Of a million sessions nearly
//! all are idle, and most of their texts are never read: they are kept small, not handy.

use std::iter;
use std::ops::Deref;

use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::packing::{self, Id};
use crate::rows::Group;

/// The texts of a session, unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// Its public name; stays the same as long as the lease.
    pub(crate) presence_id: Box<str>,
    pub(crate) session_id: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) summary: Option<Box<str>>,
    pub(crate) hostname: Option<Box<str>>,
    pub(crate) peer_type: Option<Box<str>>,
    pub(crate) channel: Option<Box<str>>,
    pub(crate) model: Option<Box<str>>,
    /// Its working directory.
    pub(crate) cwd: Box<str>,
    pub(crate) groups: Vec<Group>,
    /// The client's process id.
    pub(crate) pid: i64,
}

/// The texts of a session. A byte that says which of its ids are [packed](crate::packing); then in
/// the order of [`Field`], then a name and a role per group, each as its length plus one (7 bits a
/// byte, low first, the high bit says that more follow; 0 is none) and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Card(Bytes);

/// Most bytes of a card that lies within its session: names, ids, a host, a directory and a group
/// fit. An allocation of its own would outlive those that a hello needs for a moment, and hold the
/// memory around it: among a million sessions, more than the card itself takes.
const INLINE: usize = 142;

#[derive(Clone, Debug)]
enum Bytes {
    Inline(u8, [u8; INLINE]),
    Long(Box<[u8]>),
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE => {
                let mut inline = [0; INLINE];
                inline[..bytes.len()].copy_from_slice(&bytes);
                Self::Inline(len, inline)
            }
            Ok(_) | Err(_) => Self::Long(bytes.into()),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// The place of a text.
#[derive(Clone, Copy, Debug)]
enum Field {
    PresenceId,
    SessionId,
    Name,
    Summary,
    Hostname,
    PeerType,
    Channel,
    Model,
    Cwd,
    Pid,
    /// Behind all others.
    Groups,
}

/// In the first byte: the presence id is packed …
const PACKED_PRESENCE_ID: u8 = 1;
/// … the session id is a packed UUID …
const UUID_SESSION_ID: u8 = 2;
/// … or a packed key, as clients without a better one name themselves by.
const KEY_SESSION_ID: u8 = 4;

impl Card {
    /// Packs.
    pub(crate) fn of(details: &Details) -> Self {
        let presence_id = packing::base62(&details.presence_id);
        let uuid = packing::uuid(&details.session_id);
        let key = packing::key(&details.session_id);
        let pid = details.pid.to_le_bytes();
        let pid = pid.get(..significant(&pid)).unwrap_or_default();
        let parts = || {
            let fixed: [Option<&[u8]>; Field::Groups as usize] = [
                Some(match &presence_id {
                    Some(packed) => packed,
                    None => details.presence_id.as_bytes(),
                }),
                Some(match (&uuid, &key) {
                    (Some(packed), _) => packed,
                    (None, Some(packed)) => packed,
                    (None, None) => details.session_id.as_bytes(),
                }),
                Some(details.name.as_bytes()),
                bytes_of(&details.summary),
                bytes_of(&details.hostname),
                bytes_of(&details.peer_type),
                bytes_of(&details.channel),
                bytes_of(&details.model),
                Some(details.cwd.as_bytes()),
                Some(pid),
            ];
            let groups = details.groups.iter();
            let groups =
                groups.flat_map(|group| [Some(group.name.as_bytes()), bytes_of(&group.role)]);
            fixed.into_iter().chain(groups)
        };
        // Asked for at its size, so that nothing is left over beside it.
        let mut bytes = Vec::with_capacity(1 + parts().map(packed_len).sum::<usize>());
        let flag = |packed: bool, flag| if packed { flag } else { 0 };
        bytes.push(
            flag(presence_id.is_some(), PACKED_PRESENCE_ID)
                | flag(uuid.is_some(), UUID_SESSION_ID)
                | flag(key.is_some(), KEY_SESSION_ID),
        );
        for part in parts() {
            put(&mut bytes, part);
        }
        Self(bytes.into())
    }

    /// Unpacks.
    pub(crate) fn details(&self) -> Details {
        let text = |text: Option<&str>| text.map(Into::into);
        Details {
            presence_id: (&*self.presence_id()).into(),
            session_id: (&*self.session_id()).into(),
            name: self.name().into(),
            summary: text(self.summary()),
            hostname: text(self.hostname()),
            peer_type: text(self.peer_type()),
            channel: text(self.channel()),
            model: text(self.model()),
            cwd: self.cwd().into(),
            groups: self.groups().to_vec(),
            pid: self.pid(),
        }
    }

    /// Changes something.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Details) -> T) -> T {
        let mut details = self.details();
        let result = change(&mut details);
        *self = Self::of(&details);
        result
    }

    /// Its public name.
    pub(crate) fn presence_id(&self) -> Id<'_> {
        if self.has(PACKED_PRESENCE_ID) {
            Id::of_base62(self.part(Field::PresenceId))
        } else {
            Id::as_is(self.text(Field::PresenceId))
        }
    }

    pub(crate) fn session_id(&self) -> Id<'_> {
        if self.has(UUID_SESSION_ID) {
            Id::of_uuid(self.part(Field::SessionId))
        } else if self.has(KEY_SESSION_ID) {
            Id::of_key(self.part(Field::SessionId))
        } else {
            Id::as_is(self.text(Field::SessionId))
        }
    }

    /// The client's process id.
    pub(crate) fn pid(&self) -> i64 {
        let mut pid = [0; 8];
        for (place, byte) in pid.iter_mut().zip(self.part(Field::Pid)) {
            *place = *byte;
        }
        i64::from_le_bytes(pid)
    }

    pub(crate) fn name(&self) -> &str {
        self.text(Field::Name).unwrap_or_default()
    }

    pub(crate) fn summary(&self) -> Option<&str> {
        self.text(Field::Summary)
    }

    pub(crate) fn hostname(&self) -> Option<&str> {
        self.text(Field::Hostname)
    }

    pub(crate) fn peer_type(&self) -> Option<&str> {
        self.text(Field::PeerType)
    }

    pub(crate) fn channel(&self) -> Option<&str> {
        self.text(Field::Channel)
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.text(Field::Model)
    }

    pub(crate) fn cwd(&self) -> &str {
        self.text(Field::Cwd).unwrap_or_default()
    }

    pub(crate) fn groups(&self) -> Groups<'_> {
        Groups(self.from(Field::Groups))
    }

    fn has(&self, flag: u8) -> bool {
        self.0.first().is_some_and(|flags| flags & flag != 0)
    }

    fn text(&self, field: Field) -> Option<&str> {
        take(&mut self.from(field))
    }

    fn part(&self, field: Field) -> &[u8] {
        raw(&mut self.from(field)).unwrap_or_default()
    }

    fn from(&self, field: Field) -> &[u8] {
        let mut bytes = self.0.get(1..).unwrap_or_default();
        for _ in 0..field as usize {
            skip(&mut bytes);
        }
        bytes
    }
}

/// The groups of a session, as it names them.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a>(&'a [u8]);

impl<'a> Groups<'a> {
    /// Their names and roles.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut bytes = self.0;
        iter::from_fn(move || {
            let name = take(&mut bytes)?;
            Some((name, take(&mut bytes)))
        })
    }

    pub(crate) fn to_vec(self) -> Vec<Group> {
        let group = |(name, role): (&str, Option<&str>)| Group {
            name: name.into(),
            role: role.map(Into::into),
        };
        self.iter().map(group).collect()
    }
}

impl Serialize for Groups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct One<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            role: Option<&'a str>,
        }

        let mut seq = serializer.serialize_seq(None)?;
        for (name, role) in self.iter() {
            seq.serialize_element(&One { name, role })?;
        }
        seq.end()
    }
}

/// Bytes of a number, low first, that are not merely the zeros at its end.
fn significant(number: &[u8]) -> usize {
    number
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

fn bytes_of(text: &Option<Box<str>>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes)
}

fn length_of(part: Option<&[u8]>) -> usize {
    part.map_or(0, |part| part.len() + 1)
}

fn packed_len(part: Option<&[u8]>) -> usize {
    let digits = (length_of(part) | 1).ilog2() / 7 + 1;
    digits as usize + part.map_or(0, <[u8]>::len)
}

fn put(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    let mut length = length_of(part);
    while length > 0x7f {
        bytes.push(0x80 | u8::try_from(length & 0x7f).unwrap_or(0));
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap_or(0));
    bytes.extend_from_slice(part.unwrap_or_default());
}

/// The bytes of the first text.
fn raw<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0_usize, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (text, rest) = bytes.split_at_checked(length.checked_sub(1)?)?;
    *bytes = rest;
    Some(text)
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    // Only texts were put in.
    raw(bytes).and_then(|text| std::str::from_utf8(text).ok())
}

fn skip(bytes: &mut &[u8]) {
    let _skipped = raw(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Box<str>> {
        prop_oneof![".{0,5}", ".{120,135}", ".{0,20000}"].prop_map(Into::into)
    }

    fn id() -> impl Strategy<Value = Box<str>> {
        prop_oneof![
            "[0-9A-Za-z]{32}",
            "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        ]
        .prop_map(Into::into)
    }

    fn group() -> impl Strategy<Value = Group> {
        (text(), proptest::option::of(text())).prop_map(|(name, role)| Group { name, role })
    }

    fn details() -> impl Strategy<Value = Details> {
        let some = || proptest::option::of(text());
        let groups = proptest::collection::vec(group(), 0..4);
        let id = || prop_oneof![text(), id()];
        let names = (id(), id(), text(), text());
        let rest = (some(), some(), some(), some(), some());
        (names, rest, groups, any::<i64>()).prop_map(
            |((presence_id, session_id, name, cwd), rest, groups, pid)| {
                let (summary, hostname, peer_type, channel, model) = rest;
                Details {
                    presence_id,
                    session_id,
                    name,
                    summary,
                    hostname,
                    peer_type,
                    channel,
                    model,
                    cwd,
                    groups,
                    pid,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_packed_is_unpacked(details in details()) {
            let card = Card::of(&details);
            let written = serde_json::to_string(&card.groups()).unwrap();
            prop_assert_eq!(written, serde_json::to_string(&details.groups).unwrap());
            prop_assert_eq!(card.details(), details);
        }
    }

    #[test]
    fn a_card_is_asked_for_at_its_size() {
        let texts = [0, 0x7e, 0x7f, 0x3ffe, 0x3fff].map(|n| "x".repeat(n));
        for text in texts.iter().map(|text| Some(text.as_bytes())).chain([None]) {
            let mut bytes = Vec::new();
            put(&mut bytes, text);
            assert_eq!(bytes.len(), packed_len(text));
        }
    }

    #[test]
    fn what_most_sessions_show_lies_within_them() {
        let card = Card::of(&Details {
            presence_id: "z".repeat(32).into(),
            session_id: "a".repeat(64).into(),
            name: "session 999999".into(),
            hostname: Some("workstation".into()),
            peer_type: Some("ai".into()),
            model: Some("claude".into()),
            cwd: "/home/user/projects/holdfast".into(),
            groups: vec![Group {
                name: "backend".into(),
                role: None,
            }],
            pid: 999_999,
            ..Details::default()
        });
        assert!(
            matches!(card.0, Bytes::Inline(..)),
            "{} bytes",
            card.0.len()
        );
    }

    #[test]
    fn a_change_leaves_the_rest_alone() {
        let mut card = Card::of(&Details {
            name: "alice".into(),
            model: Some("m".into()),
            ..Details::default()
        });
        card.change(|details| details.summary = Some("at work".into()));
        assert_eq!(card.summary(), Some("at work"));
        assert_eq!((card.name(), card.model()), ("alice", Some("m")));
        assert_eq!(card.hostname(), None);
        assert_eq!(card.groups().iter().count(), 0);
    }
}
