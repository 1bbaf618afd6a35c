//! `GET /v1/catalogue` and `GET /v1/catalogue/{name}`: the events there are.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use schemas::export::summary;

use crate::{AppState, parameters::Parameters, problem::Problem};

pub(crate) async fn list(State(api): State<AppState>, _: Parameters) -> Response {
    Json(summary::list(&api.catalogue)).into_response()
}

pub(crate) async fn get(
    State(api): State<AppState>,
    name: Result<Path<String>, PathRejection>,
    _: Parameters,
) -> Result<Response, Problem> {
    let Path(name) = name.map_err(|_| Problem::not_found("An event's name is text in UTF-8."))?;
    match api.catalogue.candidates(&name) {
        [] => {
            let detail = format!("There is no event {name:?}. GET /v1/catalogue lists them.");
            Err(Problem::not_found(detail))
        }
        [only] => {
            let (context, definition) = (api.catalogue.context_at(only.context), api.catalogue.event_at(*only));
            Ok(Json(summary::event(&api.catalogue, context, definition)).into_response())
        }
        several => {
            let names = several.iter().map(|index| api.catalogue.qualified_name(*index)).collect::<Vec<_>>();
            let detail = format!("{name:?} is the name of several events; ask for one of {}.", names.join(", "));
            Err(Problem::new(axum::http::StatusCode::CONFLICT, "ambiguous_event_type", "Several events", detail))
        }
    }
}
