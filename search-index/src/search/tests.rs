//! Searches against a scan of every listing, while listings change.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::Position;

use super::{FacetCount, Instead, NameCount, NameTree, SearchPage};
use crate::{
    Criterion, Deal, Entry, Facet, Listing, ListingIndex, ListingStatus, Market, Price, Range, Rating, Reflected,
    SearchRequest, Sort, geo::Place, pass::RADII_KM, query::Bounds, ranges::RangeBucket,
};

pub(crate) const NOW: i64 = 1_780_000_000_000_000;
pub(crate) const DAY: i64 = 86_400_000_000;
const LISTINGS: usize = 50_000;
const SEARCHES: usize = 2_000;
/// So many searches are made of each state of the index.
const CHANGED_EVERY: usize = 100;

const MODELS: [(&str, &[&str]); 4] = [
    ("Honda", &["Civic", "Accord", "CR-V"]),
    ("Ford", &["F-150", "Focus"]),
    ("Citroën", &["C4"]),
    ("Land Rover", &["Defender", "Discovery"]),
];
const COLORS: [&str; 5] = ["Blue", "Dark Blue", "Red", "Grey", "White"];
const FEATURES: [&str; 5] = ["Sunroof", "Heated seats", "Bluetooth", "Tow bar", "Apple CarPlay"];
const CITIES: [(&str, f64, f64); 3] =
    [("Toronto", 43.65, -79.38), ("Montréal", 45.50, -73.57), ("Halifax", 44.65, -63.57)];

/// Mostly known.
fn some<T>(rng: &mut ChaCha8Rng, value: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    rng.random_bool(0.95).then(|| value(rng))
}

pub(crate) fn listing(rng: &mut ChaCha8Rng, number: usize) -> Listing {
    let (make, models) = MODELS.choose(rng).unwrap();
    let model = models.choose(rng).unwrap();
    let (city, latitude, longitude) = *CITIES.choose(rng).unwrap();
    let price = rng.random_range(2_000..60_000) * 50;
    let at = |since, cents| Price { since, cents, position: Position::START };
    let mut prices = vec![at(NOW - 40 * DAY, price)];
    if rng.random_bool(0.3) {
        prices.insert(0, at(NOW - 50 * DAY, price + rng.random_range(-5..6) * 10_000));
    }
    let status = if rng.random_bool(0.9) { ListingStatus::Public } else { ListingStatus::Sold };
    let year = rng.random_range(2_005..2_026);
    Listing {
        listing_id: format!("lst-{number}"),
        status,
        unavailable: rng.random_bool(0.05),
        reserved_until: rng.random_bool(0.1).then(|| NOW + rng.random_range(-5..5) * DAY + 1),
        title: Some(format!("{year} {make} {model}")),
        make: some(rng, |_| (*make).to_owned()),
        model: some(rng, |_| (*model).to_owned()),
        trim: rng.random_bool(0.5).then(|| ["LX", "EX", "Sport"].choose(rng).unwrap().to_string()),
        year: some(rng, |_| year),
        price_cents: some(rng, |_| price),
        prices,
        mileage: some(rng, |rng| rng.random_range(0..250_000)),
        color: some(rng, |rng| COLORS.choose(rng).unwrap().to_string()),
        features: FEATURES.iter().filter(|_| rng.random_bool(0.3)).map(|feature| (*feature).to_owned()).collect(),
        city: Some(city.to_owned()),
        latitude: some(rng, |rng| latitude + rng.random_range(-0.5..0.5)),
        longitude: Some(longitude),
        certified: rng.random_bool(0.2),
        owner_count: some(rng, |rng| rng.random_range(0..4)),
        accident_free: rng.random_bool(0.7).then(|| rng.random_bool(0.8)),
        listed_at: some(rng, |rng| NOW - rng.random_range(0..120 * DAY)),
        popularity: rng.random_range(2_900.0..2_950.0),
        ..Listing::default()
    }
}

pub(crate) fn request(rng: &mut ChaCha8Rng) -> SearchRequest {
    let mut request =
        SearchRequest { page_size: 20, facets: Facet::ALL.to_vec(), now: NOW, ..SearchRequest::default() };
    request.hierarchy = rng.random_bool(0.3);
    let mut choose = |facet: Facet, values: &[&str], chance: f64| {
        if rng.random_bool(chance) {
            let count = rng.random_range(1..3);
            let values = values.choose_multiple(rng, count).map(|value| (*value).to_owned());
            request.filters.insert(facet, values.collect());
        }
    };
    choose(Facet::Make, &["Honda", "ford", "Citroën", "Nobody"], 0.4);
    choose(Facet::Model, &["Civic", "Accord", "F-150", "C4"], 0.3);
    choose(Facet::Color, &COLORS, 0.3);
    choose(Facet::Features, &FEATURES, 0.3);
    choose(Facet::City, &["Toronto", "Montréal"], 0.2);
    choose(Facet::Certified, &["true", "false"], 0.1);
    choose(Facet::Availability, &["available", "reserved"], 0.2);
    choose(Facet::Deal, &["great", "good", "unrated"], 0.2);
    for (range, low, high) in
        [(Range::Price, 1_000.0, 30_000.0), (Range::Year, 2_005.0, 2_026.0), (Range::Mileage, 0.0, 250_000.0)]
    {
        if rng.random_bool(0.3) {
            let from: f64 = rng.random_range(low..high);
            let bounds = Bounds {
                min: rng.random_bool(0.5).then(|| from.round()),
                max: rng.random_bool(0.7).then(|| rng.random_range(from..high).round()),
            };
            request.ranges.insert(range, bounds);
        }
    }
    if rng.random_bool(0.3) {
        request.near = Place::new(43.9, -79.0);
        request.radius_km = rng.random_bool(0.7).then(|| rng.random_range(10.0..900.0));
    }
    request.affordable = rng.random_bool(0.1).then(|| rng.random_range(5_000.0..25_000.0));
    request.price_drop = rng.random_bool(0.1);
    request.accident_free = rng.random_bool(0.1);
    request.owners_max = rng.random_bool(0.1).then(|| rng.random_range(0..3));
    request.days_listed_max = rng.random_bool(0.1).then(|| rng.random_range(1.0..120.0));
    let sorts: Vec<Sort> =
        Sort::ALL.into_iter().filter(|sort| *sort != Sort::Distance || request.near.is_some()).collect();
    request.sort = *sorts.choose(rng).unwrap();
    request
}

/// Everything a search asks of a listing, and whether it meets it.
fn criteria(request: &SearchRequest, listing: &Listing, rating: &Rating) -> Vec<(Criterion, bool)> {
    let mut met = Vec::new();
    for (facet, wanted) in &request.filters {
        let values = match facet {
            Facet::Availability => vec![listing.availability(NOW).as_str().to_owned()],
            Facet::Deal => vec![rating.deal.name().to_owned()],
            facet => facet.values(listing),
        };
        let is_wanted = |value: &String| wanted.iter().any(|wanted| wanted.to_lowercase() == value.to_lowercase());
        met.push((Criterion::Facet(*facet), values.iter().any(is_wanted)));
    }
    for (range, bounds) in request.ranges.iter().filter(|(_, bounds)| !bounds.is_open()) {
        met.push((Criterion::Range(*range), value(*range, listing).is_some_and(|value| bounds.contains(value))));
    }
    if let Some(most) = request.affordable {
        met.push((Criterion::Payment, value(Range::Price, listing).is_some_and(|price| price <= most)));
    }
    if request.price_drop {
        let dropped = matches!(listing.prices.as_slice(), [before, now] if before.cents > now.cents);
        met.push((Criterion::PriceDrop, dropped));
    }
    if request.accident_free {
        met.push((Criterion::AccidentFree, listing.accident_free == Some(true)));
    }
    if let Some(most) = request.owners_max {
        met.push((Criterion::Owners, listing.owner_count.is_some_and(|owners| owners <= most)));
    }
    if let Some(most) = request.days_listed_max {
        let days = |at: i64| (NOW - at) as f64 / DAY as f64;
        met.push((Criterion::DaysListed, listing.listed_at.is_some_and(|at| days(at) <= most)));
    }
    if let (Some(_), Some(radius)) = (request.near, request.radius_km) {
        met.push((Criterion::Radius, distance(request, listing).is_some_and(|distance| distance <= radius)));
    }
    met
}

fn distance(request: &SearchRequest, listing: &Listing) -> Option<f64> {
    Some(request.near?.distance_km(Place::new(listing.latitude?, listing.longitude?)?))
}

fn value(range: Range, listing: &Listing) -> Option<f64> {
    match range {
        Range::Price => listing.price_cents.map(|cents| cents as f64 / 100.0),
        Range::Year => listing.year.map(|year| year as f64),
        Range::Mileage => listing.mileage.map(|mileage| mileage as f64),
    }
}

fn key(request: &SearchRequest, listing: &Listing, rating: &Rating) -> f64 {
    let key = match request.sort {
        Sort::Relevance | Sort::Newest => listing.listed_at.map(|at| -(at as f64)),
        Sort::Price => value(Range::Price, listing),
        Sort::PriceDescending => value(Range::Price, listing).map(|price| -price),
        Sort::Mileage => value(Range::Mileage, listing),
        Sort::Year => value(Range::Year, listing),
        Sort::YearDescending => value(Range::Year, listing).map(|year| -year),
        Sort::Distance => distance(request, listing),
        Sort::Popular => Some(-listing.popularity),
        Sort::Deal => match (value(Range::Price, listing), rating.estimate) {
            (Some(price), Some(estimate)) if rating.deal != Deal::Unrated => Some(price / estimate.price),
            _ => None,
        },
    };
    key.unwrap_or(f64::INFINITY)
}

fn counted(values: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    values.iter().filter(|(_, count)| **count > 0).map(|(value, count)| (value.as_str(), *count)).collect()
}

/// The page is what a scan of every listing finds: the ids of all hits, in order.
fn check<'a>(
    listings: &'a BTreeMap<String, Listing>,
    ratings: &HashMap<String, Rating>,
    request: &SearchRequest,
    page: &SearchPage,
) -> Vec<&'a str> {
    let (mut hits, mut facets, mut ranges) = (Vec::new(), HashMap::new(), HashMap::new());
    let (mut alone, mut names): (BTreeMap<Criterion, u64>, BTreeMap<Vec<String>, u64>) = Default::default();
    // How far it is to those that are only too far.
    let mut beyond: Vec<f64> = Vec::new();
    let is_name =
        |criterion: &Criterion| matches!(criterion, Criterion::Facet(Facet::Make | Facet::Model | Facet::Trim));
    for listing in listings.values().filter(|listing| listing.status == ListingStatus::Public) {
        let rating = &ratings[&listing.listing_id];
        let met = criteria(request, listing, rating);
        let failed: Vec<Criterion> = met.iter().filter(|(_, met)| !*met).map(|(criterion, _)| *criterion).collect();
        if failed.iter().all(is_name)
            && let Some(make) = &listing.make
        {
            let path: Vec<String> = [Some(make), listing.model.as_ref(), listing.trim.as_ref()]
                .into_iter()
                .map_while(|name| name.cloned())
                .collect();
            for depth in 1..=path.len() {
                *names.entry(path[..depth].to_vec()).or_default() += 1;
            }
        }
        let only = match failed.as_slice() {
            [] => None,
            [only] => Some(*only),
            _ => continue,
        };
        match only {
            None => hits.push((key(request, listing, rating), &listing.listing_id)),
            Some(only) => {
                *alone.entry(only).or_default() += 1;
                beyond.extend(distance(request, listing).filter(|_| only == Criterion::Radius));
            }
        }
        for facet in Facet::ALL.into_iter().filter(|facet| only.is_none_or(|only| only == Criterion::Facet(*facet))) {
            let values = match facet {
                Facet::Availability => vec![listing.availability(NOW).as_str().to_owned()],
                Facet::Deal => vec![rating.deal.name().to_owned()],
                facet => facet.values(listing),
            };
            for value in values {
                *facets.entry(facet).or_insert_with(BTreeMap::new).entry(value).or_insert(0_u64) += 1;
            }
        }
        for range in Range::ALL.into_iter().filter(|range| only.is_none_or(|only| only == Criterion::Range(*range))) {
            if let Some(value) = value(range, listing) {
                ranges.entry(range).or_insert_with(Vec::new).push(value);
            }
        }
    }
    hits.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    assert_eq!(page.total, hits.len() as u64, "{request:?}");
    let found: Vec<&String> = page.hits.iter().map(|hit| &hit.listing.listing_id).collect();
    assert_eq!(found, hits.iter().map(|(_, id)| *id).take(request.page_size).collect::<Vec<_>>(), "{request:?}");
    assert_eq!(page.next_cursor.is_some(), hits.len() > request.page_size, "{request:?}");
    for (facet, counts) in &page.facets {
        for wanted in request.filters.get(facet).into_iter().flatten() {
            let is_there = |count: &FacetCount| count.selected && count.value.to_lowercase() == wanted.to_lowercase();
            assert!(counts.iter().any(is_there), "{wanted} is not among {facet:?} of {request:?}");
        }
        assert!(
            counts.is_sorted_by_key(|count| (std::cmp::Reverse(count.count), &count.value)),
            "{facet:?} {request:?}"
        );
        let counts: BTreeMap<String, u64> = counts.iter().map(|count| (count.value.clone(), count.count)).collect();
        let expected = facets.remove(facet).unwrap_or_default();
        assert_eq!(counted(&counts), counted(&expected), "{facet:?} {request:?}");
    }
    for (range, summary) in &page.ranges {
        let values = ranges.remove(range).unwrap_or_default();
        let least = values.iter().copied().reduce(f64::min);
        let most = values.iter().copied().reduce(f64::max);
        assert_eq!((summary.min, summary.max), (least, most), "{range:?} {request:?}");
        let is_in = |bucket: &RangeBucket, value: f64| bucket.from as f64 <= value && value < bucket.to as f64;
        for bucket in &summary.buckets {
            let count = values.iter().filter(|value| is_in(bucket, **value)).count() as u64;
            assert_eq!(bucket.count, count, "{bucket:?} {range:?} {request:?}");
        }
        assert!(summary.buckets.windows(2).all(|two| two[0].to == two[1].from), "{range:?} {request:?}");
        assert_eq!(summary.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), values.len() as u64);
    }
    if let Some(hierarchy) = &page.hierarchy {
        let mut found = BTreeMap::new();
        for make in &hierarchy.makes {
            found.insert(vec![make.value.clone()], make.count);
            for model in &make.below {
                found.insert(vec![make.value.clone(), model.value.clone()], model.count);
                for trim in &model.below {
                    found.insert(vec![make.value.clone(), model.value.clone(), trim.value.clone()], trim.count);
                }
            }
        }
        // A trim of no model is below nothing.
        assert_eq!(found, names, "{request:?}");
    }
    if hits.is_empty() {
        let given_up: BTreeMap<Vec<Criterion>, u64> = page
            .relaxations
            .iter()
            .filter_map(|relaxation| match relaxation.instead.clone() {
                Instead::Without(criteria) => Some((criteria, relaxation.total)),
                _ => None,
            })
            .collect();
        let rated = |listing: &Listing| criteria(request, listing, &ratings[&listing.listing_id]);
        let public = || listings.values().filter(|listing| listing.status == ListingStatus::Public);
        if alone.is_empty() {
            // No one thing is enough to give up: some are.
            assert!(!given_up.is_empty() && !page.near_misses.is_empty(), "a dead end: {request:?}");
            for (criteria, total) in &given_up {
                assert!(criteria.len() > 1, "{criteria:?} {request:?}");
                let meets =
                    |listing: &&Listing| rated(listing).iter().all(|(known, met)| *met || criteria.contains(known));
                assert_eq!(*total, public().filter(meets).count() as u64, "{criteria:?} {request:?}");
            }
        } else {
            assert_eq!(
                given_up,
                alone.iter().map(|(criterion, total)| (vec![*criterion], *total)).collect(),
                "{request:?}"
            );
            assert_eq!(page.near_misses.len() as u64, alone.values().sum::<u64>().min(4), "{request:?}");
        }
        let further = RADII_KM.into_iter().find_map(|km| {
            let within = beyond.iter().filter(|distance| **distance <= km).count() as u64;
            (within > 0).then_some((km, within))
        });
        let told = page.relaxations.iter().find_map(|relaxation| match relaxation.instead {
            Instead::WithinKm(km) => Some((km, relaxation.total)),
            _ => None,
        });
        assert_eq!(told, further, "{request:?}");
        for (near, given_up) in &page.near_misses {
            let failed = rated(&near.listing).into_iter().filter(|(_, met)| !met).map(|(criterion, _)| criterion);
            let failed: Vec<Criterion> = failed.collect();
            assert!(failed.iter().all(|criterion| given_up.contains(criterion)), "{given_up:?} {request:?}");
            assert!(given_up.len() > 2 || failed.len() == given_up.len(), "{given_up:?} {request:?}");
        }
    } else {
        assert!(page.relaxations.is_empty() && page.near_misses.is_empty());
    }
    hits.into_iter().map(|(_, id)| id.as_str()).collect()
}

fn put(index: &mut ListingIndex, listings: &mut BTreeMap<String, Listing>, listing: Listing) {
    let key = format!("listing/{}", listing.listing_id);
    index.put(&Entry { key: &key, state: b"{}", listing: Some(&listing) }, Position::START).unwrap();
    listings.insert(listing.listing_id.clone(), listing);
}

#[test]
fn searches_find_what_a_scan_finds_while_listings_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut listings = BTreeMap::new();
    for number in 0..LISTINGS {
        let listing = listing(&mut rng, number);
        put(&mut index, &mut listings, listing);
    }
    let (mut found, mut empty, mut paged, mut position) = (0, 0, 0, 1);
    let (mut market, mut ratings, mut rated) = (Arc::new(Market::default()), HashMap::new(), 0);
    for search in 0..SEARCHES {
        if search % CHANGED_EVERY == 0 {
            let mut left = 500;
            let snapshot = loop {
                let some = rng.random_range(1..=150).min(left);
                left -= some;
                for _ in 0..some {
                    let number = rng.random_range(0..LISTINGS + 500);
                    let listing = listing(&mut rng, number);
                    put(&mut index, &mut listings, listing);
                }
                position += 1;
                let reflected = Reflected { position: Position::new(position), event_time: Some(NOW), retirements: 0 };
                let is_commit = rng.random_bool(0.1);
                let shown = if is_commit { index.commit(reflected) } else { index.refresh(reflected) }.unwrap();
                if rng.random_bool(0.3) {
                    index.keep().unwrap();
                }
                if left == 0 {
                    break shown;
                }
            };
            // The market may be older than the listings that it rates.
            if search % (2 * CHANGED_EVERY) == 0 {
                market = Arc::new(snapshot.market().unwrap());
            }
            let rating = |listing: &Listing| (listing.listing_id.clone(), market.rate(listing));
            ratings = listings.values().map(rating).collect();
            rated += ratings.values().filter(|rating| rating.deal != Deal::Unrated).count();
        }
        let mut request = request(&mut rng);
        let page = index.snapshot().search(request.clone(), Some(&market)).unwrap();
        if page.total == 0 {
            empty += 1
        } else {
            found += 1
        }
        let all = check(&listings, &ratings, &request, &page);
        // What follows: the next page, now and then all of them.
        let whole = search % 8 == 0 && all.len() < 1_000;
        let (mut shown, mut next) = (page.hits.len(), page.next_cursor.filter(|_| search % 4 == 0));
        while let Some(cursor) = next.take().filter(|_| whole || shown == request.page_size) {
            request.cursor = Some(cursor);
            let page = index.snapshot().search(request.clone(), Some(&market)).unwrap();
            let ids: Vec<&str> = page.hits.iter().map(|hit| hit.listing.listing_id.as_str()).collect();
            assert_eq!(ids, all[shown..all.len().min(shown + request.page_size)], "{request:?}");
            shown += ids.len();
            paged += 1;
            next = page.next_cursor;
        }
        assert!(!whole || shown == all.len(), "{shown} of {} {request:?}", all.len());
    }
    assert!(paged > SEARCHES / 8, "{paged}");
    assert!(found > SEARCHES / 4 && empty > SEARCHES / 50 && rated > LISTINGS, "{found} {empty} {rated}");
}

/// Listings that stay as they are come once each, in order, however the others change between two pages.
#[test]
fn pages_neither_repeat_nor_skip_while_listings_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut listings = BTreeMap::new();
    for number in 0..400 {
        let listing = listing(&mut rng, number);
        put(&mut index, &mut listings, listing);
    }
    let mut position = 1;
    let mut show = |index: &mut ListingIndex| {
        position += 1;
        index.refresh(Reflected { position: Position::new(position), event_time: Some(NOW), retirements: 0 }).unwrap()
    };
    show(&mut index);
    for sort in Sort::ALL.into_iter().filter(|sort| *sort != Sort::Deal) {
        let mut request =
            SearchRequest { sort, page_size: 17, now: NOW, near: Place::new(43.9, -79.0), ..SearchRequest::default() };
        let mut changed = std::collections::BTreeSet::new();
        let before: Vec<Listing> =
            listings.values().filter(|listing| listing.status == ListingStatus::Public).cloned().collect();
        let mut shown = Vec::new();
        loop {
            let page = index.snapshot().search(request.clone(), None).unwrap();
            shown.extend(page.hits.into_iter().map(|hit| hit.listing.listing_id));
            let Some(cursor) = page.next_cursor else { break };
            request.cursor = Some(cursor);
            for _ in 0..5 {
                let number = 2 * rng.random_range(0..200);
                let listing = listing(&mut rng, number);
                changed.insert(listing.listing_id.clone());
                put(&mut index, &mut listings, listing);
            }
            show(&mut index);
        }
        shown.retain(|id| !changed.contains(id));
        let rating = Market::default().rate(&Listing::default());
        let mut expected: Vec<(f64, String)> = before
            .iter()
            .filter(|listing| !changed.contains(&listing.listing_id))
            .map(|listing| (key(&request, listing, &rating), listing.listing_id.clone()))
            .collect();
        expected.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        assert_eq!(shown, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), "{sort:?}");
        assert!(!changed.is_empty() && shown.len() > 100, "{sort:?}");
    }
}

/// Of what is asked in words, what is new, looked at or promoted comes first; else the newest do. Texts order it likewise.
#[test]
fn what_is_promoted_comes_first_where_words_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut listings = BTreeMap::new();
    let weeks = |count: i64| NOW - count * 7 * DAY;
    let of_now = NOW as f64 / (7 * DAY) as f64;
    for (id, listed, featured, popularity) in [
        ("new", weeks(0), None, 0.0),
        ("old", weeks(20), None, 0.0),
        ("viewed", weeks(20), None, of_now + 9.0),
        ("featured", weeks(20), Some(weeks(1)), 0.0),
        ("featured before", weeks(20), Some(weeks(3)), 0.0),
        ("featured new", weeks(1), Some(weeks(1)), 0.0),
    ] {
        let listing = Listing {
            listing_id: id.to_owned(),
            status: ListingStatus::Public,
            title: Some("Honda Civic".to_owned()),
            listed_at: Some(listed),
            featured_from: featured,
            featured_to: featured.map(|from| from + 14 * DAY),
            popularity,
            ..Listing::default()
        };
        put(&mut index, &mut listings, listing);
    }
    let snapshot = index.refresh(Reflected::default()).unwrap();
    // All of it, page by page.
    let order = |text: &str, in_words: bool, page_size: usize| {
        let mut request =
            SearchRequest { text: text.to_owned(), in_words, page_size, now: NOW, ..SearchRequest::default() };
        let mut ids = Vec::new();
        loop {
            let page = snapshot.search(request.clone(), None).unwrap();
            ids.extend(page.hits.into_iter().map(|hit| hit.listing.listing_id));
            request.cursor = page.next_cursor;
            if request.cursor.is_none() {
                return ids;
            }
        }
    };
    let best = ["featured new", "featured", "new", "viewed", "featured before", "old"];
    for page_size in [1, 2, 5, 6, 7] {
        assert_eq!(order("", true, page_size), best);
        assert_eq!(order("civic", true, page_size), best);
        assert_eq!(order("", false, page_size)[..2], ["new", "featured new"]);
    }
}

#[test]
fn a_tree_of_names_is_bounded_from_its_leaves() {
    let name = |value: &str, count, below| NameCount { value: value.to_owned(), count, selected: false, below };
    let models = |count| vec![name("one", count, vec![name("base", 1, Vec::new())]), name("two", 1, Vec::new())];
    let makes = vec![name("Honda", 9, models(8)), name("Kia", 3, models(2))];
    let shown = |most| {
        let tree = NameTree::bounded(makes.clone(), most);
        let sizes: Vec<usize> = tree.makes.iter().map(NameCount::size).collect();
        (sizes, tree.left_out)
    };
    assert_eq!(shown(8), (vec![4, 4], 0));
    assert_eq!(shown(7), (vec![4, 3], 1), "the last trim");
    assert_eq!(shown(6), (vec![3, 3], 2), "no trim");
    assert_eq!(shown(3), (vec![2, 1], 5), "a model of the most frequent make");
    assert_eq!(shown(1), (vec![1], 7), "the most frequent make alone");
}
