//! Dead letters as they are asked for: by status, reason and position, a page at a time.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{Int64Type, TimestampMicrosecondType},
    },
    common::{Result, TableReference},
    functions_aggregate::expr_fn::count,
    logical_expr::Expr,
    prelude::{DataFrame, col, lit},
};
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use schemas::Position;

use crate::{LakeView, SqlError, SqlSession, plain_texts::plain};

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// `open`, `retried` or `dropped`; any when `None`.
    pub status: Option<String>,
    pub reason: Option<String>,
    /// These alone, when there are any.
    pub positions: Vec<Position>,
}

/// Which page of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The latest before a position.
    Before(Position, usize),
    /// The earliest after a position.
    After(Position, usize),
}

/// A message of the log that is no event, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub position: Position,
    /// Microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub reason: String,
    pub message: String,
    pub field: Option<String>,
    pub event_id: Option<String>,
    pub subject: String,
    /// Its block of headers, if that is what is wrong with it.
    pub headers: Option<Vec<u8>>,
    /// Its bytes, when they were asked for.
    pub payload: Vec<u8>,
    pub payload_bytes: u64,
    /// `open`, `retried` or `dropped`.
    pub status: String,
    /// Microseconds since 1970, UTC.
    pub closed_at: Option<i64>,
    pub closed_by: Option<String>,
    pub retried_as: Option<Position>,
}

/// How many dead letters have a reason and a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterCount {
    pub reason: String,
    pub status: String,
    pub count: u64,
}

impl SqlSession {
    /// A page of dead letters, in the page's order; their bytes only when they are needed.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn letters<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        filter: &'a LetterFilter,
        page: Page,
        with_bytes: bool,
    ) -> BoxFuture<'a, std::result::Result<Vec<Letter>, SqlError>> {
        async move {
            let (bound, rows, ascending) = match page {
                Page::Before(before, rows) => (col("position").lt(lit(before.as_i64())), rows, false),
                Page::After(after, rows) => (col("position").gt(lit(after.as_i64())), rows, true),
            };
            let (session, filter) = (self.clone(), filter.clone());
            let view = Arc::clone(view);
            let work = async move {
                let mut frame = session.letter_frame(&view, &filter).await?.filter(bound)?;
                if !with_bytes {
                    frame = frame.drop_columns(&["payload", "headers"])?;
                }
                let letters = frame.sort(vec![col("position").sort(ascending, false)])?.limit(0, Some(rows))?;
                plain(letters.execute_stream().await?).try_collect::<Vec<_>>().await
            };
            let batches = self.run(work, std::time::Duration::MAX).await?;
            Ok(batches.iter().flat_map(letters).collect())
        }
        .boxed()
    }

    /// How many there are, by reason and status.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn letter_counts<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
    ) -> BoxFuture<'a, std::result::Result<Vec<LetterCount>, SqlError>> {
        async move {
            let (session, view) = (self.clone(), Arc::clone(view));
            let work = async move {
                let frame = session.letter_frame(&view, &LetterFilter::default()).await?;
                let counted =
                    frame.aggregate(vec![col("reason"), col("status")], vec![count(lit(1)).alias("letters")])?;
                let counted = counted.sort(vec![col("reason").sort(true, false), col("status").sort(true, false)])?;
                plain(counted.execute_stream().await?).try_collect::<Vec<_>>().await
            };
            let batches = self.run(work, std::time::Duration::MAX).await?;
            Ok(batches.iter().flat_map(counts).collect())
        }
        .boxed()
    }

    async fn letter_frame(&self, view: &Arc<LakeView>, filter: &LetterFilter) -> Result<DataFrame> {
        let context = self.context(view, Vec::new());
        let mut frame = context.table(TableReference::partial("system", "dead_letters")).await?;
        let mut conditions: Vec<Expr> = Vec::new();
        conditions.extend(filter.status.as_ref().map(|status| col("status").eq(lit(status.clone()))));
        conditions.extend(filter.reason.as_ref().map(|reason| col("reason").eq(lit(reason.clone()))));
        if !filter.positions.is_empty() {
            let positions = filter.positions.iter().map(|position| lit(position.as_i64())).collect();
            conditions.push(col("position").in_list(positions, false));
        }
        for condition in conditions {
            frame = frame.filter(condition)?;
        }
        Ok(frame)
    }
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let array = batch.column_by_name(name)?.as_string_opt::<i32>()?;
    array.is_valid(row).then(|| array.value(row).to_owned())
}

fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    array.is_valid(row).then(|| array.value(row))
}

fn time(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    array.is_valid(row).then(|| array.value(row))
}

fn letters(batch: &RecordBatch) -> impl Iterator<Item = Letter> {
    let bytes = |name| batch.column_by_name(name).and_then(|array| array.as_binary_opt::<i32>());
    let (payloads, headers) = (bytes("payload"), bytes("headers"));
    (0..batch.num_rows()).map(move |row| {
        let required = |name| text(batch, name, row).unwrap_or_default();
        Letter {
            position: Position::from_i64(number(batch, "position", row).unwrap_or_default()),
            ingested_at: time(batch, "ingested_at", row).unwrap_or_default(),
            reason: required("reason"),
            message: required("message"),
            field: text(batch, "field", row),
            event_id: text(batch, "event_id", row),
            subject: required("subject"),
            payload_bytes: number(batch, "payload_bytes", row).unwrap_or_default().unsigned_abs(),
            headers: headers.filter(|it| it.is_valid(row)).map(|it| it.value(row).to_vec()),
            payload: payloads.map(|payloads| payloads.value(row).to_vec()).unwrap_or_default(),
            status: required("status"),
            closed_at: time(batch, "closed_at", row),
            closed_by: text(batch, "closed_by", row),
            retried_as: number(batch, "retried_as", row).map(Position::from_i64),
        }
    })
}

fn counts(batch: &RecordBatch) -> impl Iterator<Item = LetterCount> {
    (0..batch.num_rows()).map(move |row| LetterCount {
        reason: text(batch, "reason", row).unwrap_or_default(),
        status: text(batch, "status", row).unwrap_or_default(),
        count: number(batch, "letters", row).unwrap_or_default().unsigned_abs(),
    })
}
