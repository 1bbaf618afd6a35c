//! What is drawn: a car where there is no photo, and how a price went.

use std::{collections::BTreeSet, fmt::Write};

use search_index::Price;

use super::{escape::escaped, words::Language};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 26.0;
const TOP: f64 = 14.0;
/// Stretches of a price chart.
const MAX_CHART_INTERVALS: usize = 200;

/// A car of this body and colour.
pub(crate) fn car(body: Option<&str>, color: Option<&str>) -> String {
    let car = side(&body.unwrap_or_default().to_lowercase(), paint(color.unwrap_or_default()));
    format!(
        "<svg class=\"photo\" viewBox=\"0 0 320 200\" aria-hidden=\"true\"><rect width=\"320\" height=\"200\" \
         fill=\"#dfe5ec\"/><rect y=\"148\" width=\"320\" height=\"52\" fill=\"#c3ccd6\"/><ellipse cx=\"160\" cy=\"154\" \
         rx=\"128\" ry=\"7\" fill=\"#8894a3\" opacity=\".5\"/>{car}</svg>"
    )
}

/// A car from the side, without what is around it.
pub(super) fn side(body: &str, paint: &str) -> String {
    // The outline above the sills, and the windows in it.
    let (outline, windows) = shape(body);
    format!(
        "<path d=\"{outline}\" fill=\"{paint}\" stroke=\"#2b333d\" \
         stroke-width=\"2\" stroke-linejoin=\"round\"/><path d=\"{windows}\" fill=\"#9fb6c9\" stroke=\"#2b333d\" \
         stroke-width=\"1.5\" stroke-linejoin=\"round\"/><g fill=\"#22282f\"><circle cx=\"92\" cy=\"142\" r=\"20\"/>\
         <circle cx=\"232\" cy=\"142\" r=\"20\"/></g><g fill=\"#c9d1da\"><circle cx=\"92\" cy=\"142\" r=\"9\"/><circle \
         cx=\"232\" cy=\"142\" r=\"9\"/></g><rect x=\"280\" y=\"112\" width=\"9\" height=\"9\" rx=\"3\" \
         fill=\"#ffe9a8\"/><rect x=\"31\" y=\"110\" width=\"7\" height=\"11\" rx=\"2\" fill=\"#d64541\"/>"
    )
}

fn shape(body: &str) -> (&'static str, &'static str) {
    let is = |kinds: &[&str]| kinds.iter().any(|kind| body.contains(kind));
    if is(&["pickup", "truck", "ute"]) {
        (
            "M30 142V98h112l4-36c1-7 5-10 12-10h46c8 0 13 3 17 10l18 34 42 7c9 2 12 7 12 15v24z",
            "M156 94l3-26c1-4 3-6 7-6h14v32zM188 94V62h16c4 0 7 2 9 6l13 26z",
        )
    } else if is(&["suv", "crossover", "4x4"]) {
        (
            "M30 142v-36l20-42c4-8 10-12 19-12h112c9 0 15 3 21 10l26 34 48 8c11 2 16 7 16 17v21z",
            "M58 92l13-24c2-4 5-6 10-6h32v30zM122 92V62h28v30zM159 92V62h21c5 0 9 2 13 7l18 23z",
        )
    } else if is(&["van", "minivan", "mpv", "people"]) {
        (
            "M30 142V62c0-10 5-16 15-16h128c11 0 19 4 27 12l36 40 40 8c10 2 15 8 15 17v19z",
            "M46 90V60h36v30zM92 90V60h36v30zM138 90V60h32c6 0 11 2 15 7l21 23z",
        )
    } else if is(&["wagon", "estate"]) {
        (
            "M30 142v-34l16-34c4-8 9-12 18-12h110c9 0 15 3 22 9l30 25 48 8c11 2 16 7 16 17v21z",
            "M56 96l10-18c2-4 5-6 10-6h30v24zM116 96V72h28v24zM154 96V72h20c5 0 9 1 13 5l21 19z",
        )
    } else if is(&["hatch", "compact"]) {
        (
            "M38 142v-32l20-30c6-11 13-16 25-16h84c10 0 17 3 25 10l27 22 46 8c11 2 16 7 16 17v21z",
            "M66 98l14-20c3-4 6-6 11-6h29v26zM130 98V72h36c6 0 10 2 15 6l22 20z",
        )
    } else if is(&["coupe", "coupé", "convertible", "cabriolet", "roadster", "sport"]) {
        (
            "M30 142v-26l42-16c24-24 40-32 68-32 26 0 44 6 66 28l60 8c11 2 20 9 20 17v21z",
            "M86 100c16-16 28-22 46-23v23zM142 100V77c20 0 34 5 50 23z",
        )
    } else {
        (
            "M26 142v-30l36-10 30-28c7-6 13-9 22-9h46c10 0 17 3 25 9l30 24 54 8c11 2 20 8 20 16v20z",
            "M84 98l18-17c4-4 8-6 13-6h20v23zM144 98V75h18c6 0 10 2 15 5l21 18z",
        )
    }
}

pub(super) fn paint(color: &str) -> &'static str {
    let color = color.to_lowercase();
    let known = [
        ("black", "#2f353c"),
        ("white", "#f7f8f9"),
        ("silver", "#c4cad1"),
        ("grey", "#848d98"),
        ("gray", "#848d98"),
        ("red", "#b9342d"),
        ("blue", "#2d62a8"),
        ("green", "#2f7450"),
        ("yellow", "#e5bd2f"),
        ("orange", "#dc7a2b"),
        ("brown", "#7a5438"),
        ("beige", "#d8c7a5"),
        ("gold", "#bd9a4c"),
        ("purple", "#6d4a97"),
    ];
    known.iter().find(|(name, _)| color.contains(name)).map_or("#a7b1bd", |(_, paint)| paint)
}

/// A price over time, as steps: each holds until the next. `until` ends the last. Times are microseconds, prices cents.
pub(crate) fn price_chart(
    prices: &[Price],
    until: i64,
    language: Language,
    currency: Option<&str>,
    label: &str,
) -> Option<String> {
    let first = prices.first()?.since;
    let (low, high) = (prices.iter().map(|price| price.cents).min()?, prices.iter().map(|price| price.cents).max()?);
    let span = float(until.saturating_sub(first)).max(1.0);
    // A price that never changed is in the middle.
    let (low, high) = if low == high { (low - low / 10 - 1, high + high / 10 + 1) } else { (low, high) };
    let x = |at: i64| LEFT + (WIDTH - LEFT - 8.0) * (float(at.saturating_sub(first)) / span).clamp(0.0, 1.0);
    let y = |price: i64| TOP + (HEIGHT - TOP - BOTTOM) * (float(high - price) / float(high - low));
    let mut path = String::new();
    for (index, Price { since, cents, .. }) in downsampled(prices).into_iter().enumerate() {
        let line = if index == 0 { 'M' } else { 'H' };
        let _ = match line {
            'M' => write!(path, "M{:.1} {:.1}", x(*since), y(*cents)),
            _ => write!(path, "H{:.1}V{:.1}", x(*since), y(*cents)),
        };
    }
    let _ = write!(path, "H{:.1}", x(until));
    let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
    for price in [low, high] {
        let at = y(price);
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            escaped(&language.money(float(price) / 100.0, currency))
        );
    }
    let day = |time: i64| schemas::field_type::format_timestamp(time).chars().take(10).collect::<String>();
    let _ = write!(
        svg,
        "<path d=\"{path}\"/><text x=\"{LEFT}\" y=\"{0}\">{1}</text><text x=\"{WIDTH}\" y=\"{0}\" \
         text-anchor=\"end\">{2}</text></svg>",
        HEIGHT - 6.0,
        day(first),
        day(until)
    );
    Some(svg)
}

/// The first price, and of each stretch of the others the lowest and the highest: a chart has no room for more.
fn downsampled(prices: &[Price]) -> Vec<&Price> {
    let Some((first, others)) = prices.split_first() else { return Vec::new() };
    let stretches = others.chunks(others.len().div_ceil(MAX_CHART_INTERVALS).max(1));
    let extremes = stretches.flat_map(|stretch| {
        let lowest = stretch.iter().enumerate().min_by_key(|(_, price)| price.cents).map(|(at, _)| at);
        let highest = stretch.iter().enumerate().max_by_key(|(_, price)| price.cents).map(|(at, _)| at);
        let ends = BTreeSet::from_iter(lowest.into_iter().chain(highest));
        ends.into_iter().map(move |at| &stretch[at])
    });
    std::iter::once(first).chain(extremes).collect()
}

#[expect(clippy::cast_precision_loss, reason = "cents and microseconds of this millennium are below 2^53")]
fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use schemas::Position;
    use search_index::Price;

    use super::{MAX_CHART_INTERVALS, downsampled};

    #[test]
    fn a_chart_of_many_prices_keeps_the_first_the_lowest_and_the_highest() {
        let price = |since: i64, cents: i64| Price { since, cents, position: Position::new(1) };
        let few = [price(1, 5), price(2, 9), price(3, 7)];
        assert_eq!(downsampled(&few).len(), 3);
        assert!(downsampled(&[]).is_empty());
        let mut many: Vec<Price> = (0..20_000).map(|at| price(at, 1_000 + at % 7)).collect();
        (many[12_345].cents, many[777].cents) = (1, 9_999);
        let kept = downsampled(&many);
        assert!(kept.len() <= 1 + 2 * MAX_CHART_INTERVALS, "{}", kept.len());
        assert!(kept.is_sorted_by_key(|price| price.since));
        for at in [0, 777, 12_345] {
            assert!(kept.iter().any(|price| price.since == at), "{at}");
        }
    }
}
