//! Which plot a curve belongs to, and how that plot is drawn: the table in [`super::plot`].

use super::Series;
use super::axis::Scale;

/// What a plot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Memory per session by state.
    Memory,
    /// What happens after all sockets are cut.
    Storm,
    /// How long things take, and how often longer.
    Latency,
    /// What one operation costs as sessions grow.
    Cost,
}

impl Family {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Storm, Self::Latency, Self::Cost];

    /// A curve of this family, with the usual words for its axes.
    pub fn series(self, what: &str, points: Vec<(f64, f64)>) -> Series {
        let (x, y) = match self {
            Self::Memory => ("sessions", "per session (B)"),
            Self::Storm => ("time since the cut (s)", "number"),
            Self::Latency => ("percentile", "latency (ns)"),
            Self::Cost => ("present sessions", "CPU each (ns)"),
        };
        let name = format!("{}: {what}", self.name());
        Series {
            name,
            x: x.to_owned(),
            y: y.to_owned(),
            points,
        }
    }

    /// The family of a series, and what of it the series is.
    pub(super) fn of(name: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|family| {
            let what = name.strip_prefix(family.name())?.strip_prefix(':')?;
            Some((family, what.trim()))
        })
    }

    /// How names of its series and files begin.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storm => "storm",
            Self::Latency => "latency",
            Self::Cost => "cost",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Memory => "Memory per session by state",
            Self::Storm => "Storm timeline",
            Self::Latency => "Latency percentiles",
            Self::Cost => "Cost as sessions grow",
        }
    }

    pub(super) fn scales(self) -> (Scale, Scale) {
        match self {
            Self::Memory | Self::Cost => (Scale::Log10, Scale::Linear),
            Self::Storm => (Scale::Linear, Scale::Linear),
            Self::Latency => (Scale::Nines, Scale::Log10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_the_family() {
        for family in Family::ALL {
            let name = family.series("what it is", Vec::new()).name;
            assert_eq!(Family::of(&name), Some((family, "what it is")));
        }
        assert_eq!(Family::of("memories: x"), None);
        assert_eq!(Family::of("x"), None);
    }
}
