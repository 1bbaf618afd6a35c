//! A vehicle of the simulated market, and who has to do with it.

use serde_json::Value;

use crate::cars::{City, Model};

/// What makes a vehicle's life one of the rarer kinds repeats with this period, so that few vehicles show them all.
pub(crate) const KINDS: u32 = 10;

/// A vehicle and who has to do with it.
pub(crate) struct Car {
    /// Which of the vehicles, from 0.
    pub(crate) number: u32,
    pub(crate) vehicle_id: String,
    pub(crate) listing_id: String,
    pub(crate) seller: String,
    pub(crate) buyer: String,
    pub(crate) model: &'static Model,
    pub(crate) trim: &'static str,
    pub(crate) year: i64,
    pub(crate) mileage: i64,
    pub(crate) condition: &'static str,
    pub(crate) color: &'static str,
    pub(crate) city: &'static City,
    /// What it is worth on a forecourt, in CAD.
    pub(crate) worth: f64,
    pub(crate) details: Value,
}

impl Car {
    /// Whether this vehicle's life is of the rarer kind `kind`, below [`KINDS`].
    pub(crate) const fn is_kind(&self, kind: u32) -> bool {
        self.number % KINDS == kind
    }
}
