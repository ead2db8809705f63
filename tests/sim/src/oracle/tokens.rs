//! Resume tokens: which stand for a signature, and which do not.

use std::collections::{BTreeMap, BTreeSet};

use super::Oracle;
use crate::said::HelloSaid;
use crate::town::Kind;

/// Longest time since a signature for which a token must serve: attestations last hours.
const SURE: i64 = 3_600_000;

/// What was given out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// Token to presence, and to the process that gave it.
    issued: BTreeMap<String, (String, u64)>,
    /// Between which times, by the wall clock, a token runs out.
    ends: BTreeMap<String, (i64, i64)>,
    /// Whether a token was said before it ran out: for sure, perhaps.
    in_time: BTreeMap<String, (bool, bool)>,
    /// The first and the last end of the attestations of a presence.
    attested: BTreeMap<String, (i64, i64)>,
    /// Of a presence, the ends of all attestations that were good.
    proven: BTreeSet<(String, i64)>,
    /// Presence to the tokens given since it attached last.
    last: BTreeMap<String, Vec<String>>,
    /// When the signature of a presence was last checked, by the wall clock.
    signed: BTreeMap<String, i64>,
}

impl Oracle {
    /// Whether the token of a hello stands for its signature: for sure, perhaps.
    pub(crate) fn resumes(&self, said: &HelloSaid) -> (bool, bool) {
        let Some(token) = &said.token else {
            return (false, false);
        };
        let Some((id, life)) = self.tokens_given.issued.get(token) else {
            return (false, false);
        };
        if self.lease_of(&said.who) != Some(id) {
            return (false, false);
        }
        if self.scratch.token.as_ref() == Some(token) {
            return (true, true);
        }
        let last = self.tokens_given.last.get(id);
        let last = last.is_some_and(|last| last.contains(token));
        let here = *life == self.survivors.life;
        let signed = self.tokens_given.signed.get(id).copied();
        let fresh = signed.is_some_and(|at| (self.now.wall.0 - at).abs() < SURE);
        let in_time = &self.tokens_given.in_time;
        let (early, perhaps) = in_time.get(token).copied().unwrap_or_default();
        // A crash may have lost the row of the attachment that used it up.
        (last && here && fresh && early, (last || !here) && perhaps)
    }

    /// A hello was said: whether its token has run out is seen where it is said.
    pub(crate) fn token_heard(&mut self, said: &HelloSaid) {
        let now = self.now.wall.0;
        let given = &mut self.tokens_given;
        let ends = said.token.as_ref().and_then(|token| given.ends.get(token));
        let (Some(token), Some((first, last))) = (&said.token, ends) else {
            return;
        };
        let heard = given.in_time.entry(token.clone()).or_insert((true, false));
        heard.0 &= now < *first;
        heard.1 |= now < *last;
    }

    /// The attestation that a session brought.
    pub(crate) fn attested(&mut self, id: &str, said: &HelloSaid) {
        if said.wrong.is_some() || said.who.kind != Kind::Launched {
            return;
        }
        let (end, given) = (said.expires_at, &mut self.tokens_given);
        given.proven.insert((id.to_owned(), end));
        let (first, last) = given.attested.entry(id.to_owned()).or_insert((end, end));
        *first = end.min(*first);
        *last = end.max(*last);
    }

    /// Whether the session of a hello has brought the same attestation before: perhaps.
    pub(crate) fn is_attested(&self, said: &HelloSaid) -> bool {
        self.lease_of(&said.who).is_some_and(|id| {
            self.tokens_given
                .proven
                .contains(&(id.clone(), said.expires_at))
        })
    }

    /// A session was welcomed, perhaps with a token.
    pub(crate) fn token_given(&mut self, id: &str, said: &HelloSaid, token: Option<&str>) {
        let given = &mut self.tokens_given;
        if said.wrong.is_none() && said.token.is_none() {
            given.signed.insert(id.to_owned(), self.now.wall.0);
        }
        self.attested(id, said);
        let given = &mut self.tokens_given;
        given.last.remove(id);
        self.scratch.token.clone_from(&said.token);
        self.token_more(id, token);
    }

    /// A session was given a token.
    pub(crate) fn token_more(&mut self, id: &str, token: Option<&str>) {
        let given = &mut self.tokens_given;
        if let Some(token) = token {
            let life = self.survivors.life;
            given.issued.insert(token.to_owned(), (id.to_owned(), life));
            let forever = (i64::MAX, i64::MAX);
            let ends = given.attested.get(id).copied().unwrap_or(forever);
            given.ends.insert(token.to_owned(), ends);
            given
                .last
                .entry(id.to_owned())
                .or_default()
                .push(token.to_owned());
        }
    }
}
