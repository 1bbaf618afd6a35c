//! One pass over the matches: the page, exact multi-select facet counts, and range histograms.
//!
//! A document that meets every criterion is a hit and counts everywhere. One that fails only one facet's filter (or one
//! range) counts for that facet (or range) alone: these are the counts a buyer sees beside the values not chosen. What
//! fails only one criterion is also what a buyer finds who gives that one up.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap, HashSet},
    io,
    sync::Arc,
};

use tantivy::{
    DocAddress, DocId, Score, SegmentOrdinal, SegmentReader,
    collector::{Collector, SegmentCollector},
    columnar::{Column, StrColumn},
};

use crate::{
    geo::Place,
    listing::{Availability, availability},
    market::{Deal, SegmentRatings},
    query::{Bounds, Criterion, Facet, Range, SearchRequest, Sort},
    ranges::RangeCounter,
};

/// Listings that fail one criterion, shown when none fails none.
pub(crate) const NEAR_MISSES: usize = 4;
/// How much further one may look, in km.
pub(crate) const RADII_KM: [f64; 8] = [25.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
const MICROS_PER_DAY: f64 = 86_400_000_000.0;

/// How much a listing gains by being new (halved every week), looked at, or promoted: a little of what its text scores.
const RECENCY: f64 = 0.10;
const POPULARITY: f64 = 0.05;
const FEATURED: f64 = 0.10;
const GREAT_DEAL: f64 = 0.06;
const GOOD_DEAL: f64 = 0.03;
const DAYS_PER_WEEK: f64 = 7.0;
/// The weight of views, as a power of two, from which on it counts in full.
const MOST_POPULAR: f64 = 8.0;

/// Everything one pass finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Public listings that have the text.
    pub(crate) seen: u64,
    pub(crate) total: u64,
    /// How many fail only this.
    pub(crate) alone: HashMap<Criterion, u64>,
    /// How many fail only the distance, and are within each of [`RADII_KM`].
    pub(crate) within: [u64; RADII_KM.len()],
    /// The best of those that fail one criterion, in order.
    pub(crate) near_misses: Vec<(Ranked, Criterion)>,
    /// By make, model and trim, whichever of them are chosen.
    pub(crate) hierarchy: HashMap<[Option<String>; 3], u64>,
    pub(crate) counts: HashMap<Facet, HashMap<String, u64>>,
    pub(crate) ranges: HashMap<Range, RangeCounter>,
    /// The page, in order.
    pub(crate) page: Vec<Ranked>,
}

/// A hit with what decides its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) key: f64,
    pub(crate) listing_id: String,
    pub(crate) address: DocAddress,
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then_with(|| self.listing_id.cmp(&other.listing_id))
    }
}

pub(crate) struct PageCollector {
    pub(crate) request: Arc<SearchRequest>,
    /// Whether a text is asked for, so that hits have scores.
    pub(crate) has_text: bool,
}

impl Collector for PageCollector {
    type Fruit = Found;
    type Child = SegmentPass;

    fn for_segment(&self, segment_ord: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<SegmentPass> {
        SegmentPass::open(Arc::clone(&self.request), self.has_text, segment_ord, segment)
    }

    fn requires_scoring(&self) -> bool {
        self.request.sort == Sort::Relevance && self.has_text
    }

    fn merge_fruits(&self, fruits: Vec<io::Result<Found>>) -> tantivy::Result<Found> {
        let mut merged = Found::default();
        for found in fruits {
            let found = found?;
            merged.seen += found.seen;
            merged.total += found.total;
            for (criterion, count) in found.alone {
                *merged.alone.entry(criterion).or_default() += count;
            }
            for (sum, count) in merged.within.iter_mut().zip(found.within) {
                *sum += count;
            }
            for (path, count) in found.hierarchy {
                *merged.hierarchy.entry(path).or_default() += count;
            }
            merged.near_misses.extend(found.near_misses);
            for (facet, counts) in found.counts {
                let sums = merged.counts.entry(facet).or_default();
                for (value, count) in counts {
                    *sums.entry(value).or_default() += count;
                }
            }
            for (range, counter) in found.ranges {
                merged.ranges.entry(range).or_default().merge(counter);
            }
            merged.page.extend(found.page);
        }
        merged.page.sort_unstable();
        merged.page.truncate(self.request.page_size);
        merged.near_misses.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        merged.near_misses.truncate(NEAR_MISSES);
        Ok(merged)
    }
}

/// A vehicle's name, from the general to the special.
const NAMES: [Facet; 3] = [Facet::Make, Facet::Model, Facet::Trim];

/// A stored facet in one segment.
struct FacetColumn {
    facet: Facet,
    column: Option<StrColumn>,
    /// The chosen values' ordinals; `None` when nothing is chosen.
    chosen: Option<HashSet<u64>>,
    /// By ordinal; empty when the facet is not asked for.
    counts: Vec<u64>,
}

impl FacetColumn {
    fn open(facet: Facet, request: &SearchRequest, segment: &SegmentReader) -> tantivy::Result<Self> {
        let column = segment.fast_fields().str(facet.name())?;
        let wanted = request.filters.get(&facet);
        let mut chosen = wanted.map(|_| HashSet::new());
        if let (Some(column), Some(wanted), Some(chosen)) = (&column, wanted, &mut chosen) {
            let wanted: HashSet<String> = wanted.iter().map(|value| value.to_lowercase()).collect();
            let mut terms = column.dictionary().stream()?;
            while terms.advance() {
                if std::str::from_utf8(terms.key()).is_ok_and(|term| wanted.contains(&term.to_lowercase())) {
                    chosen.insert(terms.term_ord());
                }
            }
        }
        let terms = column.as_ref().map_or(0, |column| column.dictionary().num_terms());
        let counts = if request.facets.contains(&facet) { vec![0; terms] } else { Vec::new() };
        Ok(Self { facet, column, chosen, counts })
    }

    fn meets(&self, doc: DocId) -> bool {
        match (&self.chosen, &self.column) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(chosen), Some(column)) => column.ords().values_for_doc(doc).any(|ord| chosen.contains(&ord)),
        }
    }

    fn count(&mut self, doc: DocId) {
        if let (Some(column), false) = (&self.column, self.counts.is_empty()) {
            for ord in column.ords().values_for_doc(doc) {
                if let Some(count) = usize::try_from(ord).ok().and_then(|ord| self.counts.get_mut(ord)) {
                    *count += 1;
                }
            }
        }
    }

    fn by_value(&self) -> io::Result<HashMap<String, u64>> {
        let mut values = HashMap::new();
        if let Some(column) = &self.column {
            for (ord, &count) in (0_u64..).zip(&self.counts).filter(|(_, count)| **count > 0) {
                values.insert(value_of(column, ord)?, count);
            }
        }
        Ok(values)
    }
}

struct RangeColumn {
    range: Range,
    values: Column<i64>,
    bounds: Bounds,
    counter: RangeCounter,
}

impl RangeColumn {
    fn open(range: Range, request: &SearchRequest, segment: &SegmentReader) -> tantivy::Result<Self> {
        let name = match range {
            Range::Price => "price_cents",
            Range::Year => "year",
            Range::Mileage => "mileage",
        };
        Ok(Self {
            range,
            values: segment.fast_fields().i64(name)?,
            bounds: request.ranges.get(&range).copied().unwrap_or_default(),
            counter: RangeCounter::default(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "cents, years and kilometres are far below 2^53")]
    fn value(&self, doc: DocId) -> Option<f64> {
        let value = self.values.first(doc)? as f64;
        Some(if self.range == Range::Price { value / 100.0 } else { value })
    }

    /// A listing without the value meets no bound.
    fn meets(&self, doc: DocId) -> bool {
        self.bounds.is_open() || self.value(doc).is_some_and(|value| self.bounds.contains(value))
    }

    fn count(&mut self, doc: DocId) {
        if let Some(value) = self.value(doc) {
            self.counter.add(self.range, value);
        }
    }
}

/// Something that is asked of every document, and where its facet or range is among those of the segment.
#[derive(Clone, Copy, Debug)]
struct Check {
    criterion: Criterion,
    column: usize,
}

/// What a document fails.
enum Failed {
    Nothing,
    One(Check),
    /// Several of make, model and trim, and nothing else.
    Name,
    More,
}

#[derive(Debug, PartialEq)]
struct Candidate {
    key: f64,
    /// The listing id's ordinal: ids of a segment order like their ordinals.
    id: u64,
    doc: DocId,
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then(self.id.cmp(&other.id))
    }
}

pub(crate) struct SegmentPass {
    request: Arc<SearchRequest>,
    has_text: bool,
    segment_ord: SegmentOrdinal,
    checks: Vec<Check>,
    facets: Vec<FacetColumn>,
    ranges: Vec<RangeColumn>,
    unavailable: Column<bool>,
    reserved_until: Column<i64>,
    availability_chosen: Option<Vec<Availability>>,
    availability_counts: [u64; 3],
    /// None without a market.
    ratings: Option<Arc<SegmentRatings>>,
    deals_chosen: Option<HashSet<Deal>>,
    deal_counts: [u64; 6],
    latitude: Column<f64>,
    longitude: Column<f64>,
    listed_at: Column<i64>,
    popularity: Column<f64>,
    owner_count: Column<i64>,
    accident_free: Column<bool>,
    price_drop: Column<i64>,
    featured: [Column<i64>; 2],
    /// Where make, model and trim are among the facets, when they are counted below each other.
    names: Option<[usize; 3]>,
    hierarchy: HashMap<[Option<u64>; 3], u64>,
    ids: Option<StrColumn>,
    seen: u64,
    total: u64,
    alone: HashMap<Criterion, u64>,
    within: [u64; RADII_KM.len()],
    /// The largest candidate on top, to be dropped first.
    best: BinaryHeap<Candidate>,
    near_misses: BinaryHeap<(Candidate, Criterion)>,
    failure: Option<io::Error>,
}

impl SegmentPass {
    fn open(
        request: Arc<SearchRequest>,
        has_text: bool,
        segment_ord: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<Self> {
        let fast = segment.fast_fields();
        let used = |facet: &&Facet| {
            let is_name = NAMES.contains(facet) && request.hierarchy;
            is_name || request.facets.contains(facet) || request.filters.contains_key(facet)
        };
        let facets = Facet::STORED.iter().filter(used).map(|&facet| FacetColumn::open(facet, &request, segment));
        let facets = facets.collect::<tantivy::Result<Vec<_>>>()?;
        let at = |name: Facet| facets.iter().position(|column| column.facet == name);
        let names = match NAMES.map(at) {
            [Some(make), Some(model), Some(trim)] if request.hierarchy => Some([make, model, trim]),
            _ => None,
        };
        let ranges = Range::ALL.into_iter().map(|range| RangeColumn::open(range, &request, segment));
        let chosen = request.filters.get(&Facet::Availability).map(|wanted| {
            let is_wanted =
                |value: &Availability| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(value.as_str()));
            Availability::ALL.into_iter().filter(is_wanted).collect()
        });
        let deals_chosen: Option<HashSet<Deal>> = request.filters.get(&Facet::Deal).map(|wanted| {
            let is_wanted = |deal: &Deal| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(deal.name()));
            Deal::ALL.into_iter().filter(is_wanted).collect()
        });
        let ranges = ranges.collect::<tantivy::Result<Vec<_>>>()?;
        let chosen_facets = facets.iter().enumerate().filter(|(_, facet)| facet.chosen.is_some());
        let set_ranges = ranges.iter().enumerate().filter(|(_, range)| !range.bounds.is_open());
        let others = [
            (chosen.is_some(), Criterion::Facet(Facet::Availability)),
            (deals_chosen.is_some(), Criterion::Facet(Facet::Deal)),
            (request.affordable.is_some(), Criterion::Payment),
            (request.price_drop, Criterion::PriceDrop),
            (request.days_listed_max.is_some(), Criterion::DaysListed),
            (request.accident_free, Criterion::AccidentFree),
            (request.owners_max.is_some(), Criterion::Owners),
            (request.near.and(request.radius_km).is_some(), Criterion::Radius),
        ];
        let checks = chosen_facets
            .map(|(column, facet)| Check { criterion: Criterion::Facet(facet.facet), column })
            .chain(set_ranges.map(|(column, range)| Check { criterion: Criterion::Range(range.range), column }))
            .chain(others.into_iter().filter(|(asked, _)| *asked).map(|(_, criterion)| Check { criterion, column: 0 }))
            .collect();
        Ok(Self {
            has_text,
            segment_ord,
            checks,
            facets,
            ranges,
            unavailable: fast.bool("unavailable")?,
            reserved_until: fast.i64("reserved_until")?,
            availability_chosen: chosen,
            availability_counts: [0; 3],
            ratings: request.market.as_ref().map(|market| market.segment(segment)).transpose()?,
            deals_chosen,
            deal_counts: [0; 6],
            latitude: fast.f64("latitude")?,
            longitude: fast.f64("longitude")?,
            listed_at: fast.i64("listed_at")?,
            popularity: fast.f64("popularity")?,
            owner_count: fast.i64("owner_count")?,
            accident_free: fast.bool("accident_free")?,
            price_drop: fast.i64("price_drop_cents")?,
            featured: [fast.i64("featured_from")?, fast.i64("featured_to")?],
            names,
            hierarchy: HashMap::new(),
            ids: fast.str("listing_id")?,
            seen: 0,
            total: 0,
            alone: HashMap::new(),
            within: [0; RADII_KM.len()],
            best: BinaryHeap::new(),
            near_misses: BinaryHeap::new(),
            failure: None,
            request,
        })
    }

    fn availability(&self, doc: DocId) -> Availability {
        let unavailable = self.unavailable.first(doc).unwrap_or(false);
        availability(true, unavailable, self.reserved_until.first(doc), self.request.now)
    }

    fn distance_km(&self, doc: DocId) -> Option<f64> {
        let place = Place::new(self.latitude.first(doc)?, self.longitude.first(doc)?)?;
        Some(self.request.near?.distance_km(place))
    }

    fn days_listed(&self, doc: DocId) -> Option<f64> {
        self.listed_at.first(doc).map(|time| micros(self.request.now.saturating_sub(time)) / MICROS_PER_DAY)
    }

    /// A listing of which something is not known does not meet what is asked of it.
    fn meets(&self, check: Check, doc: DocId) -> bool {
        let request = &self.request;
        match check.criterion {
            // It is what the documents were found by.
            Criterion::Text => true,
            Criterion::Facet(Facet::Availability) => {
                self.availability_chosen.as_ref().is_none_or(|chosen| chosen.contains(&self.availability(doc)))
            }
            Criterion::Facet(Facet::Deal) => {
                self.deals_chosen.as_ref().is_none_or(|chosen| chosen.contains(&self.deal(doc)))
            }
            Criterion::Facet(_) => self.facets[check.column].meets(doc),
            Criterion::Range(_) => self.ranges[check.column].meets(doc),
            Criterion::Payment => {
                let price = self.ranges[0].value(doc);
                price.zip(request.affordable).is_some_and(|(price, affordable)| price <= affordable)
            }
            Criterion::PriceDrop => self.price_drop.first(doc).is_some(),
            Criterion::DaysListed => {
                let days = self.days_listed(doc);
                days.zip(request.days_listed_max).is_some_and(|(days, most)| days <= most)
            }
            Criterion::AccidentFree => self.accident_free.first(doc) == Some(true),
            Criterion::Owners => {
                let owners = self.owner_count.first(doc);
                owners.zip(request.owners_max).is_some_and(|(owners, most)| owners <= most)
            }
            Criterion::Radius => {
                let distance = self.distance_km(doc);
                distance.zip(request.radius_km).is_some_and(|(distance, radius)| distance <= radius)
            }
        }
    }

    fn failed(&self, doc: DocId) -> Failed {
        let mut failed = self.checks.iter().copied().filter(|check| !self.meets(*check, doc));
        let Some(first) = failed.next() else { return Failed::Nothing };
        let Some(second) = failed.next() else { return Failed::One(first) };
        if [first, second].into_iter().chain(failed).all(|check| self.is_name(check)) {
            Failed::Name
        } else {
            Failed::More
        }
    }

    fn is_name(&self, check: Check) -> bool {
        matches!(check.criterion, Criterion::Facet(facet) if self.names.is_some() && NAMES.contains(&facet))
    }

    fn count_names(&mut self, doc: DocId) {
        if let Some(names) = self.names {
            let value = |index: usize| self.facets[index].column.as_ref().and_then(|column| column.ords().first(doc));
            *self.hierarchy.entry(names.map(value)).or_default() += 1;
        }
    }

    /// A document that fails one thing: counted for it, and shown if there is nothing better.
    fn count_alone(&mut self, check: Check, doc: DocId, score: Score) {
        match check.criterion {
            Criterion::Facet(Facet::Availability) => self.count_availability(doc),
            Criterion::Facet(Facet::Deal) => self.count_deal(doc),
            Criterion::Facet(_) => self.facets[check.column].count(doc),
            Criterion::Range(_) => self.ranges[check.column].count(doc),
            Criterion::Radius => {
                let distance = self.distance_km(doc).unwrap_or(f64::INFINITY);
                for (count, _) in self.within.iter_mut().zip(RADII_KM).filter(|(_, radius)| distance <= *radius) {
                    *count += 1;
                }
            }
            Criterion::Text
            | Criterion::Payment
            | Criterion::PriceDrop
            | Criterion::DaysListed
            | Criterion::AccidentFree
            | Criterion::Owners => {}
        }
        if self.is_name(check) {
            self.count_names(doc);
        }
        *self.alone.entry(check.criterion).or_default() += 1;
        // Only where nothing is found they are shown.
        if self.total == 0 && self.request.cursor.is_none() {
            self.near_misses.push((self.candidate(doc, score), check.criterion));
            if self.near_misses.len() > NEAR_MISSES {
                self.near_misses.pop();
            }
        }
    }

    fn candidate(&self, doc: DocId, score: Score) -> Candidate {
        let id = self.ids.as_ref().and_then(|ids| ids.ords().first(doc)).unwrap_or_default();
        Candidate { key: self.sort_key(doc, score), id, doc }
    }

    /// What a listing's score is multiplied by.
    fn boost(&self, doc: DocId) -> f64 {
        let age = self.days_listed(doc).unwrap_or(f64::INFINITY).max(0.0);
        let weeks = micros(self.request.now) / MICROS_PER_DAY / DAYS_PER_WEEK;
        let views = (self.popularity.first(doc).unwrap_or_default() - weeks).exp2();
        let [from, to] = self.featured.each_ref().map(|column| column.first(doc));
        let is_featured =
            from.is_some_and(|from| from <= self.request.now) && to.is_none_or(|to| self.request.now < to);
        1.0 + RECENCY * (-age / DAYS_PER_WEEK).exp2()
            + POPULARITY * ((1.0 + views).log2() / MOST_POPULAR).min(1.0)
            + if is_featured { FEATURED } else { 0.0 }
            + match self.deal(doc) {
                Deal::Great => GREAT_DEAL,
                Deal::Good => GOOD_DEAL,
                Deal::Fair | Deal::High | Deal::Overpriced | Deal::Unrated => 0.0,
            }
    }

    fn deal(&self, doc: DocId) -> Deal {
        self.ratings.as_ref().map_or(Deal::Unrated, |ratings| ratings.deal(doc))
    }

    fn count_deal(&mut self, doc: DocId) {
        let deal = self.deal(doc);
        for (count, kind) in self.deal_counts.iter_mut().zip(Deal::ALL) {
            *count += u64::from(kind == deal);
        }
    }

    fn count_availability(&mut self, doc: DocId) {
        let availability = self.availability(doc);
        for (count, kind) in self.availability_counts.iter_mut().zip(Availability::ALL) {
            *count += u64::from(kind == availability);
        }
    }

    /// Ascending whatever the sort; absent values last.
    fn sort_key(&self, doc: DocId, score: Score) -> f64 {
        let range = |index: usize| self.ranges[index].value(doc);
        let newest = || self.listed_at.first(doc).map(|time| -micros(time));
        let key = match self.request.sort {
            Sort::Relevance if self.has_text => Some(-f64::from(score) * self.boost(doc)),
            Sort::Relevance | Sort::Newest => newest(),
            Sort::Deal => self.ratings.as_ref().and_then(|ratings| ratings.share(doc)),
            Sort::Price => range(0),
            Sort::PriceDescending => range(0).map(|price| -price),
            Sort::Mileage => range(2),
            Sort::Year => range(1),
            Sort::YearDescending => range(1).map(|year| -year),
            Sort::Distance => self.distance_km(doc),
            Sort::Popular => self.popularity.first(doc).map(|popularity| -popularity),
        };
        key.unwrap_or(f64::INFINITY)
    }

    fn is_after_cursor(&mut self, key: f64, id: u64) -> bool {
        let Some(cursor) = &self.request.cursor else { return true };
        match key.total_cmp(&cursor.key) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => match listing_id(self.ids.as_ref(), id) {
                Ok(listing_id) => listing_id > cursor.listing_id,
                Err(error) => {
                    self.failure = Some(error);
                    false
                }
            },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of this millennium are below 2^53")]
fn micros(time: i64) -> f64 {
    time as f64
}

fn listing_id(ids: Option<&StrColumn>, ord: u64) -> io::Result<String> {
    ids.map_or_else(|| Ok(String::new()), |ids| value_of(ids, ord))
}

fn value_of(column: &StrColumn, ord: u64) -> io::Result<String> {
    let mut value = String::new();
    column.ord_to_str(ord, &mut value)?;
    Ok(value)
}

impl SegmentCollector for SegmentPass {
    type Fruit = io::Result<Found>;

    fn collect(&mut self, doc: DocId, score: Score) {
        self.seen += 1;
        match self.failed(doc) {
            Failed::More => {}
            Failed::Name => self.count_names(doc),
            Failed::One(check) => self.count_alone(check, doc, score),
            Failed::Nothing => {
                self.total += 1;
                self.facets.iter_mut().for_each(|facet| facet.count(doc));
                self.ranges.iter_mut().for_each(|range| range.count(doc));
                self.count_availability(doc);
                self.count_deal(doc);
                self.count_names(doc);
                let candidate = self.candidate(doc, score);
                if self.is_after_cursor(candidate.key, candidate.id) {
                    self.best.push(candidate);
                    if self.best.len() > self.request.page_size {
                        self.best.pop();
                    }
                }
            }
        }
    }

    fn harvest(self) -> io::Result<Found> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let mut counts = HashMap::new();
        for column in self.facets.iter().filter(|column| self.request.facets.contains(&column.facet)) {
            counts.insert(column.facet, column.by_value()?);
        }
        if self.request.facets.contains(&Facet::Availability) {
            let named = Availability::ALL.iter().zip(self.availability_counts).filter(|(_, count)| *count > 0);
            counts.insert(Facet::Availability, named.map(|(kind, count)| (kind.as_str().to_owned(), count)).collect());
        }
        if self.request.facets.contains(&Facet::Deal) {
            let named = Deal::ALL.iter().zip(self.deal_counts).filter(|(_, count)| *count > 0);
            counts.insert(Facet::Deal, named.map(|(deal, count)| (deal.name().to_owned(), count)).collect());
        }
        let ranked = |Candidate { key, id, doc }: Candidate| {
            let address = DocAddress::new(self.segment_ord, doc);
            io::Result::Ok(Ranked { key, listing_id: listing_id(self.ids.as_ref(), id)?, address })
        };
        let page = self.best.into_iter().map(ranked).collect::<io::Result<_>>()?;
        let near_misses = self.near_misses.into_iter().filter(|_| self.total == 0);
        let near_misses =
            near_misses.map(|(candidate, criterion)| Ok((ranked(candidate)?, criterion))).collect::<io::Result<_>>()?;
        let mut hierarchy = HashMap::new();
        if let Some(names) = self.names {
            for (ords, count) in self.hierarchy {
                let mut path = [None, None, None];
                for ((name, ord), index) in path.iter_mut().zip(ords).zip(names) {
                    let column = ord.zip(self.facets[index].column.as_ref());
                    *name = column.map(|(ord, column)| value_of(column, ord)).transpose()?;
                }
                hierarchy.insert(path, count);
            }
        }
        Ok(Found {
            seen: self.seen,
            total: self.total,
            alone: self.alone,
            within: self.within,
            near_misses,
            hierarchy,
            counts,
            page,
            ranges: self.ranges.into_iter().map(|column| (column.range, column.counter)).collect(),
        })
    }
}
