//! The catalogue as documents for others: their languages, not ours.
//!
//! - [`json_schema`]: what a valid payload and envelope are, for validators and code generators;
//! - [`asyncapi`]: the log as an API of messages;
//! - [`markdown`]: the data dictionary, for people;
//! - [`summary`]: the catalogue as JSON, as the API and the command line show it.

pub mod asyncapi;
pub mod json_schema;
pub mod markdown;
pub mod summary;
