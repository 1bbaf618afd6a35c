//! `/health`, `/ready`, `/metrics`: for whoever runs it.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use processors::{SeriesKey, kpi_definition::Measures, kpis::DAYS};
use schemas::Position;
use serde_json::json;

use crate::{Api, consistency::Reflects, parameters::Parameters, problem::Problem};

pub(crate) async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// Whether every event the log held at the start has been read: from then on a repeated one is recognised.
pub(crate) fn knows_the_log(api: &Api) -> bool {
    position(&api.pipeline.lake).is_some_and(|position| position >= api.pipeline.log_end_at_start)
}

fn position<T: Reflects>(state: &tokio::sync::watch::Receiver<Option<std::sync::Arc<T>>>) -> Option<Position> {
    state.borrow().as_ref().map(|state| state.position())
}

pub(crate) async fn ready(State(api): State<Api>, _: Parameters) -> Result<Response, Problem> {
    let pipeline = &api.pipeline;
    let positions = [position(&pipeline.lake), position(&pipeline.listings), position(&pipeline.kpis.board)];
    let names = ["lake", "listings", "kpis"];
    let reached = |position: &Option<Position>| position.is_some_and(|position| position >= pipeline.log_end_at_start);
    // The first search would wait for the market to be learned.
    let (market, lexicon) = (api.markets.is_made(), api.lexicons.is_made());
    let ready = positions.iter().all(reached) && market && lexicon;
    let shown =
        names.into_iter().zip(positions).map(|(name, position)| (name.to_owned(), json!(position.map(Position::get))));
    let body = json!({
        "status": if ready { "ready" } else { "starting" },
        "positions": shown.collect::<serde_json::Map<_, _>>(),
        "log_end_at_start": pipeline.log_end_at_start.get(),
        "market": market,
        "lexicon": lexicon,
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(body)).into_response();
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(1));
    }
    Ok(response)
}

pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    if api.kpi_metrics {
        set_kpi_gauges(&api).await;
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (api.metrics)()).into_response()
}

/// Every KPI's latest day as gauges: `kpi_value{kpi, value}`.
async fn set_kpi_gauges(api: &Api) {
    let service = &api.pipeline.kpis;
    for kpi in service.definitions.iter() {
        let key = SeriesKey::whole(kpi.name.clone(), DAYS);
        let Ok(board) = service.board_with(&key).await else { continue };
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
