//! Work on tables that are away from the lake for it: flushes, merged files, cleaning up.

use std::{
    collections::{BTreeMap, HashSet},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use datafusion::arrow::array::RecordBatch;
use deltalake::{DeltaTableError, kernel::Action, protocol::DeltaOperation};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use schemas::Position;

use crate::{
    commit_failures::CommitFailures,
    error::LakeError,
    table::{Committed, StoredTable},
};

/// The first pause before a failed commit is tried again; it doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Tables committed at once. More gain nothing on few cores and cost memory.
const COMMITS_AT_ONCE: usize = 2;
/// Whoever wants files deleted now waits for it: a query that takes longer keeps its files until they are looked at again.
const READERS_END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_FOR_READERS_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct FlushTable {
    pub(crate) index: usize,
    pub(crate) stored: StoredTable,
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) failures: CommitFailures,
}

/// The tail on its way to files.
pub struct Flush {
    pub(crate) tables: Vec<FlushTable>,
    pub(crate) position: Position,
    pub(crate) log: Option<i64>,
}

/// A flush that is on disk.
pub struct Flushed {
    pub(crate) tables: Vec<(usize, StoredTable, Committed)>,
    /// What every table now holds.
    pub position: Position,
    pub rows: usize,
    /// How long each table's commit took, its file included.
    pub commits: Vec<Duration>,
}

impl Flush {
    /// Write and commit every table, the closing one last. Failures of the store are retried until they pass.
    ///
    /// # Errors
    /// When another process writes to the lake.
    pub fn run(mut self) -> BoxFuture<'static, Result<Flushed, LakeError>> {
        async move {
            let position = self.position;
            let rows = self.tables.iter().flat_map(|table| &table.rows).map(RecordBatch::num_rows).sum();
            let closing = self.tables.pop();
            let log = self.log;
            let commits = stream::iter(self.tables).map(|table| timed(commit(table, position, None)));
            let mut done: Vec<_> = commits.buffer_unordered(COMMITS_AT_ONCE).try_collect().await?;
            if let Some(closing) = closing {
                done.push(timed(commit(closing, position, log)).await?);
            }
            let (tables, commits) = done.into_iter().unzip();
            Ok(Flushed { tables, position, rows, commits })
        }
        .boxed()
    }
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
    let started = Instant::now();
    Ok((work.await?, started.elapsed()))
}

pub(crate) async fn commit(
    table: FlushTable,
    position: Position,
    log: Option<i64>,
) -> Result<(usize, StoredTable, Committed), LakeError> {
    let FlushTable { index, mut stored, rows, failures } = table;
    let name = stored.spec.name.clone();
    let mut pause = RETRY_FIRST;
    while let Err(error) = commit_once(&mut stored, &rows, position, log).await {
        // The commit may have landed although we were not told.
        match stored.reload().await {
            Ok(reached) if reached == position => {
                sync(&stored, &name, &failures).await;
                break;
            }
            Ok(reached) if reached > position || is_conflict(&error) => {
                return Err(LakeError::SecondWriter { table: name });
            }
            Ok(_) | Err(_) => {
                tracing::warn!(error = %error, table = name, "the lake does not take a commit; trying again");
                failures.begin(&name);
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
    failures.end(&name);
    let committed = stored.committed();
    let committed = committed.map_err(|source| LakeError::Reload { table: name, source })?;
    Ok((index, stored, committed))
}

/// One try. The engine panics where it lacks a file descriptor: the version is read anew after that, as after an error.
async fn commit_once(
    stored: &mut StoredTable,
    rows: &[RecordBatch],
    position: Position,
    log: Option<i64>,
) -> Result<(), DeltaTableError> {
    let commit = AssertUnwindSafe(stored.commit(rows, position, log)).catch_unwind();
    commit.await.unwrap_or_else(|_| Err(DeltaTableError::Generic("the engine panicked".to_owned())))
}

/// Have a commit on the disk that landed although we were not told, however long that takes: the log relies on it.
async fn sync(stored: &StoredTable, table: &str, failures: &CommitFailures) {
    let mut pause = RETRY_FIRST;
    while let Err(error) = stored.sync().await {
        failures.begin(table);
        tracing::warn!(%error, table, "it is not known whether a commit is on the disk; trying again");
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

/// Frozen buckets on their way into their table.
pub struct Freeze {
    pub(crate) table: FlushTable,
}

/// The table of frozen buckets, with them.
pub struct Frozen {
    pub(crate) stored: StoredTable,
    pub(crate) committed: Committed,
}

impl Freeze {
    /// Commit. Failures of the store are retried until they pass.
    ///
    /// # Errors
    /// When another process writes to the lake.
    pub fn run(self) -> BoxFuture<'static, Result<Frozen, LakeError>> {
        async move {
            let count = self.table.rows.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
            let position = Position::new(self.table.stored.position.get() + count.max(1));
            let (_, stored, committed) = commit(self.table, position, None).await?;
            Ok(Frozen { stored, committed })
        }
        .boxed()
    }
}

/// Files that were written anew, on their way into their table.
pub struct Apply {
    pub(crate) index: usize,
    pub(crate) stored: StoredTable,
    pub(crate) actions: Vec<Action>,
    pub(crate) operation: DeltaOperation,
    /// What is noted before: the events that the new files have no more.
    pub(crate) noted: Option<FlushTable>,
    pub(crate) failures: CommitFailures,
}

/// A table whose files were written anew, if the store took it.
pub struct Applied {
    pub(crate) index: usize,
    pub(crate) stored: StoredTable,
    pub(crate) committed: Committed,
    pub(crate) noted: Option<(StoredTable, Committed)>,
    taken: bool,
}

impl Applied {
    /// Whether the new files are in their table. If not, all is as it was.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        self.taken
    }
}

impl Apply {
    /// Commit. What the store does not take is left for another time.
    ///
    /// # Errors
    /// When another process writes to the lake.
    pub fn run(mut self) -> BoxFuture<'static, Result<Applied, LakeError>> {
        async move {
            let mut noted = None;
            if let Some(note) = self.noted {
                // Noted first: an event that is gone and not noted would be nowhere.
                // The number grows with every retirement, also with one that was noted before and broke off: whoever has
                // derived something from the events knows by it that they are gone.
                let count = note.rows.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
                let position = Position::new(note.stored.position.get() + count.max(1));
                let (_, stored, committed) = commit(note, position, None).await?;
                noted = Some((stored, committed));
            }
            let table = self.stored.spec.name.clone();
            let before = (self.stored.position, self.stored.version());
            let mut taken = true;
            if let Err(error) = self.stored.apply(self.actions, self.operation).await {
                tracing::warn!(error = %error, table, "the lake does not take files that were written anew");
                // It may have landed although we were not told.
                let mut pause = RETRY_FIRST;
                while let Err(error) = self.stored.reload().await {
                    tracing::warn!(error = %error, table, "the lake cannot be read; trying again");
                    self.failures.begin(&table);
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(RETRY_LAST);
                }
                if self.stored.position != before.0 {
                    return Err(LakeError::SecondWriter { table });
                }
                taken = self.stored.version() != before.1;
                sync(&self.stored, &table, &self.failures).await;
                self.failures.end(&table);
            }
            let committed = self.stored.committed();
            let committed = committed.map_err(|source| LakeError::Reload { table, source })?;
            Ok(Applied { index: self.index, stored: self.stored, committed, noted, taken })
        }
        .boxed()
    }
}

/// The files of every table, to be cleaned up.
pub struct Vacuum {
    pub(crate) tables: Vec<Committed>,
    /// How long files are kept that no table has any more, for readers of an older version.
    pub(crate) keep: Duration,
}

/// What was deleted, by table, and what will be if it is found again.
#[derive(Debug, Default)]
pub struct Vacuumed {
    /// Files and bytes.
    pub deleted: BTreeMap<String, (u64, u64)>,
    pub strays: HashSet<String>,
}

impl Vacuum {
    /// Wait, but not for long, until queries under way have ended: the files they read stay.
    ///
    /// # Errors
    /// When the store cannot be listed or does not delete them.
    pub fn run_after_readers(self, before: &HashSet<String>) -> BoxFuture<'_, Result<Vacuumed, DeltaTableError>> {
        async move {
            let deadline = Instant::now() + READERS_END_WITHIN;
            while self.tables.iter().any(Committed::is_read_before) && Instant::now() < deadline {
                tokio::time::sleep(LOOK_FOR_READERS_EVERY).await;
            }
            self.run(before).await
        }
        .boxed()
    }

    /// Delete what no version has any more. Files that no version ever had are deleted if they were found `before`.
    ///
    /// # Errors
    /// When the store cannot be listed or does not delete them.
    pub fn run(self, before: &HashSet<String>) -> BoxFuture<'_, Result<Vacuumed, DeltaTableError>> {
        async move {
            let mut all = Vacuumed::default();
            for table in self.tables {
                let vacuumed = table.vacuum(self.keep, before).await?;
                all.deleted.insert(table.name(), (vacuumed.files.len() as u64, vacuumed.bytes));
                all.strays.extend(vacuumed.strays);
            }
            Ok(all)
        }
        .boxed()
    }
}

/// Between half and all of a pause, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

fn is_conflict(error: &DeltaTableError) -> bool {
    use deltalake::kernel::transaction::TransactionError;
    matches!(
        error,
        DeltaTableError::Transaction {
            source: TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_)
                | TransactionError::VersionAlreadyExists(_)
        }
    )
}
