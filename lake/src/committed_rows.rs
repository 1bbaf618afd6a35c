//! The committed rows of one version of a table, read straight from its files.
//!
//! Our tables have no deletion vectors and no column mapping, so the rows of the files that a version names are the rows
//! of that version. The log tells each file's positions and times: a query opens only files that may hold what it asks for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use chrono::DateTime;
use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray, Int64Array, TimestampMicrosecondArray, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, Result, ScalarValue, Statistics, pruning::PruningStatistics, stats::Precision},
    config::TableParquetOptions,
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource, parquet::CachedParquetFileReaderFactory},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::DataFusionError,
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use deltalake::{
    DeltaTable, DeltaTableError,
    kernel::{EagerSnapshot, LogicalFileView},
};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use schemas::field_type::{UTC, parse_timestamp};
use serde_json::Value;

/// The files of a version, as a table of the columns they may have.
#[derive(Debug)]
pub(crate) struct CommittedRows {
    /// The columns of the files, then those that have one value in a file.
    schema: TableSchema,
    store: ObjectStoreUrl,
    objects: Arc<dyn ObjectStore>,
    files: Vec<Arc<CommittedFile>>,
    /// While it is held, its files are not deleted.
    _version: Arc<EagerSnapshot>,
}

/// The column that maintenance reads beside the table's own: the path of the row's file in the table.
/// No field of a catalogue becomes a column of this name.
pub(crate) const FILE_COLUMN: &str = "__file";

/// Files by their path in the table: a file never changes.
pub(crate) type KnownFiles = HashMap<String, Arc<CommittedFile>>;

/// A file, and what the log tells of its rows.
#[derive(Debug)]
pub(crate) struct CommittedFile {
    file: PartitionedFile,
    rows: Option<u64>,
    /// The least and greatest of each column of [`RANGED`].
    ranges: [Option<(i64, i64)>; RANGED.len()],
}

/// Columns whose least and greatest value decide whether a file is opened.
const RANGED: [&str; 3] = ["position", "event_time", "ingested_at"];
/// The log tells times to the millisecond, and what is cut off was not less.
const CUT_OFF: i64 = 999;

impl CommittedRows {
    /// The rows of a version of the table, without the column `partition`. What is known of files is used
    /// again, and kept.
    pub(crate) fn new(
        table: &DeltaTable,
        columns: &Schema,
        partition: &str,
        version: &Arc<EagerSnapshot>,
        known: &mut KnownFiles,
    ) -> Result<Self, DeltaTableError> {
        let folder = folder(table)?;
        let mut files = KnownFiles::new();
        for file in version.log_data().iter() {
            let path = file.path().into_owned();
            let file = match known.get(&path) {
                Some(file) => Arc::clone(file),
                None => Arc::new(CommittedFile::new(&folder, &file)?),
            };
            files.insert(path, file);
        }
        *known = files;
        let columns = columns.fields().iter().filter(|field| field.name() != partition);
        // A text is read as a view of its bytes.
        let columns = columns.map(|field| match field.data_type() {
            DataType::Utf8 => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
            _ => Arc::clone(field),
        });
        let schema = TableSchema::from(Arc::new(Schema::new(columns.collect::<Vec<_>>())));
        Self::of(table, schema, known.values().cloned().collect(), version)
    }

    /// The rows of a version's files for maintenance: the table's own columns as they are stored, the column `partition`,
    /// and [`FILE_COLUMN`]. With `paths`, those files alone.
    pub(crate) fn with_files(
        table: &DeltaTable,
        columns: &Schema,
        partition: &str,
        version: &Arc<EagerSnapshot>,
        paths: Option<&HashSet<String>>,
    ) -> Result<Self, DeltaTableError> {
        let folder = folder(table)?;
        let mut files = Vec::new();
        for file in version.log_data().iter() {
            let path = file.path().into_owned();
            if paths.is_some_and(|paths| !paths.contains(&path)) {
                continue;
            }
            let mut read = CommittedFile::new(&folder, &file)?;
            let day = file.partition_values_map().remove(partition).flatten();
            let day = day.map_or(Ok(ScalarValue::Date32(None)), |day| {
                ScalarValue::try_from_string(day, &DataType::Date32).map_err(generic)
            });
            read.file.partition_values = vec![day?, ScalarValue::from(path)];
            files.push(Arc::new(read));
        }
        let (per_file, of_rows): (Vec<_>, Vec<_>) =
            columns.fields().iter().cloned().partition(|field| field.name() == partition);
        let path = Arc::new(Field::new(FILE_COLUMN, DataType::Utf8, false));
        let per_file: Vec<_> = per_file.into_iter().chain([path]).collect();
        let schema = TableSchema::builder(Arc::new(Schema::new(of_rows))).with_table_partition_cols(per_file);
        Self::of(table, schema.build(), files, version)
    }

    fn of(
        table: &DeltaTable,
        schema: TableSchema,
        files: Vec<Arc<CommittedFile>>,
        version: &Arc<EagerSnapshot>,
    ) -> Result<Self, DeltaTableError> {
        let root = table.table_url();
        let store = ObjectStoreUrl::parse(&root[..url::Position::BeforePath]).map_err(generic)?;
        let objects = table.log_store().root_object_store(None);
        Ok(Self { schema, store, objects, files, _version: Arc::clone(version) })
    }

    /// The files that may have rows which these filters keep.
    fn chosen(&self, predicate: Option<&PruningPredicate>) -> Result<Vec<&CommittedFile>> {
        let files = self.files.iter().map(AsRef::as_ref);
        let Some(predicate) = predicate else { return Ok(files.collect()) };
        let kept = predicate.prune(&Ranges(&self.files))?;
        Ok(files.zip(kept).filter_map(|(file, kept)| kept.then_some(file)).collect())
    }
}

fn generic(error: DataFusionError) -> DeltaTableError {
    DeltaTableError::GenericError { source: Box::new(error) }
}

/// The table's folder in its store.
fn folder(table: &DeltaTable) -> Result<Path, DeltaTableError> {
    Ok(Path::from_url_path(table.table_url().path()).map_err(object_store::Error::from)?)
}

impl CommittedFile {
    fn new(folder: &Path, file: &LogicalFileView) -> Result<Self, DeltaTableError> {
        let path = format!("{folder}/{}", file.object_store_path());
        let meta = ObjectMeta {
            location: Path::parse(path).map_err(object_store::Error::from)?,
            last_modified: DateTime::from_timestamp_millis(file.modification_time()).unwrap_or_default(),
            size: u64::try_from(file.size()).unwrap_or_default(),
            e_tag: None,
            version: None,
        };
        let told: Value = file.stats().and_then(|told| serde_json::from_str(&told).ok()).unwrap_or_default();
        let range = |column: &str| {
            let bound = |bounds: &str, cut_off| match &told[bounds][column] {
                Value::String(time) => parse_timestamp(time).map(|time| time + cut_off),
                number => number.as_i64(),
            };
            Some((bound("minValues", 0)?, bound("maxValues", CUT_OFF)?))
        };
        Ok(Self { file: PartitionedFile::from(meta), rows: told["numRecords"].as_u64(), ranges: RANGED.map(range) })
    }
}

/// What the log tells of each file, for pruning.
struct Ranges<'a>(&'a [Arc<CommittedFile>]);

impl Ranges<'_> {
    fn bounds(&self, column: &Column, bound: impl Fn((i64, i64)) -> i64) -> Option<ArrayRef> {
        let index = RANGED.iter().position(|name| *name == column.name)?;
        let bounds = self.0.iter().map(|file| file.ranges[index].map(&bound));
        Some(match RANGED[index] {
            "position" => Arc::new(bounds.collect::<Int64Array>()),
            _ => Arc::new(bounds.collect::<TimestampMicrosecondArray>().with_timezone(UTC)),
        })
    }
}

impl PruningStatistics for Ranges<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |(least, _)| least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |(_, greatest)| greatest)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.0.iter().map(|file| file.rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[async_trait]
impl TableProvider for CommittedRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They choose files, row groups and pages; the engine filters what is read.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = DFSchema::try_from(self.schema())?;
        let filter = conjunction(filters.to_vec()).map(|filter| state.create_physical_expr(filter, &columns));
        let pruning = PruningPredicateBuilder::new().with_file_schema(self.schema());
        let pruning = filter.transpose()?.and_then(|filter| pruning.build(filter));
        let chosen = self.chosen(pruning.as_deref())?;
        if chosen.is_empty() {
            let schema =
                projection.map_or_else(|| Ok(self.schema()), |columns| self.schema().project(columns).map(Arc::new));
            return Ok(Arc::new(EmptyExec::new(schema?)));
        }
        let bytes: u64 = chosen.iter().map(|file| file.file.object_meta.size).sum();
        let rows: Option<u64> = chosen.iter().map(|file| file.rows).sum();
        let count = |count: u64| usize::try_from(count).map_or(Precision::Absent, Precision::Exact);
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = rows.map_or(Precision::Absent, count);

        let runtime = state.runtime_env();
        if runtime.object_store(&self.store).is_err() {
            runtime.register_object_store(self.store.as_ref(), Arc::clone(&self.objects));
        }
        let reader = CachedParquetFileReaderFactory::new(
            Arc::clone(&self.objects),
            runtime.cache_manager.get_file_metadata_cache(),
        );
        let options = state.config_options();
        let parquet =
            TableParquetOptions { global: options.execution.parquet.clone(), ..TableParquetOptions::default() };
        // The filter itself is handed down by the engine, which keeps it above what is read as well.
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(parquet)
            .with_parquet_file_reader_factory(Arc::new(reader));
        let groups = if bytes < options.optimizer.repartition_file_min_size as u64 {
            1
        } else {
            options.execution.target_partitions
        };
        let files: Vec<PartitionedFile> = chosen.iter().map(|file| file.file.clone()).collect();
        let scan = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(FileGroup::new(files).split_files(groups))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
