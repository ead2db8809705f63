//! Axes of plots: which range they show, where their ticks are, and what is written there.

use super::Unit;
use super::human::{brief, significant, step_of};

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// In proportion, from zero.
    Linear,
    /// By their logarithm.
    Log10,
    /// As [`Scale::Log10`], of `1 / (1 - share)`, written as the share: 90 %, 99 %, 99.9 %.
    Nines,
}

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// Where, from 0 to 1.
    pub(super) place: f64,
    /// What is written there.
    pub(super) text: String,
}

/// One axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// What its numbers are.
    pub(super) label: String,
    /// Its marks, in order.
    pub(super) ticks: Vec<Tick>,
    scale: Scale,
    low: f64,
    high: f64,
}

/// A linear axis has at most about so many ticks.
const TICKS: f64 = 6.0;
/// A logarithmic axis that spans more decades than this marks only the powers of ten.
const DENSE_DECADES: f64 = 2.4;

impl Axis {
    /// The axis that shows all of `values` that `scale` can show.
    ///
    /// A `label` that ends in `(ns)` or `(B)` has its ticks written in the unit that fits.
    pub(super) fn fit(scale: Scale, label: &str, values: impl Iterator<Item = f64>) -> Self {
        let shown = values.filter(|value| can_show(scale, *value));
        let range = shown.fold(None, |range: Option<(f64, f64)>, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        match scale {
            Scale::Linear => linear(label, range.unwrap_or((0.0, 0.0))),
            Scale::Log10 | Scale::Nines => log(scale, label, range.unwrap_or((1.0, 10.0))),
        }
    }

    /// Where `value` lies, from 0 to 1, if this axis can show it.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        can_show(self.scale, value).then(|| self.place_shown(value))
    }

    fn place_shown(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log10 | Scale::Nines => value.log10(),
        };
        (at(value) - at(self.low)) / (at(self.high) - at(self.low))
    }

    fn with_ticks(mut self, ticks: impl Iterator<Item = (f64, String)>) -> Self {
        self.ticks = ticks
            .map(|(value, text)| Tick {
                place: self.place_shown(value),
                text,
            })
            .filter(|tick| (-1e-9..=1.0 + 1e-9).contains(&tick.place))
            .collect();
        self
    }
}

fn can_show(scale: Scale, value: f64) -> bool {
    match scale {
        Scale::Linear => value.is_finite(),
        Scale::Log10 | Scale::Nines => value.is_finite() && value > 0.0,
    }
}

/// The unit a label ends in, and the label without it. Only units that change with size count.
fn unit_of(label: &str) -> (Option<Unit>, &str) {
    for (ending, unit) in [(" (ns)", Unit::Nanos), (" (B)", Unit::Bytes)] {
        if let Some(rest) = label.strip_suffix(ending) {
            return (Some(unit), rest);
        }
    }
    (None, label)
}

fn linear(label: &str, (low, high): (f64, f64)) -> Axis {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let (size, label) = match unit_of(label) {
        (Some(unit), rest) => {
            let step = step_of(low.abs().max(high), unit);
            (step.size, format!("{rest} ({})", step.symbol))
        }
        (None, label) => (1.0, label.to_owned()),
    };
    let span = if high > low { (high - low) / size } else { 1.0 };
    let step = nice_above(span / TICKS);
    let first = (low / size / step).floor();
    // A value that is a tick ends the axis, also where division left it a hair above.
    let last = ((high / size / step - 1e-9).ceil()).max(first + 1.0);
    let text = |value: f64| {
        if size == 1.0 && step >= 1.0 {
            brief(value, Unit::Count)
        } else {
            tick_number(value)
        }
    };
    let axis = Axis {
        label,
        ticks: Vec::new(),
        scale: Scale::Linear,
        low: first * step * size,
        high: last * step * size,
    };
    let steps = (0u32..)
        .map(|i| first + f64::from(i))
        .take_while(move |i| *i <= last);
    axis.with_ticks(steps.map(|i| (i * step * size, text(i * step))))
}

/// More digits than a figure has: ticks are exact, and must not look alike.
fn tick_number(value: f64) -> String {
    let text = significant(value, 6);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn log(scale: Scale, label: &str, (low, high): (f64, f64)) -> Axis {
    let (unit, label) = unit_of(label);
    let low = nice_below(low * (1.0 + 1e-9));
    let high = nice_above(high * (1.0 - 1e-9)).max(nice_above(low * 1.5));
    let dense = (high / low).log10() <= DENSE_DECADES;
    let text = |value: f64| match scale {
        Scale::Nines => format!("{} %", nines(value)),
        Scale::Linear | Scale::Log10 => brief(value, unit.unwrap_or(Unit::Count)),
    };
    let axis = Axis {
        label: label.to_owned(),
        ticks: Vec::new(),
        scale,
        low,
        high,
    };
    let decades = (0u32..).map(|i| 10f64.powf(low.log10().floor() + f64::from(i)));
    let decades = decades.take_while(move |decade| *decade <= high * (1.0 + 1e-9));
    let ticks = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| (digit, digit * decade)));
    // 50 % and 80 % are worth a mark; 95 % and 98 % would crowd the nines.
    let marked = ticks.filter(|(digit, value)| {
        dense && scale == Scale::Log10 || *digit == 1.0 || scale == Scale::Nines && *value == 2.0
    });
    axis.with_ticks(marked.map(|(_, value)| (value, text(value))))
}

/// The share in percent that `1 / (1 - share)` stands for.
fn nines(value: f64) -> String {
    tick_percent(100.0 - 100.0 / value)
}

/// A percentage with as many nines as it has.
fn tick_percent(percent: f64) -> String {
    let text = format!("{percent:.7}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`.
fn nice_above(value: f64) -> f64 {
    let decade = decade_of(value);
    let candidates = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * decade);
    candidates
        .into_iter()
        .find(|nice| *nice >= value)
        .unwrap_or(10.0 * decade)
}

/// The greatest of 1, 2 and 5 times a power of ten that is not above `value`.
fn nice_below(value: f64) -> f64 {
    let decade = decade_of(value);
    let candidates = [5.0, 2.0, 1.0].map(|digit| digit * decade);
    candidates
        .into_iter()
        .find(|nice| *nice <= value)
        .unwrap_or(decade)
}

fn decade_of(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
    }

    fn fit(scale: Scale, label: &str, values: &[f64]) -> Axis {
        Axis::fit(scale, label, values.iter().copied())
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_ends_on_a_tick() {
        let axis = fit(Scale::Linear, "sessions", &[3_000.0, 14_500.0]);
        assert_eq!(texts(&axis), ["0", "5 k", "10 k", "15 k"]);
        assert_eq!(
            (axis.place(0.0), axis.place(15_000.0)),
            (Some(0.0), Some(1.0))
        );
        assert_eq!(
            texts(&fit(Scale::Linear, "s", &[0.3])),
            ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
        );
    }

    #[test]
    fn values_below_zero_are_shown() {
        let axis = fit(Scale::Linear, "change", &[-3.0, 5.0]);
        assert_eq!(texts(&axis), ["-4", "-2", "0", "2", "4", "6"]);
    }

    #[test]
    fn a_unit_in_the_label_is_the_one_of_the_ticks() {
        let axis = fit(Scale::Linear, "latency (ns)", &[0.0, 4_200_000.0]);
        assert_eq!(axis.label, "latency (ms)");
        assert_eq!(texts(&axis), ["0", "1", "2", "3", "4", "5"]);
        let axis = fit(Scale::Linear, "memory (B)", &[512.0, 4_505.0]);
        assert_eq!(axis.label, "memory (KiB)");
        assert_eq!(axis.place(5.0 * 1_024.0), Some(1.0));
        let axis = fit(Scale::Log10, "latency (ns)", &[11_000.0, 3e9]);
        assert_eq!(axis.label, "latency");
        assert_eq!(
            texts(&axis),
            ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
    }

    #[test]
    fn a_logarithmic_axis_ends_at_round_numbers() {
        let axis = fit(Scale::Log10, "sessions", &[1_000.0, 15_000.0]);
        assert_eq!(texts(&axis), ["1 k", "2 k", "5 k", "10 k", "20 k"]);
        assert_eq!(
            (axis.place(1_000.0), axis.place(20_000.0)),
            (Some(0.0), Some(1.0))
        );
        assert_eq!((axis.place(0.0), axis.place(-1.0)), (None, None));
        let axis = fit(Scale::Log10, "sessions", &[1_000.0, 1e6]);
        assert_eq!(texts(&axis), ["1 k", "10 k", "100 k", "1 M"]);
    }

    #[test]
    fn shares_are_written_as_percent() {
        let axis = fit(Scale::Nines, "share", &[1.0, 100_000.0]);
        assert_eq!(
            texts(&axis),
            [
                "0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"
            ]
        );
    }

    #[test]
    fn a_single_value_and_none_still_make_an_axis() {
        for scale in [Scale::Linear, Scale::Log10, Scale::Nines] {
            for values in [&[][..], &[0.0], &[1.0], &[7.0], &[1e9]] {
                let axis = fit(scale, "x", values);
                assert!(
                    axis.ticks.len() >= 2 || scale == Scale::Nines,
                    "{scale:?} {values:?} {axis:?}"
                );
                let places = axis.ticks.iter().map(|tick| tick.place);
                assert!(places.is_sorted_by(|a, b| a < b), "{axis:?}");
                let seen = values.iter().filter_map(|value| axis.place(*value));
                assert!(
                    seen.into_iter().all(|place| (0.0..=1.0).contains(&place)),
                    "{axis:?}"
                );
            }
        }
    }
}
