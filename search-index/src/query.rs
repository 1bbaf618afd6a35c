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
    Deal,
    Certified,
    /// Depends on the time of asking, so it is computed and not stored.
    Availability,
}

impl Facet {
    /// Every facet, in the order answers show them.
    pub const ALL: [Self; 16] = [
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
        Self::Deal,
        Self::Certified,
        Self::Availability,
    ];

    /// Those that are columns of the index.
    pub(crate) const STORED: &'static [Self] = Self::ALL.split_at(15).0;

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
            Self::Availability => "availability",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|facet| facet.name() == name)
    }

    /// The values a listing has, as people choose them. Availability is none of the listing's own.
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
    /// By how well the text matches; without a text, the newest first.
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
    pub filters: BTreeMap<Facet, Vec<String>>,
    pub ranges: BTreeMap<Range, Bounds>,
    pub near: Option<Place>,
    pub radius_km: Option<f64>,
    pub sort: Sort,
    pub page_size: usize,
    pub cursor: Option<Cursor>,
    /// Which facets to count.
    pub facets: Vec<Facet>,
    /// The time of asking: microseconds since 1970, UTC.
    pub now: i64,
}

impl SearchRequest {
    /// What a cursor must agree on with the search that made it: everything but the page.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        let ranges: Vec<_> = self.ranges.iter().map(|(range, bounds)| format!("{range:?}{bounds:?}")).collect();
        (&self.text, &self.filters, ranges, format!("{:?}{:?}", self.near, self.radius_km), self.sort.name())
            .hash(&mut hasher);
        hasher.finish()
    }
}
