//! Work on tables that are away from the lake for it: flushes, merged files, cleaning up.

use std::{collections::HashSet, time::Duration};

use datafusion::{arrow::array::RecordBatch, prelude::SessionContext};
use deltalake::DeltaTableError;
use futures::{StreamExt, TryStreamExt, stream};
use schemas::Position;

use crate::{
    compaction::Compacted,
    lake::LakeError,
    table::{Committed, KEEP_FOR, StoredTable},
};

/// The first pause before a failed commit is tried again; it doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Tables committed at once. More gain nothing on few cores and cost memory.
const COMMITS_AT_ONCE: usize = 2;

pub(crate) struct FlushTable {
    pub(crate) index: usize,
    pub(crate) stored: StoredTable,
    pub(crate) rows: Vec<RecordBatch>,
}

/// The tail on its way to files.
pub struct Flush {
    pub(crate) tables: Vec<FlushTable>,
    pub(crate) position: Position,
    pub(crate) log: Option<i64>,
    pub(crate) session: SessionContext,
}

/// A flush that is on disk.
pub struct Flushed {
    pub(crate) tables: Vec<(usize, StoredTable, Committed)>,
    /// What every table now holds.
    pub position: Position,
    pub rows: usize,
}

impl Flush {
    /// Write and commit every table, the closing one last. Failures of the store are retried until they pass.
    ///
    /// # Errors
    /// When another process writes to the lake.
    pub async fn run(mut self) -> Result<Flushed, LakeError> {
        let position = self.position;
        let rows = self.tables.iter().flat_map(|table| &table.rows).map(RecordBatch::num_rows).sum();
        let closing = self.tables.pop();
        let (session, log) = (&self.session, self.log);
        let commits = stream::iter(self.tables).map(|table| commit(table, position, None, session));
        let mut tables: Vec<_> = commits.buffer_unordered(COMMITS_AT_ONCE).try_collect().await?;
        if let Some(closing) = closing {
            tables.push(commit(closing, position, log, session).await?);
        }
        Ok(Flushed { tables, position, rows })
    }
}

pub(crate) async fn commit(
    table: FlushTable,
    position: Position,
    log: Option<i64>,
    session: &SessionContext,
) -> Result<(usize, StoredTable, Committed), LakeError> {
    let FlushTable { index, mut stored, rows } = table;
    let name = stored.spec.name.clone();
    let mut pause = RETRY_FIRST;
    while let Err(error) = stored.commit(&rows, position, log).await {
        // The commit may have landed although we were not told.
        match stored.reload().await {
            Ok(reached) if reached == position => break,
            Ok(reached) if reached > position || is_conflict(&error) => {
                return Err(LakeError::SecondWriter { table: name });
            }
            Ok(_) | Err(_) => {
                tracing::warn!(error = %error, table = name, "the lake does not take a commit; trying again");
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
    let committed = stored.committed(session).await;
    let committed = committed.map_err(|source| LakeError::Reload { table: name, source })?;
    Ok((index, stored, committed))
}

/// A merged file on its way into its table.
pub struct Apply {
    pub(crate) stored: StoredTable,
    pub(crate) compacted: Compacted,
    pub(crate) session: SessionContext,
}

/// A table whose files were merged, if the store took it.
pub struct Applied {
    pub(crate) index: usize,
    pub(crate) stored: StoredTable,
    pub(crate) committed: Committed,
    taken: bool,
}

impl Applied {
    /// Whether the merged file is in its table. If not, all is as it was.
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
    pub async fn run(mut self) -> Result<Applied, LakeError> {
        let Compacted { index, actions, files, bytes } = self.compacted;
        let table = self.stored.spec.name.clone();
        let before = (self.stored.position, self.stored.version());
        let mut taken = true;
        if let Err(error) = self.stored.apply(actions).await {
            tracing::warn!(error = %error, table, "the lake does not take a merged file");
            // It may have landed although we were not told.
            let mut pause = RETRY_FIRST;
            while let Err(error) = self.stored.reload().await {
                tracing::warn!(error = %error, table, "the lake cannot be read; trying again");
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
            if self.stored.position != before.0 {
                return Err(LakeError::SecondWriter { table });
            }
            taken = self.stored.version() != before.1;
        }
        if taken {
            tracing::debug!(table, files, bytes, "merged small files");
        }
        let committed = self.stored.committed(&self.session).await;
        let committed = committed.map_err(|source| LakeError::Reload { table, source })?;
        Ok(Applied { index, stored: self.stored, committed, taken })
    }
}

/// The files of every table, to be cleaned up.
pub struct Vacuum {
    pub(crate) tables: Vec<Committed>,
}

impl Vacuum {
    /// Find the files that no version of the last day has, and delete those that were found `before` as well. What was
    /// found and not deleted.
    ///
    /// # Errors
    /// When the store cannot be listed or does not delete them.
    pub async fn run(self, before: &HashSet<String>) -> Result<HashSet<String>, DeltaTableError> {
        let mut found = HashSet::new();
        for table in self.tables {
            found.extend(table.vacuum(KEEP_FOR, before).await?);
        }
        Ok(found)
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
