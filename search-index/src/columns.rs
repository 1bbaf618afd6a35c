//! What one pass reads of a segment: its columns as plain arrays, made once when the segment is first seen.
//!
//! Values are numbered for all segments together, so that counts of several segments are added as they are. A segment
//! takes about a hundred bytes a document; deletions leave it as it is.
//!
//! - `numbering`: one number for a value in all segments;
//! - `counted`: the numbers of every document, and how they are counted;
//! - `sets`: sets of documents.

mod counted;
mod numbering;
mod sets;

use std::{cmp::Ordering, collections::HashMap, sync::RwLock};

pub(crate) use counted::{Counted, NONE, Part};
use fixedbitset::FixedBitSet;
pub(crate) use numbering::Numbering;
use numbering::{numbered, place_of, write};
use sets::bits;
pub(crate) use sets::{MANY, select, select_by, select_told, set_of};
use tantivy::{
    DocId, SegmentReader,
    columnar::{Column, StrColumn},
};

use crate::{
    geo::{Place, Point, Points},
    query::{Facet, Range},
    ranges,
};

/// A vehicle's name, from the general to the special.
pub(crate) const NAMES: [Facet; 3] = [Facet::Make, Facet::Model, Facet::Trim];

/// How many documents with the least and the most of a range are known: while one of them is among those asked for, none is
/// looked for.
const OUTERMOST: usize = 64;

/// How many of the newest documents are known: a page of the newest need not look for them, while it finds enough there.
const NEWEST: usize = 512;

/// A range of one segment.
#[derive(Debug)]
pub(crate) struct RangeValues {
    /// NaN where there is none: it meets no bound.
    pub(crate) values: Vec<f64>,
    pub(crate) buckets: Counted,
    /// Documents with the least of all, and with the most, the outermost first.
    outermost: [Vec<usize>; 2],
}

impl RangeValues {
    fn of(values: Vec<f64>, range: Range, numbering: &RwLock<Numbering>) -> Self {
        let buckets = values.iter().map(|value| (!value.is_nan()).then(|| ranges::finest_bucket(range, *value)));
        let buckets = numbered(buckets, numbering, |all| &mut all.buckets[range as usize]);
        let known: Vec<usize> = (0..values.len()).filter(|doc| !values[*doc].is_nan()).collect();
        let least = first(known.clone(), OUTERMOST, |a, b| values[*a].total_cmp(&values[*b]));
        let most = first(known, OUTERMOST, |a, b| values[*b].total_cmp(&values[*a]));
        let outermost = [least, most];
        Self { values, buckets, outermost }
    }

    /// The least and the most of some documents.
    pub(crate) fn extremes(&self, docs: &FixedBitSet) -> Option<[f64; 2]> {
        let [least, most] = self.outermost.each_ref().map(|some| some.iter().find(|doc| docs.contains(**doc)));
        if let (Some(least), Some(most)) = (least, most) {
            return Some([self.values[*least], self.values[*most]]);
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
    /// Those that are listings people may see, deleted or not: what all totals are about.
    pub(crate) all: FixedBitSet,
    facets: Vec<Counted>,
    /// Make, model and trim together.
    pub(crate) names: Counted,
    ranges: Vec<RangeValues>,
    pub(crate) listed_at: Vec<i64>,
    /// The newest of `all`, in the order of a page of them.
    pub(crate) newest: Vec<usize>,
    pub(crate) popularity: Vec<f64>,
    pub(crate) points: Points,
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
    /// The ordinal of every listing's id.
    pub(crate) id_ords: Vec<u32>,
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

    pub(crate) fn of(segment: &SegmentReader, numbering: &RwLock<Numbering>) -> tantivy::Result<Self> {
        let fast = segment.fast_fields();
        let docs = segment.max_doc();
        let is_public = fast.u64("public")?;
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
        let ids = fast.str("listing_id")?;
        let id_ord = |doc: DocId| {
            let ord = ids.as_ref().and_then(|ids| ids.ords().first(doc)).unwrap_or_default();
            u32::try_from(ord).unwrap_or(u32::MAX)
        };
        let place = |doc: DocId| Place::new(latitude.first(doc)?, longitude.first(doc)?);
        let all = bits(docs as usize, (0..docs).filter(|doc| is_public.first(*doc) == Some(1)));
        let listed_at: Vec<i64> = (0..docs).map(|doc| listed_at.first(doc).unwrap_or(i64::MIN)).collect();
        let id_ords: Vec<u32> = (0..docs).map(id_ord).collect();
        let newest = first(all.ones().collect(), NEWEST, |a, b| {
            listed_at[*b].cmp(&listed_at[*a]).then_with(|| id_ords[*a].cmp(&id_ords[*b]))
        });
        Ok(Self {
            docs: docs as usize,
            all,
            newest,
            facets,
            names,
            ranges,
            listed_at,
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
            id_ords,
            ids,
        })
    }
}

/// The first of some documents, in order.
fn first(mut docs: Vec<usize>, most: usize, order: impl Fn(&usize, &usize) -> Ordering) -> Vec<usize> {
    if docs.len() > most {
        docs.select_nth_unstable_by(most, &order);
        docs.truncate(most);
        docs.shrink_to_fit();
    }
    docs.sort_unstable_by(order);
    docs
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
    let mut values = Vec::with_capacity(column.num_terms());
    let mut terms = column.dictionary().stream()?;
    while terms.advance() {
        values.push(String::from_utf8_lossy(terms.key()).into_owned());
    }
    let mut all = write(numbering);
    let numbers: Vec<u32> = values.iter().map(|value| all.value(at, value)).collect();
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
