//! How listings are found.
//!
//! - [`listing`]: the document a buyer sees;
//! - [`fields`]: how it is laid out in the index;
//! - [`index`]: writing documents and entity states, and the snapshot a search reads;
//! - [`query`]: what a search may ask;
//! - [`search`]: the answer: hits, facets, ranges, a cursor;
//! - [`geo`] measures distances.

mod collector;
pub mod fields;
pub mod geo;
pub mod index;
pub mod listing;
pub mod query;
mod ranges;
pub mod search;
mod unsynced_directory;

pub use index::{Entry, IndexError, ListingIndex, ListingSnapshot, Reflected};
pub use listing::{Availability, Listing, ListingStatus};
pub use query::{Facet, Range, SearchRequest, Sort};
pub use search::{Hit, SearchPage};
