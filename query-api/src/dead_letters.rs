//! `/v1/dead-letters`: what was no event, and what is to become of it.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use ingest::{
    publisher::{Outcome, Outgoing, PublishError},
    topology::subject_context,
};
use lake::{
    LakeView, SqlError,
    ledger::{Closing, Decision},
    letters::{Letter, LetterFilter, Page},
};
use schemas::{Position, Rejection, RejectionCode, field_type::format_timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    AppState,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::{self, Problem},
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;
/// Letters retried at once: each may have a megabyte.
const RETRIED_AT_ONCE: usize = 100;
/// Still refused letters told one by one; all are counted.
const MAX_TOLD: usize = 1_000;
const STATUSES: [&str; 3] = ["open", "retried", "dropped"];

pub(crate) async fn list(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let status = match parameters.text("status")?.unwrap_or("open") {
        "all" => None,
        known if STATUSES.contains(&known) => Some(known.to_owned()),
        other => {
            let detail = format!("status is open, retried, dropped or all, not {other:?}");
            return Err(Problem::parameter("status", detail));
        }
    };
    let limit = parameters.parsed("limit", "a number of dead letters")?.unwrap_or(DEFAULT_LIMIT);
    if limit > MAX_LIMIT {
        return Err(Problem::parameter("limit", format!("limit is at most {MAX_LIMIT}")));
    }
    let before = parameters.parsed("before", "a position")?.map_or(Position::from_i64(i64::MAX), Position::new);
    let filter = LetterFilter { status, reason: parameters.text("reason")?.map(str::to_owned), positions: Vec::new() };
    let view = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.lake).await?;
    let letters = api.pipeline.sql.letters(&view, &filter, Page::Before(before, limit), false).await.map_err(failed)?;
    let counts = api.pipeline.sql.letter_counts(&view).await.map_err(failed)?;
    let counts = counts.iter().map(|it| json!({"reason": it.reason, "status": it.status, "count": it.count}));
    let counts: Vec<Value> = counts.collect();
    let next = (letters.len() == limit).then(|| letters.last().map(|letter| letter.position.get())).flatten();
    let letters: Vec<Value> = letters.iter().map(summary).collect();
    Ok(answer(view.as_ref(), json!({"dead_letters": letters, "counts": counts, "next_before": next})))
}

pub(crate) async fn get(
    State(api): State<AppState>,
    position: Result<Path<u64>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(position) =
        position.map_err(|_| Problem::not_found("A dead letter is named by its position, a number."))?;
    let view = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.lake).await?;
    let filter = LetterFilter { positions: vec![Position::new(position)], ..LetterFilter::default() };
    let found =
        api.pipeline.sql.letters(&view, &filter, Page::After(Position::START, 1), true).await.map_err(failed)?;
    let Some(letter) = found.first() else {
        return Err(Problem::not_found(format!(
            "Position {position} is no dead letter. GET /v1/dead-letters lists them."
        )));
    };
    let mut body = summary(letter);
    body["headers_base64"] = letter.headers.as_ref().map(|block| BASE64_STANDARD.encode(block)).into();
    match std::str::from_utf8(&letter.payload) {
        Ok(text) => body["payload"] = text.into(),
        Err(_) => body["payload_base64"] = BASE64_STANDARD.encode(&letter.payload).into(),
    }
    Ok(answer(view.as_ref(), body))
}

fn summary(letter: &Letter) -> Value {
    json!({
        "position": letter.position.get(),
        "ingested_at": format_timestamp(letter.ingested_at),
        "reason": letter.reason,
        "message": letter.message,
        "field": letter.field,
        "event_id": letter.event_id,
        "subject": letter.subject,
        "payload_bytes": letter.payload_bytes,
        "status": letter.status,
        "closed_at": letter.closed_at.map(format_timestamp),
        "closed_by": letter.closed_by,
        "retried_as": letter.retried_as.map(Position::get),
    })
}

/// Which dead letters somebody decides about, and who it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    #[serde(default)]
    positions: Vec<u64>,
    by: Option<String>,
}

impl Choice {
    fn read(body: Result<Bytes, BytesRejection>) -> Result<Self, Problem> {
        let body = body.map_err(|error| problem::unreadable(&error))?;
        let invalid =
            |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail);
        let form =
            "The body is {\"all\": true}, {\"reason\": \"…\"} or {\"positions\": [1, 2]}, with \"by\" if you like";
        let choice: Self = serde_json::from_slice(&body).map_err(|error| invalid(format!("{form}: {error}.")))?;
        let chosen = [choice.all, choice.reason.is_some(), !choice.positions.is_empty()];
        if chosen.into_iter().filter(|chosen| *chosen).count() != 1 {
            return Err(invalid(format!("{form}: say exactly one of all, reason and positions.")));
        }
        Ok(choice)
    }

    fn filter(&self) -> LetterFilter {
        LetterFilter {
            status: Some("open".to_owned()),
            reason: self.reason.clone(),
            positions: self.positions.iter().map(|position| Position::new(*position)).collect(),
        }
    }

    fn by(&self) -> String {
        self.by.clone().unwrap_or_else(|| "unknown".to_owned())
    }
}

pub(crate) async fn retry(
    State(api): State<AppState>,
    _: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let choice = Choice::read(body)?;
    let mut tally = Tally::default();
    let mut pages = OpenLetters::begin(&api, choice.filter(), true).await?;
    while let Some(letters) = pages.next(&api).await? {
        let mut good: Vec<(Position, Outgoing)> = Vec::new();
        for letter in letters {
            let position = letter.position;
            match check(&api, letter, !choice.positions.is_empty()) {
                Ok(outgoing) => good.push((position, outgoing)),
                Err(rejection) => tally.refuse(position, &rejection),
            }
        }
        let (positions, outgoing): (Vec<_>, Vec<_>) = good.into_iter().unzip();
        if outgoing.is_empty() {
            continue;
        }
        let outcomes = api.intake.publisher().publish(outgoing).await.map_err(not_published)?;
        let closed_at = (api.now)();
        let closings = positions.iter().zip(&outcomes).filter_map(|(position, outcome)| {
            let (Outcome::Accepted(retried_as) | Outcome::Duplicate(retried_as)) = *outcome;
            tally.position = tally.position.max(Some(retried_as.get()));
            let decision = Decision::Retried(retried_as);
            // A letter is never its own retry.
            let closing = Closing { position: *position, decision, closed_at, closed_by: choice.by() };
            (retried_as != *position).then_some(closing)
        });
        close(&api, closings.collect()).await?;
        tally.count(&outcomes);
    }
    let Tally { retried, duplicates, still_refused, told, position } = tally;
    let body = json!({
        "retried": retried, "duplicates": duplicates, "still_refused_total": still_refused, "still_refused": told,
        "position": position,
    });
    Ok(Json(body).into_response())
}

/// Publish an event in a dead letter's place. The letter's own bytes stay.
pub(crate) async fn correct(
    State(api): State<AppState>,
    position: Result<Path<u64>, PathRejection>,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(position) =
        position.map_err(|_| Problem::not_found("A dead letter is named by its position, a number."))?;
    let position = Position::new(position);
    let by = parameters.text("by")?.unwrap_or("unknown").to_owned();
    let body = body.map_err(|error| problem::unreadable(&error))?;
    let view = Freshness::of(&Parameters::default(), &HeaderMap::new())?.wait(&api.pipeline.lake).await?;
    let filter = LetterFilter { positions: vec![position], ..LetterFilter::default() };
    let found =
        api.pipeline.sql.letters(&view, &filter, Page::After(Position::START, 1), false).await.map_err(failed)?;
    let Some(letter) = found.first() else {
        return Err(Problem::not_found(format!(
            "Position {position} is no dead letter. GET /v1/dead-letters lists them."
        )));
    };
    if letter.status != "open" {
        let detail = format!("The dead letter at position {position} was {} already.", letter.status);
        return Err(Problem::new(StatusCode::CONFLICT, "already_closed", "The dead letter is closed", detail));
    }
    let (outgoing, _) = api.intake.check(body, None, (api.now)()).map_err(|rejection| {
        let detail = format!("The event cannot be taken: {}.", rejection.message);
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.code.as_str(), "Not an event", detail);
        problem.at("field", rejection.field)
    })?;
    let outcomes = api.intake.publisher().publish(vec![outgoing]).await.map_err(not_published)?;
    let [Outcome::Accepted(taken) | Outcome::Duplicate(taken)] = outcomes[..] else {
        return Err(Problem::unavailable("log_unavailable", "The log did not acknowledge the event. Send it again."));
    };
    if matches!(outcomes[..], [Outcome::Duplicate(_)]) {
        let detail = format!(
            "The event's id took effect at position {taken}, and an id does once: nothing was published, and the letter stays \
             open. Give the event an id of its own; or drop the letter, if that event is what was meant."
        );
        return Err(Problem::new(StatusCode::CONFLICT, "duplicate_event_id", "The event's id is taken", detail));
    }
    let decision = Decision::Retried(taken);
    close(&api, vec![Closing { position, decision, closed_at: (api.now)(), closed_by: by }]).await?;
    Ok(Json(json!({"position": taken.get()})).into_response())
}

fn not_published(error: PublishError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "dead letters were not published");
    Problem::unavailable("log_unavailable", "The log did not acknowledge the events. Send them again.")
}

pub(crate) async fn drop(
    State(api): State<AppState>,
    _: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let choice = Choice::read(body)?;
    let mut dropped = 0;
    let mut pages = OpenLetters::begin(&api, choice.filter(), false).await?;
    while let Some(letters) = pages.next(&api).await? {
        let closed_at = (api.now)();
        let closings = letters.iter().map(|letter| Closing {
            position: letter.position,
            decision: Decision::Dropped,
            closed_at,
            closed_by: choice.by(),
        });
        dropped += close(&api, closings.collect()).await?;
    }
    tracing::info!(dropped, by = choice.by(), "dropped dead letters");
    Ok(Json(json!({"dropped": dropped})).into_response())
}

/// What a letter is published as. One that somebody named by its position may say otherwise than its subject.
fn check(api: &AppState, letter: Letter, named: bool) -> Result<Outgoing, Rejection> {
    let context = if named { None } else { subject_context(&letter.subject) };
    let (outgoing, _) = api.intake.check(Bytes::from(letter.payload), context, (api.now)())?;
    if named || outgoing.subject == letter.subject {
        return Ok(outgoing);
    }
    let text = format!(
        "the subject was {} and the body says {}; retry it by its position if the body is right",
        letter.subject, outgoing.subject
    );
    Err(Rejection::new(RejectionCode::SubjectMismatch, text))
}

async fn close(api: &AppState, closings: Vec<Closing>) -> Result<usize, Problem> {
    api.pipeline.close_dead_letters(closings).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "dead letters were not closed");
        Problem::unavailable("lake_unavailable", "The lake did not record the decision. Decide again in a moment.")
    })
}

/// The open letters of a choice as of now, a page at a time.
struct OpenLetters {
    view: Arc<LakeView>,
    filter: LetterFilter,
    /// Whether their bytes are needed.
    with_bytes: bool,
    last: Position,
}

impl OpenLetters {
    async fn begin(api: &AppState, filter: LetterFilter, with_bytes: bool) -> Result<Self, Problem> {
        let view = Freshness::of(&Parameters::default(), &HeaderMap::new())?.wait(&api.pipeline.lake).await?;
        Ok(Self { view, filter, with_bytes, last: Position::START })
    }

    async fn next(&mut self, api: &AppState) -> Result<Option<Vec<Letter>>, Problem> {
        let page = Page::After(self.last, if self.with_bytes { RETRIED_AT_ONCE } else { MAX_LIMIT });
        let letters =
            api.pipeline.sql.letters(&self.view, &self.filter, page, self.with_bytes).await.map_err(failed)?;
        let Some(last) = letters.last() else { return Ok(None) };
        self.last = last.position;
        Ok(Some(letters))
    }
}

/// What became of retried letters.
#[derive(Default)]
struct Tally {
    retried: u64,
    duplicates: u64,
    still_refused: u64,
    told: Vec<Value>,
    position: Option<u64>,
}

impl Tally {
    fn refuse(&mut self, position: Position, rejection: &Rejection) {
        self.still_refused += 1;
        if self.told.len() < MAX_TOLD {
            let mut told = Map::new();
            told.insert("position".to_owned(), position.get().into());
            told.insert("code".to_owned(), rejection.code.as_str().into());
            told.insert("field".to_owned(), rejection.field.clone().into());
            told.insert("message".to_owned(), rejection.message.clone().into());
            self.told.push(Value::Object(told));
        }
    }

    fn count(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted(_) => self.retried += 1,
                Outcome::Duplicate(_) => self.duplicates += 1,
            }
        }
    }
}

fn failed(error: SqlError) -> Problem {
    Problem::internal(&error)
}
