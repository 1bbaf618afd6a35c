//! Events become facts, and facts become listings.
//!
//! Facts belong to entities: vehicles, listings, reservations, inspections. A fact is a register that the latest event
//! wins, by event time, then event id; links between entities only grow; views are counted by day. All three give the
//! same whatever order the events come in. A listing is built from its own facts and those of the entities it is
//! linked to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use schemas::{Context, Position, rows};
use search_index::{Listing, ListingStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod build;
mod rules;

pub use build::listing;
pub use rules::CONTEXTS;

/// Days of views that popularity remembers: what retention removes after 30 days must not weigh.
const REMEMBERED_DAYS: i64 = 30;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// An entity's name: `vehicle/…`, `listing/…`, `reservation/…` or `inspection/…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityKey(String);

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityKind {
    Vehicle,
    Listing,
    Reservation,
    Inspection,
}

impl EntityKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Vehicle => "vehicle/",
            Self::Listing => "listing/",
            Self::Reservation => "reservation/",
            Self::Inspection => "inspection/",
        }
    }

    /// The key of one entity of this kind.
    #[must_use]
    pub fn key(self, id: &str) -> EntityKey {
        EntityKey(format!("{}{id}", self.prefix()))
    }
}

impl EntityKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, if the entity is of this kind.
    #[must_use]
    pub fn id(&self, kind: EntityKind) -> Option<&str> {
        self.0.strip_prefix(kind.prefix())
    }
}

/// When a fact was said, and by which event: the later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// Microseconds since 1970, UTC.
    time: i64,
    event_id: String,
    /// Where the log has it: the same for an event, whatever came between.
    position: Position,
}

/// A fact and who said it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register(Said, Value);

/// What is known of one entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    #[serde(rename = "f")]
    facts: BTreeMap<String, Register>,
    #[serde(rename = "l", default, skip_serializing_if = "BTreeSet::is_empty")]
    links: BTreeSet<EntityKey>,
    /// Views and favourites by day since 1970.
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty")]
    views: BTreeMap<i64, i64>,
}

/// One thing an event says about an entity.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Set { name: String, said: Said, value: Value },
    Link(EntityKey),
    View { day: i64, weight: i64 },
}

impl Entity {
    /// Take in a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Set { name, said, value } => match self.facts.get_mut(&name) {
                Some(Register(known, _)) if *known >= said => {}
                Some(register) => *register = Register(said, value),
                None => {
                    self.facts.insert(name, Register(said, value));
                }
            },
            Change::Link(key) => {
                self.links.insert(key);
            }
            Change::View { day, weight } => {
                *self.views.entry(day).or_default() += weight;
                if let Some((&last, _)) = self.views.last_key_value() {
                    self.views = self.views.split_off(&(last - REMEMBERED_DAYS));
                }
            }
        }
    }

    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The entities it is linked to.
    pub fn links(&self) -> impl Iterator<Item = &EntityKey> {
        self.links.iter()
    }

    /// The vehicle it belongs to.
    #[must_use]
    pub fn vehicle(&self) -> Option<EntityKey> {
        self.text("vehicle_id").map(|id| EntityKind::Vehicle.key(id))
    }

    fn register(&self, name: &str) -> Option<&Register> {
        self.facts.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.register(name).and_then(|Register(_, value)| value.as_str())
    }
}

/// Everything the rows after a position say, by entity. `context` is the rows' context.
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
            let say = || rules::say(&mut changes, types.value(row), &Row { rows: &rows, row });
            if unless_it_panics(say).is_none() {
                tracing::error!(position, "an event is too much for the index and is left out of it");
                changes.truncate(before);
            }
        }
    }
    changes
}

/// What `work` gives; nothing, if it panics: one event or listing must not keep all others from the index.
pub(crate) fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What it may have left half done is not used by the callers.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// A batch with its columns at hand.
struct Rows<'a> {
    context: &'a Context,
    batch: &'a RecordBatch,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Rows<'a> {
    fn new(context: &'a Context, batch: &'a RecordBatch) -> Self {
        let by_name =
            batch.schema_ref().fields().iter().enumerate().map(|(index, field)| (field.name().as_str(), index));
        Self { context, batch, by_name: by_name.collect() }
    }

    fn column(&self, name: &str) -> Option<&dyn Array> {
        self.by_name.get(name).map(|&index| self.batch.column(index).as_ref())
    }
}

/// One event.
struct Row<'a> {
    rows: &'a Rows<'a>,
    row: usize,
}

impl Row<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let column = self.rows.column(name)?.as_string_opt::<i32>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    /// Microseconds since 1970, UTC.
    fn time(&self, name: &str) -> Option<i64> {
        let column = self.rows.column(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    fn event_time(&self) -> i64 {
        self.time("event_time").unwrap_or_default()
    }

    /// A payload field as its event had it.
    fn value(&self, name: &str) -> Option<Value> {
        let column = self.rows.context.columns.iter().find(|column| column.name == name)?;
        let array = self.rows.column(name)?;
        array.is_valid(self.row).then(|| rows::value(column.kind, array, self.row))
    }

    fn said(&self) -> Said {
        let positions = self.rows.batch.column(0).as_primitive::<Int64Type>();
        Said {
            time: self.event_time(),
            event_id: self.text("event_id").unwrap_or_default().to_owned(),
            position: Position::from_i64(positions.value(self.row)),
        }
    }

    fn set(&self, name: &str, value: Value) -> Change {
        Change::Set { name: name.to_owned(), said: self.said(), value }
    }
}

#[cfg(test)]
mod tests;
