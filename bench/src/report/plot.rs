//! Plots of what runs have found, from the files they wrote.
//!
//! A scenario says which plot a curve belongs to by the beginning of its name, and what the curve
//! is by the rest. [`Family::series`] puts both together:
//!
//! | name | plot | along (scale) | up (scale) |
//! |---|---|---|---|
//! | `memory: STATE` (`memory: online, user`) | memory per session by state | `sessions` (log) | `per session (B)` (linear) |
//! | `storm: WHAT` (`storm: attached`) | storm timeline | `time since the cut (s)` (linear) | `number` (linear) |
//! | `latency: WHAT` (`latency: send to push`) | latency percentiles | `percentile` (log of `1 / (1 - share)`) | `latency (ns)` (log) |
//! | `cost: WHAT` (`cost: hello`) | cost as sessions grow | `present sessions` (log) | `CPU each (ns)` (linear) |
//!
//! The words for the axes are those of the series, and may differ from these; curves are drawn
//! together if they have the same scenario and the same words. A word that ends in `(ns)` or `(B)`
//! makes an axis in ms or KiB, whatever fits. Series with other names are in the file, not in a
//! plot. Of several runs with the same header the last is drawn; where headers differ, the legend
//! says in what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use super::line::{self, LineError};
use super::svg::{Curve, Plot, svg};
use super::{Header, Report, Series};

pub use super::family::Family;

/// Why there are no plots.
#[derive(Debug, Error)]
pub enum PlotError {
    /// No file was given.
    #[error("no file to plot; run a scenario with --json FILE and give that file")]
    NoFiles,
    /// A file cannot be read.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A file has no line.
    #[error("{} is empty; run a scenario with --json {} first", .path.display(), .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No run has a curve of any plot.
    #[error(
        "no curve to plot in {files}; idle, connect, storm and dm have curves: run one of them with --json"
    )]
    NoCurves {
        /// The files.
        files: String,
    },
    /// A plot cannot be written.
    #[error("cannot write {}: {source}; give a folder that can be written, with --out", .path.display())]
    Write {
        /// The plot, or the folder for it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Draws all plots of the reports in `files` into `out_dir`, which is made if it is missing, as
/// `FAMILY-SCENARIO.svg`. Gives the files written.
pub fn plots(files: &[PathBuf], out_dir: &Path) -> Result<Vec<PathBuf>, PlotError> {
    if files.is_empty() {
        return Err(PlotError::NoFiles);
    }
    let mut reports = Vec::new();
    for path in files {
        let read = line::read(path)?;
        if read.is_empty() {
            return Err(PlotError::Empty { path: path.clone() });
        }
        reports.extend(read);
    }
    let drawn = draw(&reports);
    if drawn.is_empty() {
        let files: Vec<_> = files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(PlotError::NoCurves {
            files: files.join(", "),
        });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| PlotError::Write { path, source }
    };
    fs::create_dir_all(out_dir).map_err(failed(out_dir))?;
    let mut written = Vec::with_capacity(drawn.len());
    for (name, plot) in drawn {
        let path = out_dir.join(name);
        fs::write(&path, svg(&plot)).map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// What is drawn together: family, scenario, and the words for both axes.
type Key<'a> = (Family, &'a str, &'a str, &'a str);
/// A curve's run, what it is, and its series.
type Part<'a> = (&'a Header, &'a str, &'a Series);

/// All plots of `reports` with their file names.
fn draw(reports: &[Report]) -> Vec<(String, Plot)> {
    let mut groups: BTreeMap<Key<'_>, Vec<Part<'_>>> = BTreeMap::new();
    for report in last_of_each_header(reports) {
        for series in report
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
        {
            if let Some((family, what)) = Family::of(&series.name) {
                let key = (
                    family,
                    report.header.scenario.as_str(),
                    series.x.as_str(),
                    series.y.as_str(),
                );
                groups
                    .entry(key)
                    .or_default()
                    .push((&report.header, what, series));
            }
        }
    }
    let mut names = BTreeSet::new();
    let alone = |key: &Key<'_>| {
        groups
            .keys()
            .filter(|k| (k.0, k.1) == (key.0, key.1))
            .count()
            == 1
    };
    groups
        .iter()
        .map(|(key, parts)| (file_name(key, alone(key), &mut names), plot(key, parts)))
        .collect()
}

/// The reports without those that were measured again later.
fn last_of_each_header(reports: &[Report]) -> Vec<&Report> {
    let mut last: Vec<&Report> = Vec::new();
    for report in reports {
        match last.iter_mut().find(|other| other.header == report.header) {
            Some(other) => *other = report,
            None => last.push(report),
        }
    }
    last
}

fn plot((family, scenario, x, y): &Key<'_>, parts: &[Part<'_>]) -> Plot {
    let facts: Vec<_> = parts.iter().map(|(header, ..)| facts(header)).collect();
    let common = |fact: &&(String, String)| facts.iter().all(|facts| facts.contains(fact));
    let words = |facts: Vec<&(String, String)>| {
        facts
            .iter()
            .map(|(_, word)| word.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let curves = parts.iter().zip(&facts).map(|((_, what, series), facts)| {
        let own = words(facts.iter().filter(|fact| !common(fact)).collect());
        let label = if own.is_empty() {
            (*what).to_owned()
        } else {
            format!("{what} ({own})")
        };
        Curve {
            label,
            points: series.points.clone(),
        }
    });
    let shared = facts
        .first()
        .map(|facts| words(facts.iter().filter(common).collect()));
    let scales = family.scales();
    Plot {
        title: format!("{}: {scenario}", family.title()),
        subtitle: shared.unwrap_or_default(),
        x: (scales.0, (*x).to_owned()),
        y: (scales.1, (*y).to_owned()),
        curves: curves.collect(),
    }
}

/// What a header says, each with a key that tells it from the rest and as words for people.
fn facts(header: &Header) -> Vec<(String, String)> {
    let pairs = |kind: &'static str, map: &BTreeMap<String, String>| {
        let pairs: Vec<_> = map
            .iter()
            .map(|(key, value)| (format!("{kind} {key} {value}"), format!("{key}={value}")))
            .collect();
        pairs
    };
    let broker = (format!("broker {}", header.broker), header.broker.clone());
    let mut facts = vec![broker];
    facts.extend(pairs("option", &header.options));
    facts.extend(pairs("machine", &header.machine));
    facts
}

/// `FAMILY-SCENARIO.svg`, with what is up if the scenario has several of the family.
fn file_name(key: &Key<'_>, alone: bool, taken: &mut BTreeSet<String>) -> String {
    let (family, scenario, _, y) = key;
    let mut stem = format!("{}-{}", family.name(), slug(scenario));
    if !alone {
        stem = format!("{stem}-{}", slug(y));
    }
    let numbered = (2u32..).map(|i| format!("{stem}-{i}.svg"));
    let free = [format!("{stem}.svg")]
        .into_iter()
        .chain(numbered)
        .find(|name| !taken.contains(name));
    // The numbers do not run out before the curves do.
    let name = free.unwrap_or_default();
    taken.insert(name.clone());
    name
}

/// `text` as part of a file name: never a path, whatever the file said.
fn slug(text: &str) -> String {
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn with_series(scenario: &str, series: Vec<Series>) -> Report {
        Report {
            series,
            ..samples::report(scenario)
        }
    }

    fn points() -> Vec<(f64, f64)> {
        vec![(1_000.0, 500.0), (10_000.0, 510.0)]
    }

    fn labels(plot: &Plot) -> Vec<&str> {
        plot.curves
            .iter()
            .map(|curve| curve.label.as_str())
            .collect()
    }

    #[test]
    fn files_are_written_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        line::append(&path, &samples::report("storm")).unwrap();
        let idle = vec![Family::Memory.series("online, user", points())];
        line::append(&path, &with_series("../idle", idle)).unwrap();
        let out = dir.path().join("new/results");
        let written = plots(&[path], &out).unwrap();
        assert_eq!(
            written,
            [out.join("memory-idle.svg"), out.join("storm-storm.svg")]
        );
        let text = fs::read_to_string(&written[1]).unwrap();
        assert!(
            text.contains("Storm timeline: storm") && text.contains("attached sessions"),
            "{text}"
        );
    }

    #[test]
    fn curves_with_other_axes_get_a_plot_of_their_own() {
        let mut time = Family::Cost.series("hello", points());
        time.y = "time each (ns)".to_owned();
        let cost = vec![Family::Cost.series("hello", points()), time];
        let drawn = draw(&[with_series("connect", cost)]);
        let names: Vec<_> = drawn.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "cost-connect-cpu-each-ns.svg",
                "cost-connect-time-each-ns.svg"
            ]
        );
    }

    #[test]
    fn scenarios_that_look_alike_do_not_overwrite_each_other() {
        let report = |name| with_series(name, vec![Family::Cost.series("x", points())]);
        let names: BTreeSet<_> = draw(&[report("a b"), report("a/b")])
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["cost-a-b-2.svg", "cost-a-b.svg"]
        );
    }

    #[test]
    fn the_legend_says_what_differs_and_the_subtitle_what_does_not() {
        let first = with_series("idle", vec![Family::Memory.series("user", points())]);
        let mut second = first.clone();
        second.header.broker = "the original".to_owned();
        second
            .header
            .options
            .insert("sessions".to_owned(), "5000".to_owned());
        let drawn = draw(&[first, second]);
        assert_eq!(
            labels(&drawn[0].1),
            [
                "user (holdfast 0.1.0, sessions=15000)",
                "user (the original, sessions=5000)"
            ]
        );
        let subtitle = "seed=1, token=true, cores=2, kernel=6.18.0, memory=24 GiB";
        assert_eq!(drawn[0].1.subtitle, subtitle);
    }

    #[test]
    fn the_last_run_with_a_header_is_drawn() {
        let old = with_series("idle", vec![Family::Memory.series("old", points())]);
        let new = with_series("idle", vec![Family::Memory.series("new", points())]);
        assert_eq!(labels(&draw(&[old, new])[0].1), ["new"]);
    }

    #[test]
    fn without_input_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("a.json"), dir.path().join("out"));
        let error = |files: &[PathBuf]| plots(files, &out).unwrap_err().to_string();
        assert!(error(&[]).contains("run a scenario"));
        assert!(error(std::slice::from_ref(&path)).contains("cannot read"));
        fs::write(&path, "\n").unwrap();
        assert!(error(std::slice::from_ref(&path)).contains("a.json is empty; run a scenario"));
        line::append(&path, &with_series("dm", Vec::new())).unwrap();
        assert!(error(std::slice::from_ref(&path)).contains("no curve to plot in"));
        assert!(!out.exists());
        line::append(&path, &samples::report("storm")).unwrap();
        fs::write(&out, "in the way").unwrap();
        assert!(error(std::slice::from_ref(&path)).contains("cannot write"));
    }
}
