//! One pass over the matches: the page, exact multi-select facet counts, and range histograms.
//!
//! A document that meets every filter is a hit and counts everywhere. One that fails only one facet's filter (or one
//! range) counts for that facet (or range) alone: these are the counts a buyer sees beside the values not chosen.

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
    query::{Bounds, Facet, Range, SearchRequest, Sort},
    ranges::RangeCounter,
};

/// Everything one pass finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) total: u64,
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
    request: Arc<SearchRequest>,
}

impl PageCollector {
    pub(crate) const fn new(request: Arc<SearchRequest>) -> Self {
        Self { request }
    }
}

impl Collector for PageCollector {
    type Fruit = Found;
    type Child = SegmentPass;

    fn for_segment(&self, segment_ord: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<SegmentPass> {
        SegmentPass::open(Arc::clone(&self.request), segment_ord, segment)
    }

    fn requires_scoring(&self) -> bool {
        self.request.sort == Sort::Relevance && !self.request.text.is_empty()
    }

    fn merge_fruits(&self, fruits: Vec<io::Result<Found>>) -> tantivy::Result<Found> {
        let mut merged = Found::default();
        for found in fruits {
            let found = found?;
            merged.total += found.total;
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
        Ok(merged)
    }
}

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
                let mut value = String::new();
                column.ord_to_str(ord, &mut value)?;
                values.insert(value, count);
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

/// What a document may fail.
#[derive(Clone, Copy, Debug)]
enum Criterion {
    Facet(usize),
    Availability,
    Range(usize),
    Distance,
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
    segment_ord: SegmentOrdinal,
    facets: Vec<FacetColumn>,
    ranges: Vec<RangeColumn>,
    unavailable: Column<bool>,
    reserved_until: Column<i64>,
    availability_chosen: Option<Vec<Availability>>,
    availability_counts: [u64; 3],
    latitude: Column<f64>,
    longitude: Column<f64>,
    listed_at: Column<i64>,
    popularity: Column<f64>,
    ids: Option<StrColumn>,
    total: u64,
    /// The largest candidate on top, to be dropped first.
    best: BinaryHeap<Candidate>,
    failure: Option<io::Error>,
}

impl SegmentPass {
    fn open(
        request: Arc<SearchRequest>,
        segment_ord: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<Self> {
        let fast = segment.fast_fields();
        let used = |facet: &&Facet| request.facets.contains(facet) || request.filters.contains_key(facet);
        let facets = Facet::STORED.iter().filter(used).map(|&facet| FacetColumn::open(facet, &request, segment));
        let ranges = Range::ALL.into_iter().map(|range| RangeColumn::open(range, &request, segment));
        let chosen = request.filters.get(&Facet::Availability).map(|wanted| {
            let is_wanted =
                |value: &Availability| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(value.as_str()));
            Availability::ALL.into_iter().filter(is_wanted).collect()
        });
        Ok(Self {
            segment_ord,
            facets: facets.collect::<tantivy::Result<_>>()?,
            ranges: ranges.collect::<tantivy::Result<_>>()?,
            unavailable: fast.bool("unavailable")?,
            reserved_until: fast.i64("reserved_until")?,
            availability_chosen: chosen,
            availability_counts: [0; 3],
            latitude: fast.f64("latitude")?,
            longitude: fast.f64("longitude")?,
            listed_at: fast.i64("listed_at")?,
            popularity: fast.f64("popularity")?,
            ids: fast.str("listing_id")?,
            total: 0,
            best: BinaryHeap::new(),
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

    /// What the document fails: nothing, one thing, or more (`Err`).
    fn failed(&self, doc: DocId) -> Result<Option<Criterion>, ()> {
        let facets = self.facets.iter().enumerate().filter(|(_, facet)| !facet.meets(doc));
        let ranges = self.ranges.iter().enumerate().filter(|(_, range)| !range.meets(doc));
        let availability = self.availability_chosen.as_ref().filter(|chosen| !chosen.contains(&self.availability(doc)));
        let beyond = |radius: &f64| self.distance_km(doc).is_none_or(|distance| distance > *radius);
        let distance = self.request.radius_km.filter(|_| self.request.near.is_some()).filter(beyond);
        let mut failures = facets
            .map(|(index, _)| Criterion::Facet(index))
            .chain(ranges.map(|(index, _)| Criterion::Range(index)))
            .chain(availability.map(|_| Criterion::Availability))
            .chain(distance.map(|_| Criterion::Distance));
        match (failures.next(), failures.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(()),
        }
    }

    fn count_availability(&mut self, doc: DocId) {
        let availability = self.availability(doc);
        for (count, kind) in self.availability_counts.iter_mut().zip(Availability::ALL) {
            *count += u64::from(kind == availability);
        }
    }

    /// Ascending whatever the sort; absent values last.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this millennium are below 2^53")]
    fn sort_key(&self, doc: DocId, score: Score) -> f64 {
        let range = |index: usize| self.ranges[index].value(doc);
        let newest = || self.listed_at.first(doc).map(|time| -(time as f64));
        let key = match self.request.sort {
            Sort::Relevance if !self.request.text.is_empty() => Some(-f64::from(score)),
            Sort::Relevance | Sort::Newest | Sort::Deal => newest(),
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

fn listing_id(ids: Option<&StrColumn>, ord: u64) -> io::Result<String> {
    let mut id = String::new();
    if let Some(ids) = ids {
        ids.ord_to_str(ord, &mut id)?;
    }
    Ok(id)
}

impl SegmentCollector for SegmentPass {
    type Fruit = io::Result<Found>;

    fn collect(&mut self, doc: DocId, score: Score) {
        match self.failed(doc) {
            Err(()) | Ok(Some(Criterion::Distance)) => {}
            Ok(Some(Criterion::Facet(index))) => self.facets[index].count(doc),
            Ok(Some(Criterion::Range(index))) => self.ranges[index].count(doc),
            Ok(Some(Criterion::Availability)) => self.count_availability(doc),
            Ok(None) => {
                self.total += 1;
                self.facets.iter_mut().for_each(|facet| facet.count(doc));
                self.ranges.iter_mut().for_each(|range| range.count(doc));
                self.count_availability(doc);
                let key = self.sort_key(doc, score);
                let id = self.ids.as_ref().and_then(|ids| ids.ords().first(doc)).unwrap_or_default();
                if self.is_after_cursor(key, id) {
                    self.best.push(Candidate { key, id, doc });
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
        let page = self.best.into_iter().map(|Candidate { key, id, doc }| {
            let address = DocAddress::new(self.segment_ord, doc);
            Ok(Ranked { key, listing_id: listing_id(self.ids.as_ref(), id)?, address })
        });
        Ok(Found {
            total: self.total,
            counts,
            page: page.collect::<io::Result<_>>()?,
            ranges: self.ranges.into_iter().map(|column| (column.range, column.counter)).collect(),
        })
    }
}
