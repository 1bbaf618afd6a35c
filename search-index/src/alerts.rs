//! Saved searches, matched with listings as they change.
//!
//! A search is kept under the values of the one or two facets it is narrowest by, so that a listing is held against those
//! alone that may want it.

use std::{collections::HashMap, sync::Arc};

use schemas::Position;

use crate::{
    listing::{Listing, ListingStatus, price_drop_cents},
    market::Rating,
    own_words::OwnWords,
    query::{Facet, Range, SearchRequest},
    text::Wanted,
};

/// The facets that searches are kept by, the narrowest first.
const KEPT_BY: [Facet; 9] = [
    Facet::Model,
    Facet::Dealer,
    Facet::Trim,
    Facet::Make,
    Facet::City,
    Facet::Color,
    Facet::BodyType,
    Facet::Province,
    Facet::FuelType,
];
/// A search with more pairs of values than this is kept under those of one facet.
const MOST_PAIRS: usize = 64;
const MICROS_PER_DAY: f64 = 86_400_000_000.0;

/// A listing that changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    pub listing: &'a Listing,
    pub rating: Rating,
}

/// A search that somebody saved.
#[derive(Debug)]
struct Saved {
    id: String,
    request: SearchRequest,
    /// Its text: nothing in it is corrected. Searches of one text share it.
    wanted: Arc<Wanted>,
    /// Where the log says so: what it says before was there already.
    since: Position,
}

/// Searches that people saved, by id.
#[derive(Debug, Default)]
pub struct SavedSearches {
    /// By number; none, where one was forgotten.
    searches: Vec<Option<Saved>>,
    numbers: HashMap<String, usize>,
    /// Numbers that are free again.
    free: Vec<usize>,
    by_key: HashMap<Key, Vec<Kept>>,
    by_text: HashMap<String, Arc<Wanted>>,
}

/// A search below a key, with the least and the most that is asked of a price: most are told by that alone.
#[derive(Clone, Copy, Debug)]
struct Kept {
    number: usize,
    price: [f64; 2],
}

impl Kept {
    fn new(number: usize, request: &SearchRequest) -> Self {
        let bounds = request.ranges.get(&Range::Price).copied().unwrap_or_default();
        let most = bounds.max.unwrap_or(f64::INFINITY).min(request.affordable.unwrap_or(f64::INFINITY));
        Self { number, price: [bounds.min.unwrap_or(f64::NEG_INFINITY), most] }
    }

    /// Whether a listing of this price may be wanted; NaN is none.
    fn may_want(&self, price: f64) -> bool {
        let [least, most] = self.price;
        price.is_nan() || (least <= price && price <= most)
    }
}

/// What a search is kept under: a value of one facet or of two; of none, when it has none of those.
type Key = [Option<(Facet, String)>; 2];

impl SavedSearches {
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Keep a search that the log has at a position. One that was kept under the id before is forgotten.
    pub fn insert(&mut self, id: &str, request: SearchRequest, since: Position) {
        self.remove(id);
        let mut request = request;
        for values in request.filters.values_mut() {
            values.iter_mut().for_each(|value| *value = value.to_lowercase());
        }
        let number = self.free.pop().unwrap_or(self.searches.len());
        for key in keys(&request) {
            self.by_key.entry(key).or_default().push(Kept::new(number, &request));
        }
        let wanted = self.by_text.entry(request.text.clone());
        let wanted = Arc::clone(wanted.or_insert_with_key(|text| Arc::new(Wanted::new(text))));
        let saved = Some(Saved { id: id.to_owned(), request, wanted, since });
        match self.searches.get_mut(number) {
            Some(free) => *free = saved,
            None => self.searches.push(saved),
        }
        self.numbers.insert(id.to_owned(), number);
    }

    /// Forget a search; whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(number) = self.numbers.remove(id) else { return false };
        let Some(Saved { request, wanted, .. }) = self.searches[number].take() else { return false };
        // Nobody else has this text.
        if Arc::strong_count(&wanted) == 2 {
            self.by_text.remove(&request.text);
        }
        for key in keys(&request) {
            if let Some(kept) = self.by_key.get_mut(&key) {
                kept.retain(|kept| kept.number != number);
                if kept.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
        self.free.push(number);
        true
    }

    /// The searches that find each of these listings at `now`, and did not when they were saved; in order.
    #[must_use]
    pub fn matching(&self, changed: &[Changed<'_>], now: i64) -> Vec<Vec<&str>> {
        let matching = |changed: &Changed<'_>| {
            let mut found: Vec<&str> = Vec::new();
            if changed.listing.status == ListingStatus::Public {
                let (facts, own) = (Facts::of(*changed, now), OwnWords::of(changed.listing));
                // A text that many ask for is looked for once.
                let mut said: HashMap<*const Wanted, bool> = HashMap::new();
                let mut says =
                    |wanted: &Arc<Wanted>| *said.entry(Arc::as_ptr(wanted)).or_insert_with(|| wanted.is_in(&own));
                let starts = |Saved { request, wanted, since, .. }: &&Saved| {
                    meets(request, &facts, facts.offer, now)
                        && !met_before(request, &facts, *since, now)
                        && says(wanted)
                };
                found.extend(self.candidates(&facts).filter(starts).map(|saved| saved.id.as_str()));
                found.sort_unstable();
                found.dedup();
            }
            found
        };
        changed.iter().map(matching).collect()
    }

    /// Those that a listing with these values may be wanted by.
    fn candidates<'a>(&'a self, facts: &Facts<'_>) -> impl Iterator<Item = &'a Saved> + use<'a> {
        let values =
            KEPT_BY.into_iter().flat_map(|facet| facts.values_of(facet).iter().map(move |value| (facet, value)));
        let values: Vec<(Facet, String)> = values.map(|(facet, value)| (facet, value.clone())).collect();
        let mut kept: Vec<&Vec<Kept>> = self.by_key.get(&[None, None]).into_iter().collect();
        for (at, one) in values.iter().enumerate() {
            kept.extend(self.by_key.get(&[Some(one.clone()), None]));
            for other in values[at + 1..].iter().filter(|other| other.0 != one.0) {
                kept.extend(self.by_key.get(&[Some(one.clone()), Some(other.clone())]));
            }
        }
        let price = facts.offer.price().unwrap_or(f64::NAN);
        let kept = kept.into_iter().flatten().filter(move |kept| kept.may_want(price));
        kept.filter_map(|kept| self.searches.get(kept.number)?.as_ref())
    }
}

/// What is asked of a listing, found out once for all who ask.
struct Facts<'a> {
    listing: &'a Listing,
    /// Of every facet, by its place among all, the listing's values in small letters.
    values: Vec<Vec<String>>,
    offer: Offer,
}

/// For how much a listing is offered.
#[derive(Clone, Copy)]
struct Offer {
    cents: Option<i64>,
    /// Whether its price was lowered last.
    dropped: bool,
}

impl Offer {
    fn price(self) -> Option<f64> {
        self.cents.map(|cents| whole(cents) / 100.0)
    }
}

impl<'a> Facts<'a> {
    fn of(Changed { listing, rating }: Changed<'a>, now: i64) -> Self {
        let values = |facet: Facet| {
            let values = match facet {
                Facet::Availability => vec![listing.availability(now).as_str().to_owned()],
                Facet::Deal => vec![rating.deal.name().to_owned()],
                facet => facet.values(listing),
            };
            values.iter().map(|value| value.to_lowercase()).collect()
        };
        Self {
            listing,
            values: Facet::ALL.into_iter().map(values).collect(),
            offer: Offer { cents: listing.price_cents, dropped: listing.price_drop_cents().is_some() },
        }
    }

    fn values_of(&self, facet: Facet) -> &[String] {
        &self.values[facet as usize]
    }
}

/// What a search is kept under: the values of its two narrowest facets, in their order.
fn keys(request: &SearchRequest) -> Vec<Key> {
    let chosen = |facet: &Facet| {
        let values: Option<&Vec<String>> = request.filters.get(facet).filter(|values| !values.is_empty());
        values.map(|values| values.iter().map(|value| (*facet, value.clone())).collect::<Vec<_>>())
    };
    let mut chosen = KEPT_BY.iter().filter_map(chosen);
    let Some(narrowest) = chosen.next() else { return vec![[None, None]] };
    let others = chosen.next().filter(|others| others.len() * narrowest.len() <= MOST_PAIRS);
    let others = others.map_or_else(|| vec![None], |others| others.into_iter().map(Some).collect());
    let pairs =
        narrowest.into_iter().flat_map(|one| others.iter().map(move |other| [Some(one.clone()), other.clone()]));
    let mut keys: Vec<Key> = pairs.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Whether a listing was offered already where the log had got to, and met what is asked with the price it had there.
fn met_before(request: &SearchRequest, facts: &Facts<'_>, since: Position, now: i64) -> bool {
    let listing = facts.listing;
    if listing.listed_position.is_none_or(|listed| listed > since) {
        return false;
    }
    if listing.prices.iter().all(|price| price.position <= since) {
        return true;
    }
    if request.filters.contains_key(&Facet::Deal) {
        // What it was worth then is not known; with another price it was another deal.
        return false;
    }
    let before = || listing.prices.iter().filter(|price| price.position <= since);
    let cents = before().next_back().map(|price| price.cents);
    meets(request, facts, Offer { cents, dropped: price_drop_cents(before()).is_some() }, now)
}

/// Whether a listing that is offered like this meets everything that is asked but the text.
fn meets(request: &SearchRequest, facts: &Facts<'_>, offer: Offer, now: i64) -> bool {
    let (listing, price) = (facts.listing, offer.price());
    let has =
        |(facet, wanted): (&Facet, &Vec<String>)| facts.values_of(*facet).iter().any(|value| wanted.contains(value));
    let value = |range: Range| match range {
        Range::Price => price,
        Range::Year => listing.year.map(whole),
        Range::Mileage => listing.mileage.map(whole),
    };
    let days = listing.listed_at.map(|at| whole(now.saturating_sub(at)) / MICROS_PER_DAY);
    let distance = request.near.zip(listing.place()).map(|(near, place)| near.distance_km(place));
    let at_most = |value: Option<f64>, most: Option<f64>| most.is_none_or(|most| value.is_some_and(|it| it <= most));
    request.filters.iter().all(has)
        && request
            .ranges
            .iter()
            .all(|(range, bounds)| bounds.is_open() || value(*range).is_some_and(|value| bounds.contains(value)))
        && at_most(price, request.affordable)
        && (!request.price_drop || offer.dropped)
        && (!request.accident_free || listing.accident_free == Some(true))
        && at_most(listing.owner_count.map(whole), request.owners_max.map(whole))
        && at_most(days, request.days_listed_max)
        && at_most(distance, request.near.and(request.radius_km))
}

#[expect(clippy::cast_precision_loss, reason = "cents, kilometres and microseconds of this millennium are below 2^53")]
fn whole(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
