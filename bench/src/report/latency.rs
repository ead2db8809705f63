//! How long things took: every one of them counted, and the tail kept.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::plot::Family;
use super::{Figure, Series, Unit};

/// The step between the shortest times. With 1 µs here, 10 µs would have but one digit and a half.
const LOWEST_NS: u64 = 1;
/// Longer times are counted as this.
const HIGHEST_NS: u64 = 60_000_000_000;
/// Significant digits that are kept of each time.
const DIGITS: u8 = 3;
/// Points of a curve for each factor of ten in `1 / (1 - share)`.
const POINTS_PER_DECADE: u32 = 10;

/// The percentiles that are reported, as names and shares.
pub const PERCENTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A distribution of times from 1 µs to 60 s, in some 200 KiB.
#[derive(Clone, Debug)]
pub struct Latency {
    nanos: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty distribution.
    pub fn new() -> Self {
        let nanos = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)
            .expect("the bounds are constants that a histogram can have");
        Self { nanos }
    }

    /// Counts one time. What took longer than 60 s counts as 60 s.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.saturating_record(nanos.min(HIGHEST_NS));
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.nanos
            .add(&other.nanos)
            .expect("both have the same bounds");
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The longest time in nanoseconds, or nothing if there is none.
    pub fn max(&self) -> Option<f64> {
        (self.count() > 0).then(|| in_range(self.nanos.max()))
    }

    /// The time in nanoseconds that `share` (0 to 1) did not exceed, or nothing if there is none.
    pub fn at(&self, share: f64) -> Option<f64> {
        (self.count() > 0).then(|| in_range(self.nanos.value_at_quantile(share)))
    }

    /// `NAME p50`, `p90`, `p99`, `p99.9`, `max` and `count`, each time beside that of `floor`.
    ///
    /// Of an empty distribution there is only the count: a time of 0 would look like a record.
    pub fn figures(&self, name: &str, floor: Option<&Self>) -> Vec<Figure> {
        let time = |label: &str, value: Option<f64>, floor: Option<f64>| {
            let figure = Figure::new(format!("{name} {label}"), value?, Unit::Nanos);
            Some(Figure { floor, ..figure })
        };
        let percentiles = PERCENTILES.iter().map(|(label, share)| {
            time(
                label,
                self.at(*share),
                floor.and_then(|floor| floor.at(*share)),
            )
        });
        let max = time("max", self.max(), floor.and_then(Self::max));
        let count = Figure::new(format!("{name} count"), to_f64(self.count()), Unit::Count);
        percentiles.chain([max]).flatten().chain([count]).collect()
    }

    /// The whole distribution as a curve of the latency plot: `1 / (1 - share)` along, nanoseconds
    /// up, as far right as there are times to tell apart, with the longest as its last point.
    pub fn series(&self, name: &str) -> Series {
        let count = to_f64(self.count());
        let steps = (0u32..).map(|i| 10f64.powf(f64::from(i) / f64::from(POINTS_PER_DECADE)));
        let inner = steps
            .take_while(|x| *x < count)
            .filter_map(|x| Some((x, self.at(1.0 - 1.0 / x)?)));
        let last = self.max().map(|max| (count, max));
        Family::Latency.series(name, inner.chain(last).collect())
    }
}

/// A bucket ends a little above its values; the highest must not leave the range by that.
fn in_range(nanos: u64) -> f64 {
    to_f64(nanos.min(HIGHEST_NS))
}

/// Exact up to 2^53: some 104 days in nanoseconds.
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(micros: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::new();
        micros
            .into_iter()
            .for_each(|time| latency.record(Duration::from_micros(time)));
        latency
    }

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!(
            (found / expected - 1.0).abs() < 0.001,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let latency = filled(1..=10_000);
        assert_eq!(latency.count(), 10_000);
        close(latency.at(0.5), 5_000e3);
        close(latency.at(0.99), 9_900e3);
        close(latency.at(0.999), 9_990e3);
        close(latency.max(), 10_000e3);
        let mut short = Latency::new();
        short.record(Duration::from_nanos(1_234));
        assert_eq!(short.at(0.5), Some(1_234.0));
    }

    #[test]
    fn what_is_beyond_the_range_is_counted_at_its_end() {
        let mut latency = Latency::new();
        latency.record(Duration::from_secs(61));
        latency.record(Duration::MAX);
        latency.record(Duration::ZERO);
        assert_eq!(latency.count(), 3);
        assert_eq!(latency.max(), Some(60e9));
        assert_eq!(latency.at(0.0), Some(0.0));
    }

    #[test]
    fn merging_counts_all_of_both() {
        let mut all = filled(1..=500);
        all.merge(&filled(501..=1_000));
        let whole = filled(1..=1_000);
        assert_eq!(all.count(), 1_000);
        assert_eq!(all.figures("x", None), whole.figures("x", None));
    }

    #[test]
    fn figures_stand_beside_those_of_the_floor() {
        let figures = filled(1..=1_000).figures("send to push", Some(&filled([10])));
        let names: Vec<_> = figures.iter().map(|figure| figure.name.as_str()).collect();
        let labels = ["p50", "p90", "p99", "p99.9", "max", "count"];
        assert_eq!(names, labels.map(|label| format!("send to push {label}")));
        close(figures[0].ratio(), 50.0);
        close(figures[4].ratio(), 100.0);
        assert_eq!((figures[5].value, figures[5].floor), (1_000.0, None));
    }

    #[test]
    fn nothing_measured_is_not_a_record() {
        let empty = Latency::new();
        let figures = empty.figures("x", None);
        assert_eq!(figures, [Figure::new("x count", 0.0, Unit::Count)]);
        assert_eq!((empty.at(0.5), empty.max()), (None, None));
        assert_eq!(empty.series("x").points, []);
        assert_eq!(filled([5]).figures("x", Some(&empty))[0].floor, None);
    }

    #[test]
    fn the_curve_rises_to_the_longest() {
        let points = filled(1..=1_000).series("x").points;
        assert_eq!(points.len(), 31);
        assert!(
            points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
            "{points:?}"
        );
        let (x, y) = points[30];
        assert_eq!(x, 1_000.0);
        close(Some(y), 1_000e3);
        assert_eq!(filled([7]).series("x").points.len(), 1);
    }
}
