//! The columns of a context's table: one Arrow schema per context.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{catalogue::definition::Column, field_type::UTC};

/// A column that every event has, and what it means.
pub struct EnvelopeColumn {
    pub name: &'static str,
    pub meaning: &'static str,
}

impl EnvelopeColumn {
    /// The column as every table of events has it.
    #[must_use]
    pub fn field(&self) -> Field {
        let (kind, nullable) = match self.name {
            "position" => (DataType::Int64, false),
            "event_time" | "ingested_at" => (timestamp_type(), false),
            "correlation_id" | "causation_id" | "source" => (DataType::Utf8, true),
            _ => (DataType::Utf8, false),
        };
        Field::new(self.name, kind, nullable)
    }
}

/// The envelope's columns, in order. The log gives `position` and `ingested_at`, the producer the rest.
pub const ENVELOPE: [EnvelopeColumn; 12] = [
    envelope("position", "Where the event stands in the log: positions rise and have no gaps."),
    envelope("event_id", "The event's id: one that comes again is a duplicate and has no effect."),
    envelope("event_type", "Which event of the catalogue it is."),
    envelope("event_version", "The version of the event type, as its producer wrote it."),
    envelope("event_time", "When it happened, as its producer says; UTC."),
    envelope("ingested_at", "When the log took it; UTC."),
    envelope("tenant_id", "Whose marketplace it happened in."),
    envelope("aggregate_type", "What kind of thing it happened to."),
    envelope("aggregate_id", "The thing it happened to."),
    envelope("correlation_id", "What events of one undertaking share."),
    envelope("causation_id", "The event or command that caused it."),
    envelope("source", "The system that tells it."),
];

const fn envelope(name: &'static str, meaning: &'static str) -> EnvelopeColumn {
    EnvelopeColumn { name, meaning }
}

/// The last column: JSON text of what the catalogue does not know.
pub const EXTRA: &str = "extra";

/// What it means.
pub const EXTRA_MEANING: &str = "JSON of what the event carries and the catalogue does not know; null when nothing.";

/// Whether a payload field may not have this column name.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == EXTRA || ENVELOPE.iter().any(|column| column.name == name)
}

/// Microseconds, UTC.
#[must_use]
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// The Arrow schema of a context: envelope, payload, `extra`.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let envelope = ENVELOPE.iter().map(EnvelopeColumn::field);
    let payload = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true));
    let extra = Field::new(EXTRA, DataType::Utf8, true);
    Arc::new(Schema::new(envelope.chain(payload).chain([extra]).collect::<Vec<_>>()))
}
