//! Joins that a session was never told of, because they had been taken back when its walk came to
//! them: it is not told of the leaves either, should its socket die before it has confirmed those.

use crate::ids::Position;
use crate::limits::PASSED_MAX;

/// What one walk came to first. Of the joins in it, those whose leave is not beyond `horizon` were
/// passed over.
#[derive(Clone, Copy, Debug)]
struct Span {
    after: Position,
    upto: Position,
    horizon: Position,
}

/// What the walks of a session passed over and its client has not confirmed. Bounded, and not in
/// the session's row: beyond it, and after a restart, a leave is told though the join was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed {
    spans: Vec<Span>,
}

impl Passed {
    /// A walk is over that came first to what is in `places`, and saw it as it was at `horizon`.
    pub(crate) fn note(&mut self, (after, upto): (Position, Position), horizon: Position) {
        if after < upto && self.spans.len() < PASSED_MAX {
            self.spans.push(Span {
                after,
                upto,
                horizon,
            });
        }
    }

    /// Whether the join there was passed over, as its leave was there already.
    pub(crate) fn holds(&self, joined: Position, left: Position) -> bool {
        self.spans
            .iter()
            .any(|span| joined > span.after && joined <= span.upto && left <= span.horizon)
    }

    /// Everything up to there is confirmed.
    pub(crate) fn confirm(&mut self, cursor: Position) {
        self.spans.retain(|span| span.horizon > cursor);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: u64) -> Position {
        Position(place)
    }

    #[test]
    fn each_join_is_judged_by_the_walk_that_came_to_it_first() {
        let mut passed = Passed::default();
        passed.note((at(10), at(20)), at(30));
        passed.note((at(20), at(40)), at(50));
        assert!(passed.holds(at(15), at(30)));
        assert!(!passed.holds(at(15), at(31)), "its join was told");
        assert!(passed.holds(at(25), at(50)));
        assert!(!passed.holds(at(10), at(30)), "known before");
        assert!(!passed.holds(at(41), at(45)), "no walk came to it");
    }

    #[test]
    fn it_is_kept_until_the_leaves_are_confirmed() {
        let mut passed = Passed::default();
        passed.note((at(10), at(20)), at(30));
        passed.confirm(at(29));
        assert!(passed.holds(at(15), at(30)));
        passed.confirm(at(30));
        assert!(passed.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut passed = Passed::default();
        for place in 0..100 {
            passed.note((at(place), at(place + 1)), at(1000));
        }
        assert_eq!(passed.spans.len(), PASSED_MAX);
    }
}
