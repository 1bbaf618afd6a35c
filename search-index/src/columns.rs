//! What one pass reads of a segment: its columns as plain arrays, made once when the segment is first seen.
//!
//! Values are numbered for all segments together, so that counts of several segments are added as they are. A segment
//! takes about a hundred bytes a listing; deletions leave it as it is.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::Hash,
    ops,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use fixedbitset::FixedBitSet;
use tantivy::{
    BitSet, DocId, SegmentReader,
    columnar::{Column, StrColumn},
    index::SegmentId,
};

use crate::{
    geo::{Place, Point},
    query::{Facet, Range},
    ranges,
};

/// A vehicle's name, from the general to the special.
pub(crate) const NAMES: [Facet; 3] = [Facet::Make, Facet::Model, Facet::Trim];
/// Documents that a word of a set is about.
const BLOCK: usize = usize::BITS as usize;
/// The number of having no value.
pub(crate) const NONE: u32 = 0;

/// Things by number, from 1.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    numbers: HashMap<K, u32>,
    things: Vec<K>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash> Numbers<K> {
    /// A thing's number; a new one for a thing that had none.
    fn number(&mut self, thing: K) -> u32 {
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.things.push(thing.clone());
            u32::try_from(self.things.len()).unwrap_or(u32::MAX)
        })
    }

    /// Everything that was counted, in the order of its numbers.
    pub(crate) fn counted<'a>(&'a self, counts: &'a [u64]) -> impl Iterator<Item = (&'a K, u64)> {
        self.things.iter().zip(counts.iter().skip(1).copied()).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn thing(&self, number: u32) -> Option<&K> {
        self.things.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

/// The numbers of all values that segments of one index have had.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    facets: [Numbers<String>; Facet::STORED.len()],
    /// Values in small letters, with the numbers of those that are written so.
    small: [HashMap<String, Vec<u32>>; Facet::STORED.len()],
    /// Make, model and trim together, each by its number.
    pub(crate) names: Numbers<[u32; 3]>,
    /// The finest buckets.
    buckets: [Numbers<i64>; Range::ALL.len()],
}

impl Numbering {
    fn value(&mut self, at: usize, value: &str) -> u32 {
        if let Some(number) = self.facets[at].numbers.get(value) {
            return *number;
        }
        let number = self.facets[at].number(value.to_owned());
        self.small[at].entry(value.to_lowercase()).or_default().push(number);
        number
    }

    /// Which numbers a facet's values have, however they are written; by number.
    pub(crate) fn chosen(&self, facet: Facet, values: &[String]) -> Vec<bool> {
        let at = place_of(facet);
        let mut chosen = vec![false; self.facets[at].things.len() + 1];
        for number in values.iter().filter_map(|value| self.small[at].get(&value.to_lowercase())).flatten() {
            chosen[*number as usize] = true;
        }
        chosen
    }

    pub(crate) const fn values(&self, facet: Facet) -> &Numbers<String> {
        &self.facets[place_of(facet)]
    }

    pub(crate) const fn buckets(&self, range: Range) -> &Numbers<i64> {
        &self.buckets[range as usize]
    }
}

/// Where a stored facet is among them: they come first.
const fn place_of(facet: Facet) -> usize {
    facet as usize
}

/// The numbers of every document, those of one behind those of another.
#[derive(Debug)]
enum Flat {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Flat {
    fn of(numbers: Vec<u32>) -> Self {
        match numbers.iter().map(|number| u16::try_from(*number)).collect() {
            Ok(narrow) => Self::Narrow(narrow),
            Err(_) => Self::Wide(numbers),
        }
    }
}

/// Numbered values of every document, to be counted.
#[derive(Debug)]
pub(crate) struct Counted {
    flat: Flat,
    /// Where a document's numbers begin, and after the last, where they end; without it, each has one, which may be
    /// [`NONE`].
    starts: Option<Vec<u32>>,
    /// How often each number is there.
    totals: Vec<u64>,
}

impl Counted {
    pub(crate) fn single(numbers: Vec<u32>) -> Self {
        Self::new(numbers, None)
    }

    fn new(numbers: Vec<u32>, starts: Option<Vec<u32>>) -> Self {
        let mut totals = Vec::new();
        for number in &numbers {
            let at = *number as usize;
            if totals.len() <= at {
                totals.resize(at + 1, 0);
            }
            totals[at] += 1;
        }
        Self { flat: Flat::of(numbers), starts, totals }
    }

    /// Those of some documents that have one of the chosen numbers.
    pub(crate) fn select(&self, docs: &FixedBitSet, chosen: &[bool]) -> FixedBitSet {
        let is_chosen = |number: usize| chosen.get(number).copied().unwrap_or(false);
        let mut numbers = (0..).zip(chosen).filter(|(_, is_chosen)| **is_chosen).map(|(number, _)| number);
        let only = numbers.next().filter(|_| numbers.next().is_none());
        match (&self.flat, &self.starts, only) {
            (Flat::Narrow(numbers), None, Some(only)) => select_by(docs, numbers, |number| u32::from(number) == only),
            (Flat::Wide(numbers), None, Some(only)) => select_by(docs, numbers, |number| number == only),
            (Flat::Narrow(numbers), None, None) => select_by(docs, numbers, |number| is_chosen(usize::from(number))),
            (Flat::Wide(numbers), None, None) => select_by(docs, numbers, |number| is_chosen(number as usize)),
            (Flat::Narrow(numbers), Some(starts), _) => {
                select(docs, |doc| numbers[several(starts, doc)].iter().any(|number| is_chosen(usize::from(*number))))
            }
            (Flat::Wide(numbers), Some(starts), _) => {
                select(docs, |doc| numbers[several(starts, doc)].iter().any(|number| is_chosen(*number as usize)))
            }
        }
    }

    /// Add the numbers of some documents to `counts`.
    pub(crate) fn count(&self, part: &Part<'_>, counts: &mut Vec<u64>) {
        if counts.len() < self.totals.len() {
            counts.resize(self.totals.len(), 0);
        }
        match part {
            Part::These(docs) => self.each(docs.ones(), |number| counts[number] += 1),
            Part::AllBut(docs) => {
                for (count, total) in counts.iter_mut().zip(&self.totals) {
                    *count += total;
                }
                self.each(docs.ones(), |number| counts[number] -= 1);
            }
        }
    }

    /// A document's first number.
    pub(crate) fn first(&self, doc: usize) -> u32 {
        let mut own = self.starts.as_ref().map_or(doc..doc + 1, |starts| several(starts, doc));
        own.next().map_or(NONE, |at| match &self.flat {
            Flat::Narrow(numbers) => u32::from(numbers[at]),
            Flat::Wide(numbers) => numbers[at],
        })
    }

    fn each(&self, docs: impl Iterator<Item = usize>, mut take: impl FnMut(usize)) {
        match (&self.flat, &self.starts) {
            (Flat::Narrow(numbers), None) => docs.for_each(|doc| take(usize::from(numbers[doc]))),
            (Flat::Wide(numbers), None) => docs.for_each(|doc| take(numbers[doc] as usize)),
            (Flat::Narrow(numbers), Some(starts)) => {
                docs.flat_map(|doc| &numbers[several(starts, doc)]).for_each(|number| take(usize::from(*number)));
            }
            (Flat::Wide(numbers), Some(starts)) => {
                docs.flat_map(|doc| &numbers[several(starts, doc)]).for_each(|number| take(*number as usize));
            }
        }
    }
}

/// Where the numbers of a document are.
fn several(starts: &[u32], doc: usize) -> ops::Range<usize> {
    starts[doc] as usize..starts[doc + 1] as usize
}

/// Some of a segment's documents, to be counted: what is most of them is counted by what it is not.
pub(crate) enum Part<'a> {
    These(Cow<'a, FixedBitSet>),
    AllBut(FixedBitSet),
}

impl<'a> Part<'a> {
    pub(crate) fn new(docs: Cow<'a, FixedBitSet>, all: &FixedBitSet) -> Self {
        if docs.count_ones(..) * 2 <= all.count_ones(..) {
            return Self::These(docs);
        }
        let mut others = all.clone();
        others.difference_with(&docs);
        Self::AllBut(others)
    }
}

/// A range of one segment.
#[derive(Debug)]
pub(crate) struct RangeValues {
    /// NaN where there is none: it meets no bound.
    pub(crate) values: Vec<f64>,
    pub(crate) buckets: Counted,
    /// The documents with the least and the most of all.
    outermost: Option<[usize; 2]>,
}

impl RangeValues {
    fn of(values: Vec<f64>, range: Range, numbering: &RwLock<Numbering>) -> Self {
        let buckets = values.iter().map(|value| (!value.is_nan()).then(|| ranges::finest_bucket(range, *value)));
        let buckets = numbered(buckets, numbering, |all| &mut all.buckets[range as usize]);
        let known = || values.iter().enumerate().filter(|(_, value)| !value.is_nan());
        let least = known().min_by(|(_, a), (_, b)| a.total_cmp(b));
        let most = known().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let outermost = least.zip(most).map(|((least, _), (most, _))| [least, most]);
        Self { values, buckets, outermost }
    }

    /// The least and the most of some documents.
    pub(crate) fn extremes(&self, docs: &FixedBitSet) -> Option<[f64; 2]> {
        let outermost = self.outermost?;
        if outermost.iter().all(|doc| docs.contains(*doc)) {
            return Some(outermost.map(|doc| self.values[doc]));
        }
        let known = docs.ones().map(|doc| self.values[doc]).filter(|value| !value.is_nan());
        known.fold(None, |found, value| match found {
            None => Some([value, value]),
            Some([least, most]) => Some([value.min(least), value.max(most)]),
        })
    }
}

/// The columns of one segment. What a listing does not have is NaN, or `i64::MIN` of a time.
pub(crate) struct Columns {
    pub(crate) docs: usize,
    public: BitSet,
    facets: Vec<Counted>,
    /// Make, model and trim together.
    pub(crate) names: Counted,
    ranges: Vec<RangeValues>,
    pub(crate) listed_at: Vec<i64>,
    pub(crate) popularity: Vec<f64>,
    pub(crate) points: Vec<Point>,
    latitude: Column<f64>,
    longitude: Column<f64>,
    pub(crate) unavailable: FixedBitSet,
    pub(crate) accident_free: FixedBitSet,
    pub(crate) price_dropped: FixedBitSet,
    /// Until when, of those that were ever reserved.
    pub(crate) reserved: Vec<(usize, i64)>,
    /// From when until when, of those that were ever promoted.
    pub(crate) featured: Vec<(usize, i64, i64)>,
    pub(crate) owners: Column<i64>,
    pub(crate) ids: Option<StrColumn>,
}

impl Columns {
    pub(crate) fn facet(&self, facet: Facet) -> &Counted {
        &self.facets[place_of(facet)]
    }

    /// Where a listing is, exactly.
    pub(crate) fn place(&self, doc: usize) -> Option<Place> {
        let doc = DocId::try_from(doc).ok()?;
        Place::new(self.latitude.first(doc)?, self.longitude.first(doc)?)
    }

    pub(crate) fn range(&self, range: Range) -> &RangeValues {
        &self.ranges[range as usize]
    }

    fn of(segment: &SegmentReader, numbering: &RwLock<Numbering>) -> tantivy::Result<Self> {
        let fast = segment.fast_fields();
        let docs = segment.max_doc();
        let mut public = BitSet::with_max_value(docs);
        let is_public = fast.u64("public")?;
        (0..docs).filter(|doc| is_public.first(*doc) == Some(1)).for_each(|doc| {
            public.insert(doc);
        });
        let mut facets = Vec::new();
        for (at, facet) in Facet::STORED.iter().enumerate() {
            facets.push(facet_of(at, fast.str(facet.name())?, docs, numbering)?);
        }
        let one = |facet: Facet| match &facets[place_of(facet)].0 {
            numbers if facets[place_of(facet)].1.is_none() => numbers.clone(),
            _ => vec![NONE; docs as usize],
        };
        let [makes, models, trims] = NAMES.map(one);
        let names = makes.into_iter().zip(models).zip(trims);
        let names = names.map(|((make, model), trim)| Some([make, model, trim]).filter(|name| *name != [NONE; 3]));
        let names = numbered(names, numbering, |all| &mut all.names);
        let facets = facets.into_iter().map(|(numbers, starts)| Counted::new(numbers, starts)).collect();

        let mut ranges = Vec::new();
        for range in Range::ALL {
            let column = fast.i64(range.column())?;
            let value = |doc: DocId| column.first(doc).map_or(f64::NAN, |value| range.value_of(value));
            ranges.push(RangeValues::of((0..docs).map(value).collect(), range, numbering));
        }
        let times = |name: &str| -> tantivy::Result<Vec<(usize, i64)>> {
            let column = fast.i64(name)?;
            Ok((0..docs).filter_map(|doc| Some((doc as usize, column.first(doc)?))).collect())
        };
        let ends: HashMap<usize, i64> = times("featured_to")?.into_iter().collect();
        let featured = times("featured_from")?;
        let featured =
            featured.into_iter().map(|(doc, from)| (doc, from, ends.get(&doc).copied().unwrap_or(i64::MAX))).collect();
        let flags = |name: &str| -> tantivy::Result<FixedBitSet> {
            let column = fast.bool(name)?;
            Ok(bits(docs as usize, (0..docs).filter(|doc| column.first(*doc) == Some(true))))
        };
        let listed_at = fast.i64("listed_at")?;
        let dropped = fast.i64("price_drop_cents")?;
        let popularity = fast.f64("popularity")?;
        let (latitude, longitude) = (fast.f64("latitude")?, fast.f64("longitude")?);
        let place = |doc: DocId| Place::new(latitude.first(doc)?, longitude.first(doc)?);
        Ok(Self {
            docs: docs as usize,
            public,
            facets,
            names,
            ranges,
            listed_at: (0..docs).map(|doc| listed_at.first(doc).unwrap_or(i64::MIN)).collect(),
            popularity: (0..docs).map(|doc| popularity.first(doc).unwrap_or(f64::NAN)).collect(),
            points: (0..docs).map(|doc| place(doc).map_or(Point::NOWHERE, Point::of)).collect(),
            latitude,
            longitude,
            unavailable: flags("unavailable")?,
            accident_free: flags("accident_free")?,
            price_dropped: bits(docs as usize, (0..docs).filter(|doc| dropped.first(*doc).is_some())),
            reserved: times("reserved_until")?,
            featured,
            owners: fast.i64("owner_count")?,
            ids: fast.str("listing_id")?,
        })
    }
}

fn bits(docs: usize, set: impl Iterator<Item = DocId>) -> FixedBitSet {
    let mut bits = FixedBitSet::with_capacity(docs);
    set.for_each(|doc| bits.insert(doc as usize));
    bits
}

/// A facet's numbers, and where those of a document begin, when one may have several.
type FacetNumbers = (Vec<u32>, Option<Vec<u32>>);

fn facet_of(
    at: usize,
    column: Option<StrColumn>,
    docs: DocId,
    numbering: &RwLock<Numbering>,
) -> tantivy::Result<FacetNumbers> {
    let Some(column) = column else { return Ok((vec![NONE; docs as usize], None)) };
    let mut numbers = Vec::with_capacity(column.num_terms());
    let mut terms = column.dictionary().stream()?;
    let mut all = write(numbering);
    while terms.advance() {
        numbers.push(all.value(at, &String::from_utf8_lossy(terms.key())));
    }
    drop(all);
    let ords = column.ords();
    let numbered = |ord: u64| usize::try_from(ord).ok().and_then(|ord| numbers.get(ord)).copied().unwrap_or(NONE);
    if ords.get_cardinality().is_multivalue() {
        let (mut flat, mut starts) = (Vec::new(), vec![0]);
        for doc in 0..docs {
            flat.extend(ords.values_for_doc(doc).map(numbered));
            starts.push(u32::try_from(flat.len()).unwrap_or(u32::MAX));
        }
        Ok((flat, Some(starts)))
    } else {
        Ok(((0..docs).map(|doc| ords.first(doc).map_or(NONE, numbered)).collect(), None))
    }
}

/// Number the things of a segment. Searches wait only while those that are new get their numbers.
fn numbered<K: Clone + Eq + Hash>(
    things: impl Iterator<Item = Option<K>>,
    numbering: &RwLock<Numbering>,
    of: impl FnOnce(&mut Numbering) -> &mut Numbers<K>,
) -> Counted {
    let mut own = Numbers::default();
    let things: Vec<u32> = things.map(|thing| thing.map_or(NONE, |thing| own.number(thing))).collect();
    let mut all = write(numbering);
    let all = of(&mut all);
    let numbers: Vec<u32> = own.things.into_iter().map(|thing| all.number(thing)).collect();
    let number = |own: u32| (own as usize).checked_sub(1).map_or(NONE, |own| numbers[own]);
    Counted::single(things.into_iter().map(number).collect())
}

/// A segment as of one commit.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) columns: Arc<Columns>,
    /// Those of its documents that are listings people may see, and were not deleted by then.
    pub(crate) public: FixedBitSet,
    /// All that are listings people may see: what the columns' totals are about.
    pub(crate) all: Arc<FixedBitSet>,
}

/// The segments as of one commit.
#[derive(Default)]
pub(crate) struct Segments {
    pub(crate) segments: Vec<Segment>,
    numbering: Arc<RwLock<Numbering>>,
}

impl Segments {
    /// The segments of the next commit. Those that were there before are not read again.
    pub(crate) fn next(&self, readers: &[SegmentReader]) -> tantivy::Result<Self> {
        let mut segments = Vec::with_capacity(readers.len());
        for reader in readers {
            let known = self.segments.iter().find(|segment| segment.id == reader.segment_id());
            let (columns, all) = match known {
                Some(known) => (Arc::clone(&known.columns), Arc::clone(&known.all)),
                None => {
                    let columns = Columns::of(reader, &self.numbering)?;
                    let all = words(columns.docs, &columns.public);
                    (Arc::new(columns), Arc::new(all))
                }
            };
            let mut public = columns.public.clone();
            if let Some(alive) = reader.alive_bitset() {
                public.intersect_update(alive.bitset());
            }
            let public = words(columns.docs, &public);
            segments.push(Segment { id: reader.segment_id(), columns, public, all });
        }
        Ok(Self { segments, numbering: Arc::clone(&self.numbering) })
    }

    pub(crate) fn numbering(&self) -> RwLockReadGuard<'_, Numbering> {
        self.numbering.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(numbering: &RwLock<Numbering>) -> RwLockWriteGuard<'_, Numbering> {
    numbering.write().unwrap_or_else(PoisonError::into_inner)
}

/// Those of some documents that pass a test.
pub(crate) fn select(docs: &FixedBitSet, test: impl Fn(usize) -> bool) -> FixedBitSet {
    let blocks = docs.as_slice().iter().enumerate().map(|(at, &block)| {
        let (mut left, mut selected) = (block, 0);
        while left != 0 {
            let bit = left.trailing_zeros();
            selected |= usize::from(test(at * BLOCK + bit as usize)) << bit;
            left &= left - 1;
        }
        selected
    });
    FixedBitSet::with_capacity_and_blocks(docs.len(), blocks)
}

/// Those of some documents whose value passes a test that costs nothing.
pub(crate) fn select_by<T: Copy>(docs: &FixedBitSet, values: &[T], test: impl Fn(T) -> bool) -> FixedBitSet {
    let blocks = docs.as_slice().iter().zip(values.chunks(BLOCK)).map(|(&block, values)| {
        if block == 0 {
            return 0;
        }
        // First all tests, then all bits: so the machine does many at once.
        let passed = match <[T; BLOCK]>::try_from(values) {
            Ok(values) => values.map(|value| u8::from(test(value))),
            Err(_) => {
                let mut passed = [0; BLOCK];
                passed.iter_mut().zip(values).for_each(|(passed, value)| *passed = u8::from(test(*value)));
                passed
            }
        };
        bits_of(passed) & block
    });
    FixedBitSet::with_capacity_and_blocks(docs.len(), blocks)
}

/// A bit for each byte, which is 0 or 1.
fn bits_of(bytes: [u8; BLOCK]) -> usize {
    // The byte at `i` is moved to the bit at `56 + i`: no two of the products meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = bytes.as_chunks::<8>();
    eights
        .iter()
        .rev()
        .fold(0, |bits, eight| bits << 8 | usize::from((u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) as u8))
}

/// The same set, word by word.
#[expect(clippy::cast_possible_truncation, reason = "a machine's word is half of it at least, and then every second")]
fn words(docs: usize, set: &BitSet) -> FixedBitSet {
    let buckets = 0..set.max_value().div_ceil(u64::BITS);
    let words = buckets.map(|bucket| u64::from_le_bytes(set.tinyset(bucket).into_bytes()));
    if usize::BITS == u64::BITS {
        FixedBitSet::with_capacity_and_blocks(docs, words.map(|word| word as usize))
    } else {
        FixedBitSet::with_capacity_and_blocks(docs, words.flat_map(|word| [word as usize, (word >> 32) as usize]))
    }
}
