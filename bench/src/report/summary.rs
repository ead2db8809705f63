//! Several runs of the same thing as one: medians, with the least and the most.
//!
//! The machine is shared, and a single run says as much of its mood as of the broker. Runs that
//! alternate with runs of other things meet all its moods, and their median is what can be told.

use std::path::PathBuf;

use super::grid::{Align, grid, printable};
use super::human::human;
use super::line::{self, LineError};
use super::table::{self, NONE, target_text, verdict_text};
use super::{Check, Figure, Header, Report, Target, Unit};

/// All runs of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What was run.
    pub header: Header,
    /// How often.
    pub runs: usize,
    /// The figures, in the order of the newest run.
    pub rows: Vec<Row>,
    /// What must not have happened, over all runs.
    pub checks: Vec<Check>,
}

/// One figure over all runs that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The median of the values, beside the floor that makes the ratio the median of the ratios,
    /// so that it is judged as a single run is.
    pub median: Figure,
    /// The values.
    pub values: Spread,
    /// Their ratios to the floors of their runs.
    pub ratios: Option<Spread>,
}

/// The middle of some numbers, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these numbers, if there are any.
    fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let below = sorted.get((sorted.len() - 1) / 2)?;
        let above = sorted.get(sorted.len() / 2)?;
        Some(Self {
            least,
            median: f64::midpoint(*below, *above),
            most,
        })
    }
}

/// What the runs in these files come to, one summary for each thing that was run.
///
/// # Errors
/// A file cannot be read.
pub fn of_files(paths: &[PathBuf]) -> Result<Vec<Summary>, LineError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(line::read(path)?);
    }
    Ok(summaries(all))
}

fn summaries(all: Vec<Report>) -> Vec<Summary> {
    let mut groups: Vec<Vec<Report>> = Vec::new();
    for report in all {
        let same = |group: &&mut Vec<Report>| {
            group
                .first()
                .is_some_and(|first| first.header == report.header)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(report),
            None => groups.push(vec![report]),
        }
    }
    groups.iter().filter_map(|group| summary(group)).collect()
}

fn summary(runs: &[Report]) -> Option<Summary> {
    let newest = runs.last()?;
    let rows = newest.figures.iter().filter_map(|figure| row(figure, runs));
    let mut checks: Vec<Check> = Vec::new();
    for check in runs.iter().flat_map(|run| &run.checks) {
        Check::add(&mut checks, check.clone());
    }
    Some(Summary {
        header: newest.header.clone(),
        runs: runs.len(),
        rows: rows.collect(),
        checks,
    })
}

fn row(figure: &Figure, runs: &[Report]) -> Option<Row> {
    let same = |run: &Report| {
        let mut found = run.figures.iter();
        let found = found.find(|other| other.name == figure.name && other.unit == figure.unit);
        found.cloned()
    };
    let all: Vec<Figure> = runs.iter().filter_map(same).collect();
    let values = Spread::of(all.iter().map(|figure| figure.value))?;
    let ratios = Spread::of(all.iter().filter_map(Figure::ratio));
    let floor = ratios
        .filter(|ratios| ratios.median > 0.0)
        .map(|ratios| values.median / ratios.median);
    Some(Row {
        median: Figure {
            value: values.median,
            floor,
            ..figure.clone()
        },
        values,
        ratios,
    })
}

impl Summary {
    /// As a table for people, in lines of at most `width` characters.
    pub fn table(&self, width: usize) -> String {
        let mut text = table::header(&self.header, width);
        text.push_str(&format!("runs      {}\n\n", self.runs));
        let titles = [
            "figure", "median", "least", "most", "ratio", "least", "most", "target", "",
        ];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(Row::cells));
        let mut aligns = vec![Align::Left];
        aligns.extend([Align::Right; 6]);
        aligns.extend([Align::Left; 2]);
        text.push_str(&grid(&rows, &aligns, width));
        if !self.checks.is_empty() {
            text.push('\n');
            text.push_str(&table::checks(&self.checks, width));
        }
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let Self {
            median,
            values,
            ratios,
        } = self;
        let value = |number| human(number, median.unit);
        let ratio = |of: fn(&Spread) -> f64| {
            ratios
                .as_ref()
                .map_or_else(|| NONE.to_owned(), |ratios| human(of(ratios), Unit::Ratio))
        };
        let target = |target: Target| target_text(target, median.unit);
        vec![
            printable(&median.name),
            value(values.median),
            value(values.least),
            value(values.most),
            ratio(|spread| spread.median),
            ratio(|spread| spread.least),
            ratio(|spread| spread.most),
            median.target.map_or_else(|| NONE.to_owned(), target),
            verdict_text(median.verdict()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn run(value: f64, floor: f64) -> Report {
        let mut report = samples::report("storm");
        report.figures[1].value = value;
        report.figures[1].floor = Some(floor);
        report
    }

    #[test]
    fn the_median_of_the_ratios_decides() {
        // The ratios are 2, 1.2 and 1.25; that of the medians would be 1.5.
        let found = summaries(vec![run(20.0, 10.0), run(12.0, 10.0), run(15.0, 12.0)]);
        let [storm] = &found[..] else {
            panic!("{found:?}")
        };
        let row = &storm.rows[1];
        assert_eq!(storm.runs, 3);
        assert_eq!((row.values.least, row.values.most), (12.0, 20.0));
        assert_eq!(row.median.value, 15.0);
        assert_eq!(row.ratios.map(|ratios| ratios.median), Some(1.25));
        assert_eq!(verdict_text(row.median.verdict()), "ok");
    }

    #[test]
    fn of_an_even_number_it_is_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!(spread.map(|spread| spread.median), Some(3.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn different_things_are_not_mixed_and_checks_add_up() {
        let mut other = samples::report("storm");
        other.header.options.insert("token".into(), "false".into());
        let found = summaries(vec![run(1.0, 1.0), other, run(2.0, 1.0)]);
        let runs: Vec<_> = found.iter().map(|summary| summary.runs).collect();
        assert_eq!(runs, [2, 1]);
        assert_eq!(found[0].checks[1].count, 6);
    }

    #[test]
    fn the_table_shows_medians_and_ends() {
        let [one] = &summaries(vec![run(48_000.0, 48_000.0), run(96_000.0, 48_000.0)])[..] else {
            panic!("one summary")
        };
        let text = one.table(120);
        let line = text
            .lines()
            .find(|line| line.starts_with("CPU per reattach  "));
        let cells: Vec<_> = line
            .unwrap_or_default()
            .split("  ")
            .map(str::trim)
            .collect();
        let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "CPU per reattach",
                "72.0 µs",
                "48.0 µs",
                "96.0 µs",
                "1.50 ×",
                "1.00 ×",
                "2.00 ×",
                "<= 1.3 × floor",
                "MISSED by 15 %"
            ],
            "{text}"
        );
        assert!(text.contains("\nruns      2\n"), "{text}");
    }
}
