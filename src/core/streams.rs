//! A mesh's streams, and who is subscribed to them.
//!
//! A stream need not have been created to be subscribed to. Each has a number within its mesh that
//! is never given again, so that a session is asked whether it is subscribed by comparing numbers.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use crate::ids::Position;
use crate::limits::{STREAMS_BYTES_MAX, STREAMS_MAX, SUBSCRIPTIONS_MAX};
use crate::time::Wall;
use crate::wire::frames;

/// Who made a stream, and when.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    /// 32 base62.
    pub(crate) id: Box<str>,
    /// Name of the member.
    pub(crate) by: Box<str>,
    pub(crate) at: Wall,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    /// Sessions subscribed to it.
    subscribers: u32,
    /// Its place among those created, and by whom.
    created: Option<(u64, Created)>,
}

/// The streams of a mesh that were created or have subscribers. Bounded in number and in bytes:
/// what would exceed that is refused.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_name: BTreeMap<Rc<str>, Stream>,
    /// Streams so far.
    numbers: u64,
    /// Bytes of what lists say of those created.
    bytes: usize,
}

/// A stream as lists have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamEntry<'a> {
    id: &'a str,
    name: &'a str,
    created_by: &'a str,
    created_at: Wall,
    subscriber_count: u32,
}

impl Streams {
    /// The number of a stream that was created or has subscribers.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).map(|stream| stream.number)
    }

    /// Who created a stream, if anybody did.
    pub(crate) fn created(&self, name: &str) -> Option<&Created> {
        let (_, created) = self.by_name.get(name)?.created.as_ref()?;
        Some(created)
    }

    /// Whether there is room to create a stream that is not yet.
    pub(crate) fn may_create(&self, name: &str, created: &Created) -> bool {
        let known = self.by_name.contains_key(name) || self.by_name.len() < STREAMS_MAX;
        known && self.bytes + bytes_of(name, created) <= STREAMS_BYTES_MAX
    }

    /// Creates a stream that is not yet.
    pub(crate) fn create(&mut self, name: &str, created: Created) {
        let order = self.numbers;
        let bytes = bytes_of(name, &created);
        let (_, stream) = self.named(name);
        if stream.created.is_none() {
            stream.created = Some((order, created));
            self.bytes += bytes;
        }
    }

    /// Whether there is room for a subscription to that stream.
    pub(crate) fn may_enter(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.by_name.len() < STREAMS_MAX
    }

    /// One more subscriber: gives what it keeps of it.
    pub(crate) fn enter(&mut self, name: &str, since: Position) -> Subscription {
        let (stream, found) = self.named(name);
        found.subscribers += 1;
        Subscription {
            stream,
            number: found.number,
            since,
        }
    }

    /// One subscriber less; a stream that nobody created goes with its last.
    pub(crate) fn leave(&mut self, name: &str) {
        let Some(stream) = self.by_name.get_mut(name) else {
            return;
        };
        stream.subscribers = stream.subscribers.saturating_sub(1);
        if stream.subscribers == 0 && stream.created.is_none() {
            self.by_name.remove(name);
        }
    }

    /// Names of those created, in their order.
    pub(crate) fn created_names(&self) -> impl Iterator<Item = &str> {
        let created = self
            .by_name
            .iter()
            .filter(|(_, stream)| stream.created.is_some());
        created.map(|(name, _)| &**name)
    }

    /// Those created, oldest first.
    pub(crate) fn list(&self) -> Vec<StreamEntry<'_>> {
        let mut created: Vec<_> = self
            .by_name
            .iter()
            .filter_map(|(name, stream)| {
                let (order, created) = stream.created.as_ref()?;
                Some((*order, entry(name, created, stream.subscribers)))
            })
            .collect();
        created.sort_unstable_by_key(|(order, _)| *order);
        created.into_iter().map(|(_, entry)| entry).collect()
    }

    /// All subscriptions.
    #[cfg(any(test, feature = "marks"))]
    pub(crate) fn subscribers(&self) -> usize {
        let counts = self.by_name.values().map(|stream| stream.subscribers);
        counts.map(|count| count as usize).sum()
    }

    /// A stream, known from here on.
    fn named(&mut self, name: &str) -> (Rc<str>, &mut Stream) {
        let known = self.by_name.get_key_value(name);
        let key = known.map_or_else(|| name.into(), |(key, _)| Rc::clone(key));
        self.numbers += 1;
        let stream = self.by_name.entry(Rc::clone(&key)).or_insert(Stream {
            number: self.numbers,
            subscribers: 0,
            created: None,
        });
        (key, stream)
    }
}

fn entry<'a>(name: &'a str, created: &'a Created, subscriber_count: u32) -> StreamEntry<'a> {
    StreamEntry {
        id: &created.id,
        name,
        created_by: &created.by,
        created_at: created.at,
        subscriber_count,
    }
}

fn bytes_of(name: &str, created: &Created) -> usize {
    frames::encode(&entry(name, created, u32::MAX)).len()
}

/// That a session is subscribed to a stream.
#[derive(Debug)]
pub(crate) struct Subscription {
    stream: Rc<str>,
    number: u64,
    /// From there on it is told what is published.
    since: Position,
}

/// What one session is subscribed to, by number. It belongs to its lease.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    /// From where on it is told of that stream, if it is.
    pub(crate) fn since(&self, number: u64) -> Option<Position> {
        let index = self.index(number).ok()?;
        self.0.get(index).map(|subscription| subscription.since)
    }

    /// Since when it has been subscribed to anything, if it is.
    pub(crate) fn first(&self) -> Option<Position> {
        self.0.iter().map(|subscription| subscription.since).min()
    }

    /// Whether it may have no more.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= SUBSCRIPTIONS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[cfg(feature = "marks")]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes one that it does not have.
    pub(crate) fn add(&mut self, subscription: Subscription) {
        if let Err(index) = self.index(subscription.number) {
            self.0.insert(index, subscription);
        }
    }

    /// Gives up one; tells whether it had it.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let index = self.index(number);
        index.is_ok_and(|index| {
            self.0.remove(index);
            true
        })
    }

    /// The names of the streams.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|subscription| &*subscription.stream)
    }

    fn index(&self, number: u64) -> Result<usize, usize> {
        self.0
            .binary_search_by_key(&number, |subscription| subscription.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(at: i64) -> Created {
        Created {
            id: "id".into(),
            by: "alice".into(),
            at: Wall(at),
        }
    }

    fn listed(streams: &Streams) -> Vec<(String, u32)> {
        let list = streams.list().into_iter();
        list.map(|entry| (entry.name.to_owned(), entry.subscriber_count))
            .collect()
    }

    #[test]
    fn streams_are_listed_as_they_were_created() {
        let mut streams = Streams::default();
        let early = streams.enter("b", Position(1));
        streams.create("z", created(1));
        streams.create("b", created(2));
        streams.create("a", created(3));
        streams.create("z", created(4));
        let expected = [
            ("z".to_owned(), 0),
            ("b".to_owned(), 1),
            ("a".to_owned(), 0),
        ];
        assert_eq!(listed(&streams), expected);
        assert_eq!(streams.number("b"), Some(early.number));
        assert_eq!(streams.created("z").map(|z| z.at), Some(Wall(1)));
    }

    #[test]
    fn one_that_nobody_created_goes_with_its_last_subscriber() {
        let mut streams = Streams::default();
        let first = streams.enter("x", Position(1));
        streams.enter("x", Position(2));
        streams.leave("x");
        assert_eq!(streams.number("x"), Some(first.number));
        streams.leave("x");
        assert_eq!(streams.number("x"), None);
        let again = streams.enter("x", Position(3));
        assert_ne!(
            again.number, first.number,
            "what was said before is not for it"
        );
        streams.create("x", created(1));
        streams.leave("x");
        assert_eq!(streams.number("x"), Some(again.number));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut streams = Streams::default();
        for n in 0..STREAMS_MAX {
            assert!(streams.may_enter(&n.to_string()));
            streams.enter(&n.to_string(), Position(1));
        }
        assert!(!streams.may_enter("more"));
        assert!(!streams.may_create("more", &created(1)));
        assert!(streams.may_create("7", &created(1)));
    }

    #[test]
    fn subscriptions_are_kept_by_number() {
        let mut streams = Streams::default();
        let mut own = Subscriptions::default();
        let numbers: Vec<u64> = ["a", "b", "c"]
            .into_iter()
            .zip([5, 3, 9])
            .map(|(name, since)| {
                own.add(streams.enter(name, Position(since)));
                streams.number(name).unwrap()
            })
            .collect();
        assert_eq!(own.first(), Some(Position(3)));
        assert!(own.remove(numbers[1]));
        assert!(!own.remove(numbers[1]));
        assert_eq!(own.since(numbers[1]), None);
        assert_eq!(own.since(numbers[2]), Some(Position(9)));
        assert_eq!(own.names().collect::<Vec<_>>(), ["a", "c"]);
    }
}
