//! `/v1/maintenance`: what keeps the lake quick, now instead of by and by.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lake::KEEP_FOR;
use processors::MaintenanceOptions;
use serde::Deserialize;
use serde_json::json;

use crate::{
    AppState,
    parameters::Parameters,
    problem::{self, Problem},
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    dry_run: bool,
    keep_old_files_seconds: Option<u64>,
}

pub(crate) async fn post(
    State(api): State<AppState>,
    _: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| problem::unreadable(&error))?;
    let order = if body.is_empty() { Ok(Order::default()) } else { serde_json::from_slice(&body) };
    let order: Order = order.map_err(|error| {
        let detail =
            format!("The body is {{\"dry_run\": true, \"keep_old_files_seconds\": 3600}}, or part of it: {error}.");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
    })?;
    let keep_old_files = order.keep_old_files_seconds.map_or(KEEP_FOR, Duration::from_secs);
    let dry_run = order.dry_run;
    let tables = api.pipeline.maintenance.order(MaintenanceOptions { dry_run, keep_old_files }).await;
    let tables = tables.ok_or_else(|| {
        Problem::unavailable("not_done", "Maintenance was broken off: forecourt goes down, or its log says why.")
    })?;
    Ok(Json(json!({"dry_run": dry_run, "tables": tables})).into_response())
}
