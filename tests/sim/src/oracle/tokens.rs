//! Resume tokens: which stand for a signature, and which do not.

use std::collections::BTreeMap;

use super::Oracle;
use crate::said::HelloSaid;

/// Longest time since a signature for which a token must serve: attestations last hours.
const SURE: i64 = 3_600_000;

/// What was given out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// Token to presence, and to the process that gave it.
    issued: BTreeMap<String, (String, u64)>,
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
        // A crash may have lost the row of the attachment that used it up.
        (last && here && fresh, last || !here)
    }

    /// A session was welcomed, perhaps with a token.
    pub(crate) fn token_given(&mut self, id: &str, said: &HelloSaid, token: Option<&str>) {
        let given = &mut self.tokens_given;
        if said.wrong.is_none() && said.token.is_none() {
            given.signed.insert(id.to_owned(), self.now.wall.0);
        }
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
            given
                .last
                .entry(id.to_owned())
                .or_default()
                .push(token.to_owned());
        }
    }
}
