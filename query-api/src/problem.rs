//! The errors people see: RFC 9457 problem documents.
//!
//! Every error of a handler is a [`Problem`]. What is wrong with a request is said in full; what is wrong with us is
//! logged under the request's id, and the client is told only that id.

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// Largest body of a request that is no stream of events.
pub(crate) const MAX_BODY: usize = 2 << 20;

/// The header that names a request in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that was not answered.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    /// Where the fault is: parameter, field, index, line, column.
    place: Map<String, Value>,
    retry_after_seconds: Option<u32>,
    ends_connection: bool,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            place: Map::new(),
            retry_after_seconds: None,
            ends_connection: false,
        }
    }

    /// Say where the fault is.
    #[must_use]
    pub fn at(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.place.insert(name.to_owned(), value.into());
        self
    }

    /// A query parameter that cannot be used.
    #[must_use]
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", "A parameter cannot be used", detail)
            .at("parameter", name)
    }

    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// Something that passes: ask again.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, "Not available right now", detail);
        problem.retry_after_seconds = Some(1);
        problem
    }

    /// Say when asking again makes sense.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The request's body may not have been read: the connection cannot be used again, and the client is told so.
    #[must_use]
    pub const fn ending_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    /// What kind of problem it is.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    #[must_use]
    pub const fn title(&self) -> &'static str {
        self.title
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The parameter that cannot be used.
    #[must_use]
    pub fn parameter_at_fault(&self) -> Option<&str> {
        self.place.get("parameter")?.as_str()
    }

    /// Where in a query the fault is, from 1.
    #[must_use]
    pub fn line_and_column(&self) -> Option<(u64, u64)> {
        self.place.get("line")?.as_u64().zip(self.place.get("column")?.as_u64())
    }

    /// Our own fault. `error` goes to the log, not to the client.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let request_id = uuid::Uuid::new_v4().to_string();
        tracing::error!(error, request_id, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here",
            "The failure is in the server's log under this request's id.",
        )
        .at("request_id", request_id)
    }
}

/// A body that did not arrive whole, or is larger than a request may be.
#[must_use]
pub fn unreadable(rejection: &BytesRejection) -> Problem {
    let status = rejection.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = format!("A request has at most {MAX_BODY} bytes. Shorten it.");
        return Problem::new(status, "body_too_large", "The body is too large", detail);
    }
    Problem::new(status, "invalid_body", "The body cannot be read", "The body did not arrive whole.")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:forecourt:problem:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.place.clone());
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.ends_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(id) = self.place.get("request_id").and_then(Value::as_str).and_then(|id| id.parse().ok()) {
            headers.insert(REQUEST_ID, id);
        }
        response
    }
}
