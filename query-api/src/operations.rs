//! `/health`, `/ready`, `/metrics`: for whoever runs it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use processors::{SeriesKey, kpi_definition::Measures, kpis::DAYS};
use schemas::Position;
use serde_json::{Map, Value, json};

use crate::{
    AppState,
    consistency::{POSITION, Reflects},
    parameters::Parameters,
    problem::Problem,
};

/// How far the lake is behind the log.
const LAG_POSITIONS: HeaderName = HeaderName::from_static("x-forecourt-lag-positions");
const LAG_SECONDS: HeaderName = HeaderName::from_static("x-forecourt-lag-seconds");

/// Nothing that another start would mend is borne: the process ends by itself then.
pub(crate) async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `/ready` before the log, the lake and the index are open: how far that is, the process's log tells.
pub(crate) async fn starting(parameters: Parameters) -> Result<Response, Problem> {
    let detail = "the log, the lake and the index are being opened";
    let reasons = parts_asked(&parameters)?.into_iter();
    let reasons = reasons.map(|part| json!({"part": part.name(), "code": "starting", "detail": detail}));
    let body = json!({"status": "starting", "reasons": reasons.collect::<Vec<_>>()});
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
    Ok(response)
}

/// A part of the server that can be ready by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Intake,
    Search,
    Kpis,
    Sql,
}

impl Part {
    const ALL: [Self; 4] = [Self::Intake, Self::Search, Self::Kpis, Self::Sql];

    const fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Search => "search",
            Self::Kpis => "kpis",
            Self::Sql => "sql",
        }
    }
}

/// Which parts have reflected once what the log held at the start. From then on they are behind rather than starting.
#[derive(Debug, Default)]
pub struct CaughtUp([AtomicBool; 4]);

impl CaughtUp {
    /// Whether a part has, now or before.
    fn note(&self, part: Part, has: bool) -> bool {
        let known = &self.0[part as usize];
        known.fetch_or(has, Ordering::Relaxed) || has
    }
}

/// Why something is not ready.
struct Reason {
    code: &'static str,
    detail: String,
}

impl Reason {
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Events that were refused longer ago than this say nothing of now: the next ones are tried.
const REFUSED_LATELY: Duration = Duration::from_secs(30);

/// A commit that has failed for a shorter time is retried and not reported.
const MIN_FAILURE_TIME: Duration = Duration::from_secs(3);

/// Why a part is not ready; nothing, when it is.
fn reasons(api: &AppState, part: Part) -> Vec<Reason> {
    let (pipeline, status) = (&api.pipeline, api.pipeline.log_status.borrow().clone());
    let mut reasons = Vec::new();
    let end = pipeline.log_end_at_start;
    let mut starting = |reached: Option<Position>, is_learned: bool| {
        let has = reached.is_some_and(|reached| reached >= end) && is_learned;
        if !api.caught_up.note(part, has) {
            let reached = reached.unwrap_or_default();
            let detail = format!("position {reached} of {end}, which the log held at the start, is reached");
            reasons.push(Reason::new("starting", detail));
        }
    };
    match part {
        Part::Intake | Part::Sql => starting(position(&pipeline.lake), true),
        // The first search would wait for the market to be learned.
        Part::Search => starting(position(&pipeline.listings), api.markets.is_made() && api.lexicons.is_made()),
        Part::Kpis => starting(position(&pipeline.kpis.cache), true),
    }
    if part == Part::Intake {
        let refusal = api.intake.publisher().refusal().filter(|refusal| refusal.last.elapsed() < REFUSED_LATELY);
        if let Some(refusal) = refusal {
            let seconds = refusal.since.elapsed().as_secs();
            let detail = format!("the log has taken no event for {seconds} s: {}", refusal.reason);
            reasons.push(Reason::new("log_refuses", detail));
        }
        if let Some((table, since)) = pipeline.commit_failures.oldest()
            && since.elapsed() >= MIN_FAILURE_TIME
        {
            let seconds = since.elapsed().as_secs();
            let detail =
                format!("the lake's store has not taken a commit of {table} for {seconds} s; the log says why");
            reasons.push(Reason::new("store_refuses", detail));
        }
        if status.is_disk_full {
            reasons.push(Reason::new("disk_full", "the disk of the data folder is full; make room on it"));
        }
        if let Some(away) = &status.away {
            reasons.push(Reason::new("log_away", format!("the log cannot be looked at: {away}")));
        }
    } else if let Some(stalled) = status.stalled_for {
        let (reached, last) = (position(&pipeline.lake).unwrap_or_default(), status.last);
        let seconds = stalled.as_secs();
        let detail = format!("the log is at position {last}, and nothing after {reached} was read for {seconds} s");
        reasons.push(Reason::new("stalled", detail));
    }
    let derived = match part {
        Part::Search => status.index_stalled_for.map(|still| (still, position(&pipeline.listings))),
        Part::Kpis => status.kpis_stalled_for.map(|still| (still, position(&pipeline.kpis.cache))),
        Part::Intake | Part::Sql => None,
    };
    if let Some((still, reached)) = derived {
        let (lake, reached) = (position(&pipeline.lake).unwrap_or_default(), reached.unwrap_or_default());
        let seconds = still.as_secs();
        let detail = format!("the lake is at position {lake}, and {reached} has been reflected for {seconds} s");
        reasons.push(Reason::new("stalled", detail));
    }
    reasons
}

/// Whether every event the log held at the start has been read: from then on a repeated one is recognised.
pub(crate) fn knows_the_log(api: &AppState) -> bool {
    position(&api.pipeline.lake).is_some_and(|position| position >= api.pipeline.log_end_at_start)
}

/// The position that every answer tells, once there is one.
pub(crate) fn lake_position(api: &AppState) -> Option<Position> {
    position(&api.pipeline.lake)
}

fn position<T: Reflects>(state: &tokio::sync::watch::Receiver<Option<std::sync::Arc<T>>>) -> Option<Position> {
    state.borrow().as_ref().map(|state| state.position())
}

/// The parts that are asked about.
fn parts_asked(parameters: &Parameters) -> Result<Vec<Part>, Problem> {
    let Some(name) = parameters.text("part")? else { return Ok(Part::ALL.to_vec()) };
    let unknown = || Problem::parameter("part", format!("part is intake, search, kpis or sql, not {name:?}"));
    Ok(vec![Part::ALL.into_iter().find(|part| part.name() == name).ok_or_else(unknown)?])
}

pub(crate) async fn ready(State(api): State<AppState>, parameters: Parameters) -> Result<Response, Problem> {
    let parts = parts_asked(&parameters)?;
    let pipeline = &api.pipeline;
    let found: Vec<(Part, Vec<Reason>)> = parts.into_iter().map(|part| (part, reasons(&api, part))).collect();
    let told = found.iter().flat_map(|(part, reasons)| {
        reasons.iter().map(|it| json!({"part": part.name(), "code": it.code, "detail": it.detail}))
    });
    let told: Vec<Value> = told.collect();
    let is_starting = found.iter().any(|(_, reasons)| reasons.iter().any(|reason| reason.code == "starting"));
    let status = match (told.is_empty(), is_starting) {
        (true, _) => "ready",
        (false, true) => "starting",
        (false, false) => "not_ready",
    };
    let positions = [position(&pipeline.lake), position(&pipeline.listings), position(&pipeline.kpis.cache)];
    let shown = ["lake", "listings", "kpis"].into_iter().zip(positions);
    let shown = shown.map(|(name, position)| (name.to_owned(), json!(position.map(Position::get))));
    let log = pipeline.log_status.borrow().clone();
    let behind = log.last.get().saturating_sub(positions[0].unwrap_or_default().get());
    let seconds = if behind == 0 { 0.0 } else { log.behind.as_secs_f64() };
    let body = json!({
        "status": status,
        "reasons": told,
        "positions": shown.collect::<Map<_, _>>(),
        "lag": {"positions": behind, "seconds": seconds},
        "log_end_at_start": pipeline.log_end_at_start.get(),
        "market": api.markets.is_made(),
        "lexicon": api.lexicons.is_made(),
    });
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (code, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(LAG_POSITIONS, HeaderValue::from(behind));
    if let Ok(seconds) = HeaderValue::from_str(&format!("{seconds:.3}")) {
        headers.insert(LAG_SECONDS, seconds);
    }
    if code != StatusCode::OK {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    Ok(response)
}

/// How long requests may go on when the server stops.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Tell whoever still waits for an answer when the server stops to ask again.
pub(crate) async fn end_with_the_server(State(api): State<AppState>, request: Request, next: Next) -> Response {
    let ended = async {
        api.stop.cancelled().await;
        tokio::time::sleep(END_WITHIN).await;
    };
    tokio::select! {
        response = next.run(request) => response,
        () = ended => {
            Problem::unavailable("shutting_down", "Forecourt is shutting down. Ask again in a moment.").into_response()
        }
    }
}

/// Say on every answer at which position the server stands, where the answer does not say it itself.
pub(crate) async fn tell_position(State(api): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(position) = lake_position(&api)
        && !response.headers().contains_key(POSITION)
    {
        response.headers_mut().insert(POSITION, HeaderValue::from(position.get()));
    }
    response
}

pub(crate) async fn metrics(State(api): State<AppState>) -> Response {
    api.alerts.set_lag_gauges(position(&api.pipeline.lake).unwrap_or_default(), (api.now)());
    if api.kpi_metrics {
        set_kpi_gauges(&api).await;
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (api.metrics)()).into_response()
}

/// Every KPI's latest day as gauges: `kpi_value{kpi, value}`.
async fn set_kpi_gauges(api: &AppState) {
    let service = &api.pipeline.kpis;
    for kpi in service.definitions.iter() {
        let key = SeriesKey::whole(kpi.name.clone(), DAYS);
        let Ok(board) = service.cache_with(&key).await else { continue };
        let Some(series) = board.series(&key) else { continue };
        for value in &kpi.values {
            let mut amounts = series.values().rev().map(|row| row.values[&value.name].as_f64());
            let amount = match kpi.measures {
                Measures::Flow => amounts.next().flatten(),
                Measures::Level => Some(amounts.flatten().sum()),
            };
            if let Some(amount) = amount {
                metrics::gauge!("kpi_value", "kpi" => kpi.name.clone(), "value" => value.name.clone()).set(amount);
            }
        }
    }
}
