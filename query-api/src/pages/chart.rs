//! Charts, drawn here: the page's own colours, light and dark.

use charts_rs::{BarChart, Color, LineChart};
use serde_json::{Value, json};

use super::escape::escaped;

const WIDTH: u32 = 920;
const HEIGHT: u32 = 320;
/// Colours that nothing else has, and what the page has in their place.
const COLOURS: [(&str, &str); 3] =
    [("#010203", "var(--soft)"), ("#020304", "var(--line)"), ("#030405", "var(--accent)")];
const OTHERS: [&str; 5] = ["#d97706", "#16a34a", "#9333ea", "#db2777", "#0891b2"];

/// A line of a chart: its name, and a value for each label.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Lines,
    Bars,
}

/// A chart as SVG; none, when there is nothing to draw.
pub(crate) fn chart(labels: &[String], lines: &[Line], shape: Shape) -> Option<String> {
    if labels.is_empty() || lines.iter().all(|line| line.values.iter().all(Option::is_none)) {
        return None;
    }
    let colours: Vec<&str> = [COLOURS[2].0].into_iter().chain(OTHERS).collect();
    let series: Vec<Value> = lines.iter().map(|line| json!({"name": line.name, "data": line.values})).collect();
    let (soft, rule) = (COLOURS[0].0, COLOURS[1].0);
    let document = json!({
        "width": WIDTH, "height": HEIGHT, "margin": 8,
        "legend_show": lines.len() > 1, "legend_font_color": soft, "legend_font_size": 13,
        "x_axis_data": labels, "x_axis_font_color": soft, "x_axis_font_size": 12, "x_axis_stroke_color": rule,
        "y_axis_configs": [{"axis_font_color": soft, "axis_font_size": 12, "axis_stroke_color": rule}],
        "grid_stroke_color": rule, "series_list": series, "series_colors": colours, "series_symbol": null,
        "series_stroke_width": 2.5, "tooltip_show": true, "tooltip_font_color": soft,
    });
    let document = document.to_string();
    let drawn = match shape {
        Shape::Lines => LineChart::from_json(&document).and_then(|mut chart| {
            chart.background_color = transparent();
            chart.svg()
        }),
        Shape::Bars => BarChart::from_json(&document).and_then(|mut chart| {
            chart.background_color = transparent();
            chart.svg()
        }),
    };
    let svg = drawn.inspect_err(|error| tracing::warn!(%error, "a chart cannot be drawn")).ok()?;
    let svg =
        COLOURS.iter().fold(svg, |svg, (ours, theirs)| svg.replace(&ours.to_uppercase(), theirs).replace(ours, theirs));
    // It is as wide as there is room for.
    let sized = format!("width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let named = format!("class=\"plot\" role=\"img\" aria-label=\"{}\"", escaped(&names.join(", ")));
    Some(svg.replacen(&sized, &named, 1))
}

/// What is behind it shows.
fn transparent() -> Color {
    Color::transparent()
}

/// A line without axes, for a tile.
pub(crate) fn spark(values: &[Option<f64>]) -> Option<String> {
    const ACROSS: f64 = 120.0;
    const DOWN: f64 = 28.0;
    let known = || values.iter().flatten().copied();
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    if values.len() < 2 || !least.is_finite() {
        return None;
    }
    let span = if most > least { most - least } else { 1.0 };
    #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
    let step = ACROSS / (values.len() - 1) as f64;
    let mut path = String::new();
    let mut pen = "M";
    for (at, value) in values.iter().enumerate() {
        match value {
            Some(value) => {
                #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
                let (x, y) = (at as f64 * step, DOWN - 2.0 - (value - least) / span * (DOWN - 4.0));
                path.push_str(&format!("{pen}{x:.1} {y:.1}"));
                pen = "L";
            }
            None => pen = "M",
        }
    }
    Some(format!(
        "<svg class=\"spark\" viewBox=\"0 0 {ACROSS} {DOWN}\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::{Line, Shape, chart, spark};

    #[test]
    fn a_chart_has_its_values_and_the_pages_colours() {
        let line = |name: &str, values: &[Option<f64>]| Line { name: name.to_owned(), values: values.to_vec() };
        let labels = ["Mon", "Tue", "<b>"].map(str::to_owned);
        let lines = [line("units", &[Some(1.0), None, Some(3.0)]), line("before", &[Some(2.0), Some(2.0), None])];
        for shape in [Shape::Lines, Shape::Bars] {
            let svg = chart(&labels, &lines, shape).unwrap();
            assert!(svg.contains("var(--accent)") && svg.contains("var(--soft)") && !svg.contains("010203"), "{svg}");
            assert!(svg.contains("class=\"plot\"") && svg.contains("Mon") && !svg.contains("<b>"), "{svg}");
        }
        assert!(chart(&labels, &[line("nothing", &[None, None, None])], Shape::Lines).is_none());
        assert!(spark(&[Some(1.0), None, Some(2.0), Some(3.0)]).unwrap().matches('M').count() == 2);
        assert!(spark(&[None, None]).is_none());
    }
}
