//! The copy of dead letters in a stream of their own, for those who listen there.
//!
//! The lake's rows are the truth. The copy is made from them, apart from the pipeline: what keeps it from being made holds
//! up nothing, and is made up for later.

use std::sync::Arc;

use ingest::{Backoff, DeadLetterStream, LetterCopy, Log, LogError};
use lake::{
    LakeView, SqlError, SqlSession,
    letters::{Letter, LetterFilter, Page},
};
use schemas::Position;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{error::PipelineError, gauges::position_gauge};

/// Letters read at once: each may have megabytes.
const PAGE: usize = 20;

/// What keeps letters from being copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the stream does not take them: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Lake(#[from] SqlError),
}

pub(crate) struct DeadLetterCopier {
    pub(crate) log: Log,
    pub(crate) sql: SqlSession,
    pub(crate) lake: watch::Receiver<Option<Arc<LakeView>>>,
    /// Where the pipeline began to read.
    pub(crate) from: Position,
    /// The position of the last letter that was found.
    pub(crate) found: watch::Receiver<Position>,
}

impl DeadLetterCopier {
    /// Copy what the lake has and the stream has not, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), PipelineError> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            never = self.copy_for_ever() => never,
        }
    }

    async fn copy_for_ever(mut self) -> Result<(), PipelineError> {
        let (mut stream, mut backoff, mut is_failing) = (None, Backoff::default(), false);
        loop {
            match self.copy_what_there_is(&mut stream).await {
                Ok(copied) => {
                    metrics::gauge!("dead_letter_copy_lag_positions").set(0.0);
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(position = copied.get(), "dead letters are copied again");
                    }
                    backoff = Backoff::default();
                    if self.found.wait_for(|found| *found > copied).await.is_err() {
                        // Nothing is read any more.
                        std::future::pending::<()>().await;
                    }
                }
                Err(error) => {
                    let copied = stream.take().map_or(Position::START, |stream: DeadLetterStream| stream.last());
                    let lag = self.found.borrow().get().saturating_sub(copied.get());
                    metrics::gauge!("dead_letter_copy_lag_positions").set(position_gauge(Position::new(lag)));
                    is_failing = true;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "dead letters are in the lake and cannot be copied to their stream; trying again"
                    );
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Copy until there is nothing more to copy; the position up to which there is not.
    async fn copy_what_there_is(&mut self, stream: &mut Option<DeadLetterStream>) -> Result<Position, CopyError> {
        let stream = match stream {
            Some(stream) => stream,
            None => stream.insert(DeadLetterStream::open(self.log.clone(), self.from).await?),
        };
        loop {
            let found = *self.found.borrow_and_update();
            let shown = self.lake.wait_for(|view| view.as_ref().is_some_and(|view| view.position >= found)).await;
            // The lake is gone when the pipeline ends.
            let Some(view) = shown.ok().and_then(|view| view.clone()) else { return Ok(Position::new(u64::MAX)) };
            let page = Page::After(stream.last(), PAGE);
            let letters = self.sql.letters(&view, &LetterFilter::default(), page, true).await?;
            if letters.is_empty() {
                return Ok(found.max(stream.last()));
            }
            let copies: Vec<LetterCopy> = letters.into_iter().map(copy_of).collect();
            stream.copy(&copies).await.map_err(CopyError::Refused)?;
        }
    }
}

fn copy_of(letter: Letter) -> LetterCopy {
    let Letter { position, subject, reason, message, field, payload, headers, .. } = letter;
    LetterCopy { position, subject, reason, message, field, payload: payload.into(), headers: headers.map(Into::into) }
}
