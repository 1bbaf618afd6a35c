//! The lake's files beside its commits: which can be merged, hold events past their time, or may go, and how their tables
//! take what was written anew.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::Utc;
use datafusion::arrow::array::RecordBatch;
use deltalake::protocol::DeltaOperation;
use schemas::{ContextIndex, RetentionPolicy, time::MICROS_PER_DAY};

use super::Lake;
use crate::{
    commits::{Applied, Apply, FlushTable, Freeze, Frozen, Vacuum},
    compaction::{Compacted, Compaction, Eagerness, choose},
    forecast::{Forecasting, TableFiles},
    retirement::{Retired, Retirement, expired},
    table::Committed,
};

/// In microseconds.
const QUIET_DAY: i64 = MICROS_PER_DAY;

/// Files that were written anew, which their table does not know yet.
pub enum Rewritten {
    Compacted(Compacted),
    Retired(Retired),
}

impl Rewritten {
    const fn index(&self) -> usize {
        match self {
            Self::Compacted(compacted) => compacted.index,
            Self::Retired(retired) => retired.index,
        }
    }
}

impl Lake {
    /// The files that are merged next, if there are any: to be run beside the lake. Not those of some partitions, named
    /// as [`Compaction::partition`] names them; nor those of what became of dead letters, which are few.
    pub fn next_compaction(&self, eagerness: Eagerness, except: &HashSet<String>) -> Option<Compaction> {
        let now = Utc::now().timestamp_millis();
        let chosen = self.slots.iter().chain([&self.retired, &self.history]).enumerate().filter_map(|(index, slot)| {
            let mut partitions = slot.committed.files();
            partitions.retain(|partition, _| !except.contains(&format!("{}/{partition}", slot.spec.name)));
            let files = choose(&partitions, now, eagerness)?;
            Some((index, slot, files))
        });
        let (index, slot, files) = chosen.max_by_key(|(_, _, files)| files.len())?;
        Some(Compaction {
            index,
            spec: Arc::clone(&slot.spec),
            columns: slot.columns.clone(),
            committed: slot.committed.clone(),
            files,
            session: self.session.clone(),
        })
    }

    /// The events of a context that are past their time by now: to be taken out beside the lake.
    #[must_use]
    pub fn retirement(&self, context: ContextIndex, policy: &RetentionPolicy) -> Option<Retirement> {
        let (now, definition) = (Utc::now().timestamp_micros(), self.catalogue.context_at(context));
        let slot = &self.slots[context.get()];
        Some(Retirement {
            index: context.get(),
            spec: Arc::clone(&slot.spec),
            committed: slot.committed.clone(),
            columns: slot.columns.clone(),
            expired: expired(definition, policy, self.retention_time())?,
            ledger: self.retired.committed.clone(),
            now,
            session: self.session.clone(),
        })
    }

    /// Take away the table of frozen buckets, to add some to it beside the lake.
    ///
    /// # Errors
    /// The rows, when they have to wait while tables are being written.
    pub fn begin_freeze(&mut self, rows: RecordBatch) -> Result<Freeze, RecordBatch> {
        if self.is_writing() {
            return Err(rows);
        }
        let Some(stored) = self.history.stored.take() else { return Err(rows) };
        self.applying = true;
        let index = self.slots.len() + 1;
        Ok(Freeze { table: FlushTable { index, stored, rows: vec![rows], failures: self.failures.clone() } })
    }

    /// Put the table of frozen buckets back.
    pub fn finish_freeze(&mut self, frozen: Frozen) {
        self.history.committed_position = frozen.stored.position;
        self.history.stored = Some(frozen.stored);
        self.history.committed = frozen.committed;
        self.applying = false;
    }

    /// Take away the table that files were written anew for, to commit them beside the lake; they come back while tables
    /// are being written.
    ///
    /// # Errors
    /// The files, when they have to wait.
    pub fn begin_apply(&mut self, rewritten: Rewritten) -> Result<Apply, Rewritten> {
        let index = rewritten.index();
        let retires = matches!(rewritten, Rewritten::Retired(_));
        if self.is_writing() || (retires && self.retired.stored.is_none()) {
            return Err(rewritten);
        }
        let Some(stored) = self.slot_mut(index).stored.take() else { return Err(rewritten) };
        self.applying = true;
        let (actions, operation, noted) = match rewritten {
            Rewritten::Compacted(compacted) => {
                (compacted.actions, DeltaOperation::Optimize { predicate: None, target_size: 0 }, None)
            }
            Rewritten::Retired(gone) => {
                let failures = self.failures.clone();
                let note = |stored| FlushTable { index, stored, rows: vec![gone.ledger], failures };
                let noted = self.retired.stored.take().map(note);
                (gone.actions, DeltaOperation::Delete { predicate: Some("past its time".to_owned()) }, noted)
            }
        };
        Ok(Apply { index, stored, actions, operation, noted, failures: self.failures.clone() })
    }

    /// Put a table back whose files were written anew.
    pub fn finish_apply(&mut self, applied: Applied) {
        let slot = self.slot_mut(applied.index);
        slot.committed = applied.committed;
        slot.stored = Some(applied.stored);
        if let Some((stored, committed)) = applied.noted {
            self.retired.committed_position = stored.position;
            self.retired.stored = Some(stored);
            self.retired.committed = committed;
        }
        self.applying = false;
    }

    /// The context after this one, whose events are looked at next.
    #[must_use]
    pub fn context_after(&self, context: ContextIndex) -> Option<ContextIndex> {
        let mut contexts = self.catalogue.indexed().map(|(index, _)| index);
        contexts.find(|index| index.get() > context.get())
    }

    /// Every table's files, those of events first.
    #[must_use]
    pub fn files(&self) -> Vec<TableFiles> {
        self.all_committed().map(TableFiles::of).collect()
    }

    fn all_committed(&self) -> impl Iterator<Item = &Committed> {
        let tables = self.slots.iter().map(|slot| &slot.committed);
        tables.chain([&self.committed_closings, &self.retired.committed, &self.history.committed])
    }

    /// Every table as it is committed, to see beside the lake what maintenance would do.
    #[must_use]
    pub fn forecast(&self, policy: &RetentionPolicy, keep: Duration) -> Forecasting {
        let mut contexts = self.catalogue.contexts().iter();
        let tables = self.all_committed().map(|committed| {
            let expired = contexts.next().and_then(|context| expired(context, policy, self.retention_time()));
            (committed.clone(), expired)
        });
        Forecasting {
            tables: tables.collect(),
            keep,
            now: Utc::now().timestamp_millis(),
            session: self.session.clone(),
        }
    }

    /// Every table as it is committed, to be cleaned up beside the lake.
    #[must_use]
    pub fn vacuum(&self, keep: Duration) -> Vacuum {
        Vacuum { tables: self.all_committed().cloned().collect(), keep }
    }

    /// The time by which events may be past theirs, in microseconds since 1970, UTC. A day after the last event came it
    /// stands still: a clock that is wrong takes nothing.
    fn retention_time(&self) -> i64 {
        let now = Utc::now().timestamp_micros();
        self.ingested_at.map_or(now, |last| now.min(last.saturating_add(QUIET_DAY)))
    }
}
