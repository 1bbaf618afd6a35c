//! What to try Forecourt on: a simulated market, and listing files as events.
//!
//! - [`import`]: real listing files, told in the catalogue's events;
//! - [`market`]: a whole history, in event-time order;
//! - `story`: how one thread of events is told;
//! - one module per chapter of a vehicle's life: `acquisition`, `production`, `listing`, `sale`, `after_sale`; and the
//!   `office` around them;
//! - `cars`: the models, places and names there are.

mod acquisition;
mod after_sale;
mod cars;
pub mod import;
mod listing;
pub mod market;
mod office;
mod production;
mod sale;
mod story;

pub use market::{Market, MarketError};
