//! Line plots as SVG: what a sweep gives, for documents. A few lines of our own: no library draws this little with less.

use std::fmt::Write;

/// One line of a plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// What stands beside it.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// Axes, and lines over them.
#[derive(Clone, PartialEq, Debug)]
pub struct Plot {
    /// What stands above.
    pub title: String,
    /// What stands below the horizontal axis, which is logarithmic.
    pub x: String,
    /// What stands beside the vertical axis, which begins at 0.
    pub y: String,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that the colour-blind tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// Several plots below each other, as one SVG document.
#[must_use]
pub fn svg(plots: &[Plot]) -> String {
    let height = HEIGHT * plots.len().max(1) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, plot) in plots.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * at as f64);
        draw(&mut out, plot);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, plot: &Plot) {
    let points = || plot.series.iter().flat_map(|it| &it.points);
    let finite = || points().filter(|(x, y)| x.is_finite() && y.is_finite() && *x > 0.0);
    let least = finite().map(|it| it.0).fold(f64::INFINITY, f64::min);
    let most = finite().map(|it| it.0).fold(0.0, f64::max);
    let (least, most) = if least < most {
        (least, most)
    } else {
        (1.0, 10.0)
    };
    let top = nice(finite().map(|it| it.1).fold(0.0, f64::max));
    let x_of = |x: f64| LEFT + (x / least).ln() / (most / least).ln() * (WIDTH - LEFT - RIGHT);
    let y_of = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
    let (title, x, y) = (escaped(&plot.title), escaped(&plot.x), escaped(&plot.y));
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\n\
         <text x=\"16\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {})\">{y}</text>",
        HEIGHT - 12.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y_of(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    let mut marks: Vec<f64> = finite().map(|it| it.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x_of(mark),
            HEIGHT - BOTTOM + 16.0,
            short(mark)
        );
    }
    for (at, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let here = series.points.iter();
        let here = here.filter(|(x, y)| x.is_finite() && y.is_finite() && *x > 0.0);
        let places: Vec<(f64, f64)> = here.map(|(x, y)| (x_of(*x), y_of(*y))).collect();
        let line: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 18.0 * at as f64);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 18.0,
            y + 7.0,
            escaped(&series.name)
        );
    }
}

/// The least of 1, 2, 4 and 5 times a power of ten that is no less.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 4.0, 5.0, 10.0];
    let fits = factors.iter().find(|factor| *factor * power >= value);
    fits.unwrap_or(&10.0) * power
}

/// A number in few characters: `1.5 M`, `20 k`, `0.25`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_where_they_belong() {
        let plot = Plot {
            title: String::from("a < b & c"),
            x: String::from("shards"),
            y: String::from("reports/s"),
            series: vec![Series {
                name: String::from("fan-in 2"),
                points: vec![(10.0, 0.0), (100.0, 4e6), (1000.0, 2e6), (5.0, f64::NAN)],
            }],
        };
        let text = svg(&[plot.clone(), plot]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt; b &amp; c") && text.contains(">4 M<"));
        // First and last at the ends, the middle of a logarithmic axis halfway, the largest at the top.
        assert!(
            text.contains("points=\"80.0,310.0 285.0,40.0 490.0,175.0\""),
            "{text}"
        );
        assert_eq!(text.matches("<polyline").count(), 2);
    }

    #[test]
    fn a_plot_of_nothing_is_a_document() {
        let text = svg(&[]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.25, 7.0, 1500.0, 2e6, 1.05e9].map(short);
        assert_eq!(all, ["0", "0.25", "7", "1.5 k", "2 M", "1.05 G"]);
        assert_eq!([0.0, 3.0, 41.0, 1e6].map(nice), [1.0, 4.0, 50.0, 1e6]);
    }
}
