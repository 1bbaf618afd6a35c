//! The document a buyer sees.

use schemas::Position;
use serde::{Deserialize, Serialize};

use crate::geo::Place;

/// Where a listing is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingStatus {
    /// Known, and not yet shown to the public.
    #[default]
    Draft,
    Public,
    /// Withdrawn from the public.
    Withdrawn,
    Sold,
    Wholesale,
}

/// Whether a buyer can have it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    Available,
    Reserved,
    Unavailable,
}

impl Availability {
    pub const ALL: [Self; 3] = [Self::Available, Self::Reserved, Self::Unavailable];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Reserved => "reserved",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One listing, joined with its vehicle and its reservations. Times are microseconds since 1970, UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    pub listing_id: String,
    pub vehicle_id: Option<String>,
    pub status: ListingStatus,
    /// Whether it is withdrawn from sale for another reason than a reservation.
    pub unavailable: bool,
    /// The end of the reservation that holds it.
    pub reserved_until: Option<i64>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub vin: Option<String>,
    pub make: Option<String>,
    pub model: Option<String>,
    pub trim: Option<String>,
    pub year: Option<i64>,
    /// In hundredths of the currency.
    pub price_cents: Option<i64>,
    pub currency: Option<String>,
    /// Kilometres.
    pub mileage: Option<i64>,
    pub condition: Option<String>,
    pub body_type: Option<String>,
    pub fuel_type: Option<String>,
    pub transmission: Option<String>,
    pub drivetrain: Option<String>,
    pub engine: Option<String>,
    pub color: Option<String>,
    pub interior_color: Option<String>,
    pub doors: Option<i64>,
    pub seats: Option<i64>,
    pub features: Vec<String>,
    pub photos: Vec<String>,
    pub dealer_id: Option<String>,
    pub dealer_name: Option<String>,
    pub city: Option<String>,
    pub province: Option<String>,
    pub country: Option<String>,
    /// Degrees, WGS 84.
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub certified: bool,
    pub history_status: Option<String>,
    pub owner_count: Option<i64>,
    /// Whether the history check found no accident; none, when nothing is known of it.
    pub accident_free: Option<bool>,
    pub featured_from: Option<i64>,
    pub featured_to: Option<i64>,
    pub listed_at: Option<i64>,
    /// Where the log says that it was listed then.
    pub listed_position: Option<Position>,
    pub sold_at: Option<i64>,
    pub sold_price_cents: Option<i64>,
    /// Every price it had, in the order of time.
    pub prices: Vec<Price>,
    /// Grows with views and favourites, each worth twice as much as one a week older. Only the order means anything.
    pub popularity: f64,
}

/// A price that a listing has or had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Microseconds since 1970, UTC.
    pub since: i64,
    /// In hundredths of the currency.
    pub cents: i64,
    /// Where the log says so first.
    pub position: Position,
}

impl Listing {
    /// Whether a buyer can have it at `now`.
    #[must_use]
    pub fn availability(&self, now: i64) -> Availability {
        availability(self.status == ListingStatus::Public, self.unavailable, self.reserved_until, now)
    }

    /// How much lower its price is than the one before, in hundredths; none, when it was not lowered last.
    #[must_use]
    pub fn price_drop_cents(&self) -> Option<i64> {
        price_drop_cents(self.prices.iter())
    }

    /// Its place on the Earth.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.latitude.zip(self.longitude).and_then(|(latitude, longitude)| Place::new(latitude, longitude))
    }
}

/// How much lower the last of these prices is than the one before.
pub(crate) fn price_drop_cents<'a>(prices: impl DoubleEndedIterator<Item = &'a Price>) -> Option<i64> {
    let mut latest = prices.rev().map(|price| price.cents);
    let now = latest.next()?;
    let before = latest.find(|cents| *cents != now)?;
    (before > now).then_some(before - now)
}

/// Availability from the facts an index keeps of a listing.
#[must_use]
pub fn availability(public: bool, unavailable: bool, reserved_until: Option<i64>, now: i64) -> Availability {
    match (public, reserved_until) {
        (false, _) => Availability::Unavailable,
        (true, Some(until)) if until > now => Availability::Reserved,
        (true, _) if unavailable => Availability::Unavailable,
        (true, _) => Availability::Available,
    }
}
