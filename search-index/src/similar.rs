//! Listings that are like one: the same kind of car, at a like price, of a like age and mileage, not far away.

use crate::{Facet, Hit, IndexError, Listing, ListingSnapshot, Range, SearchRequest, Sort, query::Bounds};

/// Listings that are compared with it: the newest, and the nearest.
const CANDIDATES: usize = 100;
/// By what share of it the price may differ, and by how many years: the last takes what there is.
const STEPS: [(f64, f64); 3] = [(0.15, 2.0), (0.30, 4.0), (9.0, 100.0)];
/// How unlike it makes two listings: a price apart by its logarithm, a year, 10,000 km, and 100 km of way.
const PRICE: f64 = 3.0;
const YEAR: f64 = 0.15;
const MILEAGE: f64 = 0.05;
const DISTANCE: f64 = 0.03;
/// Another model of the make, and another make.
const OTHER_MODEL: f64 = 0.5;
const OTHER_MAKE: f64 = 0.8;

impl ListingSnapshot {
    /// Public listings like this one, the likest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn similar(&self, listing: &Listing, limit: usize, now: i64) -> Result<Vec<Hit>, IndexError> {
        let kinds: [&[(Facet, &Option<String>)]; 3] = [
            &[(Facet::Make, &listing.make), (Facet::Model, &listing.model)],
            &[(Facet::Make, &listing.make), (Facet::BodyType, &listing.body_type)],
            &[(Facet::BodyType, &listing.body_type)],
        ];
        let mut found: Vec<(f64, Hit)> = Vec::new();
        for kind in kinds {
            let filters: Option<Vec<(Facet, String)>> =
                kind.iter().map(|(facet, value)| Some((*facet, (*value).clone()?))).collect();
            let Some(filters) = filters else { continue };
            for (price, years) in STEPS {
                for hit in self.candidates(listing, &filters, price, years, now)? {
                    if found.iter().all(|(_, known)| known.listing.listing_id != hit.listing.listing_id) {
                        found.push((unlikeness(listing, &hit), hit));
                    }
                }
                if found.len() >= limit {
                    break;
                }
            }
            if found.len() >= limit {
                break;
            }
        }
        found.sort_by(|(a, a_hit), (b, b_hit)| {
            a.total_cmp(b).then_with(|| a_hit.listing.listing_id.cmp(&b_hit.listing.listing_id))
        });
        found.truncate(limit);
        Ok(found.into_iter().map(|(_, hit)| hit).collect())
    }

    fn candidates(
        &self,
        listing: &Listing,
        filters: &[(Facet, String)],
        price: f64,
        years: f64,
        now: i64,
    ) -> Result<Vec<Hit>, IndexError> {
        let mut request =
            SearchRequest { page_size: CANDIDATES, near: listing.place(), now, ..SearchRequest::default() };
        request.filters = filters.iter().map(|(facet, value)| (*facet, vec![value.clone()])).collect();
        if let Some(known) = price_of(listing) {
            let bounds = Bounds { min: Some(known * (1.0 - price)), max: Some(known * (1.0 + price)) };
            request.ranges.insert(Range::Price, bounds);
        }
        if let Some(year) = number(listing.year) {
            request.ranges.insert(Range::Year, Bounds { min: Some(year - years), max: Some(year + years) });
        }
        let sorts = [Some(Sort::Newest), listing.place().map(|_| Sort::Distance)];
        let mut hits = Vec::new();
        for sort in sorts.into_iter().flatten() {
            hits.extend(self.search(SearchRequest { sort, ..request.clone() }, None)?.hits);
        }
        hits.retain(|hit| hit.listing.listing_id != listing.listing_id);
        Ok(hits)
    }
}

fn unlikeness(listing: &Listing, hit: &Hit) -> f64 {
    let other = &hit.listing;
    let apart = |a: Option<f64>, b: Option<f64>| a.zip(b).map_or(0.0, |(a, b)| (a - b).abs());
    let price = price_of(listing).zip(price_of(other)).filter(|(a, b)| *a > 0.0 && *b > 0.0);
    let kind = match (listing.make == other.make, listing.model == other.model) {
        (true, true) => 0.0,
        (true, false) => OTHER_MODEL,
        (false, _) => OTHER_MAKE,
    };
    kind + PRICE * price.map_or(0.0, |(a, b)| (a / b).ln().abs())
        + YEAR * apart(number(listing.year), number(other.year))
        + MILEAGE * apart(number(listing.mileage), number(other.mileage)) / 10_000.0
        + DISTANCE * hit.distance_km.unwrap_or_default() / 100.0
}

fn price_of(listing: &Listing) -> Option<f64> {
    number(listing.price_cents).map(|cents| cents / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "cents, years and kilometres are far below 2^53")]
fn number(value: Option<i64>) -> Option<f64> {
    value.map(|value| value as f64)
}
