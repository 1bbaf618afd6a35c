//! One Delta table.
//!
//! Rows and progress are one atomic write: each commit carries an application transaction whose version is the
//! position up to which the table is complete.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use chrono::Utc;
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::TableProvider,
    error::DataFusionError,
};
use deltalake::{
    DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty,
    kernel::{
        Action, EagerSnapshot, StructType, Transaction,
        engine::arrow_conversion::{TryIntoArrow, TryIntoKernel},
        transaction::{CommitBuilder, CommitProperties},
    },
    protocol::{DeltaOperation, SaveMode},
    writer::{DeltaWriter, RecordBatchWriter},
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use schemas::Position;
use url::Url;

use crate::{
    committed_rows::{CommittedRows, KnownFiles},
    durable_store::{self, DurableStore, create_durable_folder},
    table_spec::{PARTITION, TableSpec},
};

/// The application whose transactions record a table's position.
const APP: &str = "forecourt";
/// The application whose transactions record which log the positions are of.
const LOG_APP: &str = "forecourt.log";

/// How long the table's log and the files it no longer has are kept, for readers of an older version. What was at an
/// earlier position is asked of the newest.
const KEPT_FOR: &str = "interval 1 day";
pub const KEEP_FOR: Duration = Duration::from_secs(86_400);
/// Nothing is older.
const LONGEST: Duration = Duration::from_secs(50 * 365 * 86_400);

/// A table and the version we know.
pub(crate) struct StoredTable {
    pub(crate) spec: Arc<TableSpec>,
    /// The table's own columns, in their order.
    pub(crate) columns: SchemaRef,
    table: DeltaTable,
    read: ReadVersions,
    /// What is known of the files of the version.
    files: KnownFiles,
    /// Every row up to here is in the table.
    pub(crate) position: Position,
}

/// The versions of a table that somebody in this process may be reading.
#[derive(Clone, Debug, Default)]
struct ReadVersions(Arc<Mutex<Vec<Weak<EagerSnapshot>>>>);

impl ReadVersions {
    fn add(&self, version: &Arc<EagerSnapshot>) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|version| version.strong_count() > 0);
        versions.push(Arc::downgrade(version));
    }

    /// Those older than this one.
    fn before(&self, latest: &EagerSnapshot) -> Vec<Arc<EagerSnapshot>> {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = versions.iter().filter_map(Weak::upgrade);
        read.filter(|version| version.version() < latest.version()).collect()
    }
}

impl StoredTable {
    /// Open the table under `root`, creating it when it is not there, and adding columns it does not have yet.
    pub(crate) async fn open(root: &Url, spec: TableSpec, access: Access) -> Result<Self, OpenError> {
        let location = root.join(&format!("{}/", spec.name)).map_err(OpenError::Location)?;
        if access == Access::Look && location.to_file_path().is_ok_and(|folder| !folder.join("_delta_log").is_dir()) {
            return Err(OpenError::Missing);
        }
        if let Ok(folder) = location.to_file_path() {
            create_durable_folder(&folder).map_err(DeltaTableError::from)?;
            if access == Access::Own {
                durable_store::remove_staged(&folder).map_err(DeltaTableError::from)?;
            }
        }
        let mut table = load(location).await?;
        if table.version().is_none() && access == Access::Look {
            return Err(OpenError::Missing);
        }
        if table.version().is_none() {
            let columns: StructType = (&spec.stored_schema()).try_into_kernel().map_err(DeltaTableError::from)?;
            table = table
                .create()
                .with_table_name(&spec.name)
                .with_columns(columns.fields().cloned())
                .with_partition_columns([PARTITION])
                .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(spec.statistics))
                .with_configuration_property(TableProperty::LogRetentionDuration, Some(KEPT_FOR))
                .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some(KEPT_FOR))
                .await?;
        }
        // Tables used to say that nothing is ever taken out of them. Retention does.
        let is_append_only = table.snapshot()?.metadata().configuration().get("delta.appendOnly");
        if access == Access::Own && is_append_only.is_some_and(|value| value == "true") {
            let properties = HashMap::from([("delta.appendOnly".to_owned(), "false".to_owned())]);
            table = table.set_tbl_properties().with_properties(properties).await?;
        }
        let missing = missing_columns(&spec, &stored_columns(&table)?)?;
        if !missing.is_empty() && access == Access::Look {
            return Err(OpenError::Missing);
        }
        if !missing.is_empty() {
            tracing::info!(table = spec.name, columns = missing.len(), "the catalogue has columns the table has not");
            let added: StructType = (&Schema::new(missing)).try_into_kernel().map_err(DeltaTableError::from)?;
            let fields: Vec<_> = added.fields().cloned().collect();
            table = table.add_columns().with_fields(fields).await?;
        }
        let columns = stored_columns(&table)?;
        let mut stored = Self {
            spec: Arc::new(spec),
            columns,
            table,
            read: ReadVersions::default(),
            files: KnownFiles::new(),
            position: Position::START,
        };
        stored.position = stored.recorded_position().await?;
        Ok(stored)
    }

    /// Which log the positions are of; `None` when the table was written before that was recorded.
    pub(crate) async fn recorded_log(&self) -> Result<Option<i64>, DeltaTableError> {
        let log_store = self.table.log_store();
        self.table.snapshot()?.transaction_version(log_store.as_ref(), LOG_APP).await
    }

    async fn recorded_position(&self) -> Result<Position, DeltaTableError> {
        let log_store = self.table.log_store();
        let version = self.table.snapshot()?.transaction_version(log_store.as_ref(), APP).await?;
        Ok(version.map_or(Position::START, Position::from_i64))
    }

    /// Read the table's newest version, and say which position it holds.
    pub(crate) async fn reload(&mut self) -> Result<Position, DeltaTableError> {
        self.table.update_state().await?;
        self.position = self.recorded_position().await?;
        Ok(self.position)
    }

    /// Commit these rows and the position they bring the table to. Nothing is visible unless everything is.
    ///
    /// `log` is the identity of the log the position is of.
    pub(crate) async fn commit(
        &mut self,
        batches: &[RecordBatch],
        position: Position,
        log: Option<i64>,
    ) -> Result<(), DeltaTableError> {
        let mut progress = CommitProperties::default()
            // One process owns a lake. A version that is not ours means there are two: fail, do not merge.
            .with_max_retries(0)
            .with_application_transaction(Transaction::new(APP, position.as_i64()));
        if let Some(log) = log {
            progress = progress.with_application_transaction(Transaction::new(LOG_APP, log));
        }
        let mut added = Vec::new();
        if !batches.is_empty() {
            let writer = RecordBatchWriter::for_table(&self.table)?;
            let mut writer = writer.with_writer_properties(writer_properties(Effort::Quick));
            writer.write(self.spec.arrange(batches, &self.columns)?).await?;
            added = writer.flush().await?;
        }
        let actions = added.into_iter().map(Action::Add).collect();
        let partition_by = Some(vec![PARTITION.to_owned()]);
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        self.commit_actions(actions, operation, progress).await?;
        self.position = position;
        Ok(())
    }

    /// Commit, and have the commit on the disk.
    async fn commit_actions(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
        properties: CommitProperties,
    ) -> Result<(), DeltaTableError> {
        let commit = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(self.table.snapshot()?), self.table.log_store(), operation)
            .await?;
        self.table.state = Some(commit.snapshot());
        Ok(())
    }

    /// Have the version we know on the disk: its commit may have failed at the last step.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let Ok(folder) = self.table.table_url().to_file_path() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || durable_store::sync(&folder.join("_delta_log"))).await;
        synced.map_err(io::Error::other)?
    }

    /// The committed rows as of now. They stay readable whatever is committed later.
    pub(crate) fn committed(&mut self) -> Result<Committed, DeltaTableError> {
        let version = Arc::new(self.table.snapshot()?.snapshot().clone());
        let rows = CommittedRows::new(&self.table, &self.columns, PARTITION, &version, &mut self.files)?;
        self.read.add(&version);
        Ok(Committed { rows: Arc::new(rows), table: self.table.clone(), version, read: self.read.clone() })
    }

    /// The version we know.
    pub(crate) fn version(&self) -> Option<u64> {
        self.table.version()
    }

    /// Commit files that were written anew.
    pub(crate) async fn apply(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<(), DeltaTableError> {
        self.commit_actions(actions, operation, CommitProperties::default().with_max_retries(0)).await
    }
}

/// The table at a location; without a version, where there is none yet.
async fn load(location: Url) -> Result<DeltaTable, DeltaTableError> {
    let mut builder = DeltaTableBuilder::from_url(location.clone())?;
    if location.scheme() == "file" {
        builder = builder.with_storage_backend(Arc::new(DurableStore::default()), location);
    }
    let mut table = builder.build()?;
    match table.load().await {
        Ok(()) | Err(DeltaTableError::NotATable(_)) => Ok(table),
        Err(error) => Err(error),
    }
}

/// A file of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartFile {
    pub(crate) path: String,
    pub(crate) bytes: i64,
    /// Milliseconds since 1970.
    pub(crate) written_at: i64,
}

/// A version of a table.
#[derive(Clone)]
pub(crate) struct Committed {
    pub(crate) rows: Arc<dyn TableProvider>,
    pub(crate) table: DeltaTable,
    version: Arc<EagerSnapshot>,
    read: ReadVersions,
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed").field("version", &self.version.version()).finish_non_exhaustive()
    }
}

impl Committed {
    /// The table's folder in the lake.
    pub(crate) fn name(&self) -> String {
        let path = self.table.table_url().path().trim_end_matches('/');
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    pub(crate) const fn version(&self) -> &Arc<EagerSnapshot> {
        &self.version
    }

    /// The rows for maintenance, as they are stored, with the partition and the path of their file
    /// ([`FILE_COLUMN`](crate::committed_rows::FILE_COLUMN)). With `paths`, those of these files alone.
    pub(crate) fn rows_with_files(
        &self,
        paths: Option<&HashSet<String>>,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let columns = stored_columns(&self.table).map_err(external)?;
        let rows = CommittedRows::with_files(&self.table, &columns, PARTITION, &self.version, paths);
        Ok(Arc::new(rows.map_err(external)?))
    }

    /// What takes files out of the table. `data_change` says whether their rows go with them.
    pub(crate) fn removals(&self, is_removed: impl Fn(&str) -> bool, data_change: bool) -> Vec<Action> {
        let known = self.version.log_data();
        let removed = known.iter().filter(|file| is_removed(&file.path()));
        removed.map(|file| Action::Remove(file.remove_action(data_change))).collect()
    }

    /// The files by partition.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<PartFile>> {
        let mut partitions: BTreeMap<String, Vec<PartFile>> = BTreeMap::new();
        for file in self.version.log_data().iter() {
            let path = file.path().into_owned();
            let partition = path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned());
            let part = PartFile { path, bytes: file.size(), written_at: file.modification_time() };
            partitions.entry(partition).or_default().push(part);
        }
        partitions
    }

    /// Whether somebody in this process reads an older version.
    pub(crate) fn is_read_before(&self) -> bool {
        !self.read.before(&self.version).is_empty()
    }

    /// Files that can go: those that a version took out longer than `keep` ago and that nobody in this process reads. Those that no version knows may be on their
    /// way into the table, whatever the clocks say: they can go when they are old, and were found `before` as well.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub(crate) async fn deletable(
        &self,
        keep: Duration,
        before: &HashSet<String>,
    ) -> Result<Deletable, DeltaTableError> {
        let keep = keep.min(LONGEST);
        let (until, stray_until) = ((Utc::now() - keep).timestamp_millis(), Utc::now() - KEEP_FOR);
        let read = self.read.before(&self.version);
        let versions = read.iter().chain([&self.version]);
        let live: HashSet<String> =
            versions.flat_map(|version| version.log_data().into_iter().map(|file| file.path().into_owned())).collect();
        drop(read);
        let log_store = self.table.log_store();
        let mut taken_out = HashMap::new();
        let mut removed = self.table.snapshot()?.all_tombstones(log_store.as_ref());
        while let Some(tombstone) = removed.try_next().await? {
            taken_out.insert(tombstone.path().into_owned(), tombstone.deletion_timestamp());
        }
        drop(removed);
        let root = self.table.table_url().to_string();
        let store = self.table.object_store();
        let mut listed = store.list(None);
        let mut deletable = Deletable::default();
        while let Some(file) = listed.try_next().await? {
            let path = file.location.to_string();
            if !path.ends_with(".parquet") || path.starts_with("_delta_log") || live.contains(&path) {
                continue;
            }
            let named = format!("{root}{path}");
            let can_go = match taken_out.get(&path) {
                Some(at) => at.is_some_and(|at| at <= until),
                None if file.last_modified >= stray_until => false,
                None if before.contains(&named) => true,
                None => {
                    deletable.strays.insert(named);
                    false
                }
            };
            if can_go {
                deletable.bytes += file.size;
                deletable.files.push(file.location);
            }
        }
        Ok(deletable)
    }

    /// Delete what can go.
    ///
    /// # Errors
    /// When the store cannot be listed or does not delete them.
    pub(crate) async fn vacuum(&self, keep: Duration, before: &HashSet<String>) -> Result<Deletable, DeltaTableError> {
        let deletable = self.deletable(keep, before).await?;
        let store = self.table.object_store();
        for path in &deletable.files {
            store.delete(path).await?;
        }
        if !deletable.files.is_empty() {
            let files = deletable.files.len();
            tracing::info!(files, table = self.name(), "deleted files that no version has any more");
        }
        Ok(deletable)
    }
}

/// Files of a table that can go, and those that can if they are found again.
#[derive(Debug, Default)]
pub(crate) struct Deletable {
    pub(crate) files: Vec<object_store::path::Path>,
    pub(crate) bytes: u64,
    pub(crate) strays: HashSet<String>,
}

/// What may be done to a table that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is made, and given the columns it lacks.
    Own,
    /// Nothing is written.
    Look,
}

/// What keeps a table from being opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("its location is no address")]
    Location(#[source] url::ParseError),
    #[error("column {column} holds {stored} and the catalogue says {wanted}; give the field another name")]
    Retyped { column: String, stored: DataType, wanted: DataType },
    #[error(
        "the lake was written with another catalogue: start forecourt on it once with this one, or name the one it has"
    )]
    Missing,
    #[error(transparent)]
    Delta(#[from] DeltaTableError),
}

fn external(error: DeltaTableError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn stored_columns(table: &DeltaTable) -> Result<SchemaRef, DeltaTableError> {
    let schema: Schema = table.snapshot()?.schema().as_ref().try_into_arrow()?;
    Ok(Arc::new(schema))
}

/// The columns of a spec that the table has not yet.
fn missing_columns(spec: &TableSpec, stored: &SchemaRef) -> Result<Vec<Arc<Field>>, OpenError> {
    let mut missing = Vec::new();
    for field in spec.schema.fields() {
        match stored.field_with_name(field.name()) {
            Err(_) => missing.push(Arc::new(field.as_ref().clone().with_nullable(true))),
            Ok(known) if same_type(known.data_type(), field.data_type()) => {}
            Ok(known) => {
                return Err(OpenError::Retyped {
                    column: field.name().clone(),
                    stored: known.data_type().clone(),
                    wanted: field.data_type().clone(),
                });
            }
        }
    }
    Ok(missing)
}

/// Whether two types hold the same, whatever the items of a list are called.
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        _ => a == b,
    }
}

/// How hard a file is compressed: what is committed is soon written anew with others, and that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effort {
    Quick,
    Lasting,
}

pub(crate) fn writer_properties(effort: Effort) -> WriterProperties {
    // Rows are sorted by event type: groups and pages of this size let a view skip what is not its own.
    const ROW_GROUP: usize = 128 * 1024;
    const PAGE: usize = 8 * 1024;
    let level = ZstdLevel::try_new(match effort {
        Effort::Quick => 1,
        Effort::Lasting => 6,
    });
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level.unwrap_or_default()))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_data_page_row_count_limit(PAGE)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    // What rows are sorted and cut by tells which pages to read.
    let paged = ["position", "event_type", "event_time", "ingested_at"].map(ColumnPath::from);
    let properties = paged.into_iter().fold(properties, |properties, column| {
        properties.set_column_statistics_enabled(column, EnabledStatistics::Page)
    });
    // No two rows have the same id, and all are of one length; positions and times follow each other: a dictionary of
    // them is the column again.
    let own = [
        ("event_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
        ("position", Encoding::DELTA_BINARY_PACKED),
        ("event_time", Encoding::DELTA_BINARY_PACKED),
        ("ingested_at", Encoding::DELTA_BINARY_PACKED),
    ];
    let properties = own.into_iter().fold(properties, |properties, (column, encoding)| {
        let column = ColumnPath::from(column);
        properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding)
    });
    properties.build()
}
