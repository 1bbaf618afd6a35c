//! The rows of a running query, as a stream with a deadline.

use std::time::Duration;

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::Result,
    execution::SendableRecordBatchStream,
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use schemas::{Position, field_type::format_timestamp};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    row_reader::RowReader,
    sql_error::{SqlError, classify},
};

/// Batches of a result that wait for the reader.
pub(crate) const MAX_WAITING_BATCHES: usize = 2;

/// The rows and the time that one query may use.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Without a limit, [`usize::MAX`].
    pub rows: usize,
    pub time: Duration,
}

/// A stream of a query's rows, in bounded memory. Dropping it ends the query.
pub struct QueryRows {
    pub schema: SchemaRef,
    /// What the rows reflect.
    pub position: Position,
    pub(crate) event_time: Option<i64>,
    /// The time is up for whoever reads as for the query.
    pub(crate) deadline: Instant,
    pub(crate) limit: Duration,
    /// `None` is the end, and nothing else is: a query that breaks off says no more.
    pub(crate) rows: mpsc::Receiver<Result<Option<RecordBatch>, SqlError>>,
    pub(crate) ended: bool,
    /// Rows that may still come.
    pub(crate) left: usize,
    pub(crate) truncated: bool,
    pub(crate) reader: RowReader,
    pub(crate) _task: AbortOnDrop<()>,
}

impl QueryRows {
    /// Whether its rows are read.
    #[must_use]
    pub fn reader(&self) -> RowReader {
        self.reader.clone()
    }

    /// The next rows, until there are no more or the limit is reached.
    pub fn next_batch(&mut self) -> BoxFuture<'_, Option<Result<RecordBatch, SqlError>>> {
        async move {
            if self.ended {
                return None;
            }
            if self.reader.is_stopped() {
                self.ended = true;
                return Some(Err(SqlError::NotRead));
            }
            let _guard = self.reader.read();
            let received = tokio::time::timeout_at(self.deadline, self.rows.recv()).await.unwrap_or_default();
            let batch = match received {
                Some(Ok(Some(batch))) => batch,
                Some(Ok(None)) => {
                    self.ended = true;
                    return None;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    return Some(Err(SqlError::broken_off(self.deadline, self.limit)));
                }
            };
            self.truncated |= batch.num_rows() > self.left;
            let rows = batch.num_rows().min(self.left);
            self.left -= rows;
            Some(Ok(batch.slice(0, rows)))
        }
        .boxed()
    }

    /// How long the query and whoever reads it may take.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// What the rows reflect: `{"position", "event_time"}`.
    #[must_use]
    pub fn as_of(&self) -> Value {
        json!({"position": self.position.get(), "event_time": self.event_time.map(format_timestamp)})
    }

    /// Every row.
    ///
    /// # Errors
    /// When the query fails on its way.
    pub fn collect(&mut self) -> BoxFuture<'_, Result<Vec<RecordBatch>, SqlError>> {
        async move {
            let mut batches = Vec::new();
            while let Some(batch) = self.next_batch().await {
                batches.push(batch?);
            }
            Ok(batches)
        }
        .boxed()
    }

    /// Whether there were more rows than the limit, once all have come.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.truncated
    }
}

/// Send rows until they end, the receiver is dropped, or the deadline passes.
pub(crate) async fn forward_rows(
    mut rows: SendableRecordBatchStream,
    sender: mpsc::Sender<Result<Option<RecordBatch>, SqlError>>,
    deadline: Instant,
    limit: Duration,
) {
    loop {
        let next = tokio::time::timeout_at(deadline, rows.next()).await;
        let (message, ends) = match next {
            Ok(None) => (Ok(None), true),
            Ok(Some(Ok(batch))) => (Ok(Some(batch)), false),
            Ok(Some(Err(error))) => (Err(classify(error)), true),
            Err(_) => (Err(SqlError::TooSlow(limit)), true),
        };
        // A reader who takes nothing holds memory: the time is up for both.
        let sent = tokio::time::timeout_at(deadline, sender.send(message)).await;
        if ends || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// Aborts a task when it is dropped.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}
