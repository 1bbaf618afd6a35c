//! The tables beside the events: what was a duplicate, what was no event, and what became of that; and what KPIs said of
//! the events that retention took.
//!
//! With the events' tables, what retention took from those, and the positions that the log no longer had, the first two
//! account for every position of the log exactly once.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::{
    array::{
        ArrayRef, BinaryBuilder, Float64Array, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
        TimestampMicrosecondArray, TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use schemas::{Position, Rejection, columns::timestamp_type, field_type::UTC};

/// A position whose event id took effect before.
#[derive(Clone, Debug)]
pub struct DuplicateRow {
    pub position: Position,
    /// Microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub event_id: String,
    /// Where the id took effect.
    pub first_position: Position,
}

/// Consecutive positions that the log no longer had when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRow {
    pub first: Position,
    pub last: Position,
    /// When the log took the message after them: microseconds since 1970, UTC.
    pub ingested_at: i64,
}

/// A position whose message is no event.
#[derive(Clone, Debug)]
pub struct DeadLetterRow<'a> {
    pub position: Position,
    /// Microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub stage: &'a str,
    pub rejection: &'a Rejection,
    pub subject: &'a str,
    pub payload: &'a [u8],
    /// Its block of headers, if that is what is wrong with it.
    pub headers: Option<&'a [u8]>,
}

/// What somebody decided about a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The dead letter's.
    pub position: Position,
    pub decision: Decision,
    /// Microseconds since 1970, UTC.
    pub closed_at: i64,
    pub closed_by: String,
}

/// How a dead letter ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its event is in the log at this position.
    Retried(Position),
    Dropped,
}

impl Decision {
    /// The status of a dead letter that ended so; one that has not is `open`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Retried(_) => "retried",
            Self::Dropped => "dropped",
        }
    }
}

pub(crate) static CLOSINGS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("closed_at", timestamp_type(), false),
        Field::new("closed_by", DataType::Utf8, false),
        Field::new("retried_as", DataType::Int64, true),
    ]))
});

pub(crate) static RETIRED: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("context", DataType::Utf8, false),
        Field::new("event_type", DataType::Utf8, false),
        Field::new("retired_at", timestamp_type(), false),
    ]))
});

/// A KPI's bucket that lost what it was computed from, as it was last: a row for each of its values.
#[derive(Clone, Debug, PartialEq)]
pub struct KpiSnapshotRow {
    pub kpi: String,
    pub grain: &'static str,
    /// What the KPI is grouped by, and the group; none for the whole.
    pub dimension: Option<String>,
    pub group: Option<String>,
    /// The bucket's start: microseconds since 1970, UTC.
    pub bucket: i64,
    pub measure: String,
    pub amount: Option<f64>,
}

pub(crate) static KPI_HISTORY: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("kpi", DataType::Utf8, false),
        Field::new("grain", DataType::Utf8, false),
        Field::new("dimension", DataType::Utf8, true),
        Field::new("dimension_value", DataType::Utf8, true),
        Field::new("bucket", timestamp_type(), false),
        Field::new("measure", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("frozen_at", timestamp_type(), false),
    ]))
});

/// Frozen buckets as rows of their table: what they reflected, and when they were frozen (microseconds since 1970, UTC).
///
/// # Errors
/// Never: the columns are built to the schema.
pub fn frozen_batch(rows: &[KpiSnapshotRow], position: Position, frozen_at: i64) -> Result<RecordBatch, ArrowError> {
    let text = |of: fn(&KpiSnapshotRow) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let count = rows.len();
    let buckets: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.bucket)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_value(position.as_i64(), count)),
        text(|row| Some(&row.kpi)),
        text(|row| Some(row.grain)),
        text(|row| row.dimension.as_deref()),
        text(|row| row.group.as_deref()),
        Arc::new(buckets.with_timezone(UTC)),
        text(|row| Some(&row.measure)),
        Arc::new(rows.iter().map(|row| row.amount).collect::<Float64Array>()),
        Arc::new(TimestampMicrosecondArray::from_value(frozen_at, count).with_timezone(UTC)),
    ];
    RecordBatch::try_new(KPI_HISTORY.clone(), columns)
}

/// Closings as rows of their table.
///
/// # Errors
/// Never: the columns are built to the schema.
pub fn closings_batch(rows: &[Closing]) -> Result<RecordBatch, ArrowError> {
    let mut closed_at = TimestampMicrosecondBuilder::new().with_timezone(UTC);
    let (mut position, mut retried_as) = (Int64Builder::new(), Int64Builder::new());
    let (mut status, mut closed_by) = (StringBuilder::new(), StringBuilder::new());
    for row in rows {
        position.append_value(row.position.as_i64());
        status.append_value(row.decision.status());
        closed_at.append_value(row.closed_at);
        closed_by.append_value(&row.closed_by);
        retried_as.append_option(match row.decision {
            Decision::Retried(position) => Some(position.as_i64()),
            Decision::Dropped => None,
        });
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(position.finish()),
        Arc::new(status.finish()),
        Arc::new(closed_at.finish()),
        Arc::new(closed_by.finish()),
        Arc::new(retried_as.finish()),
    ];
    RecordBatch::try_new(CLOSINGS.clone(), columns)
}

pub(crate) static DUPLICATES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("ingested_at", timestamp_type(), false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("first_position", DataType::Int64, false),
    ]))
});

pub(crate) static DEAD_LETTERS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("ingested_at", timestamp_type(), false),
        Field::new("stage", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("field", DataType::Utf8, true),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("subject", DataType::Utf8, false),
        Field::new("payload", DataType::Binary, false),
        Field::new("payload_bytes", DataType::Int64, true),
        Field::new("headers", DataType::Binary, true),
    ]))
});

pub(crate) static GAPS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("first_position", DataType::Int64, false),
        Field::new("ingested_at", timestamp_type(), false),
    ]))
});

/// Gaps as rows of their table: one at its last position.
///
/// # Errors
/// Never: the columns are built to the schema.
pub fn gaps_batch(rows: &[GapRow]) -> Result<RecordBatch, ArrowError> {
    let times: TimestampMicrosecondArray = rows.iter().map(|gap| Some(gap.ingested_at)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|gap| Some(gap.last.as_i64())).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|gap| Some(gap.first.as_i64())).collect::<Int64Array>()),
        Arc::new(times.with_timezone(UTC)),
    ];
    RecordBatch::try_new(GAPS.clone(), columns)
}

/// Duplicates as rows of their table.
///
/// # Errors
/// Never: the columns are built to the schema.
pub fn duplicates_batch(rows: &[DuplicateRow]) -> Result<RecordBatch, ArrowError> {
    let mut ingested_at = TimestampMicrosecondBuilder::new().with_timezone(UTC);
    let (mut position, mut first, mut event_id) = (Int64Builder::new(), Int64Builder::new(), StringBuilder::new());
    for row in rows {
        position.append_value(row.position.as_i64());
        ingested_at.append_value(row.ingested_at);
        event_id.append_value(&row.event_id);
        first.append_value(row.first_position.as_i64());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(position.finish()),
        Arc::new(ingested_at.finish()),
        Arc::new(event_id.finish()),
        Arc::new(first.finish()),
    ];
    RecordBatch::try_new(DUPLICATES.clone(), columns)
}

/// Dead letters as rows of their table.
///
/// # Errors
/// Never: the columns are built to the schema.
pub fn dead_letters_batch(rows: &[DeadLetterRow<'_>]) -> Result<RecordBatch, ArrowError> {
    let mut ingested_at = TimestampMicrosecondBuilder::new().with_timezone(UTC);
    let (mut position, mut payload, mut headers) = (Int64Builder::new(), BinaryBuilder::new(), BinaryBuilder::new());
    let mut payload_bytes = Int64Builder::new();
    let mut texts: [StringBuilder; 6] = Default::default();
    for row in rows {
        position.append_value(row.position.as_i64());
        ingested_at.append_value(row.ingested_at);
        payload.append_value(row.payload);
        headers.append_option(row.headers);
        payload_bytes.append_option(i64::try_from(row.payload.len()).ok());
        let [stage, reason, message, field, event_id, subject] = &mut texts;
        stage.append_value(row.stage);
        reason.append_value(row.rejection.code.as_str());
        message.append_value(&row.rejection.message);
        field.append_option(row.rejection.field.as_deref());
        event_id.append_option(row.rejection.event_id.as_deref());
        subject.append_value(row.subject);
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(position.finish()), Arc::new(ingested_at.finish())];
    columns.extend(texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
    columns.push(Arc::new(payload.finish()));
    columns.push(Arc::new(payload_bytes.finish()));
    columns.push(Arc::new(headers.finish()));
    RecordBatch::try_new(DEAD_LETTERS.clone(), columns)
}
