//! `/v1/sql` and `/v1/tables`.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use lake::{
    QueryLimits, ResultFormat, SqlError, result_format::EncodedRows, session, sql_type::sql_type,
    table_description::TableDescription,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    AppState,
    asking::{Answering, AsOf, Asking, DEFAULT_TIME, MAX_TIME, not_past, refused},
    consistency::{Freshness, POSITION, answer},
    parameters::Parameters,
    problem::{self, Problem},
};

/// Rows of an answer in JSON, unless it asks for another number; other formats are streamed to their end.
const DEFAULT_ROWS: usize = 10_000;
/// Rows of an answer in JSON at most.
const MAX_ROWS: usize = 1_000_000;
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
    State(api): State<AppState>,
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
    State(api): State<AppState>,
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

async fn ask(
    api: &AppState,
    question: Question,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let format = format_of(&question, headers)?;
    let limits = limits(&question, format)?;
    let values = session::parameters(&question.params).map_err(|index| {
        let detail = format!("params[{index}] is a text, a number, a truth value or null");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "A parameter cannot be used", detail);
        problem.at("field", "params").at("index", index)
    })?;
    let as_of = AsOf::of(question.as_of.as_ref().unwrap_or(&Value::Null)).ok_or_else(not_past)?;
    let asking = Asking { as_of, freshness: Freshness::of(parameters, headers)?, limits };
    let sql = &api.pipeline.sql;
    let statement = sql.parse(&question.query).map_err(refused)?;
    let Answering { rows, permit } = api.answer(statement, values, asking).await?;
    let position = rows.position;
    let mut encoded = sql.encode(rows, format, permit);
    // What goes wrong before the first rows is still told as a problem.
    let first = encoded.next_chunk().await.transpose().map_err(refused)?;
    let mut response = Body::from_stream(body(first, encoded)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(POSITION, HeaderValue::from(position.get()));
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

/// The bytes as they come. A failure on the way ends the connection: what came is no whole answer.
fn body(first: Option<Bytes>, encoded: EncodedRows) -> impl Stream<Item = Result<Bytes, SqlError>> {
    let rest = stream::unfold(encoded, async |mut encoded| {
        let chunk = encoded.next_chunk().await?;
        if let Err(error) = &chunk {
            tracing::warn!(error = error as &dyn std::error::Error, "a query failed on its way");
        }
        Some((chunk, encoded))
    });
    stream::iter(first.map(Ok)).chain(rest)
}

pub(crate) async fn tables(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let freshness = Freshness::of(&parameters, &headers)?;
    let view = freshness.wait(&api.pipeline.lake).await?;
    let tables = api.pipeline.sql.tables(&view).await.map_err(refused)?;
    let tables: Vec<Value> = tables.iter().map(described).collect();
    Ok(answer(view.as_ref(), json!({"tables": tables})))
}

fn described(table: &TableDescription) -> Value {
    let columns = table.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": sql_type(&column.kind),
            "nullable": column.nullable,
            "meaning": column.meaning,
            "unit": column.unit,
        })
    });
    let columns: Vec<Value> = columns.collect();
    json!({"schema": table.schema, "name": table.name, "meaning": table.meaning, "columns": columns})
}
