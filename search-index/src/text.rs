//! From what people type to what the index is asked.
//!
//! Every word has to be found, in the text where it counts most: as it is, by its stem, by a word that means the same,
//! as the beginning of a word while it is still being typed, or, when nothing else has it, as a word it was meant to be.
//! Scores are sums of these weights, without frequencies: they do not change when other listings come or go, so that pages
//! follow each other. Which word a mistyped one was meant to be may change with them.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
};

use fixedbitset::FixedBitSet;
use tantivy::{
    DocSet, InvertedIndexReader, Score, SegmentReader, TERMINATED, Term, postings::TermInfo, query::FuzzyTermQuery,
    schema::IndexRecordOption,
};
use tantivy_fst::Automaton;

use crate::{
    error::IndexError,
    fields::Fields,
    own_words::{AFTER_WORD, Has, OwnWords},
    snapshot::ListingSnapshot,
    words::{Word, phrases, stem, synonyms, text_of, words},
};

/// How much a word counts that was found another way than as it is.
const SYNONYM: f32 = 0.9;
const PREFIX: f32 = 0.7;
const STEM: f32 = 0.6;
const TYPO: f32 = 0.5;
/// Words that a mistyped one may have been meant to be.
const MOST_CORRECTIONS: usize = 5;
/// Shorter words are as they are.
const SHORTEST_PREFIX: usize = 2;

/// A text, as it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// All of them have to be found.
    phrases: Vec<Phrase>,
}

/// Words of the text, and what finds them: any of it.
#[derive(Clone, Debug)]
struct Phrase {
    words: Vec<Word>,
    ways: Vec<Way>,
}

/// Words that have to be found together, and how much that counts.
#[derive(Clone, Debug)]
struct Way {
    words: Vec<Sought>,
    weight: f32,
    /// The last word may go on.
    prefix: bool,
}

/// A word that is looked for, and what is left of it without its ending.
#[derive(Clone, Debug)]
struct Sought {
    word: String,
    stem: String,
}

impl From<&str> for Sought {
    fn from(word: &str) -> Self {
        Self { word: word.to_owned(), stem: stem(word) }
    }
}

/// A word that was not found, and the one that was taken for it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Correction {
    pub from: String,
    pub to: String,
}

/// What finds a listing, to be shown in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    words: HashSet<String>,
    stems: HashSet<String>,
    prefixes: Vec<String>,
}

impl Marks {
    pub(crate) fn has(&self, word: &str, stem: &str) -> bool {
        self.words.contains(word)
            || self.stems.contains(stem)
            || self.prefixes.iter().any(|prefix| word.starts_with(prefix.as_str()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

impl Wanted {
    /// The last word may go on, unless a sign follows it.
    pub(crate) fn new(text: &str) -> Self {
        let words = words(text);
        let goes_on = words.last().is_some_and(|last| last.to == text.len());
        let last = words.len();
        let mut seen = 0;
        let phrase = |phrase: &[Word]| {
            seen += phrase.len();
            let own: Vec<Sought> = phrase.iter().map(|word| word.text.as_str().into()).collect();
            let long = own.last().is_some_and(|last| last.word.len() >= SHORTEST_PREFIX);
            let mut ways = vec![Way { words: own, weight: 1.0, prefix: goes_on && long && seen == last }];
            ways.extend(synonyms(&text_of(phrase)).iter().map(|other| Way {
                words: other.split(' ').map(Sought::from).collect(),
                weight: SYNONYM,
                prefix: false,
            }));
            Phrase { words: phrase.to_vec(), ways }
        };
        Self { phrases: phrases(&words).into_iter().map(phrase).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.phrases.is_empty()
    }

    /// The same where words that nothing has are replaced by those they are most like; all words, with `thorough`.
    pub(crate) fn corrected(
        &self,
        snapshot: &ListingSnapshot,
        thorough: bool,
    ) -> Result<(Self, Vec<Correction>), IndexError> {
        let (mut corrected, mut corrections) = (self.clone(), Vec::new());
        for phrase in &mut corrected.phrases {
            let [word] = phrase.words.as_slice() else { continue };
            let prefix = phrase.ways.first().is_some_and(|way| way.prefix);
            if !thorough && snapshot.has_any(&phrase.ways)? {
                continue;
            }
            let likely = snapshot.like(&word.text, prefix)?;
            corrections.extend(likely.first().map(|best| Correction { from: word.text.clone(), to: best.clone() }));
            let likely = likely.iter().map(|word| vec![word.as_str().into()]);
            phrase.ways.extend(likely.map(|words| Way { words, weight: TYPO, prefix: false }));
        }
        Ok((corrected, corrections))
    }

    /// The same without each of its phrases, when there are several.
    pub(crate) fn without_each(&self) -> Vec<(String, Self)> {
        let count = if self.phrases.len() > 1 { self.phrases.len() } else { 0 };
        let without = |left_out: usize| {
            let mut phrases = self.phrases.clone();
            let word = text_of(&phrases.remove(left_out).words);
            (word, Self { phrases })
        };
        (0..count).map(without).collect()
    }

    /// Whether these words have all of it.
    pub(crate) fn is_in(&self, own: &OwnWords) -> bool {
        let has = |way: &Way| {
            let last = way.words.len().saturating_sub(1);
            let mut words = way.words.iter().enumerate();
            words.all(|(at, Sought { word, stem })| own.has(word, stem, way.prefix && at == last))
        };
        self.phrases.iter().all(|phrase| phrase.ways.iter().any(has))
    }

    /// What has all of it in a segment, and how well.
    pub(crate) fn scores(&self, fields: &Fields, segment: &SegmentReader) -> tantivy::Result<Scores> {
        let mut all: Option<Scores> = None;
        for phrase in &self.phrases {
            let mut best = Scores::none(segment);
            for way in &phrase.ways {
                way.score(fields, segment, &mut best)?;
            }
            all = Some(match all {
                None => best,
                Some(before) => before.together(best),
            });
        }
        Ok(all.unwrap_or_else(|| Scores::none(segment)))
    }

    pub(crate) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for way in self.phrases.iter().flat_map(|phrase| &phrase.ways) {
            for Sought { word, stem } in &way.words {
                marks.stems.insert(stem.clone());
                marks.words.insert(word.clone());
            }
            marks.prefixes.extend(way.words.last().filter(|_| way.prefix).map(|last| last.word.clone()));
        }
        marks
    }
}

impl Way {
    /// Raise the scores of what has all of its words.
    fn score(&self, fields: &Fields, segment: &SegmentReader, best: &mut Scores) -> tantivy::Result<()> {
        let Some((last, before)) = self.words.split_last() else { return Ok(()) };
        // A phrase of several words counts as one.
        let weight = self.weight / self.words.len() as f32;
        if before.is_empty() {
            return best.raise_by_word(fields, segment, last, self.prefix, weight);
        }
        let mut all = Scores::none(segment);
        all.raise_by_word(fields, segment, last, self.prefix, weight)?;
        for word in before {
            let mut scores = Scores::none(segment);
            scores.raise_by_word(fields, segment, word, false, weight)?;
            all = all.together(scores);
        }
        for doc in all.docs.ones() {
            best.raise(doc, all.scores[doc]);
        }
        Ok(())
    }
}

/// How well documents of a segment have what is wanted.
#[derive(Debug)]
pub(crate) struct Scores {
    /// Those that have it.
    pub(crate) docs: FixedBitSet,
    /// By document.
    pub(crate) scores: Vec<Score>,
}

impl Scores {
    fn none(segment: &SegmentReader) -> Self {
        let docs = segment.max_doc() as usize;
        Self { docs: FixedBitSet::with_capacity(docs), scores: vec![0.0; docs] }
    }

    fn raise(&mut self, doc: usize, score: Score) {
        self.docs.insert(doc);
        self.scores[doc] = self.scores[doc].max(score);
    }

    /// What has both, with the sum of how well.
    fn together(mut self, other: Self) -> Self {
        self.docs.intersect_with(&other.docs);
        for doc in self.docs.ones() {
            self.scores[doc] += other.scores[doc];
        }
        self
    }

    /// Raise the scores of what has a word.
    fn raise_by_word(
        &mut self,
        fields: &Fields,
        segment: &SegmentReader,
        Sought { word, stem }: &Sought,
        prefix: bool,
        weight: f32,
    ) -> tantivy::Result<()> {
        let index = segment.inverted_index(fields.words)?;
        let mut terms = index.terms().range().ge(word).into_stream()?;
        while terms.advance() {
            let Some(worth) = worth(terms.key(), word, prefix) else { break };
            if worth > 0.0 {
                self.raise_by_term(&index, terms.value(), worth * weight)?;
            }
        }
        if let Some(term) = index.terms().get(Has::Stem.term(stem))? {
            self.raise_by_term(&index, &term, Has::Stem.boost() * STEM * weight)?;
        }
        Ok(())
    }

    fn raise_by_term(&mut self, index: &InvertedIndexReader, term: &TermInfo, score: Score) -> tantivy::Result<()> {
        let mut postings = index.read_postings_from_terminfo(term, IndexRecordOption::Basic)?;
        let mut doc = postings.doc();
        while doc != TERMINATED {
            self.raise(doc as usize, score);
            doc = postings.advance();
        }
        Ok(())
    }
}

impl ListingSnapshot {
    /// Whether anything has the words of one of these ways.
    fn has_any(&self, ways: &[Way]) -> Result<bool, IndexError> {
        for way in ways {
            let mut all = true;
            let last = way.words.len().saturating_sub(1);
            for (at, word) in way.words.iter().enumerate() {
                all &= self.has(word, way.prefix && at == last)?;
            }
            if all {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has(&self, Sought { word, stem }: &Sought, prefix: bool) -> Result<bool, IndexError> {
        for segment in &self.segments.segments {
            let index = segment.reader.inverted_index(self.fields.words)?;
            let failed = tantivy::TantivyError::from;
            let mut terms = index.terms().range().ge(word).into_stream().map_err(failed)?;
            while terms.advance() {
                let Some(worth) = worth(terms.key(), word, prefix) else { break };
                if worth > 0.0 {
                    return Ok(true);
                }
            }
            if index.terms().get(Has::Stem.term(stem)).map_err(failed)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The words of the index that this one may have been meant to be, the likeliest first.
    fn like(&self, word: &str, prefix: bool) -> Result<Vec<String>, IndexError> {
        let Some(distance) = typos(word) else { return Ok(Vec::new()) };
        // By word: how far it is, and how many listings have it, by how much that counts.
        let mut likely: BTreeMap<String, (usize, f32)> = BTreeMap::new();
        let term = Term::from_field_text(self.fields.words, word);
        let wanted = if prefix {
            FuzzyTermQuery::new_prefix(term, distance, true)
        } else {
            FuzzyTermQuery::new(term, distance, true)
        };
        for segment in &self.segments.segments {
            let index = segment.reader.inverted_index(self.fields.words)?;
            let found = index.terms().search(OfTerm(wanted.automaton()?)).into_stream();
            let mut found = found.map_err(tantivy::TantivyError::from)?;
            while found.advance() {
                let Some((other, has)) = Has::read(found.key()) else { continue };
                let whole = strsim::osa_distance(word, other);
                let is_meant = !prefix || has.may_be_begun() || whole <= usize::from(distance);
                if other == word || has == Has::Stem || !is_meant {
                    continue;
                }
                let far = if prefix {
                    let begun: String = other.chars().take(word.chars().count()).collect();
                    whole.min(strsim::osa_distance(word, &begun))
                } else {
                    whole
                };
                let known = likely.entry(other.to_owned()).or_insert((far, 0.0));
                known.1 += has.boost() * found.value().doc_freq as f32;
            }
        }
        let first = word.chars().next();
        let mut likely: Vec<(String, usize, f32)> =
            likely.into_iter().map(|(other, (far, weight))| (other, far, weight)).collect();
        // People seldom mistype the first letter.
        likely.sort_by(|(a, a_far, a_weight), (b, b_far, b_weight)| {
            (a_far, a.chars().next() != first)
                .cmp(&(b_far, b.chars().next() != first))
                .then(b_weight.total_cmp(a_weight))
                .then_with(|| a.cmp(b))
        });
        let nearest = likely.first().map_or(0, |(_, far, _)| *far);
        likely.retain(|(_, far, _)| *far <= nearest);
        likely.truncate(MOST_CORRECTIONS);
        Ok(likely.into_iter().map(|(other, ..)| other).collect())
    }
}

/// The terms whose words are accepted.
struct OfTerm<A>(A);

impl<A: Automaton> Automaton for OfTerm<A> {
    /// In the word; or after it, and whether it is accepted.
    type State = ControlFlow<bool, A::State>;

    fn start(&self) -> Self::State {
        ControlFlow::Continue(self.0.start())
    }

    fn is_match(&self, state: &Self::State) -> bool {
        matches!(state, ControlFlow::Break(true))
    }

    fn can_match(&self, state: &Self::State) -> bool {
        match state {
            ControlFlow::Continue(state) => self.0.can_match(state),
            ControlFlow::Break(accepted) => *accepted,
        }
    }

    fn accept(&self, state: &Self::State, byte: u8) -> Self::State {
        match state {
            ControlFlow::Continue(state) if char::from(byte) == AFTER_WORD => {
                ControlFlow::Break(self.0.is_match(state))
            }
            ControlFlow::Continue(state) => ControlFlow::Continue(self.0.accept(state, byte)),
            ControlFlow::Break(accepted) => ControlFlow::Break(*accepted),
        }
    }
}

/// How much a term counts where a word is looked for; none when it neither is the word nor, where it may, goes on from it.
fn worth(term: &[u8], word: &str, goes_on: bool) -> Option<f32> {
    match Has::read(term)? {
        (other, Has::Stem) if other == word => Some(0.0),
        (other, has) if other == word => Some(has.boost()),
        (other, has) if goes_on && other.starts_with(word) => {
            Some(if has.may_be_begun() { has.boost() * PREFIX } else { 0.0 })
        }
        _ => None,
    }
}

/// How many letters of a word may be wrong; short words and those with digits are as they are.
fn typos(word: &str) -> Option<u8> {
    if word.chars().any(|letter| letter.is_ascii_digit()) {
        return None;
    }
    match word.chars().count() {
        0..=3 => None,
        4..=7 => Some(1),
        _ => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use schemas::Position;

    use crate::{
        index::{Entry, ListingIndex},
        listing::{Listing, ListingStatus},
        reflected::Reflected,
    };

    #[test]
    fn a_mistyped_word_is_like_the_words_it_may_have_been_meant_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = ListingIndex::open(folder.path()).unwrap();
        let listing = Listing {
            status: ListingStatus::Public,
            title: Some("Subaru Honda Civic Wrangler Ford".to_owned()),
            description: Some("windy, and vancouver".to_owned()),
            ..Listing::default()
        };
        let entry = Entry { key: "listing/1", state: b"{}", listing: Some(&listing) };
        index.put(&entry, Position::START).unwrap();
        let snapshot = index.refresh(Reflected::default()).unwrap();
        // As it is typed, with what it is like when it is whole, and when it may go on.
        let words: [(&str, &[&str], &[&str]); 12] = [
            ("hnda", &["honda"], &["honda"]),
            ("subarrru", &["subaru"], &["subaru"]),
            ("wrangleeer", &["wrangler"], &["wrangler"]),
            ("vancouveeer", &["vancouver"], &["vancouver"]),
            ("wrangelr", &["wrangler"], &["wrangler"]),
            ("wrangx", &[], &["wrangler"]),
            ("vancox", &[], &[]),
            ("wind", &["windy"], &["windy"]),
            ("civicon", &[], &[]),
            ("fordon", &[], &[]),
            ("civics", &["civic"], &["civic"]),
            ("civ", &[], &[]),
        ];
        for (typed, whole, begun) in words {
            let like = [false, true].map(|prefix| snapshot.like(typed, prefix).unwrap());
            assert_eq!(like, [whole, begun], "{typed}");
        }
    }
}
