//! Saved searches against the search itself.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::Position;

use super::{Changed, SavedSearches};
use crate::{
    Entry, Listing, ListingIndex, ListingStatus, Market, Price, Range, Reflected, SearchRequest,
    query::Bounds,
    search::tests::{DAY, NOW, listing, request},
};

const SAVED: usize = 400;
const ROUNDS: usize = 12;
const CHANGED: usize = 40;

/// What a saved search finds among changed listings is what it finds when it is asked of an index of them; and searches
/// that were forgotten or replaced find nothing more.
#[test]
fn saved_searches_find_what_the_search_finds() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut saved = SavedSearches::default();
    let mut expected: BTreeMap<String, SearchRequest> = BTreeMap::new();
    let (mut found, mut with_text) = (0, 0);
    for round in 0..ROUNDS {
        for number in 0..SAVED / 4 {
            let id = format!("alert-{}", rng.random_range(0..SAVED));
            if number % 5 == 0 {
                assert_eq!(saved.remove(&id), expected.remove(&id).is_some());
                continue;
            }
            let mut request = SearchRequest { page_size: CHANGED, cursor: None, ..request(&mut rng) };
            request.facets = Vec::new();
            if rng.random_bool(0.4) {
                let texts = [
                    "civic",
                    "hon",
                    "ford f",
                    "seats heat",
                    "honda blue",
                    "land rover",
                    "2020 ford",
                    "seats heated",
                    "crv",
                    "toronto",
                    "zzz",
                ];
                request.text = (*texts.choose(&mut rng).unwrap()).to_owned();
            }
            saved.insert(&id, request.clone(), Position::START);
            expected.insert(id, request);
        }
        assert_eq!(saved.len(), expected.len());

        let folder = tempfile::tempdir().unwrap();
        let mut index = ListingIndex::open(folder.path()).unwrap();
        let listings: Vec<Listing> = (0..CHANGED).map(|number| listing(&mut rng, number)).collect();
        for listing in &listings {
            let key = format!("listing/{}", listing.listing_id);
            index.put(&Entry { key: &key, state: b"{}", listing: Some(listing) }, Position::START).unwrap();
        }
        let position = Position::new(round as u64 + 1);
        let snapshot = index.commit(Reflected { position, event_time: Some(NOW), retirements: 0 }).unwrap();
        let market = snapshot.market().unwrap();
        let changed: Vec<Changed<'_>> =
            listings.iter().map(|listing| Changed { listing, rating: market.rate(listing) }).collect();
        let matching = saved.matching(&changed, NOW);
        for (id, request) in &expected {
            let page = snapshot.search(request.clone(), Some(&market)).unwrap();
            if !page.corrections.is_empty() {
                continue;
            }
            let mut hits: Vec<&str> = page.hits.iter().map(|hit| hit.listing.listing_id.as_str()).collect();
            hits.sort_unstable();
            let pairs = listings.iter().zip(&matching).filter(|(_, ids)| ids.contains(&id.as_str()));
            let mut matched: Vec<&str> = pairs.map(|(listing, _)| listing.listing_id.as_str()).collect();
            matched.sort_unstable();
            assert_eq!(matched, hits, "{id} {request:?}");
            found += hits.len();
            with_text += usize::from(!request.text.is_empty() && !hits.is_empty());
        }
    }
    assert!(found > 500 && with_text > 50, "{found} {with_text}");
    // Nothing is left of what was given up.
    for id in expected.keys() {
        assert!(saved.remove(id), "{id}");
    }
    assert!(saved.is_empty() && saved.by_key.is_empty() && saved.by_text.is_empty());
}

/// A listing is told when it is new or its price comes into range, as the log has it: not when it was there before, nor when
/// it changes otherwise. When it happened does not matter: what is brought late, or is of tomorrow, is new when it comes.
#[test]
fn only_what_starts_to_match_is_told() {
    const SAVED_AT: u64 = 1_000;
    let cheap = Bounds { min: None, max: Some(20_000.0) };
    let request =
        SearchRequest { ranges: BTreeMap::from([(Range::Price, cheap)]), now: NOW, ..SearchRequest::default() };
    let mut saved = SavedSearches::default();
    saved.insert("a", request, Position::new(SAVED_AT));
    let told = |listed: u64, prices: &[(u64, i64)], day: i64| {
        let price = |(after, (position, cents)): (i64, &(u64, i64))| Price {
            since: day + after,
            cents: *cents,
            position: Position::new(*position),
        };
        let listing = Listing {
            listing_id: "l".to_owned(),
            status: ListingStatus::Public,
            listed_at: Some(day),
            listed_position: Some(Position::new(listed)),
            prices: (0..).zip(prices).map(price).collect(),
            price_cents: prices.last().map(|(_, cents)| *cents),
            ..Listing::default()
        };
        let changed = Changed { listing: &listing, rating: Market::default().rate(&listing) };
        saved.matching(&[changed], NOW)[0] == ["a"]
    };
    let (low, lower, high) = (1_900_000, 1_800_000, 2_100_000);
    for (listed, prices, expected) in [
        (2_000, vec![(1_500, low)], true),
        (2_000, vec![(1_500, high)], false),
        (2_000, vec![(1_500, high), (3_000, low)], true),
        (500, vec![(400, low)], false),
        (500, vec![(400, low), (3_000, lower)], false),
        (500, vec![(400, high), (3_000, low)], true),
        (500, vec![(400, high), (900, low)], false),
        (500, vec![(400, low), (900, high), (3_000, low)], true),
        (500, vec![(3_000, low)], true),
        // A price from between that comes late changes nothing.
        (500, vec![(3_000, high), (400, low)], false),
    ] {
        for day in [0, NOW - 30 * DAY, NOW + 30 * DAY] {
            assert_eq!(told(listed, &prices, day), expected, "{listed} {prices:?} {day}");
        }
    }
}
