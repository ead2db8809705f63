//! What a broker that was killed still owes the sessions that come back.
//!
//! A session that was in grace is owed what it was owed before. One that was online is taken to
//! have heard all news of presences, and gets the messages that it had not confirmed when its
//! cursor was last written down. Ends that are durable and were not told are told by the next
//! broker, once.

use std::collections::BTreeSet;

use super::ledger::{Entry, Ledger, News, What};
use super::mail::Fate;
use super::model::Lease;
use super::told::Due;
use super::{Oracle, Verdict, ensure};
use crate::disk::Tables;
use crate::disk::tables::Presence;

/// What is kept of a process that died.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survivors {
    /// Which process it was.
    pub(crate) life: u64,
    /// Ends that the next broker tells, with the order before which sessions hear of it.
    pub(crate) untold: std::collections::BTreeMap<String, (u64, Box<Lease>)>,
}

impl Oracle {
    /// The process dies; called while its leases are still known.
    pub(crate) fn news_died(&mut self) {
        self.reading.clear();
        for (_, sure) in self.known.values_mut() {
            *sure = false;
        }
        self.leave_news();
    }

    /// What others are still to be told is left to the next broker.
    pub(crate) fn leave_news(&mut self) {
        for due in std::mem::take(&mut self.waiting).into_values() {
            if let Due::Left { id, before, lease } = due {
                self.survivors.untold.insert(id, (before, lease));
            }
        }
    }

    /// A process begins: what of the news is durable is owed on.
    pub(crate) fn news_restored(&mut self, tables: &Tables) -> Verdict {
        let life = self.survivors.life;
        for news in &self.news {
            if let (What::Left, true, Some(lease)) = (news.what, news.life == life, &news.lease) {
                let untold = (news.before.saturating_sub(1), lease.clone());
                self.survivors.untold.insert(news.of.clone(), untold);
            }
        }
        self.survivors.untold.retain(|id, _| {
            tables.presences.get(id).is_some_and(|presence| {
                presence.ended.is_some() && presence.row.joined.is_some() && presence.left.is_none()
            })
        });
        // Whose member was revoked meanwhile is not restored: that is an end, too.
        let revoked = |of: &&Presence| {
            let member = tables.members.iter().find(|m| m.id == of.row.member_id);
            of.ended.is_none() && member.is_some_and(|m| m.revoked_at.is_some())
        };
        for of in tables.presences.values().filter(revoked) {
            let lease = Box::new(self.lease_of_row(&of.row)?);
            if of.row.joined.is_some() {
                let untold = (u64::MAX / 2, lease);
                self.survivors.untold.insert(of.row.id.clone(), untold);
            }
        }
        // An end that was told while the disk failed did not happen.
        let there = |id: &String| {
            tables
                .presences
                .get(id)
                .is_some_and(|of| of.ended.is_none())
        };
        self.shared_again(tables);
        self.servers_again(tables);
        for news in &mut self.news {
            match news.what {
                What::Joined => news.over &= !there(&news.of),
                // Which of them its row has is not known.
                What::Shown(shown) => news.over = !may_be_shown(tables, &news.of, shown),
                What::Message(_)
                | What::Left
                | What::Set(..)
                | What::Data(..)
                | What::Served(..) => {}
            }
        }
        // Whose join is not in its row may have been told by nobody.
        self.joins.retain(|id, _| {
            let of = tables.presences.get(id);
            of.is_some_and(|of| of.row.joined.is_some())
        });
        self.logs_restarted(tables);
        let mut ledgers = std::mem::take(&mut self.ledgers);
        // Whose end was told while the disk failed is there again.
        let present = tables.presences.iter().filter(|(_, of)| of.ended.is_none());
        for (id, _) in present {
            ledgers.entry(id.clone()).or_insert_with(|| Ledger {
                cursor: (0, self.news.len()),
                crashes: 1,
                ..Ledger::default()
            });
        }
        for (id, ledger) in &mut ledgers {
            self.account_restored(id, ledger, tables);
        }
        self.ledgers = ledgers;
        self.survivors.life += 1;
        Ok(())
    }

    fn account_restored(&self, id: &str, ledger: &mut Ledger, tables: &Tables) {
        let own = tables.presences.get(id);
        let away = own.filter(|own| own.row.lease_until.is_some());
        let online = away.is_none();
        // Its row is of an earlier grace: it has nothing of the socket it had since, and of what
        // that was told.
        let torn = away.is_some_and(|own| ledger.known != Some(own.row.known));
        ledger.crashes += 1;
        // What its row has is what counts.
        ledger.taken = None;
        // What was told again and again, by brokers that died before they could say so, has many
        // places; which of them a row knows is not modelled.
        let vague = torn || ledger.crashes > 1;
        // What it passed over is not in its row.
        let mut passed = std::mem::take(&mut ledger.passed);
        passed.values_mut().for_each(|known| *known = false);
        let mut durable = |entry: &mut Entry| {
            let news = &self.news[entry.news];
            if self.told_again(entry.news) {
                return false;
            }
            let of = tables.presences.get(&news.of);
            // It may have been put back from its row.
            entry.sure &= !std::mem::take(&mut entry.gone);
            entry.sure &= entry.news >= self.logs[news.mesh].dropped.1;
            entry.sure &= !vague || matches!(news.what, What::Message(_));
            match news.what {
                // Only its row is there of a key; of what was published there is none.
                What::Set(..) => !news.over,
                What::Data(..) => false,
                What::Served(..) => {
                    entry.sure = false;
                    !online && !news.over
                }
                What::Message(index) => {
                    let message = &self.messages[index];
                    entry.sure &= message.fate == Fate::Acked;
                    !message.lost
                }
                // What is told again is news again.
                What::Joined => {
                    entry.heard |= online;
                    if vague && std::mem::take(&mut entry.ever) {
                        passed.insert(entry.news, false);
                    }
                    of.is_some_and(|of| of.row.joined.is_some())
                }
                What::Left => {
                    entry.heard |= online;
                    entry.sure &= !torn;
                    of.is_some_and(|of| of.left.is_some())
                }
                What::Shown(shown) => {
                    // Its row may not have been written.
                    entry.sure = false;
                    !online && may_be_shown(tables, &news.of, shown)
                }
            }
        };
        ledger.done.retain_mut(&mut durable);
        let mut due: Vec<Entry> = ledger.due.drain(..).collect();
        due.retain_mut(&mut durable);
        let listed: BTreeSet<usize> = due
            .iter()
            .chain(&ledger.done)
            .map(|entry| entry.news)
            .collect();
        // The cursor on disk is a little behind: these may come again.
        for (place, news) in self.news.iter().enumerate() {
            if self.comes_again(id, place, news, tables) && !listed.contains(&place) {
                due.push(Entry {
                    news: place,
                    sure: false,
                    ever: !vague,
                    gone: false,
                    heard: false,
                });
                if vague {
                    passed.insert(place, false);
                }
            }
        }
        ledger.passed = passed;
        due.sort_by_key(|entry| entry.news);
        ledger.cursor.0 = due
            .first()
            .map_or(ledger.cursor.0, |entry| ledger.cursor.0.min(entry.news));
        ledger.due = due.into();
        if vague {
            ledger.cursor.0 = 0;
        }
    }

    /// Whether a join or leave was told once more since, after a crash: that counts.
    fn told_again(&self, place: usize) -> bool {
        let news = &self.news[place];
        let same = |other: &News| other.what == news.what && other.of == news.of;
        matches!(news.what, What::Joined | What::Left) && self.news[place + 1..].iter().any(same)
    }

    /// Whether a restored session may be told something that it had confirmed: by the places in its
    /// row and in the row of what it was told.
    fn comes_again(&self, id: &str, place: usize, news: &News, tables: &Tables) -> bool {
        let mesh = &self.plan.town.meshes[news.mesh].id;
        let own = tables.presences.get(id).map(|own| &own.row);
        let Some(own) = own.filter(|own| own.mesh_id == *mesh) else {
            return false;
        };
        let of = tables.presences.get(&news.of);
        let (at, from) = match news.what {
            What::Message(index) => {
                let seq = self.messages[index].seq;
                let row = seq.and_then(|seq| tables.messages.get(&seq));
                (row.and_then(|row| row.position), own.cursor)
            }
            What::Set(key, _) => {
                let row = super::sharing::state_row(self, tables, news.mesh, key);
                (
                    row.filter(|_| !news.over).map(|row| row.position),
                    own.cursor,
                )
            }
            What::Data(..) => return false,
            _ if own.lease_until.is_none() || self.told_again(place) => return false,
            What::Joined => {
                let last = self.joins.get(&news.of) == Some(&place);
                let at = of.and_then(|of| of.row.joined).filter(|_| last);
                (at, own.cursor.max(own.heard))
            }
            What::Served(_, name) => {
                let row = self.server_row(tables, (news.mesh, name));
                let at = row.filter(|_| !news.over).map(|row| row.told.0);
                (at, own.cursor.max(own.heard))
            }
            What::Left => (of.and_then(|of| of.left), own.cursor.max(own.heard)),
            What::Shown(_) => {
                let last = !news.over;
                let at = of.and_then(|of| of.row.shown).filter(|_| last);
                (at, own.cursor.max(own.heard))
            }
        };
        at.is_some_and(|at| at > from)
    }

    /// The account of a restored session, which has no socket yet.
    pub(crate) fn account_of_restored(&mut self, id: &str) {
        let Some(lease) = self.leases.get(id) else {
            return;
        };
        // What this broker has said already, while it started.
        let said = self.news.iter().enumerate().rev();
        let mut owed: Vec<usize> = said
            .take_while(|(_, news)| news.life == self.survivors.life)
            .filter(|(_, news)| self.sees(id, lease, news))
            .map(|(place, _)| place)
            .collect();
        owed.reverse();
        // Its log may have dropped some of it already.
        let dropped = self.logs[lease.mesh].dropped;
        let fresh = Ledger::new(self.news.len());
        let ledger = self.ledgers.entry(id.to_owned()).or_insert(fresh);
        let news = |news| Entry {
            news,
            sure: news >= dropped.1,
            ever: false,
            gone: news < dropped.0,
            heard: false,
        };
        ledger.due.extend(owed.into_iter().map(news));
    }

    /// Which place in the order in which leases began a restored one has.
    pub(crate) fn order_of_restored(&mut self, id: &str) -> u64 {
        self.order += 1;
        let fresh = self.order;
        *self.orders.entry(id.to_owned()).or_insert(fresh)
    }

    /// The boot is over: who was not restored is owed nothing.
    pub(crate) fn accounts_kept(&mut self) {
        self.ledgers.retain(|id, _| self.leases.contains_key(id));
        self.subscriptions_kept();
        self.watches_kept();
    }

    /// Every end of an earlier process that was to be told was.
    pub(crate) fn all_told(&self) -> Verdict {
        let left = self.survivors.untold.keys().next();
        ensure!(
            left.is_none(),
            "I3",
            "the end of {left:?} was durable before a crash and was never told"
        );
        Ok(())
    }
}

/// Whether a presence may be in its row as having shown or hidden itself.
fn may_be_shown(tables: &Tables, of: &str, shown: bool) -> bool {
    let of = tables.presences.get(of).filter(|of| of.ended.is_none());
    of.is_some_and(|of| of.row.shown.is_some() && of.row.visible == shown)
}
