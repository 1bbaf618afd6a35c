//! What listings are worth beside the others that are offered.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use schemas::Position;
use serde::Serialize;
use tantivy::{
    DocId, SegmentReader,
    columnar::{Column, StrColumn},
    index::SegmentId,
};

use crate::{
    columns::{Columns, Counted, NONE},
    error::IndexError,
    listing::Listing,
    pricing::{Car, Estimate, HeldOut, PriceModel},
    reflected::Reflected,
    segments::{Segment, Segments},
};

/// Up to which share of what cars like it are offered for a price is what.
const GREAT: f64 = 0.90;
const GOOD: f64 = 0.96;
const FAIR: f64 = 1.05;
const HIGH: f64 = 1.15;
/// A price below this share of it is rather a mistake, or a part of the price.
const IMPLAUSIBLE: f64 = 0.4;
const MICROS_PER_YEAR: f64 = 365.2425 * 86_400_000_000.0;

/// How a price compares with those of cars like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deal {
    Great,
    Good,
    Fair,
    High,
    Overpriced,
    Unrated,
}

impl Deal {
    pub const ALL: [Self; 6] = [Self::Great, Self::Good, Self::Fair, Self::High, Self::Overpriced, Self::Unrated];

    /// Its number among values that are counted.
    pub(crate) const fn number(self) -> u32 {
        self as u32 + 1
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Great => "great",
            Self::Good => "good",
            Self::Fair => "fair",
            Self::High => "high",
            Self::Overpriced => "overpriced",
            Self::Unrated => "unrated",
        }
    }

    fn of(price: f64, worth: f64) -> Self {
        match price / worth {
            share if share < IMPLAUSIBLE => Self::Unrated,
            share if share <= GREAT => Self::Great,
            share if share <= GOOD => Self::Good,
            share if share <= FAIR => Self::Fair,
            share if share <= HIGH => Self::High,
            _ => Self::Overpriced,
        }
    }
}

/// A listing's price beside those of cars like it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    pub deal: Deal,
    /// What they are offered for; none, when too few are like it.
    pub estimate: Option<Estimate>,
}

/// What is offered, as of a snapshot.
#[derive(Default)]
pub struct Market {
    names: Names,
    /// By currency: amounts of two are not compared.
    models: BTreeMap<Option<u32>, PriceModel>,
    /// What it was learned from.
    pub position: Position,
    /// The latest event time by then, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// How wrong it is about listings it has not seen.
    pub held_out: Option<HeldOut>,
    /// Ratings of documents never change while the market is the same. They are kept as long as a snapshot has the segment:
    /// those in memory come and go many times a second.
    ratings: Mutex<HashMap<SegmentId, Rated>>,
}

/// A segment's columns, and its ratings.
type Rated = (Weak<Columns>, Arc<SegmentRatings>);

impl fmt::Debug for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Market").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Makes, models, trims, provinces, currencies and body types by number.
#[derive(Default)]
struct Names([HashMap<String, u32>; 6]);

const NAMES: [&str; 6] = ["make", "model", "trim", "province", "currency", "body_type"];

/// Of each document of a segment, its deal, and its price as a share of what it is worth.
#[derive(Debug)]
pub(crate) struct SegmentRatings {
    /// Of those that are listings people may see, by [`Deal::number`].
    pub(crate) deals: Counted,
    shares: Vec<f64>,
}

impl SegmentRatings {
    pub(crate) fn deal(&self, doc: usize) -> Deal {
        let number = self.deals.first(doc);
        Deal::ALL.into_iter().find(|deal| deal.number() == number).unwrap_or(Deal::Unrated)
    }

    /// Lower is better; none, when it is not rated.
    pub(crate) fn share(&self, doc: usize) -> Option<f64> {
        (self.deal(doc) != Deal::Unrated).then(|| self.shares[doc])
    }
}

impl Market {
    /// Learn from the public listings of segments.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(crate) fn of(segments: &Segments, reflected: Reflected) -> Result<Self, IndexError> {
        let Reflected { position, event_time, .. } = reflected;
        let mut market = Self { position, event_time, ..Self::default() };
        let mut found: Vec<(String, Option<u32>, (Car, f64))> = Vec::new();
        for segment in &segments.segments {
            let cars = Cars::of(&segment.reader, |at, name| {
                let names = &mut market.names.0[at];
                let next = u32::try_from(names.len()).ok()?;
                Some(*names.entry(name.to_owned()).or_insert(next))
            })?;
            for (id, doc) in segment.shown_ids()? {
                found.extend(cars.offer(doc).map(|offer| (id, cars.named(4, doc), offer)));
            }
        }
        // In the same order wherever they lie: the same listings make the same market. Each segment's are sorted already.
        found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut offers: BTreeMap<Option<u32>, Vec<(Car, f64)>> = BTreeMap::new();
        for (_, currency, offer) in found {
            offers.entry(currency).or_default().push(offer);
        }
        let now = year_of(event_time.unwrap_or_default());
        market.held_out = PriceModel::held_out(offers.values().map(Vec::as_slice), now);
        let models = offers.into_iter().map(|(currency, offers)| (currency, PriceModel::learn(&offers, now)));
        market.models = models.collect();
        // Whoever searches first with it finds everything rated.
        for segment in &segments.segments {
            market.segment(segment)?;
        }
        Ok(market)
    }

    /// A listing's price beside those of cars like it.
    #[must_use]
    pub fn rate(&self, listing: &Listing) -> Rating {
        let named = |at: usize, name: &Option<String>| self.names.0[at].get(name.as_deref()?).copied();
        let car = || {
            Some(Car {
                make: named(0, &listing.make)?,
                model: named(1, &listing.model)?,
                trim: named(2, &listing.trim),
                body: named(5, &listing.body_type),
                province: named(3, &listing.province),
                year: i32::try_from(listing.year?).ok()?,
                mileage: listing.mileage.map(whole),
            })
        };
        let currency = listing.currency.as_ref().map(|name| self.names.0[4].get(name).copied());
        rating(self.model(currency), car().as_ref(), listing.price_cents)
    }

    /// The model of a currency, if it is said; there is none of one whose number is not known.
    fn model(&self, currency: Option<Option<u32>>) -> Option<&PriceModel> {
        match currency {
            Some(None) => None,
            said => self.models.get(&said.flatten()),
        }
    }

    #[cfg(test)]
    pub(crate) fn has_rated(&self, segment: &Segment) -> bool {
        self.ratings.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&segment.id())
    }

    /// The ratings of a segment's documents.
    pub(crate) fn segment(&self, segment: &Segment) -> tantivy::Result<Arc<SegmentRatings>> {
        let known = || self.ratings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ratings)) = known().get(&segment.id()) {
            return Ok(Arc::clone(ratings));
        }
        let cars = Cars::of(&segment.reader, |at, name| self.names.0[at].get(name).copied())?;
        let (mut deals, mut shares) = (vec![NONE; segment.columns.docs], vec![f64::INFINITY; segment.columns.docs]);
        for at in segment.columns.all.ones() {
            let Ok(doc) = DocId::try_from(at) else { continue };
            let price = cars.price_cents.first(doc);
            let currency = cars.has(4, doc).then(|| cars.named(4, doc));
            let rating = rating(self.model(currency), cars.car(doc).as_ref(), price);
            deals[at] = rating.deal.number();
            if let Some((price, estimate)) = price.zip(rating.estimate) {
                shares[at] = whole(price) / 100.0 / estimate.price;
            }
        }
        let ratings = Arc::new(SegmentRatings { deals: Counted::single(deals), shares });
        let mut known = known();
        known.retain(|_, (columns, _)| columns.strong_count() > 0);
        known.insert(segment.id(), (Arc::downgrade(&segment.columns), Arc::clone(&ratings)));
        Ok(ratings)
    }
}

/// The market that searches compare prices with, if there is one, to rate what is new before they see it.
#[derive(Clone, Default)]
pub(crate) struct MarketInUse(Arc<Mutex<Weak<Market>>>);

impl MarketInUse {
    pub(crate) fn set(&self, market: &Arc<Market>) {
        let mut known = self.known();
        if known.as_ptr() != Arc::as_ptr(market) {
            *known = Arc::downgrade(market);
        }
    }

    /// Rate what has not been rated.
    pub(crate) fn rate(&self, segments: &Segments) -> tantivy::Result<()> {
        let Some(market) = self.known().upgrade() else { return Ok(()) };
        segments.segments.iter().try_for_each(|segment| market.segment(segment).map(drop))
    }

    fn known(&self) -> MutexGuard<'_, Weak<Market>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rating(model: Option<&PriceModel>, car: Option<&Car>, price_cents: Option<i64>) -> Rating {
    let estimate = model.zip(car).and_then(|(model, car)| model.estimate(car));
    let price = price_cents.map(|cents| whole(cents) / 100.0).filter(|price| *price > 0.0);
    let deal = price.zip(estimate).map_or(Deal::Unrated, |(price, estimate)| Deal::of(price, estimate.price));
    Rating { deal, estimate }
}

/// What decides a price, of each document of a segment.
struct Cars {
    names: [(Option<StrColumn>, Vec<Option<u32>>); 6],
    year: Column<i64>,
    mileage: Column<i64>,
    price_cents: Column<i64>,
}

impl Cars {
    /// `number` gives the number of a name in one of [`NAMES`].
    fn of(segment: &SegmentReader, mut number: impl FnMut(usize, &str) -> Option<u32>) -> tantivy::Result<Self> {
        let fast = segment.fast_fields();
        let mut names = [const { (None, Vec::new()) }; 6];
        for (at, (name, known)) in NAMES.iter().zip(&mut names).enumerate() {
            let Some(column) = fast.str(name)? else { continue };
            let mut terms = column.dictionary().stream()?;
            while terms.advance() {
                known.1.push(std::str::from_utf8(terms.key()).ok().and_then(|name| number(at, name)));
            }
            drop(terms);
            known.0 = Some(column);
        }
        Ok(Self {
            names,
            year: fast.i64("year")?,
            mileage: fast.i64("mileage")?,
            price_cents: fast.i64("price_cents")?,
        })
    }

    fn named(&self, at: usize, doc: DocId) -> Option<u32> {
        let (column, numbers) = &self.names[at];
        let ord = column.as_ref()?.ords().first(doc)?;
        numbers.get(usize::try_from(ord).ok()?).copied().flatten()
    }

    /// Whether it has such a name, known or not.
    fn has(&self, at: usize, doc: DocId) -> bool {
        self.names[at].0.as_ref().is_some_and(|column| column.ords().first(doc).is_some())
    }

    fn car(&self, doc: DocId) -> Option<Car> {
        Some(Car {
            make: self.named(0, doc)?,
            model: self.named(1, doc)?,
            trim: self.named(2, doc),
            body: self.named(5, doc),
            province: self.named(3, doc),
            year: i32::try_from(self.year.first(doc)?).ok()?,
            mileage: self.mileage.first(doc).map(whole),
        })
    }

    /// A car and what is asked for it.
    fn offer(&self, doc: DocId) -> Option<(Car, f64)> {
        let price = self.price_cents.first(doc).filter(|cents| *cents > 0)?;
        Some((self.car(doc)?, whole(price) / 100.0))
    }
}

/// A time as a year with its part that has passed.
fn year_of(time: i64) -> f64 {
    1970.0 + whole(time) / MICROS_PER_YEAR
}

#[expect(clippy::cast_precision_loss, reason = "cents, kilometres and microseconds of this millennium are below 2^53")]
fn whole(value: i64) -> f64 {
    value as f64
}
