//! How listings are found.
//!
//! - [`listing`]: the document a buyer sees;
//! - [`fields`]: how it is laid out in the index;
//! - [`index`]: writing documents and entity states; the `snapshot` a search reads and what it is `reflected` of: `segments`,
//!   those of the last commit from the `store` on disk, and `fresh` ones in memory; `error`s of all of them;
//! - [`query`]: what a search may ask;
//! - [`search`]: the answer: hits, facets, ranges, a cursor;
//! - `pass`: what is found and counted for it, over the `columns` of every segment;
//! - `text`: from what people type to what the index is asked; `words` cuts and compares, `own_words` is what a listing has of
//!   them, `highlight` shows it;
//! - [`lexicon`]: what there is, in words: for suggestions, and for
//! - [`reading`]: the filters that a text says in words;
//! - `similar`: listings like one;
//! - [`market`]: how a listing's price compares, by the model of `pricing`;
//! - [`alerts`]: saved searches, matched with listings as they change;
//! - [`geo`] measures distances.

pub mod alerts;
mod columns;
mod error;
pub mod fields;
mod fresh;
pub mod geo;
mod highlight;
pub mod index;
pub mod lexicon;
pub mod listing;
pub mod market;
mod own_words;
mod pass;
mod pricing;
pub mod query;
pub mod ranges;
pub mod reading;
mod reflected;
pub mod search;
mod segments;
mod similar;
mod snapshot;
mod store;
mod text;
mod unsynced_directory;
mod words;

pub use error::IndexError;
pub use index::{Entry, INDEX_FORMAT, ListingIndex};
pub use listing::{Availability, Listing, ListingStatus, Price};
pub use market::{Deal, Market, Rating};
pub use pricing::{Estimate, HeldOut, Kind};
pub use query::{Criterion, Facet, FacetOrder, FacetShape, Range, SearchRequest, Sort};
pub use reflected::Reflected;
pub use search::{Hit, Instead, SearchPage};
pub use snapshot::ListingSnapshot;
pub use text::Correction;
pub use words::{with_words, without_words};
