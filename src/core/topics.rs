//! The topics of a mesh and who is in them (protocol.md §20): few and small, so all are in memory.
//! What is said in them is not.

use std::collections::BTreeMap;

use crate::limits::{TOPIC_MEMBERS_MAX, TOPICS_MAX};
use crate::peer::MemberIx;
use crate::rows::{TopicMemberRow, TopicRole, TopicRow, Visibility};
use crate::time::Wall;

/// Index of a topic in its mesh; topics are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicIx(u32);

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) description: Option<Box<str>>,
    pub(crate) visibility: Visibility,
    pub(crate) created_at: Wall,
    pub(crate) members: BTreeMap<MemberIx, Membership>,
}

/// That a member is in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) role: TopicRole,
    pub(crate) joined_at: Wall,
    pub(crate) last_read_at: Option<Wall>,
}

impl Membership {
    /// As its row says.
    pub(crate) fn of(row: &TopicMemberRow) -> Self {
        Self {
            role: row.role,
            joined_at: row.joined_at,
            last_read_at: row.last_read_at,
        }
    }
}

/// All of one mesh; see the module.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: Vec<Topic>,
    by_name: BTreeMap<Box<str>, TopicIx>,
    by_id: BTreeMap<Box<str>, TopicIx>,
    /// In all topics together.
    memberships: usize,
}

impl Topics {
    /// Whether there may be another topic.
    pub(crate) fn has_room(&self) -> bool {
        self.topics.len() < TOPICS_MAX && self.memberships < TOPIC_MEMBERS_MAX
    }

    /// A new topic, without members; None if its name or id is taken.
    pub(crate) fn add(&mut self, row: &TopicRow) -> Option<TopicIx> {
        let ix = TopicIx(u32::try_from(self.topics.len()).ok()?);
        let taken = self.by_name.contains_key(&*row.name) || self.by_id.contains_key(&*row.id);
        if taken {
            return None;
        }
        self.by_name.insert(row.name.as_str().into(), ix);
        self.by_id.insert(row.id.as_str().into(), ix);
        self.topics.push(Topic {
            id: row.id.as_str().into(),
            name: row.name.as_str().into(),
            description: row.description.as_deref().map(Into::into),
            visibility: row.visibility,
            created_at: row.created_at,
            members: BTreeMap::new(),
        });
        Some(ix)
    }

    /// The topic of that id.
    pub(crate) fn by_id(&self, id: &str) -> Option<TopicIx> {
        self.by_id.get(id).copied()
    }

    /// The topic of that name.
    pub(crate) fn by_name(&self, name: &str) -> Option<TopicIx> {
        self.by_name.get(name).copied()
    }

    /// The topic of that id, else of that name.
    pub(crate) fn find(&self, topic: &str) -> Option<TopicIx> {
        self.by_id(topic).or_else(|| self.by_name(topic))
    }

    pub(crate) fn get(&self, ix: TopicIx) -> Option<&Topic> {
        self.topics.get(ix.0 as usize)
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values().filter_map(|ix| self.get(*ix))
    }

    /// Whether a member is in a topic.
    pub(crate) fn has(&self, ix: TopicIx, member: MemberIx) -> bool {
        self.get(ix)
            .is_some_and(|topic| topic.members.contains_key(&member))
    }

    /// A member is in a topic, as it says from now on; false if too many are.
    #[must_use]
    pub(crate) fn put(&mut self, ix: TopicIx, member: MemberIx, membership: Membership) -> bool {
        let full = self.memberships >= TOPIC_MEMBERS_MAX;
        let Some(topic) = self.topics.get_mut(ix.0 as usize) else {
            return false;
        };
        if full && !topic.members.contains_key(&member) {
            return false;
        }
        let new = topic.members.insert(member, membership).is_none();
        self.memberships += usize::from(new);
        true
    }

    /// A member left; false if it was not there.
    pub(crate) fn remove(&mut self, ix: TopicIx, member: MemberIx) -> bool {
        let topic = self.topics.get_mut(ix.0 as usize);
        let left = topic.is_some_and(|topic| topic.members.remove(&member).is_some());
        self.memberships -= usize::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> TopicRow {
        TopicRow {
            id: id.to_owned(),
            name: name.to_owned(),
            ..TopicRow::default()
        }
    }

    #[test]
    fn topics_are_found_by_id_before_name_and_listed_by_name() {
        let mut topics = Topics::default();
        let b = topics.add(&row("id1", "b")).unwrap();
        let a = topics.add(&row("id2", "a")).unwrap();
        let trap = topics.add(&row("id3", "id1")).unwrap();
        assert_eq!(topics.find("id1"), Some(b));
        assert_eq!(
            (topics.find("a"), topics.find("id3")),
            (Some(a), Some(trap))
        );
        assert_eq!((topics.by_id("a"), topics.find("c")), (None, None));
        assert!(topics.add(&row("id4", "a")).is_none());
        assert!(topics.add(&row("id1", "c")).is_none());
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        assert_eq!(names, ["a", "b", "id1"]);
    }

    #[test]
    fn memberships_are_counted_and_bounded() {
        let mut topics = Topics::default();
        let topic = topics.add(&row("id", "a")).unwrap();
        let membership = Membership::of(&TopicMemberRow::default());
        topics.memberships = TOPIC_MEMBERS_MAX - 1;
        assert!(topics.put(topic, MemberIx(1), membership));
        assert!(!topics.put(topic, MemberIx(2), membership));
        assert!(
            topics.put(topic, MemberIx(1), membership),
            "is in it already"
        );
        assert!(!topics.has_room());
        assert!(topics.has(topic, MemberIx(1)) && !topics.has(topic, MemberIx(2)));
        assert!(topics.remove(topic, MemberIx(1)));
        assert!(!topics.remove(topic, MemberIx(1)));
        assert_eq!(topics.memberships, TOPIC_MEMBERS_MAX - 1);
    }
}
