//! What every SQL entry does with a question, however it came: its permit, the cut it is answered at, and the tables whose
//! rows come with it.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use lake::{
    ExtraTable, LakeView, Prepared, QueryLimits, QueryRows, SqlError, Statement, table_description::TableDescription,
};
use processors::derived_tables::{CURRENT, LISTINGS, POSITIONS, SYSTEM, listings_table, positions_table};
use schemas::{Position, field_type::parse_timestamp};
use serde_json::Value;

use crate::{
    AppState,
    consistency::Freshness,
    problem::Problem,
    query_permits::{MAX_QUERIES, QueryPermit},
};

/// How long a query may take, to its last row, unless it asks for another time.
pub(crate) const DEFAULT_TIME: Duration = Duration::from_secs(60);
pub(crate) const MAX_TIME: Duration = Duration::from_secs(600);
/// The cut a question is answered at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AsOf {
    Now,
    Position(Position),
    /// What the log had taken by then: microseconds since 1970, UTC.
    Time(i64),
}

impl AsOf {
    /// From a position or a time.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let text = match value {
            Value::Null => return Some(Self::Now),
            Value::Number(number) => return number.as_u64().map(|position| Self::Position(Position::new(position))),
            Value::String(text) => text,
            _ => return None,
        };
        let position = text.parse().ok().map(|position| Self::Position(Position::new(position)));
        position.or_else(|| parse_timestamp(text).map(Self::Time))
    }
}

/// A question, beside its words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) as_of: AsOf,
    pub(crate) freshness: Freshness,
    pub(crate) limits: QueryLimits,
}

/// Rows, and the permit of their query: dropped, another may run.
pub(crate) struct Answering {
    pub(crate) rows: QueryRows,
    pub(crate) permit: QueryPermit,
}

impl AppState {
    /// Answer a statement.
    pub(crate) async fn answer(
        &self,
        statement: Statement,
        values: lake::ParamValues,
        asking: Asking,
    ) -> Result<Answering, Problem> {
        let Some(permit) = self.query_permits.acquire(asking.limits.time).await else {
            let detail = format!("{MAX_QUERIES} queries are running. Ask again in a moment.");
            return Err(Problem::unavailable("busy", detail));
        };
        let names = self.pipeline.sql.references(&statement);
        let names = |schema, table| names.iter().any(|(s, t)| s.as_deref() == Some(schema) && t == table);
        let mut brought = Vec::new();
        let view = if names(CURRENT, LISTINGS) {
            let (view, listings) = self.listings(asking).await?;
            brought.push(listings);
            view
        } else {
            self.view_of(asking).await?
        };
        if names(SYSTEM, POSITIONS) {
            brought.push(self.positions(&view)?);
        }
        let rows = self.pipeline.sql.query(&view, brought, statement, values, asking.limits).await;
        let rows = rows.map_err(refused)?;
        permit.watch(rows.reader());
        Ok(Answering { rows, permit })
    }

    /// What a statement answers and asks for.
    pub(crate) async fn prepare(&self, statement: Statement, freshness: Freshness) -> Result<Prepared, Problem> {
        let view = freshness.wait(&self.pipeline.lake).await?;
        self.pipeline.sql.prepare(&view, statement).await.map_err(refused)
    }

    /// Every table there is.
    pub(crate) async fn tables(&self, freshness: Freshness) -> Result<&[TableDescription], Problem> {
        let view = freshness.wait(&self.pipeline.lake).await?;
        self.pipeline.sql.tables(&view).await.map_err(refused)
    }

    /// Search comes a moment after the events: they are cut where it is.
    async fn listings(&self, asking: Asking) -> Result<(Arc<LakeView>, ExtraTable), Problem> {
        if !matches!(asking.as_of, AsOf::Now) {
            let detail = "current.listings is as of now: leave out as_of, or ask the events.";
            return Err(Problem::parameter("as_of", detail));
        }
        let listings = asking.freshness.wait(&self.pipeline.listings).await?;
        let view = asking.freshness.at_least(listings.position).wait(&self.pipeline.lake).await?;
        let view = self.pipeline.sql.cut(&view, listings.position, asking.limits.time).await.map_err(refused)?;
        let shown = tokio::task::spawn_blocking(move || listings_table(&listings)).await;
        let shown = shown.map_err(|error| Problem::internal(&error))?;
        Ok((view, shown.map_err(|error| Problem::internal(&error))?))
    }

    fn positions(&self, view: &LakeView) -> Result<ExtraTable, Problem> {
        let index = self.pipeline.listings.borrow().as_ref().map(|index| (index.position, index.event_time));
        let board = self.pipeline.kpis.cache.borrow().as_ref().map(|board| (board.position, board.event_time));
        let all = [("lake", Some((view.position, view.event_time))), ("index", index), ("kpis", board)];
        let rows: Vec<_> = all.into_iter().filter_map(|(name, at)| at.map(|at| (name, at.0, at.1))).collect();
        positions_table(&rows).map_err(|error| Problem::internal(&error))
    }

    /// The newest view, or the one of an earlier position or time.
    async fn view_of(&self, asking: Asking) -> Result<Arc<LakeView>, Problem> {
        let (sql, within, freshness) = (&self.pipeline.sql, asking.limits.time, asking.freshness);
        match asking.as_of {
            AsOf::Now => freshness.wait(&self.pipeline.lake).await,
            AsOf::Position(position) => {
                let view = freshness.at_least(position).wait(&self.pipeline.lake).await?;
                sql.cut(&view, position, within).await.map_err(refused)
            }
            AsOf::Time(time) if time <= (self.now)() => {
                // Whatever the log took until then is there by now; the lake may not have it yet.
                let last = self.pipeline.log.last_message().await;
                let last =
                    last.map_err(|_| Problem::unavailable("log_away", "The log is away. Ask again in a moment."))?;
                let view = freshness.at_least(last).wait(&self.pipeline.lake).await?;
                let position = sql.position_at(&view, time, within).await.map_err(refused)?;
                sql.cut(&view, position, within).await.map_err(refused)
            }
            AsOf::Time(_) => Err(not_past()),
        }
    }
}

/// An `as_of` that is none.
pub(crate) fn not_past() -> Problem {
    Problem::parameter("as_of", "as_of is a position, or a time that has passed, such as 1200 or 2026-11-02T08:30:00Z")
}

pub(crate) fn refused(error: SqlError) -> Problem {
    let detail = error.to_string();
    match error {
        SqlError::Invalid { at, .. } => {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_sql", "The query cannot be run", detail);
            match at {
                Some((line, column)) => problem.at("line", line).at("column", column),
                None => problem,
            }
        }
        SqlError::ReadOnly { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "read_only", "SQL is read-only here", detail)
        }
        SqlError::TooSlow(_) => Problem::new(StatusCode::BAD_REQUEST, "too_slow", "The query takes too long", detail),
        SqlError::TooLarge(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "too_large", "The query needs too much memory", detail)
        }
        SqlError::NotRead => Problem::unavailable("not_read", detail),
        SqlError::Internal(_) => Problem::internal(&error),
    }
}
