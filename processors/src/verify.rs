//! Proof that what is derived from the log is what the log says.
//!
//! Everything is recomputed from the lake at one cut, in another way than it was kept: positions and ids are counted,
//! the listings are folded anew into an index of their own, and each KPI is computed over all of time, with what is frozen
//! as it is kept. What the log still holds is compared with the lake. Nothing is changed.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Int64Type,
};
use datafusion::{
    common::{DataFusionError, ParamValues},
    execution::SendableRecordBatchStream,
};
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use ingest::{Log, LogError, SeenError, SeenEvents};
use lake::{Lake, LakeView, SqlError, SqlSession};
use schemas::{Catalogue, EventKey, Position};
use search_index::{ListingIndex, ListingSnapshot};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::{
    error::{PipelineError, folder_url},
    kpi_definition::KpiDefinition,
    kpis::{KpiCache, KpiError, recomputed},
    listing_fold::CONTEXTS,
    listings::{Listings, ListingsError},
};

mod log;

/// Differences told; all are counted.
const TOLD: usize = 20;
/// Entities folded between two commits: what is held in memory.
const FOLDED_AT_ONCE: usize = 100_000;

const TABLES: &str = "a table's files can be read, and hold what its position and its statistics say";
const SEEN: &str = "an event id is known to have taken effect where it did";

/// What kept the proof from being made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the lake cannot be read")]
    Lake(#[from] SqlError),
    #[error(transparent)]
    Folder(#[from] Box<PipelineError>),
    #[error("the lake's rows cannot be read")]
    Rows(#[source] DataFusionError),
    #[error(transparent)]
    Listings(#[from] ListingsError),
    #[error(transparent)]
    Kpi(#[from] KpiError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the log ends at position {reached} and its last message is at {end}")]
    LogEnded { reached: Position, end: Position },
    #[error("there is no room for a second index")]
    Scratch(#[from] std::io::Error),
}

/// What was looked at, and what of it is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What must hold.
    pub claim: &'static str,
    /// How many things were looked at.
    pub checked: u64,
    /// How many differ.
    pub different: u64,
    /// The first of those.
    pub differences: Vec<String>,
}

impl Check {
    const fn new(name: &'static str, claim: &'static str) -> Self {
        Self { name, claim, checked: 0, different: 0, differences: Vec::new() }
    }

    fn differs(&mut self, what: impl FnOnce() -> String) {
        self.different += 1;
        if self.differences.len() < TOLD {
            self.differences.push(what());
        }
    }
}

/// What is to be proved: a cut of the lake, and what was derived from it.
pub struct Subject<'a> {
    pub catalogue: &'a Arc<Catalogue>,
    pub sql: &'a SqlSession,
    pub view: &'a Arc<LakeView>,
    /// At or before the cut; none, where there is none to be checked.
    pub listings: Option<&'a Arc<ListingSnapshot>>,
    /// The ids that have taken effect; none, where there is no store of them.
    pub seen: Option<&'a SeenEvents>,
    /// Read by a running system alone.
    pub log: Option<&'a Log>,
    /// Buckets are kept by a running system alone.
    pub board: Option<&'a Arc<KpiCache>>,
    pub definitions: &'a [KpiDefinition],
}

/// What was found in folders that nobody writes to.
pub struct OfFolders {
    pub checks: Vec<Check>,
    /// Why the index cannot be compared with the lake, if it cannot.
    pub index_left_out: Option<String>,
}

/// Where a system keeps its things.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    pub lake: &'a Path,
    pub index: &'a Path,
    pub seen: &'a Path,
}

/// Verify what lies in folders. KPIs are computed when a server starts, and not kept there.
///
/// # Errors
/// When something cannot be read: what that is, is itself a finding.
pub fn of_folders<'a>(
    catalogue: &'a Arc<Catalogue>,
    folders: Folders<'a>,
    queries: Handle,
) -> BoxFuture<'a, Result<OfFolders, VerifyError>> {
    async move {
        let root = folder_url(folders.lake).map_err(Box::new)?;
        let view = match Lake::look(&root, Arc::clone(catalogue)).await {
            Ok(view) => Arc::new(view),
            Err(error) => {
                let mut tables = Check::new("tables", TABLES);
                tables.differs(|| in_full(&error));
                return Ok(OfFolders { checks: vec![tables], index_left_out: None });
            }
        };
        let sql = SqlSession::new(queries, Vec::new()).map_err(VerifyError::Rows)?;
        let kept = ListingIndex::look(folders.index).map_err(ListingsError::from)?;
        let index_left_out = kept.as_ref().and_then(|kept| {
            if kept.position > view.position {
                // The log has what lies between.
                Some(format!("the index reflects position {} and the lake {}", kept.position, view.position))
            } else if kept.retirements != view.retirements {
                Some("retention took events out of the lake since the index was written".to_owned())
            } else {
                None
            }
        });
        let listings = kept.as_ref().filter(|_| index_left_out.is_none());
        let (seen, unreadable) = match SeenEvents::look(folders.seen) {
            Ok(seen) => (seen, None),
            Err(error) => (None, Some(error)),
        };
        let subject = Subject {
            catalogue,
            sql: &sql,
            view: &view,
            listings,
            seen: seen.as_ref(),
            log: None,
            board: None,
            definitions: &[],
        };
        let mut checks = subject.verify().await?;
        if let Some(error) = unreadable {
            let mut check = Check::new("seen events", SEEN);
            check.differs(|| in_full(&error));
            checks.push(check);
        }
        Ok(OfFolders { checks, index_left_out })
    }
    .boxed()
}

impl Subject<'_> {
    /// Make every check.
    ///
    /// # Errors
    /// When something cannot be read: what that is, is itself a finding.
    pub fn verify(&self) -> BoxFuture<'_, Result<Vec<Check>, VerifyError>> {
        async move {
            let (tables, all_are_read) = self.tables().await;
            if !all_are_read {
                // What cannot be read cannot be counted either.
                return Ok(vec![tables]);
            }
            let mut checks = vec![tables, self.positions().await?, self.event_ids().await?];
            if let Some(log) = self.log {
                checks.push(self.log(log).await?);
            }
            if let Some(seen) = self.seen {
                checks.push(self.seen(seen).await?);
            }
            if let Some(listings) = self.listings {
                checks.push(self.listings(listings).await?);
            }
            if let Some(board) = self.board {
                checks.push(self.kpis(board).await?);
            }
            Ok(checks)
        }
        .boxed()
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
        let context = self.sql.context(self.view, Vec::new());
        self.sql.collect(context, sql, ParamValues::List(Vec::new())).await
    }

    async fn stream(&self, sql: &str) -> Result<SendableRecordBatchStream, VerifyError> {
        self.sql.stream(self.view, sql).await.map_err(VerifyError::Rows)
    }

    /// What retention has taken, to be added to the events: a retirement that broke off has noted some that are still there.
    fn retired(&self, columns: &str) -> String {
        if self.view.retirements == 0 {
            return String::new();
        }
        format!(
            " UNION ALL SELECT {columns} FROM system.retired AS gone WHERE NOT EXISTS \
             (SELECT 1 FROM lake.events AS held WHERE held.position = gone.position)"
        )
    }

    async fn positions(&self) -> Result<Check, VerifyError> {
        let claim =
            "every position is a lake row, a dead letter or a duplicate, once, was taken by retention, or is a gap";
        let mut check = Check::new("positions", claim);
        let end = self.view.position.as_i64();
        let all = format!(
            "(SELECT position FROM (SELECT position FROM lake.events UNION ALL SELECT position FROM system.dead_letters \
             UNION ALL SELECT position FROM system.duplicates{}) WHERE position <= {end})",
            self.retired("position")
        );
        let gaps = self.gaps(end).await?;
        let mut last = 0;
        for batch in self.rows(&format!("SELECT count(*), max(position) FROM {all}")).await? {
            check.checked = whole(&batch, 0, 0).unwrap_or_default().unsigned_abs();
            last = whole(&batch, 1, 0).unwrap_or_default();
        }
        let steps = format!(
            "SELECT before, position FROM (SELECT coalesce(lag(position) OVER (ORDER BY position), 0) AS before, position \
             FROM {all}) WHERE position <> before + 1 ORDER BY position"
        );
        for batch in self.rows(&steps).await? {
            for row in 0..batch.num_rows() {
                let (Some(before), Some(position)) = (whole(&batch, 0, row), whole(&batch, 1, row)) else { continue };
                if position == before {
                    check.differs(|| format!("position {position} is accounted for twice"));
                }
                nowhere(&mut check, before + 1, position - 1, &gaps);
            }
        }
        nowhere(&mut check, last + 1, end, &gaps);
        check.checked += gaps.iter().map(|(first, last)| (last - first + 1).unsigned_abs()).sum::<u64>();
        if !gaps.is_empty() {
            let both = format!(
                "SELECT held.position FROM {all} AS held JOIN system.gaps AS gap \
                 ON held.position >= gap.first_position AND held.position <= gap.position ORDER BY 1"
            );
            for batch in self.rows(&both).await? {
                for position in (0..batch.num_rows()).filter_map(|row| whole(&batch, 0, row)) {
                    check.differs(|| format!("position {position} is accounted for and noted as a gap"));
                }
            }
        }
        Ok(check)
    }

    /// The first and the last position of each gap, in order.
    async fn gaps(&self, end: i64) -> Result<Vec<(i64, i64)>, VerifyError> {
        let sql = format!("SELECT first_position, position FROM system.gaps WHERE position <= {end} ORDER BY 1");
        let rows = self.rows(&sql).await?;
        let gaps = rows.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        Ok(gaps.filter_map(|(batch, row)| Some((whole(batch, 0, row)?, whole(batch, 1, row)?))).collect())
    }

    async fn event_ids(&self) -> Result<Check, VerifyError> {
        let mut check = Check::new("event ids", "an event id has taken effect once");
        for batch in self.rows("SELECT count(*) FROM lake.events").await? {
            check.checked = whole(&batch, 0, 0).unwrap_or_default().unsigned_abs();
        }
        let repeated = format!(
            "SELECT event_id, min(position), max(position) FROM (SELECT event_id, position FROM lake.events{}) \
             GROUP BY 1 HAVING count(*) > 1 ORDER BY 2",
            self.retired("event_id, position")
        );
        for batch in self.rows(&repeated).await? {
            let ids = batch.column(0).as_string_opt::<i32>();
            for row in 0..batch.num_rows() {
                let id = ids.filter(|ids| ids.is_valid(row)).map_or("", |ids| ids.value(row));
                let (first, last) = (whole(&batch, 1, row), whole(&batch, 2, row));
                check.differs(|| {
                    format!("event {id} is at positions {} and {}", first.unwrap_or_default(), last.unwrap_or_default())
                });
            }
        }
        Ok(check)
    }

    async fn seen(&self, seen: &SeenEvents) -> Result<Check, VerifyError> {
        let mut check = Check::new("seen events", SEEN);
        // Between the two, ids are read again from the lake when a system starts.
        let to = seen.position()?.min(self.view.position);
        let of = |table: &str| format!("SELECT event_id, position FROM {table} WHERE position <= {}", to.as_i64());
        let sql = format!("{} UNION ALL {}", of("lake.events"), of("system.retired"));
        let mut rows = self.stream(&sql).await?;
        while let Some(batch) = rows.try_next().await.map_err(VerifyError::Rows)? {
            let ids = batch.column(0).as_string::<i32>();
            let keys: Vec<EventKey> = ids.iter().map(|id| EventKey::of(id.unwrap_or_default())).collect();
            for (row, known) in seen.positions(&keys)?.into_iter().enumerate() {
                check.checked += 1;
                let position = whole(&batch, 1, row).map(Position::from_i64);
                if known != position {
                    let at = |position: Option<Position>| position.map_or("nowhere".to_owned(), |it| it.to_string());
                    check.differs(|| {
                        let id = ids.value(row);
                        format!("event {id} is at position {} and known to be at {}", at(position), at(known))
                    });
                }
            }
        }
        Ok(check)
    }

    /// The check, and whether every table could be read.
    async fn tables(&self) -> (Check, bool) {
        let (mut check, mut all_are_read) = (Check::new("tables", TABLES), true);
        for table in &self.view.tables {
            let name = &table.spec.name;
            check.checked += 1;
            match self.sql.audit(table).await {
                Err(error) => {
                    all_are_read = false;
                    check.differs(|| format!("table {name} cannot be read: {}", in_full(&error)));
                }
                Ok(audit) => {
                    check.checked += audit.files;
                    let (last, says) = (audit.last.unwrap_or_default(), table.committed_position);
                    if last > says {
                        check.differs(|| {
                            format!("table {name} says it is complete to position {says} and holds position {last}")
                        });
                    }
                    for difference in audit.differences {
                        check.differs(|| difference);
                    }
                }
            }
        }
        (check, all_are_read)
    }

    async fn listings(&self, listings: &ListingSnapshot) -> Result<Check, VerifyError> {
        let claim = "a listing in the index is what the lake's events fold to";
        let mut check = Check::new("listings", claim);
        let to = listings.position;
        let folder = tempfile::tempdir()?;
        let mut anew = Listings::open(folder.path(), Arc::clone(self.catalogue))?;
        // Rows come in any order.
        for (index, context) in
            self.catalogue.indexed().filter(|(_, context)| CONTEXTS.contains(&context.name.as_str()))
        {
            let mut rows = self.sql.rows_between(self.view, index, Position::START, to).await?;
            while let Some(batch) = rows.try_next().await.map_err(VerifyError::Rows)? {
                anew.fold(context, &batch)?;
                if anew.pending() > FOLDED_AT_ONCE {
                    // As reflecting nothing yet: a row that the index reflects already would be passed over.
                    anew.commit(Position::START, None)?;
                }
            }
        }
        let anew = anew.commit(to, None)?;
        let (kept, folded) = (listings.keys().map_err(ListingsError::from)?, anew.keys().map_err(ListingsError::from)?);
        for key in kept.union(&folded) {
            check.checked += 1;
            match (kept.contains(key), folded.contains(key)) {
                (true, false) => check.differs(|| format!("{key} is in the index and no event is about it")),
                (false, true) => check.differs(|| format!("{key} is not in the index")),
                _ => {
                    let of = |snapshot: &ListingSnapshot| -> Result<_, search_index::IndexError> {
                        let listing = key.strip_prefix("listing/").map(|id| snapshot.listing(id)).transpose()?;
                        Ok((snapshot.state(key)?, listing.flatten()))
                    };
                    let ((state, listing), (folded_state, folded_listing)) =
                        (of(listings).map_err(ListingsError::from)?, of(&anew).map_err(ListingsError::from)?);
                    if listing != folded_listing {
                        check.differs(|| format!("{key} is {} and folds to {}", told(&listing), told(&folded_listing)));
                    } else if state != folded_state {
                        check.differs(|| format!("{key} holds other facts than its events fold to"));
                    }
                }
            }
        }
        Ok(check)
    }

    async fn kpis(&self, board: &KpiCache) -> Result<Check, VerifyError> {
        let mut check = Check::new("kpis", "a bucket of the board is what the KPI computes over all of time");
        for (key, kept) in board.kept() {
            let Some(kpi) = self.definitions.iter().find(|kpi| kpi.name == key.kpi) else { continue };
            let whole = recomputed(self.sql, &board.view, kpi, key).await?;
            let rows: std::collections::BTreeSet<_> = kept.keys().chain(whole.keys()).collect();
            for row in rows {
                check.checked += 1;
                let (ours, theirs) = (kept.get(row).map(|row| &row.values), whole.get(row));
                if ours != theirs {
                    let at = schemas::field_type::format_timestamp(row.bucket);
                    check.differs(|| {
                        format!("{} at {at} is {} and computes to {}", key.kpi, told(&ours), told(&theirs))
                    });
                }
            }
        }
        Ok(check)
    }
}

/// Tell of the positions between two, both included, that are in no gap.
fn nowhere(check: &mut Check, first: i64, last: i64, gaps: &[(i64, i64)]) {
    let mut next = first;
    let gaps = &gaps[gaps.partition_point(|gap| gap.1 < first)..];
    let ends = gaps.iter().copied().take_while(|gap| gap.0 <= last).chain([(last + 1, last + 1)]);
    for (from, to) in ends {
        match from - next {
            ..=0 => {}
            1 => check.differs(|| format!("position {next} is nowhere")),
            _ => check.differs(|| format!("positions {next} to {} are nowhere", from - 1)),
        }
        next = next.max(to + 1);
    }
}

fn whole(batch: &RecordBatch, column: usize, row: usize) -> Option<i64> {
    let values = batch.column(column).as_primitive_opt::<Int64Type>()?;
    values.is_valid(row).then(|| values.value(row))
}

/// An error and what caused it.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn told(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
