//! Saved searches, matched with listings as they change.
//!
//! A search is kept under the values of the facet it is narrowest by, so that a listing is held against those alone that
//! may want it. What is not text is asked of the listing itself; texts are asked of an index of the changed listings, once
//! each.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tantivy::{
    Index, IndexSettings, TantivyDocument, collector::DocSetCollector, directory::RamDirectory, query::BooleanQuery,
    schema::Value,
};

use crate::{
    fields::Fields,
    index::{IndexError, ListingSnapshot, Reflected},
    listing::{Listing, ListingStatus},
    market::Rating,
    query::{Facet, Range, SearchRequest},
    text::Wanted,
    words::register_tokenizers,
};

/// The facets that searches are kept by, the narrowest first.
const KEPT_BY: [Facet; 7] =
    [Facet::Model, Facet::Dealer, Facet::Trim, Facet::Make, Facet::City, Facet::BodyType, Facet::Province];
const MICROS_PER_DAY: f64 = 86_400_000_000.0;
/// The least that the index's writer takes.
const WRITER_MEMORY: usize = 15_000_000;

/// A listing that changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    pub listing: &'a Listing,
    pub rating: Rating,
}

/// A search that somebody saved.
#[derive(Debug)]
struct Saved {
    request: SearchRequest,
    /// When, in microseconds since 1970, UTC.
    since: i64,
}

/// Searches that people saved, by id.
#[derive(Debug, Default)]
pub struct SavedSearches {
    searches: HashMap<String, Saved>,
    by_value: HashMap<(Facet, String), BTreeSet<String>>,
    /// Those that have none of the facets that searches are kept by.
    others: BTreeSet<String>,
}

impl SavedSearches {
    #[must_use]
    pub fn len(&self) -> usize {
        self.searches.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.searches.is_empty()
    }

    /// Keep a search that was saved at a time. One that was kept under the id before is forgotten.
    pub fn insert(&mut self, id: &str, request: SearchRequest, since: i64) {
        self.remove(id);
        let mut request = request;
        for values in request.filters.values_mut() {
            values.iter_mut().for_each(|value| *value = value.to_lowercase());
        }
        match keys(&request) {
            Some(keys) => {
                for key in keys {
                    self.by_value.entry(key).or_default().insert(id.to_owned());
                }
            }
            None => {
                self.others.insert(id.to_owned());
            }
        }
        self.searches.insert(id.to_owned(), Saved { request, since });
    }

    /// Forget a search; whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(Saved { request, .. }) = self.searches.remove(id) else { return false };
        self.others.remove(id);
        for key in keys(&request).into_iter().flatten() {
            if let Some(ids) = self.by_value.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_value.remove(&key);
                }
            }
        }
        true
    }

    /// The searches that find each of these listings at `now`, and did not when they were saved; in order.
    ///
    /// # Errors
    /// When the listings cannot be indexed.
    pub fn matching(&self, changed: &[Changed<'_>], now: i64) -> Result<Vec<Vec<&str>>, IndexError> {
        let mut texts = Texts { changed, index: None, found: HashMap::new() };
        let mut matching = Vec::with_capacity(changed.len());
        for (at, changed) in changed.iter().enumerate() {
            let mut found: Vec<&str> = Vec::new();
            if changed.listing.status == ListingStatus::Public {
                let facts = Facts::of(*changed, now);
                for id in self.candidates(&facts) {
                    let Some(Saved { request, since }) = self.searches.get(id) else { continue };
                    let starts = meets(request, &facts, now) && !met_before(request, *changed, &facts, *since);
                    if starts && texts.has(at, &request.text)? {
                        found.push(id);
                    }
                }
                found.sort_unstable();
                found.dedup();
            }
            matching.push(found);
        }
        Ok(matching)
    }

    fn candidates<'a>(&'a self, facts: &Facts<'_>) -> impl Iterator<Item = &'a str> + use<'a> {
        let kept = |facet: Facet| {
            facts.values_of(facet).iter().filter_map(move |value| self.by_value.get(&(facet, value.clone())))
        };
        let narrow: Vec<&BTreeSet<String>> = KEPT_BY.into_iter().flat_map(kept).collect();
        narrow.into_iter().flatten().chain(&self.others).map(String::as_str)
    }
}

/// What is asked of a listing, found out once for all who ask.
struct Facts<'a> {
    listing: &'a Listing,
    /// Of every facet, the listing's values in small letters.
    values: Vec<(Facet, Vec<String>)>,
    price_cents: Option<i64>,
    dropped: bool,
}

impl<'a> Facts<'a> {
    fn of(Changed { listing, rating }: Changed<'a>, now: i64) -> Self {
        let values = |facet: Facet| {
            let values = match facet {
                Facet::Availability => vec![listing.availability(now).as_str().to_owned()],
                Facet::Deal => vec![rating.deal.name().to_owned()],
                facet => facet.values(listing),
            };
            (facet, values.iter().map(|value| value.to_lowercase()).collect())
        };
        Self {
            listing,
            values: Facet::ALL.into_iter().map(values).collect(),
            price_cents: listing.price_cents,
            dropped: listing.price_drop_cents().is_some(),
        }
    }

    fn values_of(&self, facet: Facet) -> &[String] {
        self.values.iter().find(|(known, _)| *known == facet).map_or(&[], |(_, values)| values)
    }
}

/// What a search is kept under: the values of its narrowest facet.
fn keys(request: &SearchRequest) -> Option<Vec<(Facet, String)>> {
    let (facet, values) = KEPT_BY.into_iter().find_map(|facet| Some((facet, request.filters.get(&facet)?)))?;
    Some(values.iter().map(|value| (facet, value.clone())).collect())
}

/// Whether a listing was offered already at a time, and met what is asked with the price it had then.
fn met_before(request: &SearchRequest, changed: Changed<'_>, facts: &Facts<'_>, since: i64) -> bool {
    let Changed { listing, .. } = changed;
    if listing.listed_at.is_none_or(|listed| listed > since) {
        return false;
    }
    let before = listing.prices.iter().rposition(|(at, _)| *at <= since);
    if before.is_some_and(|at| at + 1 == listing.prices.len()) || listing.prices.is_empty() {
        return true;
    }
    if request.filters.contains_key(&Facet::Deal) {
        // What it was worth then is not known; with another price it was another deal.
        return false;
    }
    let prices = before.map_or(&[][..], |at| &listing.prices[..=at]).to_vec();
    let price_cents = prices.last().map(|(_, cents)| *cents);
    let dropped = Listing { prices, ..Listing::default() }.price_drop_cents().is_some();
    meets(request, &Facts { listing, values: facts.values.clone(), price_cents, dropped }, since)
}

/// Whether a listing meets everything that is asked but the text.
fn meets(request: &SearchRequest, facts: &Facts<'_>, now: i64) -> bool {
    let listing = facts.listing;
    let has =
        |(facet, wanted): (&Facet, &Vec<String>)| facts.values_of(*facet).iter().any(|value| wanted.contains(value));
    let price = facts.price_cents.map(|cents| whole(cents) / 100.0);
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
        && (!request.price_drop || facts.dropped)
        && (!request.accident_free || listing.accident_free == Some(true))
        && at_most(listing.owner_count.map(whole), request.owners_max.map(whole))
        && at_most(days, request.days_listed_max)
        && at_most(distance, request.near.and(request.radius_km))
}

#[expect(clippy::cast_precision_loss, reason = "cents, kilometres and microseconds of this millennium are below 2^53")]
fn whole(value: i64) -> f64 {
    value as f64
}

/// Which of the changed listings have a text.
struct Texts<'a> {
    changed: &'a [Changed<'a>],
    /// Made when the first text is asked for.
    index: Option<ListingSnapshot>,
    /// Places in `changed`, by text.
    found: HashMap<String, HashSet<usize>>,
}

impl Texts<'_> {
    /// Words are as they are: nothing is corrected, and the last is whole.
    fn has(&mut self, at: usize, text: &str) -> Result<bool, IndexError> {
        if text.is_empty() {
            return Ok(true);
        }
        if let Some(found) = self.found.get(text) {
            return Ok(found.contains(&at));
        }
        let wanted = Wanted::new(&format!("{text} "));
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(of_changed(self.changed)?),
        };
        let mut found = HashSet::new();
        if wanted.is_empty() {
            found.extend(0..self.changed.len());
        } else {
            let query = BooleanQuery::new(wanted.query(index));
            for address in index.searcher.search(&query, &DocSetCollector)? {
                let document: TantivyDocument = index.searcher.doc(address)?;
                let place = document.get_first(index.fields.state).and_then(|value| value.as_bytes());
                let place = place.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
                found.extend(place.and_then(|place| usize::try_from(place).ok()));
            }
        }
        let has = found.contains(&at);
        self.found.insert(text.to_owned(), found);
        Ok(has)
    }
}

/// An index of some listings in memory; the state of each is its place among them.
fn of_changed(changed: &[Changed<'_>]) -> Result<ListingSnapshot, IndexError> {
    let (schema, fields) = Fields::new();
    let index = Index::create(RamDirectory::create(), schema, IndexSettings::default())?;
    register_tokenizers(&index);
    let mut writer = index.writer_with_num_threads(1, WRITER_MEMORY)?;
    for (place, changed) in (0_u64..).zip(changed) {
        let mut document = TantivyDocument::default();
        document.add_bytes(fields.state, &place.to_le_bytes());
        fields.add_texts(&mut document, changed.listing);
        writer.add_document(document)?;
    }
    writer.commit()?;
    Ok(ListingSnapshot::of(Arc::new(fields), index.reader()?.searcher(), Reflected::default()))
}

#[cfg(test)]
mod tests;
