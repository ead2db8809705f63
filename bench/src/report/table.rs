//! A report as a table for people.

use std::collections::BTreeMap;

use super::grid::{Align, grid, printable, wrap};
use super::human::{brief, human, significant};
use super::{Check, Figure, Header, Report, Target, Unit, Verdict};

/// What stands where there is nothing to say.
pub(super) const NONE: &str = "-";

/// The table of `report`, in lines of at most `width` characters (80 to 120 look best).
pub fn table(report: &Report, width: usize) -> String {
    let mut text = header(&report.header, width);
    if !report.figures.is_empty() {
        text.push('\n');
        text.push_str(&figures(&report.figures, width));
    }
    if !report.checks.is_empty() {
        text.push('\n');
        text.push_str(&checks(&report.checks, width));
    }
    text
}

/// What was run and where: a line each for scenario, options, machine and broker.
pub(super) fn header(header: &Header, width: usize) -> String {
    let pairs = |map: &BTreeMap<String, String>| {
        let pairs: Vec<_> = map
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if pairs.is_empty() {
            NONE.to_owned()
        } else {
            pairs.join(", ")
        }
    };
    let mut text = String::new();
    for (name, value) in [
        ("scenario", header.scenario.clone()),
        ("options", pairs(&header.options)),
        ("machine", pairs(&header.machine)),
        ("broker", header.broker.clone()),
    ] {
        push_wrapped(
            &mut text,
            &format!("{name:<8}  "),
            &printable(&value),
            width,
        );
    }
    text
}

fn figures(figures: &[Figure], width: usize) -> String {
    let mut rows = vec![
        ["figure", "value", "floor", "ratio", "target", ""]
            .map(str::to_owned)
            .into(),
    ];
    rows.extend(figures.iter().map(figure));
    let right = Align::Right;
    grid(
        &rows,
        &[Align::Left, right, right, right, Align::Left, Align::Left],
        width,
    )
}

fn figure(figure: &Figure) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    vec![
        printable(&figure.name),
        human(figure.value, figure.unit),
        or_none(figure.floor.map(|floor| human(floor, figure.unit))),
        or_none(figure.ratio().map(|ratio| human(ratio, Unit::Ratio))),
        or_none(figure.target.map(|target| target_text(target, figure.unit))),
        verdict_text(figure.verdict()),
    ]
}

pub(super) fn target_text(target: Target, unit: Unit) -> String {
    match target {
        Target::AtMost(bound) => format!("<= {}", brief(bound, unit)),
        Target::AtLeast(bound) => format!(">= {}", brief(bound, unit)),
        Target::OfFloorAtMost(bound) => format!("<= {} floor", brief(bound, Unit::Ratio)),
        Target::OfFloorAtLeast(bound) => format!(">= {} floor", brief(bound, Unit::Ratio)),
    }
}

pub(super) fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::NoTarget => String::new(),
        Verdict::Met => "ok".to_owned(),
        Verdict::Missed(None) => "MISSED".to_owned(),
        Verdict::Missed(Some(percent)) => format!("MISSED by {} %", significant(percent, 2)),
        Verdict::NoFloor => "NO FLOOR".to_owned(),
    }
}

pub(super) fn checks(checks: &[Check], width: usize) -> String {
    let mut rows = vec![["check (must be 0)", "count", ""].map(str::to_owned).into()];
    for check in checks {
        let verdict = if check.count == 0 { "ok" } else { "FAILED" };
        rows.push(vec![
            printable(&check.name),
            check.count.to_string(),
            verdict.to_owned(),
        ]);
    }
    let mut text = grid(&rows, &[Align::Left, Align::Right, Align::Left], width);
    for check in checks.iter().filter(|check| check.count > 0) {
        let example = check.example.as_deref().unwrap_or("no example was kept");
        let line = format!("{}: {}", printable(&check.name), printable(example));
        push_wrapped(&mut text, "FAILED ", &line, width);
    }
    text
}

/// Appends `words` behind `lead`, wrapped so that all lines begin below the first word.
fn push_wrapped(text: &mut String, lead: &str, words: &str, width: usize) {
    let indent = " ".repeat(lead.chars().count());
    let lines = wrap(words, width.saturating_sub(indent.len()), "");
    for (i, line) in lines.iter().enumerate() {
        text.push_str(if i == 0 { lead } else { &indent });
        text.push_str(line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_report_reads_well_at_100_columns() {
        let expected = "\
scenario  storm
options   seed=1, sessions=15000, token=true
machine   cores=2, kernel=6.18.0, memory=24 GiB
broker    holdfast 0.1.0

figure                                   value    floor   ratio  target
user memory per session online           512 B        -       -  <= 900 B        ok
CPU per reattach                       62.1 µs  48.0 µs  1.29 ×  <= 1.3 × floor  ok
CPU per reattach with a resume token   33.6 µs  20.0 µs  1.68 ×  <= 1.5 × floor  MISSED by 12 %
reattached                            12.3 k/s        -       -  -

check (must be 0)  count
lost messages          0  ok
peer events seen       3  FAILED
FAILED peer events seen: session s-12 saw peer_left of s-9
";
        assert_eq!(table(&samples::report("storm"), 100), expected);
    }

    #[test]
    fn no_line_is_longer_than_80_columns_where_80_are_asked_for() {
        let mut report = samples::report("storm");
        report
            .header
            .options
            .extend((0..20).map(|i| (format!("option{i}"), "value".to_owned())));
        report.checks[1].example = Some("word ".repeat(60));
        let text = table(&report, 80);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("\n          option"), "{text}");
    }

    #[test]
    fn a_target_that_cannot_be_judged_does_not_look_met() {
        let mut report = samples::report("storm");
        report.figures[1].floor = None;
        let text = table(&report, 100);
        assert!(text.contains("<= 1.3 × floor  NO FLOOR"), "{text}");
        assert!(!text.contains("<= 1.3 × floor  ok"), "{text}");
    }

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor() {
        let mut report = samples::report("storm");
        report.checks[1].example = Some("\u{1b}[2J\rall is well".to_owned());
        report.header.broker = "x\ny".to_owned();
        let text = table(&report, 100);
        assert!(!text.contains(['\u{1b}', '\r']), "{text}");
        assert!(text.contains("broker    x\\ny"), "{text}");
    }

    #[test]
    fn a_report_without_figures_and_checks_is_its_header() {
        let mut report = samples::report("storm");
        report.figures.clear();
        report.checks.clear();
        assert_eq!(table(&report, 100).lines().count(), 4);
    }
}
