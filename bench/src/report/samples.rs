//! Reports for the tests of this folder.

use std::collections::BTreeMap;

use super::{Check, Figure, Header, Report, Series, Target, Unit};

/// A header as a scenario fills it.
pub(super) fn header(scenario: &str) -> Header {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    Header {
        scenario: scenario.to_owned(),
        options: map(&[("seed", "1"), ("sessions", "15000"), ("token", "true")]),
        machine: map(&[("cores", "2"), ("kernel", "6.18.0"), ("memory", "24 GiB")]),
        broker: "holdfast 0.1.0".to_owned(),
    }
}

/// A report with something of everything.
pub(super) fn report(scenario: &str) -> Report {
    Report {
        header: header(scenario),
        figures: vec![
            Figure::new("user memory per session online", 512.0, Unit::Bytes)
                .target(Target::AtMost(900.0)),
            Figure::new("CPU per reattach", 62_149.0, Unit::Nanos)
                .floor(48_000.0)
                .target(Target::OfFloorAtMost(1.3)),
            Figure::new(
                "CPU per reattach with a resume token",
                33_600.0,
                Unit::Nanos,
            )
            .floor(20_000.0)
            .target(Target::OfFloorAtMost(1.5)),
            Figure::new("reattached", 12_345.0, Unit::PerSecond),
        ],
        series: vec![
            series(
                "storm: attached sessions",
                &[(0.0, 0.0), (1.0, 9_000.0), (2.0, 15_000.0)],
            ),
            series("storm: peer events", &[(0.0, 0.0), (2.0, 3.0)]),
        ],
        checks: vec![
            check("lost messages", 0, None),
            check(
                "peer events seen",
                3,
                Some("session s-12 saw peer_left of s-9"),
            ),
        ],
    }
}

/// A curve.
pub(super) fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series {
        name: name.to_owned(),
        x: "time since the cut (s)".to_owned(),
        y: "number".to_owned(),
        points: points.to_vec(),
    }
}

fn check(name: &str, count: u64, example: Option<&str>) -> Check {
    Check {
        name: name.to_owned(),
        count,
        example: example.map(str::to_owned),
    }
}
