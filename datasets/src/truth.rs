//! What happened, counted by the model that made it happen.
//!
//! The ledger takes facts as they are told and knows nothing of how Forecourt reads events: what both say must agree.

use std::collections::BTreeMap;

use schemas::{field_type::format_timestamp, time::MICROS_PER_DAY};
use serde::Serialize;

/// Something that an event says, for those who count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    Offered {
        amount: i64,
    },
    OfferAccepted,
    OfferRejected,
    OfferExpired,
    /// A vehicle passed its last check, after this long in production (microseconds).
    Produced {
        took: i64,
    },
    Listed(Box<ListingTruth>),
    Priced {
        listing: String,
        price: i64,
    },
    Photographed {
        listing: String,
        photos: u64,
    },
    Published {
        listing: String,
    },
    Sold {
        listing: String,
        price: i64,
    },
    Withdrawn {
        listing: String,
    },
    Returned,
    Surveyed {
        answer: i64,
    },
    Rated {
        score: i64,
    },
    Reviewed {
        stars: i64,
    },
}

/// How a listing ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ListingTruth {
    #[serde(skip)]
    pub listing: String,
    pub status: &'static str,
    pub make: &'static str,
    pub model: &'static str,
    pub trim: &'static str,
    pub year: i64,
    pub mileage: i64,
    pub city: &'static str,
    /// CAD; null until it is set.
    pub price: Option<i64>,
    pub photos: u64,
}

/// Sales of a day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SalesTruth {
    pub units_sold: u64,
    pub revenue: i64,
    pub units_returned: u64,
}

/// Offers of a day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OffersTruth {
    pub offers_generated: u64,
    pub offered: i64,
    pub offers_accepted: u64,
    pub offers_rejected: u64,
    pub offers_expired: u64,
}

/// What left production on a day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProductionTruth {
    pub vehicles_completed: u64,
    /// In all, in microseconds.
    pub in_production: i64,
}

/// What customers said on a day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SatisfactionTruth {
    pub nps_answers: u64,
    pub promoters: u64,
    pub detractors: u64,
    pub ratings: u64,
    /// Ratings of 4 or more.
    pub satisfied: u64,
    pub reviews: u64,
    pub stars: i64,
}

/// A line that is no event, and the code it must be refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MalformedTruth {
    /// From 1.
    pub line: u64,
    pub code: &'static str,
}

/// KPIs by day.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KpiTruth {
    pub sales_volume: BTreeMap<String, SalesTruth>,
    pub offer_volume: BTreeMap<String, OffersTruth>,
    pub production_rate: BTreeMap<String, ProductionTruth>,
    pub customer_satisfaction: BTreeMap<String, SatisfactionTruth>,
}

/// The ledger of a whole history.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Truth {
    /// Lines written.
    pub lines: u64,
    /// Events, each once.
    pub events: u64,
    /// Lines that repeat an earlier event.
    pub duplicates: u64,
    /// Events that are written after one that happened later.
    pub late: u64,
    pub malformed: Vec<MalformedTruth>,
    /// Events by `context.Name`.
    pub counts: BTreeMap<String, u64>,
    pub listings: BTreeMap<String, ListingTruth>,
    pub kpis: KpiTruth,
}

impl Truth {
    pub(crate) fn count(&mut self, name: &str) {
        self.events += 1;
        match self.counts.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(name.to_owned(), 1)),
        }
    }

    /// Take a fact that happened at `time` (microseconds since 1970, UTC).
    pub(crate) fn take(&mut self, time: i64, fact: &Fact) {
        let day = format_timestamp(time.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY)[.."2026-01-01".len()].to_owned();
        let kpis = &mut self.kpis;
        match fact {
            Fact::Offered { amount } => {
                let offers = kpis.offer_volume.entry(day).or_default();
                offers.offers_generated += 1;
                offers.offered += amount;
            }
            Fact::OfferAccepted => kpis.offer_volume.entry(day).or_default().offers_accepted += 1,
            Fact::OfferRejected => kpis.offer_volume.entry(day).or_default().offers_rejected += 1,
            Fact::OfferExpired => kpis.offer_volume.entry(day).or_default().offers_expired += 1,
            Fact::Produced { took } => {
                let production = kpis.production_rate.entry(day).or_default();
                production.vehicles_completed += 1;
                production.in_production += took;
            }
            Fact::Listed(listing) => {
                self.listings.insert(listing.listing.clone(), ListingTruth::clone(listing));
            }
            Fact::Priced { listing, price } => self.listing(listing, |truth| truth.price = Some(*price)),
            Fact::Photographed { listing, photos } => self.listing(listing, |truth| truth.photos = *photos),
            Fact::Published { listing } => self.listing(listing, |truth| truth.status = "public"),
            Fact::Sold { listing, price } => {
                let sales = kpis.sales_volume.entry(day).or_default();
                sales.units_sold += 1;
                sales.revenue += price;
                self.listing(listing, |truth| truth.status = "sold");
            }
            Fact::Withdrawn { listing } => self.listing(listing, |truth| truth.status = "withdrawn"),
            Fact::Returned => kpis.sales_volume.entry(day).or_default().units_returned += 1,
            Fact::Surveyed { answer } => {
                let said = kpis.customer_satisfaction.entry(day).or_default();
                said.nps_answers += 1;
                said.promoters += u64::from(*answer >= 9);
                said.detractors += u64::from(*answer <= 6);
            }
            Fact::Rated { score } => {
                let said = kpis.customer_satisfaction.entry(day).or_default();
                said.ratings += 1;
                said.satisfied += u64::from(*score >= 4);
            }
            Fact::Reviewed { stars } => {
                let said = kpis.customer_satisfaction.entry(day).or_default();
                said.reviews += 1;
                said.stars += stars;
            }
        }
    }

    fn listing(&mut self, listing: &str, change: impl FnOnce(&mut ListingTruth)) {
        if let Some(truth) = self.listings.get_mut(listing) {
            change(truth);
        }
    }
}
