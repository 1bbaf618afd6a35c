//! `/v1/verify`: the proof that what is derived is what the log says.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::HeaderMap, response::Response};
use lake::LakeView;
use processors::{SeriesKey, kpis::DAYS, verify::Subject};
use search_index::ListingSnapshot;
use serde_json::json;
use tokio::{runtime::Handle, sync::Semaphore, time::Instant};

use crate::{
    AppState,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::Problem,
};

/// Proofs at once: each reads the whole lake.
static TURN: Semaphore = Semaphore::const_new(1);

/// How long the index may take to forget what retention took out of the lake.
const FORGETS_WITHIN: Duration = Duration::from_secs(600);

/// An index, and a lake that is no older. Both have lost the same events to retention.
async fn cut(api: &AppState, freshness: Freshness) -> Result<(Arc<ListingSnapshot>, Arc<LakeView>), Problem> {
    let deadline = Instant::now() + FORGETS_WITHIN;
    let mut changes = api.pipeline.listings.clone();
    loop {
        let listings = freshness.wait(&changes).await?;
        changes.mark_unchanged();
        let view = freshness.at_least(listings.position).wait(&api.pipeline.lake).await?;
        if listings.retirements == view.retirements {
            return Ok((listings, view));
        }
        // It changes when it has forgotten them.
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let detail = "The index has not forgotten yet what retention took out of the lake. Ask again in a moment.";
            return Err(Problem::unavailable("not_yet", detail));
        }
    }
}

pub(crate) async fn post(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Ok(turn) = TURN.try_acquire() else {
        return Err(Problem::unavailable("busy", "Somebody is verifying already. Ask again when that has ended."));
    };
    let freshness = Freshness::of(&parameters, &headers)?;
    freshness.wait(&api.pipeline.kpis.cache).await?;
    // Every KPI is on it, asked for lately or not.
    let kpis = &api.pipeline.kpis;
    for kpi in kpis.definitions.iter() {
        let key = SeriesKey::whole(kpi.name.clone(), DAYS);
        kpis.cache_with(&key).await.map_err(|error| Problem::internal(error.as_ref()))?;
    }
    let board = freshness.wait(&kpis.cache).await?;
    let (listings, view) = cut(&api, freshness).await?;
    let (cut, runtime) = (Arc::clone(&view), Handle::current());
    // On a thread for it: a second index is built.
    let proof = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let subject = Subject {
            catalogue: &api.catalogue,
            sql: &api.pipeline.sql,
            view: &cut,
            listings: Some(&listings),
            seen: Some(&api.pipeline.seen),
            log: Some(&api.pipeline.log),
            board: Some(&board),
            definitions: &api.pipeline.kpis.definitions,
        };
        runtime.block_on(subject.verify())
    });
    let checks = proof.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let differences: u64 = checks.iter().map(|check| check.different).sum();
    Ok(answer(view.as_ref(), json!({"checks": checks, "differences": differences})))
}
