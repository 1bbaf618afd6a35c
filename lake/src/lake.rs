//! All tables, the tail, and when it is flushed.
//!
//! One task owns the [`Lake`]. It appends decoded rows, which makes the next [`LakeView`], and now and then takes
//! a [`Flush`] away to run beside it. The duplicates table is committed last, also when it has no rows: its
//! position is the one that *every* table has reached, from which a restart reads on.

use std::{collections::HashSet, io, path::Path, sync::Arc, time::Duration};

use chrono::Utc;
use datafusion::{
    arrow::{
        array::{AsArray, BooleanArray, RecordBatch},
        compute::{concat_batches, filter_record_batch},
        datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType},
        error::ArrowError,
    },
    prelude::{SessionContext, col, lit},
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use schemas::{Catalogue, EventKey, Position};
use tokio::time::Instant;
use url::Url;

use crate::{
    commit_failures::CommitFailures,
    commits::{Flush, FlushTable, Flushed},
    durable_store::create_durable_folder,
    error::LakeError,
    ledger::{Closing, GapRow, closings_batch, gaps_batch},
    plain_texts::plain,
    session,
    table::{Access, Committed, StoredTable},
    table_spec::TableSpec,
    view::{LakeView, TableView},
};

/// When the tail becomes files.
#[derive(Clone, Copy, Debug)]
pub struct LakeConfig {
    /// Flush when the tail has this many rows.
    pub flush_rows: usize,
    /// Flush when the tail has this many bytes: rows may be large.
    pub flush_bytes: usize,
    /// Flush when the tail's oldest row is this old.
    pub flush_after: Duration,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self { flush_rows: 100_000, flush_bytes: 64 << 20, flush_after: Duration::from_secs(30) }
    }
}

/// How many flushes' worth of rows the tail may hold before appending must wait.
const MAX_TAIL_FLUSHES: usize = 5;

/// Rows of one table that the lake has not committed.
#[derive(Debug, Default)]
struct Tail {
    /// Rows a running flush is writing.
    flushing: Vec<RecordBatch>,
    /// Rows that came after it began.
    live: Vec<RecordBatch>,
}

impl Tail {
    /// Add rows, keeping the number of batches logarithmic in the number of rows.
    fn push(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        self.live.push(batch);
        while let [.., earlier, later] = self.live.as_slice()
            && earlier.num_rows() <= 2 * later.num_rows()
        {
            let merged = concat_batches(&earlier.schema(), [earlier, later])?;
            self.live.truncate(self.live.len() - 2);
            self.live.push(merged);
        }
        Ok(())
    }

    fn batches(&self) -> Vec<RecordBatch> {
        self.flushing.iter().chain(&self.live).cloned().collect()
    }
}

/// A table's place in the lake.
struct Slot {
    spec: Arc<TableSpec>,
    /// Away while a flush or a merged file is committed to it.
    stored: Option<StoredTable>,
    committed: Committed,
    committed_position: Position,
    /// The table's own columns, in their order.
    columns: SchemaRef,
    tail: Tail,
}

impl Slot {
    fn new(stored: StoredTable, committed: Committed) -> Self {
        Self {
            spec: Arc::clone(&stored.spec),
            committed_position: stored.position,
            columns: stored.columns.clone(),
            stored: Some(stored),
            committed,
            tail: Tail::default(),
        }
    }
}

/// The owner of the lake's state.
pub struct Lake {
    catalogue: Arc<Catalogue>,
    config: LakeConfig,
    session: SessionContext,
    slots: Vec<Slot>,
    position: Position,
    event_time: Option<i64>,
    /// When the last event came.
    ingested_at: Option<i64>,
    /// Rows appended since the last flush began, and when the first of them came.
    waiting_rows: usize,
    waiting_bytes: usize,
    waiting_since: Option<Instant>,
    flushing: bool,
    /// A compaction is being committed.
    applying: bool,
    /// The identity of the log the positions are of.
    log: Option<i64>,
    closings: StoredTable,
    committed_closings: Committed,
    /// What retention has taken. Its position grows each time it does.
    retired: Slot,
    /// The KPIs' buckets that lost what they were computed from.
    history: Slot,
    /// The dead letters that are closed.
    closed: HashSet<Position>,
    failures: CommitFailures,
}

impl Lake {
    /// Open every table under `root`, creating what is missing.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(root: &Url, catalogue: Arc<Catalogue>, config: LakeConfig) -> BoxFuture<'_, Result<Self, LakeError>> {
        async move { Self::open_as(Access::Own, root, catalogue, config).await }.boxed()
    }

    /// What a lake holds that nobody has open. Nothing is written.
    ///
    /// # Errors
    /// When the store cannot be read, or the lake lacks what the catalogue describes.
    pub fn look(root: &Url, catalogue: Arc<Catalogue>) -> BoxFuture<'_, Result<LakeView, LakeError>> {
        async move {
            let lake = Self::open_as(Access::Look, root, catalogue, LakeConfig::default()).await?;
            Ok(lake.view())
        }
        .boxed()
    }

    async fn open_as(
        access: Access,
        root: &Url,
        catalogue: Arc<Catalogue>,
        config: LakeConfig,
    ) -> Result<Self, LakeError> {
        let session = session::base_context(None).map_err(LakeError::Read)?;
        refuse_unknown_tables(root, &catalogue)?;
        let mut slots = Vec::new();
        for spec in specs(&catalogue) {
            let (stored, committed) = open_table(root, spec, access).await?;
            slots.push(Slot::new(stored, committed));
        }
        let position = slots.last().map_or(Position::START, |closing| closing.committed_position);
        let log = match slots.last().and_then(|closing| closing.stored.as_ref()) {
            Some(closing) => closing
                .recorded_log()
                .await
                .map_err(|source| LakeError::Open { table: closing.spec.name.clone(), source: source.into() })?,
            None => None,
        };
        let (closings, committed_closings) = open_table(root, TableSpec::closings(), access).await?;
        let (retired, committed_retired) = open_table(root, TableSpec::retired(), access).await?;
        let (history, committed_history) = open_table(root, TableSpec::kpi_history(), access).await?;
        let (waiting_rows, waiting_since) = (0, None);
        let mut lake = Self {
            catalogue,
            config,
            session,
            slots,
            position,
            event_time: None,
            ingested_at: None,
            waiting_rows,
            waiting_bytes: 0,
            waiting_since,
            flushing: false,
            applying: false,
            log,
            closings,
            committed_closings,
            retired: Slot::new(retired, committed_retired),
            history: Slot::new(history, committed_history),
            closed: HashSet::new(),
            failures: CommitFailures::default(),
        };
        lake.closed = lake.closed_positions().await?;
        [lake.event_time, lake.ingested_at] = lake.latest_times().await?;
        Ok(lake)
    }

    /// The position every table has reached; appending continues after it.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The position that every table has committed: a restart reads on from there.
    #[must_use]
    pub fn flushed_position(&self) -> Position {
        self.slots.last().map_or(Position::START, |closing| closing.committed_position)
    }

    /// The highest position any table has committed: after a crash between two commits some are ahead of the others.
    #[must_use]
    pub fn highest_position(&self) -> Position {
        self.slots.iter().map(|slot| slot.committed_position).max().unwrap_or(self.position).max(self.position)
    }

    /// Whether a view taken now shows one position: a crash between two tables' commits leaves some of them ahead,
    /// until what they already have has been read again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.slots.iter().all(|slot| slot.committed_position <= self.position)
    }

    /// The tables whose commits are failing.
    #[must_use]
    pub fn commit_failures(&self) -> CommitFailures {
        self.failures.clone()
    }

    /// The identity of the log the positions are of; `None` before the first flush.
    #[must_use]
    pub const fn log(&self) -> Option<i64> {
        self.log
    }

    /// Say which log the positions are of: what is committed from now on records it.
    pub const fn set_log(&mut self, log: i64) {
        self.log = Some(log);
    }

    async fn closed_positions(&self) -> Result<HashSet<Position>, LakeError> {
        let frame = self.session.read_table(Arc::clone(&self.committed_closings.rows)).map_err(LakeError::Read)?;
        let rows = frame.select_columns(&["position"]).map_err(LakeError::Read)?;
        let batches = rows.collect().await.map_err(LakeError::Read)?;
        let positions = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
        Ok(positions.map(|position| Position::from_i64(*position)).collect())
    }

    /// Record what was decided about dead letters, at once. Those that are closed already stay as they are; how many
    /// were not.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn close<'a>(&'a mut self, closings: &'a [Closing]) -> BoxFuture<'a, Result<usize, LakeError>> {
        async move {
            let mut own = HashSet::new();
            let new = closings.iter().filter(|it| !self.closed.contains(&it.position) && own.insert(it.position));
            let new: Vec<Closing> = new.cloned().collect();
            if new.is_empty() {
                return Ok(0);
            }
            let spec = Arc::clone(&self.closings.spec);
            let table = || spec.name.clone();
            let batch = closings_batch(&new)?;
            if let Err(source) = self.closings.commit(&[batch], self.position, None).await {
                // It may have landed although we were not told.
                self.closings.reload().await.map_err(|source| LakeError::Reload { table: table(), source })?;
                self.show_closings().await?;
                if !new.iter().all(|closing| self.closed.contains(&closing.position)) {
                    return Err(LakeError::Write { table: table(), source });
                }
                return Ok(new.len());
            }
            self.show_closings().await?;
            Ok(new.len())
        }
        .boxed()
    }

    async fn show_closings(&mut self) -> Result<(), LakeError> {
        let committed = self.closings.committed();
        let failed = |source| LakeError::Reload { table: self.closings.spec.name.clone(), source };
        self.committed_closings = committed.map_err(failed)?;
        self.closed = self.closed_positions().await?;
        Ok(())
    }

    /// The id and position of every committed event after a position, also of those that retention has taken.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn events_after(&self, after: Position) -> BoxStream<'_, Result<Vec<(EventKey, Position)>, LakeError>> {
        let tables = self.contexts().iter().map(|slot| &slot.committed).chain([&self.retired.committed]);
        let batches = stream::iter(tables).then(move |table| self.ids_after(table, after)).try_flatten();
        batches.boxed()
    }

    /// The id and position of a table's rows after a position.
    async fn ids_after(
        &self,
        table: &Committed,
        after: Position,
    ) -> Result<BoxStream<'static, Result<Vec<(EventKey, Position)>, LakeError>>, LakeError> {
        let rows = async {
            let frame = self.session.read_table(Arc::clone(&table.rows))?;
            let frame = frame.filter(col("position").gt(lit(after.as_i64())))?;
            frame.select_columns(&["event_id", "position"])?.execute_stream().await
        };
        let rows = rows.await.map(plain).map_err(LakeError::Read)?;
        let pairs = |batch: RecordBatch| {
            let (ids, positions) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
            let pairs = ids.iter().zip(positions);
            pairs.filter_map(|(id, position)| Some((EventKey::of(id?), Position::from_i64(position?)))).collect()
        };
        Ok(rows.map(move |batch| batch.map(pairs).map_err(LakeError::Read)).boxed())
    }

    /// The latest times at which a committed event happened, and came.
    async fn latest_times(&self) -> Result<[Option<i64>; 2], LakeError> {
        use datafusion::functions_aggregate::expr_fn::max;
        let mut latest = [None; 2];
        for slot in self.contexts() {
            let frame = self.session.read_table(Arc::clone(&slot.committed.rows)).map_err(LakeError::Read)?;
            let times = vec![max(col("event_time")), max(col("ingested_at"))];
            let frame = frame.aggregate(vec![], times).map_err(LakeError::Read)?;
            for batch in frame.collect().await.map_err(LakeError::Read)? {
                for (latest, times) in latest.iter_mut().zip(batch.columns()) {
                    *latest = (*latest).max(times.as_primitive::<TimestampMicrosecondType>().iter().flatten().max());
                }
            }
        }
        Ok(latest)
    }

    fn contexts(&self) -> &[Slot] {
        &self.slots[..self.catalogue.contexts().len()]
    }

    /// Add the rows of `(position, to]`. Tables are numbered as in [`LakeView::tables`].
    ///
    /// Rows a table already holds, which a restart reads again, are passed over.
    ///
    /// # Errors
    /// When a batch has not its table's columns.
    pub fn append(
        &mut self,
        tables: impl IntoIterator<Item = (usize, RecordBatch)>,
        to: Position,
        event_time: Option<i64>,
    ) -> Result<(), LakeError> {
        for (index, batch) in tables {
            if let Some(times) = batch.column_by_name("ingested_at") {
                let times = times.as_primitive::<TimestampMicrosecondType>();
                self.ingested_at = self.ingested_at.max(times.iter().flatten().max());
            }
            let slot = &mut self.slots[index];
            let batch = rows_after(&batch, slot.committed_position)?;
            if batch.num_rows() > 0 {
                self.waiting_rows += batch.num_rows();
                self.waiting_bytes += batch.get_array_memory_size();
                slot.tail.push(batch)?;
            }
        }
        self.position = self.position.max(to);
        self.event_time = self.event_time.max(event_time);
        if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Go on after positions that the log no longer has.
    ///
    /// # Errors
    /// Never: the row is built to its table's columns.
    pub fn skip_to(&mut self, position: Position) -> Result<(), LakeError> {
        let ingested_at = self.ingested_at.unwrap_or_else(|| Utc::now().timestamp_micros());
        let gap = GapRow { first: self.position.next(), last: position, ingested_at };
        let gaps = self.catalogue.contexts().len() + 1;
        self.append([(gaps, gaps_batch(&[gap])?)], position, None)
    }

    /// The lake as it stands.
    #[must_use]
    pub fn view(&self) -> LakeView {
        let tables = self.slots.iter().map(|slot| TableView {
            spec: Arc::clone(&slot.spec),
            committed_position: slot.committed_position,
            committed: slot.committed.clone(),
            tail: slot.tail.batches(),
        });
        LakeView {
            catalogue: Arc::clone(&self.catalogue),
            position: self.position,
            event_time: self.event_time,
            until: None,
            tables: tables.collect(),
            closings: Arc::clone(&self.committed_closings.rows),
            retired: Arc::clone(&self.retired.committed.rows),
            retirements: self.retired.committed_position.get(),
            kpi_history: Arc::clone(&self.history.committed.rows),
            frozen: self.history.committed_position.get(),
        }
    }

    /// Whether appending must wait for the running flush: memory is bounded.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        let (rows, bytes) = (self.config.flush_rows, self.config.flush_bytes);
        self.is_writing() && (self.waiting_rows >= MAX_TAIL_FLUSHES * rows || self.waiting_bytes >= 2 * bytes)
    }

    /// When the tail has to be flushed for its age.
    #[must_use]
    pub fn flush_due(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| !self.is_writing()).map(|since| since + self.config.flush_after)
    }

    /// Whether the tail is large or old enough to be flushed.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        let old = self.flush_due().is_some_and(|due| due <= Instant::now());
        let large = self.waiting_rows >= self.config.flush_rows || self.waiting_bytes >= self.config.flush_bytes;
        !self.flushing && !self.applying && (old || large)
    }

    /// Whether tables are away, being written.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        self.flushing || self.applying
    }

    /// Whether a merged file is being committed.
    #[must_use]
    pub const fn is_applying(&self) -> bool {
        self.applying
    }

    /// A table of the log's, or after them what retention has taken, and what KPIs said of that.
    fn slot_mut(&mut self, index: usize) -> &mut Slot {
        let events = self.slots.len();
        match index {
            _ if index == events => &mut self.retired,
            _ if index == events + 1 => &mut self.history,
            _ => &mut self.slots[index],
        }
    }

    #[must_use]
    pub const fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Take away what has to be written, to be run beside the lake. `None` when nothing new is known, or while
    /// another flush runs.
    pub fn begin_flush(&mut self) -> Option<Flush> {
        if self.is_writing() || self.waiting_since.is_none() {
            return None;
        }
        let closing = self.slots.len() - 1;
        let mut tables = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.tail.live.is_empty() && index != closing {
                continue;
            }
            let Some(stored) = slot.stored.take() else { continue };
            slot.tail.flushing = std::mem::take(&mut slot.tail.live);
            let (rows, failures) = (slot.tail.flushing.clone(), self.failures.clone());
            tables.push(FlushTable { index, stored, rows, failures });
        }
        self.flushing = true;
        self.waiting_rows = 0;
        self.waiting_bytes = 0;
        self.waiting_since = None;
        Some(Flush { tables, position: self.position, log: self.log })
    }

    /// Put a finished flush back: its rows are now read from the files.
    pub fn finish_flush(&mut self, flushed: Flushed) {
        for (index, stored, committed) in flushed.tables {
            let slot = &mut self.slots[index];
            slot.committed_position = stored.position;
            slot.committed = committed;
            slot.stored = Some(stored);
            slot.tail.flushing = Vec::new();
        }
        self.flushing = false;
    }
}

/// Where a lake in a folder is; the folder is made when it is not there.
///
/// # Errors
/// When it cannot be.
pub fn folder_url(folder: &Path) -> io::Result<Url> {
    create_durable_folder(folder)?;
    Url::from_directory_path(folder.canonicalize()?).map_err(|()| io::ErrorKind::InvalidFilename.into())
}

/// Every table's spec: one per context in the catalogue's order, then dead letters, then gaps, then duplicates.
fn specs(catalogue: &Catalogue) -> Vec<TableSpec> {
    let contexts = catalogue.contexts().iter().map(TableSpec::of_context);
    contexts.chain([TableSpec::dead_letters(), TableSpec::gaps(), TableSpec::duplicates()]).collect()
}

/// The rows after a position.
fn rows_after(batch: &RecordBatch, position: Position) -> Result<RecordBatch, ArrowError> {
    let positions = batch.column(0).as_primitive::<Int64Type>();
    if positions.values().iter().all(|&row| row > position.as_i64()) {
        return Ok(batch.clone());
    }
    let after: BooleanArray = positions.values().iter().map(|&row| Some(row > position.as_i64())).collect();
    filter_record_batch(batch, &after)
}

async fn open_table(root: &Url, spec: TableSpec, access: Access) -> Result<(StoredTable, Committed), LakeError> {
    let table = spec.name.clone();
    let opened = async {
        let mut stored = StoredTable::open(root, spec, access).await?;
        let committed = stored.committed()?;
        Ok((stored, committed))
    };
    opened.await.map_err(|source| LakeError::Open { table, source })
}

/// A table without its catalogue would hide its events, and forget that their ids have taken effect.
fn refuse_unknown_tables(root: &Url, catalogue: &Catalogue) -> Result<(), LakeError> {
    let Some(folders) = root.to_file_path().ok().and_then(|root| std::fs::read_dir(root).ok()) else { return Ok(()) };
    let known: HashSet<String> = specs(catalogue)
        .into_iter()
        .chain([TableSpec::closings(), TableSpec::retired(), TableSpec::kpi_history()])
        .map(|spec| spec.name)
        .collect();
    for folder in folders.flatten().filter(|folder| folder.path().join("_delta_log").is_dir()) {
        let table = folder.file_name().to_string_lossy().into_owned();
        if !known.contains(&table) {
            return Err(LakeError::Unknown { table });
        }
    }
    Ok(())
}

pub(crate) mod maintenance;
#[cfg(test)]
mod tests;
