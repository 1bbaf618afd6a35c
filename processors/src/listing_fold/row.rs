//! Rows of a context's table, read as events.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use schemas::{Context, Position, rows};
use serde_json::Value;

use super::entity::{Change, WriteStamp};

/// A batch with its columns at hand.
pub(super) struct Rows<'a> {
    pub(super) context: &'a Context,
    batch: &'a RecordBatch,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(context: &'a Context, batch: &'a RecordBatch) -> Self {
        let by_name =
            batch.schema_ref().fields().iter().enumerate().map(|(index, field)| (field.name().as_str(), index));
        Self { context, batch, by_name: by_name.collect() }
    }

    pub(super) fn column(&self, name: &str) -> Option<&dyn Array> {
        self.by_name.get(name).map(|&index| self.batch.column(index).as_ref())
    }
}

/// One event.
pub(super) struct Row<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) row: usize,
}

impl Row<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let column = self.rows.column(name)?.as_string_opt::<i32>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    /// Microseconds since 1970, UTC.
    pub(super) fn time(&self, name: &str) -> Option<i64> {
        let column = self.rows.column(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    pub(super) fn event_time(&self) -> i64 {
        self.time("event_time").unwrap_or_default()
    }

    /// A payload field as its event had it.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        let column = self.rows.context.columns.iter().find(|column| column.name == name)?;
        let array = self.rows.column(name)?;
        array.is_valid(self.row).then(|| rows::value(column.kind, array, self.row))
    }

    pub(super) fn stamp(&self) -> WriteStamp {
        let positions = self.rows.batch.column(0).as_primitive::<Int64Type>();
        WriteStamp {
            time: self.event_time(),
            event_id: self.text("event_id").unwrap_or_default().to_owned(),
            position: Position::from_i64(positions.value(self.row)),
        }
    }

    pub(super) fn set(&self, name: &str, value: Value) -> Change {
        Change::Set { name: name.to_owned(), stamp: self.stamp(), value }
    }
}
