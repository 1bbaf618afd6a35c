//! From events to Arrow record batches, row by row.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, ListBuilder, RecordBatch,
        StringBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Field, SchemaRef},
    error::ArrowError,
};

use crate::{
    Catalogue, ContextIndex, Event, Position,
    field_type::{Cell, FieldType, MONEY_PRECISION, MONEY_SCALE, UTC},
};

/// What the log adds to an event: where it stands, and when it arrived (microseconds since 1970, UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub position: Position,
    pub ingested_at: i64,
}

enum ColumnBuilder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Money(Decimal128Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    List(ListBuilder<StringBuilder>),
}

impl ColumnBuilder {
    fn new(kind: FieldType, rows: usize) -> Self {
        match kind {
            FieldType::Id | FieldType::String | FieldType::Json => Self::Text(text(rows)),
            FieldType::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            FieldType::Number => Self::Number(Float64Builder::with_capacity(rows)),
            FieldType::Money => Self::Money(
                Decimal128Builder::with_capacity(rows)
                    .with_data_type(DataType::Decimal128(MONEY_PRECISION, MONEY_SCALE)),
            ),
            FieldType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            FieldType::Timestamp => Self::Timestamp(time(rows)),
            FieldType::StringList | FieldType::JsonList => Self::List(
                ListBuilder::with_capacity(text(0), rows).with_field(Field::new("element", DataType::Utf8, true)),
            ),
        }
    }

    /// Append a cell. A cell is made by the column's own type, so the kinds always meet.
    fn append(&mut self, cell: Option<Cell>) {
        match (self, cell) {
            (Self::Text(builder), Some(Cell::Text(text))) => builder.append_value(text),
            (Self::Integer(builder), Some(Cell::Integer(value))) => builder.append_value(value),
            (Self::Number(builder), Some(Cell::Number(value))) => builder.append_value(value),
            (Self::Money(builder), Some(Cell::Money(cents))) => builder.append_value(cents),
            (Self::Boolean(builder), Some(Cell::Boolean(flag))) => builder.append_value(flag),
            (Self::Timestamp(builder), Some(Cell::Timestamp(micros))) => builder.append_value(micros),
            (Self::List(builder), Some(Cell::List(items))) => builder.append_value(items.into_iter().map(Some)),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Integer(builder), _) => builder.append_null(),
            (Self::Number(builder), _) => builder.append_null(),
            (Self::Money(builder), _) => builder.append_null(),
            (Self::Boolean(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), _) => builder.append_null(),
            (Self::List(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Number(builder) => Arc::new(builder.finish()),
            Self::Money(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::List(builder) => Arc::new(builder.finish()),
        }
    }
}

fn text(rows: usize) -> StringBuilder {
    StringBuilder::with_capacity(rows, 0)
}

fn time(rows: usize) -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(rows).with_timezone(UTC)
}

/// Collects events of one context into a record batch of its schema.
pub struct ContextBatchBuilder {
    schema: SchemaRef,
    position: Int64Builder,
    event_time: TimestampMicrosecondBuilder,
    ingested_at: TimestampMicrosecondBuilder,
    /// `event_id`, `event_type`, `event_version`.
    head: [StringBuilder; 3],
    /// From `tenant_id` to `source`.
    tail: [StringBuilder; 6],
    payload: Vec<ColumnBuilder>,
    extra: StringBuilder,
    rows: usize,
}

impl ContextBatchBuilder {
    /// For as many rows as are to come: contexts have many columns and batches are often small, so that room for rows
    /// that never come would be most of the memory.
    #[must_use]
    pub fn new(catalogue: &Catalogue, context: ContextIndex, rows: usize) -> Self {
        let context = catalogue.context_at(context);
        Self {
            schema: context.schema.clone(),
            position: Int64Builder::with_capacity(rows),
            event_time: time(rows),
            ingested_at: time(rows),
            head: std::array::from_fn(|_| text(rows)),
            tail: std::array::from_fn(|_| text(rows)),
            payload: context.columns.iter().map(|column| ColumnBuilder::new(column.kind, rows)).collect(),
            extra: text(rows),
            rows: 0,
        }
    }

    /// Add one event of this builder's context.
    pub fn push(&mut self, catalogue: &Catalogue, event: Event, stamp: Stamp) {
        self.position.append_value(stamp.position.as_i64());
        self.event_time.append_value(event.time);
        self.ingested_at.append_value(stamp.ingested_at);
        let [event_id, event_type, event_version] = &mut self.head;
        event_id.append_value(event.id.as_str());
        event_type.append_value(&catalogue.event_at(event.kind).name);
        event_version.append_value(event.version);
        let [tenant_id, aggregate_type, aggregate_id, correlation_id, causation_id, source] = &mut self.tail;
        tenant_id.append_value(event.tenant_id);
        aggregate_type.append_value(event.aggregate_type);
        aggregate_id.append_value(event.aggregate_id);
        correlation_id.append_option(event.correlation_id);
        causation_id.append_option(event.causation_id);
        source.append_option(event.source);
        let mut cells: Vec<Option<Cell>> = vec![None; self.payload.len()];
        for (column, cell) in event.cells {
            cells[column] = Some(cell);
        }
        for (builder, cell) in self.payload.iter_mut().zip(cells) {
            builder.append(cell);
        }
        self.extra.append_option(event.extra);
        self.rows += 1;
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The events so far as one batch; the builder is empty afterwards.
    ///
    /// # Errors
    /// Never for events of this context: the columns are built to the schema.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let [event_id, event_type, event_version] = &mut self.head;
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.position.finish()),
            Arc::new(event_id.finish()),
            Arc::new(event_type.finish()),
            Arc::new(event_version.finish()),
            Arc::new(self.event_time.finish()),
            Arc::new(self.ingested_at.finish()),
        ];
        arrays.extend(self.tail.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        arrays.extend(self.payload.iter_mut().map(ColumnBuilder::finish));
        arrays.push(Arc::new(self.extra.finish()));
        RecordBatch::try_new(self.schema.clone(), arrays)
    }
}
