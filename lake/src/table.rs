//! One Delta table.
//!
//! Rows and progress are one atomic write: each commit carries an application transaction whose version is the
//! position up to which the table is complete.

use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Date32Array, RecordBatch},
        compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch},
        datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType},
        error::ArrowError,
    },
    catalog::TableProvider,
    prelude::SessionContext,
};
use deltalake::{
    DeltaTable, DeltaTableError, TableProperty,
    kernel::{StructType, Transaction, engine::arrow_conversion::TryIntoKernel, transaction::CommitProperties},
    writer::{DeltaWriter, RecordBatchWriter},
};
use parquet::{
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use schemas::{Context, Position};
use url::Url;

use crate::ledger;

/// The application whose transactions record a table's position.
const APP: &str = "forecourt";
/// The partition column: the first day of the month, or the day, of a row's time.
const PARTITION: &str = "partition_date";

/// How finely a table is partitioned by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    Month,
    Day,
}

/// What a table holds.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its folder in the lake and its SQL schema.
    pub name: String,
    /// Its columns as queries see them.
    pub schema: SchemaRef,
    /// The column whose time decides the partition.
    time_column: &'static str,
    granularity: Granularity,
    /// Columns to sort the rows of a file by.
    sort: &'static [&'static str],
    /// Columns with statistics for pruning.
    statistics: &'static str,
}

impl TableSpec {
    /// The table of a context's events.
    #[must_use]
    pub fn of_context(context: &Context) -> Self {
        Self {
            name: context.name.clone(),
            schema: context.schema.clone(),
            time_column: "event_time",
            granularity: if context.is_short_lived() { Granularity::Day } else { Granularity::Month },
            sort: &["event_type", "event_time"],
            statistics: "position,event_id,event_type,event_time,ingested_at,tenant_id,aggregate_type,aggregate_id",
        }
    }

    /// The positions whose event id had taken effect before.
    #[must_use]
    pub fn duplicates() -> Self {
        Self::ledger("duplicates", ledger::DUPLICATES.clone())
    }

    /// The positions whose message is no event.
    #[must_use]
    pub fn dead_letters() -> Self {
        Self::ledger("dead_letters", ledger::DEAD_LETTERS.clone())
    }

    fn ledger(name: &str, schema: SchemaRef) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            time_column: "ingested_at",
            granularity: Granularity::Month,
            sort: &["position"],
            statistics: "position,ingested_at",
        }
    }

    /// The columns as files and the Delta log hold them: the partition last.
    fn stored_schema(&self) -> Schema {
        let fields = self.schema.fields().iter().cloned();
        let partition = Arc::new(Field::new(PARTITION, DataType::Date32, false));
        Schema::new(fields.chain([partition]).collect::<Vec<_>>())
    }

    /// The rows in file order, with their partition.
    fn arrange(&self, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
        let rows = concat_batches(&self.schema, batches)?;
        let keys = self.sort.iter().filter_map(|name| rows.column_by_name(name));
        let keys: Vec<_> = keys.map(|values| SortColumn { values: values.clone(), options: None }).collect();
        let rows = take_record_batch(&rows, &lexsort_to_indices(&keys, None)?)?;
        let times = rows.column_by_name(self.time_column).map(|times| times.as_primitive::<TimestampMicrosecondType>());
        let days = times.into_iter().flat_map(|times| times.values().iter()).map(|&micros| self.partition_of(micros));
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(days.collect::<Date32Array>()));
        RecordBatch::try_new(Arc::new(self.stored_schema()), columns)
    }

    /// Days since 1970 of the partition that a time belongs to.
    fn partition_of(&self, micros: i64) -> Option<i32> {
        let date = DateTime::from_timestamp_micros(micros)?.date_naive();
        let first = match self.granularity {
            Granularity::Day => date,
            Granularity::Month => NaiveDate::from_ymd_opt(date.year(), date.month(), 1)?,
        };
        i32::try_from(first.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }
}

/// A table and the version we know.
pub(crate) struct StoredTable {
    pub(crate) spec: Arc<TableSpec>,
    table: DeltaTable,
    /// Every row up to here is in the table.
    pub(crate) position: Position,
}

impl StoredTable {
    /// Open the table under `root`, creating it when it is not there.
    pub(crate) async fn open(root: &Url, spec: TableSpec) -> Result<Self, DeltaTableError> {
        let location = root.join(&format!("{}/", spec.name)).map_err(|e| DeltaTableError::generic(e.to_string()))?;
        if let Ok(folder) = location.to_file_path() {
            std::fs::create_dir_all(folder).map_err(DeltaTableError::from)?;
        }
        let mut table = DeltaTable::try_from_url(location).await?;
        if table.version().is_none() {
            let columns: StructType = (&spec.stored_schema()).try_into_kernel()?;
            table = table
                .create()
                .with_table_name(&spec.name)
                .with_columns(columns.fields().cloned())
                .with_partition_columns([PARTITION])
                .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(spec.statistics))
                .with_configuration_property(TableProperty::AppendOnly, Some("true"))
                .await?;
        }
        let mut stored = Self { spec: Arc::new(spec), table, position: Position::START };
        stored.position = stored.recorded_position().await?;
        Ok(stored)
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
    pub(crate) async fn commit(&mut self, batches: &[RecordBatch], position: Position) -> Result<(), DeltaTableError> {
        let progress = CommitProperties::default()
            // One process owns a lake. A version that is not ours means there are two: fail, do not merge.
            .with_max_retries(0)
            .with_application_transaction(Transaction::new(APP, position.as_i64()));
        let mut writer = RecordBatchWriter::for_table(&self.table)?
            .with_writer_properties(writer_properties())
            .with_commit_properties(progress);
        if !batches.is_empty() {
            writer.write(self.spec.arrange(batches)?).await?;
        }
        writer.flush_and_commit(&mut self.table).await?;
        self.position = position;
        Ok(())
    }

    /// A provider of the committed rows as of now. It keeps reading this version whatever is committed later.
    pub(crate) async fn provider(&self, session: &SessionContext) -> Result<Arc<dyn TableProvider>, DeltaTableError> {
        let state = session.state();
        self.table.update_datafusion_session(&state)?;
        let snapshot = self.table.snapshot()?.snapshot().clone();
        let scan = self.table.table_provider().with_eager_snapshot(snapshot).with_session(Arc::new(state));
        Ok(Arc::new(scan.build().await?))
    }
}

fn writer_properties() -> WriterProperties {
    // Rows are sorted by event type: groups of this size let a view skip what is not its own.
    const ROW_GROUP: usize = 128 * 1024;
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build()
}
