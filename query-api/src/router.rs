//! The HTTP service: every endpoint with its handler.

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    http::{Method, StatusCode},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{self, MethodRouter},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    AppState, alerts, catalogue, consistency, dead_letters, endpoints, events, kpis, maintenance, openapi, operations,
    pages,
    parameters::DeclaredParameters,
    problem::{MAX_BODY, Problem},
    search, sql, verify,
};

/// A method, a path and their handler.
type Route = (Method, &'static str, MethodRouter<AppState>);

fn on_get<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Route {
    (Method::GET, path, routing::get(handler))
}

fn on_post<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Route {
    (Method::POST, path, routing::post(handler))
}

fn on_delete<H: Handler<T, AppState>, T: 'static>(path: &'static str, handler: H) -> Route {
    (Method::DELETE, path, routing::delete(handler))
}

/// The handler of every endpoint.
fn handlers() -> Vec<Route> {
    vec![
        on_get("/", pages::results::home),
        on_get("/vehicles/{id}", pages::vehicle::vehicle),
        on_post("/alerts", pages::alert::save_alert),
        on_get("/alerts/{id}", pages::alert::alert),
        on_post("/alerts/{id}/delete", pages::alert::stop_alert),
        on_get("/dashboard", pages::dashboard::dashboard),
        on_get("/sql", pages::sql::sql),
        on_get("/assets/dashboard.js", pages::dashboard_script),
        on_get("/assets/sql.js", pages::sql_script),
        on_get("/sitemap.xml", pages::sitemap::sitemap),
        on_get("/sitemaps/{number}", pages::sitemap::sitemaps),
        on_get("/robots.txt", pages::sitemap::robots),
        on_get("/illustrations/{name}", pages::illustration::illustration),
        on_get("/assets/style.css", pages::style),
        on_get("/assets/search.js", pages::script),
        on_post("/v1/events", events::post),
        on_get("/v1/catalogue", catalogue::list),
        on_get("/v1/catalogue/{name}", catalogue::get),
        on_get("/v1/dead-letters", dead_letters::list),
        on_get("/v1/dead-letters/{position}", dead_letters::get),
        on_post("/v1/dead-letters/retry", dead_letters::retry),
        on_post("/v1/dead-letters/{position}/correct", dead_letters::correct),
        on_post("/v1/dead-letters/drop", dead_letters::drop),
        on_post("/v1/verify", verify::post),
        on_post("/v1/maintenance", maintenance::post),
        on_get("/v1/search", search::get),
        on_get("/v1/suggest", search::suggest),
        on_get("/v1/compare", search::compare),
        on_get("/v1/listings/{id}", search::listing),
        on_get("/v1/listings/{id}/similar", search::similar),
        on_get("/v1/listings/{id}/price-history", search::price_history),
        on_post("/v1/alerts", alerts::create),
        on_get("/v1/alerts", alerts::list),
        on_get("/v1/alerts/{id}", alerts::get),
        on_delete("/v1/alerts/{id}", alerts::delete),
        on_get("/v1/alerts/{id}/stream", alerts::stream),
        on_get("/v1/kpis", kpis::list),
        on_get("/v1/kpis/{name}", kpis::get),
        on_get("/v1/kpis/{name}/stream", kpis::stream::stream),
        on_post("/v1/sql", sql::post),
        on_get("/v1/sql", sql::get),
        on_get("/v1/tables", sql::tables),
        on_get("/health", operations::health),
        on_get("/ready", operations::ready),
        on_get("/metrics", operations::metrics),
        on_get("/openapi.json", openapi::get),
    ]
}

/// The HTTP service.
pub(crate) fn router(api: AppState) -> Router {
    let mut router = Router::new();
    for (method, path, handler) in handlers() {
        let declared = DeclaredParameters(endpoints::parameters(&method, path));
        // Methods of one path are joined.
        router = router.route(path, handler.layer(Extension(declared)));
    }
    router
        .fallback(|| async {
            Problem::not_found("There is nothing at this address. GET /openapi.json lists what there is.")
        })
        .method_not_allowed_fallback(|| async {
            let detail = "This address takes another method. GET /openapi.json says which.";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(api.clone(), operations::end_with_the_server))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(api.clone(), operations::tell_position))
        .with_state(api)
}

/// The HTTP service while there is nothing to answer from yet.
pub(crate) fn starting() -> Router {
    let ready = DeclaredParameters(endpoints::parameters(&Method::GET, "/ready"));
    Router::new()
        .route("/health", routing::get(operations::health))
        .route("/ready", routing::get(operations::starting).layer(Extension(ready)))
        .fallback(async || Problem::unavailable("not_yet", consistency::STARTING))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    #[derive(Debug)]
    struct Panicked;
    impl std::fmt::Display for Panicked {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a handler panicked")
        }
    }
    impl std::error::Error for Panicked {}
    Problem::internal(&Panicked).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::handlers;
    use crate::endpoints::ENDPOINTS;

    #[test]
    fn every_endpoint_has_a_handler_and_every_handler_is_an_endpoint() {
        let handled: Vec<_> = handlers().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        let declared: BTreeSet<_> = ENDPOINTS.iter().map(|it| format!("{} {}", it.method, it.path)).collect();
        assert_eq!(handled.iter().cloned().collect::<BTreeSet<_>>(), declared);
        assert_eq!(handled.len(), declared.len());
    }
}
