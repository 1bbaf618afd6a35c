//! One pass over what was found: the page, exact multi-select facet counts, and range histograms.
//!
//! A listing that meets every criterion is a hit and counts everywhere. One that fails only one facet's filter (or one
//! range) counts for that facet (or range) alone: these are the counts a buyer sees beside the values not chosen. What
//! fails only one criterion is also what a buyer finds who gives that one up. Which is which is told by sets of documents,
//! criterion by criterion; counting then reads column by column.

mod best;

use std::{borrow::Cow, collections::HashMap, io, sync::Arc};

use best::Best;
pub(crate) use best::Ranked;

use fixedbitset::FixedBitSet;
use rayon::prelude::*;
use tantivy::{DocId, Score, SegmentOrdinal};

use crate::{
    columns::{Columns, Counted, MANY, NAMES, Numbering, Part, select, select_by, select_told},
    geo::{Place, Reach},
    listing::Availability,
    market::{Deal, SegmentRatings},
    query::{Criterion, Cursor, Facet, Range, SearchRequest, Sort},
    ranges::RangeCounter,
    segments::{Segment, Segments},
    text::Scores,
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

/// By the number of the bucket, and the least and the most.
type RangeCounts = (Vec<u64>, Option<[f64; 2]>);

/// Everything a pass finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Public listings that have the text.
    pub(crate) seen: usize,
    pub(crate) total: usize,
    /// When nothing is found, on the first page: how many fail only this.
    pub(crate) alone: HashMap<Criterion, usize>,
    /// Likewise: how many fail only the distance, and are within each of [`RADII_KM`].
    pub(crate) within: [usize; RADII_KM.len()],
    /// Likewise: the best of those that fail one criterion, in order.
    pub(crate) near_misses: Vec<(Ranked, Criterion)>,
    /// By the number of make, model and trim, whichever of them are chosen.
    pub(crate) names: Vec<u64>,
    /// By the number of the value.
    counts: HashMap<Facet, Vec<u64>>,
    ranges: HashMap<Range, RangeCounts>,
    /// The page, in order.
    pub(crate) page: Vec<Ranked>,
}

impl Found {
    /// The counts of a facet, by value.
    pub(crate) fn counted(&self, facet: Facet, numbering: &Numbering) -> HashMap<String, u64> {
        let counts = self.counts.get(&facet).map_or(&[][..], Vec::as_slice);
        let named = |names: &mut dyn Iterator<Item = &'static str>| {
            let counted = names.zip(counts).filter(|(_, count)| **count > 0);
            counted.map(|(name, count)| (name.to_owned(), *count)).collect()
        };
        match facet {
            Facet::Availability => named(&mut Availability::ALL.iter().map(|kind| kind.as_str())),
            Facet::Deal => named(&mut Deal::ALL.iter().map(|deal| deal.name())),
            facet => {
                let counted = numbering.values(facet).counted(counts);
                counted.map(|(value, count)| (value.clone(), count)).collect()
            }
        }
    }

    pub(crate) fn range(&self, range: Range, numbering: &Numbering) -> RangeCounter {
        let Some((counts, extremes)) = self.ranges.get(&range) else { return RangeCounter::default() };
        let buckets = numbering.buckets(range).counted(counts).map(|(bucket, count)| (*bucket, count));
        RangeCounter::new(*extremes, buckets.collect())
    }
}

/// What is asked, with values by their numbers.
pub(crate) struct Pass<'a> {
    request: &'a SearchRequest,
    /// Of stored facets, which numbers are chosen.
    chosen: Arc<Vec<(Facet, Vec<bool>)>>,
    found: Found,
    /// As long as nothing is found: what fails one criterion, by segment.
    missed: Vec<(SegmentPass<'a>, Sorted)>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(request: &'a SearchRequest, segments: &Segments) -> Self {
        let numbering = segments.numbering();
        let chosen = request.filters.iter().filter(|(facet, _)| Facet::STORED.contains(facet));
        let chosen = chosen.map(|(facet, values)| (*facet, numbering.chosen(*facet, values))).collect();
        let counts = request.facets.iter().map(|facet| (*facet, Vec::new())).collect();
        let ranges = Range::ALL.map(|range| (range, RangeCounts::default())).into();
        let found = Found { counts, ranges, ..Found::default() };
        Self { request, chosen: Arc::new(chosen), found, missed: Vec::new() }
    }

    /// Take what was found in one segment.
    pub(crate) fn take(
        &mut self,
        ord: SegmentOrdinal,
        segment: &'a Segment,
        ratings: Option<Arc<SegmentRatings>>,
        has_text: Option<Scores>,
    ) -> io::Result<()> {
        let mut seen = segment.public.clone();
        if let Some(Scores { docs, .. }) = &has_text {
            seen.intersect_with(docs);
        }
        if seen.is_clear() {
            return Ok(());
        }
        let pass = SegmentPass {
            request: self.request,
            chosen: Arc::clone(&self.chosen),
            ord,
            columns: &segment.columns,
            ratings,
            scores: has_text.map(|text| text.scores),
        };
        let sorted = pass.take(seen, &mut self.found)?;
        if self.found.total > 0 {
            self.missed.clear();
        } else if self.request.cursor.is_none() {
            self.missed.push((pass, sorted));
        }
        Ok(())
    }

    /// Everything that was found, in order; what nearly was, when nothing is.
    pub(crate) fn end(self) -> io::Result<Found> {
        let mut found = self.found;
        for (pass, sorted) in &self.missed {
            pass.take_missed(sorted, &mut found)?;
        }
        found.page.sort_unstable();
        found.page.truncate(self.request.page_size);
        found.near_misses.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        found.near_misses.truncate(NEAR_MISSES);
        Ok(found)
    }
}

struct SegmentPass<'a> {
    request: &'a SearchRequest,
    chosen: Arc<Vec<(Facet, Vec<bool>)>>,
    ord: SegmentOrdinal,
    columns: &'a Columns,
    /// None without a market.
    ratings: Option<Arc<SegmentRatings>>,
    /// How well they have the text, when there is one.
    scores: Option<Vec<Score>>,
}

/// What fails nothing, and what fails one criterion.
struct Sorted {
    hits: FixedBitSet,
    one: FixedBitSet,
    /// What fails each criterion alone.
    alone: Vec<(Criterion, FixedBitSet)>,
    /// What fails nothing, or names only.
    named: FixedBitSet,
}

impl SegmentPass<'_> {
    fn take(&self, seen: FixedBitSet, found: &mut Found) -> io::Result<Sorted> {
        found.seen += seen.count_ones(..);
        let sorted = self.sort(seen);
        let total = sorted.hits.count_ones(..);
        found.total += total;
        self.count(&sorted, found);
        found.page.extend(self.best(&sorted.hits, self.request.page_size, self.request.cursor.as_ref())?);
        Ok(sorted)
    }

    /// What fails one criterion: how much, and the best of it.
    fn take_missed(&self, sorted: &Sorted, found: &mut Found) -> io::Result<()> {
        for (criterion, alone) in &sorted.alone {
            *found.alone.entry(*criterion).or_default() += alone.count_ones(..);
            if let (Criterion::Radius, Some(near)) = (criterion, self.request.near) {
                for (count, km) in found.within.iter_mut().zip(RADII_KM) {
                    *count += self.within(alone, near, km).count_ones(..);
                }
            }
        }
        let nearest = self.best(&sorted.one, NEAR_MISSES, None)?;
        let failed = |ranked: &Ranked| {
            let is_in = |(_, alone): &&(Criterion, FixedBitSet)| alone.contains(ranked.address.doc_id as usize);
            sorted.alone.iter().find(is_in).map(|(criterion, _)| *criterion)
        };
        found.near_misses.extend(nearest.into_iter().filter_map(|ranked| {
            let criterion = failed(&ranked)?;
            Some((ranked, criterion))
        }));
        Ok(())
    }

    /// Ask every criterion. One that costs much is asked last, of those alone that it matters for.
    fn sort(&self, seen: FixedBitSet) -> Sorted {
        let (mut hits, mut named) = (seen.clone(), seen);
        let mut one = FixedBitSet::with_capacity(self.columns.docs);
        let mut alone = Vec::new();
        for criterion in self.request.criteria() {
            let mut matters = hits.clone();
            matters.union_with(&one);
            if self.request.hierarchy {
                matters.union_with(&named);
            }
            let met = self.met(criterion, &matters);
            // One that failed nothing so far fails this one alone; one that failed another fails two.
            let mut fails = hits.clone();
            fails.difference_with(&met);
            one.intersect_with(&met);
            one.union_with(&fails);
            hits.intersect_with(&met);
            if !matches!(criterion, Criterion::Facet(facet) if NAMES.contains(&facet)) {
                named.intersect_with(&met);
            }
            alone.push((criterion, met));
        }
        for (_, met) in &mut alone {
            let mut fails = one.clone();
            fails.difference_with(met);
            *met = fails;
        }
        Sorted { hits, one, alone, named }
    }

    /// Which of some documents meet a criterion. A listing of which something is not known does not meet what is asked
    /// of it.
    fn met(&self, criterion: Criterion, docs: &FixedBitSet) -> FixedBitSet {
        let (request, columns) = (self.request, self.columns);
        match criterion {
            // It is what the documents were found by.
            Criterion::Text => docs.clone(),
            Criterion::Facet(Facet::Availability) => {
                let mut met = FixedBitSet::with_capacity(columns.docs);
                for (kind, is) in Availability::ALL.into_iter().zip(self.availability(docs)) {
                    if self.wants(Facet::Availability, kind.as_str()) {
                        met.union_with(&is);
                    }
                }
                met
            }
            Criterion::Facet(Facet::Deal) => {
                let chosen: Vec<bool> = [false]
                    .into_iter()
                    .chain(Deal::ALL.into_iter().map(|deal| self.wants(Facet::Deal, deal.name())))
                    .collect();
                match &self.ratings {
                    Some(ratings) => ratings.deals.select(docs, &chosen),
                    None if self.wants(Facet::Deal, Deal::Unrated.name()) => docs.clone(),
                    None => FixedBitSet::with_capacity(columns.docs),
                }
            }
            Criterion::Facet(facet) => {
                let chosen = self.chosen.iter().find(|(known, _)| *known == facet).map_or(&[][..], |(_, it)| it);
                columns.facet(facet).select(docs, chosen)
            }
            Criterion::Range(range) => {
                let bounds = request.ranges.get(&range).copied().unwrap_or_default();
                let (min, max) = (bounds.min.unwrap_or(f64::NEG_INFINITY), bounds.max.unwrap_or(f64::INFINITY));
                select_by(docs, &columns.range(range).values, |value| (value >= min) & (value <= max))
            }
            Criterion::Payment => {
                let (prices, most) = (&columns.range(Range::Price).values, request.affordable.unwrap_or(f64::NAN));
                select_by(docs, prices, |price| price <= most)
            }
            Criterion::PriceDrop => columns.price_dropped.clone(),
            Criterion::DaysListed => {
                let most = request.days_listed_max.unwrap_or(f64::NAN);
                select(docs, |doc| self.days_listed(doc).is_some_and(|days| days <= most))
            }
            Criterion::AccidentFree => columns.accident_free.clone(),
            Criterion::Owners => select(docs, |doc| {
                let owners = DocId::try_from(doc).ok().and_then(|doc| columns.owners.first(doc));
                owners.zip(request.owners_max).is_some_and(|(owners, most)| owners <= most)
            }),
            Criterion::Radius => {
                let (Some(near), Some(radius)) = (request.near, request.radius_km) else { return docs.clone() };
                self.within(docs, near, radius)
            }
        }
    }

    fn wants(&self, facet: Facet, value: &str) -> bool {
        self.request.filters.get(&facet).is_none_or(|wanted| wanted.iter().any(|it| it.eq_ignore_ascii_case(value)))
    }

    /// Those of some documents that are available, reserved, and unavailable now.
    fn availability(&self, docs: &FixedBitSet) -> [FixedBitSet; 3] {
        let mut reserved = FixedBitSet::with_capacity(self.columns.docs);
        let is_reserved = self.columns.reserved.iter().filter(|(doc, until)| *until > self.request.now && docs[*doc]);
        is_reserved.for_each(|(doc, _)| reserved.insert(*doc));
        let mut unavailable = self.columns.unavailable.clone();
        unavailable.intersect_with(docs);
        unavailable.difference_with(&reserved);
        let mut available = docs.clone();
        available.difference_with(&reserved);
        available.difference_with(&unavailable);
        Availability::ALL.map(|kind| match kind {
            Availability::Available => available.clone(),
            Availability::Reserved => reserved.clone(),
            Availability::Unavailable => unavailable.clone(),
        })
    }

    /// Count every facet and range without its own filter.
    fn count(&self, sorted: &Sorted, found: &mut Found) {
        let (columns, all) = (self.columns, &self.columns.all);
        let hits = Part::new(&sorted.hits, all);
        let without = |criterion: Criterion| match sorted.alone.iter().find(|(known, _)| *known == criterion) {
            Some((_, alone)) => {
                let mut docs = sorted.hits.clone();
                docs.union_with(alone);
                Cow::Owned(docs)
            }
            None => Cow::Borrowed(&sorted.hits),
        };
        let add = |column: &Counted, docs: &Cow<'_, FixedBitSet>, counts: &mut Vec<u64>| match docs {
            Cow::Borrowed(_) => column.count(&hits, counts),
            Cow::Owned(docs) => column.count(&Part::new(docs, all), counts),
        };
        let count_facet = |(&facet, counts): (&Facet, &mut Vec<u64>)| {
            let docs = without(Criterion::Facet(facet));
            match facet {
                Facet::Availability => {
                    counts.resize(Availability::ALL.len(), 0);
                    for (count, is) in counts.iter_mut().zip(self.availability(&docs)) {
                        *count += is.count_ones(..) as u64;
                    }
                }
                Facet::Deal => {
                    counts.resize(Deal::ALL.len(), 0);
                    let by_number = &mut vec![0; Deal::ALL.len() + 1];
                    match &self.ratings {
                        Some(ratings) => add(&ratings.deals, &docs, by_number),
                        None => by_number[Deal::Unrated.number() as usize] = docs.count_ones(..) as u64,
                    }
                    for (count, more) in counts.iter_mut().zip(by_number.iter().skip(1)) {
                        *count += more;
                    }
                }
                facet => add(columns.facet(facet), &docs, counts),
            }
        };
        let count_range = |(&range, (counts, extremes)): (&Range, &mut RangeCounts)| {
            let docs = without(Criterion::Range(range));
            let column = columns.range(range);
            add(&column.buckets, &docs, counts);
            if let Some([least, most]) = column.extremes(&docs) {
                let known = extremes.get_or_insert([least, most]);
                *known = [known[0].min(least), known[1].max(most)];
            }
        };
        let Found { counts, ranges, names, .. } = found;
        if self.columns.docs < MANY {
            counts.iter_mut().for_each(count_facet);
            ranges.iter_mut().for_each(count_range);
        } else {
            rayon::join(|| counts.par_iter_mut().for_each(count_facet), || ranges.par_iter_mut().for_each(count_range));
        }
        if self.request.hierarchy {
            columns.names.count(&Part::new(&sorted.named, all), names);
        }
    }

    /// The first of some documents, after a cursor.
    fn best(&self, docs: &FixedBitSet, most: usize, after: Option<&Cursor>) -> io::Result<Vec<Ranked>> {
        let columns = self.columns;
        let mut best = Best::new(columns, after, most)?;
        let absent = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
        let values = |range: Range| &columns.range(range).values;
        let [prices, years, mileages] = [Range::Price, Range::Year, Range::Mileage].map(values);
        let some = docs.ones();
        // Ascending whatever the sort; absent values last.
        match (self.request.sort, &self.scores) {
            (Sort::Relevance, scores) if scores.is_some() || self.request.in_words => {
                let featured = self.featured();
                some.for_each(|doc| {
                    let score = scores.as_ref().map_or(1.0, |scores| f64::from(scores[doc]));
                    let promoted = self.promoted(doc, &featured);
                    // Most are told by what they gain at most.
                    if -score * (promoted + RECENCY + POPULARITY) <= best.last() {
                        best.offer(doc, -score * self.boost(doc, promoted));
                    }
                });
            }
            (Sort::Relevance | Sort::Newest, _) => {
                let age = |doc: usize| match columns.listed_at[doc] {
                    i64::MIN => f64::INFINITY,
                    at => -micros(at),
                };
                let newest = columns.newest.iter().filter(|doc| docs.contains(**doc));
                newest.for_each(|doc| best.offer(*doc, age(*doc)));
                if !best.is_full() {
                    best = Best::new(columns, after, most)?;
                    some.for_each(|doc| best.offer(doc, age(doc)));
                }
            }
            (Sort::Deal, _) => some.for_each(|doc| {
                best.offer(doc, self.ratings.as_ref().and_then(|ratings| ratings.share(doc)).unwrap_or(f64::INFINITY));
            }),
            (Sort::Price, _) => some.for_each(|doc| best.offer(doc, absent(prices[doc]))),
            (Sort::PriceDescending, _) => some.for_each(|doc| best.offer(doc, absent(-prices[doc]))),
            (Sort::Mileage, _) => some.for_each(|doc| best.offer(doc, absent(mileages[doc]))),
            (Sort::Year, _) => some.for_each(|doc| best.offer(doc, absent(years[doc]))),
            (Sort::YearDescending, _) => some.for_each(|doc| best.offer(doc, absent(-years[doc]))),
            (Sort::Distance, _) => {
                let near = self.request.near.unwrap_or(Place { latitude: 0.0, longitude: 0.0 });
                let (mut last, mut reach) = (f64::INFINITY, Reach::new(near, f64::INFINITY));
                some.for_each(|doc| {
                    if best.last() < last {
                        last = best.last();
                        reach = Reach::new(near, last);
                    }
                    if last.is_infinite() || reach.holds(columns.points.at(doc)) != Some(false) {
                        best.offer(doc, self.distance_km(doc).unwrap_or(f64::INFINITY));
                    }
                });
            }
            (Sort::Popular, _) => some.for_each(|doc| best.offer(doc, absent(-columns.popularity[doc]))),
        }
        best.end(self.ord)
    }

    fn distance_km(&self, doc: usize) -> Option<f64> {
        Some(self.request.near?.distance_km(self.columns.place(doc)?))
    }

    /// Those of some documents that are within a distance of a place.
    fn within(&self, docs: &FixedBitSet, near: Place, km: f64) -> FixedBitSet {
        let (columns, reach) = (self.columns, Reach::new(near, km));
        let is_within = |doc: usize| columns.place(doc).is_some_and(|place| near.distance_km(place) <= km);
        select_told(docs, |from| reach.told(&columns.points, from), is_within)
    }

    fn days_listed(&self, doc: usize) -> Option<f64> {
        let at = Some(self.columns.listed_at[doc]).filter(|at| *at != i64::MIN)?;
        Some(micros(self.request.now.saturating_sub(at)) / MICROS_PER_DAY)
    }

    /// What is promoted now.
    fn featured(&self) -> FixedBitSet {
        let mut featured = FixedBitSet::with_capacity(self.columns.docs);
        let now = self.request.now;
        let is_now = self.columns.featured.iter().filter(|(_, from, to)| (*from..*to).contains(&now));
        is_now.for_each(|(doc, ..)| featured.insert(*doc));
        featured
    }

    /// What a listing's score is multiplied by, but for what it gains by being new and looked at.
    fn promoted(&self, doc: usize, featured: &FixedBitSet) -> f64 {
        let deal = match self.deal(doc) {
            Deal::Great => GREAT_DEAL,
            Deal::Good => GOOD_DEAL,
            Deal::Fair | Deal::High | Deal::Overpriced | Deal::Unrated => 0.0,
        };
        1.0 + deal + if featured.contains(doc) { FEATURED } else { 0.0 }
    }

    /// What a listing's score is multiplied by.
    fn boost(&self, doc: usize, promoted: f64) -> f64 {
        let age = self.days_listed(doc).unwrap_or(f64::INFINITY).max(0.0);
        let weeks = micros(self.request.now) / MICROS_PER_DAY / DAYS_PER_WEEK;
        let popularity = self.columns.popularity[doc];
        let views = (if popularity.is_nan() { 0.0 } else { popularity } - weeks).exp2();
        promoted + RECENCY * (-age / DAYS_PER_WEEK).exp2() + POPULARITY * ((1.0 + views).log2() / MOST_POPULAR).min(1.0)
    }

    fn deal(&self, doc: usize) -> Deal {
        self.ratings.as_ref().map_or(Deal::Unrated, |ratings| ratings.deal(doc))
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of this millennium are below 2^53")]
fn micros(time: i64) -> f64 {
    time as f64
}
