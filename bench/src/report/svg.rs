//! Line plots as SVG, readable on a light and on a dark page.

use super::axis::{Axis, Scale, Tick};

/// A plot to draw.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: String,
    /// Smaller, below the title: what was run and where.
    pub(super) subtitle: String,
    /// What is along, and how.
    pub(super) x: (Scale, String),
    /// What is up, and how.
    pub(super) y: (Scale, String),
    /// What is drawn.
    pub(super) curves: Vec<Curve>,
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    /// Its name in the legend.
    pub(super) label: String,
    /// Its points, in order of x.
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 64.0;
const PLOT_HEIGHT: f64 = 400.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
/// From the lower edge of the plot to the first line of the legend.
const TO_LEGEND: f64 = 74.0;
const LEGEND_ROW: f64 = 20.0;
/// What a character of the legend takes at most, on average.
const CHARACTER: f64 = 7.2;
/// The line drawn in front of a label of the legend, and the gap after it.
const SAMPLE: f64 = 40.0;
/// Longer labels are cut off.
const LONGEST_LABEL: usize = 115;
/// Longer subtitles are cut off.
const LONGEST_SUBTITLE: usize = 140;
/// Points are marked on curves that have at most so many.
const MARKED: usize = 40;

/// Told apart on white, also by people who see fewer colours.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#b5447d", "#1a1a1a", "#b8860b", "#4aa3df", "#7a3db8",
];
/// Told apart without colours.
const DASHES: [&str; 4] = ["none", "8 4", "2 3", "10 3 2 3"];

/// Draws `plot`.
pub(super) fn svg(plot: &Plot) -> String {
    let points = || plot.curves.iter().flat_map(|curve| &curve.points);
    // A point that one axis cannot show must not widen the other.
    let shown = |scale: Scale, value: f64| scale == Scale::Linear || value > 0.0;
    let both = || points().filter(|(x, y)| shown(plot.x.0, *x) && shown(plot.y.0, *y));
    let x = Axis::fit(plot.x.0, &plot.x.1, both().map(|point| point.0));
    let y = Axis::fit(plot.y.0, &plot.y.1, both().map(|point| point.1));

    let columns = legend_columns(&plot.curves);
    let rows = plot.curves.len().div_ceil(columns);
    let height = TOP + PLOT_HEIGHT + TO_LEGEND + LEGEND_ROW * to_f64(rows);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    out.push_str(&titles(plot));
    out.push_str(&axes(&x, &y));
    for (i, curve) in plot.curves.iter().enumerate() {
        out.push_str(&curve_svg(i, curve, &x, &y));
        out.push_str(&legend_entry(i, curve, columns));
    }
    out.push_str("</svg>\n");
    out
}

fn titles(plot: &Plot) -> String {
    let left_out = plot
        .curves
        .iter()
        .flat_map(|curve| &curve.points)
        .filter(|(x, y)| {
            (plot.x.0 != Scale::Linear && *x <= 0.0) || (plot.y.0 != Scale::Linear && *y <= 0.0)
        });
    let note = match left_out.count() {
        0 => String::new(),
        count => format!("points at 0 or below, left out: {count}; "),
    };
    let subtitle = cut(&format!("{note}{}", plot.subtitle), LONGEST_SUBTITLE);
    let (title, subtitle) = (escape(&plot.title), escape(&subtitle));
    format!(
        "<text x=\"{LEFT}\" y=\"28\" font-size=\"18\" font-weight=\"600\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"48\" font-size=\"12\" fill=\"#666\">{subtitle}</text>\n"
    )
}

fn axes(x: &Axis, y: &Axis) -> String {
    let (bottom, right) = (TOP + PLOT_HEIGHT, LEFT + PLOT_WIDTH);
    let mut out = String::new();
    for Tick { place, text } in &x.ticks {
        let at = across(*place);
        out.push_str(&format!(
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            bottom + 19.0,
            escape(text)
        ));
    }
    for Tick { place, text } in &y.ticks {
        let at = up(*place);
        out.push_str(&format!(
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            at + 4.5,
            escape(text)
        ));
    }
    let (middle_x, middle_y) = (across(0.5), up(0.5));
    out.push_str(&format!(
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#555\"/>\n\
         <text x=\"{middle_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(18 {middle_y:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>\n",
        bottom + 42.0,
        escape(&x.label),
        escape(&y.label)
    ));
    out
}

fn curve_svg(i: usize, curve: &Curve, x: &Axis, y: &Axis) -> String {
    let (colour, dash) = pen(i);
    let mut places: Vec<String> = Vec::with_capacity(curve.points.len());
    for (px, py) in &curve.points {
        if let (Some(px), Some(py)) = (x.place(*px), y.place(*py)) {
            places.push(format!("{:.1},{:.1}", across(px), up(py)));
        }
    }
    // Points that fall on one spot need drawing once.
    places.dedup();
    let mut out = format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-linejoin=\"round\" stroke-dasharray=\"{dash}\"><title>{}</title></polyline>\n",
        places.join(" "),
        escape(&curve.label)
    );
    if places.len() <= MARKED {
        for (cx, cy) in places.iter().filter_map(|place| place.split_once(',')) {
            out.push_str(&format!(
                "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3\" fill=\"{colour}\"/>\n"
            ));
        }
    }
    out
}

fn legend_columns(curves: &[Curve]) -> usize {
    let longest = curves
        .iter()
        .map(|curve| curve.label.chars().count())
        .max()
        .unwrap_or(0);
    let entry = SAMPLE + CHARACTER * to_f64(longest) + 16.0;
    [4, 3, 2]
        .into_iter()
        .find(|columns| entry * to_f64(*columns) <= PLOT_WIDTH)
        .unwrap_or(1)
}

fn legend_entry(i: usize, curve: &Curve, columns: usize) -> String {
    let (colour, dash) = pen(i);
    let x = LEFT + PLOT_WIDTH / to_f64(columns) * to_f64(i % columns);
    let y = TOP + PLOT_HEIGHT + TO_LEGEND + LEGEND_ROW * to_f64(i / columns);
    format!(
        "<path d=\"M{x:.1} {:.1}h30\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dash}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>\n",
        y - 4.5,
        x + SAMPLE,
        escape(&cut(&curve.label, LONGEST_LABEL))
    )
}

/// The colour and dash of a curve: different for the first 32.
fn pen(i: usize) -> (&'static str, &'static str) {
    let colour = COLOURS[i % COLOURS.len()];
    let dash = DASHES[(i + i / COLOURS.len()) % DASHES.len()];
    (colour, dash)
}

fn across(place: f64) -> f64 {
    LEFT + place * PLOT_WIDTH
}

fn up(place: f64) -> f64 {
    TOP + (1.0 - place) * PLOT_HEIGHT
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest - 1).chain(['…']).collect()
}

/// Text as XML may hold it.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML cannot hold these at all, escaped or not.
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Exact for every number of curves there can be.
fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plot(curves: Vec<Curve>) -> Plot {
        Plot {
            title: "Memory".to_owned(),
            subtitle: "idle".to_owned(),
            x: (Scale::Log10, "sessions".to_owned()),
            y: (Scale::Linear, "per session (B)".to_owned()),
            curves,
        }
    }

    fn curve(label: &str, points: &[(f64, f64)]) -> Curve {
        Curve {
            label: label.to_owned(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_curve_goes_from_corner_to_corner() {
        let text = svg(&plot(vec![curve(
            "user",
            &[(1_000.0, 0.0), (100_000.0, 500.0)],
        )]));
        assert!(text.contains("points=\"76.0,464.0 916.0,64.0\""), "{text}");
        assert!(
            text.contains("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"),
            "{text}"
        );
        assert_eq!(text.matches("<circle").count(), 2);
    }

    #[test]
    fn text_cannot_become_markup() {
        let mut plot = plot(vec![curve("<script>&'\"", &[(1.0, 1.0)])]);
        plot.title = "a<b\u{0}".to_owned();
        let text = svg(&plot);
        assert!(text.contains("&lt;script&gt;&amp;&#39;&quot;"), "{text}");
        assert!(text.contains("a&lt;b\u{fffd}"), "{text}");
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn points_that_a_logarithm_has_no_place_for_are_told() {
        let text = svg(&plot(vec![curve(
            "user",
            &[(0.0, 9.0), (10.0, 1.0), (100.0, 2.0)],
        )]));
        assert!(
            text.contains("points at 0 or below, left out: 1; idle"),
            "{text}"
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn the_first_32_curves_look_different() {
        let pens: BTreeSet<_> = (0..32).map(pen).collect();
        assert_eq!(pens.len(), 32);
    }

    #[test]
    fn many_points_are_not_marked_one_by_one() {
        let points: Vec<_> = (1..=5_000).map(|i| (f64::from(i), 1.0)).collect();
        let text = svg(&plot(vec![curve("user", &points)]));
        assert_eq!(text.matches("<circle").count(), 0);
        let drawn = text.matches(",64.0").count();
        assert!((100..5_000).contains(&drawn), "{drawn}");
    }

    #[test]
    fn a_plot_without_points_is_still_a_plot() {
        let text = svg(&plot(vec![curve("user", &[])]));
        assert!(
            text.ends_with("</svg>\n") && !text.contains("NaN"),
            "{text}"
        );
    }

    #[test]
    fn long_labels_get_fewer_columns_and_are_cut() {
        let label = "l".repeat(300);
        assert_eq!(legend_columns(&[curve("a", &[])]), 4);
        assert_eq!(legend_columns(&[curve(&label, &[])]), 1);
        let text = svg(&plot(vec![curve(&label, &[])]));
        assert!(
            text.contains(&format!(">{}…</text>", "l".repeat(LONGEST_LABEL - 1))),
            "{text}"
        );
    }
}
