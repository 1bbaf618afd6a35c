//! What the catalogue says of a context: its events, their fields and its columns.

use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    field_type::FieldType,
    limits::Limits,
    retention::Retention,
    versions::{OlderVersion, Version},
};

/// How soon consumers want an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    RealTime,
    Batch,
}

impl Delivery {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RealTime => "real-time",
            Self::Batch => "batch",
        }
    }
}

/// A payload field of a context, and its column.
#[derive(Clone, Debug)]
pub struct Column {
    /// As events spell it: `vehicleId`.
    pub field: String,
    /// In snake_case, as some producers spell it: `vehicle_id`.
    pub snake: String,
    /// As the lake spells it: as `snake`, but a name that the envelope already uses is prefixed with `data_`.
    pub name: String,
    pub kind: FieldType,
    /// What its values must keep to.
    pub limits: Limits,
    /// A value it may have.
    pub example: Option<Value>,
    pub meaning: String,
    pub unit: Option<String>,
    /// Whether it is personal data of the event's `person`.
    pub personal: bool,
}

/// A field as one event carries it.
#[derive(Clone, Copy, Debug)]
pub struct EventField {
    /// Index into [`Context::columns`].
    pub column: usize,
    pub required: bool,
}

/// One kind of event.
#[derive(Clone, Debug)]
pub struct EventDefinition {
    pub name: String,
    /// The SQL view: the name in snake_case.
    pub view: String,
    /// Further names it is known by, such as `loyalty.points.earned`.
    pub aliases: Vec<String>,
    /// The version its fields describe.
    pub version: Version,
    /// Versions before it, oldest first, with the steps that lead to the next.
    pub older: Vec<OlderVersion>,
    pub meaning: String,
    /// The aggregate's type, such as `Vehicle`.
    pub aggregate: String,
    /// The field that holds the aggregate's id. Without one, only the envelope's `aggregateId` does.
    pub key: Option<String>,
    pub retention: Retention,
    pub delivery: Delivery,
    /// Whether auditors need it.
    pub audit: bool,
    /// The field that identifies whom the personal data is about.
    pub person: Option<String>,
    /// Required fields first, each in the file's order.
    pub fields: Vec<EventField>,
}

/// A bounded context: one table of the lake, one schema of SQL.
#[derive(Clone, Debug)]
pub struct Context {
    pub name: String,
    pub title: String,
    pub meaning: String,
    pub columns: Vec<Column>,
    pub events: Vec<EventDefinition>,
    /// Envelope, then payload columns, then `extra`.
    pub schema: SchemaRef,
}

impl Context {
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&EventDefinition> {
        self.events.iter().find(|event| event.name == name)
    }
}
