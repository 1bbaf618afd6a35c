//! `/v1/verify`: the proof that what is derived is what the log says.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use processors::verify::Subject;
use serde_json::json;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    Api,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::Problem,
};

/// Proofs at once: each reads the whole lake.
static TURN: Semaphore = Semaphore::const_new(1);

pub(crate) async fn post(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Ok(turn) = TURN.try_acquire() else {
        return Err(Problem::unavailable("busy", "Somebody is verifying already. Ask again when that has ended."));
    };
    let freshness = Freshness::of(&parameters, &headers)?;
    let listings = freshness.wait(&api.pipeline.listings).await?;
    let board = freshness.wait(&api.pipeline.kpis.board).await?;
    let view = freshness.at_least(listings.position).wait(&api.pipeline.lake).await?;
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
