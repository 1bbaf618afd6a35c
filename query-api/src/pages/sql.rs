//! `/sql`: a query, its rows and a chart of them, with the tables beside it.

use std::time::Instant;

use askama::Template;
use axum::{extract::State, response::Response};
use lake::{ParamValues, QueryLimits, result_json, sql_type::sql_type};
use serde_json::Value;

use super::{
    Page, PageRequest,
    chart::{self, Line, Shape},
    links, shown,
};
use crate::{
    AppState,
    asking::{Answering, AsOf, Asking, DEFAULT_TIME, refused},
    consistency::Freshness,
    problem::Problem,
};

/// Rows shown.
const SHOWN: usize = 500;
/// Points and lines of a chart.
const POINTS: usize = 400;
const LINES: usize = 4;
/// A few bars are bars; more are a line.
const BARS: usize = 40;
const EXAMPLE: &str = "SELECT event_type, count(*) AS events\nFROM lake.events\nGROUP BY 1\nORDER BY 2 DESC\nLIMIT 20";

struct SchemaView {
    name: String,
    tables: Vec<TableView>,
}

struct TableView {
    name: String,
    /// As it is written in a query.
    full: String,
    meaning: String,
    columns: Vec<(String, String, String)>,
}

struct ResultView {
    head: Vec<(String, String, bool)>,
    rows: Vec<Vec<String>>,
    told: String,
    truncated: bool,
    chart: Option<String>,
    downloads: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "sql.html")]
struct SqlPage {
    page: Page,
    query: String,
    schemas: Vec<SchemaView>,
    result: Option<ResultView>,
    problem: Option<String>,
}

pub(crate) async fn sql(State(api): State<AppState>, request: PageRequest) -> Response {
    let page = sql_page(&api, &request).await;
    shown(&request, page)
}

async fn sql_page(api: &AppState, request: &PageRequest) -> Result<SqlPage, Problem> {
    let mut page = Page::new(request, String::new(), "");
    page.title = format!("{} – Forecourt", page.t("sql_page"));
    let freshness = Freshness::of(&request.parameters, &request.headers)?;
    let view = freshness.wait(&api.pipeline.lake).await?;
    let mut schemas: Vec<SchemaView> = Vec::new();
    for table in api.pipeline.sql.tables(&view).await.map_err(refused)? {
        let columns = table.columns.iter();
        let columns =
            columns.map(|column| (column.name.clone(), sql_type(&column.kind).to_owned(), column.meaning.clone()));
        let described = TableView {
            name: table.name.clone(),
            full: format!("{}.{}", table.schema, table.name),
            meaning: table.meaning.clone(),
            columns: columns.collect(),
        };
        match schemas.iter_mut().find(|schema| schema.name == table.schema) {
            Some(schema) => schema.tables.push(described),
            None => schemas.push(SchemaView { name: table.schema.clone(), tables: vec![described] }),
        }
    }
    let query = request.parameters.text("query")?.map(str::to_owned);
    let answered = match &query {
        Some(query) => Some(answered(api, query, freshness, &page).await),
        None => None,
    };
    let (result, problem) = match answered {
        Some(Ok(result)) => (Some(result), None),
        Some(Err(problem)) => {
            let place =
                problem.line_and_column().map(|(line, column)| format!(" ({line}:{column})")).unwrap_or_default();
            (None, Some(format!("{}{place}", problem.detail())))
        }
        None => (None, None),
    };
    Ok(SqlPage { query: query.unwrap_or_else(|| EXAMPLE.to_owned()), page, schemas, result, problem })
}

async fn answered(api: &AppState, query: &str, freshness: Freshness, page: &Page) -> Result<ResultView, Problem> {
    let began = Instant::now();
    let statement = api.pipeline.sql.parse(query).map_err(refused)?;
    let limits = QueryLimits { rows: SHOWN, time: DEFAULT_TIME };
    let asking = Asking { as_of: AsOf::Now, freshness, limits };
    let Answering { mut rows, permit } = api.answer(statement, ParamValues::List(Vec::new()), asking).await?;
    let batches = rows.collect().await.map_err(refused)?;
    drop(permit);
    let fields = rows.schema.fields();
    let head: Vec<(String, String, bool)> = fields
        .iter()
        .map(|field| (field.name().clone(), sql_type(field.data_type()).to_owned(), field.data_type().is_numeric()))
        .collect();
    let values: Vec<Vec<Value>> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows())
                .map(|row| batch.columns().iter().map(|column| result_json::cell(column, row)).collect())
        })
        .collect();
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let count = page.language.number(i64::try_from(values.len()).unwrap_or(i64::MAX));
    let position = page.language.number(i64::try_from(rows.position.get()).unwrap_or(i64::MAX));
    let told = format!(
        "{count} {}, {} ms, {} {} {position}",
        page.t("rows_found"),
        began.elapsed().as_millis(),
        page.t("as_of"),
        page.t("position"),
    );
    let download = |format| format!("/v1/sql{}", links::query([("query", query), ("format", format)].into_iter()));
    Ok(ResultView {
        chart: drawn(&head, &values),
        rows: values.iter().map(|row| row.iter().map(text).collect()).collect(),
        truncated: rows.is_truncated(),
        downloads: ["csv", "json", "ndjson", "parquet", "arrow"].map(|format| (format, download(format))).to_vec(),
        told,
        head,
    })
}

/// A chart of the numbers by the first column that is none.
fn drawn(head: &[(String, String, bool)], values: &[Vec<Value>]) -> Option<String> {
    let label = head.iter().position(|(.., numeric)| !numeric)?;
    let numbers: Vec<usize> =
        head.iter().enumerate().filter(|(_, (.., numeric))| *numeric).map(|(at, _)| at).take(LINES).collect();
    if numbers.is_empty() || !(2..=POINTS).contains(&values.len()) {
        return None;
    }
    let labels: Vec<String> =
        values.iter().map(|row| row[label].as_str().map_or_else(|| row[label].to_string(), short)).collect();
    let amount = |value: &Value| value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    let line =
        |at: &usize| Line { name: head[*at].0.clone(), values: values.iter().map(|row| amount(&row[*at])).collect() };
    let lines: Vec<Line> = numbers.iter().map(line).collect();
    chart::chart(&labels, &lines, if values.len() <= BARS { Shape::Bars } else { Shape::Lines })
}

/// A label that fits: midnights as their day.
fn short(text: &str) -> String {
    const LONGEST: usize = 24;
    text.trim_end_matches("T00:00:00Z").chars().take(LONGEST).collect()
}
