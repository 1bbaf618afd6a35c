//! What an event is.
//!
//! Everything Forecourt knows about the marketplace's events starts here, and nothing here does I/O:
//!
//! - [`catalogue`]: the contexts, events and fields, read from the TOML files in `catalogue/`;
//! - [`versions`]: how an older version of an event becomes the newer;
//! - [`retention`]: how long events of each class are kept;
//! - [`limits`]: what a field's values must keep to;
//! - [`field_type`]: the types a field may have, and their Arrow and JSON shapes;
//! - [`time`]: lengths of time in microseconds;
//! - [`ids`]: event ids, positions and their newtypes;
//! - [`splitter`]: bytes cut into the texts of events;
//! - [`envelope`]: the styles of envelope that events come in;
//! - [`rejection`]: why an event is refused;
//! - [`validation`]: from the bytes of a message to a typed [`Event`], or a [`Rejection`] that says why not;
//! - [`columns`]: one Arrow schema per context; [`batch_builder`]: from events to record batches of it;
//! - [`examples`]: a valid example of every event; [`export`]: the catalogue as documents;
//! - [`compatibility`]: whether a catalogue still takes what an earlier one took;
//! - [`rows`]: from a record batch back to an event's JSON;
//! - [`scarcity`]: whether an error is for want of something on the machine.

pub mod batch_builder;
pub mod catalogue;
pub mod columns;
pub mod compatibility;
pub mod envelope;
pub mod examples;
pub mod export;
pub mod field_type;
pub mod ids;
pub mod limits;
pub mod names;
pub mod rejection;
pub mod retention;
pub mod rows;
pub mod scarcity;
pub mod splitter;
pub mod time;
pub mod validation;
pub mod versions;

pub use batch_builder::{ContextBatchBuilder, Stamp};
pub use catalogue::{Catalogue, Context, ContextIndex, EventDefinition, EventIndex};
pub use ids::{EventId, EventKey, Position};
pub use rejection::{MAX_EVENT_BYTES, Rejection, RejectionCode};
pub use retention::{Retention, RetentionPolicy};
pub use validation::Event;
