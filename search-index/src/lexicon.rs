//! What there is, in words: every value of the facets with how many listings have it, to read what people type, and to
//! suggest what they may be about to type.
//!
//! It is made of a snapshot now and then rather than with every commit: it may be a little older than what a search finds,
//! and nothing is counted by it that has to be exact.

use std::collections::{BTreeMap, HashMap, HashSet};

use tantivy::{DocId, columnar::StrColumn};

use crate::{
    error::IndexError,
    geo::Place,
    query::Facet,
    segments::Segment,
    snapshot::ListingSnapshot,
    words::{plain, stems, words},
};

/// A letter may be wrong in words this long.
const TOLERANT_FROM: usize = 4;

/// A value of a facet, as a person would write it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub facet: Facet,
    /// What has to be chosen for it: a model's make, the model, and so on.
    pub filters: Vec<(Facet, String)>,
    /// What it is called: a model with its make.
    pub text: String,
    pub count: u64,
    /// Where its listings are, on the average; of cities.
    pub place: Option<Place>,
}

impl Entry {
    /// The value itself.
    #[must_use]
    pub fn value(&self) -> &str {
        self.filters.last().map_or("", |(_, value)| value)
    }
}

/// Everything there is, in words.
#[derive(Debug, Default)]
pub struct Lexicon {
    /// The most frequent first.
    entries: Vec<Entry>,
    /// By the stems of a value, which it is.
    by_stems: HashMap<String, Vec<usize>>,
    /// By word of its text, in order.
    by_word: Vec<(String, Vec<usize>)>,
}

/// Facets whose values people type. Models and trims come with their makes.
const TYPED: [Facet; 9] = [
    Facet::BodyType,
    Facet::FuelType,
    Facet::Transmission,
    Facet::Drivetrain,
    Facet::Color,
    Facet::Province,
    Facet::Features,
    Facet::Condition,
    Facet::Dealer,
];

impl Lexicon {
    /// Everything that the public listings of a snapshot have.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn of(snapshot: &ListingSnapshot) -> Result<Self, IndexError> {
        let mut counts: HashMap<Vec<(Facet, String)>, Counted> = HashMap::new();
        for segment in &snapshot.segments.segments {
            count(segment, &mut counts)?;
        }
        let entries = counts.into_iter().map(|(filters, counted)| {
            let facet = filters.last().map_or(Facet::Make, |(facet, _)| *facet);
            let text = match filters.as_slice() {
                [(Facet::Province, province), (Facet::City, city)] => format!("{city}, {province}"),
                others => others.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "),
            };
            Entry { facet, text, count: counted.count, place: counted.place(), filters }
        });
        Ok(Self::new(entries.collect()))
    }

    fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.filters.cmp(&b.filters)));
        let mut by_stems: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_word: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_stems.entry(stemmed(entry.value())).or_default().push(index);
            for word in words(&entry.text).into_iter().map(|word| word.text).collect::<HashSet<_>>() {
                by_word.entry(word).or_default().push(index);
            }
        }
        Self { entries, by_stems, by_word: by_word.into_iter().collect() }
    }

    /// The entries whose value is this phrase, but for endings; the most frequent first.
    pub(crate) fn named<'a>(&'a self, phrase: &str) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let indices = self.by_stems.get(&stemmed(phrase)).map_or(&[][..], Vec::as_slice);
        indices.iter().map(|index| &self.entries[*index])
    }

    /// Where a city is: one that a public listing is in.
    #[must_use]
    pub fn city(&self, name: &str) -> Option<Place> {
        let cities = self.entries.iter().filter(|entry| entry.facet == Facet::City);
        let name = plain(name);
        cities.filter(|entry| plain(entry.value()) == name || plain(&entry.text) == name).find_map(|entry| entry.place)
    }

    /// The values of a facet that have this phrase among their words.
    pub(crate) fn values_with(&self, facet: Facet, phrase: &str) -> Vec<String> {
        let phrase = stems(phrase);
        let has = |entry: &&Entry| {
            let value = stems(entry.value());
            value.windows(phrase.len().max(1)).any(|part| part.iter().zip(&phrase).all(|(a, b)| a.text == b.text))
        };
        let mut values: Vec<String> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.facet == facet).filter(has) {
            if !values.iter().any(|value| value == entry.value()) {
                values.push(entry.value().to_owned());
            }
        }
        values
    }

    /// What somebody may be about to type: every word begins a word of it. A letter may be wrong when too little is found
    /// otherwise. The nearest first, then the most frequent.
    #[must_use]
    pub fn suggest(&self, text: &str, limit: usize) -> Vec<&Entry> {
        let typed = words(text);
        if typed.is_empty() {
            return Vec::new();
        }
        let typed: Vec<&str> = typed.iter().map(|word| word.text.as_str()).collect();
        let mut found = self.beginning(&typed, false);
        let exact = found.len();
        if exact < limit {
            let known: HashSet<usize> = found.iter().copied().collect();
            found.extend(self.beginning(&typed, true).into_iter().filter(|index| !known.contains(index)));
        }
        let wanted = plain(text);
        let rank = |(at, index): &(usize, usize)| {
            let entry = &self.entries[*index];
            let begins = plain(&entry.text).starts_with(&wanted) || plain(entry.value()).starts_with(&wanted);
            // Those without a wrong letter come first: they were found first.
            (*at >= exact, !begins, entry.filters.len(), *index)
        };
        let mut ranked: Vec<(usize, usize)> = found.into_iter().enumerate().collect();
        ranked.sort_by_cached_key(rank);
        ranked.into_iter().take(limit).map(|(_, index)| &self.entries[index]).collect()
    }

    /// The entries of which every typed word begins a word.
    fn beginning(&self, typed: &[&str], tolerant: bool) -> Vec<usize> {
        let mut all: Option<HashSet<usize>> = None;
        for word in typed {
            let mut of_word = HashSet::new();
            let from = self.by_word.partition_point(|(known, _)| known.as_str() < *word);
            let begun = self.by_word[from..].iter().take_while(|(known, _)| known.starts_with(word));
            of_word.extend(begun.flat_map(|(_, entries)| entries));
            if tolerant && word.chars().count() >= TOLERANT_FROM {
                let like = self.by_word.iter().filter(|(known, _)| begins_like(known, word));
                of_word.extend(like.flat_map(|(_, entries)| entries));
            }
            all = Some(match all {
                None => of_word,
                Some(before) => before.intersection(&of_word).copied().collect(),
            });
            if all.as_ref().is_some_and(HashSet::is_empty) {
                return Vec::new();
            }
        }
        let mut found: Vec<usize> = all.unwrap_or_default().into_iter().collect();
        found.sort_unstable();
        found
    }
}

/// Whether a word begins like what was typed, with one letter wrong, missing, too many or swapped.
fn begins_like(word: &str, typed: &str) -> bool {
    let length = typed.chars().count();
    if word.chars().next() != typed.chars().next() || word.chars().count() + 1 < length {
        return false;
    }
    (length.saturating_sub(1)..=length + 1).any(|take| {
        let begun: String = word.chars().take(take).collect();
        strsim::osa_distance(&begun, typed) <= 1
    })
}

fn stemmed(text: &str) -> String {
    let stems: Vec<String> = stems(text).into_iter().map(|word| word.text).collect();
    stems.join(" ")
}

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    placed: u32,
    latitude: f64,
    longitude: f64,
}

impl Counted {
    /// To a hundredth of a degree: where a city is does not change with every listing.
    fn place(&self) -> Option<Place> {
        let mean = |sum: f64| (sum / f64::from(self.placed) * 100.0).round() / 100.0;
        (self.placed > 0).then(|| Place::new(mean(self.latitude), mean(self.longitude)))?
    }
}

/// Count what the documents of a segment have.
fn count(segment: &Segment, counts: &mut HashMap<Vec<(Facet, String)>, Counted>) -> Result<(), IndexError> {
    let fast = segment.reader.fast_fields();
    let column = |facet: Facet| fast.str(facet.name());
    // A city is of its province, if that is known.
    let paths: [&[Facet]; 5] = [
        &[Facet::Make],
        &[Facet::Make, Facet::Model],
        &[Facet::Make, Facet::Model, Facet::Trim],
        &[Facet::Province, Facet::City],
        &[Facet::City],
    ];
    let provinces = column(Facet::Province)?;
    let (latitude, longitude) = (fast.f64("latitude")?, fast.f64("longitude")?);
    for path in &paths {
        let columns = path.iter().map(|facet| column(*facet)).collect::<Result<Option<Vec<StrColumn>>, _>>()?;
        let Some(columns) = columns else { continue };
        let mut by_ords: HashMap<Vec<u64>, Counted> = HashMap::new();
        for doc in segment.alive() {
            if *path == [Facet::City] && provinces.as_ref().is_some_and(|column| column.ords().first(doc).is_some()) {
                continue;
            }
            let ords: Option<Vec<u64>> = columns.iter().map(|column| column.ords().first(doc)).collect();
            let Some(ords) = ords else { continue };
            let counted = by_ords.entry(ords).or_default();
            counted.count += 1;
            let place = latitude.first(doc).zip(longitude.first(doc));
            if let Some(place) = place.and_then(|(latitude, longitude)| Place::new(latitude, longitude)) {
                counted.placed += 1;
                counted.latitude += place.latitude;
                counted.longitude += place.longitude;
            }
        }
        for (ords, counted) in by_ords {
            let filters = path.iter().zip(&columns).zip(&ords);
            let filters = filters.map(|((facet, column), ord)| value(column, *ord).map(|value| (*facet, value)));
            add(counts, filters.collect::<Result<_, _>>()?, &counted);
        }
    }
    for facet in TYPED {
        let Some(column) = column(facet)? else { continue };
        let mut by_ord: Vec<u64> = vec![0; column.dictionary().num_terms()];
        for doc in segment.alive() {
            count_values(&column, doc, &mut by_ord);
        }
        for (ord, count) in (0_u64..).zip(by_ord).filter(|(_, count)| *count > 0) {
            add(counts, vec![(facet, value(&column, ord)?)], &Counted { count, ..Counted::default() });
        }
    }
    Ok(())
}

fn count_values(column: &StrColumn, doc: DocId, by_ord: &mut [u64]) {
    for ord in column.ords().values_for_doc(doc) {
        if let Some(count) = usize::try_from(ord).ok().and_then(|ord| by_ord.get_mut(ord)) {
            *count += 1;
        }
    }
}

fn value(column: &StrColumn, ord: u64) -> Result<String, IndexError> {
    let mut value = String::new();
    column.ord_to_str(ord, &mut value).map_err(tantivy::TantivyError::from)?;
    Ok(value)
}

fn add(counts: &mut HashMap<Vec<(Facet, String)>, Counted>, filters: Vec<(Facet, String)>, more: &Counted) {
    let counted = counts.entry(filters).or_default();
    counted.count += more.count;
    counted.placed += more.placed;
    counted.latitude += more.latitude;
    counted.longitude += more.longitude;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Entry, Lexicon};
    use crate::{geo::Place, query::Facet};

    /// A lexicon of these values; a city has its province before it, a model its make.
    pub(crate) fn lexicon(entries: &[(&[(Facet, &str)], u64)]) -> Lexicon {
        let entry = |(filters, count): &(&[(Facet, &str)], u64)| {
            let filters: Vec<(Facet, String)> =
                filters.iter().map(|(facet, value)| (*facet, (*value).to_owned())).collect();
            let text: Vec<&str> = filters.iter().map(|(_, value)| value.as_str()).collect();
            let facet = filters.last().unwrap().0;
            let place = Place::new(43.65, -79.38).filter(|_| facet == Facet::City);
            Entry { facet, text: text.join(" "), count: *count, place, filters }
        };
        Lexicon::new(entries.iter().map(entry).collect())
    }

    #[test]
    fn suggestions_come_by_beginnings_and_stand_a_wrong_letter() {
        let lexicon = lexicon(&[
            (&[(Facet::Make, "Honda")], 50),
            (&[(Facet::Make, "Hyundai")], 40),
            (&[(Facet::Make, "Honda"), (Facet::Model, "Civic")], 30),
            (&[(Facet::Make, "Citroën"), (Facet::Model, "C4")], 3),
            (&[(Facet::Province, "Ontario"), (Facet::City, "Toronto")], 20),
        ]);
        let suggested = |text: &str| -> Vec<&str> {
            lexicon.suggest(text, 3).into_iter().map(|entry| entry.text.as_str()).collect()
        };
        assert_eq!(suggested("h"), ["Honda", "Hyundai", "Honda Civic"]);
        assert_eq!(suggested("civ"), ["Honda Civic"]);
        assert_eq!(suggested("honda ci"), ["Honda Civic"]);
        assert_eq!(suggested("citroen"), ["Citroën C4"]);
        assert_eq!(suggested("hoonda"), ["Honda", "Honda Civic"]);
        assert_eq!(suggested("torno"), ["Ontario Toronto"]);
        assert!(suggested("zzz").is_empty() && suggested("  ").is_empty());
    }
}
