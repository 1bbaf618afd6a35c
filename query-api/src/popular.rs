//! What shoppers search for most, to suggest it to others.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lake::{
    LakeView, ParamValues, SqlError, SqlSession,
    arrow::{array::AsArray, datatypes::Int64Type},
};

/// How old it may get while somebody asks.
const MADE_EVERY: Duration = Duration::from_secs(60);

/// Searches of the last 30 days of the log that three shoppers or more have made: one that is somebody's own is not told.
const QUERIES: &str = "
SELECT query, shoppers FROM (
    SELECT lower(trim(search_query)) AS query, count(DISTINCT user_id) AS shoppers
    FROM browsing.user_searched
    WHERE event_time > (SELECT max(event_time) FROM browsing.user_searched) - INTERVAL '30 days'
    GROUP BY 1
)
WHERE shoppers >= 3 AND length(query) BETWEEN 2 AND 80
ORDER BY shoppers DESC, query
LIMIT 2000";

/// Searches, the most made first, with how many shoppers made each.
pub(crate) type Queries = Vec<(String, i64)>;

/// Keeps the newest.
#[derive(Clone, Default)]
pub struct PopularQueries(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    queries: Arc<Queries>,
    made: Option<Instant>,
}

impl PopularQueries {
    /// Those that begin with a text, the most made first. What is known is made anew beside, so nobody waits for it.
    #[must_use]
    pub(crate) fn beginning(&self, sql: &SqlSession, view: &Arc<LakeView>, text: &str, limit: usize) -> Queries {
        let queries = self.newest(sql, view);
        let typed = text.trim_start().to_lowercase();
        let begin = queries.iter().filter(|(query, _)| query.starts_with(&typed) && *query != typed.trim_end());
        begin.take(limit).cloned().collect()
    }

    fn newest(&self, sql: &SqlSession, view: &Arc<LakeView>) -> Arc<Queries> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.made.is_none_or(|made| made.elapsed() >= MADE_EVERY) {
            kept.made = Some(Instant::now());
            let (this, sql, view) = (self.clone(), sql.clone(), Arc::clone(view));
            tokio::spawn(async move {
                match counted(&sql, &view).await {
                    Ok(queries) => this.0.lock().unwrap_or_else(PoisonError::into_inner).queries = Arc::new(queries),
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "popular searches cannot be counted");
                    }
                }
            });
        }
        Arc::clone(&kept.queries)
    }
}

async fn counted(sql: &SqlSession, view: &Arc<LakeView>) -> Result<Queries, SqlError> {
    let batches = sql.collect(sql.context(view, Vec::new()), QUERIES, ParamValues::List(Vec::new())).await?;
    let mut queries = Queries::new();
    for batch in &batches {
        let (texts, counts) = (batch.column(0).as_string_opt::<i32>(), batch.column(1).as_primitive_opt::<Int64Type>());
        let (Some(texts), Some(counts)) = (texts, counts) else { continue };
        queries.extend(texts.iter().zip(counts).filter_map(|(text, count)| Some((text?.to_owned(), count?))));
    }
    Ok(queries)
}
