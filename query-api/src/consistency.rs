//! The position an answer reflects, and waiting for one: how a client reads what it has just written.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use schemas::{Position, field_type::format_timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{parameters::Parameters, problem::Problem};

/// The position an answer reflects.
pub const POSITION: HeaderName = HeaderName::from_static("x-forecourt-position");
/// The position a reader insists on; the parameter `min_position` says the same.
pub const MIN_POSITION: &str = "x-forecourt-min-position";

/// The answer before there is a state to answer from.
pub(crate) const STARTING: &str = "Forecourt is starting. Ask again in a moment.";

const DEFAULT_WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Something that reflects a position.
pub trait Reflects {
    fn position(&self) -> Position;
    /// The latest event time reflected, in microseconds since 1970, UTC.
    fn event_time(&self) -> Option<i64>;
}

impl Reflects for lake::LakeView {
    fn position(&self) -> Position {
        self.position
    }

    fn event_time(&self) -> Option<i64> {
        self.event_time
    }
}

impl Reflects for search_index::ListingSnapshot {
    fn position(&self) -> Position {
        self.position
    }

    fn event_time(&self) -> Option<i64> {
        self.event_time
    }
}

impl Reflects for search_index::Market {
    fn position(&self) -> Position {
        self.position
    }

    fn event_time(&self) -> Option<i64> {
        self.event_time
    }
}

impl Reflects for processors::KpiCache {
    fn position(&self) -> Position {
        self.position
    }

    fn event_time(&self) -> Option<i64> {
        self.event_time
    }
}

/// How new an answer must be, and how long the client waits for that.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    min_position: Position,
    wait: Duration,
}

impl Freshness {
    /// At least this position, waited for so long; a moment, when none.
    #[must_use]
    pub fn new(min_position: Position, wait: Option<Duration>) -> Self {
        let wait = wait.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT);
        Self { min_position, wait }
    }

    /// From `min_position` (or its header) and `wait_ms`.
    ///
    /// # Errors
    /// When one of them is no number.
    pub fn of(parameters: &Parameters, headers: &HeaderMap) -> Result<Self, Problem> {
        let parameter = parameters.parsed::<u64>("min_position", "a position, a whole number")?;
        let header =
            headers.get(MIN_POSITION).map(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()));
        let header = match header {
            Some(None) => return Err(Problem::parameter(MIN_POSITION, "the header is a position, a whole number")),
            Some(header) => header,
            None => None,
        };
        let wait = parameters.parsed("wait_ms", "a number of milliseconds")?.map(Duration::from_millis);
        Ok(Self::new(Position::new(parameter.or(header).unwrap_or_default()), wait))
    }

    /// What is waited for.
    #[must_use]
    pub const fn min_position(self) -> Position {
        self.min_position
    }

    /// As new as this and no older than `position`.
    #[must_use]
    pub fn at_least(self, position: Position) -> Self {
        Self { min_position: self.min_position.max(position), ..self }
    }

    /// The newest state, once it reflects the wanted position.
    ///
    /// # Errors
    /// When it does not within the wait.
    pub async fn wait<T: Reflects>(self, state: &watch::Receiver<Option<Arc<T>>>) -> Result<Arc<T>, Problem> {
        let mut waiting = state.clone();
        let fresh = waiting.wait_for(|state| state.as_ref().is_some_and(|state| state.position() >= self.min_position));
        if let Ok(Ok(fresh)) = tokio::time::timeout(self.wait, fresh).await
            && let Some(fresh) = fresh.as_ref()
        {
            return Ok(Arc::clone(fresh));
        }
        let reflects = state.borrow().as_ref().map(|state| state.position().get());
        let detail = match reflects {
            Some(position) => format!(
                "Position {} is asked for; {position} is reached. Ask again, or wait longer with wait_ms.",
                self.min_position
            ),
            None => STARTING.to_owned(),
        };
        Err(Problem::unavailable("not_yet", detail).at("position", reflects.unwrap_or_default()))
    }
}

/// `{"position", "event_time"}`.
#[must_use]
pub fn as_of(state: &impl Reflects) -> Value {
    json!({"position": state.position().get(), "event_time": state.event_time().map(format_timestamp)})
}

/// A JSON answer that says what it reflects, in its body and its header.
#[must_use]
pub fn answer(state: &impl Reflects, mut body: Value) -> Response {
    if let Some(object) = body.as_object_mut() {
        object.insert("as_of".to_owned(), as_of(state));
    }
    let mut response = Json(body).into_response();
    response.headers_mut().insert(POSITION, HeaderValue::from(state.position().get()));
    response
}
