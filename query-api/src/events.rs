//! `POST /v1/events`: the door.

use std::net::IpAddr;

use axum::{
    Extension, Json,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use ingest::{
    IntakeError, IntakeReport, Interrupted,
    bodies::MAX_BODY_WAIT,
    encoding::{Encoding, Reader},
    intake::BodyForm,
    publisher::PublishError,
};
use schemas::{MAX_EVENT_BYTES, envelope};
use serde_json::json;
use tokio_util::io::StreamReader;

use crate::{
    AppState, client_places::ClientAddress, consistency::POSITION, operations, parameters::Parameters, problem::Problem,
};

pub(crate) async fn post(
    State(api): State<AppState>,
    _: Parameters,
    client: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let client = client.map(|Extension(ClientAddress(address))| address);
    take(&api, client, &headers, body).await.map_err(Problem::ending_connection)
}

async fn take(api: &AppState, client: Option<IpAddr>, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    if !operations::knows_the_log(api) {
        // Until then a repeated event would not be recognised.
        return Err(Problem::unavailable(
            "starting",
            "Forecourt is reading the log. Send the events again in a moment.",
        ));
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let encoding = Encoding::of_header(text(header::CONTENT_ENCODING)).ok_or_else(|| {
        let detail = format!("Content-Encoding is one of {}.", Encoding::NAMES);
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_encoding", "The encoding is not known", detail)
    })?;
    let form = if text(header::CONTENT_TYPE).contains("ndjson") { BodyForm::Ndjson } else { BodyForm::Any };
    let body = encoding.decode(StreamReader::new(body.into_data_stream().map_err(std::io::Error::other)));
    let body = binary_mode(headers, body).await?;
    let taken = api.intake.take(body, form, client).await;
    let report = taken.map_err(|error| with_reason(interrupted(error), api))?;
    if report == IntakeReport::default() {
        let detail = "The body holds no event. Send one event, a JSON array of events, or one event per line.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "empty_body", "Nothing to take", detail));
    }
    tracing::debug!(
        accepted = report.accepted,
        duplicates = report.duplicates,
        rejected = report.rejected_total,
        "took events"
    );
    metrics::counter!("intake_events_accepted_total").increment(report.accepted);
    metrics::counter!("intake_events_duplicate_total").increment(report.duplicates);
    metrics::counter!("intake_events_rejected_total").increment(report.rejected_total);
    let taken = report.accepted + report.duplicates > 0;
    let status = if taken { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let position = report.position;
    let mut response = (status, Json(report)).into_response();
    if let Some(position) = position {
        response.headers_mut().insert(POSITION, HeaderValue::from(position));
    }
    Ok(response)
}

/// A CloudEvent whose attributes are in the headers is read as one whose attributes are in the body.
async fn binary_mode(headers: &HeaderMap, body: Reader) -> Result<Reader, Problem> {
    let names = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let named: Vec<(&str, &str)> = names.collect();
    if !named.iter().any(|(name, _)| name.strip_prefix(envelope::BINARY_PREFIX) == Some("specversion")) {
        return Ok(body);
    }
    let whole = to_bytes(Body::from_stream(tokio_util::io::ReaderStream::new(body)), MAX_EVENT_BYTES);
    let whole = tokio::time::timeout(MAX_BODY_WAIT, whole).await.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = format!("A CloudEvent in binary mode has at most {MAX_EVENT_BYTES} bytes, and arrives whole.");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
    })?;
    // A body that is no JSON stays as it is, and is refused for that.
    let event = envelope::structured(named, &whole).and_then(Result::ok).unwrap_or_else(|| whole.to_vec());
    Ok(Box::pin(std::io::Cursor::new(event)))
}

/// Why the log takes no events, as `/ready` says it.
fn with_reason(problem: Problem, api: &AppState) -> Problem {
    let is_full = api.pipeline.log_status.borrow().is_disk_full;
    let reason = match api.intake.publisher().refusal() {
        _ if is_full => "the disk of the data folder is full".to_owned(),
        Some(refusal) => refusal.reason,
        None => return problem,
    };
    if problem.code() == "log_unavailable" { problem.at("reason", reason) } else { problem }
}

/// What stopped a body, and what of it was taken before: sending all of it again is safe.
pub(crate) fn interrupted(Interrupted { error, before }: Interrupted) -> Problem {
    let again = "Send all of it again: nothing takes effect twice.";
    let problem = match &error {
        IntakeError::Publish(PublishError::Unacknowledged | PublishError::Refused { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "events were not published");
            Problem::unavailable("log_unavailable", format!("The log did not acknowledge the events. {again}"))
        }
        IntakeError::Publish(PublishError::ShuttingDown) => {
            Problem::unavailable("shutting_down", "Forecourt is shutting down. Send the events again later.")
        }
        IntakeError::Busy => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "Too many events at once",
            format!("More is being sent than the log takes. Come back a little later. {again}"),
        )
        .retry_after(1),
        IntakeError::Slow => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_slow",
            "The body came too slowly",
            format!("The body let the server wait for too long. {again}"),
        ),
        IntakeError::Body(_) => Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_body",
            "The body cannot be read",
            format!("The body did not arrive whole, or is not compressed as Content-Encoding says. {again}"),
        ),
    };
    problem.at("taken_before", json!({"accepted": before.accepted, "duplicates": before.duplicates}))
}
