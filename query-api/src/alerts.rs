//! Saved searches: `POST`, `GET` and `DELETE /v1/alerts`, and what listings are told to whom.
//!
//! - `state`: the alerts there are and what they matched, folded from the log's own events;
//! - `keeper`: the task that reads those events, matches changed listings, and publishes what starts to match;
//! - `webhooks`: the way of a match to the address that asked for it, signed and tried again.
//!
//! A match is an event whose id follows from the alert and the listing. So it happens once, whatever crashes, and both
//! ways out, the stream and the webhook, tell what the log says happened.

mod keeper;
mod match_json;
mod publishing;
mod search_pairs;
mod state;
mod webhooks;

pub use keeper::Alerts;
use match_json::render_matches;
use publishing::event;
pub(crate) use publishing::publish as publish_events;
pub(crate) use search_pairs::pairs_of;
pub(crate) use state::{Alert, Match};

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream;
use schemas::{
    Position,
    field_type::{format_timestamp, parse_timestamp},
};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use crate::{
    AppState,
    consistency::{Freshness, POSITION, answer},
    endpoints, events, operations,
    parameters::{Id, Parameters, id_of},
    problem::{Problem, unreadable},
    search::resolved,
};

/// What an alert is asked with, beside the search.
const KNOWN: [&str; 5] = ["search", "name", "webhook", "user_id", "expires_at"];
/// Parameters of the search that are a page's own.
const OF_A_PAGE: [&str; 8] =
    ["sort", "page_size", "cursor", "facets", "facet_query", "hierarchy", "min_position", "wait_ms"];
const LONGEST_NAME: usize = 200;
const LONGEST_ADDRESS: usize = 2_000;
const LISTED: usize = 100;
const MOST_LISTED: usize = 1_000;
/// Matches shown of one alert.
const MATCHES: usize = 100;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `POST /v1/alerts`
pub(crate) async fn create(
    State(api): State<AppState>,
    _: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let (alert, position) = save(&api, wanted(&body)?).await?;
    let id = alert.id.clone();
    let mut body = described(&alert);
    if alert.webhook.is_some() {
        // It is shown this once.
        body["webhook_secret"] = json!(api.alerts.webhooks.secret(&id));
    }
    body["position"] = json!(position);
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    response.headers_mut().insert(POSITION, HeaderValue::from(position));
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/alerts/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What somebody wants to be told of.
#[derive(Default)]
pub(crate) struct NewAlert {
    pub(crate) search: Vec<(String, String)>,
    pub(crate) name: Option<String>,
    pub(crate) webhook: Option<Url>,
    pub(crate) user_id: Option<String>,
    pub(crate) expires_at: Option<i64>,
}

/// What a body asks for.
fn wanted(body: &[u8]) -> Result<NewAlert, Problem> {
    let wrong =
        |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail);
    let shape = "The body is {\"search\": {\"make\": [\"Honda\"], \"price_max\": 20000}} or {\"search\": \
                 \"make=Honda&price_max=20000\"}; and name, webhook, user_id and expires_at, if wanted.";
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("{shape} It is not JSON of that form: {error}.")))?;
    if let Some(unknown) = body.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Problem::parameter(
            unknown,
            format!("there is no field {unknown:?} here; there are {}", KNOWN.join(", ")),
        ));
    }
    let text = |name: &str, longest: usize| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= longest => Ok(Some(text.clone())),
        Some(_) => Err(Problem::parameter(name, format!("{name} is a text of at most {longest} bytes"))),
    };
    let expires_at = text("expires_at", 100)?.map(|text| {
        let wrong = || Problem::parameter("expires_at", format!("expires_at is an RFC 3339 time, not {text:?}"));
        parse_timestamp(&text).ok_or_else(wrong)
    });
    Ok(NewAlert {
        search: search_pairs(body.get("search")).ok_or_else(|| Problem::parameter("search", shape))?,
        name: text("name", LONGEST_NAME)?,
        webhook: text("webhook", LONGEST_ADDRESS)?.map(|text| webhooks::address(&text)).transpose()?,
        user_id: text("user_id", LONGEST_NAME)?,
        expires_at: expires_at.transpose()?,
    })
}

fn search_pairs(search: Option<&Value>) -> Option<Vec<(String, String)>> {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    match search? {
        Value::String(query) => Some(pairs_of(query)),
        Value::Object(fields) => {
            let each = fields.iter().map(|(name, value)| match value {
                Value::Array(values) => values.iter().map(|value| Some((name.clone(), plain(value)?))).collect(),
                value => Some(vec![(name.clone(), plain(value)?)]),
            });
            Some(each.collect::<Option<Vec<Vec<_>>>>()?.concat())
        }
        _ => None,
    }
}

/// Save a search; the alert, and the position that has it.
pub(crate) async fn save(api: &AppState, wanted: NewAlert) -> Result<(Alert, u64), Problem> {
    let NewAlert { search, name, webhook, user_id, expires_at } = wanted;
    let search = Parameters::checked(endpoints::parameters(&Method::GET, "/v1/search"), search)?.without(&OF_A_PAGE);
    let search = resolved(api, &search).await?;
    let (id, now) = (Uuid::now_v7().to_string(), (api.now)());
    let mut data = json!({"alertId": id, "search": search, "createdAt": format_timestamp(now)});
    let alert = Alert {
        id: id.clone(),
        search: search.clone(),
        name: name.clone(),
        user_id: user_id.clone(),
        webhook: webhook.clone(),
        created_at: now,
        expires_at,
        ..Alert::default()
    };
    let given = [
        ("name", name),
        ("userId", user_id),
        ("webhook", webhook.map(String::from)),
        ("expiresAt", expires_at.map(format_timestamp)),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            data[name] = json!(value);
        }
    }
    let created = event("SearchAlertCreated", &Uuid::new_v4().to_string(), &id, now, data);
    let position = publish(api, created).await?;
    Ok((alert, position))
}

/// Give an alert up.
pub(crate) async fn give_up(api: &AppState, id: &str) -> Result<u64, Problem> {
    if !api.alerts.has(id) {
        return Err(unknown(id));
    }
    let now = (api.now)();
    let data = json!({"alertId": id, "deletedAt": format_timestamp(now)});
    publish(api, event("SearchAlertDeleted", &Uuid::new_v4().to_string(), id, now, data)).await
}

/// Publish an event of an alert, and wait until the alerts reflect it. If that takes too long it is saved all the same:
/// whoever asks for it says from which position on.
async fn publish(api: &AppState, event: Value) -> Result<u64, Problem> {
    if !operations::knows_the_log(api) {
        return Err(Problem::unavailable("starting", "Forecourt is reading the log. Try again in a moment."));
    }
    let position = publish_events(&api.intake, &[event]).await.map_err(events::interrupted)?;
    let position = position.ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "rejected",
            "The alert is not taken",
            "A text in it is not allowed in an event.",
        )
    })?;
    let reflected = Freshness::new(position, None).wait(&api.alerts.reflects).await;
    if reflected.is_err() {
        tracing::warn!(position = position.get(), "the alerts are behind the log");
    }
    Ok(position.get())
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("There is no alert {id:?}."))
}

/// `GET /v1/alerts`
pub(crate) async fn list(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = parameters.limit(LISTED, MOST_LISTED)?;
    let (after, user) = (parameters.text("after")?.unwrap_or_default(), parameters.text("user_id")?);
    let reflects = Freshness::of(&parameters, &headers)?.wait(&api.alerts.reflects).await?;
    let mut alerts = api.alerts.after(after, limit + 1, user, described);
    let next = (alerts.len() > limit).then(|| alerts.pop()).flatten().and(alerts.last());
    let next = next.map(|last| last["alert_id"].clone());
    Ok(answer(reflects.as_ref(), json!({"alerts": alerts, "next": next})))
}

fn described(alert: &Alert) -> Value {
    json!({
        "alert_id": alert.id,
        "name": alert.name,
        "search": alert.search,
        "user_id": alert.user_id,
        "webhook": alert.webhook,
        "created_at": format_timestamp(alert.created_at),
        "expires_at": alert.expires_at.map(format_timestamp),
        "match_count": alert.match_count,
    })
}

/// `GET /v1/alerts/{id}`
pub(crate) async fn get(
    State(api): State<AppState>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let reflects = Freshness::of(&parameters, &headers)?.wait(&api.alerts.reflects).await?;
    let alert = api.alerts.get(&id).ok_or_else(|| unknown(&id))?;
    let newest: Vec<Match> = alert.matches.iter().rev().take(MATCHES).cloned().collect();
    let mut body = described(&alert);
    body["matches"] = json!(render_matches(&api, &id, &newest).await?);
    Ok(answer(reflects.as_ref(), body))
}

/// `DELETE /v1/alerts/{id}`
pub(crate) async fn delete(State(api): State<AppState>, id: Id, _: Parameters) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let position = give_up(&api, &id).await?;
    let mut response = Json(json!({"alert_id": id, "deleted": true, "position": position})).into_response();
    response.headers_mut().insert(POSITION, HeaderValue::from(position));
    Ok(response)
}

/// `GET /v1/alerts/{id}/stream`: every match from now on, or after a position, in `Last-Event-ID` or `after`.
pub(crate) async fn stream(
    State(api): State<AppState>,
    id: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let after = parameters.parsed("after", "a position")?.map(Position::new);
    let changes = api.alerts.reflects.clone();
    let alert = api.alerts.get(&id).ok_or_else(|| unknown(&id))?;
    let last = match headers.get("last-event-id") {
        Some(last) => last.to_str().ok().and_then(|last| last.parse().ok()).map(Position::new).ok_or_else(|| {
            Problem::parameter("Last-Event-ID", "Last-Event-ID is the id of an event of this stream, a position")
        })?,
        None => after.unwrap_or_else(|| alert.matches.back().map_or(Position::START, |last| last.position)),
    };
    let events = stream::unfold((api, id, last, changes), next_matches);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(futures::StreamExt::flatten(events)).keep_alive(keep_alive).into_response())
}

type Following = (AppState, String, Position, tokio::sync::watch::Receiver<Option<std::sync::Arc<state::Reflects>>>);
type Told = stream::Iter<std::vec::IntoIter<Result<Event, Infallible>>>;

/// Wait for matches, and tell them. It ends with the alert.
async fn next_matches((api, id, last, mut changes): Following) -> Option<(Told, Following)> {
    loop {
        changes.mark_unchanged();
        let alert = api.alerts.get(&id)?;
        let new: Vec<Match> = alert.matches.iter().filter(|found| found.position > last).cloned().collect();
        if let Some(newest) = new.last() {
            let last = newest.position;
            let rendered = render_matches(&api, &id, &new).await.ok()?;
            let event = |(found, rendered): (&Match, Value)| {
                Ok(Event::default().id(found.position.to_string()).event("match").data(rendered.to_string()))
            };
            let events: Vec<_> = new.iter().zip(rendered).map(event).collect();
            return Some((stream::iter(events), (api, id, last, changes)));
        }
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = api.stop.cancelled() => return None,
        }
    }
}
