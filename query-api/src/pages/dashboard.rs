//! `/dashboard`: every KPI of a period as a tile, and one of them as a chart.

use std::collections::BTreeMap;

use askama::Template;
use axum::{extract::State, http::Method, response::Response};
use processors::{
    KpiDefinition,
    calendar::Grain,
    kpi_definition::{Better, Dimension, KpiValue, Measures},
};
use schemas::{Position, field_type::format_timestamp};
use serde_json::Value;

use super::{
    Page, PageRequest,
    chart::{self, Line, Shape},
    links, shown,
    words::Language,
};
use crate::{
    AppState,
    consistency::Freshness,
    endpoints,
    kpis::{Question, body, cache_with, latest},
    parameters::Parameters,
    problem::Problem,
};

/// Days of the period, to choose from; and the usual one.
const PERIODS: [u32; 5] = [7, 30, 90, 180, 365];
const USUAL_PERIOD: u32 = 30;
const LONGEST_PERIOD: u32 = 3_660;
const USUAL_KPI: &str = "sales_volume";
/// Groups in a chart.
const GROUPS: usize = 6;
/// Values of a table, the latest first.
const LATEST: usize = 14;

struct Tile {
    name: String,
    title: String,
    value: String,
    what: String,
    change: Option<String>,
    /// better, worse or even.
    way: &'static str,
    spark: Option<String>,
    target: Option<String>,
    href: String,
    chosen: bool,
}

struct Choice {
    value: String,
    label: String,
    chosen: bool,
}

struct Detail {
    title: String,
    definition: String,
    values: Vec<Choice>,
    dimensions: Vec<Choice>,
    chart: Option<String>,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Whether retention has taken events that some of them were computed from.
    outlived: bool,
    csv_href: String,
    json_href: String,
    sql_href: String,
}

#[derive(Template)]
#[template(path = "dashboard.html")]
struct DashboardPage {
    page: Page,
    empty: bool,
    periods: Vec<Choice>,
    grains: Vec<Choice>,
    timezone: String,
    kpi: String,
    /// What only these facts are of, by dimension.
    filters: Vec<(String, String)>,
    tiles: Vec<Tile>,
    detail: Option<Detail>,
    fresh: String,
    /// What tells whether anything has changed.
    poll: String,
}

pub(crate) async fn dashboard(State(api): State<AppState>, asked: PageRequest) -> Response {
    let page = dashboard_page(&api, &asked).await;
    shown(&asked, page)
}

/// What the page shows: a period that ends with what is known.
struct Period {
    days: u32,
    /// The parameters of every KPI on the page, without its dimensions.
    asked: Vec<(String, String)>,
}

impl Period {
    fn of(parameters: &Parameters, latest: Option<i64>) -> Result<Self, Problem> {
        let days = parameters.parsed("days", "a number of days")?.unwrap_or(USUAL_PERIOD);
        if !(1..=LONGEST_PERIOD).contains(&days) {
            return Err(Problem::parameter("days", format!("days is 1 to {LONGEST_PERIOD}, not {days}")));
        }
        let zone = parameters.text("timezone")?.unwrap_or("UTC").to_owned();
        let day = Parameters::checked(
            endpoints::parameters(&Method::GET, "/v1/kpis/{name}"),
            vec![("timezone".to_owned(), zone.clone())],
        )?;
        let calendar = Question::calendar(&day)?;
        let last = latest.and_then(|time| calendar.start(time));
        let end = last.and_then(|last| calendar.offset(last, 1));
        let from = last.and_then(|last| calendar.offset(last, 1 - i64::from(days)));
        let grain = match parameters.text("grain")? {
            Some(grain) => grain.to_owned(),
            None => match days {
                0..=2 => Grain::Hour,
                3..=100 => Grain::Day,
                101..=400 => Grain::Week,
                _ => Grain::Month,
            }
            .name()
            .to_owned(),
        };
        let mut asked = vec![("grain".to_owned(), grain), ("timezone".to_owned(), zone)];
        let bounds = [("from", from), ("to", end)];
        asked.extend(bounds.into_iter().filter_map(|(name, at)| Some((name.to_owned(), format_timestamp(at?)))));
        Ok(Self { days, asked })
    }

    fn grain(&self) -> &str {
        &self.asked[0].1
    }

    fn timezone(&self) -> &str {
        &self.asked[1].1
    }

    /// The parameters of one KPI.
    fn question(&self, kpi: &KpiDefinition, more: &[(String, String)]) -> Result<Question, Problem> {
        let known = |name: &str| name.strip_prefix("filter.").is_none_or(|name| kpi.dimension(name).is_some());
        let more = more.iter().filter(|(name, _)| known(name));
        let pairs = self.asked.iter().chain(more).cloned().collect();
        Question::of(kpi, &Parameters::checked(endpoints::parameters(&Method::GET, "/v1/kpis/{name}"), pairs)?)
    }
}

async fn dashboard_page(api: &AppState, asked: &PageRequest) -> Result<DashboardPage, Problem> {
    let parameters = &asked.parameters;
    let first = Freshness::of(parameters, &asked.headers)?.wait(&api.pipeline.kpis.cache).await?;
    let period = Period::of(parameters, latest(api, &first))?;
    let mut page = Page::new(asked, String::new(), "");
    page.title = format!("{} – Forecourt", page.t("dashboard"));
    let definitions = std::sync::Arc::clone(&api.pipeline.kpis.definitions);
    let chosen = parameters.text("kpi")?.unwrap_or(USUAL_KPI);
    let chosen = definitions
        .iter()
        .find(|kpi| kpi.name == chosen)
        .ok_or_else(|| Problem::parameter("kpi", format!("there is no KPI {chosen:?}")))?;
    let filters: Vec<(String, String)> =
        parameters.pairs().filter(|(name, value)| name.starts_with("filter.") && !value.is_empty()).cloned().collect();
    let compared = [filters.clone(), vec![("compare".to_owned(), "previous".to_owned())]].concat();
    let mut tiles = Vec::new();
    let mut board = first;
    for kpi in definitions.iter() {
        let question = period.question(kpi, &compared)?;
        board = cache_with(api, &question.key).await?;
        let answer = body(api, kpi, &question, &board).await?;
        tiles.push(tile(kpi, &answer, &page, parameters, kpi.name == chosen.name));
    }
    let detail = detail(api, chosen, &period, &filters, asked, &page).await?;
    let language = page.language;
    let fresh = format!(
        "{} {}{}",
        page.t("position"),
        language.number(i64::try_from(board.position.get()).unwrap_or(i64::MAX)),
        board.event_time.map_or_else(String::new, |time| format!(
            ", {} {}",
            page.t("event_time"),
            format_timestamp(time)
        ))
    );
    let names: Vec<&str> = definitions.iter().map(|kpi| kpi.name.as_str()).collect();
    let polled = [("names", names.join(","))].into_iter().map(|(name, value)| (name.to_owned(), value));
    let polled: Vec<(String, String)> =
        polled.chain(period.asked.iter().cloned()).chain([("totals".to_owned(), "false".to_owned())]).collect();
    let poll = links::query(polled.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let grains = Grain::ALL.iter().map(|grain| Choice {
        value: grain.name().to_owned(),
        label: page.t(&format!("grain_{}", grain.name())).to_owned(),
        chosen: grain.name() == period.grain(),
    });
    let mut days: Vec<u32> = PERIODS.to_vec();
    if !days.contains(&period.days) {
        days.push(period.days);
        days.sort_unstable();
    }
    let periods = days.into_iter().map(|days| Choice {
        value: days.to_string(),
        label: format!("{} {days} {}", page.t("last_period"), page.t("days_period")),
        chosen: days == period.days,
    });
    Ok(DashboardPage {
        empty: board.position == Position::START,
        periods: periods.collect(),
        grains: grains.collect(),
        timezone: period.timezone().to_owned(),
        kpi: chosen.name.clone(),
        filters,
        tiles,
        detail: Some(detail),
        fresh,
        poll: format!("/v1/kpis{poll}"),
        page,
    })
}

/// A value as people read it.
fn told(language: Language, value: &KpiValue, amount: f64) -> String {
    let decimal = |digits: usize| {
        let text = format!("{amount:.digits$}");
        if language == Language::French { text.replace('.', ",") } else { text }
    };
    #[expect(clippy::cast_possible_truncation, reason = "far below 2^53")]
    match value.unit.as_str() {
        "CAD" => language.money(amount, Some("CAD")),
        "ratio" => {
            let text = format!("{:.1}", amount * 100.0);
            if language == Language::French { format!("{}\u{a0}%", text.replace('.', ",")) } else { format!("{text}%") }
        }
        "integer" | "points" => language.number(amount.round() as i64),
        "hours" => format!("{}\u{a0}h", decimal(1)),
        "days" => format!("{}\u{a0}{}", decimal(1), if language == Language::French { "j" } else { "d" }),
        _ => decimal(1),
    }
}

/// The values of the whole period, and of the one before: sums, or what there is at the end.
fn ends(kpi: &KpiDefinition, answer: &Value) -> (Option<f64>, Option<f64>) {
    let Some(first) = kpi.headline() else { return (None, None) };
    let compared = &answer["compared"]["previous"];
    let (now, before) = match kpi.measures {
        Measures::Flow => (&answer["totals"]["values"], &compared["totals"]["values"]),
        Measures::Level => {
            let rows = answer["rows"].as_array().and_then(|rows| rows.last());
            let before = compared["rows"].as_array().and_then(|rows| rows.last());
            (rows.map_or(&Value::Null, |row| &row["values"]), before.map_or(&Value::Null, |row| &row["values"]))
        }
    };
    (now[&first.name].as_f64(), before[&first.name].as_f64())
}

fn tile(kpi: &KpiDefinition, answer: &Value, page: &Page, parameters: &Parameters, chosen: bool) -> Tile {
    let language = page.language;
    let (now, before) = ends(kpi, answer);
    let first = kpi.headline();
    let value = now.zip(first).map_or_else(|| "–".to_owned(), |(now, value)| told(language, value, now));
    let share = now.zip(before).filter(|(_, before)| *before != 0.0).map(|(now, before)| (now - before) / before.abs());
    let way = match (share, kpi.better) {
        (Some(share), Better::Up) if share > 0.0 => "better",
        (Some(share), Better::Down) if share < 0.0 => "better",
        (Some(share), Better::Up | Better::Down) if share != 0.0 => "worse",
        _ => "even",
    };
    let change = share.map(|share| {
        let sign = if share > 0.0 {
            "▲"
        } else if share < 0.0 {
            "▼"
        } else {
            "="
        };
        let percent = format!("{:.1}", share.abs() * 100.0);
        let percent = if language == Language::French { percent.replace('.', ",") } else { percent };
        format!("{sign} {percent}\u{a0}%")
    });
    let none = Vec::new();
    let rows = answer["rows"].as_array().unwrap_or(&none);
    let values: Vec<Option<f64>> =
        rows.iter().map(|row| first.and_then(|first| row["values"][&first.name].as_f64())).collect();
    // The target of any value is worth a word: of the last bucket that has one.
    let target = kpi.values.iter().find_map(|value| {
        let status =
            rows.iter().rev().map(|row| &row["targets"][&value.name]).find(|target| target["met"].is_boolean())?;
        let met = if status["met"] == true { page.t("target_met") } else { page.t("target_missed") };
        let wanted = told(language, value, status["target"].as_f64()?);
        Some(format!("{} {}: {met}", page.t("target"), wanted))
    });
    Tile {
        name: kpi.name.clone(),
        title: kpi.title.clone(),
        what: first
            .map_or_else(String::new, |value| value.meaning.split(", null").next().unwrap_or_default().to_owned()),
        value,
        change,
        way,
        spark: chart::spark(&values),
        target,
        href: format!(
            "/dashboard{}#detail",
            links::changed(parameters, &["kpi", "value", "by"], &[("kpi", &kpi.name)])
        ),
        chosen,
    }
}

async fn detail(
    api: &AppState,
    kpi: &KpiDefinition,
    period: &Period,
    filters: &[(String, String)],
    asked: &PageRequest,
    page: &Page,
) -> Result<Detail, Problem> {
    let parameters = &asked.parameters;
    let value = parameters.text("value")?.and_then(|name| kpi.values.iter().find(|value| value.name == name));
    let Some(value) = value.or(kpi.headline()) else {
        return Err(Problem::parameter("value", "there is no such value"));
    };
    let by = parameters.text("by")?.and_then(|name| kpi.dimension(name));
    let mut more = filters.to_vec();
    match by {
        Some(dimension) => {
            more.extend([("by".to_owned(), dimension.name.clone()), ("top".to_owned(), GROUPS.to_string())]);
        }
        None => more.push(("compare".to_owned(), "previous".to_owned())),
    }
    let question = period.question(kpi, &more)?;
    let board = cache_with(api, &question.key).await?;
    let answer = body(api, kpi, &question, &board).await?;
    let (labels, lines) = lines(&answer, value, by, page);
    let shape = if value.is_zero_in_a_gap() && kpi.measures == Measures::Flow && by.is_none() && labels.len() <= 62 {
        Shape::Bars
    } else {
        Shape::Lines
    };
    let language = page.language;
    let outlived = outlived(&answer, page);
    let rows: Vec<Vec<String>> = labels
        .iter()
        .enumerate()
        .rev()
        .take(LATEST)
        .map(|(at, label)| {
            let cells = lines.iter().map(|line| {
                line.values
                    .get(at)
                    .copied()
                    .flatten()
                    .map_or_else(|| "–".to_owned(), |amount| told(language, value, amount))
            });
            let state = outlived.get(label).map_or_else(String::new, |state| format!(" ({state})"));
            [format!("{label}{state}")].into_iter().chain(cells).collect()
        })
        .collect();
    let choices = |names: Vec<(&str, &str)>, chosen: Option<&str>| {
        let choice = |(value, label): (&str, &str)| Choice {
            value: value.to_owned(),
            label: label.to_owned(),
            chosen: Some(value) == chosen,
        };
        names.into_iter().map(choice).collect::<Vec<_>>()
    };
    let values = kpi.values.iter().map(|value| (value.name.as_str(), value.meaning.as_str())).collect();
    let dimensions = [("", page.t("by_nothing"))];
    let dimensions = dimensions.into_iter().chain(kpi.dimensions.iter().map(|it| (it.name.as_str(), it.name.as_str())));
    let asked: Vec<(String, String)> = period.asked.iter().chain(&more).cloned().collect();
    let query = |format: &str| {
        let pairs = asked.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([("format", format)]);
        format!("/v1/kpis/{}{}", kpi.name, links::query(pairs))
    };
    let of_period = |name: &str| period.asked.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let sql = behind(kpi, of_period("from"), of_period("to"));
    Ok(Detail {
        title: kpi.title.clone(),
        definition: kpi.definition.clone(),
        values: choices(values, Some(&value.name)),
        dimensions: choices(dimensions.collect(), by.map(|dimension| dimension.name.as_str()).or(Some(""))),
        chart: chart::chart(&labels, &lines, shape),
        head: lines.iter().map(|line| line.name.clone()).collect(),
        rows,
        outlived: labels.iter().rev().take(LATEST).any(|label| outlived.contains_key(label)),
        csv_href: query("csv"),
        json_href: query("json"),
        sql_href: format!("/sql{}", links::query([("query", sql.as_str())].into_iter())),
    })
}

/// The facts behind a KPI's period, as somebody would ask for them.
fn behind(kpi: &KpiDefinition, from: Option<&str>, to: Option<&str>) -> String {
    let body: Vec<&str> = kpi.sql.lines().skip_while(|line| line.starts_with("-- ")).collect();
    let bounds: Vec<String> = [(">=", from), ("<", to)]
        .into_iter()
        .filter_map(|(sign, at)| Some(format!("at {sign} TIMESTAMP '{}'", at?)))
        .collect();
    let bounds = if bounds.is_empty() { String::new() } else { format!("\nWHERE {}", bounds.join(" AND ")) };
    format!("-- {}\nSELECT * FROM (\n{}\n) AS facts{bounds}\nORDER BY at DESC\nLIMIT 200", kpi.title, body.join("\n"))
}

/// The buckets that lost events to retention, by their label: whether they are as they were, or tell what is left.
fn outlived(answer: &Value, page: &Page) -> BTreeMap<String, &'static str> {
    let grain = answer["grain"].as_str().unwrap_or_default();
    let states = answer["rows"].as_array().into_iter().flatten().filter_map(|row| {
        let state = ["frozen", "incomplete"].into_iter().find(|state| row[*state] == true)?;
        Some((label(row["bucket"].as_str()?, grain), page.t(state)))
    });
    states.collect()
}

/// What is drawn: a line for each group, or one beside the period before.
fn lines(answer: &Value, value: &KpiValue, by: Option<&Dimension>, page: &Page) -> (Vec<String>, Vec<Line>) {
    let none = Vec::new();
    let rows = answer["rows"].as_array().unwrap_or(&none);
    let grain = answer["grain"].as_str().unwrap_or_default();
    // An hour that is repeated in autumn is two buckets of one label.
    let (mut labels, mut last): (Vec<String>, &str) = (Vec::new(), "");
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let bucket = row["bucket"].as_str().unwrap_or_default();
        if bucket != last {
            labels.push(label(bucket, grain));
            last = bucket;
        }
        let name = match by {
            Some(dimension) => row["dimensions"][&dimension.name].as_str().unwrap_or("?").to_owned(),
            None => value.meaning.split([',', ';']).next().unwrap_or(&value.name).to_owned(),
        };
        let line = match lines.iter().position(|line| line.name == name) {
            Some(at) => &mut lines[at],
            None => {
                lines.push(Line { name, values: Vec::new() });
                let last = lines.len() - 1;
                &mut lines[last]
            }
        };
        line.values.resize(labels.len() - 1, None);
        line.values.push(row["values"][&value.name].as_f64());
    }
    for line in &mut lines {
        line.values.resize(labels.len(), None);
    }
    if let Some(before) = answer["compared"]["previous"]["rows"].as_array()
        && by.is_none()
    {
        let values: Vec<Option<f64>> = before.iter().map(|row| row["values"][&value.name].as_f64()).collect();
        if values.len() == labels.len() && values.iter().any(Option::is_some) {
            lines.push(Line { name: page.t("average_line").to_owned(), values });
        }
    }
    (labels, lines)
}

/// The start of a bucket, as short as its grain allows.
fn label(bucket: &str, grain: &str) -> String {
    let part = match grain {
        "hour" => bucket.get(5..16).map(|text| text.replace('T', " ")),
        "year" => bucket.get(..4).map(str::to_owned),
        "month" | "quarter" => bucket.get(..7).map(str::to_owned),
        _ => bucket.get(..10).map(str::to_owned),
    };
    part.unwrap_or_else(|| bucket.to_owned())
}
