//! `search`: pages over a million listings, against what tantivy does with one plain query and one set of aggregations over
//! the same index; suggestions, saved searches and changes against a fixed piece of work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::Position;
use search_index::{
    Entry, Facet, Listing, ListingIndex, ListingSnapshot, ListingStatus, Market, Price, Reflected, SearchRequest,
    alerts::{Changed, SavedSearches},
    geo::Place,
    lexicon::Lexicon,
    query::Bounds,
};
use serde_json::json;
use tantivy::{
    Index, Searcher, Term,
    aggregation::{AggregationCollector, agg_req::Aggregations},
    collector::{Count, TopDocs},
    query::{AllQuery, BooleanQuery, Occur, Query, TermQuery},
    schema::IndexRecordOption,
};

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, fixed_work, limit_goes_first, milliseconds, quantile};

pub(crate) const LISTINGS: usize = 1_000_000;
/// Each kind of page is asked for so often in a round.
const PAGES: usize = 20;
/// Listings that change at once, and how often that happens in a round.
const CHANGED: usize = 20;
const CHANGES: usize = 100;
/// How often what changed is committed.
const KEPT_EVERY: Duration = Duration::from_millis(500);
const SUGGESTED: usize = 500;
const SAVED: usize = 100_000;
const RAW: &str = "one raw query, counts and aggregations";
const FIXED: &str = "a fixed piece of work";
/// How long pages are asked for on every core.
const LASTS: Duration = Duration::from_secs(3);
const NOW: i64 = 1_780_000_000_000_000;
const DAY: i64 = 86_400_000_000;

const MAKES: [&str; 24] = [
    "Toyota",
    "Honda",
    "Ford",
    "Chevrolet",
    "Nissan",
    "Hyundai",
    "Kia",
    "Mazda",
    "Subaru",
    "Volkswagen",
    "BMW",
    "Audi",
    "Mercedes-Benz",
    "Lexus",
    "Jeep",
    "Ram",
    "GMC",
    "Dodge",
    "Volvo",
    "Tesla",
    "Acura",
    "Buick",
    "Infiniti",
    "Mini",
];
const BODIES: [&str; 7] = ["Sedan", "SUV", "Truck", "Hatchback", "Wagon", "Coupe", "Minivan"];
const FUELS: [&str; 4] = ["Gasoline", "Diesel", "Hybrid", "Electric"];
const GEARBOXES: [&str; 2] = ["Automatic", "Manual"];
const DRIVETRAINS: [&str; 3] = ["FWD", "AWD", "RWD"];
const COLORS: [&str; 10] = ["Black", "White", "Silver", "Grey", "Red", "Blue", "Green", "Brown", "Beige", "Orange"];
const CITIES: [(&str, &str, f64, f64); 8] = [
    ("Toronto", "ON", 43.65, -79.38),
    ("Montréal", "QC", 45.50, -73.57),
    ("Vancouver", "BC", 49.28, -123.12),
    ("Calgary", "AB", 51.04, -114.07),
    ("Ottawa", "ON", 45.42, -75.70),
    ("Edmonton", "AB", 53.55, -113.49),
    ("Halifax", "NS", 44.65, -63.57),
    ("Winnipeg", "MB", 49.90, -97.14),
];
const FEATURES: [&str; 12] = [
    "Sunroof",
    "Heated seats",
    "Bluetooth",
    "Backup camera",
    "Navigation",
    "Leather seats",
    "Apple CarPlay",
    "Tow bar",
    "Cruise control",
    "Blind spot monitor",
    "Roof rails",
    "Keyless entry",
];
/// The facets of one page, as raw aggregations name them.
const AGGREGATED: [&str; 12] = [
    "make",
    "model",
    "trim",
    "body_type",
    "fuel_type",
    "transmission",
    "drivetrain",
    "color",
    "province",
    "city",
    "features",
    "certified",
];

fn one<T: Copy>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of.choose(random).copied().unwrap_or(of[0])
}

pub(crate) fn listing(random: &mut ChaCha8Rng, number: usize) -> Listing {
    let (make, kind) = (one(random, &MAKES), random.random_range(0..12));
    let model = format!("{}{}", &make[..2], kind * 100 + 100);
    let trim = one(random, &["LX", "EX", "Sport", "Touring"]);
    let (city, province, latitude, longitude) = one(random, &CITIES);
    let year = random.random_range(2_008..2_026);
    let mileage = random.random_range(0..250_000);
    let worth = 50_000.0 * (-0.09 * (2_026 - year) as f64 - mileage as f64 / 600_000.0).exp();
    let price_cents = (worth * random.random_range(0.8..1.2)) as i64 * 100;
    let listed_at = NOW - random.random_range(0..200 * DAY);
    let text = |value: &str| Some(value.to_owned());
    Listing {
        listing_id: format!("lst-{number:07}"),
        status: ListingStatus::Public,
        title: Some(format!("{year} {make} {model} {trim}")),
        make: text(make),
        model: Some(model),
        trim: text(trim),
        year: Some(year),
        price_cents: Some(price_cents),
        prices: vec![Price { since: listed_at, cents: price_cents, position: Position::new(1) }],
        currency: text("CAD"),
        mileage: Some(mileage),
        body_type: text(BODIES[kind % BODIES.len()]),
        fuel_type: text(one(random, &FUELS)),
        transmission: text(one(random, &GEARBOXES)),
        drivetrain: text(one(random, &DRIVETRAINS)),
        color: text(one(random, &COLORS)),
        seats: Some(random.random_range(2..8)),
        features: FEATURES.iter().filter(|_| random.random_bool(0.3)).map(|feature| (*feature).to_owned()).collect(),
        dealer_name: Some(format!("Dealer {}", random.random_range(0..500))),
        city: text(city),
        province: text(province),
        latitude: Some(latitude + random.random_range(-0.3..0.3)),
        longitude: Some(longitude + random.random_range(-0.3..0.3)),
        certified: random.random_bool(0.2),
        listed_at: Some(listed_at),
        popularity: random.random_range(2_900.0..2_950.0),
        ..Listing::default()
    }
}

fn put(index: &mut ListingIndex, listing: &Listing) -> anyhow::Result<()> {
    let key = format!("listing/{}", listing.listing_id);
    Ok(index.put(&Entry { key: &key, state: b"{}", listing: Some(listing) }, Position::START)?)
}

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut index = ListingIndex::open(folder.path())?;
    for number in 0..LISTINGS {
        put(&mut index, &listing(&mut random, number))?;
    }
    let reflected = Reflected { position: Position::new(1), event_time: Some(NOW), retirements: 0 };
    index.commit(reflected)?;
    wait_for_merges(folder.path())?;
    let snapshot = index.commit(reflected)?;
    let market = Arc::new(snapshot.market()?);
    let lexicon = Lexicon::of(&snapshot)?;
    let saved = saved(&mut random);
    let raw = Index::open_in_dir(folder.path())?.reader()?.searcher();
    for round in 0..ROUNDS {
        pages(recorder, &snapshot, &market, &raw)?;
        suggestions(recorder, &lexicon);
        alerts(recorder, &saved, &market, &mut random)?;
        together(recorder, round, &snapshot, &market, &raw)?;
    }
    drop((snapshot, raw));
    for round in 0..ROUNDS {
        changes(recorder, round, &mut index, &mut random)?;
    }
    Ok(())
}

fn lower<'a>(name: &'a str, limit: &'static str) -> Figure<'a> {
    Figure { name, unit: "ms", better: Better::Lower, limit }
}

/// Until the engine has merged what it merges after so many documents: both sides are asked when it is done.
fn wait_for_merges(folder: &Path) -> anyhow::Result<()> {
    let files = || -> anyhow::Result<BTreeSet<_>> {
        Ok(fs::read_dir(folder)?.flatten().map(|file| file.file_name()).collect())
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let before = files()?;
        thread::sleep(Duration::from_secs(2));
        if files()? == before {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the index is merged without end");
    }
}

/// Pages with all facets and ranges, ours and the raw query with the same facets, page by page in turn.
fn pages(
    recorder: &mut Recorder,
    snapshot: &ListingSnapshot,
    market: &Arc<Market>,
    raw: &Searcher,
) -> anyhow::Result<()> {
    let kinds = [
        ("filtered: a make, a price, within 100 km", filtered(), vec!["honda"]),
        ("text: toyota sport", text(), vec!["toyota", "sport"]),
        ("match all", request(), vec![]),
    ];
    for (name, request, words) in kinds {
        let query = raw_query(raw, &words)?;
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for page in 0..PAGES {
            let mut one = || -> anyhow::Result<()> {
                let (found, took) = timed(|| snapshot.search(request.clone(), Some(market)));
                found?;
                ours.push(milliseconds(took));
                Ok(())
            };
            if page.is_multiple_of(2) {
                one()?;
            }
            let (found, took) = timed(|| raw_page(raw, query.as_ref()));
            found?;
            limits.push(milliseconds(took));
            if !page.is_multiple_of(2) {
                one()?;
            }
        }
        for (at, share) in [("p50", 0.5), ("p95", 0.95)] {
            let name = format!("page of 20, {name}, {at}");
            recorder.record(lower(&name, RAW), quantile(ours.clone(), share), quantile(limits.clone(), share));
        }
    }
    Ok(())
}

fn request() -> SearchRequest {
    SearchRequest { page_size: 20, facets: Facet::ALL.to_vec(), now: NOW, ..SearchRequest::default() }
}

fn filtered() -> SearchRequest {
    let bounds = Bounds { min: None, max: Some(25_000.0) };
    SearchRequest {
        filters: BTreeMap::from([(Facet::Make, vec!["Honda".to_owned()])]),
        ranges: BTreeMap::from([(search_index::Range::Price, bounds)]),
        near: Place::new(43.65, -79.38),
        radius_km: Some(100.0),
        ..request()
    }
}

fn text() -> SearchRequest {
    SearchRequest { text: "toyota sport".to_owned(), ..request() }
}

fn raw_query(searcher: &Searcher, words: &[&str]) -> anyhow::Result<Box<dyn Query>> {
    if words.is_empty() {
        return Ok(Box::new(AllQuery));
    }
    let field = searcher.schema().get_field("words")?;
    // The terms of words that names have.
    let terms = words.iter().map(|word| Term::from_field_text(field, &format!("{word}\0n")));
    let clauses: Vec<(Occur, Box<dyn Query>)> =
        terms.map(|term| (Occur::Must, Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as _)).collect();
    Ok(Box::new(BooleanQuery::new(clauses)))
}

fn raw_page(searcher: &Searcher, query: &dyn Query) -> anyhow::Result<()> {
    let terms = AGGREGATED.iter().map(|name| ((*name).to_owned(), json!({"terms": {"field": name, "size": 100}})));
    let mut wanted: serde_json::Map<_, _> = terms.collect();
    for name in ["price_cents", "year", "mileage"] {
        wanted.insert(name.to_owned(), json!({"stats": {"field": name}}));
    }
    let wanted: Aggregations = serde_json::from_value(wanted.into())?;
    let aggregated = AggregationCollector::from_aggs(wanted, Default::default());
    let (total, top, counts) =
        searcher.search(query, &(Count, TopDocs::with_limit(20).order_by_score(), aggregated))?;
    for (_, address) in &top {
        searcher.doc::<tantivy::TantivyDocument>(*address)?;
    }
    anyhow::ensure!(total >= top.len() && !counts.0.is_empty(), "the raw query found nothing");
    Ok(())
}

fn suggestions(recorder: &mut Recorder, lexicon: &Lexicon) {
    let texts = ["t", "to", "toy", "toyota", "hond", "hnda", "vanc", "heat", "bm", "sub"];
    let times = texts.iter().cycle().take(SUGGESTED).map(|text| milliseconds(timed(|| lexicon.suggest(text, 8)).1));
    recorder.record(lower("suggestions, p95", FIXED), quantile(times, 0.95), fixed_work());
}

/// After the alerts, by turns: a new listing, and one that was there and is cheaper now.
fn brought(random: &mut ChaCha8Rng, number: usize) -> Listing {
    let (mut listing, position) = (listing(random, number), Position::new(3));
    let cents = listing.price_cents.unwrap_or_default();
    if number.is_multiple_of(2) {
        listing.listed_position = Some(position);
    } else {
        listing.listed_position = Some(Position::new(1));
        listing.prices.insert(0, Price { since: 0, cents: cents + cents / 10, position: Position::new(1) });
    }
    listing.prices.iter_mut().next_back().into_iter().for_each(|price| price.position = position);
    listing
}

/// Searches that people saved: of a model, of a make by a text, or of a place; all with a price.
fn saved(random: &mut ChaCha8Rng) -> SavedSearches {
    let mut saved = SavedSearches::default();
    for number in 0..SAVED {
        let like = listing(random, number);
        let chosen = |value: Option<String>| value.into_iter().collect::<Vec<_>>();
        let (filters, text) = match number % 3 {
            0 => (BTreeMap::from([(Facet::Model, chosen(like.model))]), ""),
            1 => (BTreeMap::from([(Facet::Make, chosen(like.make))]), "heated seats"),
            _ => (BTreeMap::from([(Facet::City, chosen(like.city)), (Facet::Color, chosen(like.color))]), ""),
        };
        let bounds = Bounds { min: None, max: Some(f64::from(random.random_range(5_000..40_000))) };
        let ranges = BTreeMap::from([(search_index::Range::Price, bounds)]);
        let search = SearchRequest { filters, ranges, text: text.to_owned(), ..request() };
        saved.insert(&format!("alert-{number}"), search, Position::new(2));
    }
    saved
}

/// Listings that change, matched with the saved searches.
fn alerts(
    recorder: &mut Recorder,
    saved: &SavedSearches,
    market: &Arc<Market>,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..PAGES {
        let listings: Vec<Listing> = (0..CHANGED).map(|number| brought(random, number)).collect();
        let changed = listings.iter().map(|listing| Changed { listing, rating: market.rate(listing) });
        let changed: Vec<Changed<'_>> = changed.collect();
        let (matching, took) = timed(|| saved.matching(&changed, NOW).iter().map(Vec::len).sum::<usize>());
        anyhow::ensure!(matching > 0, "no saved search matches");
        times.push(milliseconds(took / u32::try_from(CHANGED)?));
    }
    recorder.record(lower("one listing against 100,000 saved searches", FIXED), quantile(times, 0.5), fixed_work());
    Ok(())
}

/// Pages a second on every core, half of them filtered, the others of texts; and the raw queries of the same.
fn together(
    recorder: &mut Recorder,
    round: usize,
    snapshot: &Arc<ListingSnapshot>,
    market: &Arc<Market>,
    raw: &Searcher,
) -> anyhow::Result<()> {
    let ours = |count: u64| -> anyhow::Result<()> {
        let request = if count.is_multiple_of(2) { filtered() } else { text() };
        snapshot.search(request, Some(market))?;
        Ok(())
    };
    let limit = |count: u64| {
        let words: &[&str] = if count.is_multiple_of(2) { &["honda"] } else { &["toyota", "sport"] };
        raw_page(raw, raw_query(raw, words)?.as_ref())
    };
    let (ours, limit) = if limit_goes_first(round) {
        let limit = on_every_core(&limit)?;
        (on_every_core(&ours)?, limit)
    } else {
        (on_every_core(&ours)?, on_every_core(&limit)?)
    };
    let figure = Figure { name: "pages on every core", unit: "pages/s", better: Better::Higher, limit: RAW };
    recorder.record(figure, ours, limit);
    Ok(())
}

/// How often a second something is done by all cores.
fn on_every_core(work: &(impl Fn(u64) -> anyhow::Result<()> + Sync)) -> anyhow::Result<f64> {
    let cores = thread::available_parallelism()?.get();
    let started = Instant::now();
    let counts = thread::scope(|scope| {
        let one = |_| {
            scope.spawn(|| {
                let mut count = 0_u64;
                while started.elapsed() < LASTS {
                    work(count)?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        };
        let threads: Vec<_> = (0..cores).map(one).collect();
        let ended = threads.into_iter().map(|it| it.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?);
        ended.sum::<anyhow::Result<u64>>()
    })?;
    Ok(counts as f64 / started.elapsed().as_secs_f64())
}

/// From a change to its being found: listings are put, refreshed, and looked up, while what was refreshed is committed.
fn changes(
    recorder: &mut Recorder,
    round: usize,
    index: &mut ListingIndex,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<()> {
    let (mut times, mut kept) = (Vec::new(), Instant::now());
    for change in 0..CHANGES {
        let changed: Vec<Listing> = (0..CHANGED)
            .map(|_| {
                let number = random.random_range(0..LISTINGS);
                listing(random, number)
            })
            .collect();
        let started = Instant::now();
        for listing in &changed {
            put(index, listing)?;
        }
        let position = Position::new((round * CHANGES + change) as u64 + 2);
        let snapshot = index.refresh(Reflected { position, event_time: Some(NOW), retirements: 0 })?;
        let found = snapshot.listing(&changed[0].listing_id)?.context("a listing is gone")?;
        anyhow::ensure!(found.price_cents == changed[0].price_cents, "a change is not found");
        times.push(milliseconds(started.elapsed()));
        if kept.elapsed() > KEPT_EVERY {
            index.keep()?;
            kept = Instant::now();
        }
    }
    for (at, share) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("20 listings changed, until found, {at}");
        recorder.record(lower(&name, FIXED), quantile(times.clone(), share), fixed_work());
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}
