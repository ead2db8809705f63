//! What each session is owed of what its mesh said to many: an account per session, kept across
//! reattaches. An entry is *due* until it is written to the present socket, *done* until a
//! watermark confirms it; a new socket makes everything due again, as its net difference.
//!
//! Who may see a message is judged twice: it is written only to who may see it then; it must be
//! written to who might see it all the time since it was sent. Between the two either is right.

use std::collections::{BTreeMap, VecDeque};

use holdfast_core::ids::Position;

use super::model::Lease;
use super::servers::Served;
use super::{ConnKey, Oracle, Verdict, Violation, ensure};

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// That message.
    Message(usize),
    Joined,
    Left,
    /// It showed (true) or hid itself.
    Shown(bool),
    /// A key was set to a number.
    Set(usize, usize),
    /// A number was published to a stream.
    Data(usize, usize),
    /// A server is there, or there no more.
    Served(Served, usize),
}

/// One thing a mesh said to many. Its place in the oracle's list is its place in the order.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) mesh: usize,
    pub(crate) what: What,
    /// The session it is about, if it is about one.
    pub(crate) of: String,
    /// That session as it was.
    pub(crate) lease: Option<Box<Lease>>,
    /// Only sessions that began before are told, of servers these for sure; of what was published, only those that were
    /// subscribed before.
    pub(crate) before: u64,
    /// The message's place in the order of the broker.
    pub(crate) seq: Option<u64>,
    /// Of a join: it has ended. Of a visibility: it changed again, or its session is gone. Of a key:
    /// it was set again.
    pub(crate) over: bool,
    /// Of a leave: where the join was told, by this process.
    pub(crate) joined: Option<usize>,
    /// Which process said it, and when.
    pub(crate) life: u64,
    /// The id of its frame, once seen.
    pub(crate) id: Option<String>,
}

/// An entry of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) news: usize,
    /// It must come; else it may.
    pub(crate) sure: bool,
    /// It was written to some socket of the session.
    pub(crate) ever: bool,
    /// The log has dropped it.
    pub(crate) gone: bool,
    /// It was told before a crash, when the session was online: taken as heard.
    pub(crate) heard: bool,
}

/// A ping that was written, and what stood before it.
#[derive(Clone, Debug)]
pub(crate) struct Ping {
    pub(crate) watermark: u64,
    /// The least and the most that had been read of the news.
    pub(crate) read: (usize, usize),
    /// Direct messages that had been written to the socket.
    pub(crate) direct: Vec<usize>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// News below are confirmed: at least these, at most those.
    pub(crate) cursor: (usize, usize),
    pub(crate) due: VecDeque<Entry>,
    pub(crate) done: Vec<Entry>,
    /// Joins that a reattach passed over, as they had been taken back: their leaves are not told
    /// (true), or, after a crash or where the log was cut, may be.
    pub(crate) passed: BTreeMap<usize, bool>,
    /// Whether news were written to the present socket.
    pub(crate) wrote: bool,
    /// Bytes of news written since the last watermark came back; of them those written late.
    pub(crate) bytes: usize,
    pub(crate) late: usize,
    pub(crate) pings: Vec<Ping>,
    /// The last ping has not come back.
    pub(crate) asked: bool,
    /// Since when something has been written that no ping followed.
    pub(crate) unasked: Option<u64>,
    pub(crate) answered: u64,
    /// The last message to many that a pong to the last ping confirmed, by its place in its row.
    pub(crate) taken: Option<Position>,
    /// The cursor that was given to the store last.
    pub(crate) noted: Position,
    /// Up to where it knows the log, as the store was given it last; nothing with a socket.
    pub(crate) known: Option<Position>,
    /// Crashes since the session was last there.
    pub(crate) crashes: u32,
}

impl Ledger {
    /// Of a session that has just come.
    pub(crate) fn new(news: usize) -> Self {
        Self {
            cursor: (news, news),
            ..Self::default()
        }
    }

    /// Everything below is confirmed; what is below `most` may be.
    pub(crate) fn confirm(&mut self, least: usize, most: usize) {
        self.cursor.0 = self.cursor.0.max(least);
        self.cursor.1 = self.cursor.1.max(most).max(self.cursor.0);
        let (least, most) = self.cursor;
        self.done.retain(|entry| entry.news >= least);
        self.due.retain(|entry| entry.news >= least);
        for entry in self.done.iter_mut().chain(&mut self.due) {
            entry.sure &= entry.news >= most;
        }
    }
}

impl Oracle {
    /// Whether a session may see a piece of news now.
    pub(crate) fn sees(&self, id: &str, lease: &Lease, news: &News) -> bool {
        if lease.mesh != news.mesh {
            return false;
        }
        match (news.what, &news.lease) {
            (What::Message(index), _) => {
                let message = &self.messages[index];
                let group = match &message.target {
                    super::mail::Target::Group(group) => Some(group),
                    _ => None,
                };
                lease.who.member != message.sender_member
                    && lease.visible
                    && group.is_none_or(|group| lease.in_group(group))
                    && self.lets(
                        lease.who.member,
                        (message.sender_member, message.sender_key),
                        true,
                    )
            }
            (What::Joined | What::Left, Some(of)) => {
                news.of != id && lease.order < news.before && Self::hears(lease, of)
            }
            (What::Shown(_) | What::Set(..) | What::Served(..), _) => news.of != id,
            (What::Data(stream, _), _) => {
                let since = self.subscribed(id, stream);
                news.of != id && since.is_some_and(|since| news.before >= since)
            }
            (What::Joined | What::Left, None) => false,
        }
    }

    /// Adds a piece of news to every account of its mesh.
    pub(crate) fn publish(&mut self, news: News) -> usize {
        let place = self.news.len();
        let mut owed: Vec<(String, bool)> = Vec::new();
        for (id, lease) in self.leases.iter().filter(|(_, l)| l.mesh == news.mesh) {
            let late = matches!(news.what, What::Served(..)) && lease.order > news.before;
            let sees = self.sees(id, lease, &news);
            // A message may become theirs while they are away.
            if sees || matches!(news.what, What::Message(_)) {
                owed.push((id.clone(), sees && !late));
            }
        }
        for (id, sure) in owed {
            let entry = Entry {
                news: place,
                sure,
                ever: false,
                gone: false,
                heard: false,
            };
            self.ledgers.entry(id).or_default().due.push_back(entry);
        }
        self.remember_news(place, &news);
        self.log(place, &news);
        self.news.push(news);
        place
    }

    /// A session got a socket that has been written nothing.
    pub(crate) fn account_again(&mut self, id: &str) {
        let reach = self.reach(id);
        let Some(lease) = self.leases.get(id) else {
            return;
        };
        let Some(ledger) = self.ledgers.get_mut(id) else {
            return;
        };
        if !ledger.wrote {
            // Nothing said was for it: the broker may have noted that it knows as much.
            let least = ledger.cursor.0;
            ledger.confirm(least, reach);
        }
        let (from, maybe) = ledger.cursor;
        let mut entries: Vec<Entry> = std::mem::take(&mut ledger.done);
        entries.extend(ledger.due.drain(..));
        entries.sort_by_key(|entry| entry.news);
        let known: Vec<Entry> = entries.clone();
        entries.retain_mut(|entry| {
            let news = &self.news[entry.news];
            let told = !entry.gone
                && !entry.heard
                && match news.what {
                    What::Message(_) | What::Data(..) => true,
                    What::Joined | What::Shown(_) | What::Set(..) | What::Served(..) => !news.over,
                    What::Left => {
                        let join = news
                            .joined
                            .map(|at| (at, known.iter().find(|entry| entry.news == at)));
                        // Who was there when it came is known from lists.
                        let found = news.lease.as_ref().is_some_and(|of| of.order < lease.order);
                        match join {
                            _ if found => true,
                            None => true,
                            Some((_, Some(join))) if join.ever || join.heard => true,
                            Some((at, _)) if ledger.passed.get(&at) == Some(&true) => false,
                            Some((at, _)) if at < from => true,
                            Some((at, _)) => {
                                // A join that the log has dropped is taken to be known.
                                let dropped = self.logs[news.mesh].dropped.1;
                                let perhaps =
                                    at < maybe.max(dropped) || ledger.passed.contains_key(&at);
                                entry.sure &= !perhaps;
                                perhaps
                            }
                        }
                    }
                };
            if !told {
                if news.what == What::Joined && !entry.ever && !entry.heard {
                    // A join that the log has dropped counts as told.
                    let dropped = self.logs[news.mesh].dropped.1;
                    let known = news.over && !entry.gone && entry.news >= dropped;
                    ledger.passed.entry(entry.news).or_insert(known);
                }
                ledger.done.push(*entry);
            }
            told
        });
        ledger.due = entries.into();
        ledger.crashes = 0;
        ledger.wrote = false;
        ledger.bytes = 0;
        ledger.late = 0;
        ledger.pings.clear();
        ledger.asked = false;
        ledger.unasked = None;
    }

    /// Up to where a session has been written what it must get.
    pub(crate) fn reach(&self, id: &str) -> usize {
        let (Some(ledger), Some(lease)) = (self.ledgers.get(id), self.leases.get(id)) else {
            return self.news.len();
        };
        let must = |entry: &&Entry| entry.sure && self.sees(id, lease, &self.news[entry.news]);
        let first = ledger.due.iter().find(must);
        first.map_or(self.news.len(), |entry| entry.news)
    }

    /// What a session may be written before what it must be written next.
    pub(crate) fn perhaps_due(&self, id: &str) -> impl Iterator<Item = &News> {
        let reach = self.reach(id);
        let due = self.ledgers.get(id).into_iter().flat_map(|l| &l.due);
        due.take_while(move |entry| entry.news < reach)
            .filter_map(|entry| self.news.get(entry.news))
    }

    /// What a session must be written next, if anything.
    pub(crate) fn next_due(&self, id: &str) -> Option<&News> {
        self.news.get(self.reach(id))
    }

    /// Something said to many was written: it must be the next that the session is owed.
    pub(crate) fn news_written(
        &mut self,
        at: ConnKey,
        frame: (&str, usize),
        fits: &dyn Fn(&Self, &News) -> bool,
        name: &str,
    ) -> Verdict {
        let Some((id, _)) = self.attached(at) else {
            return Ok(());
        };
        let id = id.clone();
        loop {
            if let Some(place) = self.find_due(&id, frame.0, fits)? {
                return self.take_due(at, &id, place, frame, name);
            }
            if !self.publish_next()? {
                let known = self.news_ids.get(frame.0).map(|at| &self.news[*at].what);
                return Err(Violation::new(
                    "I2",
                    format!("{id} was told {name} for no reason; its id is of {known:?}"),
                ));
            }
        }
    }

    fn find_due(
        &self,
        id: &str,
        message_id: &str,
        fits: &dyn Fn(&Self, &News) -> bool,
    ) -> Result<Option<usize>, Violation> {
        let Some(ledger) = self.ledgers.get(id) else {
            return Ok(None);
        };
        let known = self.news_ids.get(message_id);
        let found = ledger.due.iter().position(|entry| match known {
            Some(place) => !entry.gone && self.may_be(entry.news, *place),
            None => {
                let news = &self.news[entry.news];
                let lease = self.leases.get(id);
                let sees = lease.is_some_and(|lease| self.sees(id, lease, news));
                news.id.is_none() && !entry.gone && sees && fits(self, news)
            }
        });
        if let (Some(index), Some(_)) = (found, known) {
            let news = &self.news[ledger.due[index].news];
            ensure!(
                fits(self, news),
                "I6",
                "{message_id} is the id of {:?} and was given to something else",
                news.what
            );
        }
        Ok(found)
    }

    /// Whether something said to many, which others were told under an id that is known, is this.
    fn may_be(&self, news: usize, known: usize) -> bool {
        // Who hides twice has but one place in its row: which of the two it is cannot be seen from
        // whom it was told first.
        let (news_of, known_of) = (&self.news[news], &self.news[known]);
        let twice = match known_of.what {
            What::Shown(_) | What::Served(..) => news_of.id.is_none(),
            _ => false,
        };
        news == known || twice && news_of.what == known_of.what && news_of.of == known_of.of
    }

    fn take_due(
        &mut self,
        at: ConnKey,
        id: &str,
        index: usize,
        (message_id, bytes): (&str, usize),
        name: &str,
    ) -> Verdict {
        let now = self.mono();
        let Some(lease) = self.leases.get(id) else {
            return Ok(());
        };
        let Some(ledger) = self.ledgers.get(id) else {
            return Ok(());
        };
        let news = &self.news[ledger.due[index].news];
        ensure!(
            self.sees(id, lease, news),
            "I7",
            "{id} was written {name}, which is not for it"
        );
        for entry in ledger.due.range(..index) {
            let earlier = &self.news[entry.news];
            let missing = entry.sure && self.sees(id, lease, earlier);
            ensure!(
                !missing,
                "I5",
                "{id} was written {name} before {:?} of {}",
                earlier.what,
                earlier.of
            );
        }
        self.mail_before(at, id, news.seq)?;
        let late = !self.scratch.published.contains(&ledger.due[index].news);
        ensure!(
            !late || ledger.late < super::watermarks::WALK_BYTES,
            "I8",
            "{id} was written {name} though {} bytes wait for a watermark",
            ledger.late
        );
        let Some(ledger) = self.ledgers.get_mut(id) else {
            return Ok(());
        };
        if !ledger.wrote {
            let (least, first) = (ledger.cursor.0, ledger.due[index].news);
            ledger.confirm(least, first);
        }
        for mut entry in ledger.due.drain(..=index).collect::<Vec<_>>() {
            entry.ever |= self.news[entry.news].id.as_deref() == Some(message_id);
            ledger.done.push(entry);
        }
        if let Some(entry) = ledger.done.last_mut() {
            entry.ever = true;
            let place = entry.news;
            self.news[place].id = Some(message_id.to_owned());
            self.news_ids.insert(message_id.to_owned(), place);
        }
        ledger.wrote = true;
        ledger.bytes += bytes;
        ledger.late += if late { bytes } else { 0 };
        self.counts.late += u64::from(late);
        ledger.unasked.get_or_insert(now);
        Ok(())
    }
}
