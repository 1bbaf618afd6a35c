//! Events become facts, and facts become listings.
//!
//! Facts belong to entities: vehicles, listings, reservations, inspections. A fact is a register that the latest event
//! wins, by event time, then event id; links between entities only grow; views are counted by day. All three give the
//! same whatever order the events come in. A listing is built from its own facts and those of the entities it is
//! linked to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use schemas::{Context, Position};

mod build;
mod entity;
mod row;
mod rules;

pub use build::listing;
pub use entity::{Change, Entity, EntityKey, EntityKind};
use row::{Row, Rows};
pub use rules::CONTEXTS;

/// The changes that the rows after a position make, by entity. `context` is the rows' context.
#[must_use]
pub fn changes(context: &Context, batch: &RecordBatch, after: Position) -> Vec<(EntityKey, Change)> {
    let rows = Rows::new(context, batch);
    let mut changes = Vec::new();
    let positions = batch.column(0).as_primitive::<Int64Type>();
    let event_types = rows.column("event_type").map(|types| types.as_string::<i32>());
    for (row, &position) in positions.values().iter().enumerate() {
        if position > after.as_i64()
            && let Some(types) = event_types
        {
            let before = changes.len();
            let extract = || rules::extract_changes(&mut changes, types.value(row), &Row { rows: &rows, row });
            if catch_panic(extract).is_none() {
                tracing::error!(position, "an event is too much for the index and is left out of it");
                changes.truncate(before);
            }
        }
    }
    changes
}

/// The result of `work`, or none if it panics: one event or listing must not keep all others from the index.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What it may have left half done is not used by the callers.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

#[cfg(test)]
mod tests;
