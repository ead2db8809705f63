//! Numbers for people: three significant digits and the unit that makes them short.

use super::Unit;

/// How many digits a figure is printed with; more would be noise.
const DIGITS: usize = 3;

/// One size of a unit: how many of the smallest it is, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How many of the unit's smallest step make one of these.
    pub size: f64,
    /// What is written behind the number.
    pub symbol: &'static str,
}

const fn step(size: f64, symbol: &'static str) -> Step {
    Step { size, symbol }
}

const KIB: f64 = 1024.0;
const BYTES: [Step; 5] = [
    step(1.0, "B"),
    step(KIB, "KiB"),
    step(KIB * KIB, "MiB"),
    step(KIB * KIB * KIB, "GiB"),
    step(KIB * KIB * KIB * KIB, "TiB"),
];
const NANOS: [Step; 6] = [
    step(1.0, "ns"),
    step(1e3, "µs"),
    step(1e6, "ms"),
    step(1e9, "s"),
    step(60e9, "min"),
    step(3_600e9, "h"),
];
const PER_SECOND: [Step; 4] = [
    step(1.0, "/s"),
    step(1e3, "k/s"),
    step(1e6, "M/s"),
    step(1e9, "G/s"),
];
const COUNT: [Step; 4] = [
    step(1.0, ""),
    step(1e3, "k"),
    step(1e6, "M"),
    step(1e9, "G"),
];
const RATIO: [Step; 1] = [step(1.0, "×")];

/// The size of `unit` in which `value` is below 1000, or the largest there is.
pub fn step_of(value: f64, unit: Unit) -> Step {
    let steps: &[Step] = match unit {
        Unit::Bytes => &BYTES,
        Unit::Nanos => &NANOS,
        Unit::PerSecond => &PER_SECOND,
        Unit::Count => &COUNT,
        Unit::Ratio => &RATIO,
    };
    let fits = |step: &&Step| rounded(value / step.size, DIGITS).abs() < 1000.0;
    // The arrays above are not empty, so the last resort is never taken.
    steps
        .iter()
        .find(fits)
        .or_else(|| steps.last())
        .copied()
        .unwrap_or(COUNT[0])
}

/// `value` with three significant digits and its unit: `62.1 µs`, `1.30 ×`, `512 B`.
pub fn human(value: f64, unit: Unit) -> String {
    let step = step_of(value, unit);
    // What was counted piece by piece has no decimals to show.
    let whole = step.size == 1.0 && unit != Unit::Ratio && value.fract() == 0.0;
    let number = if whole {
        brief_number(value)
    } else {
        significant(value / step.size, DIGITS)
    };
    with_symbol(number, step)
}

/// As [`human`], without zeros at the end: for targets and axes, which are round numbers.
pub fn brief(value: f64, unit: Unit) -> String {
    let step = step_of(value, unit);
    with_symbol(brief_number(value / step.size), step)
}

/// `value` without a unit and without zeros at the end.
pub fn brief_number(value: f64) -> String {
    let text = significant(value, DIGITS);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `value` with so many significant digits; those before the point are never cut off, only zero.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let value = rounded(value, digits);
    let mut decimals = digits.saturating_sub(1);
    let mut rest = value.abs();
    while rest >= 10.0 && decimals > 0 {
        rest /= 10.0;
        decimals -= 1;
    }
    // Far below anything that is measured, zeros are all there is to print.
    while rest > 0.0 && rest < 1.0 && decimals < 15 {
        rest *= 10.0;
        decimals += 1;
    }
    if value == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.decimals$}")
    }
}

/// `value` as it is after rounding, so that 999.9 counts as 1000 where a unit is chosen.
fn rounded(value: f64, digits: usize) -> f64 {
    let decimals = digits.saturating_sub(1);
    // What `format!` wrote can be read again; if it could not, rounding is only for looks.
    format!("{value:.decimals$e}").parse().unwrap_or(value)
}

fn with_symbol(number: String, step: Step) -> String {
    if step.symbol.is_empty() {
        number
    } else {
        format!("{number} {}", step.symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_in_the_unit_that_keeps_them_short() {
        let table = [
            (512.0, Unit::Bytes, "512 B"),
            (40.0, Unit::Bytes, "40 B"),
            (40.5, Unit::Bytes, "40.5 B"),
            (1010.0, Unit::Bytes, "0.986 KiB"),
            (4_900.0, Unit::Bytes, "4.79 KiB"),
            (-2_048.0, Unit::Bytes, "-2.00 KiB"),
            (62_149.0, Unit::Nanos, "62.1 µs"),
            (999_600.0, Unit::Nanos, "1.00 ms"),
            (827e9, Unit::Nanos, "827 s"),
            (1_230e9, Unit::Nanos, "20.5 min"),
            (145.0, Unit::PerSecond, "145 /s"),
            (12_345.0, Unit::PerSecond, "12.3 k/s"),
            (0.0, Unit::Nanos, "0 ns"),
            (0.0478, Unit::Count, "0.0478"),
            (15_000.0, Unit::Count, "15.0 k"),
            (2.0, Unit::Count, "2"),
            (1.3, Unit::Ratio, "1.30 ×"),
            (9.996, Unit::Ratio, "10.0 ×"),
            (2_347.0, Unit::Ratio, "2350 ×"),
        ];
        for (value, unit, expected) in table {
            assert_eq!(human(value, unit), expected, "{value} {unit:?}");
        }
    }

    #[test]
    fn brief_drops_only_zeros_behind_the_point() {
        assert_eq!(brief(900.0, Unit::Bytes), "900 B");
        assert_eq!(brief(1.3, Unit::Ratio), "1.3 ×");
        assert_eq!(brief(200.0, Unit::Ratio), "200 ×");
        assert_eq!(brief(0.05, Unit::Count), "0.05");
        assert_eq!(brief(100_000.0, Unit::Count), "100 k");
    }

    #[test]
    fn what_is_no_number_says_so() {
        assert_eq!(human(f64::NAN, Unit::Ratio), "NaN ×");
        assert_eq!(human(f64::INFINITY, Unit::Nanos), "inf h");
        assert_eq!(significant(1e-30, 3), "0.000000000000000");
    }
}
