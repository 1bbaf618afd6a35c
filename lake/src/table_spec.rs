//! The specification of a table: its columns, its partitions and the order of its rows.

use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::{
    array::{ArrayRef, AsArray, Date32Array, RecordBatch, new_null_array},
    compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType},
    error::ArrowError,
};
use schemas::Context;

use crate::ledger;

/// The partition column: the first day of the month of a row's time.
pub(crate) const PARTITION: &str = "partition_date";

/// The specification of a table.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its folder in the lake and its SQL schema.
    pub name: String,
    /// Its columns as queries see them.
    pub schema: SchemaRef,
    /// The column whose time decides the partition.
    pub(crate) time_column: &'static str,
    /// Columns to sort the rows of a file by.
    pub(crate) sort: &'static [&'static str],
    /// Columns with statistics for pruning.
    pub(crate) statistics: &'static str,
}

impl TableSpec {
    /// The table of a context's events.
    #[must_use]
    pub fn of_context(context: &Context) -> Self {
        Self {
            name: context.name.clone(),
            schema: context.schema.clone(),
            time_column: "event_time",
            sort: &["event_type", "event_time"],
            statistics: "position,event_id,event_type,event_time,ingested_at,tenant_id,aggregate_type,aggregate_id",
        }
    }

    /// The positions whose event id had taken effect before.
    #[must_use]
    pub fn duplicates() -> Self {
        Self::ledger("duplicates", ledger::DUPLICATES.clone())
    }

    /// The events that retention has taken. It is written when it does; its position grows each time.
    #[must_use]
    pub fn retired() -> Self {
        Self {
            time_column: "retired_at",
            sort: &["context", "event_type", "position"],
            statistics: "position,context,event_type,retired_at",
            ..Self::ledger("retired", ledger::RETIRED.clone())
        }
    }

    /// The KPIs' buckets that lost what they were computed from. It is written before they do; its position grows each time.
    #[must_use]
    pub fn kpi_history() -> Self {
        Self {
            time_column: "bucket",
            sort: &["kpi", "grain", "dimension", "bucket", "dimension_value"],
            statistics: "position,kpi,grain,dimension,bucket",
            ..Self::ledger("kpi_history", ledger::KPI_HISTORY.clone())
        }
    }

    /// What became of dead letters. It is written when somebody decides, not with the log.
    #[must_use]
    pub fn closings() -> Self {
        Self {
            time_column: "closed_at",
            statistics: "position",
            ..Self::ledger("dead_letter_closings", ledger::CLOSINGS.clone())
        }
    }

    /// The positions whose message is no event.
    #[must_use]
    pub fn dead_letters() -> Self {
        Self::ledger("dead_letters", ledger::DEAD_LETTERS.clone())
    }

    /// The positions that the log no longer had when it was read.
    #[must_use]
    pub fn gaps() -> Self {
        Self::ledger("gaps", ledger::GAPS.clone())
    }

    fn ledger(name: &str, schema: SchemaRef) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            time_column: "ingested_at",
            sort: &["position"],
            statistics: "position,ingested_at",
        }
    }

    /// The columns as files and the Delta log hold them: the partition last.
    pub(crate) fn stored_schema(&self) -> Schema {
        let fields = self.schema.fields().iter().cloned();
        let partition = Arc::new(Field::new(PARTITION, DataType::Date32, false));
        Schema::new(fields.chain([partition]).collect::<Vec<_>>())
    }

    /// The rows in file order, with their partition, as the table's own columns: one that we no longer know is null.
    pub(crate) fn arrange(&self, batches: &[RecordBatch], stored: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let rows = concat_batches(&self.schema, batches)?;
        let keys = self.sort.iter().filter_map(|name| rows.column_by_name(name));
        let keys: Vec<_> = keys.map(|values| SortColumn { values: values.clone(), options: None }).collect();
        let rows = take_record_batch(&rows, &lexsort_to_indices(&keys, None)?)?;
        let times = rows.column_by_name(self.time_column).map(|times| times.as_primitive::<TimestampMicrosecondType>());
        let days = times.into_iter().flat_map(|times| times.values().iter()).map(|&micros| Self::partition_of(micros));
        let days: ArrayRef = Arc::new(days.collect::<Date32Array>());
        let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None if field.name() == PARTITION => Arc::clone(&days),
            None => new_null_array(field.data_type(), rows.num_rows()),
        };
        let columns = stored.fields().iter().map(column).collect();
        RecordBatch::try_new(Arc::clone(stored), columns)
    }

    /// Days since 1970 of the partition that a time belongs to: the first of its month.
    pub(crate) fn partition_of(micros: i64) -> Option<i32> {
        let date = DateTime::from_timestamp_micros(micros)?.date_naive();
        let first = NaiveDate::from_ymd_opt(date.year(), date.month(), 1)?;
        i32::try_from(first.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }
}
