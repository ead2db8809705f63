//! Whether a figure meets its target, and how figures and reports are put together.

use super::{Check, Figure, Report, Target, Unit};

/// What a figure's target says about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing was asked of it.
    NoTarget,
    /// It is met.
    Met,
    /// It is not: by so many percent of what was asked, if that is not zero.
    Missed(Option<f64>),
    /// It is a ratio to a floor, and there is none to divide by.
    NoFloor,
}

impl Figure {
    /// A figure without floor and target.
    pub fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            floor: None,
            target: None,
        }
    }

    /// The same beside its floor.
    #[must_use]
    pub fn floor(self, floor: f64) -> Self {
        Self {
            floor: Some(floor),
            ..self
        }
    }

    /// The same with a target.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }

    /// How many times its floor it is, if there is a floor to divide by.
    pub fn ratio(&self) -> Option<f64> {
        self.floor
            .filter(|floor| *floor > 0.0)
            .map(|floor| self.value / floor)
    }

    /// Whether its target is met. A value that is no number meets none.
    pub fn verdict(&self) -> Verdict {
        let (found, bound, most) = match self.target {
            None => return Verdict::NoTarget,
            Some(Target::AtMost(bound)) => (Some(self.value), bound, true),
            Some(Target::AtLeast(bound)) => (Some(self.value), bound, false),
            Some(Target::OfFloorAtMost(bound)) => (self.ratio(), bound, true),
            Some(Target::OfFloorAtLeast(bound)) => (self.ratio(), bound, false),
        };
        let Some(found) = found else {
            return Verdict::NoFloor;
        };
        let met = if most { found <= bound } else { found >= bound };
        if met {
            return Verdict::Met;
        }
        let share = (found - bound).abs() / bound * 100.0;
        Verdict::Missed(Some(share).filter(|share| share.is_finite()))
    }
}

impl Check {
    /// Counts it together with others of its name.
    pub fn add(all: &mut Vec<Self>, check: Self) {
        match all.iter_mut().find(|known| known.name == check.name) {
            Some(known) => {
                known.count += check.count;
                known.example = known.example.take().or(check.example);
            }
            None => all.push(check),
        }
    }
}

impl Report {
    /// The checks that failed: if there is one, so has the run.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.count > 0)
    }

    /// The figures that do not meet their target, or cannot be judged by it.
    pub fn misses(&self) -> impl Iterator<Item = &Figure> {
        self.figures
            .iter()
            .filter(|figure| matches!(figure.verdict(), Verdict::Missed(_) | Verdict::NoFloor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn judged(value: f64, floor: Option<f64>, target: Target) -> Verdict {
        Figure {
            floor,
            ..Figure::new("f", value, Unit::Nanos).target(target)
        }
        .verdict()
    }

    fn percent(verdict: Verdict) -> f64 {
        match verdict {
            Verdict::Missed(Some(percent)) => percent.round(),
            Verdict::Missed(None) | Verdict::Met | Verdict::NoTarget | Verdict::NoFloor => {
                panic!("{verdict:?}")
            }
        }
    }

    #[test]
    fn bounds_belong_to_what_is_allowed() {
        assert_eq!(judged(9.0, None, Target::AtMost(9.0)), Verdict::Met);
        assert_eq!(judged(9.0, None, Target::AtLeast(9.0)), Verdict::Met);
        assert_eq!(
            judged(3.0, Some(2.0), Target::OfFloorAtMost(1.5)),
            Verdict::Met
        );
        assert_eq!(
            judged(1.0, Some(2.0), Target::OfFloorAtLeast(0.5)),
            Verdict::Met
        );
    }

    #[test]
    fn a_miss_is_told_in_percent_of_the_bound() {
        assert_eq!(percent(judged(112.0, None, Target::AtMost(100.0))), 12.0);
        assert_eq!(percent(judged(80.0, None, Target::AtLeast(100.0))), 20.0);
        assert_eq!(
            percent(judged(3.0, Some(1.0), Target::OfFloorAtMost(2.0))),
            50.0
        );
        assert_eq!(
            percent(judged(1.0, Some(4.0), Target::OfFloorAtLeast(0.5))),
            50.0
        );
    }

    #[test]
    fn nothing_passes_for_want_of_a_number() {
        assert_eq!(
            judged(1.0, None, Target::OfFloorAtMost(9.0)),
            Verdict::NoFloor
        );
        assert_eq!(
            judged(1.0, Some(0.0), Target::OfFloorAtMost(9.0)),
            Verdict::NoFloor
        );
        assert_eq!(
            judged(f64::NAN, None, Target::AtMost(9.0)),
            Verdict::Missed(None)
        );
        assert_eq!(
            judged(f64::NAN, None, Target::AtLeast(9.0)),
            Verdict::Missed(None)
        );
        assert_eq!(
            judged(1.0, None, Target::AtMost(0.0)),
            Verdict::Missed(None)
        );
        assert_eq!(
            Figure::new("f", 1.0, Unit::Nanos).verdict(),
            Verdict::NoTarget
        );
    }

    #[test]
    fn a_report_names_what_failed() {
        let report = samples::report("storm");
        let failed: Vec<_> = report.failures().map(|check| check.name.as_str()).collect();
        assert_eq!(failed, ["peer events seen"]);
        let missed: Vec<_> = report.misses().map(|figure| figure.name.as_str()).collect();
        assert_eq!(missed, ["CPU per reattach with a resume token"]);
    }
}
