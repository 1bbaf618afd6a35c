//! What an event is.
//!
//! Everything Forecourt knows about the marketplace's events starts here, and nothing here does I/O:
//!
//! - [`catalogue`]: the contexts, events and fields, read from the TOML files in `catalogue/`;
//! - [`field_type`]: the types a field may have, and their Arrow and JSON shapes;
//! - [`ids`]: event ids, positions and their newtypes;
//! - [`validation`]: from the bytes of a message to a typed [`Event`], or a [`Rejection`] that says why not;
//! - [`columns`]: from events to Arrow record batches, one schema per context;
//! - [`rows`]: from a record batch back to an event's JSON.

pub mod catalogue;
pub mod columns;
pub mod field_type;
pub mod ids;
pub mod names;
pub mod rows;
pub mod validation;

pub use catalogue::{Catalogue, Context, ContextIndex, EventDefinition, EventIndex};
pub use columns::{ContextBatchBuilder, Stamp};
pub use ids::{EventId, EventKey, Position};
pub use validation::{Event, MAX_EVENT_BYTES, Rejection, RejectionCode};
