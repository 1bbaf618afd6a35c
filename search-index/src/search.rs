//! The answer to a search.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;
use tantivy::{
    Term,
    query::{BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, Occur, Query, TermQuery},
    schema::IndexRecordOption,
    tokenizer::TokenStream,
};

use crate::{
    collector::PageCollector,
    fields::folded,
    geo::Place,
    index::{IndexError, ListingSnapshot},
    listing::{Availability, Listing},
    query::{Cursor, Facet, Range, SearchRequest},
    ranges::RangeSummary,
};

/// Values of a facet shown at most; chosen ones always are.
const MAX_FACET_VALUES: usize = 250;

/// A page of hits with everything around it.
#[derive(Clone, Debug)]
pub struct SearchPage {
    /// Listings that match, on all pages.
    pub total: u64,
    pub hits: Vec<Hit>,
    pub facets: BTreeMap<Facet, Vec<FacetCount>>,
    pub ranges: BTreeMap<Range, RangeSummary>,
    pub next_cursor: Option<Cursor>,
    pub took_ms: f64,
}

/// A listing found.
#[derive(Clone, Debug)]
pub struct Hit {
    pub listing: Listing,
    pub availability: Availability,
    /// From the search's place.
    pub distance_km: Option<f64>,
}

/// How many matches have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FacetCount {
    pub value: String,
    pub count: u64,
    pub selected: bool,
}

impl ListingSnapshot {
    /// Search the public listings.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn search(&self, request: SearchRequest) -> Result<SearchPage, IndexError> {
        let started = Instant::now();
        let request = Arc::new(request);
        let query = self.query(&request.text);
        let found = self.searcher.search(&query, &PageCollector::new(Arc::clone(&request)))?;
        let mut hits = Vec::with_capacity(found.page.len());
        for ranked in &found.page {
            if let Some(listing) = self.listing_at(ranked.address)? {
                hits.push(self.hit(listing, &request));
            }
        }
        let full = found.page.len() == request.page_size;
        let next_cursor = found.page.last().filter(|_| full).map(|last| Cursor {
            key: last.key,
            listing_id: last.listing_id.clone(),
            search: request.fingerprint(),
        });
        let mut counts = found.counts;
        let facets = request.facets.iter().map(|&facet| {
            let chosen = request.filters.get(&facet).map_or(&[][..], Vec::as_slice);
            (facet, facet_counts(counts.remove(&facet).unwrap_or_default(), chosen))
        });
        Ok(SearchPage {
            total: found.total,
            hits,
            facets: facets.collect(),
            ranges: found.ranges.into_iter().map(|(range, counter)| (range, counter.summary(range))).collect(),
            next_cursor,
            took_ms: started.elapsed().as_secs_f64() * 1_000.0,
        })
    }

    fn hit(&self, listing: Listing, request: &SearchRequest) -> Hit {
        let place =
            listing.latitude.zip(listing.longitude).and_then(|(latitude, longitude)| Place::new(latitude, longitude));
        Hit {
            availability: listing.availability(request.now),
            distance_km: request.near.zip(place).map(|(near, place)| near.distance_km(place)),
            listing,
        }
    }

    /// Public listings that have every word of the text somewhere.
    fn query(&self, text: &str) -> BooleanQuery {
        let public = TermQuery::new(Term::from_field_u64(self.fields.public, 1), IndexRecordOption::Basic);
        let public: Box<dyn Query> = Box::new(ConstScoreQuery::new(Box::new(public), 0.0));
        let mut clauses = vec![(Occur::Must, public)];
        let mut analyzer = folded();
        let mut words = analyzer.token_stream(text);
        while words.advance() {
            let anywhere = self.fields.texts.iter().map(|text| -> Box<dyn Query> {
                let term = Term::from_field_text(text.field, &words.token().text);
                Box::new(BoostQuery::new(Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)), text.boost))
            });
            clauses.push((Occur::Must, Box::new(DisjunctionMaxQuery::new(anywhere.collect()))));
        }
        BooleanQuery::new(clauses)
    }
}

/// Most frequent first, then by name; chosen values are always there, at zero if need be.
fn facet_counts(counts: HashMap<String, u64>, chosen: &[String]) -> Vec<FacetCount> {
    let is_chosen = |value: &str| chosen.iter().any(|chosen| chosen.to_lowercase() == value.to_lowercase());
    let mut values: Vec<FacetCount> =
        counts.into_iter().map(|(value, count)| FacetCount { selected: is_chosen(&value), value, count }).collect();
    for chosen in chosen {
        if !values.iter().any(|known| known.value.to_lowercase() == chosen.to_lowercase()) {
            values.push(FacetCount { value: chosen.clone(), count: 0, selected: true });
        }
    }
    values.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    let mut shown = 0;
    values.retain(|value| {
        shown += 1;
        shown <= MAX_FACET_VALUES || value.selected
    });
    values
}
