//! What a search may ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{geo::Place, listing::Listing};

/// A field with values to choose from and to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    Make,
    Model,
    Trim,
    BodyType,
    FuelType,
    Transmission,
    Drivetrain,
    Color,
    Condition,
    Province,
    City,
    Features,
    Seats,
    Certified,
    /// The selling dealer, by name.
    Dealer,
    /// Depends on the market, so it is computed and not stored.
    Deal,
    /// Depends on the time of asking, so it is computed and not stored.
    Availability,
}

impl Facet {
    /// Every facet, in the order answers show them.
    pub const ALL: [Self; 17] = [
        Self::Make,
        Self::Model,
        Self::Trim,
        Self::BodyType,
        Self::FuelType,
        Self::Transmission,
        Self::Drivetrain,
        Self::Color,
        Self::Condition,
        Self::Province,
        Self::City,
        Self::Features,
        Self::Seats,
        Self::Certified,
        Self::Dealer,
        Self::Deal,
        Self::Availability,
    ];

    /// Those that are columns of the index.
    pub(crate) const STORED: &'static [Self] = Self::ALL.split_at(15).0;

    /// Those whose values are words to find a listing by.
    pub(crate) const ATTRIBUTES: [Self; 8] = [
        Self::BodyType,
        Self::FuelType,
        Self::Transmission,
        Self::Drivetrain,
        Self::Color,
        Self::Condition,
        Self::Province,
        Self::City,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Model => "model",
            Self::Trim => "trim",
            Self::BodyType => "body_type",
            Self::FuelType => "fuel_type",
            Self::Transmission => "transmission",
            Self::Drivetrain => "drivetrain",
            Self::Color => "color",
            Self::Condition => "condition",
            Self::Province => "province",
            Self::City => "city",
            Self::Features => "features",
            Self::Seats => "seats",
            Self::Deal => "deal",
            Self::Certified => "certified",
            Self::Dealer => "dealer",
            Self::Availability => "availability",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|facet| facet.name() == name)
    }

    /// The values a listing has, as people choose them. Deal and availability are none of the listing's own.
    #[must_use]
    pub fn values(self, listing: &Listing) -> Vec<String> {
        let one = |value: &Option<String>| value.iter().cloned().collect();
        match self {
            Self::Make => one(&listing.make),
            Self::Model => one(&listing.model),
            Self::Trim => one(&listing.trim),
            Self::BodyType => one(&listing.body_type),
            Self::FuelType => one(&listing.fuel_type),
            Self::Transmission => one(&listing.transmission),
            Self::Drivetrain => one(&listing.drivetrain),
            Self::Color => one(&listing.color),
            Self::Condition => one(&listing.condition),
            Self::Province => one(&listing.province),
            Self::City => one(&listing.city),
            Self::Features => {
                let mut features = listing.features.clone();
                features.sort();
                features.dedup();
                features
            }
            Self::Seats => listing.seats.iter().map(i64::to_string).collect(),
            Self::Certified => vec![listing.certified.to_string()],
            Self::Dealer => one(&listing.dealer_name),
            Self::Deal | Self::Availability => Vec::new(),
        }
    }
}

/// A field with bounds to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// In the currency's whole units.
    Price,
    Year,
    /// Kilometres.
    Mileage,
}

impl Range {
    pub const ALL: [Self; 3] = [Self::Price, Self::Year, Self::Mileage];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Year => "year",
            Self::Mileage => "mileage",
        }
    }

    /// Its column in the index.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Price => "price_cents",
            Self::Year => "year",
            Self::Mileage => "mileage",
        }
    }

    /// What a value of the column is in this range.
    #[expect(clippy::cast_precision_loss, reason = "cents, years and kilometres are far below 2^53")]
    pub(crate) fn value_of(self, stored: i64) -> f64 {
        let value = stored as f64;
        if self == Self::Price { value / 100.0 } else { value }
    }
}

/// What a listing has to meet: what can be given up to find more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criterion {
    Text,
    Facet(Facet),
    Range(Range),
    Payment,
    PriceDrop,
    DaysListed,
    AccidentFree,
    Owners,
    Radius,
}

impl Criterion {
    /// The search parameter it is given by; of a range, without `_min` and `_max`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "q",
            Self::Facet(facet) => facet.name(),
            Self::Range(range) => range.name(),
            Self::Payment => "payment_max",
            Self::PriceDrop => "price_drop",
            Self::DaysListed => "days_listed_max",
            Self::AccidentFree => "accident_free",
            Self::Owners => "owners_max",
            Self::Radius => "radius_km",
        }
    }
}

impl SearchRequest {
    /// What is asked for beside the text, the cheapest to tell first.
    pub(crate) fn criteria(&self) -> Vec<Criterion> {
        let facets = self.filters.keys().map(|facet| (true, Criterion::Facet(*facet)));
        let ranges = Range::ALL.into_iter().map(|range| {
            let is_open = self.ranges.get(&range).is_none_or(|bounds| bounds.is_open());
            (!is_open, Criterion::Range(range))
        });
        let others = [
            (self.affordable.is_some(), Criterion::Payment),
            (self.price_drop, Criterion::PriceDrop),
            (self.days_listed_max.is_some(), Criterion::DaysListed),
            (self.accident_free, Criterion::AccidentFree),
            (self.owners_max.is_some(), Criterion::Owners),
            (self.near.and(self.radius_km).is_some(), Criterion::Radius),
        ];
        facets.chain(ranges).chain(others).filter(|(asked, _)| *asked).map(|(_, criterion)| criterion).collect()
    }

    /// Ask for something no more. The text is asked beside the request.
    pub(crate) fn give_up(&mut self, criterion: Criterion) {
        match criterion {
            Criterion::Text => {}
            Criterion::Facet(facet) => drop(self.filters.remove(&facet)),
            Criterion::Range(range) => drop(self.ranges.remove(&range)),
            Criterion::Payment => self.affordable = None,
            Criterion::PriceDrop => self.price_drop = false,
            Criterion::DaysListed => self.days_listed_max = None,
            Criterion::AccidentFree => self.accident_free = false,
            Criterion::Owners => self.owners_max = None,
            Criterion::Radius => self.radius_km = None,
        }
    }
}

/// How the values of a facet are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacetShape {
    /// At most so many; chosen ones are shown beyond it.
    pub limit: usize,
    pub order: FacetOrder,
    /// Only values that have a word that begins like this.
    pub query: Option<String>,
}

impl Default for FacetShape {
    fn default() -> Self {
        Self { limit: 100, order: FacetOrder::Count, query: None }
    }
}

/// What comes first in a facet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FacetOrder {
    /// The most frequent, then by name.
    #[default]
    Count,
    /// By name; numbers by size.
    Value,
}

/// Inclusive bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Bounds {
    #[must_use]
    pub fn contains(self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    #[must_use]
    pub const fn is_open(self) -> bool {
        self.min.is_none() && self.max.is_none()
    }
}

/// How hits are ordered; ties by listing id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By how well the text matches; of what is not asked in words, the newest first.
    #[default]
    Relevance,
    Price,
    PriceDescending,
    Mileage,
    Year,
    YearDescending,
    Newest,
    Distance,
    Deal,
    Popular,
}

impl Sort {
    pub const ALL: [Self; 10] = [
        Self::Relevance,
        Self::Price,
        Self::PriceDescending,
        Self::Mileage,
        Self::Year,
        Self::YearDescending,
        Self::Newest,
        Self::Distance,
        Self::Deal,
        Self::Popular,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relevance => "relevance",
            Self::Price => "price",
            Self::PriceDescending => "-price",
            Self::Mileage => "mileage",
            Self::Year => "year",
            Self::YearDescending => "-year",
            Self::Newest => "newest",
            Self::Distance => "distance",
            Self::Deal => "deal",
            Self::Popular => "popular",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == name)
    }
}

/// Where a page ended: the next one begins after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// The sort key of the last hit; ascending whatever the sort, absent values last.
    #[serde(rename = "k", with = "key_bits")]
    pub key: f64,
    #[serde(rename = "i")]
    pub listing_id: String,
    /// The search it belongs to.
    #[serde(rename = "s")]
    pub search: u64,
    /// When its first page was asked for: what depends on the time stays as it was then.
    #[serde(rename = "n")]
    pub now: i64,
}

/// A float kept to the bit, infinity included, which JSON numbers cannot be.
mod key_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(key.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

impl Cursor {
    /// As text for a URL.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        json.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From text of [`Self::encode`].
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return None;
        }
        let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok());
        serde_json::from_slice(&bytes.collect::<Option<Vec<_>>>()?).ok()
    }
}

/// A search. Filters are OR within a facet and AND across facets, ranges, text and distance.
#[derive(Clone, Debug, Default)]
pub struct SearchRequest {
    pub text: String,
    /// Whether it was asked in words: what matches is ordered by how well even where all of them were read as filters.
    pub in_words: bool,
    pub filters: BTreeMap<Facet, Vec<String>>,
    pub ranges: BTreeMap<Range, Bounds>,
    pub near: Option<Place>,
    pub radius_km: Option<f64>,
    /// The price that a monthly payment allows.
    pub affordable: Option<f64>,
    /// Only listings whose price was lowered last.
    pub price_drop: bool,
    pub days_listed_max: Option<f64>,
    /// Only listings whose history check found no accident.
    pub accident_free: bool,
    pub owners_max: Option<i64>,
    pub sort: Sort,
    pub page_size: usize,
    pub cursor: Option<Cursor>,
    /// Which facets to count.
    pub facets: Vec<Facet>,
    /// How they are shown, if not as usual.
    pub shapes: BTreeMap<Facet, FacetShape>,
    /// Whether makes are counted with their models and trims below them.
    pub hierarchy: bool,
    /// What a cursor must agree on with the search that made it: everything but the page.
    pub fingerprint: u64,
    /// The time of asking: microseconds since 1970, UTC.
    pub now: i64,
}
