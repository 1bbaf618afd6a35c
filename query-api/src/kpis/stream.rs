//! `GET /v1/kpis/{name}/stream`: the rows, and then those that change, as they do.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream;
use processors::{KpiCache, KpiDefinition};
use schemas::Position;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Question, body, cache_with, parse_kpi_request};
use crate::{
    AppState,
    consistency::{Freshness, as_of},
    parameters::{Id, Parameters},
    problem::Problem,
};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Somebody who is told.
struct Follower {
    api: AppState,
    kpi: KpiDefinition,
    question: Question,
    boards: watch::Receiver<Option<Arc<KpiCache>>>,
    /// The rows as they were told last, by bucket and dimensions; none before the first time.
    told: Option<BTreeMap<String, Value>>,
    /// What they knew when they came.
    since: Option<Position>,
}

pub(crate) async fn stream(
    State(api): State<AppState>,
    name: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (kpi, question) = parse_kpi_request(&api, name, &parameters)?;
    // Comparisons and totals are asked for when they are wanted: what is told here is rows.
    let question = Question { totals: false, compare: Vec::new(), ..question };
    Freshness::of(&parameters, &headers)?.wait(&api.pipeline.kpis.cache).await?;
    let since = headers.get("last-event-id").map(|last| {
        let position = last.to_str().ok().and_then(|last| last.parse().ok()).map(Position::new);
        position.ok_or_else(|| {
            Problem::parameter("Last-Event-ID", "Last-Event-ID is the id of an event of this stream, a position")
        })
    });
    let boards = api.pipeline.kpis.cache.clone();
    let follower = Follower { api, kpi, question, boards, told: None, since: since.transpose()? };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

impl Follower {
    /// Wait until rows differ from what was told, and tell them.
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.boards.mark_unchanged();
            let board = cache_with(&self.api, &self.question.key).await.ok()?;
            let mut body = body(&self.api, &self.kpi, &self.question, &board).await.ok()?;
            let rows = body["rows"].as_array().cloned().unwrap_or_default();
            let by_key: BTreeMap<String, Value> = rows.into_iter().map(|row| (key(&row), row)).collect();
            let changed = self.changed(&board, &by_key);
            let is_first = self.told.is_none() && self.since.is_none();
            self.told = Some(by_key);
            if is_first || !changed.is_empty() {
                body["rows"] = json!(changed);
                body["as_of"] = as_of(board.as_ref());
                let event = Event::default().id(board.position.to_string()).event("rows");
                return Some(event.data(body.to_string()));
            }
            tokio::select! {
                changed = self.boards.changed() => changed.ok()?,
                () = self.api.stop.cancelled() => return None,
            }
        }
    }

    /// The rows that are not as they were told, and those that are no more. Who comes back after a change is told all.
    fn changed(&self, board: &KpiCache, rows: &BTreeMap<String, Value>) -> Vec<Value> {
        match (&self.told, self.since) {
            (Some(told), _) => {
                let gone = told
                    .iter()
                    .filter(|(key, _)| !rows.contains_key(*key))
                    .map(|(_, row)| json!({"bucket": row["bucket"], "dimensions": row["dimensions"], "removed": true}));
                let new = rows.iter().filter(|(key, row)| told.get(*key) != Some(row)).map(|(_, row)| row.clone());
                new.chain(gone).collect()
            }
            (None, Some(since)) if board.changed(&self.question.key) <= since => Vec::new(),
            (None, _) => rows.values().cloned().collect(),
        }
    }
}

fn key(row: &Value) -> String {
    format!("{}{}", row["bucket"].as_str().unwrap_or_default(), row["dimensions"])
}
