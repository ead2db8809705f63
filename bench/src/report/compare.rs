//! The figures of this run beside those of an earlier one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::grid::{Align, grid, printable};
use super::human::human;
use super::line::{self, LineError};
use super::{Figure, Header, Report, Unit};

/// Why two runs are not compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The file cannot be read.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The file has no run of this scenario.
    #[error("{} has no run of {wanted}, only {found}; run {wanted} with --json first", .path.display())]
    NoSuchScenario {
        /// The file.
        path: PathBuf,
        /// The scenario of this run.
        wanted: String,
        /// Those in the file.
        found: String,
    },
    /// Something else was run, or elsewhere.
    #[error(
        "not the same run: {}; run both with the same options on the same machine",
        list(.differences)
    )]
    Differs {
        /// All that differs.
        differences: Vec<Difference>,
    },
}

/// One thing that two headers say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What, such as `option sessions`.
    pub key: String,
    /// What the earlier run says, if anything.
    pub before: Option<String>,
    /// What this run says, if anything.
    pub now: Option<String>,
}

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The broker of the earlier run.
    pub before: String,
    /// The broker of this run.
    pub now: String,
    /// A row per figure: those of this run in their order, then those that only the earlier has.
    pub rows: Vec<Row>,
}

/// One figure in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Its value in the earlier run.
    pub before: Option<f64>,
    /// Its value in this run.
    pub now: Option<f64>,
    /// How many times the earlier value this one is.
    pub ratio: Option<f64>,
    /// The same of the ratios to the floors, which the noise of the machine moves less.
    pub floor_ratio: Option<f64>,
}

/// Compares `now` with the last run of the same scenario in the file at `path`.
pub fn with_file(path: &Path, now: &Report) -> Result<Comparison, CompareError> {
    let earlier = line::read(path)?;
    let scenario = &now.header.scenario;
    let before = earlier
        .iter()
        .rev()
        .find(|report| report.header.scenario == *scenario);
    match before {
        Some(before) => compare(before, now),
        None => {
            let mut found: Vec<_> = earlier.iter().map(|r| r.header.scenario.as_str()).collect();
            found.sort_unstable();
            found.dedup();
            let found = if found.is_empty() {
                "nothing".to_owned()
            } else {
                found.join(", ")
            };
            let wanted = scenario.clone();
            Err(CompareError::NoSuchScenario {
                path: path.to_owned(),
                wanted,
                found,
            })
        }
    }
}

/// Compares two runs, of which only the broker may differ.
pub fn compare(before: &Report, now: &Report) -> Result<Comparison, CompareError> {
    let differences = differences(&before.header, &now.header);
    if !differences.is_empty() {
        return Err(CompareError::Differs { differences });
    }
    let mut left: Vec<&Figure> = before.figures.iter().collect();
    let mut rows: Vec<Row> = Vec::with_capacity(now.figures.len());
    for figure in &now.figures {
        let same = |other: &&Figure| other.name == figure.name && other.unit == figure.unit;
        let earlier = left.iter().position(same).map(|i| left.remove(i));
        rows.push(row(earlier, Some(figure), figure));
    }
    rows.extend(
        left.into_iter()
            .map(|figure| row(Some(figure), None, figure)),
    );
    Ok(Comparison {
        before: before.header.broker.clone(),
        now: now.header.broker.clone(),
        rows,
    })
}

impl Comparison {
    /// The comparison for people, in lines of at most `width` characters.
    pub fn table(&self, width: usize) -> String {
        let titles = ["figure", "before", "now", "ratio", "of floors"];
        let mut rows: Vec<Vec<String>> = vec![titles.map(str::to_owned).into()];
        for row in &self.rows {
            let cell = |value: Option<f64>, unit| match value {
                Some(value) => human(value, unit),
                None => "-".to_owned(),
            };
            rows.push(vec![
                printable(&row.name),
                cell(row.before, row.unit),
                cell(row.now, row.unit),
                cell(row.ratio, Unit::Ratio),
                cell(row.floor_ratio, Unit::Ratio),
            ]);
        }
        let right = Align::Right;
        let grid = grid(&rows, &[Align::Left, right, right, right, right], width);
        let (before, now) = (printable(&self.before), printable(&self.now));
        format!("before  {before}\nnow     {now}\n\n{grid}")
    }
}

fn row(before: Option<&Figure>, now: Option<&Figure>, named: &Figure) -> Row {
    let ratio = |before: Option<f64>, now: Option<f64>| {
        before
            .zip(now)
            .filter(|(before, _)| *before > 0.0)
            .map(|(before, now)| now / before)
    };
    let (before_value, now_value) = (before.map(|f| f.value), now.map(|f| f.value));
    Row {
        name: named.name.clone(),
        unit: named.unit,
        before: before_value,
        now: now_value,
        ratio: ratio(before_value, now_value),
        floor_ratio: ratio(before.and_then(Figure::ratio), now.and_then(Figure::ratio)),
    }
}

fn differences(before: &Header, now: &Header) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut note = |key: String, before: Option<&String>, now: Option<&String>| {
        if before != now {
            all.push(Difference {
                key,
                before: before.cloned(),
                now: now.cloned(),
            });
        }
    };
    note(
        "scenario".to_owned(),
        Some(&before.scenario),
        Some(&now.scenario),
    );
    let maps = [
        ("option", &before.options, &now.options),
        ("machine", &before.machine, &now.machine),
    ];
    for (kind, before, now) in maps {
        for key in keys(before, now) {
            note(format!("{kind} {key}"), before.get(key), now.get(key));
        }
    }
    all
}

fn keys<'a>(
    one: &'a BTreeMap<String, String>,
    other: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a String> {
    one.keys()
        .chain(other.keys().filter(|key| !one.contains_key(*key)))
}

fn list(differences: &[Difference]) -> String {
    let value = |value: &Option<String>| match value {
        Some(value) => printable(value),
        None => "not given".to_owned(),
    };
    let one = |d: &Difference| {
        format!(
            "{} was {} and is {}",
            printable(&d.key),
            value(&d.before),
            value(&d.now)
        )
    };
    differences.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_run_is_compared_with_the_last_of_its_scenario() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut last = samples::report("storm");
        last.header.broker = "the original".to_owned();
        last.figures[0].value = 1_024.0;
        for report in [samples::report("storm"), last, samples::report("dm")] {
            line::append(&path, &report).unwrap();
        }
        let comparison = with_file(&path, &samples::report("storm")).unwrap();
        assert_eq!(comparison.before, "the original");
        assert_eq!(comparison.rows[0].ratio, Some(0.5));
        let error = with_file(&path, &samples::report("fanout"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has no run of fanout, only dm, storm;"),
            "{error}"
        );
    }

    #[test]
    fn all_that_differs_is_listed_in_one_line() {
        let (before, mut now) = (samples::report("storm"), samples::report("storm"));
        now.header.options.insert("sessions".into(), "1000".into());
        now.header.options.remove("token");
        now.header.machine.insert("cores".into(), "8".into());
        now.header.machine.insert("swap".into(), "1\nGiB".into());
        now.header.broker = "another".into();
        let error = compare(&before, &now).unwrap_err().to_string();
        assert_eq!(
            error,
            "not the same run: option sessions was 15000 and is 1000, option token was true and is \
             not given, machine cores was 2 and is 8, machine swap was not given and is 1\\nGiB; \
             run both with the same options on the same machine"
        );
    }

    #[test]
    fn other_scenarios_are_refused() {
        let error = compare(&samples::report("storm"), &samples::report("dm")).unwrap_err();
        assert!(
            error.to_string().contains("scenario was storm and is dm"),
            "{error}"
        );
    }

    #[test]
    fn the_table_shows_both_and_what_only_one_has() {
        let (mut before, mut now) = (samples::report("storm"), samples::report("storm"));
        before.figures[1].floor = Some(96_000.0);
        now.figures[0].value = 768.0;
        now.figures.truncate(3);
        before.figures.remove(2);
        let expected = "\
before  holdfast 0.1.0
now     holdfast 0.1.0

figure                                  before      now   ratio  of floors
user memory per session online           512 B    768 B  1.50 ×          -
CPU per reattach                       62.1 µs  62.1 µs  1.00 ×     2.00 ×
CPU per reattach with a resume token         -  33.6 µs       -          -
reattached                            12.3 k/s        -       -          -
";
        assert_eq!(compare(&before, &now).unwrap().table(100), expected);
    }

    #[test]
    fn nothing_is_divided_by_zero_and_units_are_not_mixed() {
        let (mut before, mut now) = (samples::report("storm"), samples::report("storm"));
        before.figures[0].value = 0.0;
        now.figures[3].unit = Unit::Count;
        let rows = compare(&before, &now).unwrap().rows;
        assert_eq!(rows[0].ratio, None);
        assert_eq!((rows[3].before, rows[4].now), (None, None));
        assert_eq!(rows.len(), 5);
    }
}
