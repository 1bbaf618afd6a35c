//! What to try Forecourt on: a simulated market, and listing files as events.
//!
//! - [`import`]: real listing files, told in the catalogue's events;
//! - [`market`]: a whole history, in the order in which its events arrive, and its ledger, [`truth`];
//! - [`disorder`]: what befalls events on their way; [`spoiled`]: what nobody would send;
//! - `calendar` and `story`: when things begin, and how one thread of events is told;
//! - one module per chapter of a vehicle's life: `acquisition`, `production`, `listing`, `sale`, `after_sale`; `stock`,
//!   whose listings alone are generated; around them the `office`, and the systems beside the marketplace: `shop`, `dealers`, `courses`, `loyalty`;
//! - `car`: a vehicle of the market; `cars`: the models, places and names there are.

mod acquisition;
mod after_sale;
mod calendar;
mod car;
mod cars;
mod courses;
mod dealers;
pub mod disorder;
pub mod import;
mod listing;
mod loyalty;
pub mod market;
mod office;
mod production;
mod sale;
mod shop;
pub mod spoiled;
mod stock;
mod story;
pub mod truth;

pub use disorder::Disorder;
pub use market::{Market, MarketError};
