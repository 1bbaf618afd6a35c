//! `POST /v1/events`: the door.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ingest::{intake::BodyForm, publisher::PublishError};

use crate::{
    Api,
    consistency::POSITION,
    operations,
    parameters::Parameters,
    problem::{self, Problem},
};

/// Largest body taken in one request.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// Most lines in one request, so that answering for each of them stays small.
const MAX_LINES: usize = 200_000;

pub(crate) async fn post(
    State(api): State<Api>,
    _: Parameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| problem::unreadable(&error))?;
    if !operations::knows_the_log(&api) {
        // Until then a repeated event would not be recognised.
        return Err(Problem::unavailable(
            "starting",
            "Forecourt is reading the log. Send the events again in a moment.",
        ));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = if content_type.contains("ndjson") { BodyForm::Ndjson } else { BodyForm::Any };
    if body.trim_ascii().is_empty() {
        let detail = "The body holds no event. Send one event, a JSON array of events, or one event per line.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "empty_body", "Nothing to take", detail));
    }
    if body.iter().filter(|byte| **byte == b'\n').count() > MAX_LINES {
        let detail = format!("A request has at most {MAX_LINES} lines. Send the rest in further requests.");
        let title = "The body has too many lines";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_lines", title, detail));
    }
    let report = api.intake.take(body, form).await.map_err(|error| match error {
        PublishError::Unacknowledged | PublishError::Refused { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "events were not published");
            let detail = "The log did not acknowledge the events. Send all of them again: none takes effect twice.";
            Problem::unavailable("log_unavailable", detail)
        }
        PublishError::ShuttingDown => {
            Problem::unavailable("shutting_down", "Forecourt is shutting down. Send the events again later.")
        }
    })?;
    tracing::debug!(
        accepted = report.accepted,
        duplicates = report.duplicates,
        rejected = report.rejected.len(),
        "took events"
    );
    let taken = report.accepted + report.duplicates > 0;
    let status = if taken { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let position = report.position;
    let mut response = (status, Json(report)).into_response();
    if let Some(position) = position {
        response.headers_mut().insert(POSITION, HeaderValue::from(position));
    }
    Ok(response)
}
