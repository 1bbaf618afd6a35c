//! A whole history, in event-time order.

use std::io::{self, Write};

use schemas::{Catalogue, catalogue::CatalogueError};
use serde_json::Value;

use crate::{
    acquisition, after_sale,
    cars::{CITIES, Model},
    listing, office, production, sale,
    story::{Story, Told},
};

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// A vehicle's life from its first offer to its last claim takes about this long; a shorter history tells it faster.
const LIFE_DAYS: f64 = 90.0;
/// Threads of a seed beside the vehicles': the office's is the last.
const OFFICE_STREAM: u64 = u64::MAX;
/// What makes a vehicle's life one of the rarer kinds repeats with this period, so that few vehicles show them all.
pub(crate) const KINDS: u32 = 10;

/// A market to be simulated. The same market is the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    pub seed: u64,
    pub days: u32,
    /// How many vehicles the marketplace buys.
    pub vehicles: u32,
    /// The first midnight: microseconds since 1970, UTC.
    pub start: i64,
}

/// A history that could not be told.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    #[error("the catalogue cannot be read")]
    Catalogue(#[from] CatalogueError),
    #[error("the history cannot be written")]
    Write(#[from] io::Error),
}

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
    pub(crate) city: (&'static str, &'static str, f64, f64),
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

impl Market {
    /// Write the history, one event per line, in the order of event time; how many events there were.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&self, output: &mut impl Write) -> Result<u64, MarketError> {
        let catalogue = Catalogue::embedded()?;
        let mut told = Vec::new();
        for number in 0..self.vehicles {
            self.vehicle(&catalogue, &mut told, number);
        }
        let pace = self.pace();
        let mut story = Story::new(&catalogue, &mut told, self.seed, OFFICE_STREAM, self.start, pace);
        office::run(&mut story, self.start, self.end(), self.vehicles);
        let end = self.end();
        told.retain(|event| event.time < end);
        // Ties keep the order they were told in.
        told.sort_by_key(|event| event.time);
        for event in &told {
            output.write_all(event.line.as_bytes())?;
            output.write_all(b"\n")?;
        }
        Ok(told.len() as u64)
    }

    fn end(&self) -> i64 {
        self.start + i64::from(self.days) * MICROS_PER_DAY
    }

    fn pace(&self) -> f64 {
        (f64::from(self.days) / LIFE_DAYS).min(1.0)
    }

    /// One vehicle's life.
    fn vehicle(&self, catalogue: &Catalogue, told: &mut Vec<Told>, number: u32) {
        let mut story = Story::new(catalogue, told, self.seed, u64::from(number), self.start, self.pace());
        // The first of each kind begins at once, so that every kind of life is told to its end.
        let latest = if number < KINDS { 0.01 } else { 0.85 };
        let share = story.between(0.0, latest);
        #[expect(clippy::cast_possible_truncation, reason = "a share of ten years")]
        let offset = (share * (self.end() - self.start) as f64) as i64 / 1_000 * 1_000;
        story.jump(self.start + offset);
        acquisition::offers_that_fail(&mut story, number);
        let mut car = acquisition::meet(&mut story, number);
        let cost = acquisition::buy(&mut story, &car);
        if !production::recondition(&mut story, &mut car) {
            return;
        }
        let price = listing::publish(&mut story, &car, cost);
        let sold = sale::sell(&mut story, &car, price);
        if let Some(sold) = sold {
            after_sale::deliver_and_keep(&mut story, &car, &sold);
        }
    }
}

/// A city of the market.
pub(crate) fn city(story: &mut Story<'_>) -> (&'static str, &'static str, f64, f64) {
    *story.pick(&CITIES)
}

#[cfg(test)]
mod tests;
