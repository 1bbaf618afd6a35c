//! `POST /v1/sql` and `GET /v1/tables`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use lake::{QueryLimits, SqlError, arrow::datatypes::DataType, result_json};
use schemas::Catalogue;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Api,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::{self, Problem},
};

const DEFAULT_ROWS: usize = 10_000;
const MAX_ROWS: usize = 1_000_000;
const MAX_TIME: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    query: String,
    limit: Option<usize>,
}

pub(crate) async fn post(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| problem::unreadable(&error))?;
    let Query { query, limit } = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("The body is {{\"query\": \"SELECT …\", \"limit\": 100}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
            .at("line", error.line())
            .at("column", error.column())
    })?;
    let rows = limit.unwrap_or(DEFAULT_ROWS);
    if rows > MAX_ROWS {
        let detail = format!("limit is at most {MAX_ROWS}, not {rows}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The limit is too large", detail)
            .at("field", "limit"));
    }
    let view = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.lake).await?;
    let limits = QueryLimits { rows, time: MAX_TIME };
    let result = api.pipeline.sql.query(&view, Vec::new(), &query, limits).await.map_err(refused)?;
    let columns: Vec<Value> = result
        .schema
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": sql_type(field.data_type())}))
        .collect();
    let rows: Vec<Value> = result_json::rows(&result.batches).collect();
    let row_count = rows.len();
    let body = json!({"columns": columns, "rows": rows, "row_count": row_count, "truncated": result.truncated});
    Ok(answer(view.as_ref(), body))
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
    let view = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.lake).await?;
    Ok(answer(view.as_ref(), json!({"tables": describe(&api.catalogue)})))
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

/// A column's type by its SQL name.
fn sql_type(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Binary => "bytea".to_owned(),
        DataType::List(item) => format!("{}[]", sql_type(item.data_type())),
        other => other.to_string().to_lowercase(),
    }
}
