//! How people ask: the HTTP API.
//!
//! - [`endpoints`]: every route, declared once: what serves it and what describes it;
//! - [`problem`]: the errors people see;
//! - [`parameters`]: query parameters, checked;
//! - [`consistency`]: the position an answer reflects, and waiting for one;
//! - `derived`, `payment`: what searches and prices are read with, and what a price costs a month;
//! - `pages`: what people look at in a browser;
//! - one module per room behind it: [`events`], [`search`], [`alerts`], [`kpis`], [`sql`], [`catalogue`],
//!   [`dead_letters`], [`maintenance`], [`operations`].

pub mod alerts;
mod asking;
pub mod catalogue;
mod client_places;
pub mod consistency;
pub mod dead_letters;
pub mod derived;
pub mod endpoints;
pub mod events;
mod flight;
mod http_server;
pub mod kpis;
pub mod maintenance;
pub mod openapi;
pub mod operations;
mod pages;
pub mod parameters;
mod payment;
pub mod periods;
mod popular;
mod postgres;
pub mod problem;
mod query_permits;
mod router;
pub mod search;
pub mod sql;
pub mod verify;

pub use alerts::Alerts;
pub use derived::{Lexicons, Markets, PublicIds};
pub use flight::serve_flight;
pub use kpis::WrittenAnswers;
pub use operations::CaughtUp;
pub use popular::PopularQueries;
pub use postgres::serve_postgres;
pub use query_permits::QueryPermits;

use std::sync::{Arc, OnceLock};

use ingest::Intake;
use processors::Pipeline;
use schemas::Catalogue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serve the API until `stop`, over at most so many connections; requests under way then still end. As long as there is none,
/// whoever asks is told that it starts.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    api: Arc<OnceLock<AppState>>,
    most_connections: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    http_server::serve(listener, Arc::new(http_server::Routes::new(api)), most_connections, stop).await
}

/// What handlers work with.
#[derive(Clone)]
pub struct AppState {
    pub catalogue: Arc<Catalogue>,
    pub intake: Intake,
    pub pipeline: Pipeline,
    /// The metrics page, as Prometheus reads it.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Microseconds since 1970, UTC.
    pub now: fn() -> i64,
    /// Permits of the SQL queries that run at once.
    pub query_permits: Arc<QueryPermits>,
    /// What there is to search for, in words.
    pub lexicons: Lexicons,
    /// What prices are compared with.
    pub markets: Markets,
    /// What search engines may visit.
    pub public_ids: PublicIds,
    /// What shoppers search for most.
    pub popular: PopularQueries,
    /// Everything ends: whoever follows something is told no more.
    pub stop: CancellationToken,
    /// Whether the metrics page has the KPIs too.
    pub kpi_metrics: bool,
    /// Answers about KPIs as they were written.
    pub written_kpis: WrittenAnswers,
    /// The searches that people saved.
    pub alerts: Alerts,
    /// Which parts have caught up with the log once.
    pub caught_up: Arc<CaughtUp>,
}
