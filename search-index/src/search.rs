//! The answer to a search.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use serde::Serialize;

use crate::{
    columns::{NAMES, Numbering},
    error::IndexError,
    highlight::highlights,
    listing::{Availability, Listing},
    market::Market,
    pass::{Found, NEAR_MISSES, Pass, RADII_KM, Ranked},
    query::{Criterion, Cursor, Facet, FacetOrder, FacetShape, Range, SearchRequest},
    ranges::RangeSummary,
    snapshot::ListingSnapshot,
    text::{Correction, Marks, Wanted},
    words::words,
};

/// Makes, models and trims that a page counts.
pub const MAX_NAMES: usize = 5_000;
/// Words of a text that are tried without, when together they find nothing.
const MOST_WORDS_TRIED: usize = 6;
/// Of more things that are asked, pairs are not tried without.
const MOST_PAIRED: usize = 8;
/// Ways to find something without several things, the best of them.
const MOST_RELAXATIONS: usize = 6;

/// A page of hits with everything around it.
#[derive(Clone, Debug)]
pub struct SearchPage {
    /// Listings that match, on all pages.
    pub total: u64,
    pub hits: Vec<Hit>,
    pub facets: BTreeMap<Facet, Vec<FacetCount>>,
    /// Makes with their models and trims, whichever of them are chosen; when it was asked for.
    pub hierarchy: Option<NameTree>,
    pub ranges: BTreeMap<Range, RangeSummary>,
    pub next_cursor: Option<Cursor>,
    /// Words that were taken for others.
    pub corrections: Vec<Correction>,
    /// When nothing matches: what would, with one thing given up; where that is not enough, with several; the most first.
    pub relaxations: Vec<Relaxation>,
    /// When nothing matches: the best of these, and what they fail.
    pub near_misses: Vec<(Hit, Vec<Criterion>)>,
    pub took_ms: f64,
}

/// A listing found.
#[derive(Clone, Debug)]
pub struct Hit {
    pub listing: Listing,
    pub availability: Availability,
    /// From the search's place.
    pub distance_km: Option<f64>,
    /// What was found, marked: HTML by field.
    pub highlights: BTreeMap<&'static str, String>,
}

/// How many matches have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FacetCount {
    pub value: String,
    pub count: u64,
    pub selected: bool,
}

/// Makes with their models and trims: at most [`MAX_NAMES`] of them, makes before models before trims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTree {
    pub makes: Vec<NameCount>,
    /// Names that there are beside these.
    pub left_out: usize,
}

/// How many matches have a make, a model of it, or a trim of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameCount {
    pub value: String,
    pub count: u64,
    pub selected: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<NameCount>,
}

/// How many listings match without something.
#[derive(Clone, Debug, PartialEq)]
pub struct Relaxation {
    pub instead: Instead,
    pub total: u64,
}

/// Something that is nearly found, and what it fails.
type Missed = (Ranked, Vec<Criterion>);

/// What is given up.
#[derive(Clone, Debug, PartialEq)]
pub enum Instead {
    Without(Vec<Criterion>),
    WithoutWord(String),
    WithinKm(f64),
}

impl ListingSnapshot {
    /// Search the public listings.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn search(&self, mut request: SearchRequest, market: Option<&Market>) -> Result<SearchPage, IndexError> {
        let started = Instant::now();
        // One more tells whether there is a next page.
        let page_size = request.page_size;
        request.page_size = page_size.saturating_add(1);
        let said = Wanted::new(&request.text);
        let (mut wanted, mut corrections) = said.corrected(self, false)?;
        let mut found = self.pass(&wanted, &request, market)?;
        if found.seen == 0 && !wanted.is_empty() {
            // Every word is known, and nothing has them all: one of them may have been meant to be another.
            let (other, otherwise) = said.corrected(self, true)?;
            let found_otherwise = self.pass(&other, &request, market)?;
            if found_otherwise.seen > 0 {
                (wanted, corrections, found) = (other, otherwise, found_otherwise);
            }
        }
        let has_next = found.page.len() > page_size;
        found.page.truncate(page_size);
        let marks = wanted.marks();
        let hits = found.page.iter().filter_map(|ranked| self.hit(ranked, &marks, &request).transpose());
        let hits = hits.collect::<Result<Vec<_>, _>>()?;
        // A word that is in what was found was meant as it is.
        corrections.retain(|correction| !hits.iter().any(|hit| has_word(&hit.listing, &correction.from)));
        let next_cursor = found.page.last().filter(|_| has_next).map(|last| Cursor {
            key: last.key,
            listing_id: last.listing_id.clone(),
            search: request.fingerprint,
            now: request.now,
        });
        let is_empty = found.total == 0 && request.cursor.is_none();
        let (mut relaxations, mut near_misses) = (Vec::new(), Vec::new());
        if is_empty {
            if found.near_misses.is_empty() && !wanted.is_empty() {
                // Nothing has the text and fails one thing only: what there is without the text.
                let anything = self.pass(&Wanted::default(), &request, market)?;
                found.alone.insert(Criterion::Text, anything.total);
                let page = anything.page.into_iter().take(NEAR_MISSES);
                found.near_misses.extend(page.map(|ranked| (ranked, Criterion::Text)));
            }
            relaxations = self.relaxations(&wanted, &found, &request, market)?;
            let nearest = std::mem::take(&mut found.near_misses).into_iter();
            let mut nearest: Vec<Missed> = nearest.map(|(ranked, criterion)| (ranked, vec![criterion])).collect();
            if relaxations.is_empty() {
                (relaxations, nearest) = self.without_several(&wanted, &request, market)?;
            }
            for (ranked, failed) in nearest {
                near_misses.extend(self.hit(&ranked, &marks, &request)?.map(|hit| (hit, failed)));
            }
        }
        let numbering = self.segments.numbering();
        let hierarchy = request.hierarchy.then(|| names(&found.names, &numbering, &request));
        let usual = FacetShape::default();
        let facets = request.facets.iter().map(|&facet| {
            let chosen = request.filters.get(&facet).map_or(&[][..], Vec::as_slice);
            let shape = request.shapes.get(&facet).unwrap_or(&usual);
            (facet, facet_counts(found.counted(facet, &numbering), chosen, shape))
        });
        Ok(SearchPage {
            total: found.total as u64,
            hits,
            facets: facets.collect(),
            hierarchy,
            ranges: Range::ALL.map(|range| (range, found.range(range, &numbering).summary(range))).into(),
            next_cursor,
            corrections,
            relaxations,
            near_misses,
            took_ms: started.elapsed().as_secs_f64() * 1_000.0,
        })
    }

    fn pass(&self, wanted: &Wanted, request: &SearchRequest, market: Option<&Market>) -> Result<Found, IndexError> {
        let mut pass = Pass::new(request, &self.segments);
        for (ord, segment) in (0..).zip(&self.segments.segments) {
            let has_text = if wanted.is_empty() { None } else { Some(wanted.scores(&self.fields, &segment.reader)?) };
            let ratings = market.map(|market| market.segment(segment)).transpose()?;
            pass.take(ord, segment, ratings, has_text).map_err(tantivy::TantivyError::from)?;
        }
        Ok(pass.end().map_err(tantivy::TantivyError::from)?)
    }

    fn hit(&self, ranked: &Ranked, marks: &Marks, request: &SearchRequest) -> Result<Option<Hit>, IndexError> {
        let Some(listing) = self.listing_at(ranked.address)? else { return Ok(None) };
        let near = request.near.zip(listing.place());
        Ok(Some(Hit {
            availability: listing.availability(request.now),
            distance_km: near.map(|(near, place)| near.distance_km(place)),
            highlights: highlights(&listing, marks),
            listing,
        }))
    }

    /// What would be found with one thing given up.
    fn relaxations(
        &self,
        wanted: &Wanted,
        found: &Found,
        request: &SearchRequest,
        market: Option<&Market>,
    ) -> Result<Vec<Relaxation>, IndexError> {
        let mut relaxations = Vec::new();
        for (&criterion, &total) in &found.alone {
            relaxations.push(Relaxation { instead: Instead::Without(vec![criterion]), total: total as u64 });
        }
        let further = RADII_KM.into_iter().zip(found.within).find(|(_, total)| *total > 0);
        relaxations.extend(
            further.map(|(radius, total)| Relaxation { instead: Instead::WithinKm(radius), total: total as u64 }),
        );
        for (word, less) in wanted.without_each().into_iter().take(MOST_WORDS_TRIED) {
            let total = self.pass(&less, request, market)?.total as u64;
            relaxations.push(Relaxation { instead: Instead::WithoutWord(word), total });
        }
        relaxations.retain(|relaxation| relaxation.total > 0);
        relaxations.sort_by(most_first);
        Ok(relaxations)
    }

    /// When giving up one thing is not enough: what would be found without two; without all but one; without all.
    fn without_several(
        &self,
        wanted: &Wanted,
        request: &SearchRequest,
        market: Option<&Market>,
    ) -> Result<(Vec<Relaxation>, Vec<Missed>), IndexError> {
        let mut asked = request.criteria();
        asked.extend((!wanted.is_empty()).then_some(Criterion::Text));
        let few = SearchRequest { page_size: NEAR_MISSES, facets: Vec::new(), hierarchy: false, ..request.clone() };
        let (mut relaxations, mut nearest) = (Vec::new(), Vec::new());
        // Of three things, all but one are a pair; of two, a pair is all.
        let but_one = if asked.len() > 3 { all_but_one(&asked) } else { Vec::new() };
        let all = if asked.len() > 2 { vec![asked.clone()] } else { Vec::new() };
        for ways in [pairs(&asked), but_one, all] {
            let mut most = 0;
            for given_up in ways {
                let mut wider = few.clone();
                given_up.iter().for_each(|criterion| wider.give_up(*criterion));
                let found = if given_up.contains(&Criterion::Text) {
                    self.pass(&Wanted::default(), &wider, market)?
                } else {
                    self.pass(wanted, &wider, market)?
                };
                if found.total > most {
                    most = found.total;
                    nearest = found.page.into_iter().map(|ranked| (ranked, given_up.clone())).collect();
                }
                if found.total > 0 {
                    relaxations.push(Relaxation { instead: Instead::Without(given_up), total: found.total as u64 });
                }
            }
            if most > 0 {
                break;
            }
        }
        relaxations.sort_by(most_first);
        relaxations.truncate(MOST_RELAXATIONS);
        Ok((relaxations, nearest))
    }
}

fn most_first(a: &Relaxation, b: &Relaxation) -> Ordering {
    let name = |relaxation: &Relaxation| match &relaxation.instead {
        Instead::WithinKm(_) => (0, vec![]),
        Instead::Without(criteria) => (1, criteria.iter().map(|criterion| criterion.name().to_owned()).collect()),
        Instead::WithoutWord(word) => (2, vec![word.clone()]),
    };
    b.total.cmp(&a.total).then_with(|| name(a).cmp(&name(b)))
}

/// Every two of these; none, of so many that trying takes long.
fn pairs(asked: &[Criterion]) -> Vec<Vec<Criterion>> {
    if asked.len() > MOST_PAIRED {
        return Vec::new();
    }
    let pairs = asked.iter().enumerate().flat_map(|(at, one)| asked[at + 1..].iter().map(|other| vec![*one, *other]));
    pairs.collect()
}

fn all_but_one(asked: &[Criterion]) -> Vec<Vec<Criterion>> {
    let others = |kept: &Criterion| asked.iter().copied().filter(|other| other != kept).collect();
    asked.iter().map(others).collect()
}

fn has_word(listing: &Listing, wanted: &str) -> bool {
    let texts =
        [&listing.title, &listing.make, &listing.model, &listing.trim, &listing.dealer_name, &listing.description];
    let mut texts = texts.into_iter().flatten().chain(&listing.features);
    texts.any(|text| words(text).iter().any(|word| word.text == wanted))
}

/// The values of a facet in its order; chosen values are always there, at zero if need be.
fn facet_counts(counts: HashMap<String, u64>, chosen: &[String], shape: &FacetShape) -> Vec<FacetCount> {
    let is_chosen = |value: &str| chosen.iter().any(|chosen| chosen.to_lowercase() == value.to_lowercase());
    let mut values: Vec<FacetCount> =
        counts.into_iter().map(|(value, count)| FacetCount { selected: is_chosen(&value), value, count }).collect();
    for chosen in chosen {
        if !values.iter().any(|known| known.value.to_lowercase() == chosen.to_lowercase()) {
            values.push(FacetCount { value: chosen.clone(), count: 0, selected: true });
        }
    }
    if let Some(query) = &shape.query {
        values.retain(|value| value.selected || begins_a_word(&value.value, query));
    }
    values.sort_unstable_by(|a, b| match shape.order {
        FacetOrder::Count => b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)),
        FacetOrder::Value => natural(&a.value).cmp(&natural(&b.value)),
    });
    let mut shown = 0;
    values.retain(|value| {
        shown += 1;
        shown <= shape.limit || value.selected
    });
    values
}

/// Whether the words of a query begin words of a value, in their order.
fn begins_a_word(value: &str, query: &str) -> bool {
    let (value, query) = (words(value), words(query));
    (0..=value.len()).any(|from| {
        query.len() <= value.len() - from
            && query.iter().zip(&value[from..]).all(|(wanted, word)| word.text.starts_with(&wanted.text))
    })
}

/// Numbers by size, then texts.
fn natural(value: &str) -> (u64, String) {
    (value.parse().unwrap_or(u64::MAX), value.to_lowercase())
}

/// Makes, models and trims below each other, the most frequent first.
fn names(counts: &[u64], numbering: &Numbering, request: &SearchRequest) -> NameTree {
    let mut makes = BTreeMap::new();
    for (path, count) in numbering.names.counted(counts) {
        let names = NAMES.into_iter().zip(path).map_while(|(facet, number)| numbering.values(facet).thing(*number));
        // A trim of no model is below nothing.
        let mut level: &mut BTreeMap<String, Named> = &mut makes;
        for name in names {
            let named = level.entry(name.clone()).or_default();
            named.count += count;
            level = &mut named.below;
        }
    }
    NameTree::bounded(below(makes, &NAMES, request), MAX_NAMES)
}

impl NameTree {
    /// At most so many names.
    fn bounded(makes: Vec<NameCount>, most: usize) -> Self {
        let mut tree = Self { makes, left_out: 0 };
        let mut room = most;
        for level in 0..NAMES.len() {
            tree.left_out += bound_level(&mut tree.makes, level, &mut room);
        }
        tree
    }
}

/// Keep the most frequent names of a level while there is room; how many are left out with those below them.
fn bound_level(names: &mut Vec<NameCount>, level: usize, room: &mut usize) -> usize {
    if level > 0 {
        return names.iter_mut().map(|name| bound_level(&mut name.below, level - 1, room)).sum();
    }
    let kept = names.len().min(*room);
    *room -= kept;
    names.drain(kept..).map(|name| name.size()).sum()
}

impl NameCount {
    /// The name and those below it.
    fn size(&self) -> usize {
        1 + self.below.iter().map(Self::size).sum::<usize>()
    }
}

/// How often a name is there, and those below it.
#[derive(Default)]
struct Named {
    count: u64,
    below: BTreeMap<String, Named>,
}

/// The most frequent first, then by name.
fn below(names: BTreeMap<String, Named>, facets: &[Facet], request: &SearchRequest) -> Vec<NameCount> {
    let Some((facet, lower)) = facets.split_first() else { return Vec::new() };
    let is_chosen = |value: &str| {
        let mut chosen = request.filters.get(facet).into_iter().flatten();
        chosen.any(|chosen| chosen.to_lowercase() == value.to_lowercase())
    };
    let names = names.into_iter().map(|(value, named)| NameCount {
        selected: is_chosen(&value),
        value,
        count: named.count,
        below: below(named.below, lower, request),
    });
    let mut names: Vec<NameCount> = names.collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.count));
    names
}

#[cfg(test)]
pub(crate) mod tests;
