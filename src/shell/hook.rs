//! Status hooks: who is meant, over all meshes and loops (protocol.md §2.3).
//!
//! Must not: change a status itself; the shard where the session lives does.

use std::rc::Rc;

use serde_json::Value;

use super::ask::{ask_all, ask_one};
use super::observe;
use super::reactor::Loop;
use crate::core::input::{Answer, Ask, HookCandidate};
use crate::core::rows::Status;

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A present session took it.
    Applied(String),
    /// Kept for a session yet to come.
    Pending,
    /// Too many from that process and directory.
    Limited,
    /// No directory, or no status.
    Incomplete,
    /// Not what a hook looks like, or nobody answered.
    Failed(&'static str),
}

/// A hook's body, as far as it says anything.
pub struct Posted {
    /// Working directory of the session meant.
    pub cwd: Option<String>,
    /// What it is doing.
    pub status: Option<String>,
    /// Its process.
    pub pid: Option<i64>,
}

impl Posted {
    /// What a body says; None if it is not JSON.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(Into::into)
        };
        let pid = value.get("pid").and_then(Value::as_i64);
        Some(Self {
            cwd: text("cwd"),
            status: text("status"),
            pid,
        })
    }

    /// What its rate is counted by (protocol.md §2.3).
    #[must_use]
    pub fn bucket(&self) -> String {
        format!(
            "{}:{}",
            self.pid.unwrap_or(0),
            self.cwd.as_deref().unwrap_or_default()
        )
    }
}

/// Deals with one hook.
pub(super) async fn serve(lp: &Rc<Loop>, body: &[u8]) -> Outcome {
    observe::hook(lp.counters());
    let Some(posted) = Posted::parse(body) else {
        return Outcome::Failed("invalid JSON");
    };
    if !lp.shared.hook_allowed(&posted.bucket(), lp.mono()) {
        observe::hook_limited(lp.counters());
        return Outcome::Limited;
    }
    let (Some(cwd), Some(status)) = (posted.cwd, posted.status) else {
        return Outcome::Incomplete;
    };
    let Some(status) = Status::parse(&status) else {
        return Outcome::Failed("invalid status");
    };
    let find = Ask::HookFind {
        cwd: cwd.clone(),
        pid: posted.pid,
    };
    if let Some((shard, found)) = choose(ask_all(lp, find).await) {
        let HookCandidate {
            slot, presence_id, ..
        } = found;
        let apply = Ask::HookApply {
            slot,
            presence_id: presence_id.clone(),
            status,
        };
        if let Some(Answer::HookDone(true)) = ask_one(lp, shard, apply).await {
            return Outcome::Applied(presence_id);
        }
        // It left in between: as if it had not been found.
    }
    let pend = Ask::HookPend {
        cwd,
        pid: posted.pid.unwrap_or(0),
        status,
    };
    if ask_all(lp, pend).await.iter().all(Option::is_none) {
        return Outcome::Failed("no answer");
    }
    Outcome::Pending
}

/// The shard and presence meant: one whose process matches before one whose directory does, and
/// of these the one that came last.
fn choose(answers: Vec<Option<Answer>>) -> Option<(usize, HookCandidate)> {
    let found = |(shard, answer): (usize, Option<Answer>)| match answer? {
        Answer::HookCandidate(candidate) => Some((shard, candidate?)),
        Answer::Gauges(_)
        | Answer::Peers(_)
        | Answer::HookDone(_)
        | Answer::Edited(_)
        | Answer::Posted(_) => None,
    };
    answers
        .into_iter()
        .enumerate()
        .filter_map(found)
        .max_by_key(
            |(
                _,
                HookCandidate {
                    exact,
                    connected_at,
                    ..
                },
            )| (*exact, *connected_at),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Wall;

    fn candidate(id: &str, exact: bool, at: i64) -> Option<Answer> {
        let presence_id = id.to_owned();
        let connected_at = Wall(at);
        let found = HookCandidate {
            slot: 0,
            presence_id,
            exact,
            connected_at,
        };
        Some(Answer::HookCandidate(Some(found)))
    }

    fn chosen(answers: Vec<Option<Answer>>) -> Option<(usize, String)> {
        choose(answers).map(|(shard, found)| (shard, found.presence_id))
    }

    #[test]
    fn a_matching_process_comes_first_then_the_latest() {
        let none = Some(Answer::HookCandidate(None));
        assert_eq!(chosen(vec![none.clone(), None]), None);
        let answers = vec![candidate("a", false, 9), candidate("b", true, 1), none];
        assert_eq!(chosen(answers), Some((1, "b".into())));
        let answers = vec![candidate("a", false, 3), None, candidate("c", false, 5)];
        assert_eq!(chosen(answers), Some((2, "c".into())));
    }

    #[test]
    fn bodies_that_say_little() {
        assert!(Posted::parse(b"").is_none());
        assert!(Posted::parse(b"{").is_none());
        let posted = Posted::parse(b"[]").unwrap();
        assert_eq!((posted.bucket().as_str(), posted.status), ("0:", None));
        let posted = Posted::parse(br#"{"cwd":"/x","status":"idle","pid":7,"session_id":1}"#);
        let posted = posted.unwrap();
        assert_eq!(posted.bucket(), "7:/x");
        let posted = Posted::parse(br#"{"cwd":"","status":3,"pid":"7"}"#).unwrap();
        assert_eq!((posted.cwd, posted.status, posted.pid), (None, None, None));
    }
}
