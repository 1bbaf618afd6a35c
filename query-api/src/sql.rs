//! `/v1/sql` and `/v1/tables`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use lake::{
    ExtraTable, LakeView, QueryLimits, ResultFormat, SqlError,
    result_format::{Chunk, EncodedRows, sql_type},
    session,
};
use processors::derived_tables::{CURRENT, LISTINGS, derived_tables, listings_table};
use schemas::{Catalogue, Position, field_type::parse_timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Api,
    consistency::{Freshness, POSITION, answer, as_of},
    parameters::Parameters,
    problem::{self, Problem},
};

/// Rows of an answer in JSON, unless it asks for another number; other formats are streamed to their end.
const DEFAULT_ROWS: usize = 10_000;
/// Rows of an answer in JSON at most.
const MAX_ROWS: usize = 1_000_000;
/// How long a query may take, to its last row.
const DEFAULT_TIME: Duration = Duration::from_secs(60);
const MAX_TIME: Duration = Duration::from_secs(600);
/// Queries that run at once; others wait their turn.
pub(crate) const MAX_QUERIES: usize = 16;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question, in a body or in the URL.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    query: String,
    limit: Option<usize>,
    /// Of `$1`, `$2`, ...
    #[serde(default)]
    params: Vec<Value>,
    /// A position, or a time.
    as_of: Option<Value>,
    format: Option<String>,
    timeout_ms: Option<u64>,
}

pub(crate) async fn post(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| problem::unreadable(&error))?;
    let question = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("The body is {{\"query\": \"SELECT …\", \"limit\": 100}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
            .at("line", error.line())
            .at("column", error.column())
    })?;
    ask(&api, question, &parameters, &headers).await
}

pub(crate) async fn get(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(query) = parameters.text("query")? else {
        return Err(Problem::parameter("query", "query is what to ask, such as SELECT 1"));
    };
    let question = Question {
        query: query.to_owned(),
        limit: parameters.parsed("limit", "a number of rows")?,
        params: parameters.every("param").map(Value::from).collect(),
        as_of: parameters.text("as_of")?.map(Value::from),
        format: parameters.text("format")?.map(str::to_owned),
        timeout_ms: parameters.parsed("timeout_ms", "a number of milliseconds")?,
    };
    ask(&api, question, &parameters, &headers).await
}

async fn ask(api: &Api, question: Question, parameters: &Parameters, headers: &HeaderMap) -> Result<Response, Problem> {
    let format = format_of(&question, headers)?;
    let limits = limits(&question, format)?;
    let values = session::parameters(&question.params).map_err(|index| {
        let detail = format!("params[{index}] is a text, a number, a truth value or null");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "A parameter cannot be used", detail);
        problem.at("field", "params").at("index", index)
    })?;
    let freshness = Freshness::of(parameters, headers)?;
    let turn = tokio::time::timeout(PATIENCE, Arc::clone(&api.sql_turns).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let detail = format!("{MAX_QUERIES} queries are running. Ask again in a moment.");
        return Err(Problem::unavailable("busy", detail));
    };
    let (view, tables) = tables_of(api, &question, freshness, limits.time).await?;
    let sql = &api.pipeline.sql;
    let rows = sql.query(&view, tables, &question.query, values, limits).await;
    let mut encoded = sql.encode(rows.map_err(refused)?, format, turn);
    // What goes wrong before the first rows is still told as a problem.
    let first = encoded.next().await.transpose().map_err(refused)?;
    let reflects = (format == ResultFormat::Json).then(|| as_of(view.as_ref()));
    let mut response = Body::from_stream(body(encoded, first, reflects)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(POSITION, HeaderValue::from(view.position.get()));
    Ok(response)
}

/// The format that is named, or else the first of `Accept` that there is.
fn format_of(question: &Question, headers: &HeaderMap) -> Result<ResultFormat, Problem> {
    let named = |wanted: &str| ResultFormat::ALL.into_iter().find(|format| format.name() == wanted);
    if let Some(name) = &question.format {
        return named(name).ok_or_else(|| {
            let names = ResultFormat::ALL.map(ResultFormat::name).join(", ");
            Problem::parameter("format", format!("format is one of {names}, not {name:?}"))
        });
    }
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept: Vec<String> = accept.flat_map(|value| value.split(',')).map(str::to_lowercase).collect();
    let mut ranges: Vec<(&str, f32)> = accept.iter().map(|range| quality(range)).collect();
    ranges.sort_by(|a, b| b.1.total_cmp(&a.1));
    let of_range = |range: &str| match range {
        "" | "*/*" | "application/*" | "application/json" => Some(ResultFormat::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(ResultFormat::Ndjson),
        "text/csv" | "text/*" => Some(ResultFormat::Csv),
        "application/vnd.apache.arrow.stream" => Some(ResultFormat::Arrow),
        "application/vnd.apache.parquet" | "application/parquet" | "application/x-parquet" => {
            Some(ResultFormat::Parquet)
        }
        _ => None,
    };
    if ranges.is_empty() {
        return Ok(ResultFormat::Json);
    }
    let wanted = ranges.iter().filter(|(_, quality)| *quality > 0.0).find_map(|(range, _)| of_range(range));
    wanted.ok_or_else(|| {
        let types = ResultFormat::ALL.map(ResultFormat::media_type).join(", ");
        let detail = format!("A result is one of {types}.");
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "There is no such format", detail)
    })
}

/// A media range and how much it is wanted: `text/csv;q=0.5`.
fn quality(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|quality| quality.parse().ok());
    (name, quality.unwrap_or(1.0))
}

fn limits(question: &Question, format: ResultFormat) -> Result<QueryLimits, Problem> {
    let out_of = |name: &str, most: u128, given: u128| {
        let detail = format!("{name} is at most {most}, not {given}");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The limit is too large", detail);
        Err(problem.at("field", name))
    };
    let rows = match (format, question.limit) {
        (ResultFormat::Json, None) => DEFAULT_ROWS,
        (ResultFormat::Json, Some(rows)) if rows > MAX_ROWS => {
            return out_of("limit", MAX_ROWS as u128, rows as u128);
        }
        (_, rows) => rows.unwrap_or(usize::MAX),
    };
    let time = question.timeout_ms.map_or(DEFAULT_TIME, Duration::from_millis);
    if time > MAX_TIME {
        return out_of("timeout_ms", MAX_TIME.as_millis(), time.as_millis());
    }
    Ok(QueryLimits { rows, time })
}

/// The view a query is answered from, and the tables beside its events, all at one position.
async fn tables_of(
    api: &Api,
    question: &Question,
    freshness: Freshness,
    within: Duration,
) -> Result<(Arc<LakeView>, Vec<ExtraTable>), Problem> {
    let (pipeline, sql) = (&api.pipeline, &api.pipeline.sql);
    let mut tables = derived_tables(&pipeline.kpis.definitions);
    let names_listings = sql
        .references(&question.query)
        .iter()
        .any(|(schema, name)| schema.as_deref() == Some(CURRENT) && name == LISTINGS);
    let view = if names_listings {
        if question.as_of.is_some() {
            let detail = "current.listings is as of now: leave out as_of, or ask the events.";
            return Err(Problem::parameter("as_of", detail));
        }
        // Search comes a moment after the events: they are cut where it is.
        let listings = freshness.wait(&pipeline.listings).await?;
        let view = freshness.at_least(listings.position).wait(&pipeline.lake).await?;
        let view = sql.cut(&view, listings.position, within).await.map_err(refused)?;
        let shown = tokio::task::spawn_blocking(move || listings_table(&listings)).await;
        let shown = shown.map_err(|error| Problem::internal(&error))?;
        tables.push(shown.map_err(|error| Problem::internal(&error))?);
        view
    } else {
        view_of(api, question.as_of.as_ref(), freshness, within).await?
    };
    Ok((view, tables))
}

/// The newest view, or the one of an earlier position or time.
async fn view_of(
    api: &Api,
    as_of: Option<&Value>,
    freshness: Freshness,
    within: Duration,
) -> Result<Arc<LakeView>, Problem> {
    let Some(as_of) = as_of else {
        return freshness.wait(&api.pipeline.lake).await;
    };
    let sql = &api.pipeline.sql;
    let expects = "as_of is a position, or a time that has passed, such as 1200 or 2026-11-02T08:30:00Z";
    match position_of(as_of) {
        Some(AsOf::Position(position)) => {
            let view = freshness.at_least(position).wait(&api.pipeline.lake).await?;
            sql.cut(&view, position, within).await.map_err(refused)
        }
        Some(AsOf::Time(time)) if time <= (api.now)() => {
            // Whatever the log took until then is there by now; the lake may not have it yet.
            let last = api.pipeline.log.last_message().await;
            let last = last.map_err(|_| Problem::unavailable("log_away", "The log is away. Ask again in a moment."))?;
            let view = freshness.at_least(last).wait(&api.pipeline.lake).await?;
            let position = sql.position_at(&view, time, within).await.map_err(refused)?;
            sql.cut(&view, position, within).await.map_err(refused)
        }
        Some(AsOf::Time(_)) | None => Err(Problem::parameter("as_of", expects)),
    }
}

enum AsOf {
    Position(Position),
    /// Microseconds since 1970, UTC.
    Time(i64),
}

fn position_of(value: &Value) -> Option<AsOf> {
    let text = match value {
        Value::Number(number) => return number.as_u64().map(|position| AsOf::Position(Position::new(position))),
        Value::String(text) => text,
        _ => return None,
    };
    let position = text.parse().ok().map(|position| AsOf::Position(Position::new(position)));
    position.or_else(|| parse_timestamp(text).map(AsOf::Time))
}

type First = Option<Chunk>;

/// The bytes as they come; in JSON, within the object that says what they reflect. A failure on the way ends the
/// connection: what came is no whole answer.
fn body(encoded: EncodedRows, first: First, as_of: Option<Value>) -> impl Stream<Item = Result<Vec<u8>, SqlError>> {
    let before = as_of.as_ref().map(|_| {
        let fields = encoded.schema.fields().iter();
        let columns = fields.map(|field| json!({"name": field.name(), "type": sql_type(field.data_type())}));
        Ok(format!("{{\"columns\":{},\"rows\":[", Value::Array(columns.collect())).into_bytes())
    });
    let rows = stream::unfold((Some(encoded), first), move |(encoded, first)| {
        let as_of = as_of.clone();
        async move {
            let mut encoded = encoded?;
            let chunk = match first {
                Some(chunk) => Ok(chunk),
                None => encoded.next().await?,
            };
            match chunk {
                Ok(Chunk::Bytes(bytes)) => Some((Ok(bytes), (Some(encoded), None))),
                Ok(Chunk::End { rows, truncated }) => as_of.map(|as_of| {
                    let after = format!("],\"row_count\":{rows},\"truncated\":{truncated},\"as_of\":{as_of}}}");
                    (Ok(after.into_bytes()), (None, None))
                }),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a query failed on its way");
                    Some((Err(error), (None, None)))
                }
            }
        }
    });
    stream::iter(before).chain(rows)
}

fn refused(error: SqlError) -> Problem {
    let detail = error.to_string();
    match error {
        SqlError::Invalid { at, .. } => {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_sql", "The query cannot be run", detail);
            match at {
                Some((line, column)) => problem.at("line", line).at("column", column),
                None => problem,
            }
        }
        SqlError::ReadOnly { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "read_only", "SQL is read-only here", detail)
        }
        SqlError::TooSlow(_) => Problem::new(StatusCode::BAD_REQUEST, "too_slow", "The query takes too long", detail),
        SqlError::TooLarge(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "too_large", "The query needs too much memory", detail)
        }
        SqlError::Internal(_) => Problem::internal(&error),
    }
}

pub(crate) async fn tables(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let freshness = Freshness::of(&parameters, &headers)?;
    let listings = freshness.wait(&api.pipeline.listings).await?;
    let view = freshness.at_least(listings.position).wait(&api.pipeline.lake).await?;
    let mut tables = describe(&api.catalogue);
    let mut beside = derived_tables(&api.pipeline.kpis.definitions);
    beside.push(listings_table(&listings).map_err(|error| Problem::internal(&error))?);
    for (table, columns) in beside.iter().zip(api.pipeline.sql.columns_of(&view, &beside).await) {
        let columns = columns.iter().flat_map(|schema| schema.fields().iter()).map(
            |field| json!({"name": field.name(), "type": sql_type(field.data_type()), "nullable": field.is_nullable()}),
        );
        let columns: Vec<Value> = columns.collect();
        tables.push(json!({
            "schema": table.schema, "name": table.name, "meaning": table.meaning, "columns": columns
        }));
    }
    Ok(answer(view.as_ref(), json!({"tables": tables})))
}

/// Every event view, with the columns of its payload; all have the envelope's columns too.
fn describe(catalogue: &Arc<Catalogue>) -> Vec<Value> {
    let mut tables = vec![json!({
        "schema": "lake",
        "name": "events",
        "meaning": "Every event: its envelope, its context, and its payload as JSON text in data.",
        "columns": [],
    })];
    for context in catalogue.contexts() {
        for event in &context.events {
            let columns = event.fields.iter().map(|field| {
                let column = &context.columns[field.column];
                json!({
                    "name": column.name,
                    "type": sql_type(&column.kind.arrow()),
                    "nullable": !field.required,
                    "meaning": column.meaning,
                    "unit": column.unit,
                })
            });
            tables.push(json!({
                "schema": context.name,
                "name": event.view,
                "meaning": event.meaning,
                "columns": columns.collect::<Vec<_>>(),
            }));
        }
    }
    tables
}
